//! Why no training step can be made.

use nnc_dsl::Diagnostic;

use crate::autodiff::NotDifferentiable;
use crate::graph::specialise::SpecialiseError;

/// Why no training step can be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The net says nothing about training, or was built for inference.
    #[error("the net has no `train` section")]
    NoSection,
    /// Sizes must be known before a step is made.
    #[error("the size `{}` is not known", .0.join("`, `"))]
    Symbols(Vec<String>),
    /// Sizes that an operation does not allow.
    #[error(transparent)]
    Sizes(#[from] SpecialiseError),
    /// An operation between parameters and loss has no gradient.
    #[error(transparent)]
    NotDifferentiable(#[from] NotDifferentiable),
    /// A name that the step needs is taken.
    #[error("the {what} `{name}` has a name that the training step needs")]
    Name {
        /// The name.
        name: String,
        /// What has it.
        what: &'static str,
    },
    /// An optimizer that is not known here.
    #[error("the optimizer `{0}` is not known")]
    Optimizer(String),
}

impl TrainError {
    /// For the author of the program.
    pub fn diagnostic(&self) -> Diagnostic {
        match self {
            TrainError::NotDifferentiable(e) => e.diagnostic(),
            TrainError::NoSection => {
                let mut d = Diagnostic::global(self.to_string());
                d.help = Some("add `train { loss = …; optimizer = … }` to the net".to_string());
                d
            }
            TrainError::Symbols(names) => {
                let mut d = Diagnostic::global(self.to_string());
                d.help = names.first().map(|n| format!("fix it with `--set {n}=…`"));
                d
            }
            _ => Diagnostic::global(self.to_string()),
        }
    }
}
