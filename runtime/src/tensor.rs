//! Tensors: dynamically shaped, dense, row-major ndarray arrays of one of the element types.

use ndarray::{ArrayD, IxDyn};

use crate::DType;

/// A tensor of any element type and rank.
#[derive(Clone, Debug, PartialEq)]
pub enum Tensor {
    /// Single precision.
    F32(ArrayD<f32>),
    /// Double precision.
    F64(ArrayD<f64>),
    /// Integers.
    I32(ArrayD<i32>),
    /// Truth values.
    Bool(ArrayD<bool>),
}

/// Runs `$body` with `$a` bound to the array inside `$t`, whatever its element type.
#[macro_export]
macro_rules! with_array {
    ($t:expr, $a:ident => $body:expr) => {
        match $t {
            $crate::Tensor::F32($a) => $body,
            $crate::Tensor::F64($a) => $body,
            $crate::Tensor::I32($a) => $body,
            $crate::Tensor::Bool($a) => $body,
        }
    };
}

impl Tensor {
    /// A tensor of zeros (false).
    pub fn zeros(dtype: DType, shape: &[usize]) -> Tensor {
        let d = IxDyn(shape);
        match dtype {
            DType::F32 => Tensor::F32(ArrayD::zeros(d)),
            DType::F64 => Tensor::F64(ArrayD::zeros(d)),
            DType::I32 => Tensor::I32(ArrayD::zeros(d)),
            DType::Bool => Tensor::Bool(ArrayD::from_elem(d, false)),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Tensor::F32(_) => DType::F32,
            Tensor::F64(_) => DType::F64,
            Tensor::I32(_) => DType::I32,
            Tensor::Bool(_) => DType::Bool,
        }
    }

    /// The size of every dimension.
    pub fn shape(&self) -> &[usize] {
        with_array!(self, a => a.shape())
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        with_array!(self, a => a.len())
    }

    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The array, if it is of `f32`.
    pub fn as_f32(&self) -> Option<&ArrayD<f32>> {
        match self {
            Tensor::F32(a) => Some(a),
            _ => None,
        }
    }
}

impl From<ArrayD<f32>> for Tensor {
    fn from(a: ArrayD<f32>) -> Tensor {
        Tensor::F32(a)
    }
}

impl From<ArrayD<i32>> for Tensor {
    fn from(a: ArrayD<i32>) -> Tensor {
        Tensor::I32(a)
    }
}

impl From<ArrayD<f64>> for Tensor {
    fn from(a: ArrayD<f64>) -> Tensor {
        Tensor::F64(a)
    }
}
