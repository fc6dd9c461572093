//! Dictionary parts: what the rows of a part mention, so that a sealed hour is read without the hot store.
//!
//! Guarantees: names and stacks round-trip exactly; identifiers are content hashes and are recomputed instead of
//! stored, except the few that were already taken ([`crate::checks`]); a stack is written as its difference from the
//! one before it, in small indices. Every seal writes the whole dictionary of its rows: an hour needs no other hour,
//! which costs repetition and saves all bookkeeping.

pub(crate) mod compact;
pub(crate) mod purge;
mod records;

use std::{
    io::{self, Write},
    sync::Arc,
};

use emberline_model::{Frame, Location, Mapping, id::Content};

use super::{
    Kind, Part, PartSet,
    codec::{Records, records},
};
use crate::{
    checks::{Checks, Salted},
    ids::IdSet,
};

pub(crate) use records::{BuildName, LabelSetName, MappingName, Names, SeriesName, WorkloadSpan};
use records::{Locations, NamedFrame, NamedLocation, Stacks};

/// Entries per record of locations or stacks.
const RECORD_ENTRIES: usize = 1 << 16;

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("invalid dictionary part: {what}"))
}

/// Writes a part of kind "names": first the names, then the locations in the order of their indices.
pub(crate) struct NamesWriter<'a, W: Write> {
    records: Records<'a, W>,
    waiting: Locations,
    last: Option<(u32, u64)>,
}

impl<'a, W: Write> NamesWriter<'a, W> {
    pub(crate) fn new(out: &'a mut W, names: &Names) -> io::Result<NamesWriter<'a, W>> {
        let mut records = Records::new(out);
        records.push(names)?;
        Ok(NamesWriter {
            records,
            waiting: Locations::default(),
            last: None,
        })
    }

    /// Adds a native location; smallest when offsets ascend. Native locations go before named ones.
    pub(crate) fn native(&mut self, mapping: u32, offset: u64) -> io::Result<()> {
        let before = self.last.filter(|last| last.0 == mapping).map_or(0, |last| last.1);
        self.waiting.mappings.push(mapping);
        self.waiting.offsets.push(offset.wrapping_sub(before));
        self.last = Some((mapping, offset));
        self.write_when(RECORD_ENTRIES)
    }

    /// Adds a location that came with its frames.
    pub(crate) fn named(&mut self, frames: impl Iterator<Item = (String, String, u32)>) -> io::Result<()> {
        let frames = frames
            .map(|(function, file, line)| NamedFrame { function, file, line })
            .collect();
        self.waiting.named.push(NamedLocation { frames });
        self.write_when(RECORD_ENTRIES)
    }

    fn write_when(&mut self, entries: usize) -> io::Result<()> {
        if self.waiting.mappings.len() + self.waiting.named.len() < entries {
            return Ok(());
        }
        // Each record can be decoded on its own.
        self.last = None;
        self.records.push(&std::mem::take(&mut self.waiting))
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.write_when(1)
    }
}

/// Writes a part of kind "stacks".
pub(crate) struct StacksWriter<'a, W: Write> {
    records: Records<'a, W>,
    waiting: Stacks,
    before: Vec<u32>,
}

impl<'a, W: Write> StacksWriter<'a, W> {
    pub(crate) fn new(out: &'a mut W) -> StacksWriter<'a, W> {
        StacksWriter {
            records: Records::new(out),
            waiting: Stacks::default(),
            before: Vec::new(),
        }
    }

    /// Adds a stack, as indices of its locations, root first. The more it shares with the one before, the smaller it
    /// gets.
    pub(crate) fn push(&mut self, stack: &[u32]) -> io::Result<()> {
        let shared = self.before.iter().zip(stack).take_while(|(a, b)| a == b).count();
        self.waiting.shared.push(shared as u32);
        self.waiting.added.push((stack.len() - shared) as u32);
        self.waiting.locations.extend_from_slice(&stack[shared..]);
        self.before.clear();
        self.before.extend_from_slice(stack);
        self.write_when(RECORD_ENTRIES)
    }

    fn write_when(&mut self, entries: usize) -> io::Result<()> {
        if self.waiting.shared.len() < entries {
            return Ok(());
        }
        self.before.clear();
        self.records.push(&std::mem::take(&mut self.waiting))
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.write_when(1)
    }
}

/// Reads the names in a part's bytes.
pub(crate) fn read_names(bytes: &[u8]) -> io::Result<Names> {
    records(bytes).next().unwrap_or_else(|| Err(malformed("no names")))
}

/// A location of a part.
pub(crate) struct Entry<'a> {
    pub(crate) id: u64,
    pub(crate) content: &'a Content,
    pub(crate) location: &'a Location,
    /// Only for native locations.
    pub(crate) mapping: Option<&'a Arc<Mapping>>,
}

/// Reads the locations in a part's bytes, in the order of their indices.
pub(crate) fn each_location(
    bytes: &[u8],
    names: &Names,
    salted: &Salted<'_>,
    mut each: impl FnMut(Entry<'_>),
) -> io::Result<()> {
    let mappings: Vec<Arc<Mapping>> = names.mappings.iter().map(|m| Arc::new(m.mapping())).collect();
    for record in records::<Locations>(bytes) {
        let record = record?;
        if record.mappings.len() != record.offsets.len() {
            return Err(malformed("locations have no offsets"));
        }
        let mut last = None;
        for (&index, &difference) in record.mappings.iter().zip(&record.offsets) {
            let mapping = mappings
                .get(index as usize)
                .ok_or_else(|| malformed("a location is outside of all files"))?;
            let before = match last {
                Some((of, offset)) if of == index => offset,
                _ => 0u64,
            };
            let offset = before.wrapping_add(difference);
            last = Some((index, offset));
            let content = Content::native_location(&mapping.key(), offset);
            each(Entry {
                id: salted.id(&content),
                content: &content,
                location: &Location::Native { mapping: index, offset },
                mapping: Some(mapping),
            });
        }
        for named in record.named {
            let frames = named.frames.into_iter().map(|f| Frame {
                function: f.function,
                file: f.file,
                line: f.line,
            });
            let location = Location::Named {
                frames: frames.collect(),
            };
            let content = Content::location(&location, "");
            each(Entry {
                id: salted.id(&content),
                content: &content,
                location: &location,
                mapping: None,
            });
        }
    }
    Ok(())
}

/// Reads the stacks in a part's bytes, as indices of their locations, root first.
pub(crate) fn each_stack<E: From<io::Error>>(
    bytes: &[u8],
    mut each: impl FnMut(&[u32]) -> Result<(), E>,
) -> Result<(), E> {
    for record in records::<Stacks>(bytes) {
        let record = record?;
        if record.shared.len() != record.added.len() {
            return Err(malformed("stacks have no lengths").into());
        }
        let mut rest = record.locations.as_slice();
        let mut root_first: Vec<u32> = Vec::new();
        for (&shared, &added) in record.shared.iter().zip(&record.added) {
            let (new, behind) = rest
                .split_at_checked(added as usize)
                .ok_or_else(|| malformed("a stack ends early"))?;
            rest = behind;
            if shared as usize > root_first.len() {
                return Err(malformed("a stack shares more frames than the previous one has").into());
            }
            root_first.truncate(shared as usize);
            root_first.extend_from_slice(new);
            each(&root_first)?;
        }
    }
    Ok(())
}

/// Finds stacks in a part's bytes and removes them from `wanted`. `locations` are the identifiers by index. Stacks are
/// returned leaf first.
pub(crate) fn find_stacks(
    bytes: &[u8],
    locations: &[u64],
    salted: &Salted<'_>,
    wanted: &mut IdSet,
    mut found: impl FnMut(u64, Vec<u64>),
) -> io::Result<()> {
    each_stack_id(bytes, locations, salted, |stack, _, leaf_first| {
        if wanted.remove(&stack) {
            found(stack, leaf_first.to_vec());
        }
    })
}

/// Reads the stacks in a part's bytes with their identifiers, the content of these, and their locations, leaf first.
pub(crate) fn each_stack_id(
    bytes: &[u8],
    locations: &[u64],
    salted: &Salted<'_>,
    mut each: impl FnMut(u64, &Content, &[u64]),
) -> io::Result<()> {
    let mut leaf_first = Vec::new();
    each_stack(bytes, |root_first| {
        leaf_first.clear();
        for &index in root_first.iter().rev() {
            let id = locations.get(index as usize);
            leaf_first.push(*id.ok_or_else(unknown_location)?);
        }
        let content = Content::stack(&leaf_first);
        each(salted.id(&content), &content, &leaf_first);
        Ok(())
    })
}

fn unknown_location() -> io::Error {
    malformed("a stack refers to unknown locations")
}

/// Identifiers of the locations that the stacks of a part refer to, and the salted ones among the part's identifiers.
pub(crate) fn location_ids<'a>(checks: &'a Checks, parts: &PartSet, stacks: &Part) -> Option<(Vec<u64>, Salted<'a>)> {
    let bytes = parts
        .beside(stacks.name)
        .find(|part| part.name.kind == Kind::Names)?
        .read()
        .ok()??;
    let names = read_names(&bytes).ok()?;
    let mut ids = Vec::new();
    let salted = Salted::new(checks, &names.salted);
    each_location(&bytes, &names, &salted, |entry| ids.push(entry.id)).ok()?;
    Some((ids, salted))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checks::Checks;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn dictionaries_round_trip(
            natives in prop::collection::vec((0u32..3, any::<u64>()), 0..40),
            named in prop::collection::vec(prop::collection::vec(("[a-z:]{0,9}", "[a-z.]{0,9}", any::<u32>()), 0..3), 0..9),
            stacks in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..12), 0..40),
        ) {
            let names = Names {
                mappings: (0..3).map(|n| MappingName { build_id: format!("b{n}"), path: "/p".into() }).collect(),
                ..Names::default()
            };
            let mut bytes = Vec::new();
            let mut writer = NamesWriter::new(&mut bytes, &names).unwrap();
            natives.iter().for_each(|&(mapping, offset)| writer.native(mapping, offset).unwrap());
            named.iter().for_each(|frames| writer.named(frames.iter().cloned()).unwrap());
            writer.finish().unwrap();
            prop_assert_eq!(&read_names(&bytes).unwrap(), &names);
            let mut ids = Vec::new();
            let mut offsets = Vec::new();
            let checks = Checks::default();
            let none = Salted::new(&checks, &[]);
            each_location(&bytes, &names, &none, |entry| {
                ids.push(entry.id);
                if let Location::Native { mapping: index, offset } = entry.location {
                    assert_eq!(entry.mapping.unwrap().build_id, format!("b{index}"));
                    offsets.push((*index, *offset));
                }
            }).unwrap();
            prop_assert_eq!(&offsets, &natives);
            prop_assert_eq!(ids.len(), natives.len() + named.len());

            if ids.is_empty() {
                return Ok(());
            }
            let stacks: Vec<Vec<u32>> = stacks.iter().map(|s| s.iter().map(|i| i.index(ids.len()) as u32).collect()).collect();
            let mut bytes = Vec::new();
            let mut writer = StacksWriter::new(&mut bytes);
            stacks.iter().for_each(|stack| writer.push(stack).unwrap());
            writer.finish().unwrap();
            let leaf_first = |s: &Vec<u32>| s.iter().rev().map(|&i| ids[i as usize]).collect::<Vec<u64>>();
            let mut wanted: IdSet = stacks.iter().map(|s| Content::stack(&leaf_first(s)).id()).collect();
            let mut expected: Vec<Vec<u64>> = stacks.iter().map(leaf_first).collect();
            expected.sort();
            expected.dedup();
            let mut found = Vec::new();
            find_stacks(&bytes, &ids, &none, &mut wanted, |_, stack| found.push(stack)).unwrap();
            found.sort();
            prop_assert_eq!(found, expected);
            prop_assert!(wanted.is_empty());
        }

        #[test]
        fn noise_is_an_error_or_nothing_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()) {
            let _ = read_names(&bytes);
            let checks = Checks::default();
            let none = Salted::new(&checks, &[]);
            let _ = each_location(&bytes, &Names::default(), &none, |_| {});
            // Also noise inside an intact record.
            let mut stacks = Stacks { shared: vec![0, 1, 9], added: vec![2, 1, 1], locations: vec![0, 1, 1, 0] };
            stacks.shared[at.index(3)] = u32::from(bytes.first().copied().unwrap_or(7));
            let mut framed = Vec::new();
            Records::new(&mut framed).push(&stacks).unwrap();
            let _ = find_stacks(&framed, &[5], &none, &mut IdSet::default(), |_, _| {});
            let _ = find_stacks(&framed, &[5, 6], &none, &mut IdSet::default(), |_, _| {});
        }
    }
}
