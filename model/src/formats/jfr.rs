//! Java flight recordings (JFR), as written by the JDK and async-profiler, in version 2 of the format (since JDK 9).
//!
//! What becomes of the events, each with its stack:
//! - `jdk.ExecutionSample`: the period of the recording as *wall* time, because the JDK samples threads that run Java
//!   code at points in time, whether they are on a CPU or not; async-profiler samples CPU time into the same event and
//!   says so (`event=cpu`, `itimer`, `ctimer`): then it is CPU time. `kind=cpu` or `wall` says it for the recording.
//! - `jdk.CPUTimeSample`: CPU time, by the period each one carries. `profiler.WallClockSample`: wall time.
//! - `jdk.NativeMethodSample`: a count of its own, never time: a thread that sleeps in `accept` is sampled, too.
//! - `jdk.ObjectAllocationSample`: its weight as bytes allocated; if there is none, the events of TLABs.
//! - `jdk.JavaMonitorEnter`: how long threads waited for locks, and how often; `jdk.ThreadPark`: the same for blocking.
//!
//! Guarantees: sums per type are those of `jfr print` over all chunks; lengths and counts in the file are never
//! trusted: what is kept is charged, what is skipped is bounded by work, and circular pools are refused.
//!
//! Wrong on purpose: threads, states, object classes and event times are not kept. Waits shorter than the recording's
//! threshold are not in the file. Stacks are as deep as the recording allows (64 frames by default): truncated ones
//! begin with `[frames cut]`.
//!
//! The crate `jfrs` reads the same files but trusts lengths, which a server cannot do.

mod chunk;
mod cursor;
mod pools;
mod types;

use std::collections::HashMap;

use self::{
    chunk::{Chunk, Event},
    pools::Pools,
};
use super::{
    NS,
    read_error::{Outcome, ReadError},
    table::{Column, How, Table, memory, wall},
    type_of,
};
use crate::profile::ProfileType;

/// First bytes.
pub(super) const MAGIC: &[u8] = b"FLR\0";
/// The JDK's default settings, for recordings that state none.
const PERIOD_OF_JDK_NS: i64 = 20_000_000;
/// The same for async-profiler.
const PERIOD_OF_ASYNC_PROFILER_NS: i64 = 10_000_000;
const WALL_PERIOD_OF_ASYNC_PROFILER_NS: i64 = 50_000_000;

const CPU: usize = 0;
const WALL: usize = 1;
const NATIVE: usize = 2;
const ALLOCATED: usize = 3;
const LOCK_DELAY: usize = 4;
const LOCK_COUNT: usize = 5;
const BLOCK_DELAY: usize = 6;
const BLOCK_COUNT: usize = 7;
const OTHER: usize = 8;

fn columns() -> Vec<Column> {
    let plain =
        |name: &str, kind: &str, unit: &str, period: &str| Column::new(type_of(name, kind, unit, period, "count"), 0);
    vec![
        Column::new(ProfileType::cpu(), 0),
        Column::new(wall(), 0),
        plain("native", "samples", "count", "native"),
        Column::new(memory("alloc_space", "bytes"), 0),
        plain("mutex", "delay", "nanoseconds", "contentions"),
        plain("mutex", "contentions", "count", "contentions"),
        plain("block", "delay", "nanoseconds", "contentions"),
        plain("block", "contentions", "count", "contentions"),
        plain("perf", "events", "count", "events"),
    ]
}

/// What a recording says about how it was made.
#[derive(Debug, Default)]
struct Settings {
    /// Period of `jdk.ExecutionSample` according to the JDK.
    period_ns: Option<i64>,
    /// The event that async-profiler sampled by, and its interval.
    event: Option<String>,
    interval_ns: i64,
    wall_ns: i64,
}

/// The value of an execution sample, and its column.
#[derive(Debug, Clone, Copy)]
struct Worth {
    column: usize,
    value: i64,
}

impl Settings {
    /// Processes a setting of the event named `of`.
    fn set(&mut self, of: &str, name: &str, value: &str) {
        let number = || value.parse::<i64>().unwrap_or(0).max(0);
        match (of, name) {
            ("jdk.ExecutionSample", "period") => self.period_ns = length_ns(value),
            (_, "event") => self.event = (!value.is_empty()).then(|| value.chars().take(200).collect()),
            ("jdk.ExecutionSample", "interval") => self.interval_ns = number(),
            ("jdk.ExecutionSample", "wall") => self.wall_ns = number(),
            _ => {}
        }
    }

    fn execution(&self, how: &How<'_>, table: &mut Table) -> Worth {
        let told_ns = how.rate_hz.map(|rate| NS / i64::from(rate));
        let or = |ns: i64, other: i64| if ns > 0 { ns } else { told_ns.unwrap_or(other) };
        let mut worth = match self.event.as_deref() {
            None => Worth {
                column: WALL,
                value: self.period_ns.unwrap_or(told_ns.unwrap_or(PERIOD_OF_JDK_NS)),
            },
            Some("cpu" | "itimer" | "ctimer") => Worth {
                column: CPU,
                value: or(self.interval_ns, PERIOD_OF_ASYNC_PROFILER_NS),
            },
            Some("wall") => Worth {
                column: WALL,
                value: or(self.interval_ns, WALL_PERIOD_OF_ASYNC_PROFILER_NS),
            },
            Some(event) => {
                // Hardware counters: an interval of events.
                table.columns[OTHER] = Column::new(type_of("perf", event, "count", event, "count"), 0);
                return Worth {
                    column: OTHER,
                    value: self.interval_ns.max(1),
                };
            }
        };
        worth.column = match how.kind {
            _ if how.says_cpu() => CPU,
            Some("wall") => WALL,
            _ => worth.column,
        };
        table.columns[worth.column].period = worth.value;
        worth
    }

    fn wall(&self) -> i64 {
        match self.wall_ns {
            0 => WALL_PERIOD_OF_ASYNC_PROFILER_NS,
            ns => ns,
        }
    }
}

/// `20 ms`, `1 s`, `10000 us`.
fn length_ns(text: &str) -> Option<i64> {
    let (number, unit) = text.trim().split_once(' ')?;
    let factor = match unit.trim() {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => NS,
        "m" => 60 * NS,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(factor).filter(|ns| *ns > 0)
}

/// Reads a recording.
pub(super) fn read(file: &[u8], how: &How<'_>) -> Result<Outcome, ReadError> {
    let mut table = Table::new(columns(), how.memory);
    let mut settings = Settings::default();
    let mut sums = Sums::default();
    let (mut start_ns, mut end_ns) = (i64::MAX, i64::MIN);
    let mut at = 0;
    while at < file.len() {
        let chunk = Chunk::read(file, at, &mut table)?;
        start_ns = start_ns.min(chunk.start_ns);
        end_ns = end_ns.max(chunk.start_ns.saturating_add(chunk.duration_ns));
        chunk.events("jdk.ActiveSetting", |event| {
            if let (Some(of), Some(name), Some(value)) = (event.about, event.name, event.value) {
                settings.set(chunk.types.name_of(of), &name, &value);
            }
            Ok(())
        })?;
        sums.chunk(&chunk, &settings, how, &mut table)?;
        at += chunk.length;
    }
    sums.finish(table, start_ns, end_ns)
}

/// Sums over all chunks.
#[derive(Default)]
struct Sums {
    /// Rows and bytes of allocations in TLABs, used if the better event is missing.
    tlab: HashMap<usize, (i64, u64)>,
    tlab_events: u64,
    weighted: bool,
    events: u64,
    truncated: u64,
    failed: u64,
}

impl Sums {
    fn chunk(
        &mut self,
        chunk: &Chunk<'_>,
        settings: &Settings,
        how: &How<'_>,
        table: &mut Table,
    ) -> Result<(), ReadError> {
        let worth = settings.execution(how, table);
        let mut pools = Pools::read(chunk, table)?;
        let mut rows = |event: &Event<'_>, table: &mut Table| -> Result<(usize, bool), ReadError> {
            pools.row(chunk, event.stack.unwrap_or(0), table)
        };
        let mut each = |name: &str, what: &mut dyn FnMut(&Event<'_>, usize, &mut Table) -> Result<(), ReadError>| {
            chunk.events(name, |event| {
                let (row, truncated) = rows(&event, table)?;
                self.events += 1;
                self.truncated += u64::from(truncated);
                what(&event, row, table)
            })
        };
        each("jdk.ExecutionSample", &mut |_, row, table| {
            Ok(table.add(row, worth.column, worth.value, 1)?)
        })?;
        let wall_ns = settings.wall();
        each("profiler.WallClockSample", &mut |event, row, table| {
            let samples = event.samples.unwrap_or(1).max(0);
            Ok(table.add(row, WALL, samples.saturating_mul(wall_ns), samples.unsigned_abs())?)
        })?;
        let mut failed = 0;
        each("jdk.CPUTimeSample", &mut |event, row, table| {
            failed += u64::from(event.failed.unwrap_or(false));
            let period = event.period_ns.unwrap_or(0).max(0);
            table.columns[CPU].period = period;
            Ok(table.add(row, CPU, period, 1)?)
        })?;
        each("jdk.NativeMethodSample", &mut |_, row, table| {
            Ok(table.add(row, NATIVE, 1, 1)?)
        })?;
        let mut weighted = false;
        each("jdk.ObjectAllocationSample", &mut |event, row, table| {
            weighted = true;
            Ok(table.add(row, ALLOCATED, event.weight.unwrap_or(0).max(0), 1)?)
        })?;
        let mut tlab = std::mem::take(&mut self.tlab);
        let mut tlab_events = 0;
        for (name, of_tlab) in [
            ("jdk.ObjectAllocationInNewTLAB", true),
            ("jdk.ObjectAllocationOutsideTLAB", false),
        ] {
            each(name, &mut |event, row, table| {
                let bytes = if of_tlab {
                    event.tlab_size
                } else {
                    event.allocation_size
                };
                let before = tlab.len();
                let sum = tlab.entry(row).or_default();
                sum.0 = sum.0.saturating_add(bytes.unwrap_or(0).max(0));
                sum.1 += 1;
                tlab_events += 1;
                if tlab.len() > before {
                    table.charge(64)?;
                }
                Ok(())
            })?;
        }
        for (name, delay, count) in [
            ("jdk.JavaMonitorEnter", LOCK_DELAY, LOCK_COUNT),
            ("jdk.ThreadPark", BLOCK_DELAY, BLOCK_COUNT),
        ] {
            each(name, &mut |event, row, table| {
                table.add(row, delay, event.duration_ns.unwrap_or(0).max(0), 1)?;
                Ok(table.add(row, count, 1, 1)?)
            })?;
        }
        self.tlab = tlab;
        self.tlab_events += tlab_events;
        self.weighted |= weighted;
        self.failed += failed;
        Ok(())
    }

    fn finish(self, mut table: Table, start_ns: i64, end_ns: i64) -> Result<Outcome, ReadError> {
        if self.events == 0 {
            return Err(ReadError::Content(
                "the recording contains no samples, allocations or locks; record with `settings=profile`".to_owned(),
            ));
        }
        let mut beside = 0;
        if self.weighted {
            // The same allocations again.
            beside = self.tlab_events;
        } else {
            for (row, (bytes, events)) in self.tlab {
                table.add(row, ALLOCATED, bytes, events)?;
            }
        }
        let duration_ns = end_ns.saturating_sub(start_ns).max(0);
        let mut outcome = table.finish(start_ns, duration_ns)?;
        for profile in &mut outcome.profiles {
            profile.stats.truncated = self.truncated;
        }
        Ok(outcome
            .leave_out("allocation_beside_its_sample", beside)
            .leave_out("stack_not_walked", self.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_say_what_a_sample_is_worth() {
        let how = |kind, rate_hz| How {
            kind,
            rate_hz,
            memory: 1 << 20,
        };
        let worth = |settings: &[(&str, &str)], kind, rate| {
            let mut all = Settings::default();
            settings
                .iter()
                .for_each(|(name, value)| all.set("jdk.ExecutionSample", name, value));
            let mut table = Table::new(columns(), 1 << 20);
            let worth = all.execution(&how(kind, rate), &mut table);
            (
                table.columns[worth.column].profile_type.parts()[1].to_owned(),
                worth.value,
            )
        };
        let told = |kind: &str, value: i64| (kind.to_owned(), value);
        assert_eq!(worth(&[("period", "10 ms")], None, None), told("wall", 10_000_000));
        assert_eq!(worth(&[("period", "everyChunk")], None, None), told("wall", 20_000_000));
        assert_eq!(
            worth(&[("period", "10 ms")], Some("cpu"), None),
            told("cpu", 10_000_000)
        );
        // A client's setting for all its profiles is no statement about this one.
        assert_eq!(
            worth(&[("period", "10 ms")], Some("samples"), Some(100)),
            told("wall", 10_000_000)
        );
        let itimer = [("event", "itimer"), ("interval", "9000000")];
        assert_eq!(worth(&itimer, None, None), told("cpu", 9_000_000));
        assert_eq!(
            worth(&[("event", "cpu"), ("interval", "0")], None, Some(50)),
            told("cpu", 20_000_000)
        );
        assert_eq!(worth(&[("event", "wall")], None, None), told("wall", 50_000_000));
        assert_eq!(
            worth(&[("event", "cache-misses"), ("interval", "1000")], None, None),
            told("cache-misses", 1000)
        );
    }
}
