//! Files from gperftools: CPU profiles (machine words, then its memory map) and heap profiles (text).
//!
//! Guarantees: a CPU profile contains its samples, each worth the period in the header if that is plausible; a heap
//! profile gives objects and bytes in use and, cumulatively since the start of the process, allocated.
//!
//! Wrong on purpose: the header contains the requested period. CPU timers do not tick faster than the kernel's clock (4
//! ms at 250 Hz), so samples with a shorter period are counted and not converted to time, unless the sender gives the
//! number of samples per second.

use super::{
    Units,
    code_maps::{CodeMaps, HEADING, hexadecimal},
    read_error::{Outcome, ReadError, shown},
    table::{Column, How, MAX_DEPTH, Table, memory},
};
use crate::profile::ProfileType;

/// The shortest period that CPU timers can keep: one tick of a kernel at 250 Hz.
const SHORTEST_PERIOD_US: u64 = 4_000;

/// Word size and byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Words {
    bytes: usize,
    big_end_first: bool,
}

impl Words {
    /// From a file that begins like a CPU profile: `0 3 0 period 0`.
    pub(super) fn of(file: &[u8]) -> Option<Words> {
        [(8, false), (8, true), (4, false), (4, true)]
            .map(|(bytes, big_end_first)| Words { bytes, big_end_first })
            .into_iter()
            .find(|words| {
                let word = |at| words.at(file, at);
                matches!(
                    (word(0), word(1), word(2), word(4)),
                    (Some(0), Some(3), Some(0), Some(0))
                ) && word(3).is_some_and(|period| (1..=1_000_000_000).contains(&period))
            })
    }

    fn at(self, file: &[u8], index: usize) -> Option<u64> {
        let start = index.checked_mul(self.bytes)?;
        let bytes = file.get(start..start.checked_add(self.bytes)?)?;
        let add = |value: u64, byte: &u8| (value << 8) | u64::from(*byte);
        Some(if self.big_end_first {
            bytes.iter().fold(0, add)
        } else {
            bytes.iter().rev().fold(0, add)
        })
    }
}

/// Reads a CPU profile.
pub(super) fn read_cpu(file: &[u8], how: &How<'_>) -> Result<Outcome, ReadError> {
    let words = Words::of(file).ok_or_else(|| ReadError::byte(0, "the CPU profile header is missing"))?;
    let word = |index: usize| {
        let cut = || {
            ReadError::byte(
                index.saturating_mul(words.bytes),
                "the file ends before its last record",
            )
        };
        words.at(file, index).ok_or_else(cut)
    };
    let period_us = word(3)?;
    let units = match how.rate_hz {
        Some(rate) => Units::cpu(rate),
        None if period_us >= SHORTEST_PERIOD_US => Units {
            profile_type: ProfileType::cpu(),
            factor: period_us as i64 * 1000,
            period: period_us as i64 * 1000,
        },
        None => Units {
            profile_type: ProfileType::from_parts("process_cpu", "samples", "count", "cpu", "nanoseconds"),
            factor: 1,
            period: 0,
        },
    };
    let mut table = Table::new(vec![Column::new(units.profile_type, units.period)], how.memory);
    // The records end with one of zero samples and the address 0; text follows.
    let mut at = 5;
    let mut records = Vec::new();
    loop {
        let (samples, depth) = (word(at)?, word(at + 1)?);
        if depth == 0 || depth > MAX_DEPTH as u64 {
            return Err(ReadError::byte(
                at * words.bytes,
                format!("a stack has {depth} frames; expected 1 to {MAX_DEPTH}"),
            ));
        }
        let first = at + 2;
        at = first + depth as usize;
        word(at - 1)?;
        if samples == 0 && depth == 1 && word(first)? == 0 {
            break;
        }
        table.charge(32)?;
        records.push((samples, first, depth as usize));
    }
    let maps = String::from_utf8_lossy(file.get(at * words.bytes..).unwrap_or_default());
    let mut maps = CodeMaps::read(&maps);
    for (samples, first, depth) in records {
        let addresses = (first..first + depth).map(word).collect::<Result<Vec<u64>, _>>()?;
        let stack = maps.stack(&addresses, &mut table)?;
        let row = table.row(stack)?;
        let value = i64::try_from(samples).unwrap_or(i64::MAX).saturating_mul(units.factor);
        table.add(row, 0, value, samples)?;
    }
    table.finish(0, 0)
}

/// A pair of heap counts: objects and bytes.
pub(super) type Counts = [f64; 2];

/// The columns of a heap: objects and bytes, in use and allocated since the start.
pub(super) fn heap_table(how: &How<'_>) -> Table {
    let columns = [
        ("inuse_objects", "count"),
        ("inuse_space", "bytes"),
        ("alloc_objects", "count"),
        ("alloc_space", "bytes"),
    ];
    Table::new(
        columns.map(|(kind, unit)| Column::new(memory(kind, unit), 0)).to_vec(),
        how.memory,
    )
}

/// `1: 4096 [ 2: 8192]`: in use, and allocated since the start. Third, the rest of the line.
pub(super) fn counts(line: &str) -> Option<(Counts, Counts, &str)> {
    let (in_use, rest) = line.split_once('[')?;
    let (allocated, rest) = rest.split_once(']')?;
    let pair = |text: &str| -> Option<Counts> {
        let (objects, bytes) = text.split_once(':')?;
        let number = |text: &str| text.trim().parse::<i64>().ok().map(|number| number as f64);
        Some([number(objects)?, number(bytes)?])
    };
    Some((pair(in_use)?, pair(allocated)?, rest))
}

/// What sampled objects stand for if one every `period` bytes was sampled: an object of their size is missed with
/// probability e^(-size/period).
pub(super) fn unsampled([objects, bytes]: Counts, period: f64) -> Counts {
    if objects <= 0.0 || bytes <= 0.0 || period <= 1.0 {
        return [objects, bytes];
    }
    let scale = 1.0 / -f64::exp_m1(-(bytes / objects) / period);
    [objects * scale, bytes * scale]
}

/// Adds the counts of a stack.
pub(super) fn add_heap(table: &mut Table, stack: Vec<u32>, in_use: Counts, allocated: Counts) -> Result<(), ReadError> {
    let row = table.row(stack)?;
    for (column, value) in in_use.into_iter().chain(allocated).enumerate() {
        let value = value.round().max(0.0) as i64;
        // Sampled at least once, however many it stands for.
        table.add(row, column, value, u64::from(value > 0))?;
    }
    Ok(())
}

/// The addresses after an `@`.
pub(super) fn addresses(text: &str) -> Option<Vec<u64>> {
    let words = text.trim().strip_prefix('@')?.split_ascii_whitespace();
    words.take(MAX_DEPTH + 1).map(hexadecimal).collect()
}

/// Reads a heap profile.
pub(super) fn read_heap(text: &str, how: &How<'_>) -> Result<Outcome, ReadError> {
    let (head, maps) = text.split_once(HEADING).unwrap_or((text, ""));
    let first = head.lines().next().unwrap_or_default();
    let kind = first.rsplit_once('@').map(|(_, kind)| kind.trim()).unwrap_or_default();
    let period = match kind.split_once('/') {
        None if kind == "heapprofile" => 0.0,
        Some(("heap_v2", period)) => {
            let wrong = || ReadError::line(0, format!("the period `{}` is not a number", shown(period)));
            period.parse::<u64>().map_err(|_| wrong())? as f64
        }
        _ => {
            return Err(ReadError::line(
                0,
                format!(
                    "heap profiles of kind `{}` are not supported: use `heapprofile` or `heap_v2/...`",
                    shown(kind)
                ),
            ));
        }
    };
    let mut table = heap_table(how);
    let mut maps = CodeMaps::read(maps);
    for (at, line) in head.lines().enumerate().skip(1) {
        if line.trim().is_empty() {
            continue;
        }
        let read = counts(line).and_then(|(in_use, allocated, rest)| Some((in_use, allocated, addresses(rest)?)));
        let Some((in_use, allocated, addresses)) = read else {
            return Err(ReadError::line(
                at,
                format!("`{}` is not `objects: bytes [objects: bytes] @ addresses`", shown(line)),
            ));
        };
        let stack = maps.stack(&addresses, &mut table)?;
        add_heap(
            &mut table,
            stack,
            unsampled(in_use, period),
            unsampled(allocated, period),
        )?;
    }
    table.finish(0, 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::formats::NS;

    const HOW: How<'static> = How {
        kind: None,
        rate_hz: None,
        memory: 16 << 20,
    };

    fn cpu(period_us: u64, records: &[(u64, Vec<u64>)], bytes: usize, big_end_first: bool) -> Vec<u8> {
        let mut words = vec![0, 3, 0, period_us, 0];
        for (samples, stack) in records {
            words.extend([*samples, stack.len() as u64]);
            words.extend(stack);
        }
        words.extend([0, 1, 0]);
        let word = |word: u64| match (bytes, big_end_first) {
            (8, true) => word.to_be_bytes().to_vec(),
            (8, false) => word.to_le_bytes().to_vec(),
            (_, true) => (word as u32).to_be_bytes().to_vec(),
            (_, false) => (word as u32).to_le_bytes().to_vec(),
        };
        let mut file: Vec<u8> = words.into_iter().flat_map(word).collect();
        file.extend(b"00001000-00002000 r-xp 00000100 00:00 7    /srv/busy (deleted)\n");
        file
    }

    #[test]
    fn a_period_below_the_clock_tick_is_not_taken_as_time() {
        let records = [(3, vec![0x1010, 0x1021])];
        for (period, rate_hz, sample_type, total) in [
            (10_000, None, "cpu", 3 * NS / 100),
            (250, None, "samples", 3),
            (250, Some(250), "cpu", 3 * NS / 250),
        ] {
            let how = How { rate_hz, ..HOW };
            let read = read_cpu(&cpu(period, &records, 8, false), &how).unwrap().profiles;
            assert_eq!(read[0].profile_type.parts()[1], sample_type, "{period}");
            assert_eq!((read[0].total(), read[0].samples[0].count), (total, 3));
        }
    }

    #[test]
    fn addresses_become_offsets_in_their_files() {
        let file = cpu(10_000, &[(1, vec![0x1010, 0x1021, 0x9000])], 8, false);
        let names = |file: &[u8]| {
            let profile = read_cpu(file, &HOW).unwrap().profiles.remove(0);
            let name = |&at: &u32| match &profile.locations[at as usize] {
                crate::Location::Named { frames } => frames[0].function.clone(),
                crate::Location::Native { .. } => String::new(),
            };
            profile.stacks[0].iter().map(name).collect::<Vec<_>>()
        };
        // Return addresses follow their call.
        assert_eq!(names(&file), ["0x110", "0x120", "[unknown]"]);
    }

    proptest! {
        #[test]
        fn words_of_any_machine_are_read(
            records in prop::collection::vec((1u64..1000, prop::collection::vec(1u64..0xffff_ffff, 1..6)), 0..10),
            wide in any::<bool>(), big in any::<bool>(),
        ) {
            let file = cpu(10_000, &records, if wide { 8 } else { 4 }, big);
            let read = read_cpu(&file, &HOW).unwrap().profiles;
            prop_assert_eq!(read[0].total(), records.iter().map(|record| record.0 as i64 * 10_000_000).sum::<i64>());
        }

        /// Writes heaps as gperftools and jemalloc do, and reads them back.
        #[test]
        fn heaps_are_read_back(
            rows in prop::collection::vec((0i64..1000, 1i64..10_000, 0i64..1000, prop::collection::vec(1u64..u64::MAX, 1..6)), 1..10),
        ) {
            let addresses = |stack: &[u64]| stack.iter().map(|address| format!(" {address:#018x}")).collect::<String>();
            let mut plain = "heap profile:   1:  2 [  3:  4] @ heapprofile\n".to_owned();
            // With such a small period, every object was sampled.
            let mut sampled = "heap_v2/1\n  t*: 1: 2 [0: 0]\n  t0: 1: 2 [0: 0]\n".to_owned();
            for (objects, size, more, stack) in &rows {
                let all = objects + more;
                let counts = format!("{objects}: {} [{all}: {}]", objects * size, all * size);
                plain += &format!("  {counts} @{}\n", addresses(stack));
                sampled += &format!("@{}\n  t*: {counts}\n  t7: {counts}\n", addresses(stack));
            }
            for text in [&mut plain, &mut sampled] {
                text.push_str("\nMAPPED_LIBRARIES:\n55fcd6e92000-55fcd6e93000 r-xp 00001000 00:00 10414436    /srv/busy\n");
            }
            let sums = rows.iter().fold([0; 4], |[a, b, c, d], (objects, size, more, _)| {
                [a + objects, b + objects * size, c + objects + more, d + (objects + more) * size]
            });
            let names = ["inuse_objects", "inuse_space", "alloc_objects", "alloc_space"];
            let expected = names.into_iter().zip(sums);
            let expected: Vec<(&str, i64)> = expected.filter(|(_, total)| *total > 0).collect();
            for read in [read_heap(&plain, &HOW).unwrap(), crate::formats::jemalloc::read(&sampled, &HOW).unwrap()] {
                let totals = read.profiles.iter().filter(|profile| profile.total() > 0);
                let totals: Vec<(&str, i64)> = totals.map(|profile| (profile.profile_type.parts()[1], profile.total())).collect();
                prop_assert_eq!(&totals, &expected);
            }
        }

        #[test]
        fn what_is_seen_stands_for_no_less(objects in 1i64..1_000_000, size in 1i64..10_000_000, period in 1i64..10_000_000) {
            let [scaled, bytes] = unsampled([objects as f64, (objects * size) as f64], period as f64);
            prop_assert!(scaled >= objects as f64 && bytes >= (objects * size) as f64);
            prop_assert!((bytes / scaled - size as f64).abs() < 1e-6 * size as f64);
        }
    }
}
