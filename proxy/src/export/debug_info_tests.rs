//! The exchange about builds, against a real server.

use std::io::Write;

use tonic::Code;

use super::*;
use crate::export::channel::Plan;

#[path = "../../tests/proxy/export_support/mod.rs"]
mod support;

use support::FakeCollector;

/// A file whose notes have a build id, with `filler` more bytes.
fn elf_file(build_id: &[u8], filler: usize) -> tempfile::NamedTempFile {
    let mut note = Vec::new();
    note.extend(4u32.to_le_bytes());
    note.extend((build_id.len() as u32).to_le_bytes());
    note.extend(3u32.to_le_bytes());
    note.extend(b"GNU\0");
    note.extend(build_id);
    let mut bytes = vec![0u8; 64 + 56];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
    bytes[64..68].copy_from_slice(&4u32.to_le_bytes());
    bytes[72..80].copy_from_slice(&120u64.to_le_bytes());
    bytes[96..104].copy_from_slice(&(note.len() as u64).to_le_bytes());
    bytes[112..120].copy_from_slice(&4u64.to_le_bytes());
    bytes.extend(note);
    bytes.extend((0..filler).map(|n| (n % 251) as u8));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    file
}

struct Talk {
    collector: FakeCollector,
    shared: Arc<Shared>,
    news: mpsc::UnboundedSender<BuildNews>,
}

impl Talk {
    fn begin(collector: FakeCollector, ask_again_after: Duration) -> Talk {
        let options = ExportOptions {
            initial_backoff: Duration::from_millis(1),
            upload_pause: Duration::from_millis(1),
            ask_again_after,
            ..ExportOptions::new(collector.url(), Default::default(), Default::default())
        };
        let shared = Arc::new(Shared::new(1 << 20, None));
        let channel = Plan::new(&options).unwrap().open_when_used();
        let (news, inbox) = mpsc::unbounded_channel();
        spawn(channel, &options, Arc::clone(&shared), inbox);
        Talk {
            collector,
            shared,
            news,
        }
    }

    fn seen(&self, build_id: &str, path: &std::path::Path) {
        let mapping = Mapping {
            build_id: build_id.into(),
            path: path.to_str().unwrap().into(),
        };
        self.news.send(BuildNews::Seen(vec![mapping])).unwrap();
    }

    fn say(&self, news: BuildNews) {
        self.news.send(news).unwrap();
    }

    async fn until(&self, what: &str, holds: impl Fn(&super::super::ExportStats) -> bool) {
        for _ in 0..30_000 {
            if holds(&self.shared.stats()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("never happened: {what}: {:?}", self.shared.stats());
    }

    /// Lets everything that is due happen.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    fn asked(&self) -> usize {
        self.collector.book.asked.lock().len()
    }
}

#[tokio::test]
async fn a_wanted_file_arrives_whole_in_pieces_after_the_first_acknowledged_profiles() {
    let collector = FakeCollector::start();
    *collector.book.wants.lock() = Box::new(|_| Ok(true));
    let file = elf_file(&[0xab; 20], 700_000);
    let talk = Talk::begin(collector, Duration::from_secs(600));
    let build_id = "ab".repeat(20);
    talk.seen(&build_id, file.path());
    talk.settle().await;
    assert_eq!(talk.asked(), 0, "the collector does not know the build yet");
    talk.say(BuildNews::ProfilesAcked);
    talk.until("uploaded", |s| s.builds_uploaded == 1).await;
    let sent = std::fs::read(file.path()).unwrap();
    assert_eq!(talk.collector.book.files.lock()[&build_id], sent);
    assert_eq!(*talk.collector.book.largest_piece.lock(), CHUNK_BYTES);
    assert_eq!(talk.collector.book.asked.lock()[0].size, sent.len() as u64);
    assert_eq!(talk.shared.stats().upload_bytes, sent.len() as u64);
    talk.seen(&build_id, file.path());
    talk.say(BuildNews::ProfilesAcked);
    talk.settle().await;
    assert_eq!(talk.asked(), 1, "asked once");
}

#[tokio::test]
async fn a_build_that_is_not_wanted_is_not_sent_and_asked_again_only_after_a_reconnect() {
    let file = elf_file(&[1; 20], 10);
    for (again_after, asked) in [(Duration::from_secs(600), 1), (Duration::ZERO, 2)] {
        let talk = Talk::begin(FakeCollector::start(), again_after);
        talk.seen(&"01".repeat(20), file.path());
        talk.say(BuildNews::ProfilesAcked);
        talk.until("asked", |s| s.builds_asked == 1).await;
        talk.say(BuildNews::ProfilesAcked);
        talk.settle().await;
        assert_eq!(talk.asked(), 1);
        talk.say(BuildNews::Reconnected);
        talk.until("asked as often as allowed", |s| s.builds_asked == asked)
            .await;
        talk.settle().await;
        assert_eq!(talk.asked() as u64, asked);
        assert_eq!(*talk.collector.book.uploads_begun.lock(), 0);
    }
}

#[tokio::test]
async fn a_file_that_is_another_build_by_now_is_never_offered() {
    let collector = FakeCollector::start();
    *collector.book.wants.lock() = Box::new(|_| Ok(true));
    let replaced = elf_file(&[2; 20], 10);
    let mut text = tempfile::NamedTempFile::new().unwrap();
    text.write_all(b"#!/bin/sh\n").unwrap();
    let talk = Talk::begin(collector, Duration::from_secs(600));
    talk.say(BuildNews::ProfilesAcked);
    talk.seen(&"03".repeat(20), replaced.path());
    talk.seen(&"04".repeat(20), text.path());
    talk.seen(&"05".repeat(20), std::path::Path::new("/no/such/file"));
    talk.seen(&"06".repeat(20), std::path::Path::new("/dev"));
    talk.until("all four are left alone", |s| s.upload_wrong_file == 4)
        .await;
    talk.settle().await;
    assert_eq!((talk.asked(), *talk.collector.book.uploads_begun.lock()), (0, 0));
}

#[tokio::test]
async fn errors_are_retried_and_refusals_are_not() {
    let collector = FakeCollector::start();
    *collector.book.wants.lock() = Box::new(|question| match question {
        0 | 1 => Err(Status::unavailable("starting")),
        _ => Ok(true),
    });
    *collector.book.accepts.lock() = Box::new(|upload| match upload {
        0 => Err(Status::unavailable("disk full")),
        1 => Ok(()),
        _ => Err(Status::invalid_argument("not an ELF file of that build")),
    });
    let talk = Talk::begin(collector, Duration::from_secs(600));
    let (first, second) = (elf_file(&[7; 20], 1000), elf_file(&[8; 20], 1000));
    talk.say(BuildNews::ProfilesAcked);
    talk.seen(&"07".repeat(20), first.path());
    talk.until("uploaded in the end", |s| s.builds_uploaded == 1).await;
    assert_eq!(talk.shared.stats().upload_errors, 3);
    talk.seen(&"08".repeat(20), second.path());
    talk.until("refused", |s| s.upload_errors == 4).await;
    talk.settle().await;
    assert_eq!(
        *talk.collector.book.uploads_begun.lock(),
        3,
        "a refused file is not sent again"
    );
}

#[tokio::test]
async fn a_collector_that_always_fails_is_left_alone_after_a_while() {
    let collector = FakeCollector::start();
    *collector.book.wants.lock() = Box::new(|_| Err(Status::new(Code::Unavailable, "no")));
    let file = elf_file(&[9; 20], 10);
    let talk = Talk::begin(collector, Duration::from_millis(2));
    talk.say(BuildNews::ProfilesAcked);
    talk.seen(&"09".repeat(20), file.path());
    talk.until("tried often enough", |s| s.upload_errors >= u64::from(MOST_FAILURES))
        .await;
    talk.settle().await;
    assert_eq!(talk.asked(), MOST_FAILURES as usize);
}
