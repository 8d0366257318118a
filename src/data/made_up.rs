//! Inputs that nobody needs to have: for measuring how long a run takes.

use std::collections::BTreeMap;

use crate::{DType, Tensor, TensorSpec};

/// A tensor for each of these inputs, the same every time: numbers from -1 to 1 or, for integers, `classes` classes in
/// turn (0 where they are not known). Sizes that are not known count as none.
pub fn inputs(specs: &[TensorSpec], classes: Option<usize>) -> BTreeMap<String, Tensor> {
    let sizes = |spec: &TensorSpec| spec.ty.sizes().unwrap_or_default();
    specs.iter().map(|s| (s.name.clone(), made_up(s.ty.dtype, &sizes(s), classes))).collect()
}

fn made_up(dtype: DType, shape: &[usize], classes: Option<usize>) -> Tensor {
    let mut tensor = Tensor::zeros(dtype, shape);
    match &mut tensor {
        Tensor::F32(a) => {
            let mut state = 1u32;
            // A linear congruential generator (Numerical Recipes) is random enough for timing.
            a.mapv_inplace(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            });
        }
        Tensor::I32(a) => {
            let classes = classes.unwrap_or(1).max(1);
            a.iter_mut().enumerate().for_each(|(i, v)| *v = (i % classes) as i32);
        }
        _ => {}
    }
    tensor
}
