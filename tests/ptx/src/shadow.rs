//! Who touched which byte when: race detection for shared and global memory.
//!
//! Time is cut into *intervals*: a block gets a fresh number when it starts and whenever all its
//! threads have passed a barrier. As blocks run one after the other, numbers below the launch's
//! first belong to earlier launches (ordered before everything), numbers from there to the block's
//! first to other blocks of this launch (never ordered), those below the present one to this block
//! before its last barrier (ordered). Within an interval only `bar.warp.sync` orders, and only
//! threads of one warp: marks carry the warp's count of those.
//!
//! A cell keeps the last write and the reads since; it stands for four bytes until an access
//! smaller than that splits it into bytes.

/// A thread and the time at which it accesses memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    /// The first interval that is not ordered before this launch.
    pub launch_first: u32,
    /// The block's first interval.
    pub block_first: u32,
    /// The present interval.
    pub now: u32,
    /// Number of the thread in its block.
    pub thread: u16,
    /// How often its warp has synchronised.
    pub sync: u16,
}

/// Why an access must not happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Conflict {
    /// Nothing has written the bytes.
    Unwritten,
    /// Another thread has written (or else read) them, unordered.
    Race { written: bool, by: Other },
    /// A copy of this thread is still to write them.
    Pending(u16),
}

/// Whom a mark names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Other {
    Thread(u16),
    Several,
    AnotherBlock,
}

#[derive(Clone, Copy, Default)]
struct Mark {
    interval: u32,
    thread: u16,
    sync: u16,
}

#[derive(Clone, Copy, Default)]
struct Cell {
    write: Mark,
    read: Mark,
}

/// Values of [`Mark::thread`] past those of threads.
const OTHER_BLOCKS: u16 = 0xffff;
const SEVERAL: u16 = 0xfffe;
/// Several threads of the warp in the lower bits.
const SEVERAL_OF_WARP: u16 = 0x8000;
/// A copy of the thread in the lower bits has not been waited for.
const PENDING: u16 = 0x4000;

impl Mark {
    fn of(who: &Who) -> Mark {
        Mark { interval: who.now, thread: who.thread, sync: who.sync }
    }

    fn is_pending(self, who: &Who) -> bool {
        self.interval >= who.block_first && self.thread & (PENDING | SEVERAL_OF_WARP) == PENDING
    }

    fn other(self, who: &Who) -> Other {
        if self.interval < who.block_first || self.thread == OTHER_BLOCKS {
            Other::AnotherBlock
        } else if self.thread & SEVERAL_OF_WARP != 0 {
            Other::Several
        } else {
            Other::Thread(self.thread & !PENDING)
        }
    }

    /// Whether the access of this mark is ordered before what `who` does now.
    fn ordered(self, who: &Who) -> bool {
        if self.interval < who.launch_first {
            return true;
        }
        if self.interval < who.block_first || self.thread == OTHER_BLOCKS {
            return false;
        }
        if self.interval < who.now || self.thread == who.thread {
            return true;
        }
        let warp = who.thread >> 5;
        let same_warp = self.thread >> 5 == warp || self.thread == SEVERAL_OF_WARP | warp;
        same_warp && self.sync < who.sync
    }

    /// Joins the present read to the reads before.
    #[inline]
    fn join(&mut self, who: &Who) {
        let new = Mark::of(who);
        if self.interval < who.launch_first {
            *self = new;
        } else if self.interval < who.block_first || self.thread == OTHER_BLOCKS {
            *self = Mark { thread: OTHER_BLOCKS, ..new };
        } else if self.interval < who.now || self.thread == who.thread {
            *self = new;
        } else {
            let warp = SEVERAL_OF_WARP | who.thread >> 5;
            let same_warp = self.thread == warp || self.thread >> 5 == who.thread >> 5;
            self.thread = if same_warp { warp } else { SEVERAL };
            self.sync = who.sync;
        }
    }
}

impl Cell {
    #[inline]
    fn read(&mut self, who: &Who, must_be_written: bool) -> Result<(), Conflict> {
        let write = self.write;
        if !must_be_written && write.interval < who.launch_first {
            self.read.join(who);
            return Ok(());
        }
        if must_be_written && write.interval < who.block_first {
            return Err(Conflict::Unwritten);
        }
        if write.is_pending(who) {
            return Err(Conflict::Pending(write.thread & !PENDING));
        }
        if !write.ordered(who) {
            return Err(Conflict::Race { written: true, by: write.other(who) });
        }
        self.read.join(who);
        Ok(())
    }

    fn write(&mut self, who: &Who) -> Result<(), Conflict> {
        if self.write.is_pending(who) {
            return Err(Conflict::Pending(self.write.thread & !PENDING));
        }
        if !self.read.ordered(who) {
            return Err(Conflict::Race { written: false, by: self.read.other(who) });
        }
        if !self.write.ordered(who) {
            return Err(Conflict::Race { written: true, by: self.write.other(who) });
        }
        self.write = Mark::of(who);
        Ok(())
    }
}

/// The marks of a piece of memory; made when it is first touched.
#[derive(Default)]
pub(crate) struct Shadow {
    words: Vec<Cell>,
    /// Cells of split words, four each; empty while no word is split.
    bytes: Vec<Cell>,
    split: Vec<bool>,
}

type Checked = Result<(), (usize, Conflict)>;

impl Shadow {
    /// Marks for this many bytes.
    pub fn reserve(&mut self, bytes: usize) {
        let words = bytes.div_ceil(4);
        if self.words.len() < words {
            self.words.resize(words, Cell::default());
        }
    }

    /// Applies a check to all cells of an access, which is aligned to its size; says at which byte it failed.
    #[inline]
    fn visit(
        &mut self,
        offset: usize,
        size: usize,
        check: impl Fn(&mut Cell) -> Result<(), Conflict>,
    ) -> Checked {
        if !(offset | size).is_multiple_of(4) {
            self.split(offset / 4);
            return self.visit_bytes(offset, size, check);
        }
        if self.split.is_empty() {
            for (i, cell) in self.words[offset / 4..(offset + size) / 4].iter_mut().enumerate() {
                check(cell).map_err(|c| (offset + 4 * i, c))?;
            }
            return Ok(());
        }
        for word in offset / 4..(offset + size) / 4 {
            if self.split[word] {
                self.visit_bytes(word * 4, 4, &check)?;
            } else {
                check(&mut self.words[word]).map_err(|c| (word * 4, c))?;
            }
        }
        Ok(())
    }

    fn visit_bytes(
        &mut self,
        offset: usize,
        size: usize,
        check: impl Fn(&mut Cell) -> Result<(), Conflict>,
    ) -> Checked {
        for (i, cell) in self.bytes[offset..offset + size].iter_mut().enumerate() {
            check(cell).map_err(|c| (offset + i, c))?;
        }
        Ok(())
    }

    fn split(&mut self, word: usize) {
        if self.split.len() < self.words.len() {
            self.split.resize(self.words.len(), false);
            self.bytes.resize(self.words.len() * 4, Cell::default());
        }
        if !std::mem::replace(&mut self.split[word], true) {
            self.bytes[word * 4..word * 4 + 4].fill(self.words[word]);
        }
    }

    /// A read of memory that may have been written before the block (global memory).
    pub fn read(&mut self, offset: usize, size: usize, who: &Who) -> Checked {
        self.visit(offset, size, |cell| cell.read(who, false))
    }

    /// A read of memory that the block itself must have written (shared memory).
    pub fn read_written(&mut self, offset: usize, size: usize, who: &Who) -> Checked {
        self.visit(offset, size, |cell| cell.read(who, true))
    }

    pub fn write(&mut self, offset: usize, size: usize, who: &Who) -> Checked {
        self.visit(offset, size, |cell| cell.write(who))
    }

    /// A write that happens at some time from now on.
    pub fn begin_copy(&mut self, offset: usize, size: usize, who: &Who) -> Checked {
        self.visit(offset, size, |cell| {
            cell.write(who)?;
            cell.write.thread |= PENDING;
            Ok(())
        })
    }

    /// The copy has been waited for: the write happens now at the latest.
    pub fn end_copy(&mut self, offset: usize, size: usize, who: &Who) -> Checked {
        self.visit(offset, size, |cell| {
            cell.write = Mark::of(who);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(interval: u32, thread: u16) -> Who {
        Who { launch_first: 10, block_first: 20, now: interval, thread, sync: 0 }
    }

    fn shadow() -> Shadow {
        let mut shadow = Shadow::default();
        shadow.reserve(64);
        shadow
    }

    #[test]
    fn barriers_order() {
        let mut s = shadow();
        s.write(0, 4, &who(20, 0)).unwrap();
        assert!(s.read(0, 4, &who(20, 0)).is_ok(), "the thread itself");
        assert!(s.read(0, 4, &who(20, 1)).is_err(), "no barrier");
        assert!(s.read(0, 4, &who(21, 1)).is_ok(), "a barrier");
        assert!(s.write(0, 4, &who(21, 2)).is_err(), "thread 1 has read");
        assert!(s.write(0, 4, &who(22, 2)).is_ok());
    }

    #[test]
    fn all_readers_count() {
        let mut s = shadow();
        s.read(0, 4, &who(20, 0)).unwrap();
        s.read(0, 4, &who(20, 1)).unwrap();
        assert!(s.write(0, 4, &who(20, 1)).is_err());
        let race = s.write(0, 4, &who(20, 0));
        assert_eq!(race, Err((0, Conflict::Race { written: false, by: Other::Several })));
    }

    #[test]
    fn blocks_are_never_ordered_but_launches_are() {
        let mut s = shadow();
        s.write(0, 4, &who(20, 0)).unwrap();
        let next_block = Who { block_first: 30, ..who(31, 0) };
        assert!(s.read(0, 4, &next_block).is_err());
        let next_launch = Who { launch_first: 40, block_first: 40, ..who(40, 7) };
        assert!(s.write(0, 4, &next_launch).is_ok());
        // An earlier block's read is not forgotten when this block reads too.
        let mut s = shadow();
        s.read(0, 4, &who(20, 0)).unwrap();
        s.read(0, 4, &next_block).unwrap();
        assert!(s.write(0, 4, &next_block).is_err());
    }

    #[test]
    fn warps_synchronise() {
        let mut s = shadow();
        s.write(0, 4, &who(20, 0)).unwrap();
        assert!(s.read(0, 4, &Who { sync: 1, ..who(20, 1) }).is_ok());
        assert!(s.read(0, 4, &Who { sync: 1, ..who(20, 40) }).is_err(), "another warp");
    }

    #[test]
    fn bytes_of_a_word() {
        let mut s = shadow();
        s.write(0, 2, &who(20, 0)).unwrap();
        s.write(2, 2, &who(20, 1)).unwrap();
        assert_eq!(s.write(3, 1, &who(20, 0)).unwrap_err().0, 3);
        assert!(s.read(0, 4, &who(20, 0)).is_err());
        assert!(s.read(0, 4, &who(21, 5)).is_ok());
    }

    #[test]
    fn copies_are_waited_for() {
        let mut s = shadow();
        s.begin_copy(0, 16, &who(20, 3)).unwrap();
        assert_eq!(s.read_written(4, 4, &who(21, 3)), Err((4, Conflict::Pending(3))));
        s.end_copy(0, 16, &who(21, 3)).unwrap();
        assert!(s.read_written(4, 4, &who(21, 3)).is_ok());
        assert!(s.read_written(8, 4, &who(21, 4)).is_err(), "no barrier since the wait");
        assert!(s.read_written(8, 4, &who(22, 4)).is_ok());
        assert_eq!(s.read_written(32, 4, &who(22, 4)), Err((32, Conflict::Unwritten)));
    }
}
