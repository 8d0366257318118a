//! Pooling: max and average over windows, and to a fixed grid.

/// Where the windows of a pooling lie. Output height is
/// `floor((H + top + bottom - dilation·(KH - 1) - 1) / stride) + 1`; with `ceil`, rounded up, but a
/// last window that would start in the lower padding is left out (PyTorch's rule).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height, width.
    pub kernel: [usize; 2],
    /// Vertical, horizontal.
    pub stride: [usize; 2],
    /// Above, below, left, right. Less than the kernel, so that no window is all padding.
    pub padding: [usize; 4],
    /// Vertical, horizontal.
    pub dilation: [usize; 2],
    /// Keeps the partial windows at the border.
    pub ceil: bool,
}

/// Max pooling: padding counts as minus infinity; NaN wins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MaxPool2d {
    /// The windows.
    pub window: Window,
}

/// Average pooling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AvgPool2d {
    /// The windows.
    pub window: Window,
    /// Whether padding counts in the divisor (PyTorch's default; what lies past the padding, in a
    /// partial window of `ceil`, never does).
    pub count_include_pad: bool,
}
