//! Tensors: dynamically shaped ndarray arrays of one of the element types, owned and borrowed.

use ndarray::{Array, ArrayD, ArrayView, ArrayViewD, Dimension, IxDyn};

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

    /// A tensor of zeros, or `None` where there is not enough memory for it.
    pub fn try_zeros(dtype: DType, shape: &[usize]) -> Option<Tensor> {
        fn of<T: Clone>(zero: T, shape: &[usize]) -> Option<ArrayD<T>> {
            let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
            let mut elements = Vec::new();
            elements.try_reserve_exact(n).ok()?;
            elements.resize(n, zero);
            ArrayD::from_shape_vec(IxDyn(shape), elements).ok()
        }
        Some(match dtype {
            DType::F32 => Tensor::F32(of(0.0, shape)?),
            DType::F64 => Tensor::F64(of(0.0, shape)?),
            DType::I32 => Tensor::I32(of(0, shape)?),
            DType::Bool => Tensor::Bool(of(false, shape)?),
        })
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

/// A borrowed tensor of any element type, rank and strides: what the caller gives as input.
///
/// ```
/// use nnc_runtime::{DType, TensorView};
/// let picture = ndarray::Array4::<f32>::zeros((1, 3, 8, 8));
/// let view = TensorView::from(&picture);
/// assert_eq!((view.dtype(), view.shape()), (DType::F32, &[1, 3, 8, 8][..]));
/// ```
#[derive(Clone, Debug)]
pub enum TensorView<'a> {
    /// Single precision.
    F32(ArrayViewD<'a, f32>),
    /// Double precision.
    F64(ArrayViewD<'a, f64>),
    /// Integers.
    I32(ArrayViewD<'a, i32>),
    /// Truth values.
    Bool(ArrayViewD<'a, bool>),
}

/// Runs `$body` with `$a` bound to the view inside `$t`, whatever its element type.
macro_rules! with_view {
    ($t:expr, $a:ident => $body:expr) => {
        match $t {
            TensorView::F32($a) => $body,
            TensorView::F64($a) => $body,
            TensorView::I32($a) => $body,
            TensorView::Bool($a) => $body,
        }
    };
}

impl TensorView<'_> {
    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            TensorView::F32(_) => DType::F32,
            TensorView::F64(_) => DType::F64,
            TensorView::I32(_) => DType::I32,
            TensorView::Bool(_) => DType::Bool,
        }
    }

    /// The size of every dimension.
    pub fn shape(&self) -> &[usize] {
        with_view!(self, a => a.shape())
    }

    /// The same, borrowed for as long as this view is.
    pub fn reborrow(&self) -> TensorView<'_> {
        match self {
            TensorView::F32(a) => TensorView::F32(a.view()),
            TensorView::F64(a) => TensorView::F64(a.view()),
            TensorView::I32(a) => TensorView::I32(a.view()),
            TensorView::Bool(a) => TensorView::Bool(a.view()),
        }
    }

    /// A copy.
    pub fn to_tensor(&self) -> Tensor {
        match self {
            TensorView::F32(a) => Tensor::F32(a.to_owned()),
            TensorView::F64(a) => Tensor::F64(a.to_owned()),
            TensorView::I32(a) => Tensor::I32(a.to_owned()),
            TensorView::Bool(a) => Tensor::Bool(a.to_owned()),
        }
    }
}

impl Tensor {
    /// The tensor, borrowed.
    pub fn view(&self) -> TensorView<'_> {
        match self {
            Tensor::F32(a) => TensorView::F32(a.view()),
            Tensor::F64(a) => TensorView::F64(a.view()),
            Tensor::I32(a) => TensorView::I32(a.view()),
            Tensor::Bool(a) => TensorView::Bool(a.view()),
        }
    }
}

impl<'a> From<&'a Tensor> for TensorView<'a> {
    fn from(t: &'a Tensor) -> TensorView<'a> {
        t.view()
    }
}

macro_rules! conversions {
    ($($variant:ident $element:ty),*) => { $(
        impl<D: Dimension> From<Array<$element, D>> for Tensor {
            fn from(a: Array<$element, D>) -> Tensor {
                Tensor::$variant(a.into_dyn())
            }
        }
        impl<'a, D: Dimension> From<ArrayView<'a, $element, D>> for TensorView<'a> {
            fn from(a: ArrayView<'a, $element, D>) -> TensorView<'a> {
                TensorView::$variant(a.into_dyn())
            }
        }
        impl<'a, D: Dimension> From<&'a Array<$element, D>> for TensorView<'a> {
            fn from(a: &'a Array<$element, D>) -> TensorView<'a> {
                TensorView::$variant(a.view().into_dyn())
            }
        }
    )* };
}

conversions!(F32 f32, F64 f64, I32 i32, Bool bool);
