//! Where values lie: logical indices to positions in memory.
//!
//! A [`Place`] is a region of a module value with a logical shape, a layout and strides (a
//! concatenation's operand is a strided part of its result). Everything that lowers an operation
//! speaks in logical indices; this file alone knows what other layouts do to them.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::builder::Builder;
use super::values::one_pixel;
use crate::graph::Layout;
use crate::kernel::module::{Arg, ValueId};
use crate::kernel::{BufferId, Expr, Extents, Guard, Index, Memory, row_major};

/// A tensor in memory.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// The value it is in.
    pub value: ValueId,
    /// Its first element there.
    pub offset: usize,
    /// Element type.
    pub dtype: DType,
    /// Logical shape.
    pub shape: Vec<usize>,
    /// How the logical shape lies in memory.
    pub layout: Layout,
    /// Distances of neighbours along the dimensions in memory, in elements.
    pub strides: Vec<usize>,
    /// What is stored there is rounded to TF32 ([`crate::kernel::Buffer::tf32`]).
    pub tf32: bool,
}

/// The shape in memory of a logical shape.
pub(super) fn physical(shape: &[usize], layout: Layout) -> Vec<usize> {
    match layout {
        Layout::Plain => shape.to_vec(),
        Layout::Blocked(b) => {
            let b = b as usize;
            vec![shape[0], shape[1].div_ceil(b), shape[2], shape[3], b]
        }
        Layout::ChannelsLast => layout.order(shape.len()).into_iter().map(|d| shape[d]).collect(),
    }
}

/// The position in memory of a logical index.
pub(super) fn position(index: &[Index], layout: Layout, extents: &Extents) -> Vec<Index> {
    match layout {
        Layout::Plain => index.to_vec(),
        Layout::Blocked(b) => {
            let b = b as usize;
            let (block, lane) = (index[1].div(b, extents), index[1].rem(b, extents));
            vec![index[0].clone(), block, index[2].clone(), index[3].clone(), lane]
        }
        Layout::ChannelsLast => layout.order(index.len()).into_iter().map(|d| index[d].clone()).collect(),
    }
}

impl Place {
    /// A tensor that fills its value.
    pub fn dense(value: ValueId, dtype: DType, shape: &[usize], layout: Layout) -> Place {
        let strides = row_major(&physical(shape, layout));
        Place { value, offset: 0, dtype, shape: shape.to_vec(), layout, strides, tf32: false }
    }

    /// The shape in memory.
    pub fn physical(&self) -> Vec<usize> {
        physical(&self.shape, self.layout)
    }

    /// True if its elements lie without gaps, in row-major order of [`Place::physical`].
    pub fn is_dense(&self) -> bool {
        let shape = self.physical();
        let expected = row_major(&shape);
        (0..shape.len()).all(|d| shape[d] == 1 || self.strides[d] == expected[d])
    }

    /// The number of elements, lanes without a meaning included.
    pub fn elements(&self) -> usize {
        self.physical().iter().product()
    }

    /// A dense tensor as one row, in the order of memory.
    pub fn flat(&self) -> Place {
        Place { shape: vec![self.elements()], strides: vec![1], layout: Layout::Plain, ..self.clone() }
    }

    /// The same elements in another plain shape; `None` if they do not lie row-major.
    pub fn reshaped(&self, shape: &[usize]) -> Option<Place> {
        let plain = self.as_plain()?;
        if !plain.is_dense() {
            return None;
        }
        Some(Place { shape: shape.to_vec(), strides: row_major(shape), ..plain })
    }

    /// The same memory seen as plain, where its layout happens to be that ([`one_pixel`]).
    pub fn as_plain(&self) -> Option<Place> {
        if self.layout == Layout::Plain {
            return Some(self.clone());
        }
        let strides = row_major(&self.shape);
        let same = one_pixel(&self.shape, self.layout) && self.is_dense();
        same.then(|| Place { layout: Layout::Plain, strides, ..self.clone() })
    }

    /// The same memory as a plain tensor of the [shape in memory](Place::physical).
    pub fn as_it_lies(&self) -> Place {
        Place { shape: self.physical(), layout: Layout::Plain, ..self.clone() }
    }

    /// The part of `size` logical positions from `start` on along an axis. `None` if it cuts
    /// through a block of channels.
    pub fn part(&self, axis: usize, start: usize, size: usize) -> Option<Place> {
        let mut out = self.clone();
        out.shape[axis] = size;
        let (position, stride) = match self.layout {
            Layout::Blocked(b) if axis == 1 => {
                let b = b as usize;
                let last = start + size == self.shape[1];
                if !start.is_multiple_of(b) || !(last || size.is_multiple_of(b)) {
                    return None;
                }
                (start / b, self.strides[axis])
            }
            layout => {
                let dimension = layout.order(self.shape.len()).into_iter().position(|d| d == axis)?;
                (start, self.strides[dimension])
            }
        };
        out.offset += position * stride;
        Some(out)
    }
}

impl Builder<'_> {
    /// The buffer of a place, made on first use.
    pub fn bind(&mut self, place: &Place, access: Access, name: &str) -> BufferId {
        let written = matches!(access, Access::Write);
        let known = self.bound.iter().find(|(p, w, _)| p == place && *w == written);
        if let Some((_, _, buffer)) = known {
            return *buffer;
        }
        let shape = place.physical();
        let buffer = self.kernel.strided(name, place.dtype, &shape, &place.strides, Memory::Global(access));
        self.kernel.buffers[buffer.0 as usize].tf32 = place.tf32;
        self.args.push(Arg { value: place.value, offset: place.offset });
        self.bound.push((place.clone(), written, buffer));
        buffer
    }

    /// The element of a place at a logical index; zero at positions outside, where the index can
    /// reach them (lanes without a meaning).
    pub fn load(&mut self, place: &Place, name: &str, index: &[Index]) -> Expr {
        let buffer = self.bind(place, Access::Read, name);
        let mut guards = vec![];
        for (axis, i) in index.iter().enumerate() {
            let reach = match place.layout {
                Layout::Blocked(b) if axis == 1 => place.shape[1].next_multiple_of(b as usize),
                _ => place.shape[axis],
            };
            if !self.holds(i, reach) {
                guards.extend(Guard::between(i, 0, reach as i64, self.extents()));
            }
        }
        let position = position(index, place.layout, self.extents());
        // Where guards keep the channel in range, the verifier cannot see that of its block.
        for (i, n) in position.iter().zip(place.physical()) {
            let plain = index.contains(i);
            if !plain && !self.holds(i, n) {
                guards.extend(Guard::between(i, 0, n as i64, self.extents()));
            }
        }
        let value = Expr::Load(buffer, position);
        if guards.is_empty() {
            return value;
        }
        let otherwise = Box::new(Expr::Const(place.dtype, 0.0));
        Expr::Guarded { guards, value: Box::new(value), otherwise }
    }

    /// True if the guards that hold here keep the index within `0..size`.
    fn holds(&self, i: &Index, size: usize) -> bool {
        let needed = Guard::between(i, 0, size as i64, self.extents());
        needed.iter().all(|g| self.held.contains(g) || self.pending.contains(g))
    }
}
