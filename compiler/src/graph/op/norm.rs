//! Normalisation: batch normalisation, local response normalisation, softmax, log_softmax.

/// Batch normalisation: `(x - mean) / sqrt(var + eps) · weight + bias`, per channel.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm {
    /// Added to the variance.
    pub eps: f64,
    /// Share of the new statistics in the running ones (training).
    pub momentum: f64,
    /// Statistics of the batch instead of the running ones.
    pub training: bool,
}

/// `x / (k + alpha/size · Σ x²)^beta`, the sum over `size` neighbouring channels from
/// `c - size/2`, zeros outside (Krizhevsky et al. 2012, section 3.3; alpha divided as in PyTorch).
#[derive(Clone, Debug, PartialEq)]
pub struct LocalResponseNorm {
    /// Number of channels in the sum.
    pub size: usize,
    /// Factor.
    pub alpha: f64,
    /// Exponent.
    pub beta: f64,
    /// Offset.
    pub k: f64,
}
