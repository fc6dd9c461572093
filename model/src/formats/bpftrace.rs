//! What bpftrace prints for maps whose keys contain stacks: `@[ustack, kstack, comm]: 12`, as text or as JSON lines.
//!
//! Guarantees: counts of equal stacks are added up, even if a JSON key occurs twice (two processes with equal stacks);
//! stacks are reversed, with the kernel's on top of the program's; a command in the key is the outermost frame.
//!
//! Wrong on purpose: the text does not state the sampling rate: counts stay counts unless the sender gives it. Which of
//! two stacks is the kernel's is recognised by its entry points (`entry_SYSCALL_64...`, `asm_...`, `ret_from_fork`);
//! otherwise it is the second. A last key that was cut off is dropped and counted.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use super::{
    Units,
    read_error::{Outcome, ReadError, in_json, shown},
    table::{Column, How, MAX_DEPTH, Table},
};
use crate::profile::ProfileType;

/// True for a line that begins a map's entry: `@[`, `@name[`.
pub(super) fn begins_entry(line: &str) -> bool {
    let name = line.strip_prefix('@').and_then(|rest| rest.split_once('['));
    name.is_some_and(|(name, _)| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

fn table(how: &How<'_>) -> (Table, i64) {
    let kind = how.kind.unwrap_or("cpu");
    let units = match how.rate_hz {
        Some(rate) => Units::of_kind(kind, rate).unwrap_or_else(|| Units::cpu(rate)),
        None => Units {
            profile_type: ProfileType::from_parts("samples", "samples", "count", "samples", "count"),
            factor: 1,
            period: 0,
        },
    };
    let column = Column::new(units.profile_type, units.period);
    (Table::new(vec![column], how.memory), units.factor)
}

/// The contents of a key.
#[derive(Default)]
struct Key {
    /// Leaf first, as printed.
    stacks: Vec<Vec<u32>>,
    words: Vec<u32>,
}

/// The frame of a line: `name+57`, `name+57 (file)`, `0x7f...`.
fn frame(line: &str, table: &mut Table) -> Result<u32, ReadError> {
    let line = line.trim();
    let (symbol, file) = match line.rsplit_once(" (") {
        Some((symbol, file)) if file.ends_with(')') => (symbol, file.trim_end_matches(')')),
        _ => (line, ""),
    };
    // In the layout of `perf` the address comes first.
    let symbol = match symbol.split_once(' ') {
        Some((address, rest)) if address.len() > 4 && address.bytes().all(|byte| byte.is_ascii_hexdigit()) => rest,
        _ => symbol,
    };
    let symbol = match symbol.rsplit_once('+') {
        Some((name, offset)) if !name.is_empty() && is_offset(offset) => name,
        _ => symbol,
    };
    Ok(table.frame(symbol, file, 0)?)
}

fn is_offset(text: &str) -> bool {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Key {
    /// Processes a line of a key: a frame if the line is indented, otherwise separators and words.
    fn line(&mut self, line: &str, table: &mut Table, at: usize) -> Result<(), ReadError> {
        if line.starts_with([' ', '\t']) && !line.trim().is_empty() && !line.trim_start().starts_with(',') {
            let frame = frame(line, table)?;
            if self.stacks.is_empty() {
                self.stacks.push(Vec::new());
            }
            if let Some(stack) = self.stacks.last_mut() {
                if stack.len() >= MAX_DEPTH {
                    return Err(ReadError::line(at, format!("a stack has more than {MAX_DEPTH} frames")));
                }
                stack.push(frame);
            }
            return Ok(());
        }
        for word in line.split(',') {
            let word = word.trim();
            if !word.is_empty() && !word.bytes().all(|byte| byte.is_ascii_digit()) {
                let word = table.frame(word, "", 0)?;
                self.words.push(word);
            }
        }
        if self.stacks.last().is_none_or(|stack| !stack.is_empty()) && self.stacks.len() < 64 {
            self.stacks.push(Vec::new());
        }
        Ok(())
    }

    fn add(self, table: &mut Table, kernel_frames: &[bool], count: u64, factor: i64) -> Result<(), ReadError> {
        let mut stacks: Vec<Vec<u32>> = self.stacks.into_iter().filter(|stack| !stack.is_empty()).collect();
        let of_kernel = |stack: &Vec<u32>| {
            stack
                .last()
                .is_some_and(|&root| kernel_frames.get(root as usize) == Some(&true))
        };
        // Kernel first, because the leaf is there.
        if stacks.iter().any(of_kernel) {
            stacks.sort_by_key(|stack| !of_kernel(stack));
        } else {
            stacks.reverse();
        }
        let leaf_first = stacks
            .into_iter()
            .flatten()
            .chain(self.words.into_iter().rev())
            .collect();
        let row = table.row(leaf_first)?;
        let value = i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(factor);
        Ok(table.add(row, 0, value, count)?)
    }
}

/// Whether a symbol is an outermost frame of the kernel.
fn enters_kernel(symbol: &str) -> bool {
    [
        "entry_",
        "asm_",
        "ret_from_fork",
        "do_syscall_64",
        "secondary_startup",
        "el0",
        "el1h",
        "start_secondary",
    ]
    .iter()
    .any(|name| symbol.trim().starts_with(name))
}

/// Counts by key, and which frames enter the kernel.
struct Maps {
    table: Table,
    factor: i64,
    kernel_frames: Vec<bool>,
    entries: u64,
}

impl Maps {
    fn new(how: &How<'_>) -> Maps {
        let (table, factor) = table(how);
        Maps {
            table,
            factor,
            kernel_frames: Vec::new(),
            entries: 0,
        }
    }

    fn line(&mut self, key: &mut Key, line: &str, at: usize) -> Result<(), ReadError> {
        key.line(line, &mut self.table, at)?;
        if enters_kernel(line)
            && let Some(&frame) = key.stacks.last().and_then(|stack| stack.last())
        {
            self.kernel_frames
                .resize(self.kernel_frames.len().max(frame as usize + 1), false);
            self.kernel_frames[frame as usize] = true;
        }
        Ok(())
    }

    fn add(&mut self, key: Key, count: u64) -> Result<(), ReadError> {
        self.entries += 1;
        key.add(&mut self.table, &self.kernel_frames, count, self.factor)
    }

    fn finish(self, cut: u64) -> Result<Outcome, ReadError> {
        if self.entries == 0 {
            return Err(ReadError::Content(
                "no map with stacks as keys and counts as values found".to_owned(),
            ));
        }
        Ok(self.table.finish(0, 0)?.leave_out("cut_off", cut))
    }
}

/// Reads a text, or JSON lines.
pub(super) fn read(text: &str, how: &How<'_>) -> Result<Outcome, ReadError> {
    if text.trim_start().starts_with('{') {
        return read_json(text, how);
    }
    let mut maps = Maps::new(how);
    let mut open: Option<Key> = None;
    for (at, line) in text.lines().enumerate() {
        let mut line = line;
        if begins_entry(line) {
            open = Some(Key::default());
            line = line.split_once('[').map_or("", |(_, rest)| rest);
        }
        let Some(key) = &mut open else {
            if line.starts_with('@') {
                return Err(ReadError::line(
                    at,
                    format!("`{}` is not a map with stacks as keys", shown(line)),
                ));
            }
            continue;
        };
        let end = line
            .rsplit_once("]: ")
            .filter(|(rest, _)| !rest.starts_with([' ', '\t']));
        if let Some((rest, value)) = end {
            maps.line(key, rest, at)?;
            let count = value.trim().parse::<u64>();
            let count = count.map_err(|_| ReadError::line(at, format!("`{}` is not a count", shown(value))))?;
            maps.add(open.take().unwrap_or_default(), count)?;
        } else {
            maps.line(key, line, at)?;
        }
    }
    maps.finish(u64::from(open.is_some()))
}

/// A line of JSON.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Option<Named>,
}

/// Maps by name; other output has other shapes and is ignored.
#[derive(Default)]
struct Named(Vec<(String, u64)>);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Named, D::Error> {
        deserializer.deserialize_any(Outer)
    }
}

/// An object of maps; a key may occur more than once.
struct Outer;

impl<'de> Visitor<'de> for Outer {
    type Value = Named;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("bpftrace output")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
        let mut all = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name.starts_with('@') {
                all.append(&mut map.next_value::<Entries>()?.0);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Named(all))
    }

    fn visit_str<E>(self, _: &str) -> Result<Named, E> {
        Ok(Named::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Named, E> {
        Ok(Named::default())
    }
}

/// The entries of one map.
#[derive(Default)]
struct Entries(Vec<(String, u64)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Entries;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("counts by key")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(Entries(all))
            }
        }
        deserializer.deserialize_map(All)
    }
}

fn read_json(text: &str, how: &How<'_>) -> Result<Outcome, ReadError> {
    let mut maps = Maps::new(how);
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let line: Line = serde_json::from_str(line).map_err(|error| ReadError::line(at, in_json(&error)))?;
        if line.kind != "map" {
            continue;
        }
        for (entry, count) in line.data.unwrap_or_default().0 {
            let mut key = Key::default();
            for piece in entry.lines() {
                maps.line(&mut key, piece, at)?;
            }
            maps.add(key, count)?;
        }
    }
    maps.finish(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::{Location, Profile};

    const HOW: How<'static> = How {
        kind: None,
        rate_hz: None,
        memory: 16 << 20,
    };

    fn stacks(profile: &Profile) -> Vec<(String, i64)> {
        let name = |&at: &u32| match &profile.locations[at as usize] {
            Location::Named { frames } => frames[0].function.clone(),
            Location::Native { .. } => String::new(),
        };
        let row = |sample: &crate::Sample| {
            let names: Vec<String> = profile.stacks[sample.stack as usize].iter().map(name).collect();
            (names.join(";"), sample.value)
        };
        let mut rows: Vec<_> = profile.samples.iter().map(row).collect();
        rows.sort();
        rows
    }

    #[test]
    fn the_kernel_is_on_top_wherever_it_stands_in_the_key() {
        let user = "\n    price+5 (/bin/shop)\n    main+9 (/bin/shop)\n";
        let kernel = "\n    schedule+35\n    asm_sysvec_reschedule_ipi+22\n";
        for key in [format!("{user}, {kernel}, shop"), format!("{kernel}, {user}, shop")] {
            let text = format!("Attaching 1 probe...\n\n@samples[{key}]: 7\n@samples[{user}, , shop]: 2\n");
            let read = read(&text, &HOW).unwrap().profiles;
            let expected = [
                ("price;main;shop".to_owned(), 2),
                ("schedule;asm_sysvec_reschedule_ipi;price;main;shop".to_owned(), 7),
            ];
            assert_eq!(stacks(&read[0]), expected, "{key}");
        }
    }

    #[test]
    fn a_key_that_comes_twice_in_json_counts_twice() {
        let json = concat!(
            r#"{"type": "attached_probes", "data": {"probes": 2}}"#,
            "\n",
            r#"{"type": "map", "data": {"@": {"\n    price+5\n    main+9\n,": 3, "\n    price+5\n    main+9\n,": 4}}}"#,
            "\n"
        );
        assert_eq!(
            stacks(&read(json, &HOW).unwrap().profiles[0]),
            [("price;main".to_owned(), 7)]
        );
    }

    #[test]
    fn what_is_no_count_by_stack_is_refused() {
        for (text, word) in [
            ("@: 5\n", "not a map with stacks"),
            ("@[\n    a+1\n]: hist\n", "`hist`"),
            ("Attaching 1 probe...\n", "no map"),
        ] {
            let error = read(text, &HOW).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    proptest! {
        /// Writes what bpftrace writes, including names with blanks and brackets, and reads it back.
        #[test]
        fn what_bpftrace_writes_is_read_back(
            rows in prop::collection::vec((prop::collection::vec("[a-z]{1,5}(::<[a-z]>|\\(int, [a-z]\\)|\\[abi:[a-z]\\])?", 1..5), 1u64..1000, 0u32..300), 1..12),
        ) {
            let mut text = "Attaching 1 probe...\n\n\n".to_owned();
            let mut expected = std::collections::BTreeMap::new();
            for (frames, count, offset) in &rows {
                let lines: String = frames.iter().map(|frame| format!("    {frame}+{offset}\n")).collect();
                text += &format!("@[\n{lines}]: {count}\n");
                *expected.entry(frames.iter().map(|frame| crate::function::normalise(frame)).collect::<Vec<_>>().join(";")).or_insert(0) += *count as i64;
            }
            let profile = read(&text, &HOW).unwrap().profiles.remove(0);
            prop_assert_eq!(stacks(&profile), expected.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn text_of_any_kind_never_panics(text in "[@a-z\\[\\],: \n+0-9{}\"]{0,80}") {
            if let Ok(read) = read(&text, &HOW) {
                prop_assert!(read.profiles.iter().all(|profile| profile.validate().is_ok()));
            }
        }
    }
}
