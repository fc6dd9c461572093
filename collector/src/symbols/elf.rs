//! Properties of an ELF file on disk ([`emberline_model::elf`]).

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

pub(crate) use emberline_model::elf::NoBuildId;
use emberline_model::elf::{self, Source};

fn with<T>(file: &File, look: impl FnOnce(Source<'_>) -> Result<T, NoBuildId>) -> Result<T, NoBuildId> {
    let read = |to: &mut [u8], at: u64| -> io::Result<()> { file.read_exact_at(to, at) };
    look(Source {
        length: file.metadata()?.len(),
        read: &read,
    })
}

/// The build id as lower-case hexadecimal.
pub(crate) fn build_id(file: &File) -> Result<String, NoBuildId> {
    with(file, elf::build_id)
}

/// Where its code is in the file; empty if it has none.
pub(crate) fn code(file: &File) -> Result<Vec<Range<u64>>, NoBuildId> {
    with(file, elf::code)
}

/// The size of the compressed sections after decompression, as they claim.
pub(crate) fn unpacked_bytes(file: &File) -> Result<u64, NoBuildId> {
    with(file, elf::unpacked_bytes)
}
