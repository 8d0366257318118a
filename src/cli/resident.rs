//! How much memory the process has in RAM, as the system counts it. Linux tells; elsewhere nobody knows.

/// Bytes in RAM now and at most so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// `VmRSS` of proc(5).
    pub now: u64,
    /// `VmHWM`.
    pub peak: u64,
}

/// What the system says of this process; `None` where it says nothing.
pub fn resident() -> Option<Resident> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(Resident { now: field(&status, "VmRSS:")?, peak: field(&status, "VmHWM:")? })
}

/// `VmRSS:      1234 kB`, in bytes.
fn field(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_of_the_status() {
        let status = "Name:\tnnc\nVmHWM:\t    2048 kB\nVmRSS:\t     512 kB\n";
        assert_eq!((field(status, "VmRSS:"), field(status, "VmHWM:")), (Some(512 << 10), Some(2 << 20)));
        assert_eq!(field(status, "VmSwap:"), None);
    }
}
