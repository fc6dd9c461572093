//! Two contents crafted to share an identifier: neither gets the names of the other.

use std::fs;

use crate::common::*;
use emberline_model::{
    Batch, Component, Frame, LabelSet, Location, Mapping, Profile, ProfileType, Sample,
    id::{location_id, stack_id},
};
use emberline_storage::{Range, StackQuery, Store, WorkloadFilter};

/// XXH3's secret, bytes 24 to 31. For a text of 64 bytes it is XORed with the last eight bytes, and the eight before
/// them are multiplied by the result: by zero.
const BLIND_OFFSET: u64 = 0x1f67_b3b7_a4a4_4072;
const VICTIM: &str = "00112233445566778899aabbccaaaaaaaa";
const IMPOSTOR: &str = "00112233445566778899aabbccbbbbbbbb";

fn location() -> Location {
    Location::Native {
        mapping: 0,
        offset: BLIND_OFFSET,
    }
}

fn sent(sequence: u64, service: &str, build: &str, start: i64) -> Batch {
    let mut profile = Profile::empty_cpu(start * 1_000_000_000, 10_000_000_000);
    profile.mappings = vec![Mapping {
        build_id: build.into(),
        path: format!("/bin/{service}"),
    }];
    profile.locations = vec![location()];
    profile.stacks = vec![vec![0]];
    profile.label_sets = vec![LabelSet::none()];
    profile.samples = vec![Sample {
        stack: 0,
        label_set: 0,
        value: 7,
        count: 1,
    }];
    let mut window = window(&workload(service, "v1", "a"), Component::Application, start);
    window.has_profiles = true;
    window.profiles = vec![profile];
    batch(sequence, vec![window])
}

fn name(store: &Store, build: &str, function: &str) {
    let frame = Frame {
        function: function.into(),
        ..Frame::default()
    };
    store.put_symbols(build, vec![(BLIND_OFFSET, vec![frame])]).unwrap();
}

/// The functions in which a service spent CPU, with the time.
async fn functions(store: &Store, service: &str) -> Vec<(String, i64)> {
    let query = StackQuery::new(WorkloadFilter::service(service), ProfileType::CPU, Range::ALL);
    let rows = store.ask(query).await.unwrap().rows;
    let ids: Vec<u64> = rows.iter().map(|row| row.stack_id).collect();
    let resolved = store.resolve(&ids).await.unwrap();
    let mut all: Vec<(String, i64)> = Vec::new();
    for row in rows {
        let names = resolved
            .frames(row.stack_id)
            .map(|f| resolved.functions[f as usize].name.clone());
        all.push((names.collect::<Vec<_>>().join(";"), row.value));
    }
    all.sort();
    all
}

/// The first content under an identifier must not give its names to everything that comes later.
#[tokio::test]
async fn a_made_collision_gives_neither_service_the_names_of_the_other() {
    assert_eq!(
        location_id(&location(), VICTIM),
        location_id(&location(), IMPOSTOR),
        "the pair collides"
    );
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 7200);
    let store = Store::open(options(dir.path()), clock.clone()).unwrap();
    let expect = async |store: &Store, windows: i64, collisions: u64| {
        store.flush_applied().await.unwrap();
        assert_eq!(functions(store, "atk").await, [("impostor".to_owned(), 7)]);
        assert_eq!(
            functions(store, "shopx").await,
            [("price_basket".to_owned(), 7 * windows)]
        );
        assert_eq!(store.stats().id_collisions, collisions);
    };
    store.append(sent(1, "atk", IMPOSTOR, T0)).await.unwrap();
    store.append(sent(2, "shopx", VICTIM, T0 + 10)).await.unwrap();
    name(&store, IMPOSTOR, "impostor");
    name(&store, VICTIM, "price_basket");
    expect(&store, 1, 1).await;
    store.seal().await.unwrap();
    assert_eq!(store.stats().dictionary_stacks, 0);
    expect(&store, 1, 1).await;
    // In an hour of its own, and counted once.
    store.append(sent(3, "shopx", VICTIM, T0 + 3600)).await.unwrap();
    expect(&store, 2, 1).await;
    store.close();
    let store = Store::open(options(dir.path()), clock.clone()).unwrap();
    expect(&store, 2, 0).await;
    store.close();
    fs::remove_file(dir.path().join("hot.duckdb")).unwrap();
    let store = Store::open(options(dir.path()), clock.clone()).unwrap();
    expect(&store, 2, 0).await;
    clock.set(T0 + 3 * 86_400 - 7200);
    store.seal().await.unwrap();
    store.compact().await.unwrap();
    expect(&store, 2, 0).await;
    store.close();
}

/// The first one may already be sealed, even by an earlier process.
#[tokio::test]
async fn a_collision_with_what_only_parts_have_is_seen() {
    for restart in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let clock = TestClock::at(T0 + 7200);
        let mut store = Store::open(options(dir.path()), clock.clone()).unwrap();
        store.append(sent(1, "shopx", VICTIM, T0)).await.unwrap();
        name(&store, IMPOSTOR, "impostor");
        name(&store, VICTIM, "price_basket");
        store.flush_applied().await.unwrap();
        store.seal().await.unwrap();
        if restart {
            store.close();
            store = Store::open(options(dir.path()), clock.clone()).unwrap();
        }
        store.append(sent(2, "atk", IMPOSTOR, T0 + 3600)).await.unwrap();
        store.flush_applied().await.unwrap();
        assert_eq!(
            functions(&store, "shopx").await,
            [("price_basket".to_owned(), 7)],
            "{restart}"
        );
        assert_eq!(
            functions(&store, "atk").await,
            [("impostor".to_owned(), 7)],
            "{restart}"
        );
        assert_eq!(store.stats().id_collisions, 1, "{restart}");
        store.close();
    }
}

/// A known row keeps the identifier that everybody computes.
#[tokio::test]
async fn what_does_not_collide_keeps_its_identifier() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(sent(1, "shopx", VICTIM, T0)).await.unwrap();
    store.append(sent(2, "shopy", VICTIM, T0)).await.unwrap();
    store.flush_applied().await.unwrap();
    let query = StackQuery::new(WorkloadFilter::service("shopy"), ProfileType::CPU, Range::ALL);
    let rows = store.ask(query).await.unwrap().rows;
    assert_eq!(rows[0].stack_id, stack_id(&[location_id(&location(), VICTIM)]));
    assert_eq!(store.stats().id_collisions, 0);
    let secret = fs::metadata(dir.path().join("secret.bin")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&secret.permissions()) & 0o777,
        0o600
    );
}
