//! Movement of elements: reshape, transpose, concat, slice, pad, broadcast, relayout.
