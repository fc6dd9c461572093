//! Files that Go's own runtime wrote, recorded from `tests/fixtures/go/main.go` with Go 1.19 on Linux. The numbers are those
//! of `go tool pprof -top -nodefraction=0` on the same files.

use std::{collections::BTreeMap, path::Path};

use emberline_model::{
    Location, Profile,
    formats::cumulative::{difference, is_cumulative},
    pprof,
};

fn file(name: &str) -> Vec<Profile> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/go/{name}.pb.gz"));
    let values = pprof::read(&std::fs::read(path).unwrap(), 1 << 20).unwrap();
    let profiles: Vec<Profile> = values.into_iter().map(|value| value.profile).collect();
    profiles.iter().for_each(|profile| profile.validate().unwrap());
    profiles
}

fn totals(profiles: &[Profile]) -> Vec<(&str, i64)> {
    profiles
        .iter()
        .map(|profile| (profile.profile_type.0.as_str(), profile.total()))
        .collect()
}

/// Own value of a function.
fn flat(profile: &Profile, function: &str) -> i64 {
    let is_leaf = |stack: u32| {
        let leaf = profile.stacks[stack as usize][0];
        let Location::Named { frames } = &profile.locations[leaf as usize] else {
            return false;
        };
        frames[0].function == function
    };
    let samples = profile.samples.iter().filter(|sample| is_leaf(sample.stack));
    samples.map(|sample| sample.value).sum()
}

#[test]
fn heap_and_allocs_have_four_types_each_with_its_total() {
    for (name, objects, bytes, objects_in_use, bytes_in_use) in [
        ("heap", 8_286, 261_190_205, 182, 6_824_954),
        ("allocs", 9_134, 269_055_217, 209, 5_463_507),
        ("allocs-later", 14_682, 347_877_048, 322, 10_449_175),
        ("allocs-restarted", 1_953, 62_412_369, 201, 5_142_971),
    ] {
        assert_eq!(
            totals(&file(name)),
            [
                ("memory:alloc_objects:count:space:bytes", objects),
                ("memory:alloc_space:bytes:space:bytes", bytes),
                ("memory:inuse_objects:count:space:bytes", objects_in_use),
                ("memory:inuse_space:bytes:space:bytes", bytes_in_use),
            ],
            "{name}"
        );
    }
    let heap = file("heap");
    assert_eq!(flat(&heap[1], "main.throwMemoryAway"), 255_676_169);
    assert_eq!(flat(&heap[3], "main.keepMemory"), 4_194_304);
}

#[test]
fn mutex_block_and_goroutine_have_their_totals() {
    assert_eq!(
        totals(&file("mutex")),
        [
            ("mutex:contentions:count:contentions:count", 3_193),
            ("mutex:delay:nanoseconds:contentions:count", 4_846_199_875),
        ]
    );
    let block = file("block");
    assert_eq!(
        block.iter().map(Profile::total).collect::<Vec<_>>(),
        [3_260, 21_134_139_654]
    );
    assert_eq!(flat(&block[1], "sync.(*Mutex).Lock"), 14_118_179_741);
    // Samples of delay are as many as there were contentions.
    assert_eq!(block[1].samples.iter().map(|sample| sample.count).sum::<u64>(), 3_260);
    assert_eq!(
        totals(&file("goroutine")),
        [("goroutine:goroutine:count:goroutine:count", 15)]
    );
}

#[test]
fn cpu_has_samples_and_time_over_its_length() {
    let profiles = file("cpu");
    assert_eq!(
        totals(&profiles),
        [
            ("process_cpu:samples:count:cpu:nanoseconds", 31),
            ("process_cpu:cpu:nanoseconds:cpu:nanoseconds", 310_000_000),
        ]
    );
    assert_eq!(flat(&profiles[1], "main.burn"), 180_000_000);
    assert_eq!(profiles[1].period, 10_000_000);
    assert_eq!(profiles[1].duration_ns / 10_000_000, 303);
}

#[test]
fn counters_of_a_running_process_never_look_like_a_restart() {
    for (earlier, later, grown) in [
        ("allocs", "allocs-later", vec![5_548, 78_821_831]),
        ("mutex", "mutex-later", vec![1_043, 1_302_561_048]),
        // A look by another address of the same counters.
        ("heap", "allocs", vec![848, 7_865_012]),
    ] {
        let base = difference(None, &mut file(earlier), 0, 10_000, is_cumulative).unwrap();
        let mut profiles = file(later);
        let growth = difference(Some(&base.baseline), &mut profiles, 0, 10_000, is_cumulative).unwrap();
        assert!(!growth.restarted, "{earlier} to {later}");
        profiles.retain(|profile| is_cumulative(&profile.profile_type));
        assert_eq!(
            profiles.iter().map(Profile::total).collect::<Vec<_>>(),
            grown,
            "{earlier} to {later}"
        );
    }
}

#[test]
fn counters_of_a_new_process_count_whole() {
    let base = difference(None, &mut file("allocs-later"), 0, 10_000, is_cumulative).unwrap();
    let mut profiles = file("allocs-restarted");
    let growth = difference(Some(&base.baseline), &mut profiles, 0, 10_000, is_cumulative).unwrap();
    assert!(growth.restarted);
    let totals: BTreeMap<&str, i64> = totals(&profiles).into_iter().collect();
    assert_eq!(totals["memory:alloc_space:bytes:space:bytes"], 62_412_369);
}
