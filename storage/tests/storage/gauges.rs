//! Gauges keep their meaning on the way from tables to sealed samples to roll-ups: a mean over time, added up over
//! instances.

use std::time::Duration;

use crate::common::*;
use emberline_model::{Batch, Component, LabelSet, ProfileType};
use emberline_storage::{Label, Range, SelectedQuery, StackQuery, Store, WorkloadFilter};

const HEAP: &str = "memory:inuse_space:bytes:space:bytes";

fn heap(instance: &str, start_unix_s: i64, bytes: i64) -> Batch {
    let mut window = window(&workload("cache", "v1", instance), Component::Application, start_unix_s);
    let mut profile = profile(
        "b1",
        &[(&[1], LabelSet::none(), bytes), (&[2], LabelSet::none(), 4 * bytes)],
    );
    profile.profile_type = ProfileType(HEAP.to_owned());
    window.has_profiles = true;
    window.profiles = vec![profile];
    Batch {
        id: None,
        received_unix_ms: 0,
        windows: vec![window],
    }
}

/// The mean of the first hour: as one number, by version, by step, and by stack in two ways.
async fn means(store: &Store) -> Vec<i64> {
    store.flush_applied().await.unwrap();
    let range = Range {
        from_unix_s: T0,
        to_unix_s: T0 + 3600,
    };
    let query = SelectedQuery::new(HEAP, Vec::new(), range);
    let by_version = SelectedQuery {
        by: vec![Label::Version],
        ..query.clone()
    };
    let by_step = SelectedQuery {
        step_s: 3600,
        ..query.clone()
    };
    let by_stack = SelectedQuery {
        by_stack: true,
        ..query.clone()
    };
    let mut means = Vec::new();
    for query in [query, by_version, by_step, by_stack] {
        means.extend(store.ask(query).await.unwrap().iter().map(|row| row.value));
    }
    let stacks = StackQuery::new(WorkloadFilter::service("cache"), HEAP, range);
    means.push(store.ask(stacks).await.unwrap().value);
    means.sort_unstable();
    means
}

#[tokio::test]
async fn the_mean_of_a_gauge_outlives_its_samples() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 600);
    let mut options = options(dir.path());
    options.retention = Duration::from_secs(2 * 3600);
    let store = Store::open(options, clock.clone()).unwrap();
    for (instance, start, bytes) in [("a", 0, 100), ("a", 10, 200), ("b", 0, 10), ("b", 10, 30)] {
        store.append(heap(instance, T0 + start, bytes)).await.unwrap();
    }
    // 150 + 20 bytes on average in one stack, four times as much in the other.
    let expected = [170, 680, 850, 850, 850, 850];
    assert_eq!(means(&store).await, expected, "tables");
    clock.set(T0 + 3600 + 700);
    store.seal().await.unwrap();
    assert_eq!(store.stats().sealed_hours, 1);
    assert_eq!(means(&store).await, expected, "sealed samples");
    clock.set(T0 + 5 * 3600);
    store.append(heap("a", T0 + 5 * 3600, 7)).await.unwrap();
    store.flush_applied().await.unwrap();
    store.apply_retention().await.unwrap();
    assert_eq!(store.stats().sample_parts_dropped, 1);
    assert_eq!(means(&store).await, expected, "the roll-up");
}
