//! Checks that a program is consistent, so that the runtime may rely on it: every index exists,
//! every region lies within its storage and every storage within its area, names are unique, and
//! kernels write only where their phase may.
//!
//! All arithmetic is checked: the numbers may come from a file.

use std::collections::HashSet;

use super::{Access, Argument, Class, Grid, Initializer, Kernel, Launch, Phase, Port, Program, ProgramError};
use crate::memory::{ALIGNMENT, MAX_BYTES};

/// A kernel's arguments are compared with each other, so a file may not have a million of them.
const MAX_ARGUMENTS: usize = 4096;

/// What blocks of a GPU have at most.
const MAX_BLOCK_THREADS: u32 = 1024;
const MAX_SHARED_BYTES: u32 = 227 << 10;

type Check = Result<(), String>;

impl Program {
    /// Checks everything that can be checked without running code. A program that passes can be
    /// loaded and run on a machine that [supports](Program::check_host) it without reaching past
    /// its memory, if its code keeps to the extents it declares.
    pub fn validate(&self) -> Result<(), ProgramError> {
        self.check().map_err(ProgramError::Invalid)
    }

    /// Checks that this machine can run it.
    pub fn check_host(&self) -> Result<(), ProgramError> {
        let host = std::env::consts::ARCH;
        if self.architecture != host {
            let found = &self.architecture;
            return Err(ProgramError::Unsupported(format!(
                "the program is made for {found}, this machine is {host}"
            )));
        }
        let missing: Vec<&str> = self.features.iter().map(String::as_str).filter(|f| !host_has(f)).collect();
        if !missing.is_empty() {
            return Err(ProgramError::Unsupported(format!(
                "the program needs CPU features that this machine lacks: {}",
                missing.join(", ")
            )));
        }
        Ok(())
    }

    /// Size of a port in bytes; fits, after [`validate`](Program::validate).
    pub fn port_bytes(port: &Port) -> Result<usize, String> {
        port.shape
            .iter()
            .try_fold(port.dtype.size(), |n, &d| n.checked_mul(d))
            .filter(|&n| n <= MAX_BYTES)
            // A size of 0 must not hide that the others overflow: ndarray multiplies those alone.
            .filter(|_| {
                port.shape.iter().filter(|&&d| d > 0).try_fold(8usize, |n, &d| n.checked_mul(d)).is_some()
            })
            .ok_or_else(|| format!("`{}` is too large: shape {:?}", port.name, port.shape))
    }

    fn check(&self) -> Check {
        if self.is_for_gpu() && self.ptx().is_none() {
            return Err("its code is not text".into());
        }
        self.check_ports()?;
        let areas = [
            ("the prepared area", self.prepared_bytes),
            ("the prepare phase's memory", self.preparing_bytes),
            ("the arena", self.arena_bytes),
        ];
        for (what, bytes) in areas {
            if bytes > MAX_BYTES {
                return Err(format!("{what} is too large: {bytes} bytes"));
            }
        }
        self.check_weights()?;
        self.check_storages()?;
        for k in &self.kernels {
            self.check_kernel(k).map_err(|e| format!("kernel `{}`: {e}", k.name))?;
        }
        let mut phase = Phase::Prepare;
        for (i, l) in self.launches.iter().enumerate() {
            self.check_launch(l).map_err(|e| format!("launch {i}: {e}"))?;
            if l.phase < phase {
                return Err(format!("launch {i} prepares, but an earlier one runs"));
            }
            phase = l.phase;
        }
        self.check_outputs_written()
    }

    /// Weights that it comes with are all that it needs.
    fn check_weights(&self) -> Check {
        let Some(weights) = &self.weights else { return Ok(()) };
        if weights.len() != self.prepared_bytes {
            let (expected, found) = (self.prepared_bytes, weights.len());
            return Err(format!(
                "expected the {expected} bytes of the prepared area as weights, found {found}"
            ));
        }
        if let Some(p) = self.parameters.first() {
            return Err(format!("it has weights and asks for parameter `{}`", p.port.name));
        }
        match self.launches.iter().position(|l| l.phase == Phase::Prepare) {
            Some(i) => Err(format!("it has weights, but launch {i} prepares some")),
            None => Ok(()),
        }
    }

    fn check_ports(&self) -> Check {
        let parameters = || self.parameters.iter().map(|p| &p.port);
        unique("input", self.inputs.iter())?;
        unique("output", self.outputs.iter())?;
        unique("parameter", parameters())?;
        for port in self.inputs.iter().chain(&self.outputs).chain(parameters()) {
            Program::port_bytes(port)?;
        }
        for p in &self.parameters {
            if !numbers_of(&p.init).iter().all(|v| v.is_finite()) {
                return Err(format!("the initialiser of `{}` is not finite", p.port.name));
            }
        }
        Ok(())
    }

    fn check_storages(&self) -> Check {
        let mut seen = HashSet::new();
        for (i, s) in self.storages.iter().enumerate() {
            self.check_storage(i, &mut seen).map_err(|e| format!("storage {i} (`{}`): {e}", s.name))?;
        }
        Ok(())
    }

    fn check_storage(&self, i: usize, seen: &mut HashSet<(u8, usize)>) -> Check {
        let s = &self.storages[i];
        let (kind, what, at, port) = match s.class {
            Class::Input(at) => (0, "input", at, self.inputs.get(at)),
            Class::Output(at) => (1, "output", at, self.outputs.get(at)),
            // A parameter changes or it does not.
            Class::Parameter(at) | Class::State(at) => {
                (2, "parameter", at, self.parameters.get(at).map(|p| &p.port))
            }
            Class::Constant(at) => return placed(at, s.bytes, self.constants.len(), "the constants"),
            Class::Prepared(at) => return placed(at, s.bytes, self.prepared_bytes, "the prepared area"),
            Class::Preparing(at) => {
                return placed(at, s.bytes, self.preparing_bytes, "the prepare phase's memory");
            }
            Class::Arena(at) => return placed(at, s.bytes, self.arena_bytes, "the arena"),
        };
        let port = port.ok_or_else(|| format!("there is no {what} {at}"))?;
        if !seen.insert((kind, at)) {
            return Err(format!("another storage is {what} {at} too"));
        }
        let expected = Program::port_bytes(port)?;
        if s.bytes != expected {
            return Err(format!("expected the {expected} bytes of `{}`, found {}", port.name, s.bytes));
        }
        Ok(())
    }

    fn check_kernel(&self, k: &Kernel) -> Check {
        if k.code_offset >= self.code.len() {
            let (at, n) = (k.code_offset, self.code.len());
            return Err(format!("its code starts at byte {at} of {n}"));
        }
        if k.params.len() > MAX_ARGUMENTS {
            return Err(format!(
                "it takes {} arguments, at most {MAX_ARGUMENTS} are allowed",
                k.params.len()
            ));
        }
        if k.scratch_bytes > MAX_BYTES {
            return Err(format!("it needs {} bytes of scratch memory", k.scratch_bytes));
        }
        match &k.grid {
            Some(grid) if self.is_for_gpu() => check_grid(grid),
            None if !self.is_for_gpu() => Ok(()),
            Some(_) => Err("it has a grid, but is no GPU's".into()),
            None => Err("it is a GPU's, but has no grid".into()),
        }
    }

    fn check_launch(&self, l: &Launch) -> Check {
        let kernel = self.kernels.get(l.kernel).ok_or_else(|| format!("there is no kernel {}", l.kernel))?;
        if l.args.len() != kernel.params.len() {
            let (expected, found) = (kernel.params.len(), l.args.len());
            return Err(format!("`{}` takes {expected} arguments, found {found}", kernel.name));
        }
        for (i, (arg, param)) in l.args.iter().zip(&kernel.params).enumerate() {
            let said = |e: String| format!("argument {i} of `{}`: {e}", kernel.name);
            let storage = self.storages.get(arg.storage);
            let storage = storage.ok_or_else(|| said(format!("there is no storage {}", arg.storage)))?;
            within(arg.offset, param.extent_bytes, storage.bytes, &format!("`{}`", storage.name))
                .map_err(said)?;
            allowed(storage.class, param.access, l.phase).map_err(said)?;
        }
        self.check_overlap(l, kernel)
    }

    /// Storages that a launch uses live at the same time, so those it writes share no bytes with
    /// others. (Arguments within one storage may: they are interleaved views of it.)
    fn check_overlap(&self, l: &Launch, kernel: &Kernel) -> Check {
        for (a, param) in l.args.iter().zip(&kernel.params) {
            if param.access == Access::Read {
                continue;
            }
            for b in &l.args {
                if a.storage != b.storage && self.overlap(a, b) {
                    let (a, b) = (&self.storages[a.storage].name, &self.storages[b.storage].name);
                    return Err(format!("`{}` writes `{a}`, which shares bytes with `{b}`", kernel.name));
                }
            }
        }
        Ok(())
    }

    fn overlap(&self, a: &Argument, b: &Argument) -> bool {
        let (a, b) = (&self.storages[a.storage], &self.storages[b.storage]);
        let (x, y) = match (a.class, b.class) {
            (Class::Arena(x), Class::Arena(y)) => (x, y),
            (Class::Prepared(x), Class::Prepared(y)) => (x, y),
            (Class::Preparing(x), Class::Preparing(y)) => (x, y),
            _ => return false,
        };
        // No overflow: both were found to lie within their area.
        x < y + b.bytes && y < x + a.bytes
    }

    fn check_outputs_written(&self) -> Check {
        let mut written = HashSet::new();
        for l in self.launches.iter().filter(|l| l.phase == Phase::Run) {
            for (arg, param) in l.args.iter().zip(&self.kernels[l.kernel].params) {
                if let (Class::Output(i), Access::Write | Access::ReadWrite) =
                    (self.storages[arg.storage].class, param.access)
                {
                    written.insert(i);
                }
            }
        }
        for (i, port) in self.outputs.iter().enumerate() {
            if !written.contains(&i) && Program::port_bytes(port)? > 0 {
                return Err(format!("nothing writes output `{}`", port.name));
            }
        }
        Ok(())
    }
}

fn check_grid(grid: &Grid) -> Check {
    let Grid { entry, blocks, threads, shared_bytes } = grid;
    if entry.is_empty() || !entry.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$') {
        return Err(format!("`{entry}` is no name of an entry"));
    }
    if *blocks > i32::MAX as u32
        || !(1..=MAX_BLOCK_THREADS).contains(threads)
        || *shared_bytes > MAX_SHARED_BYTES
    {
        return Err(format!(
            "{blocks} blocks of {threads} threads with {shared_bytes} bytes of shared memory cannot be launched"
        ));
    }
    Ok(())
}

fn unique<'a>(what: &str, ports: impl Iterator<Item = &'a Port>) -> Check {
    let mut seen = HashSet::new();
    for p in ports {
        if !seen.insert(p.name.as_str()) {
            return Err(format!("there are two {what}s `{}`", p.name));
        }
    }
    Ok(())
}

/// A storage's place in an area: within it, and aligned as kernels may expect.
fn placed(at: usize, bytes: usize, size: usize, what: &str) -> Check {
    within(at, bytes, size, what)?;
    match at.is_multiple_of(ALIGNMENT) {
        true => Ok(()),
        false => Err(format!("byte {at} of {what}, where it begins, is not a multiple of {ALIGNMENT}")),
    }
}

fn within(at: usize, bytes: usize, size: usize, what: &str) -> Check {
    match at.checked_add(bytes) {
        Some(end) if end <= size => Ok(()),
        _ => Err(format!("{bytes} bytes at {at} are not within the {size} bytes of {what}")),
    }
}

/// What a kernel may do with a storage in a phase.
fn allowed(class: Class, access: Access, phase: Phase) -> Check {
    let writes = access != Access::Read;
    let refused = match class {
        Class::Input(_) | Class::Parameter(_) | Class::Constant(_) if writes => "it may not be written",
        Class::Prepared(_) if writes && phase == Phase::Run => "only the prepare phase writes it",
        Class::Preparing(_) if phase == Phase::Run => "only the prepare phase has it",
        Class::Input(_) | Class::Output(_) | Class::State(_) if phase == Phase::Prepare => {
            "the prepare phase does not have it"
        }
        _ => return Ok(()),
    };
    Err(refused.to_string())
}

fn numbers_of(init: &Initializer) -> Vec<f64> {
    match *init {
        Initializer::Constant(v) => vec![v],
        Initializer::Uniform { low, high } => vec![low, high],
        Initializer::Normal { mean, std } => vec![mean, std],
        Initializer::HeUniform { gain }
        | Initializer::HeNormal { gain }
        | Initializer::Orthogonal { gain } => {
            vec![gain]
        }
        Initializer::GlorotUniform | Initializer::GlorotNormal | Initializer::FanInUniform { .. } => vec![],
    }
}

/// Whether this machine's CPU has a feature; false for names that nobody knows.
fn host_has(feature: &str) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! known {
            ($($name:tt),*) => {
                match feature {
                    $( $name => std::is_x86_feature_detected!($name), )*
                    _ => false,
                }
            };
        }
        known!(
            "avx", "avx2", "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl", "bmi1", "bmi2", "f16c",
            "fma", "lzcnt", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"
        )
    }
    #[cfg(target_arch = "aarch64")]
    {
        feature == "neon"
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = feature;
        false
    }
}
