//! Files that other profilers wrote, as they wrote them, and the totals that their own tools show for them.

use std::{collections::BTreeMap, io::Read, path::PathBuf};

use emberline_model::{
    Location, Profile,
    formats::{Format, FormatError, ReadProfiles, Reading, read},
    otlp::Rejected,
};

fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    std::fs::read(path).unwrap()
}

fn reading<'a>() -> Reading<'a> {
    Reading {
        limit: 1 << 20,
        ..Reading::default()
    }
}

fn read_with(name: &str, how: &Reading<'_>) -> ReadProfiles {
    let read = read(&file(name), how).unwrap();
    read.profiles.iter().for_each(|profile| profile.validate().unwrap());
    read
}

fn totals(profiles: &[Profile]) -> Vec<(&str, i64)> {
    let each = profiles
        .iter()
        .map(|profile| (profile.profile_type.0.as_str(), profile.total()));
    each.collect()
}

/// Frames of a stack: function, file, line.
fn frames(profile: &Profile, stack: u32) -> Vec<(&str, &str, u32)> {
    let frame = |&at: &u32| match &profile.locations[at as usize] {
        Location::Named { frames } => (frames[0].function.as_str(), frames[0].file.as_str(), frames[0].line),
        Location::Native { .. } => ("native", "", 0),
    };
    profile.stacks[stack as usize].iter().map(frame).collect()
}

/// Own value by function.
fn own(profile: &Profile) -> BTreeMap<&str, i64> {
    let mut own = BTreeMap::new();
    for sample in &profile.samples {
        *own.entry(frames(profile, sample.stack)[0].0).or_insert(0) += sample.value;
    }
    own
}

const WALL: &str = "wall:wall:nanoseconds:wall:nanoseconds";
const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";

#[test]
fn every_file_is_read_in_its_own_format() {
    for (name, format) in [
        ("formats/node-20.20.2.cpuprofile", Format::CpuProfile),
        ("formats/node-20.20.2.heapprofile", Format::HeapProfile),
        ("formats/austin-3.7.0-wall.txt", Format::Austin),
        ("formats/austin-4.0.0-wall.mojo", Format::Mojo),
        ("formats/gperftools-2.10.cpu", Format::GperftoolsCpu),
        ("formats/gperftools-2.10.heap", Format::GperftoolsHeap),
        ("formats/jemalloc-5.3.0.heap", Format::Jemalloc),
        ("formats/bpftrace-0.17.0.txt", Format::Bpftrace),
        ("formats/callgrind-3.19.0.out", Format::Callgrind),
        ("formats/cprofile-3.11.pstats", Format::Pstats),
        ("formats/chromium-153-trace.json", Format::ChromeTrace),
        ("jfr/busy.jfr.gz", Format::Jfr),
    ] {
        let found = read_with(name, &reading());
        assert_eq!(found.format, format, "{name}");
        let by_name = Reading {
            format: Format::of_name(format.name()),
            ..reading()
        };
        let total = |read: &ReadProfiles| read.profiles.iter().map(Profile::total).sum::<i64>();
        assert_eq!(total(&read_with(name, &by_name)), total(&found), "{name}");
        // Another name is refused, with the right one.
        let wrong = if format == Format::Callgrind {
            Format::Jfr
        } else {
            Format::Callgrind
        };
        let how = Reading {
            format: Some(wrong),
            ..reading()
        };
        let error = read(&file(name), &how).unwrap_err();
        let Format::Callgrind = wrong else { continue };
        assert!(
            error.to_string().contains(&format!("format={}", format.name())),
            "{name}: {error}"
        );
    }
}

#[test]
fn stackprof_is_recognised_and_says_what_to_do() {
    let error = read(&file("formats/stackprof-0.2.21.json"), &reading()).unwrap_err();
    assert!(matches!(error, FormatError::NotRead { .. }));
    let error = error.to_string();
    assert!(
        error.contains("stackprof") && error.contains("--stackcollapse"),
        "{error}"
    );
}

/// 1,039 samples; the deltas after the first one and the rest until `endTime` are 1,525,237 µs:
/// `node -p 'd=JSON.parse(fs.readFileSync(F));d.endTime-d.startTime-d.timeDeltas[0]'`.
#[test]
fn a_cpu_profile_of_node_is_the_time_until_the_next_sample() {
    let read = read_with("formats/node-20.20.2.cpuprofile", &reading());
    assert_eq!(totals(&read.profiles), [(WALL, 1_525_237_000), (CPU, 1_525_237_000)]);
    let [wall, _] = &read.profiles[..] else {
        panic!("two types")
    };
    assert_eq!(wall.samples.iter().map(|sample| sample.count).sum::<u64>(), 1_039);
    assert_eq!(wall.duration_ns, 1_531_093_000);
    let named = |name: &str| {
        let all = wall.samples.iter().map(|sample| frames(wall, sample.stack));
        all.flatten()
            .find(|frame| frame.0 == name)
            .unwrap_or_else(|| panic!("{name}"))
    };
    assert!(wall.locations.iter().all(|location| match location {
        Location::Named { frames } => frames[0].function != "(root)",
        Location::Native { .. } => false,
    }));
    let (_, file, line) = named("prepareExecution");
    assert_eq!((file, line), ("node:internal/process/pre_execution", 96));
    for (kind, types) in [("cpu", [CPU]), ("wall", [WALL])] {
        let how = Reading {
            kind: Some(kind),
            ..reading()
        };
        let read = read_with("formats/node-20.20.2.cpuprofile", &how);
        assert_eq!(
            totals(&read.profiles).iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            types
        );
    }
}

/// What V8 calls idle is time, and no CPU time.
#[test]
fn idle_time_of_node_is_no_cpu_time() {
    let frame = |name: &str| format!(r#"{{"functionName":"{name}","url":"a.js","lineNumber":0}}"#);
    let json = format!(
        r#"{{"nodes":[{{"id":1,"callFrame":{},"children":[2,3]}},{{"id":2,"callFrame":{}}},{{"id":3,"callFrame":{}}}],
        "startTime":1000,"endTime":2000,"samples":[2,3,2],"timeDeltas":[100,300,200]}}"#,
        frame("(root)"),
        frame("work"),
        frame("(idle)")
    );
    let read = read(json.as_bytes(), &reading()).unwrap().profiles;
    assert_eq!(totals(&read), [(WALL, 900_000), (CPU, 700_000)]);
    assert_eq!(own(&read[0])["(idle)"], 200_000);
}

/// Five chunks of a trace of Chromium: 500 samples from the first on to the last are 98,083 µs, as their running deltas add up.
#[test]
fn a_trace_of_chromium_holds_a_cpu_profile_in_chunks() {
    let read = read_with("formats/chromium-153-trace.json", &reading());
    assert_eq!(totals(&read.profiles), [(WALL, 98_083_000), (CPU, 98_083_000)]);
    assert_eq!(
        read.profiles[0].samples.iter().map(|sample| sample.count).sum::<u64>(),
        500
    );
    let own = own(&read.profiles[0]);
    assert_eq!(
        (own["price"], own["(program)"], own["(anonymous)"]),
        (97_404_000, 508_000, 171_000)
    );
}

/// The sum of `selfSize`: `node -p 's=n=>n.selfSize+n.children.reduce((a,c)=>a+s(c),0);s(JSON.parse(...).head)'`.
#[test]
fn a_heap_profile_of_node_is_a_gauge_of_what_is_in_use() {
    let read = read_with("formats/node-20.20.2.heapprofile", &reading());
    assert_eq!(
        totals(&read.profiles),
        [("memory:inuse_space:bytes:space:bytes", 36_096_712)]
    );
    assert!(read.profiles[0].profile_type.is_gauge());
    assert_eq!(own(&read.profiles[0])["hold"], 35_572_408);
}

/// 12 samples of 132,446 µs: `awk 'NF && !/^#/ {s += $NF} END {print s}'`.
#[test]
fn text_of_austin_is_microseconds_of_what_its_header_says() {
    let read = read_with("formats/austin-3.7.0-wall.txt", &reading());
    assert_eq!(totals(&read.profiles), [(WALL, 132_446_000)]);
    let profile = &read.profiles[0];
    assert_eq!(profile.samples.iter().map(|sample| sample.count).sum::<u64>(), 12);
    assert_eq!((profile.period, profile.duration_ns), (10_000_000, 3_037_338_000));
    let stack = frames(profile, 0);
    assert_eq!(stack[0], ("leafwork", "/srv/app.py", 6));
    assert_eq!(
        stack.last().unwrap(),
        &("<module>", "/srv/app.py", 28),
        "no process, no thread"
    );

    // Mode full: 86,210 µs, of which 44,009 not idle, and 49,152 bytes.
    let read = read_with("formats/austin-3.7.0-full.txt", &reading());
    assert_eq!(
        totals(&read.profiles),
        [
            (WALL, 86_210_000),
            (CPU, 44_009_000),
            ("memory:alloc_space:bytes:space:bytes", 49_152)
        ]
    );
}

/// `mojo2austin` 2.4.0 gives 298 samples of 3,011,199 µs.
#[test]
fn austins_binary_format_has_the_total_of_its_own_converter() {
    let read = read_with("formats/austin-4.0.0-wall.mojo", &reading());
    assert_eq!(totals(&read.profiles), [(WALL, 3_011_199_000)]);
    let profile = &read.profiles[0];
    assert_eq!(profile.samples.iter().map(|sample| sample.count).sum::<u64>(), 298);
    let first = frames(profile, profile.samples[0].stack);
    assert_eq!(
        first[0],
        (
            "SourceFileLoader.path_stats",
            "<frozen importlib._bootstrap_external>",
            1148
        )
    );
    assert_eq!(
        first.last().unwrap(),
        &("_find_and_load", "<frozen importlib._bootstrap>", 1176)
    );
}

/// `google-pprof --text`: "Total: 106 samples", at 10 ms; the heap 95.4 MB in use, 572.2 MB with `--alloc_space`.
#[test]
fn gperftools_has_the_totals_of_google_pprof() {
    let read = read_with("formats/gperftools-2.10.cpu", &reading());
    assert_eq!(totals(&read.profiles), [(CPU, 1_060_000_000)]);
    assert_eq!(
        read.profiles[0].samples.iter().map(|sample| sample.count).sum::<u64>(),
        106
    );
    let read = read_with("formats/gperftools-2.10.heap", &reading());
    assert_eq!(
        totals(&read.profiles),
        [
            ("memory:inuse_objects:count:space:bytes", 1_001),
            ("memory:inuse_space:bytes:space:bytes", 100_004_096),
            ("memory:alloc_objects:count:space:bytes", 11_001),
            ("memory:alloc_space:bytes:space:bytes", 600_004_096),
        ]
    );
    let leaf = frames(&read.profiles[1], read.profiles[1].samples[0].stack)[0];
    assert_eq!(
        (leaf.0, leaf.1),
        ("0x129b", "/srv/busy"),
        "an offset in the file, not where it was loaded"
    );
}

/// `jeprof --text`: "Total: 108.5 MB"; its formula gives 113,734,710.03 bytes and 999.76 objects.
#[test]
fn jemalloc_has_the_total_of_jeprof() {
    let read = read_with("formats/jemalloc-5.3.0.heap", &reading());
    assert_eq!(
        totals(&read.profiles),
        [
            ("memory:inuse_objects:count:space:bytes", 1_000),
            ("memory:inuse_space:bytes:space:bytes", 113_734_710),
        ]
    );
}

/// Four whole entries of 5 samples, and one that was cut off.
#[test]
fn stacks_of_bpftrace_are_counts_with_the_kernel_on_top() {
    let read = read_with("formats/bpftrace-0.17.0.txt", &reading());
    assert_eq!(totals(&read.profiles), [("samples:samples:count:samples:count", 5)]);
    assert_eq!(read.left_out, [Rejected::of("cut_off", "", 1)]);
    let profile = &read.profiles[0];
    assert_eq!(profile.samples.len(), 2, "offsets within a function do not matter");
    let names: Vec<&str> = frames(profile, 0).into_iter().map(|frame| frame.0).collect();
    assert_eq!(names[0], "finish_task_switch");
    assert_eq!(names[4..6], ["asm_sysvec_reschedule_ipi", "leafwork"]);
    assert_eq!(names.last().unwrap(), &"__libc_start_call_main");
    let how = Reading {
        rate_hz: Some(99),
        ..reading()
    };
    let rated = read_with("formats/bpftrace-0.17.0.txt", &how);
    assert_eq!(totals(&rated.profiles), [(CPU, 5 * 10_101_010)]);
}

/// `callgrind_annotate --threshold=100`: "2,800,810 PROGRAM TOTALS", of which 2,800,019 `leafwork`, 7 `work`, 32 `run`.
#[test]
fn callgrind_has_the_own_costs_of_its_annotator() {
    let read = read_with("formats/callgrind-3.19.0.out", &reading());
    assert_eq!(totals(&read.profiles), [("callgrind:Ir:count:Ir:count", 2_800_810)]);
    let profile = &read.profiles[0];
    let own = own(profile);
    assert_eq!((own["leafwork"], own["work"], own["run"]), (2_800_019, 7, 32));
    let leaf = profile.samples.iter().find(|sample| sample.value == 2_800_019).unwrap();
    let names: Vec<&str> = frames(profile, leaf.stack).into_iter().map(|frame| frame.0).collect();
    assert_eq!(names, ["leafwork", "work", "[direct callers only]"]);
    // `strcmp` (51 instructions) is called from two places of `check_match`.
    let strcmp: Vec<_> = profile
        .samples
        .iter()
        .filter(|sample| frames(profile, sample.stack)[0].0 == "strcmp")
        .collect();
    assert_eq!(frames(profile, strcmp[0].stack)[1].0, "check_match");
}

/// `pstats.Stats(F).total_tt`: 0.120212709 s, in 52 functions; by the slower `profile` 0.360269437 s.
#[test]
fn python_profiles_have_the_own_times_of_pstats() {
    let read = read_with("formats/cprofile-3.11.pstats", &reading());
    assert_eq!(totals(&read.profiles), [(WALL, 120_212_709)]);
    let profile = &read.profiles[0];
    let fib: Vec<(Vec<&str>, i64)> = profile
        .samples
        .iter()
        .filter(|sample| frames(profile, sample.stack)[0].0 == "fib")
        .map(|sample| {
            (
                frames(profile, sample.stack).into_iter().map(|frame| frame.0).collect(),
                sample.value,
            )
        })
        .collect();
    assert!(
        fib.contains(&(vec!["fib", "fib", "[direct callers only]"], 437_001)),
        "{fib:?}"
    );
    assert!(
        fib.contains(&(vec!["fib", "main", "[direct callers only]"], 7_699)),
        "{fib:?}"
    );
    let read = read_with("formats/profile-3.11.pstats", &reading());
    assert_eq!(totals(&read.profiles), [(WALL, 360_269_437)]);
    let how = Reading {
        kind: Some("cpu"),
        ..reading()
    };
    assert_eq!(
        totals(&read_with("formats/cprofile-3.11.pstats", &how).profiles),
        [(CPU, 120_212_709)]
    );
}

/// `busy.totals` is what `jfr summary` and `jfr print` say of the recording, see `record.sh` beside it.
#[test]
fn a_recording_of_java_has_the_totals_of_the_jfr_tool() {
    let text = String::from_utf8(file("jfr/busy.totals")).unwrap();
    let told = |event: &str, what: &str| -> i64 {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{event} {what} ")))
            .unwrap();
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    let read = read_with("jfr/busy.jfr.gz", &reading());
    let expected = [
        // 10 ms each, and wall time: the JDK does not know whether they ran.
        (WALL, told("jdk.ExecutionSample", "events") * 10_000_000),
        (
            "memory:alloc_space:bytes:space:bytes",
            told("jdk.ObjectAllocationSample", "weight"),
        ),
        (
            "mutex:delay:nanoseconds:contentions:count",
            told("jdk.JavaMonitorEnter", "duration"),
        ),
        (
            "mutex:contentions:count:contentions:count",
            told("jdk.JavaMonitorEnter", "events"),
        ),
        (
            "block:delay:nanoseconds:contentions:count",
            told("jdk.ThreadPark", "duration"),
        ),
        (
            "block:contentions:count:contentions:count",
            told("jdk.ThreadPark", "events"),
        ),
    ];
    assert_eq!(totals(&read.profiles), expected);
    let wall = &read.profiles[0];
    assert_eq!(
        own(wall).into_iter().max_by_key(|(_, value)| *value).unwrap().0,
        "Busy.price"
    );
    let most = wall.samples.iter().max_by_key(|sample| sample.value).unwrap();
    assert_eq!(frames(wall, most.stack).last().unwrap().0, "Busy.main");
    assert!(wall.start_unix_ns > 1_700_000_000_000_000_000 && wall.duration_ns > 1_000_000_000);
    let waits = &read.profiles[2];
    assert_eq!(frames(waits, waits.samples[0].stack)[0].0, "Busy.hold");
    let how = Reading {
        kind: Some("cpu"),
        ..reading()
    };
    let cpu = read_with("jfr/busy.jfr.gz", &how);
    assert_eq!(cpu.profiles[0].profile_type.0, CPU);
}

/// A recording is a row of chunks: two of them are twice as much.
#[test]
fn chunks_of_a_recording_add_up() {
    let mut whole = Vec::new();
    flate2::read::GzDecoder::new(&file("jfr/busy.jfr.gz")[..])
        .read_to_end(&mut whole)
        .unwrap();
    let twice = read(&whole.repeat(2), &reading()).unwrap();
    let once = read_with("jfr/busy.jfr.gz", &reading());
    for (twice, once) in twice.profiles.iter().zip(&once.profiles) {
        assert_eq!(twice.total(), 2 * once.total());
        assert_eq!(twice.stacks.len(), once.stacks.len());
    }
    let error = read(&whole[..whole.len() - 1], &reading()).unwrap_err().to_string();
    assert!(error.contains("JFR") && error.contains("unfinished"), "{error}");
}
