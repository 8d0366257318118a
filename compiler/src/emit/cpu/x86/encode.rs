//! Machine code from instructions whose registers are allocated.
//!
//! The code is in one piece: function, then constants, which are addressed relative to the
//! instruction. There are no relocations. The stack frame is below the saved registers; if vectors
//! are in it, it is aligned to them.

use iced_x86::{Code, Encoder, IcedError, Instruction, OpKind, Register};

use super::allocate::Allocation;
use super::lir::{Base, Class, Function, Inst, Mem, Op, Reg, Width};
use super::table::{self, Order};

/// Heads of innermost loops are at multiples of this.
const LOOP_ALIGNMENT: usize = 32;

/// The longest no-operations, by length.
const NOPS: [&[u8]; 9] = [
    &[0x90],
    &[0x66, 0x90],
    &[0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0x00],
    &[0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
    &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
];

/// Registers that a function gives back as they were: rbx, rbp, r12 to r15.
const SAVED: [u8; 6] = [3, 5, 12, 13, 14, 15];

/// The machine code of a function and of its constants.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub bytes: Vec<u8>,
    /// Where the code ends and the constants begin.
    pub code_end: usize,
    pub constants_start: usize,
}

/// An operand of a machine instruction.
#[derive(Clone, Copy)]
pub enum Operand {
    Register(Register),
    Memory(Mem),
    /// Eight bits.
    Immediate(i64),
}

/// Encodes the function.
///
/// # Errors
/// If there is no machine instruction for one of its instructions.
pub fn encode(f: &Function, allocation: &Allocation) -> Result<Encoded, String> {
    let e = Emit {
        f,
        allocation,
        encoder: Encoder::new(64),
        at: 0,
        regions: vec![],
        jumps: vec![],
        constants: vec![],
        divide_at: f.frame.next_multiple_of(8),
        numbers: f.constants.clone(),
    };
    e.function().map_err(|e| e.to_string())
}

/// A loop or branch that is open.
enum Region {
    Loop {
        head: usize,
    },
    /// The jump to what follows, to be completed.
    Branch {
        jump: usize,
    },
}

pub(super) struct Emit<'a> {
    pub f: &'a Function,
    allocation: &'a Allocation,
    encoder: Encoder,
    at: usize,
    regions: Vec<Region>,
    /// Distances to be filled in: where they are, and from where to where.
    jumps: Vec<(usize, usize)>,
    /// Distances to constants: where they are, the end of the instruction, the place in the constants.
    constants: Vec<(usize, usize, i32)>,
    /// Where divisions keep registers in the frame.
    pub divide_at: u32,
    pub numbers: super::constants::Constants,
}

impl Emit<'_> {
    fn function(mut self) -> Result<Encoded, IcedError> {
        let code = &self.f.code;
        let divides = code.iter().any(|i| i.op == Op::Divide);
        let frame = if divides { self.divide_at + 24 } else { self.f.frame.next_multiple_of(8) };
        let saved = self.saved();
        self.enter(&saved, frame)?;
        for (i, inst) in code.iter().enumerate() {
            if inst.is_structure() {
                let innermost = inst.op == Op::Loop && is_innermost(&code[i + 1..]);
                self.structure(inst, innermost)?;
            } else {
                self.inst(inst)?;
            }
        }
        self.leave(&saved, frame)?;
        let code_end = self.at;
        let constants_start = code_end.next_multiple_of(64);
        let mut bytes = self.encoder.take_buffer();
        bytes.resize(constants_start, 0);
        bytes.extend_from_slice(self.numbers.bytes());
        for (place, end) in &self.jumps {
            let distance = (*end as i64 - *place as i64 - 4) as i32;
            bytes[*place..*place + 4].copy_from_slice(&distance.to_le_bytes());
        }
        for (place, end, constant) in &self.constants {
            let distance = (constants_start as i64 + i64::from(*constant) - *end as i64) as i32;
            bytes[*place..*place + 4].copy_from_slice(&distance.to_le_bytes());
        }
        Ok(Encoded { bytes, code_end, constants_start })
    }

    fn saved(&self) -> Vec<Register> {
        let mut used = [false; 16];
        for (i, info) in self.f.regs.iter().enumerate() {
            let machine = self.allocation.of(Reg(i as u32));
            if info.class == Class::General && machine < 16 {
                used[machine as usize] = true;
            }
        }
        SAVED.into_iter().filter(|r| used[*r as usize]).map(|r| Register::RAX + u32::from(r)).collect()
    }

    fn is_aligned(&self) -> bool {
        self.f.regs.iter().any(|r| r.class == Class::Vector && r.brief)
    }

    fn enter(&mut self, saved: &[Register], frame: u32) -> Result<(), IcedError> {
        for r in saved {
            self.put(Instruction::with1(Code::Push_r64, *r)?)?;
        }
        if frame == 0 {
            return Ok(());
        }
        if !self.is_aligned() {
            return self.put(Instruction::with2(Code::Sub_rm64_imm32, Register::RSP, frame as i32)?);
        }
        // The old stack pointer is above the frame. (rax is no argument.)
        self.put(Instruction::with2(Code::Mov_r64_rm64, Register::RAX, Register::RSP)?)?;
        self.put(Instruction::with2(Code::Sub_rm64_imm32, Register::RSP, frame as i32 + 8)?)?;
        self.put(Instruction::with2(Code::And_rm64_imm8, Register::RSP, -64)?)?;
        self.op(Code::Mov_rm64_r64, &[frame_place(frame), Operand::Register(Register::RAX)])
    }

    fn leave(&mut self, saved: &[Register], frame: u32) -> Result<(), IcedError> {
        self.put(Instruction::with(Code::VEX_Vzeroupper))?;
        if frame > 0 && self.is_aligned() {
            self.op(Code::Mov_r64_rm64, &[Operand::Register(Register::RSP), frame_place(frame)])?;
        } else if frame > 0 {
            self.put(Instruction::with2(Code::Add_rm64_imm32, Register::RSP, frame as i32)?)?;
        }
        for r in saved.iter().rev() {
            self.put(Instruction::with1(Code::Pop_r64, *r)?)?;
        }
        self.put(Instruction::with(Code::Retnq))
    }

    /// Appends a machine instruction.
    pub fn put(&mut self, inst: Instruction) -> Result<(), IcedError> {
        self.at += self.encoder.encode(&inst, self.at as u64)?;
        Ok(())
    }

    fn raw(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.encoder.write_u8(*b);
        }
        self.at += bytes.len();
    }

    /// Appends a machine instruction with these operands.
    pub fn op(&mut self, code: Code, operands: &[Operand]) -> Result<(), IcedError> {
        self.masked(code, operands, None)
    }

    /// Likewise, for the lanes of a mask.
    pub fn masked(
        &mut self,
        code: Code,
        operands: &[Operand],
        mask: Option<Register>,
    ) -> Result<(), IcedError> {
        let mut inst = Instruction::default();
        inst.set_code(code);
        let mut constant = None;
        for (n, operand) in operands.iter().enumerate() {
            match operand {
                Operand::Register(r) => inst.try_set_op_register(n as u32, *r)?,
                Operand::Memory(mem) => {
                    inst.try_set_op_kind(n as u32, OpKind::Memory)?;
                    constant = self.memory(&mut inst, mem);
                }
                Operand::Immediate(c) => {
                    inst.try_set_op_kind(n as u32, OpKind::Immediate8)?;
                    inst.set_immediate8(*c as u8);
                }
            }
        }
        if let Some(k) = mask {
            inst.set_op_mask(k);
        }
        let start = self.at;
        self.put(inst)?;
        if let Some(place) = constant {
            let at = start + self.encoder.get_constant_offsets().displacement_offset();
            self.constants.push((at, self.at, place));
        }
        Ok(())
    }

    /// Sets the memory operand; gives the place of the constant that it is.
    fn memory(&self, inst: &mut Instruction, mem: &Mem) -> Option<i32> {
        inst.set_is_broadcast(mem.splat && is_broadcast_form(inst.code()));
        let (base, constant) = match mem.base {
            Base::Register(r) => (self.general(r, Width::Quad), None),
            Base::Frame => (Register::RSP, None),
            Base::Constants => (Register::RIP, Some(mem.offset)),
        };
        inst.set_memory_base(base);
        let displacement = if constant.is_some() { self.at as u64 } else { i64::from(mem.offset) as u64 };
        inst.set_memory_displacement64(displacement);
        inst.set_memory_displ_size(if constant.is_some() { 8 } else { u32::from(mem.offset != 0) });
        constant
    }

    /// The machine register of a general value.
    pub fn general(&self, r: Reg, width: Width) -> Register {
        let n = u32::from(self.allocation.of(r));
        match width {
            Width::Quad => Register::RAX + n,
            // The low bytes of all registers, with a prefix: spl, not ah.
            Width::Byte if n >= 4 => Register::SPL + (n - 4),
            Width::Byte => Register::AL + n,
            _ => Register::EAX + n,
        }
    }

    pub fn vector(&self, r: Reg, width: Width) -> Register {
        let n = u32::from(self.allocation.of(r));
        match width {
            Width::Z => Register::ZMM0 + n,
            Width::Y => Register::YMM0 + n,
            _ => Register::XMM0 + n,
        }
    }

    pub fn mask(&self, r: Reg) -> Register {
        Register::K0 + u32::from(self.allocation.of(r))
    }

    /// True if two virtual registers are one in the machine.
    pub fn same(&self, a: Reg, b: Reg) -> bool {
        a != Reg::NONE && b != Reg::NONE && self.allocation.of(a) == self.allocation.of(b)
    }

    /// A source of a vector instruction: a register or the memory operand.
    pub fn source(&self, inst: &Inst, slot: usize, width: Width) -> Operand {
        match (inst.src[slot].some(), inst.mem) {
            (Some(r), _) => Operand::Register(self.vector(r, width)),
            (None, Some(mem)) => Operand::Memory(mem),
            (None, None) => unreachable!("a source is a register or memory"),
        }
    }

    fn structure(&mut self, inst: &Inst, innermost: bool) -> Result<(), IcedError> {
        match inst.op {
            Op::Loop => {
                if innermost {
                    while !self.at.is_multiple_of(LOOP_ALIGNMENT) {
                        let gap = self.at.next_multiple_of(LOOP_ALIGNMENT) - self.at;
                        self.raw(NOPS[gap.min(NOPS.len()) - 1]);
                    }
                }
                self.regions.push(Region::Loop { head: self.at });
            }
            Op::EndLoop => {
                let a = self.general(inst.src[0], Width::Quad);
                self.compare(a, inst, Width::Quad)?;
                if let Some(Region::Loop { head }) = self.regions.pop() {
                    let distance = head as i64 - (self.at as i64 + 2);
                    if let Ok(short) = i8::try_from(distance) {
                        self.raw(&[0x7c, short as u8]);
                    } else {
                        self.raw(&[0x0f, 0x8c, 0, 0, 0, 0]);
                        self.jumps.push((self.at - 4, head));
                    }
                }
            }
            Op::If => {
                let a = self.general(inst.src[0], Width::Quad);
                self.put(Instruction::with2(Code::Test_rm64_r64, a, a)?)?;
                self.raw(&[0x0f, 0x88, 0, 0, 0, 0]);
                self.regions.push(Region::Branch { jump: self.at - 4 });
            }
            Op::Else => {
                self.raw(&[0xe9, 0, 0, 0, 0]);
                let jump = self.at - 4;
                self.end_branch();
                self.regions.push(Region::Branch { jump });
            }
            _ => self.end_branch(),
        }
        Ok(())
    }

    fn end_branch(&mut self) {
        if let Some(Region::Branch { jump }) = self.regions.pop() {
            self.jumps.push((jump, self.at));
        }
    }

    /// Compares the register with the second source or the immediate.
    pub fn compare(&mut self, a: Register, inst: &Inst, width: Width) -> Result<(), IcedError> {
        let quad = width == Width::Quad;
        if let Some(b) = inst.src[1].some() {
            let code = if quad { Code::Cmp_r64_rm64 } else { Code::Cmp_r32_rm32 };
            let b = self.general(b, width);
            return self.put(Instruction::with2(code, a, b)?);
        }
        let short = i8::try_from(inst.imm).is_ok();
        let code = match (quad, short) {
            (true, true) => Code::Cmp_rm64_imm8,
            (true, false) => Code::Cmp_rm64_imm32,
            (false, true) => Code::Cmp_rm32_imm8,
            (false, false) => Code::Cmp_rm32_imm32,
        };
        self.put(Instruction::with2(code, a, inst.imm as i32)?)
    }

    fn inst(&mut self, inst: &Inst) -> Result<(), IcedError> {
        let class = match inst.dst.some().or(inst.src[0].some()) {
            Some(r) => self.f.info(r).class,
            None => Class::General,
        };
        match (inst.op, class) {
            (Op::Argument, _) => Ok(()),
            (Op::Fma, _) => self.fma(inst),
            (Op::ToMask | Op::FromMask, _) | (_, Class::Mask) => self.mask_inst(inst),
            (Op::ToGeneral, _) | (_, Class::Vector) => self.vector_inst(inst),
            (_, Class::General) => self.general_inst(inst),
        }
    }

    /// A multiply-add: the destination is one of its operands, the last may be in memory.
    fn fma(&mut self, inst: &Inst) -> Result<(), IcedError> {
        let [mut a, mut b, c] = inst.src;
        let (w, d) = (inst.width, inst.dst);
        // Memory or the destination: `a` for the one, `b` for the other.
        if inst.mem.is_some() && inst.mem_at == 1 || self.same(d, b) && !self.same(d, c) {
            std::mem::swap(&mut a, &mut b);
        }
        let in_memory = inst.mem.map(Operand::Memory);
        let r = |e: &Self, r: Reg| Operand::Register(e.vector(r, w));
        let dst = r(self, d);
        let (order, x, y) = if c == Reg::NONE {
            // d = a·b + memory
            if !self.same(d, a) && !self.same(d, b) {
                self.copy_vector(d, a, w)?;
            } else if !self.same(d, a) {
                std::mem::swap(&mut a, &mut b);
            }
            (Order::F213, r(self, b), in_memory)
        } else if self.same(d, c) {
            match (a.some(), b.some()) {
                (Some(a), Some(b)) => (Order::F231, r(self, a), Some(r(self, b))),
                (Some(x), None) | (None, Some(x)) => (Order::F231, r(self, x), in_memory),
                (None, None) => unreachable!("one operand is in memory at most"),
            }
        } else if a != Reg::NONE && self.same(d, a) {
            match b.some() {
                Some(b) => (Order::F213, r(self, b), Some(r(self, c))),
                None => (Order::F132, r(self, c), in_memory),
            }
        } else if b != Reg::NONE && self.same(d, b) {
            // Then `a` is in memory.
            (Order::F132, r(self, c), in_memory)
        } else {
            self.copy_vector(d, c, w)?;
            match (a.some(), b.some()) {
                (Some(a), Some(b)) => (Order::F231, r(self, a), Some(r(self, b))),
                (Some(x), None) | (None, Some(x)) => (Order::F231, r(self, x), in_memory),
                (None, None) => unreachable!("one operand is in memory at most"),
            }
        };
        let y = y.unwrap_or(x);
        self.op(table::fma(order, self.f.level, w), &[dst, x, y])
    }

    pub fn copy_vector(&mut self, to: Reg, from: Reg, width: Width) -> Result<(), IcedError> {
        if self.same(to, from) {
            return Ok(());
        }
        let code = table::code(Op::Copy, self.f.level, width);
        let (to, from) = (self.vector(to, width), self.vector(from, width));
        self.op(code, &[Operand::Register(to), Operand::Register(from)])
    }
}

fn frame_place(offset: u32) -> Operand {
    Operand::Memory(Mem { base: Base::Frame, offset: offset as i32, splat: false, constant: false })
}

/// True if no other loop begins before this one ends.
fn is_innermost(rest: &[Inst]) -> bool {
    rest.iter().find(|i| matches!(i.op, Op::Loop | Op::EndLoop)).is_some_and(|i| i.op == Op::EndLoop)
}

/// True if one element for all lanes is the instruction's option and not its meaning.
fn is_broadcast_form(code: Code) -> bool {
    !matches!(
        code,
        Code::VEX_Vbroadcastss_xmm_m32
            | Code::VEX_Vbroadcastss_ymm_m32
            | Code::EVEX_Vbroadcastss_xmm_k1z_xmmm32
            | Code::EVEX_Vbroadcastss_ymm_k1z_xmmm32
            | Code::EVEX_Vbroadcastss_zmm_k1z_xmmm32
    )
}
