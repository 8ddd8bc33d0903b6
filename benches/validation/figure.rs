//! Loads in numbers, and how numbers are shown.

use std::{fs, time::Duration};

use crate::load::{Outcome, count};

/// One load, in numbers.
#[derive(Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) cpu_us: f64,
}

impl Figure {
    /// The figure of a load for which the server used that much CPU time.
    pub(crate) fn new(outcome: &Outcome, cpu: Duration) -> Self {
        Self {
            rate: outcome.rate(),
            p50_ms: outcome.latency_ms(0.5),
            p99_ms: outcome.latency_ms(0.99),
            cpu_us: cpu.as_secs_f64() * 1e6 / count(outcome.count()),
        }
    }

    /// The median of several runs, of each number by itself.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let of = |field: fn(&Self) -> f64| median(runs.iter().map(field));
        Self {
            rate: of(|figure| figure.rate),
            p50_ms: of(|figure| figure.p50_ms),
            p99_ms: of(|figure| figure.p99_ms),
            cpu_us: of(|figure| figure.cpu_us),
        }
    }
}

/// The number in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value, and whether it is within its limit.
pub(crate) fn met(value: f64, limit: f64) -> String {
    let word = if value <= limit { "met" } else { "**missed**" };
    format!("{value:.2} {word}")
}

/// The machine in a few words: `2 cores (…), 24 GiB of memory`.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = line("/proc/cpuinfo", "model name").unwrap_or("unknown".to_owned());
    let memory = line("/proc/meminfo", "MemTotal")
        .and_then(|total| total.trim_end_matches(" kB").parse::<f64>().ok())
        .unwrap_or(0.0)
        / f64::from(1 << 20);
    format!("{cores} cores ({processor}), {memory:.0} GiB of memory")
}

/// The value of the first line of `file` that begins with `name`.
fn line(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
