//! What a part's file name says: everything that must be known of it without opening it.
//!
//! Guarantee: a name that parses formats back to itself, so that no two names mean one part.

use std::{fmt, path::Path};

use crate::{hot::hours, journal::Lsn};

/// What a part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Names of everything the rows of the part mention, except stacks.
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
    /// Rows of samples that say which request they worked for.
    Exemplars,
    /// Request rows added up over each quarter of an hour and over the processes of a release.
    Sums,
    /// The same over each quarter of a day. Only compacted parts have them.
    DaySums,
    /// CPU without its stacks, added up over each quarter of an hour and over the processes of a release.
    Totals,
    /// Windows that follow one another, as one row.
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

    /// The word in names of files and tables.
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
            // The roll-up beside it answers for its samples.
            Kind::Quarters => None,
            // What they were made of is there as long as they are, or they are not read.
            Kind::Sums | Kind::DaySums | Kind::Totals | Kind::Runs => None,
            Kind::Rollup => Some(Kind::Samples),
            of_itself => Some(of_itself),
        }
    }

    /// True for rows, false for what they mention.
    pub(crate) fn has_rows(self) -> bool {
        !matches!(self, Kind::Names | Kind::Stacks)
    }

    /// True for what is kept only as long as single samples are.
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
    /// The first hour its rows lie in.
    pub(crate) hour: u32,
    /// How many hours: 1 as sealed, more when parts of several hours were merged.
    pub(crate) hours: u32,
    /// Counts the times that parts of these hours were written. Merged parts have a higher one than what they replace.
    pub(crate) sequence: u32,
    /// Number of the first batch it has rows of.
    pub(crate) first_lsn: Lsn,
    /// Number of the last one. Every row of this kind and hour from a batch in between is here.
    pub(crate) last_lsn: Lsn,
    /// Its rows.
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
    /// The name of a file, when it is one of a part.
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

    /// The hours its rows lie in, as a range without its end.
    pub(crate) fn extent(&self) -> std::ops::Range<u32> {
        self.hour..self.hour.saturating_add(self.hours)
    }

    /// True when both come from the same seal, or the same merge.
    pub(crate) fn is_beside(&self, other: &PartName) -> bool {
        (self.hour, self.hours, self.sequence) == (other.hour, other.hours, other.sequence)
    }

    /// True when a row of this kind and hour from batch `lsn` is in the part, if there is such a row.
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
