//! The folder of debug information files: `debuginfo/<build id>.debug`.
//!
//! Guarantees: a file that is there is whole, synced, and carries the build id it is named by (it is received under
//! another name and renamed last); one sender at a time sends a build; the folder never holds more than its limit for
//! longer than it takes to remove the oldest file. What was refused is remembered for an hour, so that no sender of a
//! large mesh sends the same wrong file again.
//!
//! Wrong on purpose: "oldest" is when a file was received, not when it was last used; once its locations have names a
//! file is hardly used again.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use emberline_model::time::Clock;
use parking_lot::Mutex;
use tokio::{
    io::AsyncWriteExt,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::elf;

/// How long a refusal is remembered, in seconds.
const REMEMBER_REFUSAL_S: i64 = 3600;
/// Refusals remembered.
const MAX_REFUSALS: usize = 1_000;
/// Files received at the same time.
const MAX_RECEIVING: usize = 4;
/// How long a sender waits for its turn.
const WAIT_FOR_TURN: Duration = Duration::from_secs(20);

/// Why a file is not wanted or not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unwanted {
    /// The build id is not one.
    #[error("`{0}` is not a build id: 4 to 128 hexadecimal digits, an even number of them")]
    NotABuildId(String),
    /// It is there.
    #[error("already stored")]
    Stored,
    /// Another process is sending it.
    #[error("being sent by another process")]
    BeingSent,
    /// Several files are being received.
    #[error("{MAX_RECEIVING} other files are being received; send it again later")]
    TooManyAtOnce,
    /// Larger than allowed.
    #[error(
        "too large: {size} bytes, and `debuginfo_max_bytes` is {limit}; send a file without what is not needed, or raise the setting"
    )]
    TooLarge {
        /// Its size.
        size: u64,
        /// The setting.
        limit: u64,
    },
    /// The bytes do not add up to the declared size.
    #[error("the header declared {declared} bytes and {received} arrived{}", if .received < .declared { ": the file is truncated" } else { "" })]
    WrongSize {
        /// Said in the header.
        declared: u64,
        /// Counted.
        received: u64,
    },
    /// Not what it was sent as.
    #[error("it is not an ELF file of build {wanted}: {found}")]
    WrongFile {
        /// The build it was sent for.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// Refused some time ago.
    #[error("refused before: {0}")]
    RefusedBefore(String),
    /// The disk failed.
    #[error("the file cannot be stored in {path}: {reason}; make room or repair the disk, then send again")]
    Disk {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

#[derive(Debug, Default)]
struct State {
    receiving: HashSet<String>,
    /// Build id → (when, why).
    refused: HashMap<String, (i64, String)>,
}

/// The folder.
pub(crate) struct DebugFiles {
    dir: PathBuf,
    max_bytes: u64,
    total_bytes: u64,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    turns: Arc<Semaphore>,
}

impl DebugFiles {
    /// Opens the folder in a data directory; what was half received before a restart is removed.
    pub(crate) fn open(
        data_dir: &Path,
        max_bytes: u64,
        total_bytes: u64,
        clock: Arc<dyn Clock>,
    ) -> io::Result<DebugFiles> {
        let dir = data_dir.join("debuginfo");
        fs::create_dir_all(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "tmp") {
                fs::remove_file(&path)?;
            }
        }
        Ok(DebugFiles {
            dir,
            max_bytes,
            total_bytes,
            clock,
            state: Mutex::default(),
            turns: Arc::new(Semaphore::new(MAX_RECEIVING)),
        })
    }

    /// The file of a build, when it is there.
    pub(crate) fn find(&self, build: &str) -> Option<PathBuf> {
        let path = self.path(build);
        (is_build_id(build) && path.is_file()).then_some(path)
    }

    /// Whether a file would be taken.
    pub(crate) fn wanted(&self, build: &str, size: u64) -> Result<(), Unwanted> {
        self.check(build, size, &self.state.lock())
    }

    fn check(&self, build: &str, size: u64, state: &State) -> Result<(), Unwanted> {
        if !is_build_id(build) {
            return Err(Unwanted::NotABuildId(build.chars().take(140).collect()));
        }
        if size > self.max_bytes {
            return Err(Unwanted::TooLarge {
                size,
                limit: self.max_bytes,
            });
        }
        if self.path(build).exists() {
            return Err(Unwanted::Stored);
        }
        if state.receiving.contains(build) {
            return Err(Unwanted::BeingSent);
        }
        match state.refused.get(build) {
            Some((at, why)) if self.clock.now_unix_s() - at < REMEMBER_REFUSAL_S => {
                Err(Unwanted::RefusedBefore(why.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Begins to receive a file.
    pub(crate) async fn receive(self: &Arc<Self>, build: &str, size: u64) -> Result<Receiving, Unwanted> {
        {
            let mut state = self.state.lock();
            self.check(build, size, &state)?;
            state.receiving.insert(build.to_owned());
        }
        // From here on, dropping `place` frees the name again.
        let mut place = Place {
            files: Arc::clone(self),
            build: build.to_owned(),
            turn: None,
        };
        place.turn = match tokio::time::timeout(WAIT_FOR_TURN, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(turn)) => Some(turn),
            // The semaphore is never closed, so this is the wait that took too long.
            _ => return Err(Unwanted::TooManyAtOnce),
        };
        let mut options = tokio::fs::OpenOptions::new();
        // It is read back to see what it is.
        options.read(true).write(true).create(true).truncate(true);
        let file = options
            .open(place.temporary())
            .await
            .map_err(|error| self.disk(&error))?;
        Ok(Receiving {
            file,
            declared: size,
            received: 0,
            place,
        })
    }

    /// Remembers that a build's file is of no use, and removes it.
    pub(crate) fn refuse(&self, build: &str, why: String) {
        let now = self.clock.now_unix_s();
        let mut state = self.state.lock();
        if state.refused.len() >= MAX_REFUSALS {
            state.refused.retain(|_, (at, _)| now - *at < REMEMBER_REFUSAL_S);
        }
        if state.refused.len() < MAX_REFUSALS {
            state.refused.insert(build.to_owned(), (now, why));
        }
        drop(state);
        if is_build_id(build) {
            // Gone already is as good.
            let _ = fs::remove_file(self.path(build));
        }
    }

    fn path(&self, build: &str) -> PathBuf {
        self.dir.join(format!("{build}.debug"))
    }

    fn disk(&self, error: &io::Error) -> Unwanted {
        Unwanted::Disk {
            path: self.dir.clone(),
            reason: error.to_string(),
        }
    }

    /// Checks a received file and gives it its name.
    fn keep(&self, build: &str, temporary: &Path, file: &File) -> Result<(), Unwanted> {
        match elf::build_id(file) {
            Ok(found) if found == build => {}
            Ok(found) => {
                return Err(Unwanted::WrongFile {
                    wanted: build.to_owned(),
                    found: format!("it is of build {found}"),
                });
            }
            Err(elf::NoBuildId::Io(error)) => return Err(self.disk(&error)),
            Err(why) => {
                return Err(Unwanted::WrongFile {
                    wanted: build.to_owned(),
                    found: why.to_string(),
                });
            }
        }
        if elf::code(file).map_or(true, |code| code.is_empty()) {
            let found = "it holds no code, only debug information; send the file that runs".to_owned();
            return Err(Unwanted::WrongFile {
                wanted: build.to_owned(),
                found,
            });
        }
        let keep = || {
            file.sync_all()?;
            fs::rename(temporary, self.path(build))?;
            File::open(&self.dir)?.sync_all()
        };
        keep().map_err(|error| self.disk(&error))?;
        self.make_room(build).map_err(|error| self.disk(&error))
    }

    /// Removes the oldest files until the folder is within its limit; never the one just received.
    fn make_room(&self, newest: &str) -> io::Result<()> {
        let newest = self.path(newest);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let data = entry.metadata()?;
            if data.is_file() && entry.path().extension().is_some_and(|e| e == "debug") {
                files.push((data.modified()?, entry.path(), data.len()));
            }
        }
        let mut total: u64 = files.iter().map(|f| f.2).sum();
        files.sort();
        for (_, path, size) in files {
            if total <= self.total_bytes {
                break;
            }
            if path != newest {
                tracing::info!(file = %path.display(), limit = self.total_bytes, "removes the oldest debug information: `debuginfo_total_bytes`");
                fs::remove_file(&path)?;
                total -= size;
            }
        }
        Ok(())
    }
}

/// Also what keeps a sender from naming a path.
fn is_build_id(text: &str) -> bool {
    (4..=128).contains(&text.len())
        && text.len().is_multiple_of(2)
        && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A build's place among those being received.
struct Place {
    files: Arc<DebugFiles>,
    build: String,
    turn: Option<OwnedSemaphorePermit>,
}

impl Place {
    fn temporary(&self) -> PathBuf {
        self.files.dir.join(format!("{}.tmp", self.build))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // After success the name is gone already.
        let _ = fs::remove_file(self.temporary());
        self.files.state.lock().receiving.remove(&self.build);
    }
}

/// A file on its way in; dropping it forgets it.
pub(crate) struct Receiving {
    file: tokio::fs::File,
    declared: u64,
    received: u64,
    place: Place,
}

impl Receiving {
    /// Adds bytes.
    pub(crate) async fn write(&mut self, chunk: &[u8]) -> Result<(), Unwanted> {
        self.received = self.received.saturating_add(chunk.len() as u64);
        if self.received > self.declared {
            return Err(Unwanted::WrongSize {
                declared: self.declared,
                received: self.received,
            });
        }
        self.file
            .write_all(chunk)
            .await
            .map_err(|error| self.place.files.disk(&error))
    }

    /// Checks the whole file and keeps it; says how many bytes it has.
    pub(crate) async fn finish(mut self) -> Result<u64, Unwanted> {
        if self.received != self.declared {
            return Err(Unwanted::WrongSize {
                declared: self.declared,
                received: self.received,
            });
        }
        self.file.flush().await.map_err(|error| self.place.files.disk(&error))?;
        let Receiving {
            file, received, place, ..
        } = self;
        let file = file.into_std().await;
        let keep = move || {
            let kept = place.files.keep(&place.build, &place.temporary(), &file);
            if let Err(Unwanted::WrongFile { .. }) = &kept {
                let why = kept.as_ref().map_or_else(ToString::to_string, |()| String::new());
                place.files.refuse(&place.build, why);
            }
            kept.map(|()| received)
        };
        match tokio::task::spawn_blocking(keep).await {
            Ok(kept) => kept,
            Err(error) => Err(Unwanted::WrongFile {
                wanted: String::new(),
                found: error.to_string(),
            }),
        }
    }
}
