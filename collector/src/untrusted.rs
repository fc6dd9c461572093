//! Readers of senders' files, exposed for the fuzz targets (`tests/fuzz`). Not part of the public interface.

use std::{fs::File, io::Write};

use crate::symbols::elf;

/// Reads the build id and the code ranges of a file.
pub fn elf(bytes: &[u8]) {
    let Ok(memory) = rustix::fs::memfd_create("elf", rustix::fs::MemfdFlags::CLOEXEC) else {
        return;
    };
    let mut file = File::from(memory);
    if file.write_all(bytes).is_err() {
        return;
    }
    if let Ok(id) = elf::build_id(&file) {
        assert!(
            id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "a build id is hexadecimal"
        );
    }
    for code in elf::code(&file).unwrap_or_default() {
        assert!(code.end <= bytes.len() as u64, "code is in the file");
    }
}
