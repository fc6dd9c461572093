//! Austin's text format (Python): one line per sample, `P12;T0:12;file:function:line;... 10084`, below a header that
//! says what the numbers are.
//!
//! Guarantees: the header decides: `wall` and `cpu` are measured microseconds and become time, `memory` is bytes,
//! `full` is time, idleness and memory, which become wall time, CPU time (what was not idle) and allocated bytes.
//! Function, file and line are kept separate; process and thread are not frames.
//!
//! Wrong on purpose: freed memory (a negative number) is dropped and counted. A file of mode `full` with a single
//! number per line has lost the other two (as written by `mojo2austin`): its time is wall time.

use super::{
    read_error::{Outcome, ReadError, shown},
    table::{Column, How, Table, memory, wall},
};
use crate::profile::ProfileType;

/// What the numbers of a recording are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Time that passed.
    Wall,
    /// Time on a CPU.
    Cpu,
    /// Bytes.
    Memory,
    /// All of these.
    Full,
}

impl Mode {
    /// By its name in the header.
    pub(super) fn of(word: &str) -> Option<Mode> {
        Some(match word {
            "wall" => Mode::Wall,
            "cpu" => Mode::Cpu,
            "memory" => Mode::Memory,
            "full" => Mode::Full,
            _ => return None,
        })
    }
}

/// Austin's samples, in either of its formats.
#[derive(Debug)]
pub(super) struct Samples {
    pub(super) table: Table,
    pub(super) mode: Mode,
    period_ns: i64,
    negative: u64,
    lost: u64,
}

/// What one sample contains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Metrics {
    /// Microseconds since the previous sample.
    pub(super) time_us: i64,
    /// True if the thread did not run; `None` if unknown.
    pub(super) idle: Option<bool>,
    /// Bytes, in modes that measure them.
    pub(super) bytes: i64,
}

impl Samples {
    /// No samples yet.
    pub(super) fn new(how: &How<'_>) -> Samples {
        let columns = vec![
            Column::new(wall(), 0),
            Column::new(ProfileType::cpu(), 0),
            Column::new(memory("alloc_space", "bytes"), 0),
        ];
        Samples {
            table: Table::new(columns, how.memory),
            mode: Mode::Wall,
            period_ns: 0,
            negative: 0,
            lost: 0,
        }
    }

    /// Processes a header line; keys that do not concern the numbers are ignored.
    pub(super) fn header(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "mode" => {
                let mode = Mode::of(value);
                self.mode =
                    mode.ok_or_else(|| format!("unknown mode `{}`: expected wall, cpu, memory or full", shown(value)))?;
            }
            "interval" => self.period_ns = value.parse::<i64>().unwrap_or(0).saturating_mul(1000).max(0),
            _ => {}
        }
        Ok(())
    }

    /// Adds a sample.
    pub(super) fn add(&mut self, leaf_first: Vec<u32>, metrics: Metrics) -> Result<(), ReadError> {
        let row = self.table.row(leaf_first)?;
        if metrics.time_us < 0 || metrics.bytes < 0 {
            self.negative += 1;
        }
        let ns = metrics.time_us.max(0).saturating_mul(1000);
        let bytes = metrics.bytes.max(0);
        match self.mode {
            Mode::Wall => self.table.add(row, 0, ns, 1)?,
            Mode::Cpu => self.table.add(row, 1, ns, 1)?,
            Mode::Memory => self.table.add(row, 2, bytes, u64::from(bytes > 0))?,
            Mode::Full => {
                self.table.add(row, 0, ns, 1)?;
                match metrics.idle {
                    Some(false) => self.table.add(row, 1, ns, 1)?,
                    Some(true) => {}
                    None => self.lost += 1,
                }
                self.table.add(row, 2, bytes, u64::from(bytes > 0))?;
            }
        }
        Ok(())
    }

    /// All profiles.
    pub(super) fn finish(mut self, duration_ns: i64) -> Result<Outcome, ReadError> {
        for column in &mut self.table.columns[..2] {
            column.period = self.period_ns;
        }
        let outcome = self.table.finish(0, duration_ns)?;
        let outcome = outcome.leave_out("negative_value", self.negative);
        Ok(outcome.leave_out("idle_and_memory_not_in_file", self.lost))
    }
}

/// Function, file and line of `file:function:line`; newer versions append the end line and columns.
fn frame(text: &str) -> (&str, &str, u32) {
    let mut rest = text;
    let mut numbers = Vec::new();
    while let Some((before, number)) = rest.rsplit_once(':')
        && numbers.len() < 4
        && let Ok(number) = number.parse::<u32>()
    {
        numbers.push(number);
        rest = before;
    }
    let line = numbers.last().copied().unwrap_or(0);
    match rest.rsplit_once(':') {
        Some((file, function)) if !function.is_empty() && !numbers.is_empty() => (function, file, line),
        _ => (text, "", 0),
    }
}

/// True for `P12` and `T0:12`, and for the `T12` of older versions.
fn is_process_or_thread(text: &str, letter: char) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.strip_prefix(letter).is_some_and(|id| id.split(':').all(digits))
}

/// Reads a text.
pub(super) fn read(text: &str, how: &How<'_>) -> Result<Outcome, ReadError> {
    let mut samples = Samples::new(how);
    let mut duration_ns = 0;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if let Some(header) = line.strip_prefix('#') {
            let Some((key, value)) = header.split_once(':') else {
                continue;
            };
            let (key, value) = (key.trim(), value.trim());
            samples.header(key, value).map_err(|what| ReadError::line(at, what))?;
            if key == "duration" {
                duration_ns = value.parse::<i64>().unwrap_or(0).saturating_mul(1000).max(0);
            }
            continue;
        }
        if line.is_empty() {
            continue;
        }
        let numbers = line.rsplit_once(' ');
        let Some((stack, numbers)) = numbers else {
            return Err(ReadError::line(at, format!("no number at the end: `{}`", shown(line))));
        };
        let metrics = metrics(numbers, samples.mode)
            .ok_or_else(|| ReadError::line(at, format!("`{}` does not match the file's mode", shown(numbers))))?;
        let mut frames = Vec::new();
        for (depth, part) in stack.split(';').enumerate() {
            let id = match depth {
                0 => is_process_or_thread(part, 'P'),
                1 => is_process_or_thread(part, 'T'),
                _ => false,
            };
            if !id && !part.is_empty() {
                let (function, file, line) = frame(part);
                frames.push(samples.table.frame(function, file, line)?);
            }
        }
        frames.reverse();
        samples.add(frames, metrics)?;
    }
    samples.finish(duration_ns)
}

fn metrics(numbers: &str, mode: Mode) -> Option<Metrics> {
    let mut parts = numbers.split(',').map(|number| number.parse::<i64>().ok());
    let (first, second, third) = (parts.next()??, parts.next(), parts.next());
    let metrics = match (mode, second, third) {
        (Mode::Memory, None, None) => Metrics {
            bytes: first,
            ..Metrics::default()
        },
        (_, None, None) => Metrics {
            time_us: first,
            ..Metrics::default()
        },
        (Mode::Full, Some(idle), Some(bytes)) => Metrics {
            time_us: first,
            idle: Some(idle? != 0),
            bytes: bytes?,
        },
        _ => return None,
    };
    parts.next().is_none().then_some(metrics)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::Location;

    const HOW: How<'static> = How {
        kind: None,
        rate_hz: None,
        memory: 64 << 20,
    };

    #[test]
    fn frames_are_split_from_the_right() {
        for (text, expected) in [
            ("/srv/app.py:work:15", ("work", "/srv/app.py", 15)),
            (
                "<frozen importlib._bootstrap>:_load:690",
                ("_load", "<frozen importlib._bootstrap>", 690),
            ),
            (r"C:\srv\app.py:work:15", ("work", r"C:\srv\app.py", 15)),
            ("app.py:work:15:16:1:9", ("work", "app.py", 15)),
            (":GC:", (":GC:", "", 0)),
            ("odd", ("odd", "", 0)),
        ] {
            assert_eq!(frame(text), expected, "{text}");
        }
    }

    proptest! {
        /// Writes what Austin writes, and reads it back.
        #[test]
        fn what_austin_writes_is_read_back(
            rows in prop::collection::vec((prop::collection::vec(("[a-z/<> :.]{0,8}[a-z>]", "[a-z_<>.]{1,6}", 1u32..500), 0..6), 1i64..100_000), 1..20),
            ids in any::<(u16, u16)>(),
        ) {
            let mut text = "# austin: 3.7.0\n# interval: 10000\n# mode: cpu\n\n".to_owned();
            for (frames, us) in &rows {
                let frames: String = frames.iter().map(|(file, function, line)| format!(";{file}:{function}:{line}")).collect();
                text += &format!("P{};T0:{}{frames} {us}\n", ids.0, ids.1);
            }
            let profile = read(&text, &HOW).unwrap().profiles.remove(0);
            prop_assert_eq!(&profile.profile_type, &ProfileType::cpu());
            prop_assert_eq!(profile.total(), rows.iter().map(|(_, us)| us * 1000).sum::<i64>());
            let mut written: Vec<Vec<(String, String, u32)>> = rows.iter().map(|(frames, _)| frames.iter().rev().map(|(file, function, line)| (crate::function::frame(function, file, *line).function, file.clone(), *line)).collect()).collect();
            let mut found: Vec<Vec<(String, String, u32)>> = profile.samples.iter().map(|sample| profile.stacks[sample.stack as usize].iter().filter_map(|&at| match &profile.locations[at as usize] {
                Location::Named { frames } if frames[0].function != "[unknown]" => Some((frames[0].function.clone(), frames[0].file.clone(), frames[0].line)),
                _ => None,
            }).collect()).collect();
            written.sort();
            written.dedup();
            found.sort();
            prop_assert_eq!(written, found);
        }

        #[test]
        fn text_of_any_kind_never_panics(text in "(# mode: (full|memory|cpu)\n)?[PT0-9;:, a-z\n-]{0,80}") {
            if let Ok(read) = read(&text, &HOW) {
                prop_assert!(read.profiles.iter().all(|profile| profile.validate().is_ok()));
            }
        }
    }
}
