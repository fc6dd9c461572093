//! The GNU build id of an open file ([`emberline_model::elf`]).

use std::{fs::File, io, os::unix::fs::FileExt};

use emberline_model::elf::{self, NoBuildId, Source};

/// The build id in lower-case hexadecimal; `None` for a file without one and for anything but an ELF file.
pub(super) fn build_id(file: &File) -> io::Result<Option<String>> {
    let read = |to: &mut [u8], at: u64| -> io::Result<()> { file.read_exact_at(to, at) };
    let source = Source {
        length: file.metadata()?.len(),
        read: &read,
    };
    match elf::build_id(source) {
        Ok(id) => Ok(Some(id)),
        Err(NoBuildId::Io(error)) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        // The file may have been truncated meanwhile.
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_build_id_is_no_error() {
        assert_eq!(build_id(&File::open("/proc/self/cmdline").unwrap()).unwrap(), None);
    }
}
