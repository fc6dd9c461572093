//! Receiving a file of debug information.
//!
//! Guarantees: an aborted upload leaves nothing behind; no more bytes are written than were declared; an upload slower
//! than [`LEAST_BYTES_PER_S`] is cut off, so that nobody holds a turn for long.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use tokio::{io::AsyncWriteExt, sync::OwnedSemaphorePermit};

use super::{
    claims::SymbolClaim,
    files::{DebugFiles, Kept, Origin},
    unwanted::{LEAST_BYTES_PER_S, MAX_RECEIVING_OF_ADDRESS, Unwanted},
};

/// How long before an upload's speed is checked.
const SLOW_START: Duration = Duration::from_secs(10);

/// How long a sender waits for its turn.
const WAIT_FOR_TURN: Duration = Duration::from_secs(20);

/// A build's slot among those being received.
struct Place {
    files: Arc<DebugFiles>,
    build: String,
    turn: Option<OwnedSemaphorePermit>,
}

impl Place {
    fn new(files: Arc<DebugFiles>, build: String) -> Place {
        Place {
            files,
            build,
            turn: None,
        }
    }

    fn temporary(&self) -> PathBuf {
        self.files.temporary(&self.build)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // After success it has been renamed already.
        let _ = fs::remove_file(self.temporary());
        self.files.received(&self.build);
    }
}

impl DebugFiles {
    /// Starts receiving a file.
    pub(crate) async fn receive(self: &Arc<Self>, build: &str, size: u64, from: Origin) -> Result<Receiving, Unwanted> {
        {
            let mut state = self.state.lock();
            self.check(build, size, &from, &state)?;
            let of_address = state
                .receiving
                .values()
                .filter(|address| **address == from.address)
                .count();
            if of_address >= MAX_RECEIVING_OF_ADDRESS {
                return Err(Unwanted::TooManyOfAddress);
            }
            state.receiving.insert(build.to_owned(), from.address);
        }
        // From here on, dropping `place` frees the name again.
        let mut place = Place::new(Arc::clone(self), build.to_owned());
        place.turn = match tokio::time::timeout(WAIT_FOR_TURN, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(turn)) => Some(turn),
            // The semaphore is never closed, so this was the timeout.
            _ => return Err(Unwanted::TooManyAtOnce),
        };
        Receiving::begin(place, size, from).await
    }
}

/// A file being received; dropping it discards it.
pub(crate) struct Receiving {
    file: tokio::fs::File,
    from: Origin,
    declared: u64,
    received: u64,
    digest: Sha256,
    since: Instant,
    place: Place,
}

impl Receiving {
    async fn begin(place: Place, declared: u64, from: Origin) -> Result<Receiving, Unwanted> {
        let mut options = tokio::fs::OpenOptions::new();
        // It is read back to be checked.
        options.read(true).write(true).create(true).truncate(true);
        let file = options
            .open(place.temporary())
            .await
            .map_err(|error| place.files.disk(&error))?;
        Ok(Receiving {
            file,
            from,
            declared,
            received: 0,
            digest: Sha256::new(),
            since: Instant::now(),
            place,
        })
    }

    /// Adds bytes.
    pub(crate) async fn write(&mut self, chunk: &[u8]) -> Result<(), Unwanted> {
        self.received = self.received.saturating_add(chunk.len() as u64);
        if self.received > self.declared {
            return Err(Unwanted::WrongSize {
                declared: self.declared,
                received: self.received,
            });
        }
        let elapsed = self.since.elapsed();
        if is_slow(elapsed, self.received) {
            return Err(Unwanted::TooSlow {
                received: self.received,
                seconds: elapsed.as_secs(),
            });
        }
        self.digest.update(chunk);
        self.file
            .write_all(chunk)
            .await
            .map_err(|error| self.place.files.disk(&error))
    }

    /// Checks the complete file and keeps it.
    pub(crate) async fn finish(mut self) -> Result<Kept, Unwanted> {
        if self.received != self.declared {
            return Err(Unwanted::WrongSize {
                declared: self.declared,
                received: self.received,
            });
        }
        self.file.flush().await.map_err(|error| self.place.files.disk(&error))?;
        let Receiving {
            file,
            from,
            received,
            digest,
            place,
            ..
        } = self;
        let file = file.into_std().await;
        let digest = digest.finalize();
        let claim = SymbolClaim {
            build_id: place.build.clone(),
            digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            bytes: received,
            path: shown(&from.path),
            sender: shown(&from.sender),
            address: from.address.map_or_else(String::new, |address| address.to_string()),
            received_unix_ms: place.files.now_unix_ms(),
            reported_unix_ms: from.reported_unix_ms,
            refused: None,
            refused_unix_ms: 0,
        };
        let keep = move || {
            let kept = place.files.keep(claim, &place.temporary(), &file);
            if let Err(unwanted @ (Unwanted::WrongFile { .. } | Unwanted::Unreadable(_))) = &kept {
                place
                    .files
                    .refuse_sender(&place.build, from.address, unwanted.to_string());
            }
            kept
        };
        match tokio::task::spawn_blocking(keep).await {
            Ok(kept) => kept,
            Err(error) => Err(Unwanted::Unreadable(error.to_string())),
        }
    }
}

/// A sender's description of itself, as far as it is kept.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(512).collect()
}

/// True for an upload that would hold its turn for too long.
fn is_slow(elapsed: Duration, received: u64) -> bool {
    let allowed = SLOW_START + Duration::from_secs(received / LEAST_BYTES_PER_S);
    elapsed > allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_of_a_byte_now_and_then_is_too_slow_after_ten_seconds() {
        let seconds = Duration::from_secs;
        assert!(!is_slow(seconds(9), 1));
        assert!(is_slow(seconds(12), 2));
        assert!(!is_slow(seconds(60), 60 * LEAST_BYTES_PER_S));
        assert!(is_slow(seconds(80), 60 * LEAST_BYTES_PER_S));
    }
}
