//! The assembler: what the emitter asks for becomes instructions over virtual registers.
//!
//! What a variable was set to in the same straight line is used directly, unless it is computed
//! from the variable itself (a sum, a pointer that moves): those stay in the variable's register.

use nnc_runtime::DType;

use super::lir::{Base, Class, Function, Inst, Level, Mem, Op, Reg, Width};
use crate::emit::cpu::assembler::{Assembler, Kind, Place};
use crate::kernel::{BinOp, Cache, UnOp};

/// The x86-64 assembler.
#[derive(Debug)]
pub struct X86 {
    pub(super) f: Function,
    arguments: [Reg; 4],
    /// For each register: the place of its definition (of a value).
    definitions: Vec<u32>,
    /// For each variable: its content, and the straight line in which that is known.
    contents: Vec<(Reg, u32)>,
    line: u32,
}

impl X86 {
    /// An assembler for one function.
    pub fn new(level: Level) -> X86 {
        let f = Function::new(level);
        let mut a = X86 { f, arguments: [Reg::NONE; 4], definitions: vec![], contents: vec![], line: 1 };
        for i in 0..4 {
            let inst = Inst::new(Op::Argument, Width::Quad, Reg::NONE, &[]).imm(i);
            a.arguments[i as usize] = a.general(inst);
        }
        a
    }

    pub(super) fn avx512(&self) -> bool {
        self.f.level == Level::Avx512
    }

    /// Appends an instruction whose result is a new value.
    fn define(&mut self, class: Class, width: Width, inst: Inst) -> Reg {
        let dst = self.f.reg(class, width);
        self.definitions.resize(self.f.regs.len(), u32::MAX);
        self.definitions[dst.index()] = self.f.code.len() as u32;
        self.f.code.push(Inst { dst, ..inst });
        dst
    }

    pub(super) fn general(&mut self, inst: Inst) -> Reg {
        self.define(Class::General, Width::Quad, inst)
    }

    /// A vector as wide as the instruction.
    pub(super) fn vector(&mut self, inst: Inst) -> Reg {
        self.define(Class::Vector, inst.width.max(Width::X), inst)
    }

    /// A vector whose width is not the instruction's.
    pub(super) fn vector_of(&mut self, width: Width, inst: Inst) -> Reg {
        self.define(Class::Vector, width, inst)
    }

    /// The result of an instruction that tells lanes apart: a mask or lanes of all bits or none.
    pub(super) fn truth(&mut self, inst: Inst) -> Reg {
        if self.avx512() { self.define(Class::Mask, Width::Quad, inst) } else { self.vector(inst) }
    }

    /// The instruction that made a value.
    pub(super) fn definition(&self, r: Reg) -> Option<&Inst> {
        match self.definitions.get(r.index()) {
            Some(&at) if at != u32::MAX => self.f.code.get(at as usize),
            _ => None,
        }
    }

    /// The number that a general value is.
    pub(super) fn known(&self, r: Reg) -> Option<i64> {
        self.definition(r).filter(|i| i.op == Op::Immediate).map(|i| i.imm)
    }

    pub(super) fn immediate(&mut self, c: i64) -> Reg {
        self.general(Inst::new(Op::Immediate, Width::Quad, Reg::NONE, &[]).imm(c))
    }

    fn structure(&mut self, op: Op, src: &[Reg], imm: i64) {
        self.f.code.push(Inst::new(op, Width::Quad, Reg::NONE, src).imm(imm));
        if op != Op::If {
            self.line += 1;
        }
    }

    fn with_immediate(&mut self, op: Op, a: Reg, c: i64) -> Reg {
        if i32::try_from(c).is_ok() {
            return self.general(Inst::new(op, Width::Quad, Reg::NONE, &[a]).imm(c));
        }
        let c = self.immediate(c);
        let op = match op {
            Op::AndImmediate => Op::And,
            Op::MultiplyImmediate => Op::Multiply,
            _ => Op::Xor,
        };
        self.general(Inst::new(op, Width::Quad, Reg::NONE, &[a, c]))
    }

    /// The class and width of what is of a kind.
    pub(super) fn place_of(&self, kind: Kind) -> (Class, Width) {
        match kind {
            Kind::Index => (Class::General, Width::Quad),
            Kind::Scalar(DType::Bool) => (Class::General, Width::Byte),
            Kind::Scalar(DType::I32) => (Class::General, Width::Double),
            Kind::Scalar(_) => (Class::Vector, Width::Scalar),
            Kind::Lanes(DType::Bool, _) if self.avx512() => (Class::Mask, Width::Quad),
            Kind::Lanes(_, n) => (Class::Vector, Width::of_lanes(n)),
        }
    }

    /// True if the value was computed from the variable's content.
    fn computed_from(&self, value: Reg, variable: Reg) -> bool {
        let Some(inst) = self.definition(value) else { return false };
        inst.reads().any(|r| {
            self.definition(r).is_some_and(|d| d.op == Op::Copy && d.mem.is_none() && d.src[0] == variable)
        })
    }
}

fn memory(at: Place<Reg>) -> Mem {
    Mem { base: Base::Register(at.base), offset: at.offset, splat: false, constant: at.constant }
}

impl Assembler for X86 {
    type Value = Reg;
    type Variable = Reg;
    type Loop = ();
    type Branch = bool;

    fn widths(&self) -> &'static [usize] {
        match self.f.level {
            Level::Avx512 => &[16, 8, 4],
            Level::Avx2 => &[8, 4],
        }
    }

    fn vector_registers(&self) -> usize {
        match self.f.level {
            Level::Avx512 => 32,
            Level::Avx2 => 16,
        }
    }

    fn arguments(&self) -> [Reg; 4] {
        self.arguments
    }

    fn declare(&mut self, kind: Kind) -> Reg {
        let (class, width) = self.place_of(kind);
        let width = match class {
            Class::Vector => width.max(Width::X),
            _ => Width::Quad,
        };
        let r = self.f.reg(class, width);
        self.f.regs[r.index()].variable = true;
        self.definitions.resize(self.f.regs.len(), u32::MAX);
        self.contents.resize(self.f.regs.len(), (Reg::NONE, 0));
        r
    }

    fn get(&mut self, v: Reg) -> Reg {
        let (content, line) = self.contents[v.index()];
        if line == self.line {
            return content;
        }
        let info = self.f.info(v);
        let value = self.define(info.class, info.width, Inst::new(Op::Copy, info.width, Reg::NONE, &[v]));
        self.contents[v.index()] = (value, self.line);
        value
    }

    fn set(&mut self, v: Reg, value: Reg) {
        let width = self.f.info(v).width;
        self.f.code.push(Inst::new(Op::Copy, width, v, &[value]));
        let line = if self.computed_from(value, v) { 0 } else { self.line };
        self.contents[v.index()] = (value, line);
    }

    fn begin_loop(&mut self) {
        self.structure(Op::Loop, &[], 0);
    }

    fn end_loop(&mut self, (): (), counter: Reg, end: Reg) {
        match self.known(end) {
            Some(end) => self.end_loop_at((), counter, end),
            None => self.structure(Op::EndLoop, &[counter, end], 0),
        }
    }

    fn end_loop_at(&mut self, (): (), counter: Reg, end: i64) {
        if i32::try_from(end).is_ok() {
            return self.structure(Op::EndLoop, &[counter], end);
        }
        let end = self.immediate(end);
        self.structure(Op::EndLoop, &[counter, end], 0);
    }

    fn begin_if(&mut self, not_negative: Reg) -> bool {
        self.structure(Op::If, &[not_negative], 0);
        false
    }

    fn otherwise(&mut self, branch: &mut bool) {
        *branch = true;
        self.structure(Op::Else, &[], 0);
    }

    fn end_if(&mut self, _: bool) {
        self.structure(Op::EndIf, &[], 0);
    }

    fn index(&mut self, c: i64) -> Reg {
        self.immediate(c)
    }

    fn add(&mut self, a: Reg, b: Reg) -> Reg {
        if let Some(c) = self.known(b) {
            return self.add_constant(a, c);
        }
        if let Some(c) = self.known(a) {
            return self.add_constant(b, c);
        }
        let shifted = |x: &X86, r: Reg| match x.definition(r) {
            Some(i) if i.op == Op::ShlImmediate && i.imm <= 3 => (i.src[0], i.imm),
            _ => (r, 0),
        };
        let (mut a, mut b) = (a, shifted(self, b));
        if b.1 == 0 {
            (a, b) = (b.0, shifted(self, a));
        }
        self.general(Inst::new(Op::Lea, Width::Quad, Reg::NONE, &[a, b.0]).imm(b.1 << 32))
    }

    fn sub(&mut self, a: Reg, b: Reg) -> Reg {
        match self.known(b) {
            Some(c) => self.add_constant(a, c.wrapping_neg()),
            None => self.general(Inst::new(Op::Sub, Width::Quad, Reg::NONE, &[a, b])),
        }
    }

    fn or(&mut self, a: Reg, b: Reg) -> Reg {
        self.general(Inst::new(Op::Or, Width::Quad, Reg::NONE, &[a, b]))
    }

    fn add_constant(&mut self, a: Reg, c: i64) -> Reg {
        if c == 0 {
            return a;
        }
        if let Some(k) = self.known(a) {
            return self.immediate(k.wrapping_add(c));
        }
        match i32::try_from(c) {
            Ok(c) => {
                let imm = i64::from(c as u32);
                self.general(Inst::new(Op::Lea, Width::Quad, Reg::NONE, &[a]).imm(imm))
            }
            Err(_) => {
                let c = self.immediate(c);
                self.general(Inst::new(Op::Lea, Width::Quad, Reg::NONE, &[a, c]))
            }
        }
    }

    fn multiply_constant(&mut self, a: Reg, c: i64) -> Reg {
        if let Some(k) = self.known(a) {
            return self.immediate(k.wrapping_mul(c));
        }
        match c {
            0 => self.immediate(0),
            1 => a,
            c if c > 0 && c.count_ones() == 1 => {
                let by = i64::from(c.trailing_zeros());
                self.general(Inst::new(Op::ShlImmediate, Width::Quad, Reg::NONE, &[a]).imm(by))
            }
            c => self.with_immediate(Op::MultiplyImmediate, a, c),
        }
    }

    fn and_constant(&mut self, a: Reg, c: i64) -> Reg {
        match self.known(a) {
            Some(k) => self.immediate(k & c),
            None => self.with_immediate(Op::AndImmediate, a, c),
        }
    }

    fn shift_constant(&mut self, a: Reg, by: u8) -> Reg {
        match self.known(a) {
            Some(k) => self.immediate(k >> by),
            None => self.general(Inst::new(Op::SarImmediate, Width::Quad, Reg::NONE, &[a]).imm(by.into())),
        }
    }

    fn shift_unsigned_constant(&mut self, a: Reg, by: u8) -> Reg {
        self.general(Inst::new(Op::ShrImmediate, Width::Quad, Reg::NONE, &[a]).imm(by.into()))
    }

    fn wrap(&mut self, a: Reg, c: i64) -> (Reg, Reg) {
        let set = Op::Set(super::lir::Condition::Equal);
        let carry = if i32::try_from(c).is_ok() {
            self.general(Inst::new(set, Width::Quad, Reg::NONE, &[a]).imm(c))
        } else {
            let c = self.immediate(c);
            self.general(Inst::new(set, Width::Quad, Reg::NONE, &[a, c]))
        };
        let keep = self.add_constant(carry, -1);
        let digit = self.general(Inst::new(Op::And, Width::Quad, Reg::NONE, &[a, keep]));
        (digit, carry)
    }

    fn divide_constant(&mut self, a: Reg, c: i64) -> (Reg, Reg) {
        if c.count_ones() == 1 {
            let quotient = self.shift_unsigned_constant(a, c.trailing_zeros() as u8);
            return (quotient, self.and_constant(a, c - 1));
        }
        let quotient = self.general(Inst::new(Op::Divide, Width::Quad, Reg::NONE, &[a]).imm(c));
        let whole = self.multiply_constant(quotient, c);
        (quotient, self.sub(a, whole))
    }

    fn narrow(&mut self, index: Reg) -> Reg {
        match self.known(index) {
            Some(c) => self.immediate(i64::from(c as i32)),
            None => index,
        }
    }

    fn widen(&mut self, i32: Reg) -> Reg {
        self.general(Inst::new(Op::ZeroExtend, Width::Double, Reg::NONE, &[i32]))
    }

    fn load_index(&mut self, at: Place<Reg>) -> Reg {
        self.general(Inst::new(Op::Load, Width::Quad, Reg::NONE, &[]).mem(memory(at)))
    }

    fn load(&mut self, kind: Kind, at: Place<Reg>) -> Reg {
        let (class, width) = self.place_of(kind);
        let inst = Inst::new(Op::Load, width, Reg::NONE, &[]).mem(memory(at));
        if class == Class::General { self.general(inst) } else { self.vector(inst) }
    }

    fn load_splat(&mut self, _: DType, lanes: usize, at: Place<Reg>) -> Reg {
        let inst = Inst::new(Op::Splat, Width::of_lanes(lanes), Reg::NONE, &[]);
        self.vector(inst.mem(Mem { splat: true, ..memory(at) }))
    }

    fn store(&mut self, kind: Kind, at: Place<Reg>, value: Reg) {
        let (_, width) = self.place_of(kind);
        self.f.code.push(Inst::new(Op::Store, width, Reg::NONE, &[value]).mem(memory(at)));
    }

    fn prefetch(&mut self, cache: Cache, at: Place<Reg>) {
        let op = match cache {
            Cache::First => Op::PrefetchFirst,
            Cache::Second => Op::PrefetchSecond,
        };
        self.f.code.push(Inst::new(op, Width::Byte, Reg::NONE, &[]).mem(memory(at)));
    }

    fn constant(&mut self, kind: Kind, c: f64) -> Reg {
        self.constant_of(kind, c)
    }

    fn ramp(&mut self, start: Reg, step: i32, lanes: usize) -> Reg {
        let steps: Vec<u32> = (0..lanes as i32).map(|l| l.wrapping_mul(step) as u32).collect();
        let (start, steps) = (self.splat_of(DType::I32, lanes, start), self.lanes_of(&steps));
        self.vector(Inst::new(Op::AddI, Width::of_lanes(lanes), Reg::NONE, &[start, steps]))
    }

    fn splat(&mut self, dtype: DType, lanes: usize, scalar: Reg) -> Reg {
        self.splat_of(dtype, lanes, scalar)
    }

    fn extract(&mut self, dtype: DType, lanes: usize, x: Reg, lane: usize) -> Reg {
        self.extract_of(dtype, lanes, x, lane)
    }

    fn insert(&mut self, dtype: DType, lanes: usize, x: Reg, lane: usize, scalar: Reg) -> Reg {
        self.insert_of(dtype, lanes, x, lane, scalar)
    }

    fn unary(&mut self, op: UnOp, kind: Kind, x: Reg) -> Reg {
        self.unary_of(op, kind, x)
    }

    fn binary(&mut self, op: BinOp, kind: Kind, x: Reg, y: Reg) -> Reg {
        self.binary_of(op, kind, x, y)
    }

    fn shift(&mut self, op: BinOp, kind: Kind, x: Reg, by: Reg) -> Reg {
        self.shift_of(op, kind, x, by)
    }

    fn fma(&mut self, kind: Kind, a: Reg, b: Reg, c: Reg) -> Reg {
        let (_, width) = self.place_of(kind);
        self.vector(Inst::new(Op::Fma, width, Reg::NONE, &[a, b, c]))
    }

    fn select(&mut self, kind: Kind, condition: Reg, a: Reg, b: Reg) -> Reg {
        self.select_of(kind, condition, a, b)
    }

    fn cast(&mut self, kind: Kind, to: DType, x: Reg) -> Reg {
        self.cast_of(kind, to, x)
    }
}
