//! The command `nnc` as a user meets it: arguments in; exit code, standard output, standard error
//! and files out.

mod bad_input;
mod data;
mod help;
mod memory;
mod programs;
mod reports;
mod support;
mod training;
mod tune;
