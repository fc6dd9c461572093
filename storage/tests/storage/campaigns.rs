//! The campaigns of faults in their short form: kills, damage, a full disk, the replay of a large journal. What they
//! check is described in `campaign/mod.rs`; the full form is `make bench NAME=kill`, `corruption` and `disk_full`.

use crate::campaign;

/// Not a test by itself: the process that the others start and kill.
#[test]
fn child() {
    if std::env::var_os(campaign::process::CHILD).is_some() {
        campaign::child::run();
    }
}

#[test]
fn no_kill_loses_or_doubles_an_acknowledged_batch() {
    let dir = tempfile::tempdir().unwrap();
    let cycles = std::env::var("EMBERLINE_KILLS").ok().and_then(|k| k.parse().ok());
    let outcome = campaign::kill::run(cycles.unwrap_or(16), campaign::seed(), dir.path());
    assert!(outcome.problems.is_empty(), "{:#?}", outcome.problems);
    assert_eq!((outcome.lost, outcome.doubled), (0, 0));
    assert!(outcome.acknowledged > outcome.cycles, "{outcome:?}");
    println!("{outcome:?}");
}

#[test]
fn no_damage_of_one_file_stops_a_start_or_makes_an_answer_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let each = std::env::var("EMBERLINE_DAMAGES").ok().and_then(|k| k.parse().ok());
    let outcome = campaign::corruption::run(each.unwrap_or(1), campaign::seed(), dir.path());
    assert!(outcome.problems.is_empty(), "{:#?}", outcome.problems);
    assert_eq!((outcome.failed_starts, outcome.wrong_answers), (0, 0));
    assert!(outcome.trials >= 27, "{outcome:?}");
    println!("{outcome:?}");
}

#[test]
fn a_disk_that_is_really_full_needs_room_and_no_restart() {
    let dir = tempfile::tempdir().unwrap();
    if !campaign::disk_full::can_mount(dir.path()) {
        println!("skipped: mounting a small disk needs root");
        return;
    }
    for reserve_mb in [0, 4] {
        let outcome = campaign::disk_full::run(dir.path(), reserve_mb);
        println!("min_free_mb {reserve_mb}: {outcome:?}");
        assert!(outcome.problems.is_empty(), "{:#?}", outcome.problems);
        assert_eq!((outcome.lost, outcome.doubled), (0, 0));
        assert!(
            outcome.refused >= 30 && outcome.answered >= campaign::disk_full::ANSWERS,
            "{outcome:?}"
        );
        // Generous: it only has to catch a store that answers nothing until somebody frees space.
        assert!(
            outcome.longest_gap_ms < 20_000 && outcome.resumed_ms < 60_000,
            "{outcome:?}"
        );
    }
}

#[test]
fn a_large_journal_is_replayed_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = campaign::replay::run(dir.path(), 20);
    println!("{outcome:?}");
    assert!(outcome.problems.is_empty(), "{:#?}", outcome.problems);
}
