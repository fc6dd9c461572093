//! The GNU build id of a file, read from its notes.
//!
//! Guarantee: reads a few kilobytes at most, whatever the file says about itself, and never panics on one that is no
//! ELF file. Wrong on purpose: only 64-bit little-endian files are read, the ones whose code can be running here.
//!
//! Source: System V ABI, chapters "ELF header", "Program header" and "Note section"; the note's type is
//! `NT_GNU_BUILD_ID`.

use std::{fs::File, io, os::unix::fs::FileExt};

const PROGRAM_HEADER_BYTES: usize = 56;
const MOST_PROGRAM_HEADERS: usize = 128;
const MOST_NOTE_BYTES: u64 = 64 << 10;
const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The build id in lower-case hexadecimal; `None` for a file without one and for what is no ELF file.
pub(super) fn build_id(file: &File) -> io::Result<Option<String>> {
    let mut header = [0; 64];
    if !read_exactly(file, &mut header, 0)? || header[..6] != *b"\x7fELF\x02\x01" {
        return Ok(None);
    }
    let (Some(table_at), Some(entry_bytes), Some(entries)) =
        (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56))
    else {
        return Ok(None);
    };
    if usize::from(entry_bytes) != PROGRAM_HEADER_BYTES || usize::from(entries) > MOST_PROGRAM_HEADERS {
        return Ok(None);
    }
    let mut table = vec![0; PROGRAM_HEADER_BYTES * usize::from(entries)];
    if !read_exactly(file, &mut table, table_at)? {
        return Ok(None);
    }
    for segment in table.chunks_exact(PROGRAM_HEADER_BYTES) {
        let (Some(kind), Some(at), Some(length), Some(alignment)) = (
            u32_at(segment, 0),
            u64_at(segment, 8),
            u64_at(segment, 32),
            u64_at(segment, 48),
        ) else {
            continue;
        };
        if kind != PT_NOTE || length > MOST_NOTE_BYTES {
            continue;
        }
        let mut notes = vec![0; length as usize];
        if read_exactly(file, &mut notes, at)?
            && let Some(id) = find_build_id(&notes, if alignment == 8 { 8 } else { 4 })
        {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// False when the file ends before.
fn read_exactly(file: &File, to: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(to, at) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput) => Ok(false),
        Err(error) => Err(error),
    }
}

fn find_build_id(mut notes: &[u8], alignment: usize) -> Option<String> {
    loop {
        let name_bytes = u32_at(notes, 0)? as usize;
        let value_bytes = u32_at(notes, 4)? as usize;
        let kind = u32_at(notes, 8)?;
        let value_at = 12usize.checked_add(name_bytes)?.checked_next_multiple_of(alignment)?;
        let value_end = value_at.checked_add(value_bytes)?;
        let name = notes.get(12..12 + name_bytes)?;
        let value = notes.get(value_at..value_end)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" && !value.is_empty() {
            return Some(value.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = notes.get(value_end.checked_next_multiple_of(alignment)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_test_binary_has_a_build_id_or_none_but_no_error() {
        let own = File::open("/proc/self/exe").unwrap();
        if let Some(id) = build_id(&own).unwrap() {
            assert!(id.len() >= 16 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        }
        assert_eq!(build_id(&File::open("/proc/self/cmdline").unwrap()).unwrap(), None);
    }

    #[test]
    fn a_build_id_behind_another_note_is_found() {
        let mut notes = Vec::new();
        for (name, kind, value) in [(&b"XYZ\0"[..], 1u32, &[9u8; 5][..]), (b"GNU\0", 3, &[0xab, 0xcd])] {
            notes.extend((name.len() as u32).to_le_bytes());
            notes.extend((value.len() as u32).to_le_bytes());
            notes.extend(kind.to_le_bytes());
            notes.extend(name);
            notes.extend(value);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        assert_eq!(find_build_id(&notes, 4).as_deref(), Some("abcd"));
        assert_eq!(find_build_id(&notes[..notes.len() - 4], 4), None);
    }

    proptest! {
        #[test]
        fn notes_of_any_bytes_do_no_harm(notes in prop::collection::vec(any::<u8>(), 0..200), alignment in prop::sample::select(vec![4usize, 8])) {
            let _ = find_build_id(&notes, alignment);
        }
    }
}
