//! What machine code is made for: the machine that compiles, or one that is named; a CPU or a GPU.

mod gpu;

use std::str::FromStr;

use thiserror::Error;

pub use gpu::{GpuTarget, UnknownGpu};

/// A CPU target.
///
/// ```
/// use nnc_compiler::target::CpuTarget;
/// let target = CpuTarget::named("avx512")?;
/// assert_eq!((target.lanes, target.vector_registers, target.block()), (16, 32, 16));
/// # Ok::<(), nnc_compiler::target::UnknownTarget>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuTarget {
    /// `x86_64`, `aarch64`.
    pub architecture: String,
    /// Features that the code may use (`avx`, `fma`, …), sorted.
    pub features: Vec<String>,
    /// Lanes of an f32 vector in generated code.
    pub lanes: usize,
    /// Vector registers that a tile may fill.
    pub vector_registers: usize,
}

/// The name of no target.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no target CPU `{name}`, expected one of {}", CpuTarget::names().join(", "))]
pub struct UnknownTarget {
    /// The name.
    pub name: String,
}

/// A target that has names.
struct Named {
    /// The first is the one that is shown.
    names: &'static [&'static str],
    architecture: &'static str,
    features: &'static [&'static str],
    lanes: usize,
}

/// The name of the machine that compiles.
const NATIVE: &str = "native";

/// All other targets, widest vectors first. The levels of the x86-64 psABI without what no kernel uses.
const NAMED: [Named; 3] = [
    Named {
        names: &["x86-64-v4", "avx512"],
        architecture: "x86_64",
        features: &[
            "avx", "avx2", "avx512bw", "avx512dq", "avx512f", "avx512vl", "bmi1", "bmi2", "fma", "lzcnt",
            "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3",
        ],
        lanes: 16,
    },
    Named {
        names: &["x86-64-v3", "avx2"],
        architecture: "x86_64",
        features: &[
            "avx", "avx2", "bmi1", "bmi2", "fma", "lzcnt", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3",
        ],
        lanes: 8,
    },
    // The least that kernels need: 128-bit vectors with fused multiply-adds.
    Named {
        names: &["x86-64-fma", "fma"],
        architecture: "x86_64",
        features: &["avx", "fma", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"],
        lanes: 4,
    },
];

/// What vectors of 16 lanes need, what those of 8 need.
const WIDE: [(usize, &[&str]); 2] =
    [(16, &["avx512bw", "avx512dq", "avx512f", "avx512vl", "bmi2", "fma"]), (8, &["avx2", "bmi2", "fma"])];

impl CpuTarget {
    /// The machine this runs on, with its widest vectors.
    pub fn host() -> CpuTarget {
        CpuTarget::detect()
    }

    /// The target of that name: `native`, `avx512`, …
    ///
    /// # Errors
    /// For a name that is none of [`names`](CpuTarget::names), and no second name of one.
    pub fn named(name: &str) -> Result<CpuTarget, UnknownTarget> {
        if name == NATIVE {
            return Ok(CpuTarget::host());
        }
        let unknown = || UnknownTarget { name: name.into() };
        let found = NAMED.iter().find(|n| n.names.contains(&name)).ok_or_else(unknown)?;
        let target = CpuTarget {
            architecture: found.architecture.into(),
            features: found.features.iter().map(|f| f.to_string()).collect(),
            lanes: found.lanes,
            vector_registers: 0,
        };
        Ok(target.with_lanes(found.lanes))
    }

    /// The names of targets, each with its second one: `x86-64-v4 (avx512)`.
    pub fn names() -> Vec<String> {
        let both = |n: &Named| format!("{} ({})", n.names[0], n.names[1]);
        std::iter::once(NATIVE.to_string()).chain(NAMED.iter().map(both)).collect()
    }

    /// Channels in a block of a blocked layout: as many as a vector has lanes, where that is
    /// enough to keep the multiply-add units busy.
    pub fn block(&self) -> usize {
        if self.lanes == 16 { 16 } else { 8 }
    }

    /// The machine this runs on, with all it has.
    pub fn detect() -> CpuTarget {
        let mut features = vec![];
        #[cfg(target_arch = "x86_64")]
        {
            macro_rules! detect {
                ($($name:tt),*) => { $( if std::is_x86_feature_detected!($name) { features.push($name.to_string()); } )* };
            }
            detect!(
                "avx", "avx2", "avx512bw", "avx512dq", "avx512f", "avx512vl", "bmi1", "bmi2", "fma", "lzcnt",
                "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"
            );
        }
        features.sort();
        let any = CpuTarget {
            architecture: std::env::consts::ARCH.into(),
            features,
            lanes: 4,
            vector_registers: 16,
        };
        let widest = any.widths()[0];
        any.with_lanes(widest)
    }

    /// The lanes that vectors can have, widest first.
    pub fn widths(&self) -> Vec<usize> {
        let has = |f: &&str| self.features.iter().any(|x| x == f);
        let wide = WIDE.iter().filter(|(_, needed)| self.architecture == "x86_64" && needed.iter().all(has));
        wide.map(|(lanes, _)| *lanes).chain([4]).collect()
    }

    /// The same machine with vectors of so many lanes (one of [`widths`](CpuTarget::widths)); what
    /// only wider ones need is left alone.
    pub fn with_lanes(mut self, lanes: usize) -> CpuTarget {
        if lanes < 16 {
            self.features.retain(|f| !f.starts_with("avx512"));
        }
        let many = lanes == 16 || self.architecture == "aarch64";
        CpuTarget { lanes, vector_registers: if many { 32 } else { 16 }, ..self }
    }
}

impl FromStr for CpuTarget {
    type Err = UnknownTarget;

    fn from_str(name: &str) -> Result<CpuTarget, UnknownTarget> {
        CpuTarget::named(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_targets_have_the_vectors_that_their_features_allow() {
        for named in NAMED {
            for name in named.names {
                let target = CpuTarget::named(name).unwrap();
                assert_eq!(target.widths()[0], target.lanes, "{name}");
                assert!(target.features.is_sorted(), "{name}");
                assert!(target.block().is_multiple_of(target.lanes), "{name}");
            }
        }
        assert_eq!(CpuTarget::named("native"), Ok(CpuTarget::host()));
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        let error = CpuTarget::named("pentium").unwrap_err().to_string();
        assert!(
            error.starts_with("there is no target CPU `pentium`, expected one of native, x86-64-v4 (avx512)")
        );
    }
}
