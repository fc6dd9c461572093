//! The directory of debug information files: `debuginfo/<build id>.debug`.
//!
//! Guarantees: an existing file is complete, synced, and has the build id in its name (it is received under another
//! name and renamed last); only one sender at a time sends a build; the directory exceeds its limits only for as long
//! as it takes to remove a file, starting with those that nothing stored refers to; the space that the store must keep
//! free is not used. Whose a file is decides who may replace it ([`super::claims`]).
//!
//! What was wrong with a file is remembered for an hour, for its sender only, so that nobody can block a build for
//! others; an unreadable file is remembered for a day with its claim. An address gets at most half of the turns, and
//! none for long ([`super::receiving`]).
//!
//! Wrong on purpose: "oldest" refers to when a file was received, not when it was last used; once its locations have
//! names, a file is hardly used again.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use emberline_model::time::Clock;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{
    claims::{self, SymbolClaim, is_build_id},
    elf, reader,
    unwanted::{MAX_RECEIVING, Unwanted},
};

/// How long the refusal of a sender's file is remembered, in seconds.
const REMEMBER_REFUSAL_S: i64 = 3600;
/// How long an unreadable file is remembered, in milliseconds.
const REMEMBER_UNREADABLE_MS: i64 = 24 * 3600 * 1000;
/// Refusals remembered.
const MAX_REFUSALS: usize = 10_000;
/// Files kept, however small.
const MAX_FILES: usize = 10_000;

/// Settings of the directory.
pub(crate) struct FileLimits {
    /// `max_debug_file_mb`.
    pub(crate) max_bytes: u64,
    /// `max_debug_files_mb`.
    pub(crate) total_bytes: u64,
    /// `max_unpacked_debug_mb`.
    pub(crate) unpacked_bytes: u64,
    /// Bytes of the disk that stay free.
    pub(crate) keep_free_bytes: u64,
}

/// What the directory needs from the store.
pub(crate) trait Surroundings: Send + Sync {
    /// Build ids that stored data refers to.
    fn builds(&self) -> HashSet<String>;
    /// Bytes free on the disk.
    fn free_bytes(&self) -> u64;
}

/// The sender of a file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    /// The address, if known.
    pub(crate) address: Option<IpAddr>,
    /// Since when it has reported the build.
    pub(crate) reported_unix_ms: Option<i64>,
    /// What it calls itself.
    pub(crate) sender: String,
    /// Its path for the file.
    pub(crate) path: String,
}

/// A file that was kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Its size.
    pub(crate) bytes: u64,
    /// It replaced another one, whose names are not trustworthy.
    pub(crate) replaced: bool,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Builds being received, and from where.
    pub(super) receiving: HashMap<String, Option<IpAddr>>,
    /// Build id and sender → (when, why).
    refused: HashMap<(String, Option<IpAddr>), (i64, String)>,
}

/// The directory.
pub(crate) struct DebugFiles {
    dir: PathBuf,
    limits: FileLimits,
    clock: Arc<dyn Clock>,
    surroundings: Box<dyn Surroundings>,
    pub(super) state: Mutex<State>,
    pub(super) turns: Arc<Semaphore>,
}

/// A file being read; dropping it ends the reading.
pub(crate) struct BeingRead {
    pub(crate) path: PathBuf,
    digest: String,
    mark: PathBuf,
}

impl Drop for BeingRead {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.mark);
    }
}

impl DebugFiles {
    /// Opens the directory in a data directory; partially received files from before a restart are removed, and a file
    /// that was being read when the server died is refused: it may be the cause.
    pub(crate) fn open(
        data_dir: &Path,
        limits: FileLimits,
        clock: Arc<dyn Clock>,
        surroundings: Box<dyn Surroundings>,
    ) -> io::Result<DebugFiles> {
        // Absolute: the reader process has another working directory.
        let dir = std::path::absolute(claims::folder(data_dir))?;
        fs::create_dir_all(&dir)?;
        let files = DebugFiles {
            dir,
            limits,
            clock,
            surroundings,
            state: Mutex::default(),
            turns: Arc::new(Semaphore::new(MAX_RECEIVING)),
        };
        for entry in fs::read_dir(&files.dir)? {
            let path = entry?.path();
            let build = path
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
                .unwrap_or_default();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("tmp" | "claim-tmp") => fs::remove_file(&path)?,
                Some("reading") => {
                    let why = "the server stopped while reading it; run `emberline store symbols forget` so that it can be sent again";
                    tracing::warn!(build, "debug file refused: {why}");
                    files.refuse(&build, why.to_owned());
                    fs::remove_file(&path)?;
                }
                _ => {}
            }
        }
        Ok(files)
    }

    /// The file of a build, if it exists and its locations may be looked up; marked as being read.
    pub(crate) fn begin_reading(&self, build: &str) -> Option<Result<BeingRead, String>> {
        let path = claims::file_path(&self.dir, build);
        if !is_build_id(build) || !path.is_file() {
            return None;
        }
        // Files from before this check existed are checked here.
        if let Err(why) = reader::is_readable(&path, self.limits.unpacked_bytes) {
            return Some(Err(why));
        }
        let mark = claims::mark_path(&self.dir, build);
        if let Err(error) = File::create(&mark) {
            tracing::warn!(build, %error, "cannot create the in-progress marker; postponing the file");
            return None;
        }
        let digest = claims::read(&self.dir, build)
            .map(|claim| claim.digest)
            .unwrap_or_default();
        Some(Ok(BeingRead { path, digest, mark }))
    }

    /// True if the file that was read still belongs to its build.
    pub(crate) fn is_current(&self, build: &str, read: &BeingRead) -> bool {
        read.path.is_file() && claims::read(&self.dir, build).is_some_and(|claim| claim.digest == read.digest)
    }

    /// Whether a file would be accepted.
    pub(crate) fn wanted(&self, build: &str, size: u64, from: &Origin) -> Result<(), Unwanted> {
        self.check(build, size, from, &self.state.lock())
    }

    pub(super) fn check(&self, build: &str, size: u64, from: &Origin, state: &State) -> Result<(), Unwanted> {
        if !is_build_id(build) {
            return Err(Unwanted::NotABuildId(build.chars().take(140).collect()));
        }
        let limit = self.limits.max_bytes;
        if size > limit {
            return Err(Unwanted::TooLarge { size, limit });
        }
        if let Some(claim) = claims::read(&self.dir, build)
            && !claim.loses_against(from.reported_unix_ms)
        {
            if let Some(why) = self.refusal(&claim) {
                return Err(Unwanted::RefusedBefore(why.to_owned()));
            }
            if claims::file_path(&self.dir, build).exists() {
                return Err(Unwanted::Stored);
            }
        }
        if state.receiving.contains_key(build) {
            return Err(Unwanted::BeingSent);
        }
        match state.refused.get(&(build.to_owned(), from.address)) {
            Some((at, why)) if self.clock.now_unix_s() - at < REMEMBER_REFUSAL_S => {
                return Err(Unwanted::RefusedBefore(why.clone()));
            }
            _ => {}
        }
        let (free, kept) = (self.surroundings.free_bytes(), self.limits.keep_free_bytes);
        if free < size.saturating_add(kept) {
            return Err(Unwanted::NoRoom { size, free, kept });
        }
        Ok(())
    }

    /// Remembers that a build's file is unusable, and removes it.
    pub(crate) fn refuse(&self, build: &str, why: String) {
        if !is_build_id(build) {
            return;
        }
        let claim = claims::read(&self.dir, build).unwrap_or_else(|| SymbolClaim {
            build_id: build.to_owned(),
            ..SymbolClaim::default()
        });
        self.remember_unreadable(claim, why);
        // It may already be gone.
        let _ = fs::remove_file(claims::file_path(&self.dir, build));
    }

    /// Why the file of a claim was refused, for as long as that is remembered.
    fn refusal<'a>(&self, claim: &'a SymbolClaim) -> Option<&'a str> {
        let age_ms = self.clock.now_unix_ms().saturating_sub(claim.refused_unix_ms);
        claim.refused.as_deref().filter(|_| age_ms < REMEMBER_UNREADABLE_MS)
    }

    fn remember_unreadable(&self, claim: SymbolClaim, why: String) {
        let claim = SymbolClaim {
            refused: Some(why),
            refused_unix_ms: self.clock.now_unix_ms(),
            ..claim
        };
        if let Err(error) = claims::write(&self.dir, &claim) {
            tracing::warn!(build = claim.build_id, %error, "cannot record that a debug file is refused");
        }
    }

    /// Remembers what was wrong with a sender's file.
    pub(super) fn refuse_sender(&self, build: &str, address: Option<IpAddr>, why: String) {
        let now = self.clock.now_unix_s();
        let mut state = self.state.lock();
        if state.refused.len() >= MAX_REFUSALS {
            state.refused.retain(|_, (at, _)| now - *at < REMEMBER_REFUSAL_S);
        }
        if state.refused.len() < MAX_REFUSALS {
            state.refused.insert((build.to_owned(), address), (now, why));
        }
    }

    pub(super) fn disk(&self, error: &io::Error) -> Unwanted {
        Unwanted::Disk {
            path: self.dir.clone(),
            reason: error.to_string(),
        }
    }

    /// The path of a file while it is received.
    pub(super) fn temporary(&self, build: &str) -> PathBuf {
        self.dir.join(format!("{build}.tmp"))
    }

    /// Frees the slot of a build that was being received.
    pub(super) fn received(&self, build: &str) {
        self.state.lock().receiving.remove(build);
    }

    /// Milliseconds since the Unix epoch.
    pub(super) fn now_unix_ms(&self) -> i64 {
        self.clock.now_unix_ms()
    }

    /// Checks a received file and gives it its final name.
    pub(super) fn keep(&self, claim: SymbolClaim, temporary: &Path, file: &File) -> Result<Kept, Unwanted> {
        let build = claim.build_id.as_str();
        let wrong = |found: String| Unwanted::WrongFile {
            wanted: build.to_owned(),
            found,
        };
        match elf::build_id(file) {
            Ok(found) if found == build => {}
            Ok(found) => return Err(wrong(format!("it belongs to build {found}"))),
            Err(elf::NoBuildId::Io(error)) => return Err(self.disk(&error)),
            Err(why) => return Err(wrong(why.to_string())),
        }
        if elf::code(file).map_or(true, |code| code.is_empty()) {
            let found = "it contains no code, only debug information; send the executable itself";
            return Err(wrong(found.to_owned()));
        }
        let before = claims::read(&self.dir, build);
        let path = claims::file_path(&self.dir, build);
        let is_same = before.as_ref().is_some_and(|before| before.digest == claim.digest);
        if let Some(before) = &before {
            match self.refusal(before) {
                Some(why) if is_same => return Err(Unwanted::RefusedBefore(why.to_owned())),
                // Its file made room for others, but the names found in it are still there.
                None if !is_same && before.refused.is_none() && !before.loses_against(claim.reported_unix_ms) => {
                    let why = "the names of this build come from another file, whose sender takes precedence; remove them with `emberline store symbols forget`";
                    return Err(Unwanted::RefusedBefore(why.to_owned()));
                }
                _ => {}
            }
        }
        if let Err(why) = reader::is_readable(temporary, self.limits.unpacked_bytes) {
            // If a file is still there, its claim stays.
            if !path.exists() {
                self.remember_unreadable(claim, why.clone());
            }
            return Err(Unwanted::Unreadable(why));
        }
        let replaced = before.is_some_and(|before| before.refused.is_none() && !is_same);
        let kept = Kept {
            bytes: claim.bytes,
            replaced,
        };
        let keep = || {
            file.sync_all()?;
            claims::write(&self.dir, &claim)?;
            fs::rename(temporary, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        keep().map_err(|error| self.disk(&error))?;
        self.make_room(&path).map_err(|error| self.disk(&error))?;
        Ok(kept)
    }

    /// Removes files until the directory is within its limits: first those of builds that nothing stored refers to,
    /// then the oldest; never the one just received. Claims of builds that are referred to stay: they record where the
    /// names came from.
    fn make_room(&self, newest: &Path) -> io::Result<()> {
        let mut files = Vec::new();
        let mut claims_alone = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            // A file removed meanwhile is gone.
            let Ok(data) = fs::metadata(&path) else { continue };
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("debug") => files.push((data.modified()?, path, data.len())),
                Some("claim") if !path.with_extension("debug").exists() => {
                    claims_alone.push((data.modified()?, path, 0));
                }
                _ => {}
            }
        }
        let mut total: u64 = files.iter().map(|f| f.2).sum();
        let mut count = files.len();
        if total <= self.limits.total_bytes && count + claims_alone.len() <= MAX_FILES {
            return Ok(());
        }
        let referred_to = self.surroundings.builds();
        let is_referred_to = |path: &Path| {
            path.file_stem()
                .is_some_and(|build| referred_to.contains(&*build.to_string_lossy()))
        };
        files.sort_by_cached_key(|(at, path, _)| (is_referred_to(path), *at));
        for (_, path, size) in files {
            if total <= self.limits.total_bytes && count <= MAX_FILES {
                break;
            }
            if path != newest {
                tracing::info!(file = %path.display(), limit = self.limits.total_bytes, "removing debug files: their total size exceeds `max_debug_files_mb`");
                fs::remove_file(&path)?;
                if !is_referred_to(&path) {
                    let _ = fs::remove_file(path.with_extension("claim"));
                }
                total -= size;
                count -= 1;
            }
        }
        claims_alone.sort_by_cached_key(|(at, path, _)| (is_referred_to(path), *at));
        let too_many = (count + claims_alone.len()).saturating_sub(MAX_FILES);
        for (_, path, _) in claims_alone.into_iter().take(too_many) {
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}
