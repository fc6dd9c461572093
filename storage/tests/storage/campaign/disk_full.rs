//! A disk that is really full, under DuckDB as well: a small tmpfs in the process's own mount namespace.
//!
//! What must hold: batches are refused as retryable, questions are still answered, free space is all it takes to
//! continue, and nothing acknowledged is lost. Mounting needs root; without it there is no outcome, and the caller says
//! so.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use emberline_model::ProfileType;
use emberline_storage::{Range, StackQuery, Store, WorkloadFilter};

use super::{
    child::{self, Orders},
    ledger::{Ledger, Report},
    load,
    process::{Process, command},
};
use crate::common::TestClock;

/// Size of the disk.
const DISK_MB: u64 = 32;
/// What the filler leaves free on top of the reserve.
const ROOM_BYTES: u64 = 32 << 10;
/// Refusals to wait for.
const REFUSALS: u64 = 30;
/// Answers to wait for while the disk is full: an engine that hit the full disk in the middle of a write is reopened
/// first, which takes a while.
pub const ANSWERS: u64 = 10;

/// What a run found.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub acknowledged: u64,
    pub refused: u64,
    /// Questions answered while the disk was full, those refused as retryable, and the longest time without an answer.
    pub answered: u64,
    pub unanswered: u64,
    pub longest_gap_ms: u64,
    /// From the moment there was space until everything was stored and visible.
    pub resumed_ms: u64,
    pub lost: u64,
    pub doubled: u64,
    pub problems: Vec<String>,
    pub peak_rss_mb: u64,
}

/// Starts the process under test on a disk of its own.
fn on_a_small_disk(dir: &Path) -> Command {
    let inner = command();
    let script = "mount -t tmpfs -o size=$1m none \"$2\" && shift 2 && exec \"$@\"";
    let mut outer = Command::new("unshare");
    outer.args(["-m", "sh", "-c", script, "sh", &DISK_MB.to_string()]);
    outer.arg(dir).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        outer.env(name, value.unwrap());
    }
    outer
}

/// True when this user may mount a disk.
pub fn can_mount(dir: &Path) -> bool {
    let script = "mount -t tmpfs -o size=1m none \"$1\"";
    let tried = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(dir)
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// Fills the disk and frees space again, with `reserve_mb` as `min_free_mb`.
pub fn run(dir: &Path, reserve_mb: u64) -> Outcome {
    let mut process = Process::start(on_a_small_disk(dir));
    process.order(&format!("dir {}", dir.display()));
    process.order(&format!("reserve {reserve_mb}"));
    process.order("fill");
    process.end_orders();
    let (mut outcome, mut ledger, mut report, mut reports) =
        (Outcome::default(), Ledger::default(), Report::default(), 0);
    while let Some(line) = process.line() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["reported"] => {
                ledger.judge(&std::mem::take(&mut report));
                reports += 1;
            }
            ["reads", answered, unanswered, gap] => {
                outcome.answered = answered.parse().unwrap();
                outcome.unanswered = unanswered.parse().unwrap();
                outcome.longest_gap_ms = gap.parse().unwrap();
            }
            ["resumed", ms] => outcome.resumed_ms = ms.parse().unwrap(),
            ["refused", _, ..] => outcome.refused += 1,
            ["sent" | "stored" | "duplicate" | "failed", ..] => ledger.note(&line),
            _ => report.note(&line),
        }
    }
    if reports != 2 || !process.wait().success() {
        outcome.problems.push("the process did not get to its end".to_owned());
    }
    outcome.acknowledged = ledger.acknowledgements;
    (outcome.lost, outcome.doubled) = (ledger.verdict.lost, ledger.verdict.doubled);
    outcome.problems.extend(ledger.verdict.problems);
    outcome.peak_rss_mb = process.peak_rss_kb >> 10;
    outcome
}

/// What the process under test does.
pub async fn fill(orders: &Orders) {
    let dir = child::folder(orders);
    let mut options = super::options(&dir.join("data"), load::RETENTION_HOURS);
    options.min_free_mb = child::number(orders, "reserve");
    let reserve = options.min_free_mb << 20;
    // On a full disk there is no space for intermediate results: questions have to make do with memory.
    options.memory_limit_mb = 128;
    let clock = TestClock::at(load::clock_s(1));
    let store = Store::open(options.clone(), clock.clone()).unwrap();
    let mut next = 1;
    for _ in 0..15 {
        clock.set(load::clock_s(next + 7));
        child::say(&format!("sent {}", next + 7));
        child::send(&store, (next..next + 8).collect()).await;
        next += 8;
    }
    store.seal().await.unwrap();
    store.flush_applied().await.unwrap();
    // Without a reserve, the disk also fills up while DuckDB is writing.
    let sudden = reserve == 0;
    if sudden {
        clock.set(load::clock_s(next + 39));
        child::say(&format!("sent {}", next + 39));
        child::send(&store, (next..next + 40).collect()).await;
        next += 40;
    }

    let free = {
        let stat = rustix::fs::statvfs(&dir).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    let filler = dir.join("filler");
    let room = if sudden { 0 } else { reserve + ROOM_BYTES };
    // A file cut short by the full disk serves its purpose, too.
    let _ = fs::write(&filler, vec![1; free.saturating_sub(room) as usize]);
    let full = Arc::new(AtomicBool::new(true));
    let answered = Arc::new(AtomicU64::new(0));
    let asking = tokio::spawn(ask(store.clone(), full.clone(), answered.clone()));
    let (mut refused, full_since) = (0, Instant::now());
    let stays_full = |refused| {
        let enough = refused >= REFUSALS && answered.load(Ordering::Relaxed) >= ANSWERS;
        !enough && full_since.elapsed() < child::PATIENCE
    };
    while stays_full(refused) {
        child::say(&format!("sent {next}"));
        let mut waiting = vec![next];
        clock.set(load::clock_s(next));
        while !waiting.is_empty() && stays_full(refused) {
            waiting = child::send(&store, waiting).await;
            refused += waiting.len() as u64;
            if !waiting.is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
                // A finished hour cannot be sealed now; trying to must do no harm.
                store.seal().await.unwrap();
            }
        }
        next += u64::from(waiting.is_empty());
    }
    full.store(false, Ordering::Relaxed);
    let (unanswered, gap_ms) = asking.await.unwrap();
    let answered = answered.load(Ordering::Relaxed);
    child::say(&format!("reads {answered} {unanswered} {gap_ms}"));
    store.close();
    let store = Store::open(options.clone(), clock.clone()).unwrap();
    let until = Instant::now() + child::PATIENCE;
    while let Err(error) = store.ask(child::totals()).await {
        if Instant::now() >= until {
            child::say(&format!("failed to answer after a start on the full disk: {error}"));
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    fs::remove_file(&filler).unwrap();
    let room_since = Instant::now();
    let mut waiting = vec![next];
    while !waiting.is_empty() {
        waiting = child::send(&store, waiting).await;
    }
    store.flush_applied().await.unwrap();
    child::say(&format!("resumed {}", room_since.elapsed().as_millis()));
    child::report(&store).await;
    store.close();
    let store = Store::open(options, clock).unwrap();
    child::report(&store).await;
    store.close();
}

/// Asks questions as long as the disk is full.
async fn ask(store: Store, full: Arc<AtomicBool>, answered: Arc<AtomicU64>) -> (u64, u128) {
    let (mut unanswered, mut gap) = (0, Duration::ZERO);
    let mut last = Instant::now();
    while full.load(Ordering::Relaxed) {
        let query = StackQuery::new(WorkloadFilter::default(), ProfileType::CPU, Range::ALL);
        match store.ask(query).await {
            Ok(_) => {
                gap = gap.max(last.elapsed());
                last = Instant::now();
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.is_retryable() => unanswered += 1,
            Err(error) => child::say(&format!("failed to answer: {error}")),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (unanswered, gap.max(last.elapsed()).as_millis())
}
