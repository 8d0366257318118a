//! Reductions over axes, and the index of the largest value.

/// What a reduction computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is its own name
pub enum ReduceKind {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
}
