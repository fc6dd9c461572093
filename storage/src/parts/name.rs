//! A part's file name: everything that must be known about the part without opening it.
//!
//! Guarantee: a name that parses formats back to itself, so that no two names refer to the same part.

use std::{fmt, path::Path};

use crate::{hot::hours, journal::Lsn};

/// What a part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Names of everything that the rows of the part refer to, except stacks.
    Names,
    /// Stacks, as indices of the locations in the names of the same hour and sequence.
    Stacks,
    /// Window rows.
    Windows,
    /// Request rows.
    Requests,
    /// Sample rows.
    Samples,
    /// Sample rows added up over each hour and over the processes of a release.
    Rollup,
    /// Rows of a roll-up added up once more, over each quarter of a day. Only compacted parts have them.
    Quarters,
    /// Sample rows that say which request they worked for.
    Exemplars,
    /// Request rows added up over each quarter of an hour and over the processes of a release.
    Sums,
    /// Sums of requests added up once more, over each quarter of a day. Only compacted parts have them.
    DaySums,
    /// CPU without its stacks, added up over each quarter of an hour and over the processes of a release.
    Totals,
    /// Consecutive windows, merged into one row.
    Runs,
}

/// The kinds that hold rows of hour tables.
pub(crate) const ROW_KINDS: [Kind; 4] = [Kind::Windows, Kind::Requests, Kind::Samples, Kind::Exemplars];

impl Kind {
    pub(crate) const ALL: [Kind; 12] = [
        Kind::Names,
        Kind::Stacks,
        Kind::Windows,
        Kind::Requests,
        Kind::Samples,
        Kind::Rollup,
        Kind::Quarters,
        Kind::Exemplars,
        Kind::Sums,
        Kind::DaySums,
        Kind::Totals,
        Kind::Runs,
    ];

    /// The word in file and table names.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Names => "names",
            Kind::Stacks => "stacks",
            Kind::Windows => "windows",
            Kind::Requests => "requests",
            Kind::Samples => "samples",
            Kind::Rollup => "rollup",
            Kind::Quarters => "quarters",
            Kind::Exemplars => "exemplars",
            Kind::Sums => "sums",
            Kind::DaySums => "daysums",
            Kind::Totals => "totals",
            Kind::Runs => "runs",
        }
    }

    /// The kind of hour table that the rows come from.
    pub(crate) fn table(self) -> Option<Kind> {
        match self {
            Kind::Names | Kind::Stacks => None,
            // The roll-up next to it answers for its samples.
            Kind::Quarters => None,
            // What they were made of is kept at least as long as they are, or they are not read.
            Kind::Sums | Kind::DaySums | Kind::Totals | Kind::Runs => None,
            Kind::Rollup => Some(Kind::Samples),
            of_itself => Some(of_itself),
        }
    }

    /// True for rows, false for what rows refer to.
    pub(crate) fn has_rows(self) -> bool {
        !matches!(self, Kind::Names | Kind::Stacks)
    }

    /// True for data that is kept only as long as single samples are.
    pub(crate) fn is_of_single_samples(self) -> bool {
        matches!(self, Kind::Samples | Kind::Exemplars)
    }

    fn extension(self) -> &'static str {
        match self {
            Kind::Names | Kind::Stacks => "dict",
            _ => "parquet",
        }
    }
}

/// The name of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartName {
    /// What it holds.
    pub(crate) kind: Kind,
    /// The first hour of its rows.
    pub(crate) hour: u32,
    /// How many hours: 1 when sealed, more when parts of several hours were merged.
    pub(crate) hours: u32,
    /// How often parts of these hours have been written. Merged parts have a higher sequence than those they replace.
    pub(crate) sequence: u32,
    /// The first batch with rows in it.
    pub(crate) first_lsn: Lsn,
    /// The last batch. Every row of this kind and hour from a batch in between is here.
    pub(crate) last_lsn: Lsn,
    /// Number of rows.
    pub(crate) rows: u64,
    /// CRC32C of the whole file.
    pub(crate) checksum: u32,
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}-{:02}-{:04}-{}-{}-{}-{:08x}.{}",
            self.kind.word(),
            hours::name_of(self.hour),
            self.hours,
            self.sequence,
            self.first_lsn,
            self.last_lsn,
            self.rows,
            self.checksum,
            self.kind.extension()
        )
    }
}

impl PartName {
    /// Parses the name of a file; `None` if it is not a part's.
    pub(crate) fn parse(path: &Path) -> Option<PartName> {
        let name = path.file_name()?.to_str()?;
        let mut fields = path.file_stem()?.to_str()?.split('-');
        let word = fields.next()?;
        let parsed = PartName {
            kind: Kind::ALL.into_iter().find(|kind| kind.word() == word)?,
            hour: hours::from_name(fields.next()?)?,
            hours: fields.next()?.parse().ok().filter(|&hours| hours > 0)?,
            sequence: fields.next()?.parse().ok()?,
            first_lsn: fields.next()?.parse().ok()?,
            last_lsn: fields.next()?.parse().ok()?,
            rows: fields.next()?.parse().ok()?,
            checksum: u32::from_str_radix(fields.next()?, 16).ok()?,
        };
        (parsed.to_string() == name).then_some(parsed)
    }

    /// The hours of its rows, end excluded.
    pub(crate) fn extent(&self) -> std::ops::Range<u32> {
        self.hour..self.hour.saturating_add(self.hours)
    }

    /// True when both come from the same seal or the same merge.
    pub(crate) fn is_beside(&self, other: &PartName) -> bool {
        (self.hour, self.hours, self.sequence) == (other.hour, other.hours, other.sequence)
    }

    /// True when a row of this kind and hour from batch `lsn` is in the part, if there is one.
    pub(crate) fn covers(&self, lsn: Lsn) -> bool {
        (self.first_lsn..=self.last_lsn).contains(&lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_round_trip(kind in 0usize..Kind::ALL.len(), hour in 0u32..1_000_000, hours in 1u32..200, sequence: u32, first_lsn: u64, last_lsn: u64, rows: u64, checksum: u32) {
            let name = PartName { kind: Kind::ALL[kind], hour, hours, sequence, first_lsn, last_lsn, rows, checksum };
            prop_assert_eq!(PartName::parse(&Path::new("/x").join(name.to_string())), Some(name));
        }

        #[test]
        fn other_names_are_no_parts(name in "[a-z0-9-]{0,40}(\\.(parquet|dict|tmp))?") {
            if let Some(parsed) = PartName::parse(Path::new(&name)) {
                prop_assert_eq!(parsed.to_string(), name);
            }
        }
    }
}
