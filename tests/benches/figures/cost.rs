//! What a piece of work costs: CPU time of the whole process, and wall-clock time beside it. CPU time is what figures
//! state, because wall-clock time on a shared machine measures the neighbours.

use std::{
    fmt,
    ops::{Add, AddAssign},
    time::Instant,
};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// CPU and wall-clock time of some work, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cost {
    /// Of all threads of this process.
    pub(crate) cpu_ms: f64,
    /// By the clock on the wall.
    pub(crate) wall_ms: f64,
}

impl Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost {
            cpu_ms: self.cpu_ms + other.cpu_ms,
            wall_ms: self.wall_ms + other.wall_ms,
        }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        *self = *self + other;
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} CPU-ms ({:.1} ms)", self.cpu_ms, self.wall_ms)
    }
}

/// A stopwatch for both.
pub(crate) struct Watch {
    cpu_ms: f64,
    started: Instant,
}

impl Watch {
    /// Starts.
    pub(crate) fn start() -> Watch {
        Watch {
            cpu_ms: process_cpu_ms(),
            started: Instant::now(),
        }
    }

    /// What was spent since the start, or since the last lap.
    pub(crate) fn lap(&mut self) -> Cost {
        let (cpu_ms, now) = (process_cpu_ms(), Instant::now());
        let cost = Cost {
            cpu_ms: cpu_ms - self.cpu_ms,
            wall_ms: now.duration_since(self.started).as_secs_f64() * 1e3,
        };
        (self.cpu_ms, self.started) = (cpu_ms, now);
        cost
    }
}

fn process_cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// A line of `/proc/<pid>/status` in MiB: `VmRSS` or `VmHWM`.
pub(crate) fn memory_mb(pid: u32, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}

/// CPU of another process since its start, in milliseconds, counted in hundredths of a second.
pub(crate) fn cpu_ms_of(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("an unreadable /proc/<pid>/stat")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) * 10.0)
}
