//! Random numbers: a thread draws one block of four elements.

use nnc_runtime::program::Access;

use super::Made;
use super::elements::finished;
use crate::graph::NodeId;
use crate::graph::op::Philox;
use crate::kernel::{Guard, Index};
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Scope};
use crate::lower::random::Random;

/// The kernel of a draw; `None` if the result is not dense.
pub(super) fn kernel(scope: &Scope, name: &str, node: NodeId, draw: &Philox, out: &Place) -> Option<Made> {
    let total = out.elements();
    let flat = out.reshaped(&[total])?;
    let mut b = Builder::new(name, scope);
    let to = b.bind(&flat, Access::Write, "out");
    let block = b.task("block", total.div_ceil(4));
    let values = Random { name, draw, node, out, lanes: 1 }.elements_of(&mut b, scope, &block);
    for (word, value) in values.into_iter().enumerate() {
        let at = block.clone() * 4 + Index::from(word);
        let inside = Guard::between(&at, 0, total as i64, b.extents());
        b.when(inside, |b| b.store(to, vec![at], value));
    }
    finished(b)
}
