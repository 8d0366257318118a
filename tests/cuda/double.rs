//! Runs commands with the double of the driver loaded as `libcuda.so`.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder for one test: the double under the driver's name, a cache of code, a log of calls.
pub struct Double {
    folder: tempfile::TempDir,
    settings: String,
    cache: Option<String>,
    blocking: bool,
}

/// What a command came to.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        // The double complains of what a driver forgives.
        assert!(!self.stderr.contains("cuda driver double"), "{}", self.stderr);
        self.stdout
    }

    /// The error of a command that must have failed, without the word.
    #[track_caller]
    pub fn error(self) -> String {
        assert_eq!(self.code, 1, "{}{}", self.stdout, self.stderr);
        let lines = self.stderr.lines().skip_while(|l| !l.starts_with("error: "));
        let text: Vec<&str> = lines.collect();
        assert!(!text.is_empty(), "{}", self.stderr);
        text.join("\n")["error: ".len()..].to_string()
    }
}

impl Double {
    /// A GPU as the double has it by default.
    pub fn new() -> Double {
        Double::with("")
    }

    /// A double with these settings (see `config.rs` there).
    pub fn with(settings: &str) -> Double {
        let folder = tempfile::tempdir().unwrap();
        let library = std::env::current_exe().unwrap().with_file_name("libnnc_cuda_driver_double.so");
        assert!(library.is_file(), "{} is built with the tests", library.display());
        for name in ["libcuda.so", "libcuda.so.1"] {
            symlink(&library, folder.path().join(name)).unwrap();
        }
        Double { folder, settings: settings.into(), cache: None, blocking: false }
    }

    /// A machine without a driver, whatever this one has.
    pub fn missing() -> Double {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libcuda.so", "libcuda.so.1"] {
            std::fs::write(folder.path().join(name), b"no library").unwrap();
        }
        Double { folder, settings: String::new(), cache: None, blocking: false }
    }

    /// The same folder with other settings.
    pub fn set(mut self, settings: &str) -> Double {
        self.settings = settings.into();
        self
    }

    /// What `NNC_CUDA_CACHE` is, in place of a folder of the test's.
    pub fn cache(mut self, value: &str) -> Double {
        self.cache = Some(value.into());
        self
    }

    /// Every launch is waited for.
    pub fn blocking(mut self) -> Double {
        self.blocking = true;
        self
    }

    /// A file of the test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the test's folder.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// Runs `nnc` in the repository's root; `{}` stands for the test's folder.
    pub fn nnc(&self, line: &str) -> Output {
        let folder = self.folder.path().to_str().unwrap();
        let args = line.split_whitespace().map(|w| w.replace("{}", folder));
        self.run(Command::new(env!("CARGO_BIN_EXE_nnc")).args(args))
    }

    /// Runs an ignored test of this file's.
    #[track_caller]
    pub fn test(&self, name: &str) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output = self.run(command.args(["--ignored", "--exact", name]));
        assert!(output.stdout.contains("1 passed"), "{}{}", output.stdout, output.stderr);
        assert!(!output.stderr.contains("cuda driver double"), "{}", output.stderr);
    }

    fn run(&self, command: &mut Command) -> Output {
        let cache = self.cache.clone().unwrap_or_else(|| self.path("cache").display().to_string());
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .env("LD_LIBRARY_PATH", self.folder.path())
            .env("NNC_CUDA_DOUBLE", &self.settings)
            .env("NNC_CUDA_DOUBLE_LOG", self.path("log"))
            .env("NNC_CUDA_CACHE", cache)
            .env("NNC_CUDA_BLOCKING", if self.blocking { "1" } else { "0" });
        let output = command.output().expect("it starts");
        Output {
            code: output.status.code().expect("it ends by itself"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The driver's functions that were called since the last time, in order, with what is said of them.
    pub fn calls(&self) -> Vec<String> {
        let path: &Path = &self.path("log");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        text.lines().filter(|l| *l != "CtxSetCurrent").map(str::to_string).collect()
    }
}

/// How often a function was called.
pub fn count(calls: &[String], name: &str) -> usize {
    calls.iter().filter(|c| c.split(' ').next() == Some(name)).count()
}

/// A small net with every kind of layer that matters here: parameters that are prepared, and such that
/// runs read.
pub const TINY: &str = "use std.vision
net tiny(classes = 10) {
    input image: f32[N, 1, 28, 28]
    output logits = image -> avgpool(4) -> conv(4, 3x3, pad = 1) -> batchnorm -> relu -> maxpool(2x2)
                          -> flatten -> dropout(0.1) -> dense(classes)
    train {
        input label: i32[N]
        loss = cross_entropy(logits, label)
        metric top1 = accuracy(logits, label)
        optimizer = sgd(lr = 0.1, momentum = 0.9)
        batch = 16
        epochs = 2
    }
}
";

/// Two pictures for [`TINY`], as an array file.
pub fn pictures() -> Vec<u8> {
    let pictures = ndarray::Array4::from_shape_fn((2, 1, 28, 28), |(n, _, y, x)| {
        ((n * 31 + y * 7 + x * 3) % 17) as f32 / 17.0
    });
    nnc::data::npy::to_bytes(&pictures.into())
}
