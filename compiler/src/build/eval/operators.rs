//! Operators: on compile-time values arithmetic, on tensors elementwise with NumPy's broadcasting.

use nnc_dsl::Span;
use nnc_dsl::ast::{BinaryOp, Expr, UnaryOp};
use nnc_runtime::DType;

use super::super::values::{Eval, Reported, Value};
use super::{Evaluator, Site};
use crate::graph::op::{Binary, Unary};
use crate::graph::{Dim, NodeId, Op};

/// Longest text of a symbolic size.
const MAX_SIZE_TEXT: usize = 500;

/// An operand: its value and its text.
#[derive(Clone, Copy)]
struct Operand<'v> {
    value: &'v Value,
    span: Span,
}

impl Evaluator<'_> {
    pub(super) fn unary(&mut self, op: UnaryOp, a: &Expr, span: Span) -> Eval<Value> {
        let value = self.expr(a)?;
        match (op, &value) {
            (UnaryOp::Neg, Value::Int(n)) => {
                n.checked_neg().map(Value::Int).ok_or_else(|| self.overflow(span))
            }
            (UnaryOp::Neg, Value::Float(x)) => Ok(Value::Float(-x)),
            (UnaryOp::Neg, Value::Dim(d)) => Ok(Value::dim(Dim::constant(0) - d.clone())),
            (UnaryOp::Neg, Value::Tensor(n)) => {
                self.add(Op::Unary(Unary::Neg), &[*n], "neg", &Site::at(span)).map(Value::Tensor)
            }
            (UnaryOp::Not, Value::Bool(b)) => Ok(Value::Bool(!b)),
            (UnaryOp::Not, Value::Tensor(n)) => {
                self.add(Op::Unary(Unary::Not), &[*n], "not", &Site::at(span)).map(Value::Tensor)
            }
            (UnaryOp::Neg, other) => {
                let message = format!("this is {}", other.describe(&self.graph));
                Err(self.error("`-` expects a number or a tensor", a.span, message))
            }
            (UnaryOp::Not, other) => {
                let message = format!("this is {}", other.describe(&self.graph));
                Err(self.error("`not` expects true or false, or a tensor of them", a.span, message))
            }
        }
    }

    pub(super) fn binary(&mut self, op: BinaryOp, a: &Expr, b: &Expr, span: Span) -> Eval<Value> {
        let left = self.expr(a);
        // `and`, `or` do not look at the right side where the left one decides.
        match (op, &left) {
            (BinaryOp::And, Ok(Value::Bool(false))) => return Ok(Value::Bool(false)),
            (BinaryOp::Or, Ok(Value::Bool(true))) => return Ok(Value::Bool(true)),
            _ => {}
        }
        let right = self.expr(b);
        let (left, right) = (left?, right?);
        let (x, y) = (Operand { value: &left, span: a.span }, Operand { value: &right, span: b.span });
        if matches!(left, Value::Tensor(_)) || matches!(right, Value::Tensor(_)) {
            return self.on_tensors(op, x, y, span);
        }
        match op {
            BinaryOp::And | BinaryOp::Or => match (&left, &right) {
                (Value::Bool(p), Value::Bool(q)) => {
                    Ok(Value::Bool(if op == BinaryOp::And { *p && *q } else { *p || *q }))
                }
                _ => Err(self.bad_operands(op, x, y)),
            },
            BinaryOp::Eq | BinaryOp::Ne => {
                let equal = self.equal(x, y, span)?;
                Ok(Value::Bool(equal == (op == BinaryOp::Eq)))
            }
            BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge => self.order(op, x, y, span),
            BinaryOp::In | BinaryOp::NotIn => {
                let Value::List(items) = &right else {
                    let message = format!("this is {}", right.describe(&self.graph));
                    return Err(self.error(
                        format!("`{}` expects a list on its right", op.symbol()),
                        b.span,
                        message,
                    ));
                };
                let mut found = false;
                for item in items.iter() {
                    found |= self.equal(x, Operand { value: item, span: b.span }, span)?;
                }
                Ok(Value::Bool(found == (op == BinaryOp::In)))
            }
            _ => self.arithmetic(op, x, y, span),
        }
    }

    fn arithmetic(&mut self, op: BinaryOp, x: Operand, y: Operand, span: Span) -> Eval<Value> {
        match (x.value, y.value) {
            (Value::Int(a), Value::Int(b)) => self.integers(op, *a, *b, span),
            (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
                let a = x.value.as_number().unwrap_or(f64::NAN);
                let b = y.value.as_number().unwrap_or(f64::NAN);
                Ok(Value::Float(match op {
                    BinaryOp::Add => a + b,
                    BinaryOp::Sub => a - b,
                    BinaryOp::Mul => a * b,
                    BinaryOp::Div if b == 0.0 => return Err(self.error("division by zero", span, "")),
                    BinaryOp::Div => a / b,
                    BinaryOp::Rem => a.rem_euclid(b),
                    _ => a.powf(b),
                }))
            }
            (Value::Dim(_), Value::Int(_) | Value::Dim(_)) | (Value::Int(_), Value::Dim(_)) => {
                self.sizes_arithmetic(op, x, y, span)
            }
            (Value::Pair(h, w), Value::Pair(i, j)) => {
                let pair = (self.integers(op, *h, *i, span)?, self.integers(op, *w, *j, span)?);
                self.as_pair(pair, op, x, y)
            }
            (Value::Pair(h, w), Value::Int(n)) => {
                let pair = (self.integers(op, *h, *n, span)?, self.integers(op, *w, *n, span)?);
                self.as_pair(pair, op, x, y)
            }
            (Value::List(a), Value::List(b)) if op == BinaryOp::Add => {
                self.charge(a.len() + b.len(), span)?;
                Ok(Value::list(a.iter().chain(b.iter()).cloned().collect()))
            }
            _ => Err(self.bad_operands(op, x, y)),
        }
    }

    fn as_pair(&mut self, pair: (Value, Value), op: BinaryOp, x: Operand, y: Operand) -> Eval<Value> {
        match pair {
            (Value::Int(h), Value::Int(w)) => Ok(Value::Pair(h, w)),
            _ => Err(self.bad_operands(op, x, y)),
        }
    }

    fn integers(&mut self, op: BinaryOp, a: i64, b: i64, span: Span) -> Eval<Value> {
        let result = match op {
            BinaryOp::Add => a.checked_add(b),
            BinaryOp::Sub => a.checked_sub(b),
            BinaryOp::Mul => a.checked_mul(b),
            BinaryOp::Div | BinaryOp::Rem if b == 0 => return Err(self.error("division by zero", span, "")),
            BinaryOp::Div if a.checked_rem(b).is_some_and(|r| r != 0) => {
                return Err(self.error_help(
                    format!("{a} / {b} is not an integer"),
                    span,
                    "integers divide exactly, or not at all",
                    Some(format!("`floor_div({a}, {b})` rounds down; `{a}.0 / {b}` is a fraction")),
                ));
            }
            BinaryOp::Div => a.checked_div(b),
            BinaryOp::Rem => a.checked_rem_euclid(b),
            _ if b < 0 => return Ok(Value::Float((a as f64).powf(b as f64))),
            _ => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        };
        result.map(Value::Int).ok_or_else(|| self.overflow(span))
    }

    fn overflow(&mut self, span: Span) -> Reported {
        self.error("the result does not fit a 64-bit integer", span, "overflows here")
    }

    /// Arithmetic on sizes of which at least one is symbolic; stays symbolic.
    fn sizes_arithmetic(&mut self, op: BinaryOp, x: Operand, y: Operand, span: Span) -> Eval<Value> {
        let (Some(a), Some(b)) = (x.value.as_dim(), y.value.as_dim()) else {
            return Err(self.bad_operands(op, x, y));
        };
        let result = match op {
            BinaryOp::Add => a + b,
            BinaryOp::Sub => a - b,
            BinaryOp::Mul => a * b,
            BinaryOp::Div => match a.exact_div(&b) {
                Some(d) => d,
                None => {
                    return Err(self.error_help(
                        format!("`{a} / {b}` is not exact for every size"),
                        span,
                        "integers divide exactly, or not at all",
                        Some(
                            "use `floor_div` or `ceil_div`, or make the size known with `--set`".to_string(),
                        ),
                    ));
                }
            },
            BinaryOp::Rem => match (a.exact_div(&b), b.known()) {
                (Some(_), _) => Dim::constant(0),
                (None, _) => {
                    let floor = a.floor_div(&b);
                    a - floor * b
                }
            },
            _ => return Err(self.bad_operands(op, x, y)),
        };
        // Polynomials grow fast; no size of a network is longer than a line.
        if result.to_string().len() > MAX_SIZE_TEXT {
            let help = self.set_hint(&result);
            return Err(self.error_help("the size is too complicated to follow", span, "", help));
        }
        Ok(Value::dim(result))
    }

    /// Whether two values are equal; an error where that depends on a symbol.
    fn equal(&mut self, x: Operand, y: Operand, span: Span) -> Eval<bool> {
        self.tick(span)?;
        Ok(match (x.value, y.value) {
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Dim(_), Value::Int(_) | Value::Dim(_)) | (Value::Int(_), Value::Dim(_)) => {
                return self.difference(x, y, span).map(|d| d == 0);
            }
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Str(a), Value::Str(b)) => a == b,
            (Value::Pair(a, b), Value::Pair(c, d)) => (a, b) == (c, d),
            (Value::Pair(a, b), Value::Int(n)) | (Value::Int(n), Value::Pair(a, b)) => a == n && b == n,
            (Value::DType(a), Value::DType(b)) => a == b,
            (Value::None, Value::None) => true,
            (Value::None, _) | (_, Value::None) => false,
            (Value::List(a), Value::List(b)) => {
                let mut equal = a.len() == b.len();
                for (p, q) in a.iter().zip(b.iter()) {
                    equal = equal
                        && self.equal(
                            Operand { value: p, span: x.span },
                            Operand { value: q, span: y.span },
                            span,
                        )?;
                }
                equal
            }
            (a, b) => match (a.as_number(), b.as_number()) {
                (Some(a), Some(b)) => a == b,
                _ => return Err(self.bad_operands(BinaryOp::Eq, x, y)),
            },
        })
    }

    /// `x - y` of sizes, where that is known.
    fn difference(&mut self, x: Operand, y: Operand, span: Span) -> Eval<i64> {
        let (Some(a), Some(b)) = (x.value.as_dim(), y.value.as_dim()) else {
            return Err(self.bad_operands(BinaryOp::Sub, x, y));
        };
        let d = a.clone() - b.clone();
        match d.known() {
            Some(n) => Ok(n),
            None => {
                let help = self.set_hint(&d);
                Err(self.error_help(
                    format!("whether `{a}` and `{b}` are equal, or which is larger, is not known"),
                    span,
                    "a condition must be known when the program is compiled",
                    help,
                ))
            }
        }
    }

    fn order(&mut self, op: BinaryOp, x: Operand, y: Operand, span: Span) -> Eval<Value> {
        let ordering = match (x.value, y.value) {
            (Value::Dim(_), _) | (_, Value::Dim(_)) => Some(self.difference(x, y, span)?.cmp(&0)),
            (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
            (a, b) => match (a.as_number(), b.as_number()) {
                (Some(a), Some(b)) => a.partial_cmp(&b),
                _ => return Err(self.bad_operands(op, x, y)),
            },
        };
        Ok(Value::Bool(ordering.is_some_and(|o| match op {
            BinaryOp::Lt => o.is_lt(),
            BinaryOp::Le => o.is_le(),
            BinaryOp::Gt => o.is_gt(),
            _ => o.is_ge(),
        })))
    }

    fn bad_operands(&mut self, op: BinaryOp, x: Operand, y: Operand) -> Reported {
        let title = format!(
            "`{}` cannot be applied to {} and {}",
            op.symbol(),
            x.value.describe(&self.graph),
            y.value.describe(&self.graph)
        );
        self.error(title, x.span.to(y.span), "")
    }

    fn on_tensors(&mut self, op: BinaryOp, x: Operand, y: Operand, span: Span) -> Eval<Value> {
        let (binary, kind) = match op {
            BinaryOp::Add => (Binary::Add, "add"),
            BinaryOp::Sub => (Binary::Sub, "sub"),
            BinaryOp::Mul => (Binary::Mul, "mul"),
            BinaryOp::Div => (Binary::Div, "div"),
            BinaryOp::Pow => (Binary::Pow, "pow"),
            BinaryOp::Eq => (Binary::Eq, "eq"),
            BinaryOp::Ne => (Binary::Ne, "ne"),
            BinaryOp::Lt => (Binary::Lt, "lt"),
            BinaryOp::Le => (Binary::Le, "le"),
            BinaryOp::Gt => (Binary::Gt, "gt"),
            BinaryOp::Ge => (Binary::Ge, "ge"),
            BinaryOp::And => (Binary::And, "and"),
            BinaryOp::Or => (Binary::Or, "or"),
            BinaryOp::Rem | BinaryOp::In | BinaryOp::NotIn => return Err(self.bad_operands(op, x, y)),
        };
        let like = [x.value, y.value].into_iter().find_map(|v| match v {
            Value::Tensor(n) => Some(self.graph.node(*n).ty.dtype),
            _ => None,
        });
        let dtype = like.unwrap_or(DType::F32);
        let a = self.as_tensor(x.value, dtype, x.span)?;
        let b = self.as_tensor(y.value, dtype, y.span)?;
        self.add(Op::Binary(binary), &[a, b], kind, &Site::at(span)).map(Value::Tensor)
    }

    /// A tensor, or a number as one of that element type.
    pub(crate) fn as_tensor(&mut self, value: &Value, dtype: DType, span: Span) -> Eval<NodeId> {
        match value {
            Value::Tensor(n) => Ok(*n),
            Value::Float(x) if !dtype.is_float() => {
                let title = format!("the number {x:?} cannot be combined with a tensor of {dtype}");
                let help = "convert the tensor with `cast(f32)`".to_string();
                Err(self.error_help(title, span, "", Some(help)))
            }
            Value::Int(_) | Value::Float(_) if dtype != DType::Bool => {
                let x = value.as_number().unwrap_or(0.0);
                self.scalar(x, dtype, span)
            }
            Value::Bool(b) if dtype == DType::Bool => self.scalar(f64::from(u8::from(*b)), dtype, span),
            Value::Dim(d) => {
                let title = format!("the symbolic size `{d}` cannot be a number in a tensor");
                let help = self.set_hint(d);
                Err(self.error_help(title, span, "not known when the program is compiled", help))
            }
            other => {
                let message = format!("found {}", other.describe(&self.graph));
                let help = matches!(other, Value::List(_))
                    .then(|| "write a literal tensor with `const name = [[…]]`".to_string());
                Err(self.error_help(format!("expected a tensor of {dtype} or a number"), span, message, help))
            }
        }
    }
}
