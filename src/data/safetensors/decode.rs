//! The elements of tensors, from the types that files have to those that programs compute in.

use half::{bf16, f16};
use nnc_runtime::DType;
use safetensors::tensor::Dtype;

/// What elements of a file's type become.
pub(super) fn kind(dtype: Dtype) -> Result<DType, String> {
    Ok(match dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64 => DType::F32,
        Dtype::I64 | Dtype::I32 | Dtype::I16 | Dtype::I8 => DType::I32,
        Dtype::U32 | Dtype::U16 | Dtype::U8 => DType::I32,
        Dtype::BOOL => DType::Bool,
        other => return Err(format!("element type {other} is not supported")),
    })
}

/// Writes elements as this machine has them; `to` has room for as many as `from` has.
pub(super) fn decode(dtype: Dtype, from: &[u8], to: &mut [u8]) -> Result<(), String> {
    match dtype {
        Dtype::F32 => each(from, to, |b| f32::from_le_bytes(b).to_ne_bytes()),
        Dtype::F16 => each(from, to, |b| f16::from_le_bytes(b).to_f32().to_ne_bytes()),
        Dtype::BF16 => each(from, to, |b| bf16::from_le_bytes(b).to_f32().to_ne_bytes()),
        Dtype::F64 => each(from, to, |b| (f64::from_le_bytes(b) as f32).to_ne_bytes()),
        Dtype::I32 => each(from, to, |b| i32::from_le_bytes(b).to_ne_bytes()),
        Dtype::I16 => each(from, to, |b| i32::from(i16::from_le_bytes(b)).to_ne_bytes()),
        Dtype::U16 => each(from, to, |b| i32::from(u16::from_le_bytes(b)).to_ne_bytes()),
        Dtype::I8 => each(from, to, |b| i32::from(i8::from_le_bytes(b)).to_ne_bytes()),
        Dtype::U8 => each(from, to, |b| i32::from(u8::from_le_bytes(b)).to_ne_bytes()),
        Dtype::BOOL => each(from, to, |[b]| [u8::from(b != 0)]),
        Dtype::I64 => return fitting(from, to, i64::from_le_bytes),
        Dtype::U32 => return fitting(from, to, u32::from_le_bytes),
        other => return Err(format!("element type {other} is not supported")),
    }
    Ok(())
}

fn each<const N: usize, const M: usize>(from: &[u8], to: &mut [u8], convert: impl Fn([u8; N]) -> [u8; M]) {
    let elements = from.as_chunks().0.iter().zip(to.as_chunks_mut().0);
    elements.for_each(|(from, to)| *to = convert(*from));
}

/// Integers that must fit in `i32`.
fn fitting<const N: usize, T: TryInto<i32> + Copy + std::fmt::Display>(
    from: &[u8],
    to: &mut [u8],
    read: impl Fn([u8; N]) -> T,
) -> Result<(), String> {
    for (from, to) in from.as_chunks().0.iter().zip(to.as_chunks_mut().0) {
        let wide = read(*from);
        let narrow: i32 = wide.try_into().map_err(|_| format!("{wide} does not fit in i32"))?;
        *to = narrow.to_ne_bytes();
    }
    Ok(())
}
