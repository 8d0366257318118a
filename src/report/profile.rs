//! Where the time goes: the launches of a program with their median time, share and speed.

use std::fmt;
use std::time::Duration;

use super::table::{Align, Table};
use crate::LaunchTime;

/// Timed runs of one program.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    runs: Vec<Vec<LaunchTime>>,
}

impl Profile {
    /// Adds a run.
    pub fn add(&mut self, launches: Vec<LaunchTime>) {
        self.runs.push(launches);
    }

    /// The number of runs.
    pub fn runs(&self) -> usize {
        self.runs.len()
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
        let Some(first) = self.runs.first().filter(|r| !r.is_empty()) else {
            return writeln!(f, "this device tells no times of kernels");
        };
        let medians: Vec<Duration> = (0..first.len())
            .map(|i| median(&self.runs.iter().filter_map(|r| r.get(i)).map(|l| l.time).collect::<Vec<_>>()))
            .collect();
        let total: Duration = medians.iter().sum();
        let mut table = Table::new(&[
            ("ms", Align::Right),
            ("%", Align::Right),
            ("GFLOP/s", Align::Right),
            ("kernel", Align::Left),
            ("layers", Align::Left),
            ("line", Align::Left),
        ]);
        for (launch, time) in first.iter().zip(&medians) {
            let seconds = time.as_secs_f64();
            let speed = match launch.flops {
                0 => String::new(),
                flops => format!("{:.1}", flops as f64 / seconds.max(1e-9) / 1e9),
            };
            table.row(vec![
                format!("{:.3}", seconds * 1e3),
                format!("{:.1}", 100.0 * seconds / total.as_secs_f64().max(1e-9)),
                speed,
                launch.kernel.clone(),
                launch.layer.clone(),
                launch.location.clone(),
            ]);
        }
        write!(f, "{table}")?;
        writeln!(
            f,
            "{:.3} ms in {} kernels; medians of {} runs",
            total.as_secs_f64() * 1e3,
            first.len(),
            self.runs()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            time: Duration::from_millis(ms),
        };
        let mut profile = Profile::default();
        [2, 1, 4].into_iter().for_each(|ms| profile.add(vec![launch(ms)]));
        let text = profile.to_string();
        assert!(text.contains("2.000  100.0      1.0  conv2d_relu.0  conv1   lenet.nn:5"), "{text}");
    }
}
