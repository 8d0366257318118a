//! What the emitter asks of a machine: the operations of kernels on scalars and on lanes.
//!
//! The emitter walks a kernel and knows loops, addresses and registers; an assembler knows
//! instructions. [Cranelift](super::cranelift) is one: 128 bits wide, for every CPU that it knows.
//! All assemblers give the same bits.
//!
//! Values are fixed once made. Variables change; control flow is structured, and what is to live
//! across a loop's end or a branch is a variable or was made before it.

use std::fmt::Debug;

use nnc_runtime::DType;

use crate::kernel::{BinOp, Cache, UnOp};

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An address, a counter: 64 bits.
    Index,
    /// One element. (A bool is 0 or 1.)
    Scalar(DType),
    /// So many elements side by side. (Bools are masks: all bits of the element or none.)
    Lanes(DType, usize),
}

impl Kind {
    /// So many elements, or one.
    pub fn new(dtype: DType, lanes: Option<usize>) -> Kind {
        lanes.map_or(Kind::Scalar(dtype), |n| Kind::Lanes(dtype, n))
    }
}

/// A place in memory: an address and a distance in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Place<V> {
    /// An index.
    pub base: V,
    /// What is added to it.
    pub offset: i32,
    /// Nobody writes there while the kernel runs.
    pub constant: bool,
}

/// Makes the machine code of one function.
pub trait Assembler {
    /// Computed once.
    type Value: Copy + Debug;
    /// A cell that may change.
    type Variable: Copy + Debug;
    /// A loop that has begun.
    type Loop;
    /// A branch that has begun.
    type Branch;

    /// The numbers of lanes that one instruction does, widest first.
    fn widths(&self) -> &'static [usize];
    /// How many vectors the machine's registers hold.
    fn vector_registers(&self) -> usize;

    /// The function's arguments: argument list, first task, end of tasks, scratch.
    fn arguments(&self) -> [Self::Value; 4];

    // Variables.

    /// A variable; undefined until it is set.
    fn declare(&mut self, kind: Kind) -> Self::Variable;
    /// What the variable holds now; stays that when the variable changes.
    fn get(&mut self, v: Self::Variable) -> Self::Value;
    /// Changes the variable.
    fn set(&mut self, v: Self::Variable, value: Self::Value);

    // Structure.

    /// What follows is repeated.
    fn begin_loop(&mut self) -> Self::Loop;
    /// Again while `counter < end` (signed).
    fn end_loop(&mut self, l: Self::Loop, counter: Self::Value, end: Self::Value);
    /// Again while `counter < end` (signed).
    fn end_loop_at(&mut self, l: Self::Loop, counter: Self::Value, end: i64);
    /// What follows happens if the index is not negative.
    fn begin_if(&mut self, not_negative: Self::Value) -> Self::Branch;
    /// What follows happens if not. (Not every branch has this part.)
    fn otherwise(&mut self, branch: &mut Self::Branch);
    /// What follows happens in any case.
    fn end_if(&mut self, branch: Self::Branch);

    // Indices: 64 bits, wrapping.

    /// A constant.
    fn index(&mut self, c: i64) -> Self::Value;
    /// `a + b`
    fn add(&mut self, a: Self::Value, b: Self::Value) -> Self::Value;
    /// `a - b`
    fn sub(&mut self, a: Self::Value, b: Self::Value) -> Self::Value;
    /// `a | b`
    fn or(&mut self, a: Self::Value, b: Self::Value) -> Self::Value;
    /// `a + c`
    fn add_constant(&mut self, a: Self::Value, c: i64) -> Self::Value;
    /// `a · c`
    fn multiply_constant(&mut self, a: Self::Value, c: i64) -> Self::Value;
    /// `a & c`
    fn and_constant(&mut self, a: Self::Value, c: i64) -> Self::Value;
    /// Shift right, the sign coming in.
    fn shift_constant(&mut self, a: Self::Value, by: u8) -> Self::Value;
    /// Shift right, zeros coming in.
    fn shift_unsigned_constant(&mut self, a: Self::Value, by: u8) -> Self::Value;
    /// `a == c ? 0 : a`, and 1 or 0 for whether it was.
    fn wrap(&mut self, a: Self::Value, c: i64) -> (Self::Value, Self::Value);
    /// Quotient and remainder by a constant, unsigned.
    fn divide_constant(&mut self, a: Self::Value, c: i64) -> (Self::Value, Self::Value);
    /// The low half, as an i32.
    fn narrow(&mut self, index: Self::Value) -> Self::Value;
    /// An i32 that is not negative, as an index.
    fn widen(&mut self, i32: Self::Value) -> Self::Value;

    // Memory.

    /// An address from the argument list.
    fn load_index(&mut self, at: Place<Self::Value>) -> Self::Value;
    /// A scalar, or lanes side by side (not of bool).
    fn load(&mut self, kind: Kind, at: Place<Self::Value>) -> Self::Value;
    /// One element (not of bool) in so many lanes.
    fn load_splat(&mut self, dtype: DType, lanes: usize, at: Place<Self::Value>) -> Self::Value;
    /// A scalar, or lanes side by side (not of bool).
    fn store(&mut self, kind: Kind, at: Place<Self::Value>, value: Self::Value);
    /// A hint that the place is read soon; nothing, where the machine takes none.
    fn prefetch(&mut self, cache: Cache, at: Place<Self::Value>);

    // Elements.

    /// A number, or the same in all lanes.
    fn constant(&mut self, kind: Kind, c: f64) -> Self::Value;
    /// `start`, `start + step`, …: i32.
    fn ramp(&mut self, start: Self::Value, step: i32, lanes: usize) -> Self::Value;
    /// The scalar in so many lanes.
    fn splat(&mut self, dtype: DType, lanes: usize, scalar: Self::Value) -> Self::Value;
    /// One lane of lanes (not of bool).
    fn extract(&mut self, dtype: DType, lanes: usize, x: Self::Value, lane: usize) -> Self::Value;
    /// The lanes with one replaced (not of bool).
    fn insert(
        &mut self,
        dtype: DType,
        lanes: usize,
        x: Self::Value,
        lane: usize,
        scalar: Self::Value,
    ) -> Self::Value;
    /// `kind` is the operand's. Not the functions that [`crate::kernel::math`] expands.
    fn unary(&mut self, op: UnOp, kind: Kind, x: Self::Value) -> Self::Value;
    /// `kind` is the operands'.
    fn binary(&mut self, op: BinOp, kind: Kind, x: Self::Value, y: Self::Value) -> Self::Value;
    /// `Shl` or `Shr` of i32 by the same amount (a scalar i32, modulo 32) in all lanes.
    fn shift(&mut self, op: BinOp, kind: Kind, x: Self::Value, by: Self::Value) -> Self::Value;
    /// `a·b + c`, rounded once.
    fn fma(&mut self, kind: Kind, a: Self::Value, b: Self::Value, c: Self::Value) -> Self::Value;
    /// `condition ? a : b`; the condition is a scalar bool or a mask as `kind` is scalar or lanes.
    fn select(&mut self, kind: Kind, condition: Self::Value, a: Self::Value, b: Self::Value) -> Self::Value;
    /// `kind` is the operand's.
    fn cast(&mut self, kind: Kind, to: DType, x: Self::Value) -> Self::Value;
}
