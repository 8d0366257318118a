//! Convolutions: 2-D and transposed 2-D. (1-D ones are written with them in the standard library.)

/// Attributes of a 2-D convolution (cross-correlation, as everywhere in the field).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv2d {
    /// Vertical, horizontal.
    pub stride: [usize; 2],
    /// Rows of zeros above, below, columns left, right.
    pub padding: [usize; 4],
    /// Vertical, horizontal.
    pub dilation: [usize; 2],
    /// Channels are split into that many independent groups.
    pub groups: usize,
}

/// Attributes of a transposed 2-D convolution: the gradient of [`Conv2d`] with respect to its input.
/// Output height: `(H - 1)·stride - top - bottom + dilation·(KH - 1) + output_padding + 1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvTranspose2d {
    /// Vertical, horizontal.
    pub stride: [usize; 2],
    /// Rows cut above, below, columns left, right.
    pub padding: [usize; 4],
    /// Rows added below, columns right.
    pub output_padding: [usize; 2],
    /// Vertical, horizontal.
    pub dilation: [usize; 2],
    /// Channels are split into that many independent groups.
    pub groups: usize,
}
