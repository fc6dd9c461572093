//! The benches' data, small: what the generator puts in comes out of the store again, exactly, sealed and by the names of
//! functions.

use std::{sync::Arc, time::Duration};

use emberline_model::{ProfileType, resolve::StackValue, tree::TreeBuilder};
use emberline_storage::{Options, Range, StackQuery, Store, WorkloadFilter};
use emberline_tests::{
    bulk::{self, HandClock, Loaded, Phase, Plan},
    generator::{
        Random,
        mesh::{Build, Shape},
        pinned::{self, Pinned},
    },
};

fn small_plan() -> Plan {
    let phase = |version, hours, every_s| Phase {
        version,
        hours,
        instances: 2,
        every_s,
    };
    Plan {
        service: "checkout".into(),
        shape: Shape::SMALL,
        phases: vec![phase(1, 2, 300), phase(2, 1, 120)],
        neighbours: 2,
        requests: false,
        start_s: pinned::START - 3 * 3600,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_loaded_in_bulk_is_answered_exactly_and_alike_at_every_limit() {
    let dir = tempfile::tempdir().unwrap();
    let plan = small_plan();
    let clock = Arc::new(HandClock::at(plan.start_s));
    let mut options = Options::new(dir.path());
    options.retention = Duration::from_secs(30 * 24 * 3600);
    let store = Store::open(options, clock.clone()).unwrap();
    let loaded = bulk::load(&store, &clock, &plan, |_| {}).await.unwrap();
    assert_eq!(loaded.hours.len(), 3);
    assert_eq!(store.stats().sample_rows, loaded.rows);
    assert_eq!(Loaded::from_json(&loaded.to_json()).unwrap(), loaded);

    for (from_hour, to_hour, version) in [
        (0, 3, None),
        (0, 2, Some(1)),
        (2, 3, Some(2)),
        (0, 3, Some(2)),
        (1, 2, None),
    ] {
        let range = Range {
            from_unix_s: plan.start_s + from_hour * 3600,
            to_unix_s: plan.start_s + to_hour * 3600,
        };
        let who = WorkloadFilter {
            version: version.map(|version| format!("v{version}")),
            ..WorkloadFilter::service("checkout")
        };
        let answer = store.ask(StackQuery::new(who, ProfileType::CPU, range)).await.unwrap();
        let (rows, value) = loaded.sum(range.from_unix_s, range.to_unix_s, version);
        assert!(rows > 0);
        assert_eq!(answer.value, value);

        let ids: Vec<u64> = answer.rows.iter().map(|row| row.stack_id).collect();
        let resolved = store.resolve(&ids).await.unwrap();
        assert!(
            resolved
                .functions
                .iter()
                .all(|function| function.name.starts_with("checkout::module_"))
        );
        let tree = |limit| {
            let mut tree = TreeBuilder::new();
            let rows = answer.rows.iter().map(|row| StackValue {
                stack_id: row.stack_id,
                side: 0,
                value: row.value,
                samples: row.samples,
            });
            tree.add_resolved(&resolved, rows);
            tree.finish(limit)
        };
        let exact = tree(None);
        for limit in [Some(16), Some(1024), Some(8192), None] {
            let shown = tree(limit);
            assert_eq!(shown.nodes.iter().map(|node| node.self_value[0]).sum::<i64>(), value);
            assert_eq!(shown.totals, exact.totals);
        }
    }
    store.close();
}

#[test]
fn releases_of_one_service_share_most_functions_and_no_address() {
    let [first, second] = [1, 2].map(|version| Build::new("checkout", version, &Shape::SMALL));
    let ((key, _), (other, _)) = (first.symbols(), second.symbols());
    assert_ne!(key, other);
    let [before, after] = [&first, &second].map(|build| {
        let (_, located) = build.symbols();
        let names = located.into_iter().map(|(_, mut frames)| frames.remove(0).function);
        names.collect::<std::collections::BTreeSet<String>>()
    });
    let both = before.intersection(&after).count();
    assert!(both * 2 > before.len(), "{both} of {}", before.len());
}

#[test]
fn the_generator_says_the_same_in_every_run() {
    let window = || Build::new("checkout", 1, &Shape::SMALL).window(&mut Random::new(5), 3, pinned::START);
    assert_eq!(window(), window());
    assert!(window().profiles[0].validate().is_ok());
    assert_eq!(
        window().profiles[0].samples.iter().map(|s| s.count).sum::<u64>(),
        Shape::SMALL.samples as u64
    );
    let shape = Pinned {
        profiles: 10,
        series: 4,
        stacks: 2_000,
        functions: 300,
        services: 4,
        ..Pinned::default()
    };
    let profiles = || {
        shape
            .batches()
            .flat_map(|batch| batch.windows)
            .flat_map(|window| window.profiles)
    };
    assert_eq!(profiles().count(), 10);
    assert!(profiles().all(|profile| profile.samples.len() == shape.samples && profile.validate().is_ok()));
    assert!(profiles().eq(profiles()));
}
