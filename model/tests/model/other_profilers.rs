//! Files of other profilers, and the right value of each. The numbers of files with a version in their name are those of the
//! tools themselves (`go tool pprof`, the sum of a text's lines, the program's own report).

use std::{collections::BTreeMap, path::Path};

use emberline_model::{
    Location, Profile, ProfileType,
    formats::{FormatError, ReadProfiles, Reading, meaning::WALL, read},
    pprof,
};

fn bytes(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/others/{name}"));
    std::fs::read(path).unwrap()
}

fn try_as(name: &str, kind: Option<&str>) -> Result<ReadProfiles, FormatError> {
    let how = Reading {
        kind,
        limit: 1 << 20,
        ..Reading::default()
    };
    let read = read(&bytes(name), &how)?;
    read.profiles.iter().for_each(|profile| profile.validate().unwrap());
    Ok(read)
}

fn file(name: &str) -> ReadProfiles {
    try_as(name, None).unwrap()
}

fn totals(read: &ReadProfiles) -> BTreeMap<&str, i64> {
    let of = |profile: &Profile| profile.total();
    read.profiles
        .iter()
        .map(|profile| (profile.profile_type.0.as_str(), of(profile)))
        .collect()
}

fn reasons(list: &[emberline_model::otlp::Rejected]) -> Vec<(&str, u64)> {
    list.iter().map(|rejected| (rejected.reason, rejected.count)).collect()
}

/// A place by its name, or by its file and offset.
fn name(profile: &Profile, at: u32) -> String {
    match &profile.locations[at as usize] {
        Location::Named { frames } => frames
            .iter()
            .map(|frame| frame.function.as_str())
            .collect::<Vec<_>>()
            .join("+"),
        Location::Native { mapping, offset } => format!("{}+{offset:#x}", profile.mappings[*mapping as usize].path),
    }
}

/// Value of each stack, root first.
fn stacks(profile: &Profile) -> BTreeMap<String, i64> {
    let mut stacks = BTreeMap::new();
    for sample in &profile.samples {
        let names: Vec<String> = profile.stacks[sample.stack as usize]
            .iter()
            .rev()
            .map(|&at| name(profile, at))
            .collect();
        *stacks.entry(names.join(";")).or_default() += sample.value;
    }
    stacks
}

fn only(read: &ReadProfiles) -> &Profile {
    assert_eq!(read.profiles.len(), 1, "{:?}", totals(read));
    &read.profiles[0]
}

fn one(stack: &str, value: i64) -> BTreeMap<String, i64> {
    [(stack.to_owned(), value)].into()
}

#[test]
fn row_7_files_that_are_gone_or_hold_brackets_are_one_frame() {
    let deleted = file("perf-deleted.txt");
    assert_eq!(stacks(only(&deleted)), one("shop;main;price", 100_000_000));
    let parens = file("perf-parens.txt");
    assert_eq!(stacks(only(&parens)), one("shop;[shop];price", 100_000_000));
    let gone = file("perf-6.1-deleted-binary.txt");
    for stack in stacks(only(&gone)).keys() {
        let known = |name: &str| matches!(name, "gone2" | "[gone2]" | "__libc_start_call_main");
        assert!(stack.split(';').all(known), "{stack}");
    }
}

#[test]
fn row_8_the_growing_types_of_a_difference_are_kept_and_the_others_said() {
    let read = file("heap-delta.pb.gz");
    assert_eq!(totals(&read)["memory:alloc_space:bytes:space:bytes"], 1_500_000);
    assert_eq!(read.profiles.len(), 2);
    assert_eq!(reasons(&read.left_out), [("negative_value", 2), ("negative_value", 2)]);
    assert_eq!(read.left_out[1].what, "memory:inuse_space:bytes:space:bytes");
    let go = file("go-1.19-heap-seconds-delta.pb.gz");
    assert!(
        go.profiles
            .iter()
            .all(|profile| profile.profile_type.0.contains("alloc_")),
        "{:?}",
        totals(&go)
    );
    assert_eq!(reasons(&go.left_out).len(), 2);
}

#[test]
fn row_9_cpu_time_of_any_unit_is_cpu_time() {
    for unit in ["microseconds", "milliseconds", "seconds"] {
        let read = file(&format!("cpu-{unit}.pb.gz"));
        assert_eq!(totals(&read)[ProfileType::CPU], 1_000_000_000, "{unit}");
        let cpu = read
            .profiles
            .iter()
            .find(|profile| profile.profile_type == ProfileType::cpu())
            .unwrap();
        assert_eq!(cpu.samples[0].count, 100);
        if unit != "seconds" {
            assert_eq!(cpu.period, 10_000_000, "the period is of the same unit");
        }
    }
}

#[test]
fn row_10_addresses_are_places_of_their_file_in_every_process() {
    let places = |version: &str| {
        let read = file(&format!("aslr.{version}.pb.gz"));
        let cpu = read
            .profiles
            .iter()
            .find(|profile| profile.profile_type == ProfileType::cpu())
            .unwrap();
        stacks(cpu)
    };
    let expected: BTreeMap<String, i64> = [0x3340, 0x3350, 0x3360, 0x3370]
        .map(|offset| (format!("main;/usr/bin/shop+{offset:#x}"), 250_000_000))
        .into();
    assert_eq!(places("v1"), expected);
    assert_eq!(places("v2"), expected);
}

#[test]
fn rows_11_and_12_the_default_type_and_samples_at_their_rate() {
    for (version, value) in [("v1", 1_000_000), ("v2", 3_000_000)] {
        let name = format!("default-type.{version}.pb.gz");
        let file = pprof::read_file(&bytes(&name), 1 << 20, pprof::Addresses::InMemory).unwrap();
        let default = &file.values[file.default_value];
        assert_eq!(
            (default.name.as_str(), default.profile.total()),
            ("alloc_space/bytes", value)
        );
        let rates = file_of_rates(version);
        assert_eq!((rates.0.as_str(), rates.1), ("cpu/nanoseconds", 1_000_000_000));
    }
}

fn file_of_rates(version: &str) -> (String, i64) {
    let mut values = pprof::read(&bytes(&format!("rates.{version}.pb.gz")), 1 << 20).unwrap();
    let only = values.remove(0);
    (only.name, only.profile.total())
}

#[test]
fn row_14_commands_hold_blanks_and_numbers() {
    for name in ["perf-comm.txt", "perf-comm-noperiod.txt"] {
        let read = file(name);
        let expected: BTreeMap<String, i64> = ["worker 1;price", "worker 2;price"]
            .map(|stack| (stack.to_owned(), 50_000_000))
            .into();
        assert_eq!(stacks(only(&read)), expected, "{name}");
        let assumed = name.contains("noperiod").then_some(("period_assumed", 10));
        assert_eq!(reasons(&read.changed), assumed.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn row_15_events_are_told_apart_by_their_whole_name() {
    for (name, switches, wakeups) in [("perf-tracepoints.txt", 5, 5), ("perf-6.1-tracepoints.txt", 1, 2)] {
        let read = file(name);
        let expected: BTreeMap<&str, i64> = [
            ("perf:sched_sched_switch:count:sched_sched_switch:count", switches),
            ("perf:sched_sched_wakeup:count:sched_sched_wakeup:count", wakeups),
        ]
        .into();
        assert_eq!(totals(&read), expected, "{name}");
    }
}

#[test]
fn row_17_a_comparison_is_no_profile() {
    let error = try_as("two-columns.folded", None).unwrap_err().to_string();
    assert!(error.contains("comparison") && error.contains("line 1"), "{error}");
    let sides = file("two-sides.speedscope.json");
    assert_eq!(reasons(&sides.changed), [("profiles_added_up", 2)]);
    assert_eq!(sides.changed[0].what, "`shop v1`, `shop v2`");
    let text = String::from_utf8(bytes("two-sides.speedscope.json")).unwrap();
    let own = text.replacen('{', r#"{"exporter": "emberline@0.1.0", "#, 1);
    let how = Reading {
        limit: 1 << 20,
        ..Reading::default()
    };
    let error = read(own.as_bytes(), &how).unwrap_err().to_string();
    assert!(error.contains("comparison of two releases"), "{error}");
}

#[test]
fn rows_18_and_20_lines_with_a_hash_and_decimals_are_samples() {
    for name in ["hash-root.folded", "decimals.folded"] {
        let read = file(name);
        assert_eq!(only(&read).total(), 150_000_000, "{name}");
    }
    assert_eq!(only(&file("hash-root.folded")).samples.len(), 2);
    let error = try_as("one-bad-line.folded", None).unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn rows_19_and_24_events_end_with_the_file_and_rounding_loses_nothing() {
    let unfinished: BTreeMap<String, i64> =
        [("main".to_owned(), 70_000_000), ("main;price".to_owned(), 30_000_000)].into();
    assert_eq!(stacks(only(&file("unfinished.speedscope.json"))), unfinished);
    assert_eq!(
        stacks(only(&file("end-value.speedscope.json"))),
        one("main", 50_000_000)
    );
    assert_eq!(stacks(only(&file("rounding.speedscope.json"))), one("main;price", 400));
    assert!(file("no-profiles.speedscope.json").profiles.is_empty());
}

#[test]
fn rows_21_and_22_what_the_file_drops_and_names_that_only_the_linker_has() {
    assert_eq!(stacks(only(&file("drop-frames.pb.gz"))), one("main;build", 1000));
    let read = file("system-name.pb.gz");
    let cpu = read
        .profiles
        .iter()
        .find(|profile| profile.profile_type == ProfileType::cpu())
        .unwrap();
    assert_eq!(stacks(cpu), one("main;price_basket", 1_000_000_000));
}

#[test]
fn row_25_source_lines_are_lines_and_no_frames() {
    let read = file("perf-srcline.txt");
    let profile = only(&read);
    assert_eq!(stacks(profile), one("shop;main;price", 50_000_000));
    let places: Vec<(&str, u32)> = profile
        .locations
        .iter()
        .filter_map(|location| match location {
            Location::Named { frames } => Some((frames[0].file.as_str(), frames[0].line)),
            Location::Native { .. } => None,
        })
        .collect();
    assert!(
        places.contains(&("price.c", 12)) && places.contains(&("main.c", 3)),
        "{places:?}"
    );
}

#[test]
fn row_26_cycles_of_both_kinds_of_cores_are_cycles() {
    let read = file("perf-hybrid.txt");
    assert_eq!(only(&read).profile_type.0, "perf:cycles:count:cycles:count");
    assert_eq!(only(&read).total(), 100_000_000);
}

#[test]
fn py_spy_says_functions_files_and_lines() {
    for (name, samples) in [("py-spy-0.4.3-v1.raw", 412), ("py-spy-0.4.3-v2.raw", 439)] {
        let read = file(name);
        let profile = only(&read);
        assert_eq!(profile.total(), samples * 10_000_000);
        let functions: Vec<String> = (0..profile.locations.len() as u32)
            .map(|at| self::name(profile, at))
            .collect();
        assert!(functions.contains(&"main".to_owned()), "{functions:?}");
        assert!(functions.iter().all(|name| !name.contains(['(', ':'])), "{functions:?}");
    }
}

#[test]
fn v8_says_functions_files_and_lines() {
    let read = file("perf-6.1-node-20-tiers.txt");
    let expected: BTreeMap<String, i64> = [
        ("node;(anonymous);main".to_owned(), 2_004_008),
        ("node;(anonymous);main;work;leafwork".to_owned(), 2_004_008),
    ]
    .into();
    assert_eq!(
        stacks(only(&read)),
        expected,
        "how it was compiled makes no second function"
    );
}

#[test]
fn heaptrack_says_files_and_counts_what_it_is_told_to_count() {
    let read = try_as("heaptrack-1.4.0-default.folded", Some("alloc_objects")).unwrap();
    assert_eq!(
        totals(&read),
        [("memory:alloc_objects:count:space:bytes", 11_002)].into()
    );
    assert_eq!(stacks(only(&read))["main;hold;allocate"], 1000);
}

#[test]
fn nanoseconds_in_collapsed_stacks_are_asked_for_by_name() {
    let read = try_as("inferno-0.12.6-perf.folded", Some("cpu_nanoseconds")).unwrap();
    assert_eq!(totals(&read), [(ProfileType::CPU, 499_499_499)].into());
}

#[test]
fn memory_of_memray_is_in_use_and_its_counts_are_objects() {
    let read = file("memray-1.20.0.speedscope.json");
    let expected: BTreeMap<&str, i64> = [
        ("memory:inuse_space:bytes:space:bytes", 10_050_965),
        ("memory:inuse_objects:count:space:bytes", 102),
    ]
    .into();
    assert_eq!(totals(&read), expected);
    assert!(read.profiles.iter().all(|profile| profile.profile_type.is_gauge()));
    for kind in ["alloc_space", "alloc_objects"] {
        let asked = try_as("memray-1.20.0.speedscope.json", Some(kind)).unwrap();
        let expected: BTreeMap<&str, i64> = [
            ("memory:alloc_space:bytes:space:bytes", 10_050_965),
            ("memory:alloc_objects:count:space:bytes", 102),
        ]
        .into();
        assert_eq!(totals(&asked), expected, "bytes and objects never become each other");
    }
}

#[test]
fn pyinstrument_measures_wall_time_whatever_it_calls_it() {
    let read = file("pyinstrument-5.1.3.speedscope.json");
    assert_eq!(totals(&read), [(WALL, 1_508_179_705)].into());
    let asked = try_as("pyinstrument-5.1.3.speedscope.json", Some("cpu")).unwrap();
    assert_eq!(
        only(&asked).profile_type.0,
        ProfileType::CPU,
        "who sends it knows better"
    );
}

#[test]
fn austin_writes_microseconds_with_a_greek_letter() {
    let read = file("austin2pprof-2.4.0.pb");
    assert_eq!(totals(&read), [(WALL, 3_011_199_000)].into());
}

#[test]
fn ddtrace_writes_nineteen_types_packed_with_zstd() {
    let read = file("ddtrace-4.16.0.pprof.zst");
    let totals = totals(&read);
    assert_eq!(totals[ProfileType::CPU], 587_145_000);
    assert_eq!(totals[WALL], 2_047_894_000);
    assert_eq!(totals["memory:alloc_space:bytes:space:bytes"], 639_886_643);
    for name in [
        "process_cpu:samples:count:cpu:nanoseconds",
        "wall:samples:count:wall:nanoseconds",
        "memory:alloc_objects:count:space:bytes",
    ] {
        assert!(totals.get(name).is_some_and(|&total| total > 0), "{name} in {totals:?}");
    }
    assert!(
        !totals.keys().any(|name| name.contains("gpu")),
        "types without a value are not kept"
    );
    let of = |wanted: &str| {
        read.profiles
            .iter()
            .find(|profile| profile.profile_type.0 == wanted)
            .unwrap()
    };
    let counted: u64 = of(ProfileType::CPU).samples.iter().map(|sample| sample.count).sum();
    assert!(
        counted >= of("process_cpu:samples:count:cpu:nanoseconds").total() as u64 / 2,
        "{counted}"
    );
}

/// `findings/bun-cpuprofile-has-no-idle.sh`: computes for 300 ms, between five pauses of 200 ms.
#[test]
fn pauses_of_bun_are_idle_and_no_time_of_what_ran_before() {
    let read = file("bun-1.4.4.cpuprofile");
    let totals = totals(&read);
    assert_eq!(totals[WALL], 1_303_078_250, "all of it");
    assert!(
        (270_000_000..330_000_000).contains(&totals[ProfileType::CPU]),
        "{totals:?}"
    );
    let [wall, cpu] = &read.profiles[..] else {
        panic!("two types")
    };
    let own = |profile: &Profile, function: &str| -> i64 {
        let stacks = stacks(profile);
        let of = stacks.iter().filter(|(stack, _)| stack.ends_with(function));
        of.map(|(_, value)| value).sum()
    };
    assert_eq!(own(cpu, "(idle)"), 0);
    assert!((980_000_000..1_030_000_000).contains(&own(wall, "(idle)")));
    assert_eq!(own(wall, "compute"), own(cpu, "compute"));
    assert_eq!(own(cpu, "compute"), totals[ProfileType::CPU]);
}

/// `findings/pprofile-adds-a-ratio-to-its-callgrind-events.sh`
#[test]
fn a_ratio_among_the_events_of_callgrind_is_no_cost() {
    let read = file("pprofile-2.2.0.callgrind");
    assert_eq!(
        totals(&read),
        [("callgrind:hits:count:hits:count", 600_012), (WALL, 4_362_172_000)].into()
    );
    assert_eq!(reasons(&read.left_out), [("ratio_event", 15)]);
    assert_eq!(read.left_out[0].what, "usphit");
    let work = |stack: &String| stack.ends_with(";main;work");
    let wall = read
        .profiles
        .iter()
        .find(|profile| profile.profile_type.0 == WALL)
        .unwrap();
    let names: Vec<String> = stacks(wall).into_keys().collect();
    assert!(names.iter().any(work), "the line is no part of a name: {names:?}");
    let asked = try_as("pprofile-2.2.0.callgrind", Some("cpu")).unwrap();
    assert_eq!(totals(&asked)[ProfileType::CPU], 4_362_172_000);
}

/// The same finding: a unit, and nothing of what it is.
#[test]
fn pyprof2calltree_has_wall_time_in_nanoseconds() {
    let read = file("pyprof2calltree-1.4.5.callgrind");
    assert_eq!(totals(&read), [(WALL, 558_685_694)].into());
}

/// `findings/luajit-names-c-functions-by-their-address.sh`
#[test]
fn addresses_of_luajit_are_no_names() {
    let read = try_as("luajit-2.1.0-beta3.folded", Some("cpu")).unwrap();
    let stacks: Vec<String> = stacks(only(&read)).into_keys().collect();
    assert_eq!(
        stacks,
        [
            "[C];(main chunk);main;price",
            "[C];(main chunk);main;sort;(anonymous);price"
        ]
    );
}

/// `findings/nytprof-has-two-units-for-one-profile.sh`: two calls of 0.2 s.
#[test]
fn a_rate_beyond_any_sampler_is_the_unit_of_a_clock() {
    let how = Reading {
        kind: Some("wall"),
        rate_hz: Some(10_000_000),
        limit: 1 << 20,
        ..Reading::default()
    };
    let read = read(&bytes("nytprofcalls-6.12.folded"), &how).unwrap();
    assert_eq!(totals(&read), [(WALL, 420_188_300)].into());
    let profile = only(&read);
    assert_eq!(stacks(profile)["main::main;main::price"], 420_127_100);
    let samples: u64 = profile.samples.iter().map(|sample| sample.count).sum();
    assert_eq!((profile.period, samples), (0, 4), "times, and no 4 million samples");
}
