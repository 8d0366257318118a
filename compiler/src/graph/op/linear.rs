//! Contractions: matmul and linear.
