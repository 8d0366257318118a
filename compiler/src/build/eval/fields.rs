//! Parts of values: `x.channels`, `counts[i]`, `xs[:, t]`.

use nnc_dsl::Span;
use nnc_dsl::ast::{Expr, Ident, Subscript};

use super::super::hints;
use super::super::values::{Eval, Value};
use super::{Evaluator, Site};
use crate::graph::{Dim, NodeId, Op};

/// The fields of a tensor, and which tensors have them.
const FIELDS: [(&str, &str); 11] = [
    ("shape", "any tensor"),
    ("rank", "any tensor"),
    ("dtype", "any tensor"),
    ("batch", "tensors of rank 1 and more"),
    ("channels", "tensors of rank 2 and more: [N, C, ..]"),
    ("height", "tensors of rank 4: [N, C, H, W]"),
    ("width", "tensors of rank 4: [N, C, H, W]"),
    ("length", "tensors of rank 3: [N, C, L]"),
    ("time", "tensors of rank 3: [N, T, features]"),
    ("features", "tensors of rank 1 and more: the last axis"),
    ("size", "any tensor: the number of elements"),
];

impl Evaluator<'_> {
    /// `value.name`
    pub(super) fn field(&mut self, value: &Expr, name: &Ident) -> Eval<Value> {
        let whole = self.expr(value)?;
        match &whole {
            Value::Tensor(node) => self.tensor_field(*node, name),
            Value::Pair(h, w) => match name.name.as_str() {
                "height" => Ok(Value::Int(*h)),
                "width" => Ok(Value::Int(*w)),
                _ => Err(self.unknown_field(&whole, name, &["height", "width"])),
            },
            Value::Tuple(t) => match t.names.iter().position(|n| *n == name.name) {
                Some(i) => Ok(t.parts[i].clone()),
                None => {
                    let names: Vec<&str> = t.names.iter().map(String::as_str).collect();
                    Err(self.unknown_field(&whole, name, &names))
                }
            },
            _ => Err(self.unknown_field(&whole, name, &[])),
        }
    }

    fn tensor_field(&mut self, node: NodeId, name: &Ident) -> Eval<Value> {
        let ty = self.graph.node(node).ty.clone();
        let rank = ty.rank();
        let axis = match name.name.as_str() {
            "shape" => return Ok(Value::list(ty.shape.into_iter().map(Value::dim).collect())),
            "rank" => return Ok(Value::Int(rank as i64)),
            "dtype" => return Ok(Value::DType(ty.dtype)),
            "size" => {
                let product = ty.shape.into_iter().fold(Dim::constant(1), |a, b| a * b);
                return Ok(Value::dim(product));
            }
            "batch" if rank >= 1 => 0,
            "channels" if rank >= 2 => 1,
            "height" if rank == 4 => 2,
            "width" if rank == 4 => 3,
            "length" if rank == 3 => 2,
            "time" if rank == 3 => 1,
            "features" if rank >= 1 => rank - 1,
            other => {
                let whole = Value::Tensor(node);
                let Some((_, who)) = FIELDS.iter().find(|(n, _)| *n == other) else {
                    return Err(self.unknown_field(&whole, name, &FIELDS.map(|(n, _)| n)));
                };
                let title = format!("a tensor of rank {rank} has no `{other}`");
                let mut d = self.located(title, name.span, format!("this is {ty}"));
                d.help = Some(format!("`{other}` is of {who}"));
                if let Some(chain) = self.chain(node) {
                    d.notes.insert(0, chain);
                }
                return Err(self.report(d));
            }
        };
        Ok(Value::dim(ty.shape[axis].clone()))
    }

    fn unknown_field(&mut self, whole: &Value, name: &Ident, fields: &[&str]) -> super::Reported {
        let help = hints::did_you_mean(&name.name, fields.iter().copied()).or_else(|| {
            let list: Vec<String> = fields.iter().map(|f| format!("`{f}`")).collect();
            (!list.is_empty()).then(|| format!("there are {}", list.join(", ")))
        });
        let title = format!("{} has no field `{}`", whole.describe(&self.graph), name.name);
        self.error_help(title, name.span, "unknown field", help)
    }

    /// `value[subscripts]`
    pub(super) fn index(&mut self, value: &Expr, subscripts: &[Subscript], span: Span) -> Eval<Value> {
        let whole = self.expr(value)?;
        let items = match &whole {
            Value::Tensor(node) => return self.index_tensor(*node, subscripts, span),
            Value::List(items) => items.to_vec(),
            Value::Tuple(t) => t.parts.clone(),
            Value::Pair(h, w) => vec![Value::Int(*h), Value::Int(*w)],
            other => {
                let message = format!("this is {}", other.describe(&self.graph));
                return Err(self.error("only tensors and lists have elements", value.span, message));
            }
        };
        self.charge(items.len(), span)?;
        let len = items.len() as i64;
        match subscripts {
            [Subscript::At(e)] => {
                let i = self.integer(e)?;
                let at = if i < 0 { i + len } else { i };
                match items.get(usize::try_from(at).unwrap_or(usize::MAX)) {
                    Some(item) => Ok(item.clone()),
                    None => {
                        let message = format!("the list has {len} elements, the first is 0");
                        Err(self.error(format!("no element {i}"), e.span, message))
                    }
                }
            }
            [Subscript::Slice(a, b)] => {
                let end = |ev: &mut Self, e: &Option<Expr>, default: i64| -> Eval<i64> {
                    let i = e.as_ref().map_or(Ok(default), |e| ev.integer(e))?;
                    Ok(if i < 0 { i.saturating_add(len) } else { i }.clamp(0, len))
                };
                let (from, to) = (end(self, a, 0)?, end(self, b, len)?);
                Ok(Value::list(items[from as usize..(to.max(from)) as usize].to_vec()))
            }
            _ => Err(self.error("a list has one subscript", span, format!("found {}", subscripts.len()))),
        }
    }

    fn index_tensor(&mut self, node: NodeId, subscripts: &[Subscript], span: Span) -> Eval<Value> {
        let ty = self.graph.node(node).ty.clone();
        if subscripts.len() > ty.rank() {
            let title = format!("expected at most {} subscripts, found {}", ty.rank(), subscripts.len());
            return Err(self.error(title, span, format!("the tensor is {ty}")));
        }
        let name = self.node_name("slice", &Site::at(span))?;
        let mut value = node;
        let mut dropped = vec![];
        for (axis, s) in subscripts.iter().enumerate() {
            let size = ty.shape[axis].clone();
            let (start, end) = match s {
                Subscript::At(e) => {
                    dropped.push(axis);
                    let i = self.subscript(e, &size, axis)?;
                    (i.clone(), i + Dim::constant(1))
                }
                Subscript::Slice(None, None) => continue,
                Subscript::Slice(a, b) => {
                    let start = a.as_ref().map_or(Ok(Dim::constant(0)), |e| self.bound(e, &size))?;
                    let end = b.as_ref().map_or(Ok(size.clone()), |e| self.bound(e, &size))?;
                    (start, end)
                }
            };
            value = self.add_named(Op::Slice { axis, start, end, step: 1 }, &[value], &name, span)?;
        }
        if !dropped.is_empty() {
            let shape = self.graph.node(value).ty.shape.clone();
            let left = shape.into_iter().enumerate().filter(|(i, _)| !dropped.contains(i)).map(|(_, d)| d);
            value = self.add_named(Op::Reshape(left.collect()), &[value], &name, span)?;
        }
        Ok(Value::Tensor(value))
    }

    /// An index that must be in range as far as that is known; negative ones count from the end.
    fn subscript(&mut self, e: &Expr, size: &Dim, axis: usize) -> Eval<Dim> {
        let i = self.bound(e, size)?;
        if let (Some(i), Some(n)) = (i.known(), size.known())
            && !(0..n).contains(&i)
        {
            let message = format!("axis {axis} has size {n}, the first index is 0");
            return Err(self.error(format!("no index {i}"), e.span, message));
        }
        Ok(i)
    }

    fn bound(&mut self, e: &Expr, size: &Dim) -> Eval<Dim> {
        let value = self.expr(e)?;
        match value.as_dim() {
            Some(d) if d.known().is_some_and(|n| n < 0) => Ok(size.clone() + d),
            Some(d) => Ok(d),
            None => Err(self.not_an_integer(&value, e.span)),
        }
    }
}
