//! Loads and stores.

use super::Env;
use super::warp::{Cause, Longs, Outcome, Trouble, Warp, lanes};
use crate::error::Fault;
use crate::op::{Address, Base, Lanes, Space};

/// The little-endian number of up to 8 bytes.
fn number(bytes: &[u8], signed: bool) -> u64 {
    match *bytes {
        [a] if signed => a as i8 as u64,
        [a] => a.into(),
        [a, b] if signed => i16::from_le_bytes([a, b]) as u64,
        [a, b] => u16::from_le_bytes([a, b]).into(),
        [a, b, c, d] if signed => i32::from_le_bytes([a, b, c, d]) as u64,
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]).into(),
        _ => bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)),
    }
}

/// A fault of a lane.
pub(super) fn at(lane: usize) -> impl Fn(Fault) -> Trouble {
    move |fault| Trouble { lane: lane as u32, cause: Cause::Fault(fault) }
}

impl Warp {
    pub(super) fn addresses(&self, address: &Address, mask: u32) -> Outcome<Longs> {
        let offset = address.offset as u64;
        Ok(match address.base {
            Base::Zero => [offset; 32],
            Base::L(l) => self.l(l, mask)?.map(|base| base.wrapping_add(offset)),
            // Sums of 32-bit addresses wrap as those do.
            Base::W(w) => self.w(w, mask)?.map(|base| u64::from(base.wrapping_add(offset as u32))),
        })
    }

    pub(super) fn ld_param(&mut self, env: &Env, bytes: u8, signed: bool, d: &Lanes, offset: u32, mask: u32) {
        let size = usize::from(bytes);
        for (i, slot) in d.iter().enumerate() {
            let start = offset as usize + i * size;
            let value = number(&env.params[start..start + size], signed);
            self.put_bits(slot, mask, &[value; 32]);
        }
    }

    pub(super) fn ld(&mut self, env: &mut Env, load: &Load, mask: u32) -> Outcome<()> {
        let addresses = self.addresses(load.address, mask)?;
        let size = usize::from(load.bytes);
        let all = u32::from(load.bytes) * u32::from(load.d.count);
        env.count(load.space, &addresses, mask, all);
        let known = match load.space {
            Space::Global => env.memory.common(&addresses, mask, all),
            Space::Shared | Space::Local => None,
        };
        let mut who = self.who(env, 0);
        let first = who.thread;
        let mut values = [[0; 32]; 4];
        for lane in lanes(mask) {
            let address = addresses[lane];
            who.thread = first + lane as u16;
            let found = match load.space {
                Space::Global => env.memory.load((address, known), all, load.read_only, &who),
                Space::Shared => env.shared.load(address, all, &who),
                Space::Local => self.local.load(lane, address, all),
            };
            let bytes = found.map_err(at(lane))?;
            for (value, part) in values.iter_mut().zip(bytes.chunks_exact(size)) {
                value[lane] = number(part, load.signed);
            }
        }
        for (slot, values) in load.d.iter().zip(&values) {
            self.put_bits(slot, mask, values);
        }
        Ok(())
    }

    /// Whether a lane before this one writes the same to the same place in the same instruction: whichever comes
    /// last, the bytes are the same.
    fn writes_the_same(&self, store: &Store, addresses: &Longs, mask: u32, lane: usize) -> bool {
        let same = |other: usize| store.a.iter().all(|slot| self.peek(slot, other) == self.peek(slot, lane));
        lanes(mask).take_while(|&l| l < lane).any(|l| addresses[l] == addresses[lane] && same(l))
    }

    pub(super) fn st(&mut self, env: &mut Env, store: &Store, mask: u32) -> Outcome<()> {
        let addresses = self.addresses(store.address, mask)?;
        for slot in store.a.iter() {
            self.need(slot, mask)?;
        }
        let size = usize::from(store.bytes);
        let all = u32::from(store.bytes) * u32::from(store.a.count);
        env.count(store.space, &addresses, mask, all);
        let known = match store.space {
            Space::Global => env.memory.common(&addresses, mask, all),
            Space::Shared | Space::Local => None,
        };
        let mut who = self.who(env, 0);
        let first = who.thread;
        for lane in lanes(mask) {
            let address = addresses[lane];
            who.thread = first + lane as u16;
            let mut values = [0; 4];
            for (value, slot) in values.iter_mut().zip(store.a.iter()) {
                *value = self.peek(slot, lane);
            }
            let found = match store.space {
                Space::Global => env.memory.store((address, known), all, &who),
                Space::Shared => match env.shared.store(address, all, &who) {
                    // The first such lane has written it; the others, too, need a barrier to read it.
                    Err(Fault::Race { written: true, .. })
                        if self.writes_the_same(store, &addresses, mask, lane) =>
                    {
                        continue;
                    }
                    found => found,
                },
                Space::Local => self.local.store(lane, address, all),
            };
            let bytes = found.map_err(at(lane))?;
            for (i, value) in values.iter().enumerate().take(store.a.count.into()) {
                bytes[i * size..(i + 1) * size].copy_from_slice(&value.to_le_bytes()[..size]);
            }
        }
        Ok(())
    }
}

/// A load's parts.
pub(super) struct Load<'a> {
    pub space: Space,
    pub bytes: u8,
    pub signed: bool,
    pub read_only: bool,
    pub d: &'a Lanes,
    pub address: &'a Address,
}

/// A store's parts.
pub(super) struct Store<'a> {
    pub space: Space,
    pub bytes: u8,
    pub a: &'a Lanes,
    pub address: &'a Address,
}
