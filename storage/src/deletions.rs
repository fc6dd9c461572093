//! Which services were deleted, and up to which batch, so that a deletion survives a crash.
//!
//! Guarantees: the file `deleted.bin` is replaced as a whole, so a deletion is recorded or it is not. As long as the
//! journal holds a batch from before it, replay filters its rows out; as long as a sealed file from before it exists,
//! that file is listed as one that has to be rewritten. The identifiers of its rows are kept as well, so that this does
//! not depend on names, which are removed first. Wrong on purpose: a damaged record is a forgotten deletion; it is
//! counted and logged.

use std::{collections::BTreeSet, io, path::Path, sync::Arc};

use emberline_model::{Batch, WorkloadWindow};
use prost::Message;
use serde::Serialize;

use crate::{
    disk::Disk,
    ids::IdSet,
    journal::Lsn,
    records::{self, Records},
    stats::Counters,
};

/// The file, below the data directory.
pub(crate) const FILE: &str = "deleted.bin";

/// What a deletion removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Deleted {
    /// Rows: windows, requests, samples and exemplars. For hours whose samples were gone already, sums count instead.
    pub rows: u64,
    /// Sealed files that were rewritten or removed.
    pub files: u64,
    /// Bytes by which the sealed files shrank. What the journal holds goes when its hours are sealed.
    pub bytes_freed: u64,
}

/// How far a deletion has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DeleteProgress {
    /// Bytes of sealed files that are done.
    pub done_bytes: u64,
    /// Bytes of all sealed files that hold something of it; 0 while they are being searched for.
    pub all_bytes: u64,
}

/// A service by its names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceName {
    /// Namespace.
    pub namespace: String,
    /// Service name.
    pub service: String,
}

/// One deletion.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Deletion {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    service: String,
    /// Rows of batches up to this number are gone.
    #[prost(uint64, tag = "3")]
    pub(crate) through: Lsn,
    /// Names of sealed files that still hold some of its rows, each under its name before the rewrite.
    #[prost(string, repeated, tag = "4")]
    pub(crate) files: Vec<String>,
    /// The series of its rows.
    #[prost(fixed64, repeated, tag = "5")]
    series: Vec<u64>,
    /// The workloads of its rows.
    #[prost(fixed64, repeated, tag = "6")]
    workloads: Vec<u64>,
}

/// Identifiers that rows of one service have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owned {
    pub(crate) series: IdSet,
    pub(crate) workloads: IdSet,
}

impl Deletion {
    pub(crate) fn new(who: &ServiceName, through: Lsn, files: Vec<String>, owned: &Owned) -> Deletion {
        Deletion {
            namespace: who.namespace.clone(),
            service: who.service.clone(),
            through,
            files,
            series: owned.series.iter().copied().collect(),
            workloads: owned.workloads.iter().copied().collect(),
        }
    }

    pub(crate) fn who(&self) -> ServiceName {
        ServiceName {
            namespace: self.namespace.clone(),
            service: self.service.clone(),
        }
    }

    pub(crate) fn owned(&self) -> Owned {
        Owned {
            series: self.series.iter().copied().collect(),
            workloads: self.workloads.iter().copied().collect(),
        }
    }
}

/// All deletions that something may still depend on.
#[derive(Debug, Default)]
pub(crate) struct Deletions {
    all: Vec<Deletion>,
    /// The file is out of date.
    changed: bool,
}

impl Deletions {
    /// Reads the file of a data directory.
    pub(crate) fn read(disk: &dyn Disk, data_dir: &Path, counters: &Counters, now_unix_ms: i64) -> Deletions {
        let Records { all, damaged } = records::read(disk, data_dir, FILE, now_unix_ms);
        if damaged > 0 {
            tracing::error!(
                damaged,
                "deletion list damaged, entries lost; check that deleted services are still gone"
            );
            counters.deletions_lost.add(damaged);
        }
        let mut deletions = Deletions {
            all,
            changed: damaged > 0,
        };
        // Reported once, not at each start; if the disk takes no writes now, the file is written later.
        if let Err(error) = deletions.make_durable(disk, data_dir) {
            tracing::warn!(%error, "cannot rewrite the list of deleted services");
        }
        deletions
    }

    fn write(&self, disk: &dyn Disk, data_dir: &Path) -> io::Result<()> {
        records::write(disk, data_dir, FILE, self.all.iter())
    }

    /// Adds a deletion; durable when this returns. After an error only the disk knows whether it was recorded: it
    /// counts as recorded, so that a later start does not come as a surprise.
    pub(crate) fn add(&mut self, disk: &dyn Disk, data_dir: &Path, deletion: Deletion) -> io::Result<()> {
        self.all.push(deletion);
        self.changed = true;
        self.make_durable(disk, data_dir)
    }

    /// Writes what is not in the file yet.
    pub(crate) fn make_durable(&mut self, disk: &dyn Disk, data_dir: &Path) -> io::Result<()> {
        if self.changed {
            self.write(disk, data_dir)?;
            self.changed = false;
        }
        Ok(())
    }

    /// Forgets what nothing depends on any more: files that are not `present`, and deletions without files that are
    /// older than everything the journal holds.
    pub(crate) fn prune(
        &mut self,
        disk: &dyn Disk,
        data_dir: &Path,
        present: &BTreeSet<String>,
        journal_from: Lsn,
    ) -> io::Result<()> {
        let mut left = self.all.clone();
        for deletion in &mut left {
            deletion.files.retain(|name| present.contains(name));
        }
        left.retain(|deletion| !deletion.files.is_empty() || deletion.through >= journal_from);
        if left == self.all && !self.changed {
            return Ok(());
        }
        let pruned = Deletions {
            all: left,
            changed: false,
        };
        pruned.write(disk, data_dir)?;
        *self = pruned;
        Ok(())
    }

    /// The deletions.
    pub(crate) fn all(&self) -> &[Deletion] {
        &self.all
    }

    /// Files that still hold rows of deleted services.
    pub(crate) fn files_left(&self) -> u64 {
        self.all.iter().map(|deletion| deletion.files.len() as u64).sum()
    }

    /// New batches must be numbered above this.
    pub(crate) fn last_lsn(&self) -> Lsn {
        self.all.iter().map(|deletion| deletion.through).max().unwrap_or(0)
    }

    /// The batch without windows of services that were deleted after it arrived.
    pub(crate) fn filter(&self, lsn: Lsn, batch: &Arc<Batch>) -> Arc<Batch> {
        let is_gone = |window: &WorkloadWindow| {
            self.all.iter().any(|deletion| {
                lsn <= deletion.through
                    && deletion.service == window.workload.service
                    && deletion.namespace == window.workload.namespace
            })
        };
        if !batch.windows.iter().any(is_gone) {
            return batch.clone();
        }
        let mut left = Batch::clone(batch);
        left.windows.retain(|window| !is_gone(window));
        Arc::new(left)
    }
}

#[cfg(test)]
mod tests {
    use emberline_model::{Component, Workload};

    use super::*;
    use crate::{
        disk::{MemoryDisk, replace_file},
        framing,
        records::damaged_places,
    };

    fn deletion(service: &str, through: Lsn, files: &[&str]) -> Deletion {
        let who = ServiceName {
            namespace: "shop".to_owned(),
            service: service.to_owned(),
        };
        let owned = Owned {
            series: [u64::MAX, 3].into_iter().collect(),
            workloads: [4].into_iter().collect(),
        };
        Deletion::new(&who, through, files.iter().map(|&f| f.to_owned()).collect(), &owned)
    }

    #[test]
    fn deletions_are_read_back_and_damage_costs_what_it_hit() {
        let disk = MemoryDisk::new();
        let dir = Path::new("/data");
        disk.create_dir_all(dir).unwrap();
        let mut deletions = Deletions::default();
        deletions.add(&disk, dir, deletion("a", 7, &["x"])).unwrap();
        deletions.add(&disk, dir, deletion("b", 9, &[])).unwrap();
        let counters = Counters::default();
        let read = Deletions::read(&disk, dir, &counters, 0);
        assert_eq!(read.all(), deletions.all());
        assert_eq!((read.last_lsn(), counters.deletions_lost.get()), (9, 0));
        assert_eq!(read.all()[0].owned().series.len(), 2);
        let mut bytes = disk.read(&dir.join(FILE)).unwrap();
        for cut in 0..bytes.len() {
            assert!(damaged_places(&bytes[..cut]) > 0, "cut at {cut}");
        }
        bytes[2 * framing::HEADER_BYTES] ^= 1;
        replace_file(&disk, &dir.join(FILE), &bytes).unwrap();
        assert_eq!(damaged_places(&bytes), 1);
        let read = Deletions::read(&disk, dir, &counters, 0);
        assert_eq!((read.all(), counters.deletions_lost.get()), (&deletions.all()[1..], 1));
        assert_eq!(disk.list(&dir.join("quarantine")).unwrap().len(), 1);
        assert_eq!(
            damaged_places(&disk.read(&dir.join(FILE)).unwrap()),
            0,
            "told once, not at each start"
        );
    }

    #[test]
    fn a_deletion_is_kept_as_long_as_a_file_or_the_journal_reaches_back() {
        let disk = MemoryDisk::new();
        let dir = Path::new("/data");
        disk.create_dir_all(dir).unwrap();
        let mut deletions = Deletions::default();
        deletions.add(&disk, dir, deletion("a", 7, &["x"])).unwrap();
        let present = BTreeSet::from(["x".to_owned(), "y".to_owned()]);
        deletions.prune(&disk, dir, &present, 100).unwrap();
        assert_eq!(deletions.all()[0].files, ["x"]);
        deletions.prune(&disk, dir, &BTreeSet::new(), 7).unwrap();
        assert!(deletions.all()[0].files.is_empty());
        deletions.prune(&disk, dir, &BTreeSet::new(), 8).unwrap();
        let read = Deletions::read(&disk, dir, &Counters::default(), 0);
        assert!(
            deletions.all().is_empty() && read.all().is_empty(),
            "the file says so, too"
        );
    }

    #[test]
    fn only_windows_of_the_service_and_of_batches_before_are_left_out() {
        let window = |namespace: &str, service: &str| WorkloadWindow {
            workload: Workload {
                namespace: namespace.to_owned(),
                service: service.to_owned(),
                ..Workload::default()
            },
            component: Component::Application,
            start_unix_s: 0,
            length_s: 10,
            has_requests: false,
            has_profiles: false,
            requests: Vec::new(),
            profiles: Vec::new(),
        };
        let batch = Arc::new(Batch {
            id: None,
            received_unix_ms: 0,
            windows: vec![window("shop", "a"), window("", "a"), window("shop", "b")],
        });
        let deletions = Deletions {
            all: vec![deletion("a", 7, &[])],
            changed: false,
        };
        assert_eq!(deletions.filter(7, &batch).windows, &batch.windows[1..]);
        assert!(Arc::ptr_eq(&deletions.filter(8, &batch), &batch));
    }
}
