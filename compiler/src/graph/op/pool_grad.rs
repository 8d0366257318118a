//! Gradients of poolings: each element of `dy` goes back to its window.

use nnc_runtime::Tensor;

use super::pool::{Bin, adaptive_bins, grid, infer_adaptive, sizes};
use super::reference::{self, Element, Float, Target, for_dtype};
use super::rule::{self, Signature};
use super::text::{Reader, Writer};
use super::{AvgPool2d, MaxPool2d, Op, OpError, Operation, Window};
use crate::graph::{Dim, TensorType};

/// See [`Op::MaxPool2dGrad`].
pub struct MaxPool2dGrad<'a> {
    /// The pooling.
    pub pool: &'a MaxPool2d,
}

/// See [`Op::AvgPool2dGrad`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AvgPool2dGrad {
    /// The pooling.
    pub pool: AvgPool2d,
    /// Height and width of its input.
    pub input: [Dim; 2],
}

/// See [`Op::AdaptiveMaxPool2dGrad`].
pub struct AdaptiveMaxPool2dGrad;

/// See [`Op::AdaptiveAvgPool2dGrad`].
pub struct AdaptiveAvgPool2dGrad<'a> {
    /// Height and width of the pooling's input.
    pub input: &'a [Dim; 2],
}

impl Operation for MaxPool2dGrad<'_> {
    fn name(&self) -> &'static str {
        "max_pool2d_grad"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x", "dy"])
    }

    fn attributes(&self, w: &mut Writer) {
        self.pool.window.write(w);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        rule::dtype(1, "dy", operands[1], operands[0].dtype)?;
        rule::shape(1, "dy", operands[1], &self.pool.window.infer(&operands[..1])?.shape)?;
        Ok(operands[0].clone())
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        let bins = self.pool.window.bins(grid(to), sizes(operands[1]));
        for_dtype!(floats, to.dtype, T => to_largest::<T>(operands, to, &bins))
    }
}

impl Operation for AvgPool2dGrad {
    fn name(&self) -> &'static str {
        "avg_pool2d_grad"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["dy"])
    }

    fn attributes(&self, w: &mut Writer) {
        self.pool.window.write(w);
        w.put_unless(true, "count_include_pad", self.pool.count_include_pad).list("input", &self.input);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let x = pooled_from(operands[0], &self.input)?;
        rule::shape(0, "dy", operands[0], &self.pool.window.infer(&[&x])?.shape)?;
        Ok(x)
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        let bins = self.pool.window.bins(grid(to), sizes(operands[0]));
        let count = |row: &Bin, column: &Bin| match self.pool.count_include_pad {
            true => row.padded * column.padded,
            false => row.at.len() * column.at.len(),
        };
        for_dtype!(floats, to.dtype, T => to_all::<T>(operands, to, &bins, count))
    }
}

impl Operation for AdaptiveMaxPool2dGrad {
    fn name(&self) -> &'static str {
        "adaptive_max_pool2d_grad"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x", "dy"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        rule::dtype(1, "dy", operands[1], operands[0].dtype)?;
        rule::shape(1, "dy", operands[1], &infer_adaptive(output(1, operands[1])?, &operands[..1])?.shape)?;
        Ok(operands[0].clone())
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        let bins = adaptive_bins(grid(to), sizes(operands[1]));
        for_dtype!(floats, to.dtype, T => to_largest::<T>(operands, to, &bins))
    }
}

impl Operation for AdaptiveAvgPool2dGrad<'_> {
    fn name(&self) -> &'static str {
        "adaptive_avg_pool2d_grad"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["dy"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.list("input", self.input);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let x = pooled_from(operands[0], self.input)?;
        rule::shape(0, "dy", operands[0], &infer_adaptive(output(0, operands[0])?, &[&x])?.shape)?;
        Ok(x)
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        let bins = adaptive_bins(grid(to), sizes(operands[0]));
        for_dtype!(floats, to.dtype, T => {
            to_all::<T>(operands, to, &bins, |row, column| row.at.len() * column.at.len())
        })
    }
}

/// The type of the pooling's input.
fn pooled_from(dy: &TensorType, input: &[Dim; 2]) -> Result<TensorType, OpError> {
    rule::float(0, "dy", dy)?;
    rule::rank(0, "dy", dy, &["N", "C", "H", "W"])?;
    let mut shape = dy.shape[..2].to_vec();
    shape.extend(input.iter().cloned());
    let x = TensorType { dtype: dy.dtype, shape };
    rule::check_type(&x)?;
    Ok(x)
}

/// Height and width of a grid, which must be known.
fn output(i: usize, dy: &TensorType) -> Result<[usize; 2], OpError> {
    rule::rank(i, "dy", dy, &["N", "C", "H", "W"])?;
    match (dy.shape[2].size(), dy.shape[3].size()) {
        (Some(height), Some(width)) => Ok([height, width]),
        _ => Err(OpError::operand(i, format!("height and width of `dy` must be known: {dy}"))),
    }
}

/// Gives each element of `dy` to the first maximum of its window.
fn to_largest<T: Float>(
    operands: &[&Tensor],
    to: &Target,
    [rows, columns]: &[Vec<Bin>; 2],
) -> Result<Tensor, OpError> {
    let (x, dy) = (reference::elements::<T>(operands, 0)?, reference::elements::<T>(operands, 1)?);
    let [height, width] = grid(to);
    let mut dx = vec![T::default(); x.len()];
    let windows = rows.len() * columns.len();
    let planes = x.chunks(height * width).zip(dx.chunks_mut(height * width)).zip(dy.chunks(windows));
    for ((x, dx), dy) in planes {
        let windows = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
        for ((row, column), &dy) in windows.zip(dy) {
            let mut elements = row.at.iter().flat_map(|h| column.at.iter().map(move |w| h * width + w));
            let Some(first) = elements.next() else { continue };
            let larger = |a: T, b: T| !b.is_nan() && (a.is_nan() || a > b);
            let largest = elements.fold(first, |best, at| if larger(x[at], x[best]) { at } else { best });
            dx[largest] = dx[largest].add(dy);
        }
    }
    reference::tensor(&to.shape, dx)
}

/// Gives each element of `dy`, divided by the window's count, to all of its window.
fn to_all<T: Float>(
    operands: &[&Tensor],
    to: &Target,
    [rows, columns]: &[Vec<Bin>; 2],
    count: impl Fn(&Bin, &Bin) -> usize,
) -> Result<Tensor, OpError> {
    let dy = reference::elements::<T>(operands, 0)?;
    let [height, width] = grid(to);
    let mut dx = vec![T::default(); reference::count(&to.shape)];
    for (dx, dy) in dx.chunks_mut(height * width).zip(dy.chunks(rows.len() * columns.len())) {
        let windows = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
        for ((row, column), &dy) in windows.zip(dy) {
            let share = dy.div(<T as Element>::from_f64(count(row, column).max(1) as f64));
            for at in row.at.iter().flat_map(|h| column.at.iter().map(move |w| h * width + w)) {
                dx[at] = dx[at].add(share);
            }
        }
    }
    reference::tensor(&to.shape, dx)
}

/// The operation of this family with that name, its attributes read; `None` for other names.
pub fn parse(name: &str, r: &mut Reader) -> Result<Option<Op>, String> {
    Ok(Some(match name {
        "max_pool2d_grad" => Op::MaxPool2dGrad(MaxPool2d { window: Window::read(r)? }),
        "avg_pool2d_grad" => Op::AvgPool2dGrad(AvgPool2dGrad {
            pool: AvgPool2d {
                window: Window::read(r)?,
                count_include_pad: r.value_or(true, "count_include_pad")?,
            },
            input: r.dims("input")?,
        }),
        "adaptive_max_pool2d_grad" => Op::AdaptiveMaxPool2dGrad,
        "adaptive_avg_pool2d_grad" => Op::AdaptiveAvgPool2dGrad(r.dims("input")?),
        _ => return Ok(None),
    }))
}
