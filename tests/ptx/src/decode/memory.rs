//! Loads, stores, asynchronous copies, matrix loads.

use super::{Decoded, Decoder};
use crate::op::{Lanes, Op, Slot, Space, W};
use crate::parse::operand::Operand;
use crate::types::Type;

const LOADABLE: [Type; 13] = [
    Type::B8,
    Type::U8,
    Type::S8,
    Type::B16,
    Type::U16,
    Type::S16,
    Type::B32,
    Type::U32,
    Type::S32,
    Type::F32,
    Type::B64,
    Type::U64,
    Type::S64,
];

/// Hints to caches, which change no value.
const LOAD_HINTS: [(&str, ()); 4] = [("ca", ()), ("cg", ()), ("cs", ()), ("lu", ())];
const STORE_HINTS: [(&str, ()); 4] = [("wb", ()), ("cg", ()), ("cs", ()), ("wt", ())];
const EVICTION: [(&str, ()); 4] =
    [("L1::evict_normal", ()), ("L1::evict_first", ()), ("L1::evict_last", ()), ("L1::no_allocate", ())];
const PREFETCH: [(&str, ()); 3] = [("L2::64B", ()), ("L2::128B", ()), ("L2::256B", ())];

const SPACES: [(&str, Space); 4] = [
    ("global", Space::Global),
    ("shared", Space::Shared),
    ("shared::cta", Space::Shared),
    ("local", Space::Local),
];

/// The most bytes of an access.
const WIDEST: u32 = 16;

impl<'a> Decoder<'_, 'a> {
    /// `.v2`, `.v4` or nothing, and the type.
    fn elements(&mut self) -> Decoded<(u8, Type)> {
        let count = self.choose(&[("v2", 2), ("v4", 4)]).unwrap_or(1);
        let ty = self.ty(&LOADABLE)?;
        if u32::from(count) * ty.bytes() > WIDEST {
            return self.error("more than 16 bytes");
        }
        self.end(2)?;
        Ok((count, ty))
    }

    /// Bytes of an element, and whether it is sign-extended to its register.
    fn load_kind(ty: Type) -> (u8, bool) {
        (ty.bytes() as u8, ty.is_signed())
    }

    pub(super) fn ld(&mut self) -> Decoded<Op> {
        if self.has("param") {
            return self.ld_param();
        }
        let Some(space) = self.choose(&SPACES) else {
            return match self.words.get(self.at) {
                Some(&("volatile" | "relaxed" | "acquire" | "weak")) => self.unsupported(),
                _ => self.error("a state space is missing (generic addresses are not supported)"),
            };
        };
        let global = space == Space::Global;
        self.choose(&LOAD_HINTS);
        let read_only = global && self.has("nc");
        if global {
            self.choose(&EVICTION);
            self.choose(&PREFETCH);
        }
        let (count, ty) = self.elements()?;
        let d = self.lanes(0, count, ty, true, false)?;
        let (bytes, signed) = Self::load_kind(ty);
        Ok(Op::Ld { space, bytes, signed, read_only, d, address: self.address(1, space)? })
    }

    fn ld_param(&mut self) -> Decoded<Op> {
        let (count, ty) = self.elements()?;
        let d = self.lanes(0, count, ty, true, false)?;
        let Operand::Address(name, displacement) = *self.operand(1)? else {
            return self.error("expected a parameter in brackets");
        };
        let kernel = &self.builder.kernel;
        let Some(param) = kernel.params.iter().find(|p| p.name == name) else {
            return self.error(format!("there is no parameter `{name}`"));
        };
        let size = i64::from(count) * i64::from(ty.bytes());
        let inside = displacement >= 0 && displacement + size <= i64::from(param.bytes);
        let offset = i64::from(param.offset) + displacement;
        if !inside {
            return self.error(format!(
                "reads {size} bytes at {displacement} of `{name}`, which has {}",
                param.bytes
            ));
        }
        if offset % size != 0 {
            return self.error(format!("reads {size} bytes at an address that is no multiple of that"));
        }
        let (bytes, signed) = Self::load_kind(ty);
        Ok(Op::LdParam { bytes, signed, d, offset: offset as u32 })
    }

    pub(super) fn st(&mut self) -> Decoded<Op> {
        let Some(space) = self.choose(&SPACES) else {
            return self.error("a state space is missing (generic addresses are not supported)");
        };
        self.choose(&STORE_HINTS);
        if space == Space::Global {
            self.choose(&EVICTION);
        }
        let (count, ty) = self.elements()?;
        let a = self.lanes(1, count, ty, true, true)?;
        Ok(Op::St { space, bytes: ty.bytes() as u8, a, address: self.address(0, space)? })
    }

    pub(super) fn prefetch(&mut self) -> Decoded<Op> {
        self.need(&["global"])?;
        if self.choose(&[("L1", ()), ("L2", ())]).is_none() {
            return self.unsupported();
        }
        self.end(1)?;
        self.address(0, Space::Global)?;
        Ok(Op::Nothing)
    }

    pub(super) fn cp(&mut self) -> Decoded<Op> {
        self.need(&["async"])?;
        if self.has("commit_group") {
            self.end(0)?;
            return Ok(Op::CpCommit);
        }
        if self.has("wait_all") {
            self.end(0)?;
            return Ok(Op::CpWaitAll);
        }
        if self.has("wait_group") {
            self.end(1)?;
            return Ok(Op::CpWait(self.immediate(0, u16::MAX.into())?));
        }
        let around_l1 = match self.choose(&[("ca", false), ("cg", true)]) {
            Some(v) => v,
            None => return self.unsupported(),
        };
        if self.choose(&[("shared", ()), ("shared::cta", ())]).is_none() {
            return self.unsupported();
        }
        self.need(&["global"])?;
        self.choose(&PREFETCH);
        let optional = self.statement.operands.len() == 4;
        self.end(if optional { 4 } else { 3 })?;
        let bytes = self.immediate(2, WIDEST)?;
        if !(bytes == 16 || !around_l1 && matches!(bytes, 4 | 8)) {
            return self.error(format!("a copy of {bytes} bytes (.ca copies 4, 8 or 16, .cg 16)"));
        }
        let (mut size, mut ignore) = (None, None);
        if optional {
            match *self.operand(3)? {
                Operand::Name(name) => match self.typed_any(name)? {
                    Slot::P(p) => ignore = Some(p),
                    _ => size = Some(self.source_w(3, Type::U32)?),
                },
                _ => {
                    self.immediate(3, bytes)?;
                    size = Some(self.source_w(3, Type::U32)?);
                }
            }
        }
        let (to, from) = (self.address(0, Space::Shared)?, self.address(1, Space::Global)?);
        Ok(Op::CpAsync { bytes: bytes as u8, to, from, size, ignore })
    }

    /// A register of any type.
    fn typed_any(&mut self, name: &str) -> Decoded<Slot> {
        match self.builder.find_register(name, self.statement.line)? {
            Some(register) => Ok(register.slot),
            None if crate::kernel::Special::parse(name).is_some() => Ok(Slot::W(W(0))),
            None => self.error(format!("`{name}` is not declared")),
        }
    }

    pub(super) fn ldmatrix(&mut self) -> Decoded<Op> {
        self.need(&["sync", "aligned"])?;
        // The document's order is the first; `ptxas` takes others, and NVIDIA's libraries have the shape last.
        let shape_first = self.has("m8n8");
        let Some(count) = self.choose(&[("x1", 1), ("x2", 2), ("x4", 4)]) else { return self.unsupported() };
        let transpose = self.has("trans");
        if !shape_first {
            self.need(&["m8n8"])?;
        }
        if self.choose(&[("shared", ()), ("shared::cta", ())]).is_none() {
            return self.unsupported();
        }
        self.ty(&[Type::B16])?;
        self.end(2)?;
        self.braces(0)?;
        let d: Lanes = self.lanes(0, count, Type::B32, false, false)?;
        Ok(Op::LdMatrix { count, transpose, d, address: self.address(1, Space::Shared)? })
    }
}
