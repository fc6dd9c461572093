//! What waits on disk for the collector reaches it once, whoever was killed in between.

use std::{fs, path::Path, time::Duration};

use emberline_model::Signal;
use emberline_proxy::{
    config::SpoolConfig,
    export::{DropReason, ExportOptions, Exporter},
    telemetry::{Telemetry, TelemetryOptions},
};

use crate::{
    export_delivery::{START_MS, Sender, options},
    export_support::{FakeCollector, ManualClock, eventually},
};

fn spooling(url: String, directory: &Path, max_bytes: u64) -> ExportOptions {
    let spool = SpoolConfig {
        max_bytes,
        ..SpoolConfig::new(directory)
    };
    ExportOptions {
        spool: Some(spool),
        ..options(url)
    }
}

/// Where nobody listens.
fn away() -> String {
    format!("http://{}", FakeCollector::start().kill().0)
}

/// Ends an exporter without a flush and waits until its thread is gone, as far as others can see: its lock is free.
fn kill(sender: Sender, directory: &Path) {
    drop(sender);
    eventually("the lock is free", || {
        folders(directory).iter().all(|folder| {
            let lock = fs::File::open(folder.join("lock"));
            lock.is_ok_and(|lock| lock.try_lock().is_ok())
        })
    });
}

fn folders(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The files of batches in the only folder.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let folders = folders(directory);
    assert_eq!(folders.len(), 1);
    let entries = fs::read_dir(&folders[0]).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| !file.ends_with("lock"));
    files.sort();
    files
}

#[test]
fn an_hour_without_a_collector_and_a_kill_lose_and_double_nothing() {
    const WINDOWS: u64 = 360;
    let directory = tempfile::tempdir().unwrap();
    let first = Sender::start(spooling(away(), directory.path(), 64 << 20));
    let mut recorded = 0;
    for window in 0..WINDOWS {
        first.record(1 + window % 7);
        recorded += 1 + window % 7;
        first.pass_window();
    }
    let stats = first.handle.stats();
    assert_eq!((stats.spool_batches, stats.queue_bytes), (WINDOWS, 0));
    assert_eq!(stats.batches_dropped(), 0);
    kill(first, directory.path());

    let collector = FakeCollector::start();
    // Some are acknowledged and arrive a second time, some are refused for a while.
    collector.book.answer_with(|attempt, _| match attempt % 10 {
        3 => Err(tonic::Status::unavailable("busy")),
        _ => Ok(()),
    });
    let second = Sender::start(spooling(collector.url(), directory.path(), 64 << 20));
    second.clock.set_ms(START_MS + 3_600_000);
    eventually("all of it is acknowledged", || {
        second.handle.stats().requests_acked >= WINDOWS
    });
    assert_eq!(second.handle.stats().spool_taken_over, WINDOWS);
    let report = second.flush();
    assert_eq!((report.unacked, report.spooled), (0, 0));
    assert_eq!(collector.book.requests(), recorded);
    let stored = collector.book.stored.lock().clone();
    let epoch = collector.book.acked.lock()[0].epoch;
    let of_first = stored.iter().filter(|(id, _)| id.epoch == epoch);
    let starts: Vec<i64> = of_first
        .flat_map(|(_, windows)| windows)
        .map(|w| w.start_unix_s)
        .collect();
    let expected: Vec<i64> = (0..WINDOWS as i64).map(|n| START_MS / 1000 + n * 10).collect();
    assert!(starts == expected, "each window once, and in order: {starts:?}");
    assert_eq!(collector.book.acked.lock()[0].sequence, 1, "the oldest goes first");
    eventually("nothing is left on disk", || folders(directory.path()).is_empty());
}

#[test]
fn a_flush_without_a_collector_leaves_its_batches_to_the_next_process() {
    let directory = tempfile::tempdir().unwrap();
    let first = Sender::start(spooling(away(), directory.path(), 64 << 20));
    first.record(3);
    first.pass_window();
    let report = first.flush_within(Duration::from_millis(50));
    assert_eq!((report.acked, report.unacked, report.spooled), (0, 0, 2));
    let collector = FakeCollector::start();
    let second = Sender::start(spooling(collector.url(), directory.path(), 64 << 20));
    eventually("both are acknowledged", || second.handle.stats().requests_acked == 2);
    assert_eq!(collector.book.requests(), 3);
}

#[test]
fn the_spool_of_a_process_that_runs_is_left_alone_and_taken_over_when_it_ended() {
    let directory = tempfile::tempdir().unwrap();
    let collector = FakeCollector::start();
    let first = Sender::start(spooling(away(), directory.path(), 64 << 20));
    first.record(3);
    first.pass_window();
    let second = Sender::start(spooling(collector.url(), directory.path(), 64 << 20));
    second.pass_window();
    assert_eq!(second.handle.stats().spool_taken_over, 0);
    drop(first);
    eventually("it is taken over with a later window", || {
        second.pass_window();
        second.handle.stats().spool_taken_over == 1
    });
    eventually("it is acknowledged", || collector.book.requests() == 3);
}

#[test]
fn when_the_spool_is_full_the_oldest_goes_and_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    // Each file is charged a block of 4 KiB.
    let sender = Sender::start(spooling(away(), directory.path(), 3 * 4096));
    for requests in 1..=5 {
        sender.record(requests);
        sender.pass_window();
    }
    let full = (DropReason::SpoolFull, Signal::Requests.code());
    eventually("two of five are dropped", || {
        sender.handle.stats().batches_dropped.get(&full) == Some(&2)
    });
    // One of them is being sent and stays.
    assert_eq!(files(directory.path()).len(), 3);
    assert_eq!(sender.handle.stats().spool_bytes, 3 * 4096);
}

#[test]
fn a_torn_or_foreign_file_is_counted_and_the_others_arrive() {
    let directory = tempfile::tempdir().unwrap();
    let first = Sender::start(spooling(away(), directory.path(), 64 << 20));
    for requests in 1..=4 {
        first.record(requests);
        first.pass_window();
    }
    kill(first, directory.path());
    let files = files(directory.path());
    let torn = fs::read(&files[1]).unwrap();
    fs::write(&files[1], &torn[..torn.len() - 7]).unwrap();
    fs::write(&files[2], "something else").unwrap();
    let mut flipped = fs::read(&files[3]).unwrap();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&files[3], flipped).unwrap();

    let collector = FakeCollector::start();
    let second = Sender::start(spooling(collector.url(), directory.path(), 64 << 20));
    let unreadable = || {
        let dropped = second.handle.stats().batches_dropped;
        let of_spool = dropped
            .iter()
            .filter(|((reason, _), _)| *reason == DropReason::SpoolUnreadable);
        of_spool.map(|(_, count)| count).sum::<u64>()
    };
    eventually("three files are counted", || unreadable() == 3);
    eventually("the other arrives", || collector.book.requests() == 1);
    assert_eq!(second.handle.stats().spool_batches, 0);
}

#[test]
fn what_others_keep_in_the_directory_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = [directory.path().join("dpkg"), elsewhere.path().to_owned()];
    for folder in &foreign {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("lock"), "").unwrap();
        fs::write(folder.join("0000000000000001"), "precious").unwrap();
    }
    std::os::unix::fs::symlink(elsewhere.path(), directory.path().join("00000000000000aa")).unwrap();
    let collector = FakeCollector::start();
    let sender = Sender::start(spooling(collector.url(), directory.path(), 64 << 20));
    sender.record(3);
    sender.pass_window();
    eventually("it arrives", || collector.book.requests() == 3);
    assert_eq!(sender.handle.stats().spool_taken_over, 0);
    for folder in &foreign {
        assert_eq!(fs::read_to_string(folder.join("0000000000000001")).unwrap(), "precious");
    }
}

#[test]
fn telemetry_waits_in_memory_while_the_disk_refuses_it() {
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().join("spool");
    let collector = FakeCollector::start();
    let sender = Sender::start(spooling(collector.url(), &spool, 64 << 20));
    fs::remove_dir_all(&spool).unwrap();
    fs::write(&spool, "no directory").unwrap();
    sender.record(3);
    sender.pass_window();
    eventually("it arrives", || collector.book.requests() == 3);
    let errors = sender.handle.stats().spool_errors;
    assert!(errors > 0);
    fs::remove_file(&spool).unwrap();
    sender.record(4);
    sender.pass_window();
    eventually("that, too", || collector.book.requests() == 7);
    assert_eq!(sender.handle.stats().spool_errors, errors, "it is written again");
}

#[test]
fn a_spool_that_cannot_be_made_is_named_with_its_setting() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    let telemetry = Telemetry::new(TelemetryOptions::default(), ManualClock::at_ms(START_MS));
    let options = spooling(away(), &directory.path().join("file/spool"), 64 << 20);
    let error = Exporter::start(options, telemetry, None, ManualClock::at_ms(START_MS)).unwrap_err();
    let words = error.to_string();
    assert!(words.starts_with("collector.spool.directory: cannot use "), "{words}");
}
