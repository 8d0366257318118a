//! Convolutions, transposed convolutions and the gradients of convolutions, an element at a time: for every stride, padding,
//! dilation, grouping and layout.

use nnc_runtime::DType;

use super::builder::Builder;
use super::elementwise::{add, f32, fma};
use crate::graph::NodeId;
use crate::graph::op::{Conv2d, Conv2dInputGrad, Conv2dWeightGrad, ConvTranspose2d};
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

    /// A transposed convolution of `dy`.
    pub fn conv2d_input_grad_element(
        &mut self,
        g: &Conv2dInputGrad,
        operands: &[NodeId],
        index: &[Index],
    ) -> Expr {
        let Conv2d { stride, padding, dilation, groups } = g.conv.clone();
        let transposed = ConvTranspose2d { stride, padding, output_padding: [0; 2], dilation, groups };
        self.conv_transpose2d_element(&transposed, operands, index)
    }

    /// `Σ x[n, g·C + c, oh·s - p + kh·d, …] · dy[n, oc, oh, ow]`, an image at a time.
    pub fn conv2d_weight_grad_element(
        &mut self,
        g: &Conv2dWeightGrad,
        operands: &[NodeId],
        index: &[Index],
    ) -> Expr {
        let c = &g.conv;
        let (x_shape, dy_shape) = (self.shape_of(operands[0]), self.shape_of(operands[1]));
        let [oc, ic, kh, kw] = [0, 1, 2, 3].map(|i| index[i].clone());
        let group = oc.div((dy_shape[1] / c.groups).max(1), self.extents());
        let channel = group * (x_shape[1] / c.groups) as i64 + ic;
        let total = self.cell("total", DType::F32);
        self.assign(&total, f32(0.0));
        self.serial("n", x_shape[0], |b, n| {
            let sum = b.cell("sum", DType::F32);
            b.assign(&sum, f32(0.0));
            b.serial("oh", dy_shape[2], |b, oh| {
                b.serial("ow", dy_shape[3], |b, ow| {
                    let ih = oh.clone() * c.stride[0] as i64 + kh * c.dilation[0] as i64 - c.padding[0];
                    let iw = ow.clone() * c.stride[1] as i64 + kw * c.dilation[1] as i64 - c.padding[2];
                    let mut inside = Guard::between(&ih, 0, x_shape[2] as i64, b.extents());
                    inside.extend(Guard::between(&iw, 0, x_shape[3] as i64, b.extents()));
                    let x =
                        b.guarded(inside, f32(0.0), |b| b.value(operands[0], &[n.clone(), channel, ih, iw]));
                    let dy = b.value(operands[1], &[n, oc, oh, ow]);
                    b.assign(&sum, fma(x, dy, sum.get()));
                });
            });
            b.assign(&total, add(total.get(), sum.get()));
        });
        total.get()
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
