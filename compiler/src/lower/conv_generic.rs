//! Convolutions and transposed convolutions, an element at a time: for every stride, padding,
//! dilation, grouping and layout.

use nnc_runtime::DType;

use super::builder::Builder;
use super::elementwise::{f32, fma};
use crate::graph::NodeId;
use crate::graph::op::{Conv2d, ConvTranspose2d};
use crate::kernel::{Expr, Guard, Index};

impl Builder<'_> {
    /// `Σ x[n, g·IC + ic, oh·s - p + kh·d, …] · weight[oc, ic, kh, kw] + bias[oc]`
    pub fn conv2d_element(&mut self, c: &Conv2d, operands: &[NodeId], index: &[Index]) -> Expr {
        let (x_shape, w_shape) = (self.shape_of(operands[0]), self.shape_of(operands[1]));
        let [n, oc, oh, ow] = [0, 1, 2, 3].map(|i| index[i].clone());
        let sum = self.sum_from_bias(operands, &oc);
        let group = match c.groups {
            1 => Index::default(),
            _ => oc.div((w_shape[0] / c.groups).max(1), self.extents()),
        };
        self.serial("ic", w_shape[1], |b, ic| {
            b.serial("kh", w_shape[2], |b, kh| {
                b.serial("kw", w_shape[3], |b, kw| {
                    let ih = oh * c.stride[0] as i64 + kh.clone() * c.dilation[0] as i64 - c.padding[0];
                    let iw = ow * c.stride[1] as i64 + kw.clone() * c.dilation[1] as i64 - c.padding[2];
                    let mut inside = Guard::between(&ih, 0, x_shape[2] as i64, b.extents());
                    inside.extend(Guard::between(&iw, 0, x_shape[3] as i64, b.extents()));
                    let channel = group * w_shape[1] as i64 + ic.clone();
                    let x = b.guarded(inside, f32(0.0), |b| b.value(operands[0], &[n, channel, ih, iw]));
                    let w = b.value(operands[1], &[oc, ic, kh, kw]);
                    b.assign(&sum, fma(x, w, sum.get()));
                });
            });
        });
        sum.get()
    }

    /// The gather form: `Σ x[n, ic, ih, iw] · weight[ic, oc, kh, kw]` over the `ih` with
    /// `ih·s = oh + p - kh·d`, likewise `iw`.
    pub fn conv_transpose2d_element(
        &mut self,
        c: &ConvTranspose2d,
        operands: &[NodeId],
        index: &[Index],
    ) -> Expr {
        let (x_shape, w_shape) = (self.shape_of(operands[0]), self.shape_of(operands[1]));
        let [n, oc, oh, ow] = [0, 1, 2, 3].map(|i| index[i].clone());
        let sum = self.sum_from_bias(operands, &oc);
        let (group_in, group_out) = ((w_shape[0] / c.groups).max(1), w_shape[1].max(1));
        let (group, oc_in_group) = match c.groups {
            1 => (Index::default(), oc),
            _ => (oc.div(group_out, self.extents()), oc.rem(group_out, self.extents())),
        };
        self.serial("ic", w_shape[0] / c.groups, |b, ic| {
            b.serial("kh", w_shape[2], |b, kh| {
                b.serial("kw", w_shape[3], |b, kw| {
                    let th = oh - kh.clone() * c.dilation[0] as i64 + c.padding[0];
                    let tw = ow - kw.clone() * c.dilation[1] as i64 + c.padding[2];
                    let mut inside = vec![];
                    let mut at = vec![n, group * group_in as i64 + ic];
                    for (axis, t) in [th, tw].into_iter().enumerate() {
                        let (i, rest) =
                            (t.div(c.stride[axis], b.extents()), t.rem(c.stride[axis], b.extents()));
                        inside.extend(Guard::between(&rest, 0, 1, b.extents()));
                        inside.extend(Guard::between(&i, 0, x_shape[2 + axis] as i64, b.extents()));
                        at.push(i);
                    }
                    let x = b.guarded(inside, f32(0.0), |b| b.value(operands[0], &at));
                    let w = b.value(operands[1], &[at[1].clone(), oc_in_group, kh, kw]);
                    b.assign(&sum, fma(x, w, sum.get()));
                });
            });
        });
        sum.get()
    }

    fn sum_from_bias(&mut self, operands: &[NodeId], oc: &Index) -> super::builder::Cell {
        let start = match operands.get(2) {
            Some(&bias) => self.value(bias, std::slice::from_ref(oc)),
            None => f32(0.0),
        };
        let sum = self.cell("sum", DType::F32);
        self.assign(&sum, start);
        sum
    }
}
