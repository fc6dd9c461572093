//! Where rows are: in hour tables of the engine, or in sealed parts. The only place that decides which of them a
//! question reads.
//!
//! Guarantee: at every moment a row is in exactly one of the sources listed here. A sealed table is never listed again:
//! its hour gets a table of another generation, so that a question with an older list finds its table missing instead
//! of half full.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use crate::{
    error::QueryError,
    hot::hours::{HOUR_S, QUARTER_HOURS, hour_of},
    parts::{Kind, Part, PartSet},
    range,
};

/// All sources at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// Hours with tables, and their generation.
    pub(crate) tables: BTreeMap<u32, u32>,
    /// Sealed parts.
    pub(crate) parts: Arc<PartSet>,
}

/// A range clamped to what is representable, and the sources with its rows.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    /// First second.
    pub(crate) from_s: u32,
    /// Second after the last.
    pub(crate) to_s: u32,
    /// Hours with tables, and their generation, ascending.
    pub(crate) tables: Vec<(u32, u32)>,
    /// Parts; they stay readable while this exists.
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

    /// The part of another kind that was written together with this one.
    pub(crate) fn beside(&self, part: &Part, kind: Kind) -> Option<&Arc<Part>> {
        self.parts_of(kind).find(|other| other.name.is_beside(&part.name))
    }

    /// Which parts to read for samples.
    pub(crate) fn sample_parts(&self, grain: Grain) -> SampleParts {
        let whole = self.from_s.div_ceil(HOUR_S as u32)..self.to_s / HOUR_S as u32;
        if matches!(grain, Grain::Hours | Grain::Quarters) && !whole.is_empty() {
            let quarters = match grain {
                Grain::Quarters => {
                    whole.start.next_multiple_of(QUARTER_HOURS)..whole.end / QUARTER_HOURS * QUARTER_HOURS
                }
                _ => 0..0,
            };
            return self.hourly_parts(whole, quarters);
        }
        let orphans = |part: &&Arc<Part>| self.beside(part, Kind::Samples).is_none();
        let rollups: Vec<Arc<Part>> = match grain {
            Grain::Anything => self.parts_of(Kind::Rollup).filter(orphans).cloned().collect(),
            _ => Vec::new(),
        };
        SampleParts {
            samples: self.parts_of(Kind::Samples).cloned().collect(),
            ragged: Vec::new(),
            rollups,
            hours: 0..u32::MAX / HOUR_S as u32,
            ..SampleParts::default()
        }
    }

    /// Whole hours are read from roll-ups where there are any, and whole quarters of a day from their sums.
    fn hourly_parts(&self, whole: Range<u32>, quarters: Range<u32>) -> SampleParts {
        let mut answer = SampleParts {
            hours: whole.clone(),
            quarter_hours: quarters.clone(),
            ..SampleParts::default()
        };
        for part in self.parts_of(Kind::Rollup) {
            let hours = part.name.extent();
            if hours.start >= whole.end || hours.end <= whole.start {
                continue;
            }
            match self.beside(part, Kind::Quarters) {
                Some(sums) if hours.start.max(quarters.start) < hours.end.min(quarters.end) => {
                    answer.quarters.push(sums.clone());
                    if hours.start.max(whole.start) < quarters.start || hours.end.min(whole.end) > quarters.end {
                        answer.ragged_rollups.push(part.clone());
                    }
                }
                _ => answer.rollups.push(part.clone()),
            }
        }
        for part in self.parts_of(Kind::Samples) {
            if self.beside(part, Kind::Rollup).is_none() {
                answer.samples.push(part.clone());
            } else if self.cuts(&part.name.extent()) {
                answer.ragged.push(part.clone());
            }
        }
        answer
    }

    /// True when the range begins or ends in the middle of one of these hours.
    fn cuts(&self, hours: &Range<u32>) -> bool {
        let hour_s = HOUR_S as u32;
        [self.from_s, self.to_s]
            .iter()
            .any(|second| second % hour_s != 0 && hours.contains(&(second / hour_s)))
    }

    /// Hours whose samples are no longer kept, or were lost, while their roll-up still exists.
    pub(crate) fn hours_without_samples(&self) -> Vec<Range<u32>> {
        self.parts_of(Kind::Rollup)
            .filter(|part| self.beside(part, Kind::Samples).is_none())
            .map(|part| part.name.extent())
            .collect()
    }
}

/// How fine-grained the samples must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grain {
    /// By window and process: only samples, as far back as they are kept.
    Windows,
    /// Sums over whole hours and over the processes of a release are enough: whole hours are read from roll-ups, ragged
    /// ends from samples.
    Hours,
    /// Like `Hours`, but sums over whole quarters of days are enough.
    Quarters,
    /// Whatever there is: samples, and roll-ups of the hours whose samples are no longer kept.
    Anything,
}

/// Which parts hold the samples of a span; each sample counts once.
#[derive(Debug, Clone, Default)]
pub(crate) struct SampleParts {
    /// Read whole.
    pub(crate) samples: Vec<Arc<Part>>,
    /// Read without the rows of `hours`.
    pub(crate) ragged: Vec<Arc<Part>>,
    /// Read for the rows of `hours`.
    pub(crate) rollups: Vec<Arc<Part>>,
    /// Read for the rows of `hours` without those of `quarter_hours`.
    pub(crate) ragged_rollups: Vec<Arc<Part>>,
    /// Read for the rows of `quarter_hours`.
    pub(crate) quarters: Vec<Arc<Part>>,
    /// The hours that roll-ups answer.
    pub(crate) hours: Range<u32>,
    /// Those of them that quarters of days answer, where there are any.
    pub(crate) quarter_hours: Range<u32>,
}

impl Sources {
    /// Hours that have rows anywhere.
    pub(crate) fn hours(&self) -> u64 {
        let sealed = self.tables.keys().filter(|&&hour| self.parts.has_hour(hour));
        self.tables.len() as u64 + self.parts.size().hours - sealed.count() as u64
    }

    /// The sources with rows of a range.
    pub(crate) fn span(&self, range: range::Range) -> Result<Span, QueryError> {
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

    /// A compacted day: one part of each kind of samples.
    fn a_compacted_day() -> Sources {
        let mut parts = PartSet::default();
        for kind in [Kind::Samples, Kind::Rollup, Kind::Quarters] {
            let name = PartName {
                kind,
                hour: 24,
                hours: 24,
                sequence: 2,
                first_lsn: 1,
                last_lsn: 1,
                rows: 1,
                checksum: 0,
            };
            let disk = Arc::new(MemoryDisk::new());
            parts.insert(Arc::new(Part::new(disk, PathBuf::new(), name, 1)));
        }
        Sources {
            tables: BTreeMap::new(),
            parts: Arc::new(parts),
        }
    }

    #[test]
    fn parts_are_read_only_where_a_range_needs_them() {
        let sources = a_compacted_day();
        let read = |from_h: f64, to_h: f64, grain| {
            let second = |hour: f64| (hour * 3600.0) as i64;
            let range = range::Range {
                from_unix_s: second(from_h),
                to_unix_s: second(to_h),
            };
            let parts = sources.span(range).unwrap().sample_parts(grain);
            let of = |parts: &[Arc<Part>]| parts.len();
            (
                of(&parts.samples) + of(&parts.ragged),
                of(&parts.rollups) + of(&parts.ragged_rollups),
                of(&parts.quarters),
            )
        };
        assert_eq!(read(24.0, 48.0, Grain::Quarters), (0, 0, 1));
        assert_eq!(read(0.0, 90.0, Grain::Quarters), (0, 0, 1));
        assert_eq!(read(30.0, 36.0, Grain::Quarters), (0, 0, 1));
        assert_eq!(read(29.0, 36.0, Grain::Quarters), (0, 1, 1));
        assert_eq!(read(31.0, 36.0, Grain::Quarters), (0, 1, 0));
        assert_eq!(read(30.0, 36.5, Grain::Quarters), (1, 0, 1));
        assert_eq!(read(30.5, 48.0, Grain::Quarters), (1, 1, 1));
        // It begins in an hour outside this day.
        assert_eq!(read(12.5, 48.0, Grain::Quarters), (0, 0, 1));
        assert_eq!(read(24.0, 48.0, Grain::Hours), (0, 1, 0));
        assert_eq!(read(26.0, 40.0, Grain::Hours), (0, 1, 0));
        assert_eq!(read(24.0, 48.0, Grain::Windows), (1, 0, 0));
        assert_eq!(read(25.2, 25.7, Grain::Quarters), (1, 0, 0));
    }

    #[test]
    fn spans_touch_the_hours_they_cover() {
        let mut parts = PartSet::default();
        for hour in [2, 7] {
            let name = PartName {
                kind: Kind::Windows,
                hour,
                hours: 1,
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
            sources.span(range::Range { from_unix_s, to_unix_s }).map(|span| {
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
