//! How compacted parts replace, all at once, the parts they were made of.
//!
//! Guarantee: at every moment, crashes included, a row counts once. Compacted parts are named first and mean nothing
//! yet; then a commit, an empty file whose name gives their hours and sequence, appears, and from then on everything of
//! these hours with a lower sequence is replaced; then that is removed, and the commit last. A start finishes whatever
//! was interrupted: without a commit it removes the compacted parts, with one the parts that they replace. A part
//! rewritten without the rows of a deleted service keeps its hours and its sequence and has fewer rows than its twin,
//! which it replaces.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use super::{MAX_HOURS, PartName};
use crate::{
    disk::{Disk, replace_file},
    hot::hours,
};

/// States that the parts of these hours and this sequence replace those with a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Commit {
    /// First hour.
    pub(crate) hour: u32,
    /// How many hours.
    pub(crate) hours: u32,
    /// The sequence of the compacted parts.
    pub(crate) sequence: u32,
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hour = hours::name_of(self.hour);
        write!(f, "compacted-{hour}-{:02}-{:04}.commit", self.hours, self.sequence)
    }
}

impl Commit {
    /// Parses a commit from the name of a file.
    pub(crate) fn parse(path: &Path) -> Option<Commit> {
        let name = path.file_name()?.to_str()?;
        let mut fields = name.strip_prefix("compacted-")?.strip_suffix(".commit")?.split('-');
        let commit = Commit {
            hour: hours::from_name(fields.next()?)?,
            hours: fields.next()?.parse().ok()?,
            sequence: fields.next()?.parse().ok()?,
        };
        (commit.to_string() == name).then_some(commit)
    }

    /// True for parts that the compacted ones replace.
    pub(crate) fn replaces(&self, name: &PartName) -> bool {
        let end = self.hour.saturating_add(self.hours);
        name.hour >= self.hour && name.extent().end <= end && name.sequence < self.sequence
    }

    /// Puts it into effect. The parts have to be durable.
    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        replace_file(disk, &dir.join(self.to_string()), b"")
    }
}

/// Cleans up after interrupted compactions and deletions; nobody may read parts meanwhile.
pub(crate) fn settle(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    settle_twins(disk, dir)?;
    let files = disk.list(dir)?;
    let parts: Vec<(&PathBuf, PartName)> = files.iter().filter_map(|p| Some((p, PartName::parse(p)?))).collect();
    let commits: Vec<Commit> = files.iter().filter_map(|p| Commit::parse(p)).collect();
    for (path, name) in &parts {
        if commits.iter().any(|commit| commit.replaces(name)) {
            disk.remove(path)?;
        }
        if name.hours == 1 || name.hours > MAX_HOURS {
            continue;
        }
        let commit = Commit {
            hour: name.hour,
            hours: name.hours,
            sequence: name.sequence,
        };
        let needed = parts.iter().any(|(_, other)| commit.replaces(other));
        if needed && !commits.contains(&commit) && !commits.iter().any(|other| other.replaces(name)) {
            disk.remove(path)?;
        }
    }
    if !commits.is_empty() {
        disk.sync_dir(dir)?;
    }
    tidy(disk, dir)
}

/// Of two parts of the same kind, hours and sequence, the one with fewer rows is newer: it lacks the rows of a deleted
/// service.
fn settle_twins(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let files = disk.list(dir)?;
    let mut parts: Vec<(PartName, &PathBuf)> = files.iter().filter_map(|p| Some((PartName::parse(p)?, p))).collect();
    let identity = |name: &PartName| (name.kind, name.hour, name.hours, name.sequence);
    parts.sort_by_key(|(name, _)| (identity(name), name.rows));
    for twins in parts.windows(2) {
        if identity(&twins[0].0) == identity(&twins[1].0) {
            disk.remove(twins[1].1)?;
        }
    }
    Ok(())
}

/// Removes commits that have nothing left to replace.
pub(crate) fn tidy(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let files = disk.list(dir)?;
    let parts: Vec<PartName> = files.iter().filter_map(|path| PartName::parse(path)).collect();
    for path in &files {
        if let Some(commit) = Commit::parse(path)
            && !parts.iter().any(|name| commit.replaces(name))
        {
            disk.remove(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_round_trip_and_replace_what_lies_inside_with_a_lower_sequence() {
        let commit = Commit {
            hour: 48,
            hours: 24,
            sequence: 7,
        };
        assert_eq!(Commit::parse(&Path::new("/x").join(commit.to_string())), Some(commit));
        assert_eq!(Commit::parse(Path::new("compacted-1970010300-24-7.commit")), None);
        let part = |hour, hours, sequence| PartName {
            kind: super::super::Kind::Samples,
            hour,
            hours,
            sequence,
            first_lsn: 1,
            last_lsn: 2,
            rows: 3,
            checksum: 4,
        };
        assert!(
            commit.replaces(&part(48, 1, 6)) && commit.replaces(&part(71, 1, 1)) && commit.replaces(&part(50, 6, 6))
        );
        assert!(
            !commit.replaces(&part(48, 24, 7))
                && !commit.replaces(&part(47, 1, 1))
                && !commit.replaces(&part(72, 1, 1))
        );
    }
}
