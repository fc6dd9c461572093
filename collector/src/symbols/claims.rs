//! Whose a file of debug information is: `debuginfo/<build id>.claim`, written before the file gets its final name.
//!
//! A build id in a file is a claim, and so is what a sender says about itself: the data plane is hostile. Only the
//! address of a connection is known, and which builds were in profiles from that address. So a file from a sender that
//! reports the build replaces one from a sender that does not; if both report it, the one that began earlier wins. A
//! stranger who knows a build id in advance can plant names only until the first reporter's file arrives. A stranger
//! who reports the build before everyone else counts as its owner; `emberline store symbols forget` corrects that.
//!
//! Guarantees: a claim is complete or missing; an unreadable file leaves its claim behind, so that it is refused even
//! after a restart. The digest covers all bytes: an impostor can change the names, not the code.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Longest claim read.
const MAX_BYTES: u64 = 64 << 10;

/// What is known about a build's debug file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SymbolClaim {
    /// The build.
    pub build_id: String,
    /// SHA-256 of the file; empty if it predates claims.
    pub digest: String,
    /// Its size.
    pub bytes: u64,
    /// Its path at the sender.
    pub path: String,
    /// Name that its sender claims; not verified.
    pub sender: String,
    /// The address it came from.
    pub address: String,
    /// Time of receipt by the server's clock, milliseconds since the Unix epoch.
    pub received_unix_ms: i64,
    /// First time that profiles from this address named the build; absent if none did.
    pub reported_unix_ms: Option<i64>,
    /// Why the file was refused, if it was.
    pub refused: Option<String>,
    /// Time of the refusal, milliseconds since the Unix epoch.
    #[serde(default)]
    pub refused_unix_ms: i64,
}

impl SymbolClaim {
    /// Time of receipt in RFC 3339 format.
    pub fn received(&self) -> String {
        crate::notify::rfc3339::format(self.received_unix_ms)
    }

    /// True when a sender that has reported the build since `reported_unix_ms` has the better claim.
    pub(crate) fn loses_against(&self, reported_unix_ms: Option<i64>) -> bool {
        match (reported_unix_ms, self.reported_unix_ms) {
            (Some(theirs), Some(ours)) => theirs < ours,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}

/// The form of a build id, which also keeps a sender from naming a path.
pub(super) fn is_build_id(text: &str) -> bool {
    (4..=128).contains(&text.len())
        && text.len().is_multiple_of(2)
        && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn path(folder: &Path, build: &str, extension: &str) -> PathBuf {
    folder.join(format!("{build}.{extension}"))
}

/// The path of a build's file.
pub(crate) fn file_path(folder: &Path, build: &str) -> PathBuf {
    path(folder, build, "debug")
}

/// The path of its claim.
pub(crate) fn claim_path(folder: &Path, build: &str) -> PathBuf {
    path(folder, build, "claim")
}

/// The path that marks the file as being read.
pub(crate) fn mark_path(folder: &Path, build: &str) -> PathBuf {
    path(folder, build, "reading")
}

/// The directory of debug information in a data directory.
pub(crate) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("debuginfo")
}

/// The claim of a build. A file without one predates claims: it counts as a reporter's, from the time it arrived;
/// otherwise every process in the mesh would send its file again.
pub(crate) fn read(folder: &Path, build: &str) -> Option<SymbolClaim> {
    let path = claim_path(folder, build);
    let claim = fs::metadata(&path)
        .ok()
        .filter(|data| data.is_file() && data.len() <= MAX_BYTES)
        .and_then(|_| serde_json::from_slice(&fs::read(&path).ok()?).ok());
    claim.or_else(|| {
        let data = fs::metadata(file_path(folder, build)).ok()?;
        let since = data.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        let since_ms = i64::try_from(since.as_millis()).ok()?;
        Some(SymbolClaim {
            build_id: build.to_owned(),
            bytes: data.len(),
            received_unix_ms: since_ms,
            reported_unix_ms: Some(since_ms),
            ..SymbolClaim::default()
        })
    })
}

/// Writes a claim atomically.
pub(crate) fn write(folder: &Path, claim: &SymbolClaim) -> io::Result<()> {
    let temporary = path(folder, &claim.build_id, "claim-tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(claim).map_err(io::Error::other)?)?;
    file.sync_all()?;
    fs::rename(&temporary, claim_path(folder, &claim.build_id))
}

/// All claims in a data directory, by build, including those of removed files.
pub fn symbol_claims(data_dir: &Path) -> io::Result<Vec<SymbolClaim>> {
    let folder = folder(data_dir);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut builds: Vec<String> = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "claim" || e == "debug")
            && let Some(build) = path.file_stem()
        {
            builds.push(build.to_string_lossy().into_owned());
        }
    }
    builds.sort();
    builds.dedup();
    Ok(builds.iter().filter_map(|build| read(&folder, build)).collect())
}

/// Removes a build's file, its claim and its refusal; true if there was something to remove. Only for a store that is
/// not open.
pub fn forget_symbol_file(data_dir: &Path, build: &str) -> io::Result<bool> {
    if !is_build_id(build) {
        return Ok(false);
    }
    let folder = folder(data_dir);
    let mut there = false;
    for path in [file_path, claim_path, mark_path].map(|of| of(&folder, build)) {
        match fs::remove_file(&path) {
            Ok(()) => there = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reporter_wins_against_a_stranger_and_the_earlier_one_against_the_later() {
        let claim = |reported_unix_ms| SymbolClaim {
            reported_unix_ms,
            ..SymbolClaim::default()
        };
        assert!(claim(None).loses_against(Some(9)));
        assert!(!claim(None).loses_against(None));
        assert!(claim(Some(5)).loses_against(Some(4)));
        assert!(!claim(Some(5)).loses_against(Some(5)) && !claim(Some(5)).loses_against(None));
    }

    #[test]
    fn claims_round_trip_and_files_of_before_are_a_reporters() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(dir.path());
        assert_eq!(symbol_claims(dir.path()).unwrap(), []);
        fs::create_dir_all(&folder).unwrap();
        let claim = SymbolClaim {
            build_id: "abcd".to_owned(),
            digest: "00ff".to_owned(),
            refused: Some("too large".to_owned()),
            ..SymbolClaim::default()
        };
        write(&folder, &claim).unwrap();
        fs::write(file_path(&folder, "cafe"), b"12345").unwrap();
        let all = symbol_claims(dir.path()).unwrap();
        assert_eq!(all[0], claim);
        assert_eq!((all[1].build_id.as_str(), all[1].bytes), ("cafe", 5));
        assert!(all[1].reported_unix_ms.is_some());
        assert!(forget_symbol_file(dir.path(), "abcd").unwrap() && !forget_symbol_file(dir.path(), "abcd").unwrap());
        assert!(!forget_symbol_file(dir.path(), "../LOCK").unwrap());
        assert_eq!(symbol_claims(dir.path()).unwrap().len(), 1);
    }
}
