//! Runs the built command in the repository's root.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a run of the command came to.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output of a run that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout
    }

    /// Standard error of a run that must have failed with exit code 1, without a panic.
    #[track_caller]
    pub fn failed(self) -> String {
        assert_eq!(self.code, 1, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert!(self.stderr.contains("error"), "no error is shown: {}", self.stderr);
        assert!(!self.stderr.contains("internal error"), "{}", self.stderr);
        self.stderr
    }
}

/// The command with these arguments, run in the repository's root.
pub fn command<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nnc"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).env_remove("COLUMNS");
    command
}

/// Runs `nnc` with the words of `line`; `{}` stands for the path of a scratch folder.
pub fn nnc_in(scratch: &Path, line: &str) -> Output {
    let scratch = scratch.to_str().expect("a scratch path is UTF-8");
    let args: Vec<String> = line.split_whitespace().map(|w| w.replace("{}", scratch)).collect();
    finish(command(&args).output().expect("nnc starts"))
}

/// Runs `nnc` with the words of `line`.
pub fn nnc(line: &str) -> Output {
    nnc_in(Path::new("."), line)
}

/// Runs `nnc` with the words of `line` and that standard input.
pub fn nnc_with_stdin(line: &str, stdin: &[u8]) -> Output {
    let args: Vec<&str> = line.split_whitespace().collect();
    let mut child = command(&args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nnc starts");
    // A command that has failed already does not read it: that is no failure of the test.
    let _ = child.stdin.take().expect("it is piped").write_all(stdin);
    finish(child.wait_with_output().expect("nnc ends"))
}

fn finish(output: std::process::Output) -> Output {
    Output {
        code: output.status.code().expect("nnc ends by itself"),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// A scratch folder with these files in it.
pub fn scratch(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a scratch folder can be made");
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).expect("it can be written to");
    }
    folder
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The bytes of a file of the repository.
pub fn read(path: &str) -> Vec<u8> {
    std::fs::read(repository(path)).expect("the repository carries it")
}

/// An array as the bytes of a `.npy` file.
pub fn npy<D: ndarray::Dimension>(array: &ndarray::Array<f32, D>) -> Vec<u8> {
    nnc::data::npy::to_bytes(&array.clone().into())
}

/// The array in a `.npy` file.
pub fn read_npy(path: impl AsRef<Path>) -> ndarray::ArrayD<f32> {
    let tensor = nnc::data::npy::read(path, nnc::DType::F32).expect("an array");
    tensor.as_f32().expect("of f32").clone()
}
