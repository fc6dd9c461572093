//! Where rows are: in hour tables of the engine, or in sealed parts. The one place that decides which of them a
//! question reads.
//!
//! Guarantee: at every moment a row is in exactly one of the sources listed here. A table that was sealed is never
//! listed again: its hour gets a table of another generation, so that a question with an older list finds its table
//! missing instead of half full.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    error::QueryError,
    hot::hours::hour_of,
    parts::{Kind, Part, PartSet},
    range::Range,
};

/// All sources at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// Hours that have tables, with their generation.
    pub(crate) tables: BTreeMap<u32, u32>,
    /// Sealed parts.
    pub(crate) parts: Arc<PartSet>,
}

/// A range cut to what is representable, and the sources it touches.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    /// First second.
    pub(crate) from_s: u32,
    /// Second after the last.
    pub(crate) to_s: u32,
    /// Hours with tables, and their generation, ascending.
    pub(crate) tables: Vec<(u32, u32)>,
    /// Parts; they stay readable as long as this lives.
    pub(crate) parts: Vec<Arc<Part>>,
}

impl Span {
    /// True when there is nothing to read.
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.parts.is_empty()
    }

    /// The parts of a kind.
    pub(crate) fn parts_of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Part>> {
        self.parts.iter().filter(move |part| part.name.kind == kind)
    }
}

impl Sources {
    /// Hours that have rows anywhere.
    pub(crate) fn hours(&self) -> u64 {
        let sealed = self.tables.keys().filter(|&&hour| !self.parts.of_hour(hour).is_empty());
        self.tables.len() as u64 + self.parts.size().hours - sealed.count() as u64
    }

    /// The sources that a range touches.
    pub(crate) fn span(&self, range: Range) -> Result<Span, QueryError> {
        let bad = || QueryError::BadRange {
            from_unix_s: range.from_unix_s,
            to_unix_s: range.to_unix_s,
        };
        if range.from_unix_s >= range.to_unix_s {
            return Err(bad());
        }
        let clamp = |s: i64| s.clamp(0, i64::from(u32::MAX)) as u32;
        let (from_s, to_s) = (clamp(range.from_unix_s), clamp(range.to_unix_s));
        if from_s >= to_s {
            return Err(bad());
        }
        let hours = hour_of(from_s)..=hour_of(to_s - 1);
        let tables = self
            .tables
            .range(hours.clone())
            .map(|(&hour, &generation)| (hour, generation));
        Ok(Span {
            from_s,
            to_s,
            tables: tables.collect(),
            parts: self.parts.within(hours).cloned().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{disk::MemoryDisk, parts::PartName};

    #[test]
    fn spans_touch_the_hours_they_cover() {
        let mut parts = PartSet::default();
        for hour in [2, 7] {
            let name = PartName {
                kind: Kind::Windows,
                hour,
                sequence: 1,
                first_lsn: 1,
                last_lsn: 1,
                rows: 1,
                checksum: 0,
            };
            parts.insert(Arc::new(Part::new(
                Arc::new(MemoryDisk::new()),
                PathBuf::new(),
                name,
                1,
            )));
        }
        let sources = Sources {
            tables: BTreeMap::from([(1, 5), (2, 6), (3, 7), (9, 8)]),
            parts: Arc::new(parts),
        };
        assert_eq!(sources.hours(), 5);
        let of = |from_unix_s, to_unix_s| {
            sources.span(Range { from_unix_s, to_unix_s }).map(|span| {
                let tables: Vec<u32> = span.tables.iter().map(|t| t.0).collect();
                let parts: Vec<u32> = span.parts_of(Kind::Windows).map(|p| p.name.hour).collect();
                (tables, parts)
            })
        };
        assert_eq!(of(3600, 7200).unwrap(), (vec![1], vec![]));
        assert_eq!(of(3600, 7201).unwrap(), (vec![1, 2], vec![2]));
        assert_eq!(of(-5, i64::MAX).unwrap(), (vec![1, 2, 3, 9], vec![2, 7]));
        assert!(of(5, 5).is_err());
        assert!(of(-9, -2).is_err());
    }
}
