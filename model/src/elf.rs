//! The GNU build id of an ELF file, where its code is, and how large its sections claim to be. The file is read by
//! position, so that no more of it is in memory than what is inspected.
//!
//! Guarantees: every offset and length in the file is checked before it is used; at most [`MAX_HEADERS`] headers of
//! each table and [`MAX_NOTE_BYTES`] of each note are read, whatever the file claims; no input causes a panic.
//!
//! Sources: System V ABI, "ELF header", "Program header", "Note section"; the note is `NT_GNU_BUILD_ID` (3) of owner
//! `GNU`; a compressed section begins with a "Compression header", or is named `.zdebug_*` and begins with `ZLIB` and
//! its size (binutils before 2.26). Both word sizes and byte orders are supported. Section headers are searched, too: a
//! file with only debug information keeps its notes there.
//!
//! Written by hand because the reader of the crate `object` reads whole tables: a gigabyte file that claims to be one
//! section table would be loaded completely.

use std::{io, ops::Range};

/// Headers inspected per table.
const MAX_HEADERS: u64 = 4096;
/// Bytes read of one note section or segment.
const MAX_NOTE_BYTES: u64 = 64 * 1024;
const PT_LOAD: u64 = 1;
const PT_NOTE: u64 = 4;
const PF_X: u64 = 1;
const SHT_NOTE: u64 = 7;
const NT_GNU_BUILD_ID: u32 = 3;
const SHF_COMPRESSED: u64 = 0x800;
/// How compressed sections began before there was a flag; eight bytes of size follow, big-endian.
const OLD_COMPRESSED: &[u8] = b"ZLIB";

/// A file: its length, and how to read from a position in it.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Length in bytes.
    pub length: u64,
    /// Fills the buffer from a position; only positions within the length are read.
    pub read: &'a dyn Fn(&mut [u8], u64) -> io::Result<()>,
}

/// Why a file has no build id.
#[derive(Debug, thiserror::Error)]
pub enum NoBuildId {
    /// Not an ELF file.
    #[error("it is not an ELF file")]
    NotElf,
    /// An ELF file without the note.
    #[error("it is an ELF file without a GNU build id; link with `--build-id`")]
    Missing,
    /// Reading failed.
    #[error("it cannot be read back: {0}")]
    Io(#[from] io::Error),
}

/// Reads the build id as lower-case hexadecimal.
pub fn build_id(file: Source<'_>) -> Result<String, NoBuildId> {
    let elf = Elf::open(file)?;
    let segments = elf.segments()?.into_iter().filter(|part| part.kind == PT_NOTE);
    let sections = elf.sections()?.into_iter().filter(|part| part.kind == SHT_NOTE);
    for part in segments.chain(sections) {
        if let Some(id) = elf.note_build_id(&part)? {
            return Ok(id);
        }
    }
    Err(NoBuildId::Missing)
}

/// Where its code is in the file; empty if it has none.
pub fn code(file: Source<'_>) -> Result<Vec<Range<u64>>, NoBuildId> {
    let segments = Elf::open(file)?.segments()?.into_iter();
    let code = segments.filter(|part| part.kind == PT_LOAD && part.flags & PF_X != 0 && part.size > 0);
    Ok(code
        .map(|part| part.offset..part.offset.saturating_add(part.size).min(file.length))
        .collect())
}

/// The size of the compressed sections after decompression, as they claim. What cannot be inspected completely counts
/// as too much.
pub fn unpacked_bytes(file: Source<'_>) -> Result<u64, NoBuildId> {
    let elf = Elf::open(file)?;
    if elf.section_count()? > MAX_HEADERS {
        return Ok(u64::MAX);
    }
    let mut unpacked = 0u64;
    for part in elf.sections()? {
        let header = elf.read(part.offset, part.size.min(24))?.unwrap_or_default();
        let declared = if part.flags & SHF_COMPRESSED != 0 {
            let (at, size) = if elf.wide { (8, 8) } else { (4, 4) };
            elf.number(&header, at, size)
        } else if header.starts_with(OLD_COMPRESSED) {
            header[OLD_COMPRESSED.len()..]
                .iter()
                .take(8)
                .fold(0, |size, byte| size << 8 | u64::from(*byte))
        } else {
            0
        };
        unpacked = unpacked.saturating_add(declared);
    }
    Ok(unpacked)
}

/// A segment or section.
struct Part {
    kind: u64,
    flags: u64,
    offset: u64,
    size: u64,
    alignment: u64,
}

struct Elf<'a> {
    file: Source<'a>,
    wide: bool,
    big_endian: bool,
    header: Vec<u8>,
}

impl<'a> Elf<'a> {
    fn open(file: Source<'a>) -> Result<Elf<'a>, NoBuildId> {
        let mut elf = Elf {
            file,
            wide: true,
            big_endian: false,
            header: Vec::new(),
        };
        let Some(ident) = elf.read(0, 16)? else {
            return Err(NoBuildId::NotElf);
        };
        if ident[..4] != *b"\x7fELF" || !matches!(ident[4], 1 | 2) || !matches!(ident[5], 1 | 2) {
            return Err(NoBuildId::NotElf);
        }
        elf.wide = ident[4] == 2;
        elf.big_endian = ident[5] == 2;
        elf.header = elf.read(0, if elf.wide { 64 } else { 52 })?.ok_or(NoBuildId::NotElf)?;
        Ok(elf)
    }

    /// `None` when the range is outside the file.
    fn read(&self, offset: u64, size: u64) -> io::Result<Option<Vec<u8>>> {
        if offset.checked_add(size).is_none_or(|end| end > self.file.length) {
            return Ok(None);
        }
        // Sizes are bounded by the callers.
        let mut bytes = vec![0; size as usize];
        (self.file.read)(&mut bytes, offset)?;
        Ok(Some(bytes))
    }

    /// An unsigned number of `size` bytes; 0 outside the slice.
    fn number(&self, bytes: &[u8], at: usize, size: usize) -> u64 {
        let Some(field) = at.checked_add(size).and_then(|end| bytes.get(at..end)) else {
            return 0;
        };
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if self.big_endian {
            field.iter().fold(0, add)
        } else {
            field.iter().rev().fold(0, add)
        }
    }

    /// The program header table.
    fn segments(&self) -> Result<Vec<Part>, NoBuildId> {
        let h = &self.header;
        let table = match self.wide {
            true => (self.number(h, 32, 8), self.number(h, 54, 2), self.number(h, 56, 2)),
            false => (self.number(h, 28, 4), self.number(h, 42, 2), self.number(h, 44, 2)),
        };
        self.entries(table, |elf, bytes| match elf.wide {
            true => Part {
                kind: elf.number(bytes, 0, 4),
                flags: elf.number(bytes, 4, 4),
                offset: elf.number(bytes, 8, 8),
                size: elf.number(bytes, 32, 8),
                alignment: elf.number(bytes, 48, 8),
            },
            false => Part {
                kind: elf.number(bytes, 0, 4),
                flags: elf.number(bytes, 24, 4),
                offset: elf.number(bytes, 4, 4),
                size: elf.number(bytes, 16, 4),
                alignment: elf.number(bytes, 28, 4),
            },
        })
    }

    /// The number of sections; if it does not fit into the header, it is in the first section.
    fn section_count(&self) -> Result<u64, NoBuildId> {
        let h = &self.header;
        let (table, count) = match self.wide {
            true => (self.number(h, 40, 8), self.number(h, 60, 2)),
            false => (self.number(h, 32, 4), self.number(h, 48, 2)),
        };
        if count > 0 || table == 0 {
            return Ok(count);
        }
        let (at, size) = if self.wide { (32, 8) } else { (20, 4) };
        let first = self.read(table, if self.wide { 64 } else { 40 })?.unwrap_or_default();
        Ok(self.number(&first, at, size))
    }

    /// The section header table.
    fn sections(&self) -> Result<Vec<Part>, NoBuildId> {
        let h = &self.header;
        let count = self.section_count()?;
        let table = match self.wide {
            true => (self.number(h, 40, 8), self.number(h, 58, 2), count),
            false => (self.number(h, 32, 4), self.number(h, 46, 2), count),
        };
        let (offset, size, alignment, bytes_each) = if self.wide { (24, 32, 48, 8) } else { (16, 20, 32, 4) };
        self.entries(table, |elf, bytes| Part {
            kind: elf.number(bytes, 4, 4),
            flags: elf.number(bytes, 8, bytes_each),
            offset: elf.number(bytes, offset, bytes_each),
            size: elf.number(bytes, size, bytes_each),
            alignment: elf.number(bytes, alignment, bytes_each),
        })
    }

    /// Entries of a header table given by (offset, size of an entry, count).
    fn entries(
        &self,
        (table, entry, count): (u64, u64, u64),
        read: impl Fn(&Elf<'_>, &[u8]) -> Part,
    ) -> Result<Vec<Part>, NoBuildId> {
        let least = if self.wide { 56 } else { 32 };
        let mut found = Vec::new();
        if table == 0 || entry < least {
            return Ok(found);
        }
        for index in 0..count.min(MAX_HEADERS) {
            let Some(at) = table.checked_add(index * entry) else {
                break;
            };
            let Some(bytes) = self.read(at, entry.min(64))? else {
                break;
            };
            found.push(read(self, &bytes));
        }
        Ok(found)
    }

    /// The build id among the notes of a range.
    fn note_build_id(&self, part: &Part) -> io::Result<Option<String>> {
        let Some(bytes) = self.read(part.offset, part.size.min(MAX_NOTE_BYTES))? else {
            return Ok(None);
        };
        // 4, unless a section asks for 8, whatever the word size.
        let alignment = if part.alignment == 8 { 8 } else { 4 };
        let mut at = 0usize;
        while bytes.len() - at >= 12 {
            let name_size = self.number(&bytes, at, 4) as usize;
            let content_size = self.number(&bytes, at + 4, 4) as usize;
            let kind = self.number(&bytes, at + 8, 4) as u32;
            // 32-bit sizes: these sums cannot overflow a 64-bit usize.
            let content_at = at + (12 + name_size).next_multiple_of(alignment);
            let next = (content_at + content_size).next_multiple_of(alignment);
            let Some(content) = bytes.get(content_at..content_at + content_size) else {
                return Ok(None);
            };
            let owner = &bytes[at + 12..at + 12 + name_size];
            if kind == NT_GNU_BUILD_ID && owner == b"GNU\0" && (2..=64).contains(&content_size) {
                return Ok(Some(content.iter().map(|byte| format!("{byte:02x}")).collect()));
            }
            if next > bytes.len() {
                return Ok(None);
            }
            at = next;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading(bytes: &[u8]) -> impl Fn(&mut [u8], u64) -> io::Result<()> {
        |to, at| {
            to.copy_from_slice(&bytes[at as usize..][..to.len()]);
            Ok(())
        }
    }

    macro_rules! of {
        ($what:path, $bytes:expr) => {{
            let bytes: &[u8] = $bytes;
            let read = reading(bytes);
            $what(Source {
                length: bytes.len() as u64,
                read: &read,
            })
        }};
    }

    /// A minimal little-endian 64-bit file with one note segment.
    fn minimal(note: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0u8; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&(PT_NOTE as u32).to_le_bytes());
        bytes[72..80].copy_from_slice(&120u64.to_le_bytes());
        bytes[96..104].copy_from_slice(&(note.len() as u64).to_le_bytes());
        bytes.extend_from_slice(note);
        bytes
    }

    fn note(owner: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [owner.len() as u32, content.len() as u32, kind] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for part in [owner, content] {
            bytes.extend_from_slice(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn the_note_is_found_behind_others() {
        let notes = [
            note(b"GNU\0", 1, &[0; 16]),
            note(b"other\0", 3, &[9; 20]),
            note(b"GNU\0", 3, &[0xab; 20]),
        ]
        .concat();
        assert_eq!(of!(build_id, &minimal(&notes)).unwrap(), "ab".repeat(20));
    }

    #[test]
    fn notes_that_are_aligned_to_eight_are_followed() {
        let mut notes = note(b"GNU\0", 5, &[7; 4]);
        notes.resize(24, 0);
        notes.extend(note(b"GNU\0", 3, &[0xcd; 16]));
        let mut bytes = minimal(&notes);
        bytes[112..120].copy_from_slice(&8u64.to_le_bytes());
        assert_eq!(of!(build_id, &bytes).unwrap(), "cd".repeat(16));
        bytes[112..120].copy_from_slice(&4u64.to_le_bytes());
        assert!(matches!(of!(build_id, &bytes), Err(NoBuildId::Missing)));
    }

    #[test]
    fn what_is_no_elf_file_is_told_from_one_without_a_note() {
        for bytes in [&b""[..], b"#!/bin/sh", b"\x7fELF", &[0x7f; 200]] {
            assert!(matches!(of!(build_id, bytes), Err(NoBuildId::NotElf)));
        }
        assert!(matches!(of!(build_id, &minimal(&[])), Err(NoBuildId::Missing)));
        assert!(matches!(
            of!(build_id, &minimal(&note(b"GNU\0", 3, &[]))),
            Err(NoBuildId::Missing)
        ));
    }

    #[test]
    fn code_is_found_where_this_program_runs() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let found = of!(code, &own).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].start > 0 && found[0].end > found[0].start + 4096, "{found:?}");
        assert!(of!(code, &minimal(&[])).unwrap().is_empty());
    }

    #[test]
    fn what_compressed_sections_declare_is_added_up() {
        let (packed, old): (Vec<u8>, Vec<u8>) = (
            [1u32.to_le_bytes(), [0; 4]]
                .concat()
                .into_iter()
                .chain(3_000u64.to_le_bytes())
                .chain([0; 8])
                .collect(),
            b"ZLIB".iter().copied().chain(500u64.to_be_bytes()).collect(),
        );
        let mut bytes = minimal(&[]);
        let mut headers = Vec::new();
        for (content, flags) in [(&packed, SHF_COMPRESSED), (&packed, 0), (&old, 0)] {
            let mut header = [0u8; 64];
            header[8..16].copy_from_slice(&flags.to_le_bytes());
            header[24..32].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(content.len() as u64).to_le_bytes());
            bytes.extend_from_slice(content);
            headers.extend_from_slice(&header);
        }
        let table = bytes.len() as u64;
        bytes.extend_from_slice(&headers);
        bytes[40..48].copy_from_slice(&table.to_le_bytes());
        bytes[58..60].copy_from_slice(&64u16.to_le_bytes());
        bytes[60..62].copy_from_slice(&3u16.to_le_bytes());
        assert_eq!(of!(unpacked_bytes, &bytes).unwrap(), 3_500);
        // More sections than are inspected, counted in the first one.
        bytes[60..62].copy_from_slice(&0u16.to_le_bytes());
        bytes[table as usize + 32..table as usize + 40].copy_from_slice(&5_000u64.to_le_bytes());
        assert_eq!(of!(unpacked_bytes, &bytes).unwrap(), u64::MAX);
        assert_eq!(of!(unpacked_bytes, &minimal(&[])).unwrap(), 0);
    }

    #[test]
    fn this_program_has_the_build_id_that_its_linker_wrote() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let id = of!(build_id, &own);
        // Linkers can be configured to write none; a note of another length than SHA-1's is also possible.
        match id {
            Ok(id) => assert!(id.len() >= 16 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}"),
            Err(error) => panic!("{error}"),
        }
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(at in 0usize..176, value: u8, more in prop::collection::vec((0usize..176, any::<u8>()), 0..12)) {
            let mut bytes = minimal(&note(b"GNU\0", 3, &[0xab; 20]));
            let length = bytes.len();
            bytes[at % length] = value;
            more.into_iter().for_each(|(at, value)| bytes[at % length] = value);
            // A position outside the file would fail the test.
            if let Ok(id) = of!(build_id, &bytes) {
                prop_assert!(id.len() % 2 == 0 && id.len() <= 128, "{}", id);
            }
            for part in of!(code, &bytes).unwrap_or_default() {
                prop_assert!(part.end <= bytes.len() as u64, "{:?}", part);
            }
            let _ = of!(unpacked_bytes, &bytes);
        }
    }
}
