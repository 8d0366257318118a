//! The types of kernel expressions. They are strict: nothing is converted but by `Cast`.

use std::collections::HashMap;

use nnc_runtime::DType;

use super::Problem;
use crate::kernel::{BinOp, Expr, Kernel, Local, UnOp, print};

/// The types of the names that are bound.
pub type Locals = HashMap<Local, DType>;

/// The type of an expression.
///
/// # Errors
/// The first operand of a wrong type, or a name that is not bound.
pub fn type_of(kernel: &Kernel, locals: &mut Locals, e: &Expr) -> Result<DType, Problem> {
    let expect = |e: &Expr, found: DType, allowed: &[DType]| -> Result<DType, Problem> {
        if allowed.contains(&found) {
            return Ok(found);
        }
        let expected = allowed.iter().map(|d| d.name()).collect::<Vec<_>>().join(" or ");
        Err(Problem::Type { place: print::expr(kernel, e), expected, found })
    };
    match e {
        Expr::Const(dtype, _) => expect(e, *dtype, &[DType::F32, DType::I32, DType::Bool]),
        Expr::Index(_) => Ok(DType::I32),
        Expr::Load(b, _) => Ok(buffer_type(kernel, b.0)?),
        Expr::Gather { buffer, at, .. } => {
            let found = type_of(kernel, locals, at)?;
            expect(at, found, &[DType::I32])?;
            buffer_type(kernel, buffer.0)
        }
        Expr::Guarded { value, otherwise, .. } => {
            let dtype = type_of(kernel, locals, value)?;
            let found = type_of(kernel, locals, otherwise)?;
            expect(otherwise, found, &[dtype])
        }
        Expr::Select(c, a, b) => {
            let found = type_of(kernel, locals, c)?;
            expect(c, found, &[DType::Bool])?;
            let dtype = type_of(kernel, locals, a)?;
            let found = type_of(kernel, locals, b)?;
            expect(b, found, &[dtype])
        }
        Expr::Unary(op, a) => {
            let found = type_of(kernel, locals, a)?;
            let (operands, result) = unary(*op);
            expect(a, found, operands)?;
            Ok(result.unwrap_or(found))
        }
        Expr::Binary(op, a, b) => {
            let dtype = type_of(kernel, locals, a)?;
            let (operands, result) = binary(*op);
            expect(a, dtype, operands)?;
            let found = type_of(kernel, locals, b)?;
            expect(b, found, &[dtype])?;
            Ok(result.unwrap_or(dtype))
        }
        Expr::Fma(a, b, c) => {
            for e in [a, b, c] {
                let found = type_of(kernel, locals, e)?;
                expect(e, found, &[DType::F32])?;
            }
            Ok(DType::F32)
        }
        Expr::Cast(dtype, a) => {
            type_of(kernel, locals, a)?;
            expect(e, *dtype, &[DType::F32, DType::I32, DType::Bool])
        }
        Expr::Let(name, value, body) => {
            let dtype = type_of(kernel, locals, value)?;
            if locals.insert(*name, dtype).is_some() {
                return Err(Problem::Local(name.0));
            }
            type_of(kernel, locals, body)
        }
        Expr::Local(name) => locals.get(name).copied().ok_or(Problem::Local(name.0)),
    }
}

fn buffer_type(kernel: &Kernel, buffer: u32) -> Result<DType, Problem> {
    kernel.buffers.get(buffer as usize).map(|b| b.dtype).ok_or(Problem::UnknownBuffer(buffer))
}

/// The operand types of an operation, and its result's unless it is the operand's.
pub fn unary(op: UnOp) -> (&'static [DType], Option<DType>) {
    match op {
        UnOp::Neg | UnOp::Abs | UnOp::Relu => (&[DType::F32, DType::I32], None),
        UnOp::Not => (&[DType::Bool], None),
        UnOp::Bits => (&[DType::F32], Some(DType::I32)),
        UnOp::FromBits => (&[DType::I32], Some(DType::F32)),
        UnOp::Sqrt
        | UnOp::Floor
        | UnOp::Tf32
        | UnOp::Exp
        | UnOp::Log
        | UnOp::Tanh
        | UnOp::Sigmoid
        | UnOp::Erf => (&[DType::F32], None),
    }
}

/// Likewise.
pub fn binary(op: BinOp) -> (&'static [DType], Option<DType>) {
    const NUMBERS: &[DType] = &[DType::F32, DType::I32];
    match op {
        BinOp::Add | BinOp::Sub | BinOp::Mul | BinOp::Div | BinOp::Max | BinOp::Min => (NUMBERS, None),
        BinOp::Eq | BinOp::Ne => (&[DType::F32, DType::I32, DType::Bool], Some(DType::Bool)),
        BinOp::Lt | BinOp::Le => (NUMBERS, Some(DType::Bool)),
        BinOp::And | BinOp::Or | BinOp::Xor => (&[DType::Bool, DType::I32], None),
        BinOp::MulHigh | BinOp::Shl | BinOp::Shr => (&[DType::I32], None),
        BinOp::Pow => (&[DType::F32], None),
    }
}
