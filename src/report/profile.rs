//! Where the time goes: the launches of a program with their median time, share and speed.

use std::fmt;
use std::time::Duration;

use super::table::{Align, Table};
use crate::LaunchTime;
use crate::roofline::Roofline;

/// Timed runs of one program.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    runs: Vec<Vec<LaunchTime>>,
    roofline: Option<Roofline>,
}

impl Profile {
    /// No runs yet, on a machine that can do so much, if that is known.
    pub fn new(roofline: Option<Roofline>) -> Profile {
        Profile { runs: vec![], roofline }
    }

    /// Adds a run.
    pub fn add(&mut self, launches: Vec<LaunchTime>) {
        self.runs.push(launches);
    }

    /// The number of runs.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// The launches with their median times.
    fn medians(&self) -> Vec<LaunchTime> {
        let Some(first) = self.runs.first() else { return vec![] };
        let times = |i: usize| self.runs.iter().filter_map(|r| r.get(i)).map(|l| l.time).collect::<Vec<_>>();
        first.iter().enumerate().map(|(i, l)| LaunchTime { time: median(&times(i)), ..l.clone() }).collect()
    }

    /// A row of the table: `total` is the time of all launches.
    fn row(&self, launch: &LaunchTime, total: Duration) -> Vec<String> {
        let seconds = launch.time.as_secs_f64().max(1e-9);
        let rate = |n: u64| if n == 0 { String::new() } else { format!("{:.1}", n as f64 / seconds / 1e9) };
        let percent = |share: f64| format!("{:.1}", 100.0 * share);
        let mut row = vec![
            format!("{:.3}", launch.time.as_secs_f64() * 1e3),
            percent(launch.time.as_secs_f64() / total.as_secs_f64().max(1e-9)),
            rate(launch.flops),
        ];
        let share = |n: u64, share: f64| if n == 0 { String::new() } else { format!("{:.0}", 100.0 * share) };
        row.extend(self.roofline.map(|r| share(launch.flops, r.share_of_flops(launch))));
        row.push(rate(launch.bytes));
        row.extend(self.roofline.map(|r| share(launch.bytes, r.share_of_bytes(launch))));
        row.extend([launch.kernel.clone(), launch.layer.clone(), launch.location.clone()]);
        row
    }
}

/// The middle one; of an even number, the lower middle one. Zero of none.
pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let launches = self.medians();
        if launches.is_empty() {
            return writeln!(f, "this device tells no times of kernels");
        }
        let total: Duration = launches.iter().map(|l| l.time).sum();
        let known = self.roofline.is_some();
        let columns = [
            ("ms", Align::Right, true),
            ("%", Align::Right, true),
            ("GFLOP/s", Align::Right, true),
            ("% peak", Align::Right, known),
            ("GB/s", Align::Right, true),
            ("% memory", Align::Right, known),
            ("kernel", Align::Left, true),
            ("layers", Align::Left, true),
            ("line", Align::Left, true),
        ];
        let shown: Vec<(&str, Align)> = columns.iter().filter(|c| c.2).map(|c| (c.0, c.1)).collect();
        let mut table = Table::new(&shown);
        launches.iter().for_each(|launch| table.row(self.row(launch, total)));
        write!(f, "{table}")?;
        let (ms, kernels, runs) = (total.as_secs_f64() * 1e3, launches.len(), self.runs());
        writeln!(f, "{ms:.3} ms in {kernels} kernels; medians of {runs} runs")?;
        match &self.roofline {
            Some(roofline) => write!(f, "{roofline}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roofline::Origin;

    #[test]
    fn the_median_is_a_time_that_was_measured() {
        let ms = Duration::from_millis;
        assert_eq!(median(&[ms(5), ms(1), ms(9)]), ms(5));
        assert_eq!(median(&[ms(5), ms(1)]), ms(1));
        assert_eq!(median(&[]), ms(0));
    }

    #[test]
    fn times_of_a_launch_are_put_together() {
        let launch = |ms| LaunchTime {
            kernel: "conv2d_relu.0".into(),
            layer: "conv1".into(),
            location: "lenet.nn:5".into(),
            flops: 2_000_000,
            bytes: 500_000,
            time: Duration::from_millis(ms),
        };
        let mut profile = Profile::default();
        [2, 1, 4].into_iter().for_each(|ms| profile.add(vec![launch(ms)]));
        let text = profile.to_string();
        assert!(text.contains("2.000  100.0      1.0   0.2  conv2d_relu.0  conv1   lenet.nn:5"), "{text}");
        let mut profile = Profile::new(Some(Roofline { flops: 4e9, bytes: 1e9, origin: Origin::Measured }));
        profile.add(vec![launch(2)]);
        let text = profile.to_string();
        let line = "2.000  100.0      1.0      25   0.2        25  conv2d_relu.0  conv1   lenet.nn:5";
        assert!(text.contains(line), "{text}");
    }
}
