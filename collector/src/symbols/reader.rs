//! The other side of [`super::child`]: a process that reads debug information and does nothing else.
//!
//! Guarantees: it confines itself ([`super::confine`]) before it is given a file; a file that makes it run out of
//! memory or time, or crash, ends only this process.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
};

use super::{
    confine, elf,
    symbolise::Symboliser,
    wire::{self, Answer, Ask, HELLO},
};

/// Serves symbol lookups on standard input and output until end of input. A program that embeds the collector calls
/// only this when started with the command line in [`crate::CollectorConfig::symbol_reader`].
pub fn read_symbols() -> ExitCode {
    match answer_all() {
        Ok(()) => ExitCode::SUCCESS,
        // The worker notices that there is no response.
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer_all() -> io::Result<()> {
    let unconfined = confine::give_up_rights().err().unwrap_or_default();
    let (mut questions, mut answers) = (io::stdin().lock(), io::stdout().lock());
    answers.write_all(HELLO)?;
    answers.flush()?;
    let mut symboliser: Option<Symboliser> = None;
    while let Some(ask) = wire::read::<Ask>(&mut questions)? {
        let mut answer = answer(&ask, &mut symboliser).unwrap_or_else(Answer::failed);
        answer.unconfined.clone_from(&unconfined);
        wire::write(&mut answers, &answer)?;
    }
    Ok(())
}

fn answer(ask: &Ask, symboliser: &mut Option<Symboliser>) -> Result<Answer, String> {
    let path = Path::new(OsStr::from_bytes(&ask.path));
    if symboliser.is_none() {
        // Its pages are mapped; they belong to the disk, not to this process's memory, but count as address space.
        let file_bytes = fs::metadata(path).map_err(|error| error.to_string())?.len();
        confine::bound_memory(file_bytes.saturating_add(ask.memory_bytes))?;
    }
    confine::bound_cpu(ask.cpu_seconds)?;
    let reader = symboliser.get_or_insert_with(Symboliser::new);
    let frames = || reader.frames(path, &ask.offsets);
    let read = catch_unwind(AssertUnwindSafe(frames));
    let frames = read.unwrap_or_else(|_| {
        // State left by a panic is not reused.
        *symboliser = None;
        Err("the symbol reader failed on it; this is a bug in Emberline".to_owned())
    })?;
    Ok(Answer::of(&frames))
}

/// Whether a file may be given to the reader at all; otherwise, why not.
pub(super) fn is_readable(path: &Path, unpacked_limit: u64) -> Result<(), String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    match elf::unpacked_bytes(&file) {
        Ok(bytes) if bytes <= unpacked_limit => Ok(()),
        Ok(u64::MAX) => Err("its section table is too long".to_owned()),
        Ok(bytes) => Err(format!(
            "its compressed sections decompress to {bytes} bytes, and `max_unpacked_debug_mb` allows {unpacked_limit}; send it uncompressed, strip what is not needed (`strip --strip-debug` keeps function names), or raise the setting"
        )),
        Err(error) => Err(error.to_string()),
    }
}
