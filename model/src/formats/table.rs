//! Rows with several values per stack, for recordings of several types.
//!
//! Guarantees: what is kept is charged to a memory allowance as it grows, so that a small file with many references
//! cannot become a large profile; types without any value are omitted unless there is no other.

use std::collections::HashMap;

use super::read_error::{Outcome, ReadError};
use crate::{
    profile::{Profile, ProfileType},
    profile_builder::ProfileBuilder,
    weight::TooHeavy,
    workload::LabelSet,
};

/// The most frames of one stack; more are refused.
pub(super) const MAX_DEPTH: usize = super::folded::MAX_DEPTH;

/// What a decoder needs to know besides the bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct How<'a> {
    /// What is measured, according to the sender.
    pub(super) kind: Option<&'a str>,
    /// Samples per second, if the sender gives them.
    pub(super) rate_hz: Option<u32>,
    /// The most memory that the result may take.
    pub(super) memory: u64,
}

impl How<'_> {
    /// True if the sender means CPU time, or does not say.
    pub(super) fn wants_cpu(&self) -> bool {
        !matches!(self.kind, Some("wall"))
    }

    /// True if the sender means wall time, or does not say.
    pub(super) fn wants_wall(&self) -> bool {
        !self.says_cpu()
    }

    /// True if the sender explicitly means CPU time.
    pub(super) fn says_cpu(&self) -> bool {
        matches!(self.kind, Some("cpu" | "itimer" | "process_cpu"))
    }
}

/// Elapsed time, on or off the CPU.
pub(super) fn wall() -> ProfileType {
    super::Units::wall(1).profile_type
}

/// A type for memory in use or allocated.
pub(super) fn memory(sample_type: &str, unit: &str) -> ProfileType {
    ProfileType::from_parts("memory", sample_type, unit, "space", "bytes")
}

/// One kind of value.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// Its type.
    pub(super) profile_type: ProfileType,
    /// Interval between samples in the unit of the type; 0 if unknown.
    pub(super) period: i64,
}

impl Column {
    /// A column with this type.
    pub(super) fn new(profile_type: ProfileType, period: i64) -> Column {
        Column { profile_type, period }
    }
}

/// The rows.
#[derive(Debug)]
pub(super) struct Table {
    builder: ProfileBuilder,
    /// The kinds of values; may be renamed until the end.
    pub(super) columns: Vec<Column>,
    /// Counts by row and column: value and samples.
    cells: HashMap<(usize, usize), (i64, u64)>,
}

impl Table {
    /// An empty table.
    pub(super) fn new(columns: Vec<Column>, memory: u64) -> Table {
        Table {
            builder: ProfileBuilder::new(ProfileType::cpu(), 0).within(memory),
            columns,
            cells: HashMap::new(),
        }
    }

    /// The location of a frame.
    pub(super) fn frame(&mut self, name: &str, file: &str, line: u32) -> Result<u32, TooHeavy> {
        let location = self.builder.frame(name, file, line);
        self.builder.affordable()?;
        Ok(location)
    }

    /// The row of a stack, leaf first.
    pub(super) fn row(&mut self, leaf_first: Vec<u32>) -> Result<usize, ReadError> {
        if leaf_first.len() > MAX_DEPTH {
            return Err(ReadError::Content(format!(
                "a stack has {} frames; the limit is {MAX_DEPTH}",
                leaf_first.len()
            )));
        }
        let row = self.builder.add(leaf_first, &LabelSet::none(), 0, 0);
        self.builder.affordable()?;
        Ok(row)
    }

    /// Charges for what a decoder keeps outside the table.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), TooHeavy> {
        self.builder.charge(|allowance| allowance.bytes(bytes))
    }

    /// Adds to a cell.
    pub(super) fn add(&mut self, row: usize, column: usize, value: i64, samples: u64) -> Result<(), TooHeavy> {
        if value == 0 && samples == 0 {
            return Ok(());
        }
        let before = self.cells.len();
        let cell = self.cells.entry((row, column)).or_default();
        cell.0 = cell.0.saturating_add(value);
        cell.1 = cell.1.saturating_add(samples);
        if self.cells.len() > before {
            self.builder.charge(|allowance| allowance.bytes(100))?;
        }
        Ok(())
    }

    /// One profile per column that has values.
    pub(super) fn finish(mut self, start_unix_ns: i64, duration_ns: i64) -> Result<Outcome, ReadError> {
        let mut by_column: Vec<Vec<(usize, (i64, u64))>> = vec![Vec::new(); self.columns.len()];
        for ((row, column), cell) in self.cells.drain() {
            if cell.0 > 0 {
                by_column[column].push((row, cell));
            }
        }
        let mut used = by_column.iter().filter(|rows| !rows.is_empty()).count();
        if used == 0 && !by_column.is_empty() {
            used = 1;
        }
        self.builder.charge(|allowance| allowance.copies(used))?;
        let table = self.builder.finish();
        let nothing = by_column.iter().all(Vec::is_empty);
        let mut profiles: Vec<Profile> = Vec::with_capacity(used);
        for (at, (column, mut rows)) in self.columns.into_iter().zip(by_column).enumerate() {
            if rows.is_empty() && !(nothing && at == 0) {
                continue;
            }
            rows.sort_unstable_by_key(|(row, _)| *row);
            let mut profile = table.clone();
            let rows = rows.into_iter().map(|(row, (value, count))| crate::profile::Sample {
                value,
                count,
                ..table.samples[row]
            });
            profile.samples = rows.collect();
            profile.profile_type = column.profile_type;
            profile.period = column.period;
            profile.start_unix_ns = start_unix_ns;
            profile.duration_ns = duration_ns;
            profile.keep_used();
            profiles.push(profile);
        }
        Ok(Outcome {
            profiles,
            left_out: Vec::new(),
            changed: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_without_values_are_left_away_and_references_are_charged() {
        let columns = || {
            vec![
                Column::new(wall(), 0),
                Column::new(ProfileType::cpu(), 5),
                Column::new(memory("alloc_space", "bytes"), 0),
            ]
        };
        let mut table = Table::new(columns(), 1 << 20);
        let (leaf, root) = (
            table.frame("leaf", "a", 1).unwrap(),
            table.frame("root", "a", 9).unwrap(),
        );
        let row = table.row(vec![leaf, root]).unwrap();
        table.add(row, 1, 10, 2).unwrap();
        table.add(row, 1, 5, 1).unwrap();
        let read = table.finish(7, 9).unwrap().profiles;
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].total(), read[0].samples[0].count, read[0].period), (15, 3, 5));
        assert_eq!((read[0].start_unix_ns, read[0].duration_ns), (7, 9));
        assert!(read[0].validate().is_ok());

        let mut small = Table::new(columns(), 10_000);
        let frame = small.frame("f", "", 0).unwrap();
        let refused = (1..100).find_map(|depth| small.row(vec![frame; depth]).err());
        assert!(matches!(refused, Some(ReadError::TooHeavy(_))), "{refused:?}");
        assert_eq!(Table::new(columns(), 100_000).finish(0, 0).unwrap().profiles.len(), 1);
    }
}
