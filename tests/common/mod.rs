//! What several tests share.

pub mod reference;
pub mod unit;
