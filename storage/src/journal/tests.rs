//! The journal on a disk that fails and loses power.

use std::path::Path;

use emberline_model::{BatchId, Component, Signal, Workload, WorkloadWindow, time::SystemClock};
use proptest::prelude::*;

use super::*;
use crate::disk::{DiskEvent, FaultyDisk, MemoryDisk};

fn batch(sequence: u64) -> Batch {
    Batch {
        id: Some(BatchId {
            sender: "demo/cart".into(),
            epoch: 7,
            sequence,
            signal: Signal::Requests,
        }),
        received_unix_ms: 0,
        windows: vec![WorkloadWindow {
            workload: Workload {
                instance: format!("i{sequence}"),
                ..Workload::default()
            },
            component: Component::Application,
            start_unix_s: 1000 + sequence as i64,
            length_s: 10,
            has_requests: true,
            has_profiles: false,
            requests: Vec::new(),
            profiles: Vec::new(),
        }],
    }
}

struct Bench {
    memory: MemoryDisk,
    disk: FaultyDisk,
    options: Options,
    durable: Arc<Mutex<Vec<Lsn>>>,
}

impl Bench {
    fn new(segment_bytes: u64) -> Bench {
        let memory = MemoryDisk::new();
        let mut options = Options::new("/data");
        options.segment_bytes = segment_bytes;
        options.group_wait = std::time::Duration::ZERO;
        Bench {
            disk: FaultyDisk::new(Arc::new(memory.clone())),
            memory,
            options,
            durable: Arc::default(),
        }
    }

    fn open(&self) -> (Journal, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        let durable = self.durable.clone();
        let on_durable: OnDurable =
            Box::new(move |_, batches| durable.lock().extend(batches.iter().map(|(lsn, ..)| *lsn)));
        let disk = Arc::new(self.disk.clone());
        let journal = Journal::open(
            &self.options,
            disk,
            Arc::new(SystemClock),
            counters.clone(),
            0,
            on_durable,
        )
        .unwrap();
        (journal, counters)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = self.memory.list(Path::new("/data/journal")).unwrap();
        files.retain(|path| path.extension().is_some_and(|e| e == "log"));
        files
    }
}

fn append(journal: &Journal, sequence: u64) -> Result<Appended, AppendError> {
    let receiver = journal.append(batch(sequence), 1000 + sequence as u32)?;
    receiver.blocking_recv().unwrap()
}

fn sequences(journal: &Journal) -> Vec<u64> {
    let (mut after, mut found) = (0, Vec::new());
    while let Some(records) = journal.read_after(after) {
        found.extend(
            records
                .batches()
                .map(|(_, batch)| batch.unwrap().1.id.unwrap().sequence),
        );
        after = records.through;
    }
    found
}

#[test]
fn a_batch_is_acknowledged_after_the_sync_that_covers_it() {
    let bench = Bench::new(1 << 20);
    let (journal, _) = bench.open();
    for sequence in 1..=3 {
        append(&journal, sequence).unwrap();
        bench.disk.mark("acknowledged");
    }
    let events = bench.disk.events();
    let segment = bench.files().remove(0);
    let mut unsynced = false;
    for event in &events {
        match event {
            DiskEvent::Append(path, _) if *path == segment => unsynced = true,
            DiskEvent::Sync(path) if *path == segment => unsynced = false,
            DiskEvent::Mark(_) => assert!(!unsynced, "{events:?}"),
            _ => {}
        }
    }
    let created = events
        .iter()
        .position(|e| *e == DiskEvent::Create(segment.clone()))
        .unwrap();
    let first_ack = events.iter().position(|e| matches!(e, DiskEvent::Mark(_))).unwrap();
    let synced_dir = DiskEvent::SyncDir(PathBuf::from("/data/journal"));
    assert!(
        events[created..first_ack].contains(&synced_dir),
        "the new file's name must be durable, too"
    );
}

#[test]
fn a_batch_that_arrives_twice_is_written_once() {
    let bench = Bench::new(1 << 20);
    let (journal, counters) = bench.open();
    let receivers: Vec<_> = (0..50).map(|i| journal.append(batch(i % 5 + 1), 1).unwrap()).collect();
    let stored = receivers
        .into_iter()
        .map(|r| r.blocking_recv().unwrap().unwrap())
        .filter(|a| matches!(a, Appended::Stored { .. }))
        .count();
    assert_eq!(stored, 5);
    assert_eq!(counters.duplicates.get(), 45);
    drop(journal);
    let (journal, _) = bench.open();
    assert_eq!(append(&journal, 3).unwrap(), Appended::Duplicate);
    assert_eq!(sequences(&journal), [1, 2, 3, 4, 5]);
    assert_eq!(journal.queued_bytes(), 0);
}

#[test]
fn a_failed_sync_loses_its_group_only_and_its_retry_is_stored_once() {
    let bench = Bench::new(1 << 20);
    let (journal, _) = bench.open();
    append(&journal, 1).unwrap();
    bench.disk.fail_syncs(1);
    let error = append(&journal, 2).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(append(&journal, 2).unwrap(), Appended::Stored { lsn: 2 });
    assert_eq!(*bench.durable.lock(), [1, 2]);
    drop(journal);
    // The bytes of the failed attempt are on disk all the same, in the abandoned segment.
    let (journal, counters) = bench.open();
    assert_eq!(bench.files().len(), 2);
    assert_eq!(sequences(&journal), [1, 2]);
    assert_eq!(counters.journal_records_lost.get(), 0);
}

#[test]
fn a_full_disk_is_refused_and_works_again_without_a_restart() {
    let bench = Bench::new(1 << 20);
    let (journal, _) = bench.open();
    append(&journal, 1).unwrap();
    for budget in [0, 10, 45] {
        bench.disk.set_budget(Some(budget));
        let error = append(&journal, 2).unwrap_err();
        assert!(
            matches!(error, AppendError::DiskFull { .. }) && error.is_retryable(),
            "{error}"
        );
    }
    bench.disk.set_budget(Some(10));
    bench.disk.fail_truncates(1);
    assert!(append(&journal, 2).is_err());
    bench.disk.set_budget(None);
    assert_eq!(append(&journal, 2).unwrap(), Appended::Stored { lsn: 2 });
    bench.disk.set_free(Some(1));
    assert!(matches!(append(&journal, 3).unwrap_err(), AppendError::DiskFull { .. }));
    bench.disk.set_free(None);
    append(&journal, 3).unwrap();
    drop(journal);
    let (journal, _) = bench.open();
    assert_eq!(sequences(&journal), [1, 2, 3]);
}

#[test]
fn a_queue_that_is_full_is_busy() {
    let mut bench = Bench::new(1 << 20);
    bench.options.queue_bytes = 1;
    let (journal, _) = bench.open();
    // Until the first one is written there is no room for the second; every refusal must be "busy".
    let results: Vec<_> = (1..200).map(|s| journal.append(batch(s), 1)).collect();
    assert!(results[0].is_ok(), "one batch always passes");
    for error in results.into_iter().filter_map(Result::err) {
        assert!(matches!(error, AppendError::Busy { limit: 1, .. }) && error.is_retryable());
    }
}

#[test]
fn senders_are_remembered_after_their_segments_are_gone() {
    let bench = Bench::new(1);
    let (journal, counters) = bench.open();
    for sequence in 1..=4 {
        append(&journal, sequence).unwrap();
    }
    journal
        .trim(Needless {
            before_s: 1003,
            through: 0,
        })
        .blocking_recv()
        .unwrap();
    assert_eq!(counters.journal_segments_removed.get(), 2);
    assert_eq!(sequences(&journal), [3, 4]);
    drop(journal);
    let (journal, counters) = bench.open();
    assert_eq!(append(&journal, 1).unwrap(), Appended::Duplicate);
    assert_eq!(append(&journal, 5).unwrap(), Appended::Stored { lsn: 5 });
    assert_eq!(counters.journal_records_lost.get(), 0);
    drop(journal);
    // Without the checkpoint, what is left of the journal still counts.
    bench
        .memory
        .damage(Path::new("/data/journal/dedup.bin"), |bytes| bytes[30] ^= 1);
    let (journal, counters) = bench.open();
    assert_eq!(counters.dedup_rebuilds.get(), 1);
    assert_eq!(append(&journal, 3).unwrap(), Appended::Duplicate);
}

#[test]
fn the_end_of_the_last_segment_is_cut_and_kept_aside() {
    let bench = Bench::new(1 << 20);
    let (journal, _) = bench.open();
    for sequence in 1..=3 {
        append(&journal, sequence).unwrap();
    }
    drop(journal);
    let path = bench.files().remove(0);
    let whole = bench.memory.size(&path).unwrap();
    bench.memory.damage(&path, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let (journal, counters) = bench.open();
    assert_eq!(sequences(&journal), [1, 2]);
    assert!(counters.journal_tail_bytes_cut.get() > 0);
    assert!(bench.memory.size(&path).unwrap() < whole);
    assert_eq!(bench.memory.list(Path::new("/data/quarantine")).unwrap().len(), 1);
    assert_eq!(
        append(&journal, 4).unwrap(),
        Appended::Stored { lsn: 4 },
        "3 was given out: it is not given out again"
    );
    drop(journal);
    let (journal, counters) = bench.open();
    assert_eq!(counters.journal_tail_bytes_cut.get(), 0, "cut once");
    assert_eq!(
        counters.journal_records_lost.get(),
        1,
        "its place in the numbers tells that one is missing"
    );
    assert_eq!(sequences(&journal), [1, 2, 4]);
}

#[test]
fn a_damaged_header_costs_no_record_and_a_newer_format_is_refused() {
    let bench = Bench::new(1 << 20);
    let (journal, _) = bench.open();
    append(&journal, 1).unwrap();
    drop(journal);
    let path = bench.files().remove(0);
    bench.memory.damage(&path, |bytes| bytes[2] ^= 1);
    let (journal, counters) = bench.open();
    assert_eq!(sequences(&journal), [1]);
    assert_eq!(counters.journal_bytes_damaged.get(), segment::HEADER_BYTES as u64);
    drop(journal);
    bench.memory.damage(&path, |bytes| {
        bytes[..8].copy_from_slice(&segment::header(1)[..8]);
        bytes[8] = 9;
        let checksum = crc32c::crc32c(&bytes[..20]).to_le_bytes();
        bytes[20..24].copy_from_slice(&checksum);
    });
    let opened = Journal::open(
        &bench.options,
        Arc::new(bench.disk.clone()),
        Arc::new(SystemClock),
        Arc::default(),
        0,
        Box::new(|_, _| {}),
    );
    assert!(matches!(
        opened.err(),
        Some(OpenError::NewerFormat { found: 9, known: 1, .. })
    ));
}

#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    FailSync,
    Full(u64),
    Room,
    Crash(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1u64..30).prop_map(Step::Append),
        1 => Just(Step::FailSync),
        1 => (0u64..200).prop_map(Step::Full),
        2 => Just(Step::Room),
        2 => (0usize..200).prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever fails and whenever the power goes: acknowledged batches are there, and nothing is there twice.
    #[test]
    fn acknowledged_batches_survive_and_none_is_doubled(steps in steps(), segment_bytes in prop_oneof![Just(1u64), Just(200), Just(1 << 20)]) {
        let bench = Bench::new(segment_bytes);
        let (mut journal, _) = bench.open();
        let mut acknowledged = std::collections::BTreeSet::new();
        for step in steps {
            match step {
                Step::Append(sequence) => match append(&journal, sequence) {
                    Ok(Appended::Stored { .. }) => prop_assert!(acknowledged.insert(sequence), "stored twice"),
                    Ok(Appended::Duplicate) => {
                        // On disk from an attempt that was not acknowledged, or acknowledged earlier.
                        acknowledged.insert(sequence);
                    }
                    Err(error) => prop_assert!(error.is_retryable()),
                },
                Step::FailSync => bench.disk.fail_syncs(1),
                Step::Full(bytes) => bench.disk.set_budget(Some(bytes)),
                Step::Room => bench.disk.set_budget(None),
                Step::Crash(keep) => {
                    bench.disk.fail_syncs(0);
                    // A crash does not close: the senders' checkpoint written by a clean close would hide mistakes.
                    std::mem::forget(std::mem::replace(&mut journal, {
                        bench.memory.crash(|_| keep);
                        bench.open().0
                    }));
                }
            }
        }
        bench.disk.set_budget(None);
        bench.disk.fail_syncs(0);
        bench.memory.crash(|_| 0);
        let (journal, counters) = bench.open();
        let recovered = sequences(&journal);
        let distinct: std::collections::BTreeSet<u64> = recovered.iter().copied().collect();
        prop_assert_eq!(distinct.len(), recovered.len(), "doubled: {:?}", recovered);
        prop_assert!(acknowledged.is_subset(&distinct), "lost: {:?} of {:?}", recovered, acknowledged);
        prop_assert_eq!(counters.journal_records_lost.get(), 0);
    }
}
