//! What the double pretends to be.
//!
//! `NNC_CUDA_DOUBLE` holds `name=value` pairs with commas between:
//!
//! | name | meaning | without it |
//! |---|---|---|
//! | `devices` | how many GPUs there are | 1 |
//! | `capability` | their compute capability | 9.0 |
//! | `memory` | bytes of memory of each | 8 GiB |
//! | `driver` | the CUDA version of the driver | 13000 |
//! | `stub` | 1: it is the stub of CUDA's toolkit | 0 |
//! | `fail` | kernels with this in their name fail | none |
//! | `after` | so many launches of them go well before | 0 |
//! | `sums` | how tensor cores add: `rounded`, or `truncated` as GPUs were found to do | `rounded` |
//!
//! `NNC_CUDA_DOUBLE_LOG` names a file to which a line is written for every call, in order: the function's
//! name without `cu`, then what matters of its arguments.

use nnc_ptx_interpreter::Sums;

/// See the module's head.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Number of GPUs.
    pub devices: i32,
    /// Their compute capability.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub memory: usize,
    /// The driver's CUDA version.
    pub driver: i32,
    /// Whether it is no driver but the stub to link with.
    pub stub: bool,
    /// Part of the names of kernels that fail.
    pub fail: Option<String>,
    /// Launches of these that go well before.
    pub after: u64,
    /// How products of tensor cores are added up.
    pub sums: Sums,
    /// File of the log.
    pub log: Option<std::path::PathBuf>,
}

/// The environment variables.
pub const SETTINGS: &str = "NNC_CUDA_DOUBLE";
/// See [`SETTINGS`].
pub const LOG: &str = "NNC_CUDA_DOUBLE_LOG";

impl Config {
    /// Bytes of shared memory that a block may have if it asks, by the tables of NVIDIA's programming guide.
    pub fn most_shared(&self) -> u32 {
        match self.capability {
            (8, 0 | 7) => 163 << 10,
            (8 | 12, _) => 99 << 10,
            _ => 227 << 10,
        }
    }

    /// Reads the environment.
    pub fn from_environment() -> Config {
        let mut config = Config::parse(&std::env::var(SETTINGS).unwrap_or_default());
        config.log = std::env::var_os(LOG).map(Into::into);
        config
    }

    /// Reads settings.
    ///
    /// # Panics
    /// If they are not understood: a test is wrong then.
    pub fn parse(settings: &str) -> Config {
        let mut config = Config {
            devices: 1,
            capability: (9, 0),
            memory: 8 << 30,
            driver: 13_000,
            stub: false,
            fail: None,
            after: 0,
            sums: Sums::Rounded,
            log: None,
        };
        for setting in settings.split(',').filter(|s| !s.is_empty()) {
            let Some((name, value)) = setting.split_once('=') else {
                panic!("{SETTINGS}: expected name=value, found `{setting}`")
            };
            let number = || -> u64 { value.parse().unwrap_or_else(|_| panic!("{SETTINGS}: `{setting}`")) };
            match name {
                "devices" => config.devices = number() as i32,
                "memory" => config.memory = number() as usize,
                "driver" => config.driver = number() as i32,
                "stub" => config.stub = number() == 1,
                "after" => config.after = number(),
                "fail" => config.fail = Some(value.into()),
                "sums" => {
                    config.sums = match value {
                        "rounded" => Sums::Rounded,
                        "truncated" => Sums::Truncated,
                        _ => panic!("{SETTINGS}: `{setting}`"),
                    };
                }
                "capability" => {
                    let parts =
                        value.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                    config.capability = parts.unwrap_or_else(|| panic!("{SETTINGS}: `{setting}`"));
                }
                _ => panic!("{SETTINGS}: there is no setting `{name}`"),
            }
        }
        config
    }
}
