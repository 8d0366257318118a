//! The command `nnc`. Everything it can do is in `cli/`, one subcommand a file.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

/// Deeply nested programs need stack; what is not touched costs nothing.
const STACK_BYTES: usize = 256 << 20;
/// The exit code after a panic: a bug in nnc, not in what it was given.
const INTERNAL_ERROR: u8 = 101;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        cli::terminal::error_line(&format!(
            "internal error: {panic}\nThis is a bug in nnc. Please report it, with the program and the command line."
        ));
    }));
    let worker = std::thread::Builder::new().name("nnc".into()).stack_size(STACK_BYTES).spawn(cli::main);
    match worker.map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => code,
        Ok(Err(_)) => ExitCode::from(INTERNAL_ERROR),
        Err(e) => {
            cli::terminal::error_line(&format!("error: cannot start a thread: {e}"));
            ExitCode::FAILURE
        }
    }
}
