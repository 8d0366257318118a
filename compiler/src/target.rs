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

impl CpuTarget {
    /// The machine this runs on.
    pub fn host() -> CpuTarget {
        let mut features = vec![];
        #[cfg(target_arch = "x86_64")]
        {
            macro_rules! detect {
                ($($name:tt),*) => { $( if std::is_x86_feature_detected!($name) { features.push($name.to_string()); } )* };
            }
            detect!(
                "avx", "avx2", "bmi1", "bmi2", "fma", "lzcnt", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"
            );
        }
        features.sort();
        let vector_registers = if cfg!(target_arch = "aarch64") { 32 } else { 16 };
        CpuTarget { architecture: std::env::consts::ARCH.into(), features, lanes: 4, vector_registers }
    }
}
