//! Tests of how batches become rows.

use emberline_model::{
    Batch, Component, Frame, Histogram, LabelSet, Location, Profile, RequestSeries, Sample, Side, WorkloadWindow,
};

use super::*;
use crate::{journal::Lsn, parts::PartSet};

fn batch(stack: u64) -> (Lsn, Arc<Batch>) {
    let mut profile = Profile::empty_cpu(0, 0);
    profile.mappings = vec![Mapping {
        build_id: format!("b{stack}"),
        path: "/bin/shop".into(),
    }];
    profile.locations = vec![
        Location::Native {
            mapping: 0,
            offset: stack,
        },
        Location::Named {
            frames: vec![Frame {
                function: format!("f{stack}"),
                ..Frame::default()
            }],
        },
    ];
    profile.stacks = vec![vec![0, 1], vec![1]];
    profile.label_sets = vec![LabelSet {
        route: stack.to_string(),
        ..LabelSet::none()
    }];
    profile.samples = vec![Sample {
        stack: 0,
        label_set: 0,
        value: 5,
        count: 1,
    }];
    let request = RequestSeries {
        side: Side::Server,
        route: "/".into(),
        method: "GET".into(),
        peer: None,
        destination: String::new(),
        protocol: "tcp".into(),
        status: 0,
        error: false,
        duration: Histogram::new(),
        streaming_s: 0.0,
        request_bytes: 0,
        response_bytes: 0,
        open: 0,
    };
    let window = WorkloadWindow {
        workload: Workload {
            service: format!("s{stack}"),
            ..Workload::default()
        },
        component: Component::Application,
        start_unix_s: 7200,
        length_s: 10,
        has_requests: true,
        has_profiles: true,
        requests: vec![request],
        profiles: vec![profile],
    };
    let batch = Batch {
        id: None,
        received_unix_ms: 0,
        windows: vec![window],
    };
    (stack, Arc::new(batch))
}

fn dictionary_rows(staged: Staged) -> Vec<(String, usize)> {
    let tables = staged
        .into_tables(&BTreeMap::new())
        .into_iter()
        // Nothing collides here.
        .filter(|(name, _)| !name.contains("_19") && name != "salted");
    tables.map(|(name, columns)| (name, columns[0].len())).collect()
}

/// A failed and retried transaction must write its dictionary rows again, or its stacks would have no frames.
#[test]
fn a_failed_transaction_leaves_no_dictionary_row_out() {
    let mut seen = Seen::default();
    let (first, _) = stage(&[batch(1)], &mut seen, 0, &PartSet::default());
    assert!(dictionary_rows(first).iter().all(|(_, rows)| *rows > 0));
    let before = seen.clone();
    let (failed, news) = stage(&[batch(1), batch(2)], &mut seen, 0, &PartSet::default());
    assert_ne!(seen, before);
    seen.forget(&news.added);
    assert_eq!(seen, before);
    let (again, _) = stage(&[batch(1), batch(2)], &mut seen, 0, &PartSet::default());
    assert_eq!(dictionary_rows(again), dictionary_rows(failed));
    let (known, _) = stage(&[batch(1), batch(2)], &mut seen, 0, &PartSet::default());
    assert!(
        dictionary_rows(known).iter().all(|(_, rows)| *rows == 0),
        "what is in the file is not written again"
    );
}

#[test]
fn windows_of_expired_hours_leave_no_rows() {
    let (staged, news) = stage(&[batch(1)], &mut Seen::default(), 3, &PartSet::default());
    assert_eq!((news.expired_windows, news.window_rows), (1, 0));
    assert_eq!(staged.hours().count(), 0);
}
