//! The [`Assembler`] of Cranelift.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, InstBuilder, MemFlagsData, Value, types};
use cranelift_frontend::Variable;
use nnc_runtime::DType;

use super::super::assembler::{Assembler, Kind, Place};
use super::{Builder, LANES, type_of};
use crate::kernel::{BinOp, Cache, UnOp};

/// A branch: where the code for the other case goes, and where both meet if there is such code.
pub struct Branch {
    other: Block,
    after: Option<Block>,
}

impl Assembler for Builder<'_> {
    type Value = Value;
    type Variable = Variable;
    type Loop = Block;
    type Branch = Branch;

    fn widths(&self) -> &'static [usize] {
        &[LANES]
    }

    fn vector_registers(&self) -> usize {
        self.vector_registers
    }

    fn arguments(&self) -> [Value; 4] {
        self.arguments
    }

    fn declare(&mut self, kind: Kind) -> Variable {
        self.b.declare_var(type_of(kind))
    }

    fn get(&mut self, v: Variable) -> Value {
        self.b.use_var(v)
    }

    fn set(&mut self, v: Variable, value: Value) {
        self.b.def_var(v, value);
    }

    fn begin_loop(&mut self) -> Block {
        let header = self.b.create_block();
        self.b.ins().jump(header, &[]);
        self.b.switch_to_block(header);
        header
    }

    fn end_loop(&mut self, l: Block, counter: Value, end: Value) {
        let more = self.b.ins().icmp(IntCC::SignedLessThan, counter, end);
        self.repeat(l, more);
    }

    fn end_loop_at(&mut self, l: Block, counter: Value, end: i64) {
        let more = self.b.ins().icmp_imm_s(IntCC::SignedLessThan, counter, end);
        self.repeat(l, more);
    }

    fn begin_if(&mut self, not_negative: Value) -> Branch {
        let (inside, other) = (self.b.create_block(), self.b.create_block());
        let holds = self.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, not_negative, 0);
        self.b.ins().brif(holds, inside, &[], other, &[]);
        self.b.seal_block(inside);
        self.b.switch_to_block(inside);
        Branch { other, after: None }
    }

    fn otherwise(&mut self, branch: &mut Branch) {
        let after = self.b.create_block();
        self.b.ins().jump(after, &[]);
        self.b.seal_block(branch.other);
        self.b.switch_to_block(branch.other);
        branch.after = Some(after);
    }

    fn end_if(&mut self, branch: Branch) {
        let after = branch.after.unwrap_or(branch.other);
        self.b.ins().jump(after, &[]);
        self.b.seal_block(after);
        self.b.switch_to_block(after);
    }

    fn index(&mut self, c: i64) -> Value {
        self.b.ins().iconst(types::I64, c)
    }

    fn add(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().iadd(a, b)
    }

    fn sub(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().isub(a, b)
    }

    fn or(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().bor(a, b)
    }

    fn add_constant(&mut self, a: Value, c: i64) -> Value {
        self.b.ins().iadd_imm_s(a, c)
    }

    fn multiply_constant(&mut self, a: Value, c: i64) -> Value {
        self.b.ins().imul_imm_s(a, c)
    }

    fn and_constant(&mut self, a: Value, c: i64) -> Value {
        self.b.ins().band_imm_s(a, c)
    }

    fn shift_constant(&mut self, a: Value, by: u8) -> Value {
        self.b.ins().sshr_imm_u(a, by as i64)
    }

    fn shift_unsigned_constant(&mut self, a: Value, by: u8) -> Value {
        self.b.ins().ushr_imm_u(a, by as i64)
    }

    fn wrap(&mut self, a: Value, c: i64) -> (Value, Value) {
        let full = self.b.ins().icmp_imm_s(IntCC::Equal, a, c);
        let zero = self.b.ins().iconst(types::I64, 0);
        let wrapped = self.b.ins().select(full, zero, a);
        (wrapped, self.b.ins().uextend(types::I64, full))
    }

    fn divide_constant(&mut self, a: Value, c: i64) -> (Value, Value) {
        let divisor = self.b.ins().iconst(types::I64, c);
        let remainder = self.b.ins().urem(a, divisor);
        (self.b.ins().udiv(a, divisor), remainder)
    }

    fn narrow(&mut self, index: Value) -> Value {
        self.b.ins().ireduce(types::I32, index)
    }

    fn widen(&mut self, i32: Value) -> Value {
        self.b.ins().uextend(types::I64, i32)
    }

    fn load_index(&mut self, at: Place<Value>) -> Value {
        // The argument list is there for the whole call.
        let flags = MemFlagsData::trusted().with_readonly().with_can_move();
        self.b.ins().load(types::I64, flags, at.base, at.offset)
    }

    fn load(&mut self, kind: Kind, at: Place<Value>) -> Value {
        self.b.ins().load(type_of(kind), flags(&at), at.base, at.offset)
    }

    fn load_splat(&mut self, dtype: DType, lanes: usize, at: Place<Value>) -> Value {
        let scalar = self.load(Kind::Scalar(dtype), at);
        self.splat(dtype, lanes, scalar)
    }

    fn store(&mut self, _kind: Kind, at: Place<Value>, value: Value) {
        self.b.ins().store(flags(&at), value, at.base, at.offset);
    }

    /// Cranelift has no such instruction.
    fn prefetch(&mut self, _: Cache, _: Place<Value>) {}

    fn constant(&mut self, kind: Kind, c: f64) -> Value {
        self.number(kind, c)
    }

    fn ramp(&mut self, start: Value, step: i32, lanes: usize) -> Value {
        let start = self.splat(DType::I32, lanes, start);
        let steps = self.vector_constant(types::I32X4, |lane| lane.wrapping_mul(step));
        self.b.ins().iadd(start, steps)
    }

    fn splat(&mut self, dtype: DType, lanes: usize, scalar: Value) -> Value {
        let ty = type_of(Kind::Lanes(dtype, lanes));
        if dtype != DType::Bool {
            return self.b.ins().splat(ty, scalar);
        }
        let wide = self.b.ins().uextend(types::I32, scalar);
        let mask = self.b.ins().ineg(wide);
        self.b.ins().splat(ty, mask)
    }

    fn extract(&mut self, _dtype: DType, _lanes: usize, x: Value, lane: usize) -> Value {
        self.b.ins().extractlane(x, lane as u8)
    }

    fn insert(&mut self, _dtype: DType, _lanes: usize, x: Value, lane: usize, scalar: Value) -> Value {
        self.b.ins().insertlane(x, scalar, lane as u8)
    }

    fn unary(&mut self, op: UnOp, kind: Kind, x: Value) -> Value {
        self.function_of_one(op, kind, x)
    }

    fn binary(&mut self, op: BinOp, kind: Kind, x: Value, y: Value) -> Value {
        self.function_of_two(op, kind, x, y)
    }

    fn shift(&mut self, op: BinOp, _kind: Kind, x: Value, by: Value) -> Value {
        match op {
            BinOp::Shl => self.b.ins().ishl(x, by),
            _ => self.b.ins().sshr(x, by),
        }
    }

    fn fma(&mut self, _kind: Kind, a: Value, b: Value, c: Value) -> Value {
        self.b.ins().fma(a, b, c)
    }

    fn select(&mut self, kind: Kind, condition: Value, a: Value, b: Value) -> Value {
        self.choose(kind, condition, a, b)
    }

    fn cast(&mut self, kind: Kind, to: DType, x: Value) -> Value {
        self.convert(kind, to, x)
    }
}

impl Builder<'_> {
    fn repeat(&mut self, header: Block, more: Value) {
        let exit = self.b.create_block();
        self.b.ins().brif(more, header, &[], exit, &[]);
        self.b.seal_block(header);
        self.b.seal_block(exit);
        self.b.switch_to_block(exit);
    }
}

/// Memory flags of an access. Not `can_move`: a load stays behind its guard.
fn flags(at: &Place<Value>) -> MemFlagsData {
    let flags = MemFlagsData::new().with_notrap();
    if at.constant { flags.with_readonly() } else { flags }
}
