//! Machine instructions for single instructions: general, vector, mask.

use iced_x86::{Code, IcedError, Instruction, Register};

use super::encode::{Emit, Operand};
use super::lir::{Base, Condition, Inst, Level, Mem, Op, Reg, Width};
use super::table;

/// Codes for 64 and for 32 bits.
fn by_width(width: Width, quad: Code, double: Code) -> Code {
    if width == Width::Quad { quad } else { double }
}

impl Emit<'_> {
    pub fn general_inst(&mut self, inst: &Inst) -> Result<(), IcedError> {
        let w = inst.width;
        match inst.op {
            Op::Copy => self.move_general(inst.dst, inst.src[0], Width::Quad),
            Op::Load | Op::Store => self.transfer_general(inst),
            Op::PrefetchFirst => self.op(Code::Prefetcht0_m8, &[self.memory_of(inst)]),
            Op::PrefetchSecond => self.op(Code::Prefetcht1_m8, &[self.memory_of(inst)]),
            Op::Immediate => self.immediate(inst.dst, inst.imm),
            Op::Lea => self.lea(inst),
            Op::Sub => self.subtract(inst),
            Op::And => self.commuting(inst, by_width(w, Code::And_r64_rm64, Code::And_r32_rm32)),
            Op::Or => self.commuting(inst, by_width(w, Code::Or_r64_rm64, Code::Or_r32_rm32)),
            Op::Xor => self.commuting(inst, by_width(w, Code::Xor_r64_rm64, Code::Xor_r32_rm32)),
            Op::Multiply => self.commuting(inst, by_width(w, Code::Imul_r64_rm64, Code::Imul_r32_rm32)),
            Op::AndImmediate => self.on_copy(inst, by_width(w, Code::And_rm64_imm32, Code::And_rm32_imm32)),
            Op::XorImmediate => self.on_copy(inst, by_width(w, Code::Xor_rm64_imm32, Code::Xor_rm32_imm32)),
            Op::ShlImmediate => self.on_copy(inst, by_width(w, Code::Shl_rm64_imm8, Code::Shl_rm32_imm8)),
            Op::SarImmediate => self.on_copy(inst, by_width(w, Code::Sar_rm64_imm8, Code::Sar_rm32_imm8)),
            Op::ShrImmediate => self.on_copy(inst, by_width(w, Code::Shr_rm64_imm8, Code::Shr_rm32_imm8)),
            Op::MultiplyImmediate => {
                let code = by_width(w, Code::Imul_r64_rm64_imm32, Code::Imul_r32_rm32_imm32);
                let (d, a) = (self.general(inst.dst, w), self.general(inst.src[0], w));
                self.put(Instruction::with3(code, d, a, inst.imm as i32)?)
            }
            Op::Shl | Op::Sar => {
                let code = match inst.op {
                    Op::Shl => by_width(w, Code::VEX_Shlx_r64_rm64_r64, Code::VEX_Shlx_r32_rm32_r32),
                    _ => by_width(w, Code::VEX_Sarx_r64_rm64_r64, Code::VEX_Sarx_r32_rm32_r32),
                };
                let [d, a, b] = [inst.dst, inst.src[0], inst.src[1]].map(|r| self.general(r, w));
                self.put(Instruction::with3(code, d, a, b)?)
            }
            Op::Negate => {
                self.move_general(inst.dst, inst.src[0], w)?;
                let d = self.general(inst.dst, w);
                self.put(Instruction::with1(by_width(w, Code::Neg_rm64, Code::Neg_rm32), d)?)
            }
            Op::ZeroExtend => {
                let (d, a) =
                    (self.general(inst.dst, Width::Double), self.general(inst.src[0], Width::Double));
                self.put(Instruction::with2(Code::Mov_r32_rm32, d, a)?)
            }
            Op::Set(condition) => self.set(inst, condition),
            Op::Choose => self.choose(inst),
            Op::Max | Op::Min => self.extreme(inst),
            Op::Divide => self.divide(inst),
            // There is no such instruction.
            _ => self.put(Instruction::default()),
        }
    }

    fn move_general(&mut self, to: Reg, from: Reg, width: Width) -> Result<(), IcedError> {
        if self.same(to, from) {
            return Ok(());
        }
        let (to, from) = (self.general(to, width), self.general(from, width));
        self.put(Instruction::with2(by_width(width, Code::Mov_r64_rm64, Code::Mov_r32_rm32), to, from)?)
    }

    fn transfer_general(&mut self, inst: &Inst) -> Result<(), IcedError> {
        let mem = Operand::Memory(inst.mem.expect("loads and stores have a place"));
        let register = |w| Operand::Register(self.general(inst.dst.some().unwrap_or(inst.src[0]), w));
        match (inst.op, inst.width) {
            (Op::Load, Width::Quad) => self.op(Code::Mov_r64_rm64, &[register(Width::Quad), mem]),
            (Op::Load, Width::Byte) => self.op(Code::Movzx_r32_rm8, &[register(Width::Double), mem]),
            (Op::Load, _) => self.op(Code::Mov_r32_rm32, &[register(Width::Double), mem]),
            (_, Width::Quad) => self.op(Code::Mov_rm64_r64, &[mem, register(Width::Quad)]),
            (_, Width::Byte) => self.op(Code::Mov_rm8_r8, &[mem, register(Width::Byte)]),
            _ => self.op(Code::Mov_rm32_r32, &[mem, register(Width::Double)]),
        }
    }

    /// Sets a register to a number; flags may change.
    fn immediate(&mut self, d: Reg, c: i64) -> Result<(), IcedError> {
        let (whole, low) = (self.general(d, Width::Quad), self.general(d, Width::Double));
        let inst = if c == 0 {
            Instruction::with2(Code::Xor_r32_rm32, low, low)?
        } else if let Ok(c) = u32::try_from(c) {
            Instruction::with2(Code::Mov_r32_imm32, low, c)?
        } else if let Ok(c) = i32::try_from(c) {
            Instruction::with2(Code::Mov_rm64_imm32, whole, c)?
        } else {
            Instruction::with2(Code::Mov_r64_imm64, whole, c)?
        };
        self.put(inst)
    }

    /// Additions, in place where possible.
    fn lea(&mut self, inst: &Inst) -> Result<(), IcedError> {
        let (w, scale, c) = (inst.width, inst.imm >> 32, inst.imm as i32);
        let [mut a, b, _] = inst.src;
        let mut b = b;
        let d = self.general(inst.dst, w);
        if b == Reg::NONE && self.same(inst.dst, a) {
            let short = i8::try_from(c).is_ok();
            let code = match (w == Width::Quad, short) {
                (true, true) => Code::Add_rm64_imm8,
                (true, false) => Code::Add_rm64_imm32,
                (false, true) => Code::Add_rm32_imm8,
                (false, false) => Code::Add_rm32_imm32,
            };
            return self.put(Instruction::with2(code, d, c)?);
        }
        if b != Reg::NONE && scale == 0 && c == 0 && (self.same(inst.dst, a) || self.same(inst.dst, b)) {
            if !self.same(inst.dst, a) {
                std::mem::swap(&mut a, &mut b);
            }
            let code = by_width(w, Code::Add_r64_rm64, Code::Add_r32_rm32);
            let b = self.general(b, w);
            return self.put(Instruction::with2(code, d, b)?);
        }
        let mut lea = Instruction::default();
        lea.set_code(by_width(w, Code::Lea_r64_m, Code::Lea_r32_m));
        lea.try_set_op_register(0, d)?;
        lea.try_set_op_kind(1, iced_x86::OpKind::Memory)?;
        lea.set_memory_base(self.general(a, Width::Quad));
        if let Some(b) = b.some() {
            lea.set_memory_index(self.general(b, Width::Quad));
            lea.set_memory_index_scale(1 << scale);
        }
        lea.set_memory_displacement64(i64::from(c) as u64);
        lea.set_memory_displ_size(u32::from(c != 0));
        self.put(lea)
    }

    fn subtract(&mut self, inst: &Inst) -> Result<(), IcedError> {
        let (w, d) = (inst.width, inst.dst);
        let [a, b, _] = inst.src;
        let code = by_width(w, Code::Sub_r64_rm64, Code::Sub_r32_rm32);
        if self.same(d, b) && !self.same(d, a) {
            let (d, a) = (self.general(d, w), self.general(a, w));
            self.put(Instruction::with1(by_width(w, Code::Neg_rm64, Code::Neg_rm32), d)?)?;
            return self.put(Instruction::with2(by_width(w, Code::Add_r64_rm64, Code::Add_r32_rm32), d, a)?);
        }
        self.move_general(d, a, w)?;
        let (d, b) = (self.general(d, w), self.general(b, w));
        self.put(Instruction::with2(code, d, b)?)
    }

    /// The destination takes one source and is combined with the other.
    fn commuting(&mut self, inst: &Inst, code: Code) -> Result<(), IcedError> {
        let [mut a, mut b, _] = inst.src;
        if self.same(inst.dst, b) {
            std::mem::swap(&mut a, &mut b);
        }
        self.move_general(inst.dst, a, inst.width)?;
        let (d, b) = (self.general(inst.dst, inst.width), self.general(b, inst.width));
        self.put(Instruction::with2(code, d, b)?)
    }

    fn on_copy(&mut self, inst: &Inst, code: Code) -> Result<(), IcedError> {
        self.move_general(inst.dst, inst.src[0], inst.width)?;
        let d = self.general(inst.dst, inst.width);
        self.put(Instruction::with2(code, d, inst.imm as i32)?)
    }

    fn set(&mut self, inst: &Inst, condition: Condition) -> Result<(), IcedError> {
        let a = self.general(inst.src[0], inst.width);
        self.compare(a, inst, inst.width)?;
        let code = match condition {
            Condition::Equal => Code::Sete_rm8,
            Condition::NotEqual => Code::Setne_rm8,
            Condition::Less => Code::Setl_rm8,
            Condition::LessOrEqual => Code::Setle_rm8,
        };
        let (byte, whole) = (self.general(inst.dst, Width::Byte), self.general(inst.dst, Width::Double));
        self.put(Instruction::with1(code, byte)?)?;
        self.put(Instruction::with2(Code::Movzx_r32_rm8, whole, byte)?)
    }

    fn choose(&mut self, inst: &Inst) -> Result<(), IcedError> {
        let [condition, mut a, mut b] = inst.src;
        let flag = self.general(condition, Width::Double);
        self.put(Instruction::with2(Code::Test_rm32_r32, flag, flag)?)?;
        let mut code = Code::Cmovne_r64_rm64;
        if self.same(inst.dst, a) {
            std::mem::swap(&mut a, &mut b);
            code = Code::Cmove_r64_rm64;
        }
        self.move_general(inst.dst, b, Width::Quad)?;
        let (d, a) = (self.general(inst.dst, Width::Quad), self.general(a, Width::Quad));
        self.put(Instruction::with2(code, d, a)?)
    }

    fn extreme(&mut self, inst: &Inst) -> Result<(), IcedError> {
        let [mut a, mut b, _] = inst.src;
        if self.same(inst.dst, b) {
            std::mem::swap(&mut a, &mut b);
        }
        let w = Width::Double;
        let (x, y) = (self.general(a, w), self.general(b, w));
        self.put(Instruction::with2(Code::Cmp_r32_rm32, x, y)?)?;
        self.move_general(inst.dst, a, w)?;
        let code = if inst.op == Op::Max { Code::Cmovl_r32_rm32 } else { Code::Cmovg_r32_rm32 };
        let d = self.general(inst.dst, w);
        self.put(Instruction::with2(code, d, y)?)
    }

    /// The machine divides rdx:rax: their contents wait in the frame.
    fn divide(&mut self, inst: &Inst) -> Result<(), IcedError> {
        let place = |i: u32| {
            let offset = (self.divide_at + 8 * i) as i32;
            Operand::Memory(Mem { base: Base::Frame, offset, splat: false, constant: false })
        };
        let [keep_rax, keep_rdx, result] = [place(0), place(1), place(2)];
        let (rax, rdx) = (Operand::Register(Register::RAX), Operand::Register(Register::RDX));
        let words = [inst.imm as u32, (inst.imm as u64 >> 32) as u32];
        let offset = self.numbers.place(&words);
        let divisor = Operand::Memory(Mem { base: Base::Constants, offset, splat: false, constant: true });
        let a = Operand::Register(self.general(inst.src[0], Width::Quad));
        let d = Operand::Register(self.general(inst.dst, Width::Quad));
        self.op(Code::Mov_rm64_r64, &[keep_rax, rax])?;
        self.op(Code::Mov_rm64_r64, &[keep_rdx, rdx])?;
        self.op(Code::Mov_r64_rm64, &[rax, a])?;
        self.put(Instruction::with2(Code::Xor_r32_rm32, Register::EDX, Register::EDX)?)?;
        self.op(Code::Div_rm64, &[divisor])?;
        self.op(Code::Mov_rm64_r64, &[result, rax])?;
        self.op(Code::Mov_r64_rm64, &[rax, keep_rax])?;
        self.op(Code::Mov_r64_rm64, &[rdx, keep_rdx])?;
        self.op(Code::Mov_r64_rm64, &[d, result])
    }

    pub fn mask_inst(&mut self, inst: &Inst) -> Result<(), IcedError> {
        let k = |e: &Self, r: Reg| Operand::Register(e.mask(r));
        let code = match inst.op {
            Op::AndM => Code::VEX_Kandw_kr_kr_kr,
            Op::OrM => Code::VEX_Korw_kr_kr_kr,
            Op::XorM => Code::VEX_Kxorw_kr_kr_kr,
            Op::NotM => Code::VEX_Knotw_kr_kr,
            Op::Copy => Code::VEX_Kmovw_kr_km16,
            Op::CompareF | Op::CompareI => {
                let code = table::code(inst.op, self.f.level, inst.width);
                let (a, b) = (self.source(inst, 0, inst.width), self.source(inst, 1, inst.width));
                return self.op(code, &[k(self, inst.dst), a, b, Operand::Immediate(inst.imm)]);
            }
            Op::ToMask => {
                let a = Operand::Register(self.general(inst.src[0], Width::Double));
                return self.op(Code::VEX_Kmovw_kr_r32, &[k(self, inst.dst), a]);
            }
            Op::FromMask => {
                let d = Operand::Register(self.general(inst.dst, Width::Double));
                return self.op(Code::VEX_Kmovw_r32_kr, &[d, k(self, inst.src[0])]);
            }
            Op::Load => {
                let mem = inst.mem.map(Operand::Memory).expect("loads have a place");
                return self.op(Code::VEX_Kmovq_kr_km64, &[k(self, inst.dst), mem]);
            }
            _ => {
                let mem = inst.mem.map(Operand::Memory).expect("stores have a place");
                return self.op(Code::VEX_Kmovq_m64_kr, &[mem, k(self, inst.src[0])]);
            }
        };
        let mut operands = vec![k(self, inst.dst)];
        operands.extend(inst.src.iter().filter_map(|r| r.some()).map(|r| k(self, r)));
        self.op(code, &operands)
    }

    pub fn vector_inst(&mut self, inst: &Inst) -> Result<(), IcedError> {
        let (w, level) = (inst.width, self.f.level);
        let code = table::code(inst.op, level, w);
        let at = |e: &Self, r: Reg, w| Operand::Register(e.vector(r, w));
        let imm = Operand::Immediate(inst.imm);
        let half = if w == Width::Z { Width::Y } else { Width::X };
        match inst.op {
            Op::Copy => self.copy_vector(inst.dst, inst.src[0], w),
            Op::Zero => self.zero(inst.dst),
            Op::Load => self.op(code, &[at(self, inst.dst, w), self.memory_of(inst)]),
            Op::Store => self.op(code, &[self.memory_of(inst), at(self, inst.src[0], w)]),
            Op::Splat => self.splat(inst),
            Op::SplatGeneral | Op::ToVector => {
                let a = Operand::Register(self.general(inst.src[0], Width::Double));
                self.op(code, &[at(self, inst.dst, w), a])
            }
            Op::ToGeneral => {
                let d = Operand::Register(self.general(inst.dst, Width::Double));
                self.op(code, &[d, at(self, inst.src[0], Width::X)])
            }
            Op::MaskToLanes => {
                let k = Operand::Register(self.mask(inst.src[0]));
                self.op(code, &[at(self, inst.dst, w), k])
            }
            Op::Blend if level == Level::Avx512 => {
                let operands = [at(self, inst.dst, w), at(self, inst.src[0], w), self.source(inst, 1, w)];
                self.masked(code, &operands, Some(self.mask(inst.src[2])))
            }
            Op::Blend => {
                let mask = at(self, inst.src[2], w);
                let operands =
                    [at(self, inst.dst, w), at(self, inst.src[0], w), self.source(inst, 1, w), mask];
                self.op(code, &operands)
            }
            Op::IntToDouble => self.op(code, &[at(self, inst.dst, w), at(self, inst.src[0], half)]),
            Op::DoubleToInt => self.op(code, &[at(self, inst.dst, half), at(self, inst.src[0], w)]),
            Op::ExtractX => self.op(code, &[at(self, inst.dst, Width::X), at(self, inst.src[0], w), imm]),
            Op::ExtractY => self.op(code, &[at(self, inst.dst, Width::Y), at(self, inst.src[0], w), imm]),
            Op::JoinX | Op::JoinY => {
                let (a, b) = (at(self, inst.src[0], w), at(self, inst.src[1], half));
                self.op(code, &[at(self, inst.dst, w), a, b, Operand::Immediate(1)])
            }
            Op::ShlLanesBy | Op::SarLanesBy => {
                let by = at(self, inst.src[1], Width::X);
                self.op(code, &[at(self, inst.dst, w), at(self, inst.src[0], w), by])
            }
            Op::Sqrt | Op::AbsI | Op::IntToFloat | Op::FloatToInt => {
                self.op(code, &[at(self, inst.dst, w), self.source(inst, 0, w)])
            }
            Op::Round | Op::Permute | Op::ShlLanesImmediate | Op::SarLanesImmediate => {
                self.op(code, &[at(self, inst.dst, w), self.source(inst, 0, w), imm])
            }
            Op::ShrLanesImmediate | Op::ShrQuadsImmediate => {
                self.op(code, &[at(self, inst.dst, w), self.source(inst, 0, w), imm])
            }
            Op::CompareF | Op::BlendImmediate => {
                let (a, b) = (self.source(inst, 0, w), self.source(inst, 1, w));
                self.op(code, &[at(self, inst.dst, w), a, b, imm])
            }
            _ => {
                let (a, b) = (self.source(inst, 0, w), self.source(inst, 1, w));
                self.op(code, &[at(self, inst.dst, w), a, b])
            }
        }
    }

    fn memory_of(&self, inst: &Inst) -> Operand {
        Operand::Memory(inst.mem.expect("loads and stores have a place"))
    }

    /// The form that the machine knows as one that needs no work, where there is one.
    fn zero(&mut self, d: Reg) -> Result<(), IcedError> {
        let x = self.vector(d, Width::X);
        let code = if x < Register::XMM16 {
            Code::VEX_Vpxor_xmm_xmm_xmmm128
        } else {
            Code::EVEX_Vpxord_xmm_k1z_xmm_xmmm128b32
        };
        self.op(code, &[Operand::Register(x); 3])
    }

    fn splat(&mut self, inst: &Inst) -> Result<(), IcedError> {
        let code = match (self.f.level, inst.mem, inst.width) {
            (Level::Avx2, Some(_), Width::X) => Code::VEX_Vbroadcastss_xmm_m32,
            (Level::Avx2, Some(_), _) => Code::VEX_Vbroadcastss_ymm_m32,
            _ => table::code(Op::Splat, self.f.level, inst.width),
        };
        let source = self.source(inst, 0, Width::X);
        self.op(code, &[Operand::Register(self.vector(inst.dst, inst.width)), source])
    }
}
