//! The campaigns of faults in full: `campaign kill | corruption | disk_full | replay`. Prints what it finds and, as its
//! last line, the figures as JSON; ends with 1 when anything was lost, doubled, wrong or did not start. What is held is
//! said in `tests/storage/campaign/mod.rs`; `make bench NAME=kill` and so on run this.

#![allow(clippy::unwrap_used, reason = "a campaign fails by panicking")]

#[path = "../tests/storage/campaign/mod.rs"]
mod campaign;
#[path = "../tests/storage/common/mod.rs"]
mod common;

use std::{fs, path::PathBuf};

/// A setting of the run, from the environment.
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

fn finish(problems: &[String], figures: &[(&str, u64)]) {
    for problem in problems {
        println!("PROBLEM {problem}");
    }
    let fields: Vec<String> = figures
        .iter()
        .map(|(name, value)| format!("\"{name}\": {value}"))
        .collect();
    println!("{{{}}}", fields.join(", "));
    std::process::exit(i32::from(!problems.is_empty()));
}

/// A folder of this run's own; in memory where there is such a place, because a kill leaves the kernel's pages alone and
/// the trials do not depend on the disk.
fn scratch() -> PathBuf {
    let shared_memory = PathBuf::from("/dev/shm");
    let base = if shared_memory.is_dir() {
        shared_memory
    } else {
        std::env::temp_dir()
    };
    let dir = base.join(format!("emberline-campaign-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("the folder for the campaign must be writable");
    dir
}

fn main() {
    if std::env::var_os(campaign::process::CHILD).is_some() {
        return campaign::child::run();
    }
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let dir = scratch();
    let (problems, figures) = match wanted.as_str() {
        "kill" => {
            let outcome = campaign::kill::run(setting("EMBERLINE_KILLS", 1000), campaign::seed(), &dir);
            println!("killed at: {:#?}", outcome.places);
            let figures = vec![
                ("kill_cycles", outcome.cycles),
                ("kill_acknowledged", outcome.acknowledged),
                ("kill_retries_known", outcome.duplicates),
                ("kill_lost", outcome.lost),
                ("kill_doubled", outcome.doubled),
                ("kill_peak_rss_mb", outcome.peak_rss_mb),
            ];
            (outcome.problems, figures)
        }
        "corruption" => {
            let outcome = campaign::corruption::run(setting("EMBERLINE_DAMAGES", 200), campaign::seed(), &dir);
            let figures = vec![
                ("corruption_kinds", outcome.kinds.len() as u64),
                ("corruption_trials", outcome.trials),
                ("corruption_failed_starts", outcome.failed_starts),
                ("corruption_wrong_answers", outcome.wrong_answers),
                ("corruption_peak_rss_mb", outcome.peak_rss_mb),
            ];
            (outcome.problems, figures)
        }
        "disk_full" if !campaign::disk_full::can_mount(&dir) => {
            (vec!["mounting a small disk needs root".to_owned()], Vec::new())
        }
        "disk_full" => {
            let outcome = campaign::disk_full::run(&dir, setting("EMBERLINE_RESERVE_MB", 0));
            println!("{outcome:?}");
            let figures = vec![
                ("disk_full_resume_ms", outcome.resumed_ms),
                ("disk_full_longest_gap_ms", outcome.longest_gap_ms),
                ("disk_full_answered", outcome.answered),
                ("disk_full_unanswered", outcome.unanswered),
                ("disk_full_refused", outcome.refused),
                ("disk_full_lost", outcome.lost),
                ("disk_full_doubled", outcome.doubled),
            ];
            (outcome.problems, figures)
        }
        "replay" => {
            let outcome = campaign::replay::run(&dir, setting("EMBERLINE_JOURNAL_MB", 400));
            let figures = vec![
                ("replay_journal_mb", outcome.journal_mb),
                ("replay_peak_rss_mb", outcome.peak_rss_mb),
            ];
            (outcome.problems, figures)
        }
        _ => {
            eprintln!("choose kill, corruption, disk_full or replay");
            std::process::exit(2);
        }
    };
    let _ = fs::remove_dir_all(&dir);
    finish(&problems, &figures);
}
