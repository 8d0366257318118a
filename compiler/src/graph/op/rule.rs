//! What shape rules share: checks of operands, equality of symbolic sizes, broadcasting, windows.
//! All of them answer with an [`OpError`] that names the operand and says expected before found.

use nnc_runtime::DType;

use super::OpError;
use crate::graph::dim::MAX_ELEMENTS;
use crate::graph::{Dim, Shape, TensorType};

/// The operands of an operation: their names, for diagnostics and the text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Names in order.
    pub names: &'static [&'static str],
    /// How many must be there; the others are optional.
    pub required: usize,
    /// The last name may be repeated any number of times.
    pub variadic: bool,
}

impl Signature {
    /// Exactly these operands.
    pub const fn fixed(names: &'static [&'static str]) -> Signature {
        Signature { names, required: names.len(), variadic: false }
    }

    /// These operands, of which the last may be left out.
    pub const fn optional_last(names: &'static [&'static str]) -> Signature {
        Signature { names, required: names.len() - 1, variadic: false }
    }

    /// One or more operands of that name.
    pub const fn list(names: &'static [&'static str; 1]) -> Signature {
        Signature { names, required: 1, variadic: true }
    }

    /// The name of the i-th operand.
    pub fn operand(&self, i: usize) -> String {
        match self.names.get(i) {
            Some(n) if !self.variadic => n.to_string(),
            _ => format!("{}{i}", self.names.last().unwrap_or(&"operand ")),
        }
    }

    /// Refuses a wrong number of operands.
    pub fn check_count(&self, op: &str, count: usize) -> Result<(), OpError> {
        let most = if self.variadic { usize::MAX } else { self.names.len() };
        if (self.required..=most).contains(&count) {
            return Ok(());
        }
        let expected = match (self.variadic, most == self.required) {
            (true, _) => format!("at least {}", self.required),
            (false, true) => self.required.to_string(),
            (false, false) => format!("{} or {most}", self.required),
        };
        let plural = if expected == "1" || expected == "at least 1" { "" } else { "s" };
        Err(OpError::new(format!("`{op}` takes {expected} operand{plural}, got {count}")))
    }
}

/// No tensor may have more dimensions: networks use 5 or 6, a hundred are a mistake.
pub const MAX_RANK: usize = 16;

/// Refuses more than [`MAX_RANK`] dimensions, sizes below 1, and more than [`MAX_ELEMENTS`]
/// elements, as far as sizes are known.
pub fn check_type(ty: &TensorType) -> Result<(), OpError> {
    if ty.rank() > MAX_RANK {
        return Err(OpError::new(format!(
            "a tensor may have {MAX_RANK} dimensions, this one would have {}",
            ty.rank()
        )));
    }
    let mut elements: i64 = 1;
    for (i, d) in ty.shape.iter().enumerate() {
        let Some(n) = d.known() else { continue };
        if n < 1 {
            return Err(OpError::new(format!("dimension {i} must be at least 1, it would be {n} in {ty}")));
        }
        elements = elements.saturating_mul(n);
    }
    if elements > MAX_ELEMENTS {
        return Err(OpError::new(format!(
            "{ty} is too large: a tensor may have 2^37 elements, this one would have {}",
            if elements == i64::MAX { "2^63 or more".to_string() } else { elements.to_string() }
        )));
    }
    Ok(())
}

/// Refuses an attribute that must be at least 1.
pub fn at_least_one(what: &str, values: &[usize]) -> Result<(), OpError> {
    if values.contains(&0) {
        return Err(OpError::new(format!("{what} must be at least 1, it is 0")));
    }
    not_huge(what, values)
}

/// Refuses an attribute of 2^31 or more: such a window or padding is a mistake, and index
/// arithmetic need not fear overflow.
pub fn not_huge(what: &str, values: &[usize]) -> Result<(), OpError> {
    match values.iter().find(|&&v| v > i32::MAX as usize) {
        Some(v) => Err(OpError::new(format!("{what} must be less than 2^31, it is {v}"))),
        None => Ok(()),
    }
}

/// The i-th operand must be of a float type.
pub fn float(i: usize, name: &str, ty: &TensorType) -> Result<(), OpError> {
    if ty.dtype.is_float() {
        return Ok(());
    }
    Err(OpError::operand(i, format!("`{name}` must be of floats, it is {ty}"))
        .help("convert it with `cast(f32)`"))
}

/// The i-th operand must be of that type.
pub fn dtype(i: usize, name: &str, ty: &TensorType, expected: DType) -> Result<(), OpError> {
    if ty.dtype == expected {
        return Ok(());
    }
    Err(OpError::operand(i, format!("`{name}` must be of {expected}, it is {ty}")))
}

/// The i-th operand must have these dimensions, e.g. `[N, C, H, W]`.
pub fn rank(i: usize, name: &str, ty: &TensorType, dims: &[&str]) -> Result<(), OpError> {
    if ty.rank() == dims.len() {
        return Ok(());
    }
    let mut e = OpError::operand(
        i,
        format!(
            "`{name}` must have {} dimension{} ([{}]), it has {}: {ty}",
            dims.len(),
            if dims.len() == 1 { "" } else { "s" },
            dims.join(", "),
            ty.rank()
        ),
    );
    if dims.len() == 4 && ty.rank() == 3 {
        e = e.help("add a batch dimension: `reshape` to [1, C, H, W]");
    }
    Err(e)
}

/// The i-th operand must have that many dimensions or more.
pub fn min_rank(i: usize, name: &str, ty: &TensorType, least: usize) -> Result<(), OpError> {
    if ty.rank() >= least {
        return Ok(());
    }
    let s = if least == 1 { "" } else { "s" };
    Err(OpError::operand(i, format!("`{name}` must have at least {least} dimension{s}, it is {ty}")))
}

/// An axis of the i-th operand.
pub fn axis(i: usize, name: &str, ty: &TensorType, axis: usize) -> Result<(), OpError> {
    if axis < ty.rank() {
        return Ok(());
    }
    let range = match ty.rank() {
        0 => "it has no axes".to_string(),
        1 => "its only axis is 0".to_string(),
        n => format!("its axes are 0 to {}", n - 1),
    };
    Err(OpError::operand(i, format!("axis {axis} is not one of `{name}`, which is {ty}: {range}")))
}

/// Axes of the i-th operand: sorted, each once.
pub fn axes(i: usize, name: &str, ty: &TensorType, axes: &[usize]) -> Result<(), OpError> {
    axes.iter().try_for_each(|&a| axis(i, name, ty, a))?;
    match axes.windows(2).find(|w| w[0] >= w[1]) {
        None => Ok(()),
        Some(w) => {
            let problem = if w[0] == w[1] { "given twice" } else { "out of order" };
            Err(OpError::new(format!("axes must be sorted, each once: axis {} is {problem}", w[1])))
        }
    }
}

/// The i-th operand must have that shape.
pub fn shape(i: usize, name: &str, ty: &TensorType, expected: &Shape) -> Result<(), OpError> {
    if ty.shape == *expected {
        return Ok(());
    }
    let expected = TensorType { dtype: ty.dtype, shape: expected.clone() };
    Err(OpError::operand(i, format!("`{name}` must be {expected}, it is {ty}")))
}

/// `""` if the sizes differ for certain, else what to add to a message that they are not equal.
pub fn doubt(expected: &Dim, found: &Dim) -> String {
    let difference = expected.clone() - found.clone();
    // A multiple of a positive size: they differ whatever it is.
    if difference.known().is_some() || difference.is_multiple_of_symbols() {
        return String::new();
    }
    format!(" (`{expected}` and `{found}` cannot be proved equal)")
}

/// The shape that all of these broadcast to by NumPy's rules: aligned at the right, sizes equal or 1.
/// A symbolic size never counts as 1. The first entry of a pair is the operand's name.
pub fn broadcast(operands: &[(&str, &TensorType)]) -> Result<Shape, OpError> {
    let rank = operands.iter().map(|(_, t)| t.rank()).max().unwrap_or(0);
    let one = Dim::from(1);
    let mut out: Vec<(Dim, usize)> = vec![(one.clone(), 0); rank];
    for (i, (name, ty)) in operands.iter().enumerate() {
        for (k, d) in ty.shape.iter().enumerate() {
            let (so_far, from) = &mut out[rank - ty.rank() + k];
            if *so_far == one {
                (*so_far, *from) = (d.clone(), i);
            } else if *d != one && d != so_far {
                let (first, first_ty) = operands[*from];
                let at = rank - ty.rank() + k;
                let mut e = OpError::operand(
                    i,
                    format!(
                        "`{first}` and `{name}` do not broadcast: dimension {at} is {so_far} in {first_ty} and {d} in {ty}{}",
                        doubt(so_far, d)
                    ),
                );
                if ty.rank() == 1 && first_ty.rank() > 2 && first_ty.shape[1] == *d {
                    let ones = vec!["1"; first_ty.rank() - 2].join(", ");
                    e = e.help(format!("a value a channel has the shape [{d}, {ones}]"));
                }
                return Err(e);
            }
        }
    }
    Ok(out.into_iter().map(|(d, _)| d).collect())
}

/// The product of all sizes.
pub fn elements(shape: &[Dim]) -> Dim {
    shape.iter().fold(Dim::from(1), |n, d| n * d.clone())
}

/// One dimension of a sliding window.
#[derive(Clone, Copy, Debug)]
pub struct Slide {
    /// `rows` or `columns`: for messages.
    pub unit: &'static str,
    /// Taps.
    pub kernel: usize,
    /// Distance of windows.
    pub stride: usize,
    /// Padding before.
    pub before: usize,
    /// Padding after.
    pub after: usize,
    /// Distance of taps.
    pub dilation: usize,
    /// Whether partial windows count, by PyTorch's rule: a window must start before the end
    /// of the input or in the padding before it.
    pub ceil: bool,
}

impl Slide {
    /// The number of windows over `size` elements; an error if there is none for certain.
    pub fn count(&self, size: &Dim) -> Result<Dim, OpError> {
        let extent = Dim::from(self.kernel).minus_one() * Dim::from(self.dilation) + Dim::from(1);
        let stride = Dim::from(self.stride);
        let start = size.clone() + Dim::from(self.before);
        let count = if self.ceil {
            // ceil((size + before + after - extent) / stride) + 1, but at most
            // ceil((size + before) / stride): both are one rounded quotient, so the smaller is known.
            let reach = Dim::from(self.after) - extent.clone() + stride.clone();
            (start.clone() + Dim::constant(reach.known().unwrap_or(0).min(0))).ceil_div(&stride)
        } else {
            (start.clone() + Dim::from(self.after) - extent.clone()).floor_div(&stride) + Dim::from(1)
        };
        if count.known().is_none_or(|n| n >= 1) {
            return Ok(count);
        }
        let unit = self.unit;
        let dilated =
            if self.dilation > 1 { format!(" (dilation {})", self.dilation) } else { String::new() };
        let padded = start + Dim::from(self.after);
        Err(OpError::operand(
            0,
            format!(
                "the window is larger than the padded input: it covers {extent} {unit}{dilated}, `x` has {padded} with padding"
            ),
        ))
    }
}
