//! Where networks run: one switch, one narrow interface per back end.

use std::fmt;
use std::str::FromStr;

/// A kind of back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Device {
    /// Machine code on this computer's cores.
    #[default]
    Cpu,
    /// The graph interpreter: plain loops, slow, obviously right.
    Reference,
}

impl Device {
    /// All devices.
    pub const ALL: [Device; 2] = [Device::Cpu, Device::Reference];

    /// `cpu`, `reference`.
    pub fn name(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Reference => "reference",
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(s: &str) -> Result<Device, String> {
        Device::ALL
            .into_iter()
            .find(|d| d.name() == s)
            .ok_or_else(|| format!("expected a device (cpu or reference), found `{s}`"))
    }
}
