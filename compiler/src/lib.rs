//! From syntax to a program: graph, passes, kernels, code.
//!
//! The road is one way: [`build`] (syntax → graph), [`pass`] (graph → graph), [`lower`]
//! (fused groups → [`kernel`]s), [`emit`] (kernels → machine code). Every station has a text form.

pub mod autodiff;
pub mod build;
pub mod emit;
pub mod graph;
pub mod kernel;
pub mod lower;
pub mod pass;
pub mod plan;
pub mod target;
pub mod training;
