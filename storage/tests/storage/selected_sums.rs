//! Sums of a selection have one row for each requested combination, and no more.

use crate::common::*;
use emberline_model::{Component, ProfileType};
use emberline_storage::{Label, Range, SelectedQuery};

/// Regression: a column of the answer was taken for the column of the samples, so each stack got a row of its own.
#[tokio::test]
async fn stacks_are_not_told_apart_unless_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut windows = Vec::new();
    for (instance, start) in [("a", T0), ("a", T0 + 10), ("b", T0)] {
        let mut window = window(&workload("checkout", "v1", instance), Component::Application, start);
        let stacks: [&[u64]; 3] = [&[1], &[2, 1], &[3, 1]];
        let samples = stacks.map(|stack| (stack, labels("/quote"), 5));
        window.has_profiles = true;
        window.profiles = vec![profile("00112233aabbccdd", &samples)];
        windows.push(window);
    }
    store.append(batch(1, windows)).await.unwrap();
    store.flush_applied().await.unwrap();
    let query = SelectedQuery::new(ProfileType::CPU, Vec::new(), Range::ALL);
    for (by, step_s, by_stack, rows) in [
        (vec![], 0, false, 1),
        (vec![], 10, false, 2),
        (vec![], 0, true, 3),
        (vec![Label::Instance], 0, false, 2),
        (vec![Label::Instance, Label::Route], 10, false, 3),
    ] {
        for count_windows in [false, true] {
            let query = SelectedQuery {
                by: by.clone(),
                step_s,
                by_stack,
                count_windows,
                ..query.clone()
            };
            let found = store.ask(query).await.unwrap();
            assert_eq!(found.len(), rows, "{by:?} {step_s} {by_stack} {count_windows}");
            assert_eq!(found.iter().map(|row| row.value).sum::<i64>(), 45);
        }
    }
}
