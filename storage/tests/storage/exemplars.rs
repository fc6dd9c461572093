//! Exemplars are found by trace, by span and by process, from tables and from sealed parts alike.

use std::fs;

use crate::common::*;
use emberline_model::{Batch, Component, Exemplar, Profile, ProfileType, Side, WorkloadWindow};
use emberline_storage::{ExemplarQuery, Exemplars, Label, LabelFilter, Range, Store};

const NS: i64 = 1_000_000_000;
const BUILD: &str = "00112233aabbccdd";

fn exemplar(value: i64, trace: u8, span_id: u64, unix_ns: i64) -> Exemplar {
    Exemplar {
        stack: 0,
        label_set: 0,
        value,
        unix_ns,
        trace_id: [trace; 16],
        span_id,
    }
}

/// A window of an instance, with exemplars of a stack of its own.
fn sent(sequence: u64, version: &str, start: i64, exemplars: Vec<Exemplar>, cut: u64) -> Batch {
    let who = workload("checkout", version, "a");
    let profile = Profile {
        exemplars,
        exemplars_cut: cut,
        ..profile(BUILD, &[(&[sequence, 99], labels("/pay"), 1000)])
    };
    let window = WorkloadWindow {
        has_profiles: true,
        profiles: vec![profile],
        ..window(&who, Component::Application, start)
    };
    batch(sequence, vec![window])
}

async fn fill(store: &Store) {
    let at = |second: i64, nanosecond: i64| (T0 + second) * NS + nanosecond;
    for batch in [
        sent(
            1,
            "v1",
            T0,
            vec![exemplar(5, 1, 10, at(1, 7)), exemplar(6, 2, 20, at(2, 8))],
            40,
        ),
        sent(2, "v2", T0 + 10, vec![exemplar(7, 1, 11, at(11, 9))], 2),
        sent(3, "v2", T0 + 3600, vec![exemplar(8, 1, 10, at(3601, 1))], 0),
        sent(4, "v2", T0 + 20, Vec::new(), 0),
    ] {
        store.append(batch).await.unwrap();
    }
    store.flush_applied().await.unwrap();
}

fn all() -> ExemplarQuery {
    ExemplarQuery::new(Range::ALL, 100)
}

fn values(found: &Exemplars) -> Vec<i64> {
    found.rows.iter().map(|row| row.value).collect()
}

/// Every kind of question, as text.
async fn asked(store: &Store) -> String {
    let version = |value: &str, negated| LabelFilter {
        label: Label::Version,
        values: vec![value.to_owned()],
        negated,
    };
    let mut text = String::new();
    for query in [
        all(),
        ExemplarQuery {
            trace_ids: vec![[1; 16]],
            ..all()
        },
        ExemplarQuery {
            span_ids: vec![20, 11],
            ..all()
        },
        ExemplarQuery {
            filters: vec![version("v2", false)],
            ..all()
        },
        ExemplarQuery {
            filters: vec![version("v2", true)],
            profile_type: Some(ProfileType::CPU.to_owned()),
            ..all()
        },
        ExemplarQuery { limit: 1, ..all() },
    ] {
        let found = store.ask(query).await.unwrap();
        let stacks: Vec<u64> = found.rows.iter().map(|row| row.stack_id).collect();
        let resolved = store.resolve(&stacks).await.unwrap();
        assert_eq!(
            resolved.stacks.len(),
            stacks.iter().collect::<std::collections::BTreeSet<_>>().len()
        );
        text.push_str(&format!("{found:?}\n"));
    }
    text
}

#[tokio::test]
async fn they_are_found_by_trace_by_span_and_by_whose_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store).await;
    let found = store.ask(all()).await.unwrap();
    assert_eq!(
        (values(&found), found.found, found.value, found.cut),
        (vec![5, 6, 7, 8], 4, 26, 42)
    );
    let row = &found.rows[1];
    assert_eq!(
        (row.unix_ns, row.trace_id, row.span_id),
        ((T0 + 2) * NS + 8, [2; 16], 20)
    );
    assert_eq!(
        (row.workload.version.as_str(), row.side, row.route.as_str()),
        ("v1", Some(Side::Server), "/pay")
    );

    let of_trace = ExemplarQuery {
        trace_ids: vec![[1; 16], [3; 16]],
        ..all()
    };
    assert_eq!(values(&store.ask(of_trace).await.unwrap()), [5, 7, 8]);
    let of_both = ExemplarQuery {
        trace_ids: vec![[1; 16]],
        span_ids: vec![10],
        ..all()
    };
    assert_eq!(values(&store.ask(of_both).await.unwrap()), [5, 8]);
    let of_hour = ExemplarQuery {
        range: Range {
            from_unix_s: T0,
            to_unix_s: T0 + 3600,
        },
        limit: 2,
        ..all()
    };
    let found = store.ask(of_hour).await.unwrap();
    assert_eq!(
        (values(&found), found.found, found.value, found.cut),
        (vec![5, 6], 3, 18, 42)
    );
    let of_nobody = ExemplarQuery {
        filters: vec![LabelFilter {
            label: Label::Service,
            values: vec!["' OR true --".to_owned()],
            negated: false,
        }],
        ..all()
    };
    assert_eq!(store.ask(of_nobody).await.unwrap(), Exemplars::default());
}

#[tokio::test]
async fn no_answer_changes_when_they_are_sealed_and_the_hot_store_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 3700);
    let store = Store::open(options(dir.path()), clock.clone()).unwrap();
    fill(&store).await;
    let before = asked(&store).await;
    store.seal().await.unwrap();
    assert_eq!(asked(&store).await, before, "one hour sealed");
    clock.set(T0 + 3 * 3600);
    store.seal().await.unwrap();
    assert_eq!(asked(&store).await, before, "all hours sealed");
    let parts = fs::read_dir(dir.path().join("parts")).unwrap();
    let names = parts.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("exemplars-")).count(), 2);
    store.close();
    fs::remove_file(dir.path().join("hot.duckdb")).unwrap();
    let store = Store::open(options(dir.path()), clock).unwrap();
    store.flush_applied().await.unwrap();
    assert_eq!(asked(&store).await, before, "from parts alone");
}

#[tokio::test]
async fn a_stack_that_only_an_exemplar_mentions_is_sealed_with_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 3 * 3600);
    let store = Store::open(options(dir.path()), clock).unwrap();
    // Folding the rarest stacks of a profile leaves its exemplars as they are.
    let mut batch = sent(1, "v1", T0, vec![exemplar(5, 1, 10, T0 * NS)], 0);
    batch.windows[0].profiles[0].samples.clear();
    store.append(batch).await.unwrap();
    store.flush_applied().await.unwrap();
    store.seal().await.unwrap();
    let found = store.ask(all()).await.unwrap();
    let resolved = store.resolve(&[found.rows[0].stack_id]).await.unwrap();
    assert_eq!(resolved.stacks.len(), 1);
    assert_eq!(found.rows[0].route, "/pay");
}
