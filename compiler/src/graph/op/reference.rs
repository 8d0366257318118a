//! What reference evaluation shares: element types as traits, access to a tensor's elements, walks
//! over strided elements. Tensors are dense and row-major throughout.

use ndarray::{ArrayD, IxDyn};
use nnc_runtime::{DType, Tensor};

use super::OpError;

/// Type and (known) shape of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Element type.
    pub dtype: DType,
    /// Size of every dimension.
    pub shape: Vec<usize>,
}

/// An element type.
pub trait Element: Copy + PartialEq + Default + 'static {
    /// The elements, row-major; `None` if the tensor is of another type or not row-major.
    fn slice(t: &Tensor) -> Option<&[Self]>;
    /// A tensor of these elements.
    fn wrap(a: ArrayD<Self>) -> Tensor;
    /// Nearest value; see [`Cast`](super::elementwise::Cast).
    fn from_f64(x: f64) -> Self;
    /// Exact, but for no type here.
    fn to_f64(self) -> f64;
}

/// Numbers: floats, and integers that wrap.
#[allow(missing_docs)] // each is its own name
pub trait Number: Element + PartialOrd {
    const LOWEST: Self;
    const HIGHEST: Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn neg(self) -> Self;
    fn abs(self) -> Self;
    /// False for integers.
    fn is_nan(self) -> bool;

    /// The larger, NaN if one is.
    fn max(self, other: Self) -> Self {
        if self.is_nan() || self > other { self } else { other }
    }

    /// The smaller, NaN if one is.
    fn min(self, other: Self) -> Self {
        if self.is_nan() || self < other { self } else { other }
    }
}

/// Floats.
#[allow(missing_docs)] // each is its own name
pub trait Float: Number {
    fn exp(self) -> Self;
    fn exp_m1(self) -> Self;
    fn ln(self) -> Self;
    fn sqrt(self) -> Self;
    fn tanh(self) -> Self;
    fn erf(self) -> Self;
    fn powf(self, e: Self) -> Self;
    fn floor(self) -> Self;
}

macro_rules! element {
    ($t:ty, $variant:ident, $from:expr, $to:expr) => {
        impl Element for $t {
            fn slice(t: &Tensor) -> Option<&[Self]> {
                match t {
                    Tensor::$variant(a) => a.as_slice(),
                    _ => None,
                }
            }
            fn wrap(a: ArrayD<Self>) -> Tensor {
                Tensor::$variant(a)
            }
            fn from_f64(x: f64) -> Self {
                $from(x)
            }
            fn to_f64(self) -> f64 {
                $to(self)
            }
        }
    };
}

element!(f32, F32, |x| x as f32, f64::from);
element!(f64, F64, |x| x, |x| x);
element!(i32, I32, |x| x as i32, f64::from);
element!(bool, Bool, |x| x != 0.0, |b| f64::from(u8::from(b)));

macro_rules! float {
    ($t:ident, $erf:path) => {
        impl Number for $t {
            const LOWEST: Self = $t::NEG_INFINITY;
            const HIGHEST: Self = $t::INFINITY;
            fn add(self, other: Self) -> Self {
                self + other
            }
            fn sub(self, other: Self) -> Self {
                self - other
            }
            fn mul(self, other: Self) -> Self {
                self * other
            }
            fn div(self, other: Self) -> Self {
                self / other
            }
            fn neg(self) -> Self {
                -self
            }
            fn abs(self) -> Self {
                $t::abs(self)
            }
            fn is_nan(self) -> bool {
                $t::is_nan(self)
            }
        }

        impl Float for $t {
            fn exp(self) -> Self {
                $t::exp(self)
            }
            fn exp_m1(self) -> Self {
                $t::exp_m1(self)
            }
            fn ln(self) -> Self {
                $t::ln(self)
            }
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }
            fn tanh(self) -> Self {
                $t::tanh(self)
            }
            fn erf(self) -> Self {
                $erf(self)
            }
            fn powf(self, e: Self) -> Self {
                $t::powf(self, e)
            }
            fn floor(self) -> Self {
                $t::floor(self)
            }
        }
    };
}

float!(f32, libm::erff);
float!(f64, libm::erf);

impl Number for i32 {
    const LOWEST: Self = i32::MIN;
    const HIGHEST: Self = i32::MAX;
    fn add(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    fn sub(self, other: Self) -> Self {
        self.wrapping_sub(other)
    }
    fn mul(self, other: Self) -> Self {
        self.wrapping_mul(other)
    }
    fn div(self, other: Self) -> Self {
        if other == 0 { 0 } else { self.wrapping_div(other) }
    }
    fn neg(self) -> Self {
        self.wrapping_neg()
    }
    fn abs(self) -> Self {
        self.wrapping_abs()
    }
    fn is_nan(self) -> bool {
        false
    }
}

/// Runs `$body` with `$T` standing for the element type, which must be one of the list:
/// `floats`, `numbers` (and i32), `all` (and bool).
macro_rules! for_dtype {
    (floats, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            nnc_runtime::DType::F32 => {
                type $T = f32;
                $body
            }
            nnc_runtime::DType::F64 => {
                type $T = f64;
                $body
            }
            other => Err($crate::graph::op::OpError::new(format!("not defined on {other}"))),
        }
    };
    (numbers, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            nnc_runtime::DType::I32 => {
                type $T = i32;
                $body
            }
            float => $crate::graph::op::reference::for_dtype!(floats, float, $T => $body),
        }
    };
    (all, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            nnc_runtime::DType::Bool => {
                type $T = bool;
                $body
            }
            number => $crate::graph::op::reference::for_dtype!(numbers, number, $T => $body),
        }
    };
}
pub(crate) use for_dtype;

/// The elements of the i-th operand.
pub fn elements<'a, T: Element>(operands: &[&'a Tensor], i: usize) -> Result<&'a [T], OpError> {
    let tensor = operands.get(i).ok_or_else(|| OpError::new(format!("operand {i} is missing")))?;
    T::slice(tensor).ok_or_else(|| {
        let found = tensor.dtype();
        OpError::operand(i, format!("operand {i} is of an unexpected type ({found}) or not row-major"))
    })
}

/// A tensor of that shape with these elements, row-major.
pub fn tensor<T: Element>(shape: &[usize], data: Vec<T>) -> Result<Tensor, OpError> {
    ArrayD::from_shape_vec(IxDyn(shape), data).map(T::wrap).map_err(|e| OpError::new(e.to_string()))
}

/// The number of elements of a shape.
pub fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Row-major strides.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        out[i - 1] = out[i] * shape[i];
    }
    out
}

/// Strides that read a tensor of `shape` as if broadcast to `to`.
pub fn broadcast_strides(shape: &[usize], to: &[usize]) -> Vec<usize> {
    let mut out = vec![0; to.len()];
    let offset = to.len() - shape.len();
    for (i, s) in strides(shape).into_iter().enumerate() {
        out[offset + i] = if shape[i] == 1 { 0 } else { s };
    }
    out
}

/// The shape as (product of the sizes before the axis, size of the axis, product of those after).
pub fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (count(&shape[..axis]), shape[axis], count(&shape[axis + 1..]))
}

/// The offsets `start + Σ index·stride` of all indices of a shape, in row-major order.
pub struct Walk {
    shape: Vec<usize>,
    strides: Vec<usize>,
    index: Vec<usize>,
    offset: usize,
    left: usize,
}

impl Walk {
    /// A walk over `shape` from offset `start`.
    pub fn new(shape: &[usize], strides: Vec<usize>, start: usize) -> Walk {
        let index = vec![0; shape.len()];
        Walk { shape: shape.to_vec(), strides, index, offset: start, left: count(shape) }
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let current = self.offset;
        for k in (0..self.shape.len()).rev() {
            self.index[k] += 1;
            self.offset += self.strides[k];
            if self.index[k] < self.shape[k] {
                break;
            }
            self.offset -= self.strides[k] * self.shape[k];
            self.index[k] = 0;
        }
        Some(current)
    }
}

/// The positions `i` in `0..count` for which `i·stride + tap` lies in `0..size`.
pub fn inside(count: usize, stride: usize, tap: isize, size: usize) -> std::ops::Range<usize> {
    let stride = stride as isize;
    // The smallest i with i·stride + tap >= bound.
    let first_at = |bound: isize| (bound - tap).max(0).unsigned_abs().div_ceil(stride.unsigned_abs());
    let end = first_at(size as isize).min(count);
    first_at(0).min(end)..end
}
