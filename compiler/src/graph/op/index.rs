//! Indexing: gather, one_hot.
