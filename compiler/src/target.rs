//! What machine code is made for.

/// A CPU target.
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

/// What vectors of 16 lanes need, what those of 8 need.
const WIDE: [(usize, &[&str]); 2] =
    [(16, &["avx512bw", "avx512dq", "avx512f", "avx512vl", "bmi2", "fma"]), (8, &["avx2", "bmi2", "fma"])];

impl CpuTarget {
    /// The machine this runs on, with vectors of 128 bits.
    pub fn host() -> CpuTarget {
        CpuTarget::detect().with_lanes(4)
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
