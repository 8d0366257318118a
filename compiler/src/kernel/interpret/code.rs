//! Kernels resolved for interpretation: types chosen, names and strides looked up once.

use nnc_runtime::DType;

use super::arithmetic::{self, Binary, Unary};
use crate::kernel::block::Part;
use crate::kernel::index::Atom;
use crate::kernel::verify::{Problem, types};
use crate::kernel::{BinOp, BufferId, Expr, Guard, Index, Joint, Kernel, LoopKind, Stmt};

/// An index: fast if it is affine.
pub enum Lin {
    Affine(i64, Vec<(u32, i64)>),
    General(Index),
}

impl Lin {
    fn new(i: &Index) -> Lin {
        let term = |(a, c): (&Atom, &i64)| match a {
            Atom::Var(v) => Some((v.0, *c)),
            Atom::Div(..) | Atom::Mod(..) => None,
        };
        match i.terms.iter().map(term).collect() {
            Some(terms) => Lin::Affine(i.constant, terms),
            None => Lin::General(i.clone()),
        }
    }

    pub fn eval(&self, vars: &[i64]) -> i64 {
        match self {
            Lin::Affine(c, terms) => terms.iter().fold(*c, |sum, &(v, c)| sum + c * vars[v as usize]),
            Lin::General(i) => i.eval(vars),
        }
    }
}

/// One dimension of an access.
pub struct Dim {
    pub at: Lin,
    pub size: usize,
    pub stride: usize,
}

pub struct Place {
    pub buffer: usize,
    pub dims: Vec<Dim>,
}

pub enum Code {
    Const(u32),
    Index(Lin),
    Load(Place),
    Gather(Place, usize, Box<Code>),
    Guarded(Vec<Lin>, Box<Code>, Box<Code>),
    Select(Box<Code>, Box<Code>, Box<Code>),
    Unary(Unary, Box<Code>),
    Binary(Binary, Box<Code>, Box<Code>),
    Fma(Box<Code>, Box<Code>, Box<Code>),
    Let(usize, Box<Code>, Box<Code>),
    Local(usize),
}

/// What the threads of a block do together.
pub enum Together {
    Barrier,
    Copy {
        to: Place,
        from: Place,
        elements: usize,
        guards: Vec<Lin>,
    },
    Commit,
    Wait(usize),
    /// Sum, first and second factor: buffers, and where their matrices begin.
    Multiply([(usize, Lin); 3]),
    Combine(Place, BinOp),
}

pub enum Step {
    Loop(usize, usize, LoopKind, Vec<Step>),
    If(Vec<Lin>, Vec<Step>),
    Store(Place, Code),
    Together(Together),
}

pub struct Compiler<'a> {
    pub kernel: &'a Kernel,
    locals: types::Locals,
    /// The number of names that a store needs at most.
    pub slots: usize,
}

impl<'a> Compiler<'a> {
    pub fn new(kernel: &'a Kernel) -> Compiler<'a> {
        Compiler { kernel, locals: types::Locals::new(), slots: 0 }
    }

    pub fn body(&mut self, body: &[Stmt]) -> Result<Vec<Step>, Problem> {
        body.iter().filter_map(|s| self.stmt(s).transpose()).collect()
    }

    /// What the statement does, if anything.
    fn stmt(&mut self, s: &Stmt) -> Result<Option<Step>, Problem> {
        Ok(Some(match s {
            Stmt::Loop { var, kind, body } => {
                let v = var.0 as usize;
                Step::Loop(v, self.kernel.vars[v].extent, *kind, self.body(body)?)
            }
            Stmt::If { guards, body } => Step::If(lins(guards), self.body(body)?),
            Stmt::Store { buffer, index, value } => {
                self.locals.clear();
                let (code, dtype) = self.expr(value)?;
                let place = self.place(*buffer, index)?;
                let expected = self.kernel.buffer_of(*buffer).dtype;
                if dtype != expected {
                    let place = self.kernel.buffer_of(*buffer).name.clone();
                    return Err(Problem::Type { place, expected: expected.to_string(), found: dtype });
                }
                Step::Store(place, code)
            }
            Stmt::Prefetch { .. } => return Ok(None),
            Stmt::Joint(joint) => Step::Together(self.joint(joint)?),
        }))
    }

    fn joint(&self, joint: &Joint) -> Result<Together, Problem> {
        Ok(match joint {
            Joint::Barrier => Together::Barrier,
            Joint::Copy { to, index, from, at, elements, guards } => Together::Copy {
                to: self.place(*to, index)?,
                from: self.place(*from, at)?,
                elements: *elements,
                guards: lins(guards),
            },
            Joint::Commit => Together::Commit,
            Joint::Wait { open } => Together::Wait(*open),
            Joint::Multiply { sum, first, second } => {
                Together::Multiply([self.part(sum)?, self.part(first)?, self.part(second)?])
            }
            Joint::Combine { op, buffer, index } => Together::Combine(self.place(*buffer, index)?, *op),
        })
    }

    /// The buffer of a matrix, and its first element.
    fn part(&self, part: &Part) -> Result<(usize, Lin), Problem> {
        let id = part.buffer.0 as usize;
        let b = self.kernel.buffers.get(id).ok_or(Problem::UnknownBuffer(part.buffer.0))?;
        if b.shape.len() != part.index.len() + 2 {
            let access = b.name.clone();
            return Err(Problem::Rank { access, expected: b.shape.len(), found: part.index.len() + 2 });
        }
        Ok((id, Lin::new(&self.kernel.flat(part.buffer, &part.index))))
    }

    fn place(&self, buffer: BufferId, index: &[Index]) -> Result<Place, Problem> {
        let id = buffer.0 as usize;
        let b = self.kernel.buffers.get(id).ok_or(Problem::UnknownBuffer(buffer.0))?;
        if b.shape.len() != index.len() {
            let access = b.name.clone();
            return Err(Problem::Rank { access, expected: b.shape.len(), found: index.len() });
        }
        let dims = index.iter().zip(&b.shape).zip(&b.strides);
        let dims = dims.map(|((i, &size), &stride)| Dim { at: Lin::new(i), size, stride }).collect();
        Ok(Place { buffer: id, dims })
    }

    fn expr(&mut self, e: &Expr) -> Result<(Code, DType), Problem> {
        if let Expr::Let(name, value, inner) = e {
            let (value, dtype) = self.expr(value)?;
            self.locals.insert(*name, dtype);
            self.slots = self.slots.max(name.0 as usize + 1);
            let (inner, dtype) = self.expr(inner)?;
            return Ok((Code::Let(name.0 as usize, Box::new(value), Box::new(inner)), dtype));
        }
        let dtype = match e {
            Expr::Unary(..) | Expr::Binary(..) | Expr::Cast(..) | Expr::Select(..) | Expr::Guarded { .. } => {
                None
            }
            _ => Some(types::type_of(self.kernel, &mut self.locals.clone(), e)?),
        };
        let mut sub = |e: &Expr| -> Result<(Box<Code>, DType), Problem> {
            let (code, dtype) = self.expr(e)?;
            Ok((Box::new(code), dtype))
        };
        let (code, found) = match e {
            Expr::Const(dtype, c) => (Code::Const(arithmetic::constant(*dtype, *c)), *dtype),
            Expr::Index(i) => (Code::Index(Lin::new(i)), DType::I32),
            Expr::Load(b, i) => (Code::Load(self.place(*b, i)?), DType::F32),
            Expr::Gather { buffer, index, axis, at } => {
                let (at, _) = sub(at)?;
                (Code::Gather(self.place(*buffer, index)?, *axis, at), DType::F32)
            }
            Expr::Guarded { guards, value, otherwise } => {
                let ((a, dtype), (b, _)) = (sub(value)?, sub(otherwise)?);
                (Code::Guarded(lins(guards), a, b), dtype)
            }
            Expr::Select(c, a, b) => {
                let ((c, _), (a, dtype), (b, _)) = (sub(c)?, sub(a)?, sub(b)?);
                (Code::Select(c, a, b), dtype)
            }
            Expr::Unary(op, a) => {
                let (a, dtype) = sub(a)?;
                let (f, result) = arithmetic::unary(*op, dtype);
                (Code::Unary(f, a), result)
            }
            Expr::Binary(op, a, b) => {
                let ((a, dtype), (b, _)) = (sub(a)?, sub(b)?);
                let (f, result) = arithmetic::binary(*op, dtype);
                (Code::Binary(f, a, b), result)
            }
            Expr::Fma(a, b, c) => {
                let ((a, _), (b, _), (c, _)) = (sub(a)?, sub(b)?, sub(c)?);
                (Code::Fma(a, b, c), DType::F32)
            }
            Expr::Cast(to, a) => {
                let (a, from) = sub(a)?;
                (Code::Unary(arithmetic::cast(from, *to), a), *to)
            }
            Expr::Local(name) => (Code::Local(name.0 as usize), DType::F32),
            Expr::Let(..) => unreachable!("handled above"),
        };
        Ok((code, dtype.unwrap_or(found)))
    }
}

fn lins(guards: &[Guard]) -> Vec<Lin> {
    guards.iter().map(|g| Lin::new(&g.0)).collect()
}
