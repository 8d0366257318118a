//! Compares the caller's tensors with what the program asks for, and finds where they lie.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use ndarray::{ArrayD, ArrayViewD};

use super::{LoadError, RunError};
use crate::DType;
use crate::memory::OutOfMemory;
use crate::parameters::Parameters;
use crate::program::{Port, Program};
use crate::tensor::{Tensor, TensorView};

/// A tensor to be read: its elements row-major, borrowed where they are so already.
pub(crate) enum Bound<'a> {
    F32(Cow<'a, [f32]>),
    F64(Cow<'a, [f64]>),
    I32(Cow<'a, [i32]>),
    Bool(Cow<'a, [bool]>),
}

impl<'a> Bound<'a> {
    pub(crate) fn new(view: &TensorView<'a>, purpose: &str) -> Result<Bound<'a>, OutOfMemory> {
        Ok(match view {
            TensorView::F32(a) => Bound::F32(row_major(a, purpose)?),
            TensorView::F64(a) => Bound::F64(row_major(a, purpose)?),
            TensorView::I32(a) => Bound::I32(row_major(a, purpose)?),
            TensorView::Bool(a) => Bound::Bool(row_major(a, purpose)?),
        })
    }

    /// The bytes of the elements.
    pub(crate) fn bytes(&self) -> &[u8] {
        fn of<T>(s: &[T]) -> &[u8] {
            // SAFETY: the elements are f32, f64, i32 or bool, which have no padding; the range is
            // that of a live slice, borrowed for as long as the result.
            unsafe { std::slice::from_raw_parts(s.as_ptr().cast(), size_of_val(s)) }
        }
        match self {
            Bound::F32(s) => of(s),
            Bound::F64(s) => of(s),
            Bound::I32(s) => of(s),
            Bound::Bool(s) => of(s),
        }
    }

    /// The first byte; only ever read through.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.bytes().as_ptr().cast_mut()
    }
}

fn row_major<'a, T: Clone>(a: &ArrayViewD<'a, T>, purpose: &str) -> Result<Cow<'a, [T]>, OutOfMemory> {
    if let Some(s) = a.to_slice() {
        return Ok(Cow::Borrowed(s));
    }
    let mut copy = Vec::new();
    let refused =
        |_| OutOfMemory { bytes: a.len().saturating_mul(size_of::<T>()), purpose: purpose.to_string() };
    copy.try_reserve_exact(a.len()).map_err(refused)?;
    copy.extend(a.iter().cloned());
    Ok(Cow::Owned(copy))
}

/// A tensor to be written.
pub(crate) enum OutputSlot<'a> {
    /// Straight into the tensor's elements.
    Direct(&'a mut [u8]),
    /// Into bytes that become truth values afterwards: a `bool` in Rust must be 0 or 1, and
    /// machine code is not trusted with that.
    Bool { bytes: Vec<u8>, to: &'a mut ArrayD<bool> },
}

impl OutputSlot<'_> {
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        match self {
            OutputSlot::Direct(s) => s.as_mut_ptr(),
            OutputSlot::Bool { bytes, .. } => bytes.as_mut_ptr(),
        }
    }

    /// The bytes to be filled before [`finish`](OutputSlot::finish).
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            OutputSlot::Direct(s) => s,
            OutputSlot::Bool { bytes, .. } => bytes,
        }
    }

    /// To be called when all is written.
    pub(crate) fn finish(self) {
        if let OutputSlot::Bool { bytes, to } = self {
            for (t, b) in to.iter_mut().zip(bytes) {
                *t = b != 0;
            }
        }
    }
}

/// Compares tensors with parameters: each must be there with its type and shape, and no others but
/// those named in `training_only` (only the training variant of the network has them) and
/// PyTorch's counters `num_batches_tracked`.
pub fn check_parameters<'a>(
    expected: impl Iterator<Item = &'a Port>,
    training_only: &[String],
    given: &dyn Parameters,
) -> Result<(), LoadError> {
    let mut wrong = vec![];
    let given = given.ports();
    let found: HashMap<&str, &Port> = given.iter().map(|p| (p.name.as_str(), p)).collect();
    let mut known: HashSet<&str> = training_only.iter().map(String::as_str).collect();
    for port in expected {
        known.insert(&port.name);
        match found.get(port.name.as_str()) {
            Some(p) if *p == port => {}
            Some(p) => wrong.push(format!(
                "parameter `{}`: expected {}, found {}",
                port.name,
                describe(port.dtype, &port.shape),
                describe(p.dtype, &p.shape)
            )),
            None => wrong.push(format!("parameter `{}` is missing", port.name)),
        }
    }
    let counter = |name: &str| name == "num_batches_tracked" || name.ends_with(".num_batches_tracked");
    for p in given.iter().filter(|p| !known.contains(p.name.as_str()) && !counter(&p.name)) {
        wrong.push(format!("the network has no parameter `{}`", p.name));
    }
    if wrong.is_empty() { Ok(()) } else { Err(LoadError::Parameters(wrong)) }
}

/// The inputs in the program's order.
pub(crate) fn inputs<'a>(program: &Program, given: &[TensorView<'a>]) -> Result<Vec<Bound<'a>>, RunError> {
    count("inputs", program.inputs.len(), given.len())?;
    program.inputs.iter().zip(given).map(|(port, view)| input(port, view)).collect()
}

/// An input.
pub(crate) fn input<'a>(port: &Port, view: &TensorView<'a>) -> Result<Bound<'a>, RunError> {
    matches("input", port, view.dtype(), view.shape())?;
    Ok(Bound::new(view, &port.name)?)
}

/// Where the outputs go, in the program's order.
pub(crate) fn outputs<'a>(
    program: &Program,
    given: &'a mut [Tensor],
) -> Result<Vec<OutputSlot<'a>>, RunError> {
    count("outputs", program.outputs.len(), given.len())?;
    let bind = |(port, t): (&Port, &'a mut Tensor)| {
        matches("output", port, t.dtype(), t.shape())?;
        Ok(slot(t)?)
    };
    program.outputs.iter().zip(given).map(bind).collect()
}

/// Where the elements of a tensor are written, row-major.
pub(crate) fn slot(t: &mut Tensor) -> Result<OutputSlot<'_>, OutOfMemory> {
    match t {
        Tensor::F32(a) => Ok(direct(a)),
        Tensor::F64(a) => Ok(direct(a)),
        Tensor::I32(a) => Ok(direct(a)),
        Tensor::Bool(a) => Ok(OutputSlot::Bool { bytes: zeros(a.len())?, to: a }),
    }
}

fn direct<T: Clone>(a: &mut ArrayD<T>) -> OutputSlot<'_> {
    if !a.is_standard_layout() {
        *a = a.as_standard_layout().into_owned();
    }
    let s = a.as_slice_mut().unwrap_or_default();
    // SAFETY: the elements are f32, f64 or i32: any bytes are valid ones and there is no padding;
    // the range is that of a live slice, borrowed for as long as the result.
    let bytes = unsafe { std::slice::from_raw_parts_mut(s.as_mut_ptr().cast(), size_of_val(s)) };
    OutputSlot::Direct(bytes)
}

fn zeros(n: usize) -> Result<Vec<u8>, OutOfMemory> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(n).map_err(|_| OutOfMemory { bytes: n, purpose: "an output".into() })?;
    bytes.resize(n, 0);
    Ok(bytes)
}

fn count(what: &'static str, expected: usize, found: usize) -> Result<(), RunError> {
    if expected == found { Ok(()) } else { Err(RunError::Count { what, expected, found }) }
}

fn matches(what: &'static str, port: &Port, dtype: DType, shape: &[usize]) -> Result<(), RunError> {
    if dtype == port.dtype && shape == port.shape {
        return Ok(());
    }
    Err(RunError::Mismatch {
        what,
        name: port.name.clone(),
        expected: describe(port.dtype, &port.shape),
        found: describe(dtype, shape),
    })
}

/// `f32[1, 3, 224, 224]`.
pub(crate) fn describe(dtype: DType, shape: &[usize]) -> String {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("{dtype}[{}]", dims.join(", "))
}
