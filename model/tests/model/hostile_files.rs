//! Small files that would become large, or never end: each is refused by what is wrong with it. And recordings of Java that
//! no JDK writes, among them those of async-profiler, which Java agents of Pyroscope send.

use emberline_model::{
    formats::{Format, ReadProfiles, Reading, read},
    otlp::Rejected,
};

const LIMIT: usize = 1 << 20;

fn read_as(format: Format, bytes: &[u8]) -> Result<ReadProfiles, String> {
    let how = Reading {
        format: Some(format),
        limit: LIMIT,
        ..Reading::default()
    };
    read(bytes, &how).map_err(|error| error.to_string())
}

fn refused(format: Format, bytes: &[u8], word: &str) {
    match read_as(format, bytes) {
        Ok(_) => panic!("{format:?} was read; expected {word}"),
        Err(error) => assert!(error.contains(word), "{word}: {error}"),
    }
}

/// Writes chunks as async-profiler does: whole numbers compressed, one pool.
#[derive(Default)]
struct Chunk {
    strings: Vec<String>,
    /// Types: number, name, fields (name, type, pooled, array, in ticks).
    types: Vec<(i64, &'static str, Vec<FieldOf>)>,
    /// Entries of pools: type, then number and content.
    pools: Vec<(i64, Vec<Entry>)>,
    events: Vec<(i64, Vec<u8>)>,
    /// Added to the place of the pool before the first.
    before: i64,
}

/// Number and content.
type Entry = (i64, Vec<u8>);
/// Name, type, pooled, array, in ticks.
type FieldOf = (&'static str, i64, bool, bool, bool);

fn whole(value: i64) -> Vec<u8> {
    let mut rest = value as u64;
    let mut bytes = Vec::new();
    for _ in 0..8 {
        if rest < 0x80 {
            bytes.push(rest as u8);
            return bytes;
        }
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&[3][..], &whole(text.len() as i64), text.as_bytes()].concat()
}

fn wholes(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|&value| whole(value)).collect()
}

/// An event with its size in front, always of four bytes.
fn sized(content: &[u8]) -> Vec<u8> {
    let size = content.len() as u32 + 4;
    let bytes = [
        size & 0x7f | 0x80,
        size >> 7 & 0x7f | 0x80,
        size >> 14 & 0x7f | 0x80,
        size >> 21,
    ];
    [&bytes.map(|byte| byte as u8)[..], content].concat()
}

impl Chunk {
    fn string(&mut self, text: &str) -> Vec<u8> {
        let at = self.strings.iter().position(|known| known == text).unwrap_or_else(|| {
            self.strings.push(text.to_owned());
            self.strings.len() - 1
        });
        whole(at as i64)
    }

    fn element(&mut self, name: &str, attributes: &[(&str, String)], children: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.string(name);
        bytes.extend(whole(attributes.len() as i64));
        for (key, value) in attributes {
            bytes.extend(self.string(key));
            bytes.extend(self.string(value));
        }
        bytes.extend(whole(children.len() as i64));
        bytes.extend(children.concat());
        bytes
    }

    fn bytes(mut self) -> Vec<u8> {
        let mut classes = Vec::new();
        for (id, name, fields) in std::mem::take(&mut self.types) {
            let fields: Vec<Vec<u8>> = fields
                .into_iter()
                .map(|(name, class, pooled, array, ticks)| {
                    let mut attributes = vec![("name", name.to_owned()), ("class", class.to_string())];
                    attributes.extend(pooled.then(|| ("constantPool", "true".to_owned())));
                    attributes.extend(array.then(|| ("dimension", "1".to_owned())));
                    let annotation = ticks
                        .then(|| self.element("annotation", &[("class", "99".into()), ("value", "TICKS".into())], &[]));
                    self.element("field", &attributes, &annotation.into_iter().collect::<Vec<_>>())
                })
                .collect();
            classes.push(self.element("class", &[("id", id.to_string()), ("name", name.to_owned())], &fields));
        }
        let metadata = self.element("metadata", &[], &classes);
        let root = self.element("root", &[], &[metadata]);
        let strings: Vec<u8> = self.strings.iter().flat_map(|string| text(string)).collect();
        let metadata = [wholes(&[0, 0, 0, 1, self.strings.len() as i64]), strings, root].concat();

        let mut pool = [wholes(&[1, 0, 0, self.before]), vec![0], whole(self.pools.len() as i64)].concat();
        for (class, entries) in &self.pools {
            pool.extend(wholes(&[*class, entries.len() as i64]));
            for (number, content) in entries {
                pool.extend(whole(*number));
                pool.extend(content);
            }
        }
        let events: Vec<u8> = self
            .events
            .iter()
            .flat_map(|(class, content)| sized(&[whole(*class), content.clone()].concat()))
            .collect();
        let (metadata, pool) = (sized(&metadata), sized(&pool));
        let pool_at = 68 + events.len();
        let metadata_at = pool_at + pool.len();
        let length = metadata_at + metadata.len();
        let mut bytes = b"FLR\0\0\x02\0\x01".to_vec();
        // Length, pool, metadata, start and duration in nanoseconds, start and speed of the clock: ten ticks a microsecond.
        for number in [
            length,
            pool_at,
            metadata_at,
            1_790_000_000_000_000_000,
            10_000_000_000,
            0,
            10_000_000,
        ] {
            bytes.extend((number as u64).to_be_bytes());
        }
        bytes.extend(1u32.to_be_bytes());
        [bytes, events, pool, metadata].concat()
    }
}

const LONG: i64 = 1;
const STRING: i64 = 2;
const STACK: i64 = 3;
const FRAME: i64 = 4;
const METHOD: i64 = 5;
const CLASS: i64 = 6;
const SYMBOL: i64 = 7;
const BOOLEAN: i64 = 8;
const INT: i64 = 9;
const EXECUTION: i64 = 101;
const SETTING: i64 = 102;
const RECORDING: i64 = 103;
const WALL_CLOCK: i64 = 104;
const IN_TLAB: i64 = 105;
const OUTSIDE_TLAB: i64 = 106;
const MONITOR: i64 = 107;
const CPU_TIME: i64 = 108;

/// A recording of one stack, `Shop.price` under `Shop.main`, with the types of async-profiler.
fn recording(settings: &[(i64, &str, &str)], events: &[(i64, Vec<u8>)]) -> Chunk {
    let plain = |name, class| (name, class, false, false, false);
    let pooled = |name, class| (name, class, true, false, false);
    let ticks = |name| (name, LONG, false, false, true);
    let types = vec![
        (LONG, "long", vec![]),
        (STRING, "java.lang.String", vec![]),
        (BOOLEAN, "boolean", vec![]),
        (INT, "int", vec![]),
        (
            STACK,
            "jdk.types.StackTrace",
            vec![plain("truncated", BOOLEAN), ("frames", FRAME, false, true, false)],
        ),
        (
            FRAME,
            "jdk.types.StackFrame",
            vec![
                pooled("method", METHOD),
                plain("lineNumber", INT),
                plain("bytecodeIndex", INT),
            ],
        ),
        (
            METHOD,
            "jdk.types.Method",
            vec![pooled("type", CLASS), pooled("name", SYMBOL), plain("hidden", BOOLEAN)],
        ),
        (CLASS, "java.lang.Class", vec![pooled("name", SYMBOL)]),
        (SYMBOL, "jdk.types.Symbol", vec![plain("string", STRING)]),
        (
            EXECUTION,
            "jdk.ExecutionSample",
            vec![ticks("startTime"), pooled("stackTrace", STACK)],
        ),
        (
            SETTING,
            "jdk.ActiveSetting",
            vec![
                ticks("startTime"),
                plain("id", LONG),
                plain("name", STRING),
                plain("value", STRING),
            ],
        ),
        (RECORDING, "jdk.ActiveRecording", vec![ticks("startTime")]),
        (
            WALL_CLOCK,
            "profiler.WallClockSample",
            vec![ticks("startTime"), pooled("stackTrace", STACK), plain("samples", INT)],
        ),
        (
            IN_TLAB,
            "jdk.ObjectAllocationInNewTLAB",
            vec![
                ticks("startTime"),
                pooled("stackTrace", STACK),
                plain("allocationSize", LONG),
                plain("tlabSize", LONG),
            ],
        ),
        (
            OUTSIDE_TLAB,
            "jdk.ObjectAllocationOutsideTLAB",
            vec![
                ticks("startTime"),
                pooled("stackTrace", STACK),
                plain("allocationSize", LONG),
            ],
        ),
        (
            MONITOR,
            "jdk.JavaMonitorEnter",
            vec![ticks("startTime"), ticks("duration"), pooled("stackTrace", STACK)],
        ),
        (
            CPU_TIME,
            "jdk.CPUTimeSample",
            vec![
                ticks("startTime"),
                pooled("stackTrace", STACK),
                plain("failed", BOOLEAN),
                ticks("samplingPeriod"),
            ],
        ),
    ];
    let stack = [&[0][..], &wholes(&[2, 1, 7, 0, 2, 9, 0])].concat();
    let method = |name: i64| [wholes(&[1, name]), vec![0]].concat();
    let pools = vec![
        (STACK, vec![(1, stack)]),
        (METHOD, vec![(1, method(2)), (2, method(3))]),
        (CLASS, vec![(1, whole(1))]),
        (
            SYMBOL,
            vec![(1, text("com/example/Shop")), (2, text("price")), (3, text("main"))],
        ),
    ];
    let settings = settings
        .iter()
        .map(|(id, name, value)| (SETTING, [wholes(&[0, *id]), text(name), text(value)].concat()));
    Chunk {
        types,
        pools,
        events: settings.chain(events.iter().cloned()).collect(),
        ..Chunk::default()
    }
}

fn totals(read: &ReadProfiles) -> Vec<(String, i64, u64)> {
    let count = |profile: &emberline_model::Profile| profile.samples.iter().map(|sample| sample.count).sum();
    let each = read
        .profiles
        .iter()
        .map(|profile| (profile.profile_type.0.clone(), profile.total(), count(profile)));
    each.collect()
}

#[test]
fn async_profiler_says_what_it_sampled() {
    let sample = || (EXECUTION, wholes(&[5, 1]));
    let settings = [
        (RECORDING, "event", "itimer"),
        (EXECUTION, "interval", "9000000"),
        (EXECUTION, "wall", "20000000"),
    ];
    let events = [
        sample(),
        sample(),
        (WALL_CLOCK, wholes(&[5, 1, 3])),
        (IN_TLAB, wholes(&[5, 1, 64, 524_288])),
        (OUTSIDE_TLAB, wholes(&[5, 1, 1_000_000])),
        (MONITOR, wholes(&[5, 1_000_000, 1])),
    ];
    let read = read_as(Format::Jfr, &recording(&settings, &events).bytes()).unwrap();
    let told = |name: &str, value: i64, count: u64| (name.to_owned(), value, count);
    assert_eq!(
        totals(&read),
        [
            told("process_cpu:cpu:nanoseconds:cpu:nanoseconds", 18_000_000, 2),
            told("wall:wall:nanoseconds:wall:nanoseconds", 60_000_000, 3),
            told("memory:alloc_space:bytes:space:bytes", 1_524_288, 2),
            told("mutex:delay:nanoseconds:contentions:count", 100_000_000, 1),
            told("mutex:contentions:count:contentions:count", 1, 1),
        ]
    );
    let stack: Vec<String> = read.profiles[0].stacks[0]
        .iter()
        .map(|&at| match &read.profiles[0].locations[at as usize] {
            emberline_model::Location::Named { frames } => format!("{}:{}", frames[0].function, frames[0].line),
            emberline_model::Location::Native { .. } => String::new(),
        })
        .collect();
    assert_eq!(stack, ["com.example.Shop.price:7", "com.example.Shop.main:9"]);

    let mut cut = recording(&settings, &events);
    cut.pools[0].1[0].1[0] = 1;
    let read = read_as(Format::Jfr, &cut.bytes()).unwrap();
    assert_eq!(read.profiles[0].stacks[0].len(), 3, "the cut is a frame");
}

/// JDK 25 says of each sample how much time it stands for, 4 ms here, also of those whose stack could not be walked.
#[test]
fn samples_of_cpu_time_carry_their_period() {
    let sample = |stack: i64, failed: u8| (CPU_TIME, [wholes(&[5, stack]), vec![failed], whole(40_000)].concat());
    let read = read_as(Format::Jfr, &recording(&[], &[sample(1, 0), sample(0, 1)]).bytes()).unwrap();
    assert_eq!(
        totals(&read),
        [("process_cpu:cpu:nanoseconds:cpu:nanoseconds".to_owned(), 8_000_000, 2)]
    );
    assert_eq!(read.left_out, [Rejected::of("stack_not_walked", "", 1)]);
}

#[test]
fn recordings_that_lead_round_or_unfold_without_end_are_refused() {
    let sample = [(EXECUTION, wholes(&[5, 1]))];
    let mut forward = recording(&[], &sample);
    forward.before = 8;
    refused(Format::Jfr, &forward.bytes(), "points forward");
    // The pool that is its own predecessor.
    let mut round = recording(&[], &sample);
    round.before = -1;
    refused(Format::Jfr, &round.bytes(), "pool");

    let mut itself = recording(&[], &sample);
    itself
        .types
        .push((50, "Itself", vec![("again", 50, false, false, false)]));
    itself.pools.push((50, vec![(1, vec![])]));
    refused(Format::Jfr, &itself.bytes(), "nest deeper");

    // Arrays of nothing: two bytes each, ten thousand steps each.
    let mut nothing = recording(&[], &sample);
    nothing.types.push((50, "Nothing", vec![]));
    nothing
        .types
        .push((51, "Many", vec![("nothing", 50, false, true, false); 200]));
    nothing.pools.push((51, vec![(1, whole(10_000).repeat(200))]));
    nothing.pools[3].1.push((9, text(&"x".repeat(12_000))));
    refused(Format::Jfr, &nothing.bytes(), "more work");

    let mut count = recording(&[], &sample);
    count.pools[0].1[0].1 = [&[0][..], &whole(i64::from(i32::MAX))].concat();
    refused(Format::Jfr, &count.bytes(), "count");
    refused(Format::Jfr, &recording(&[], &[]).bytes(), "no samples");
    let mut version = recording(&[], &sample).bytes();
    version[5] = 0;
    refused(Format::Jfr, &version, "version 0.1");
}

#[test]
fn a_root_that_calls_itself_is_refused() {
    let root = |id: u32, child: u32| {
        let frame = r#"{"functionName":"(root)","url":"","lineNumber":-1}"#;
        format!(r#"{{"id":{id},"callFrame":{frame},"children":[{child}]}}"#)
    };
    let file = |nodes: &[String]| {
        let nodes = nodes.join(",");
        format!(r#"{{"nodes":[{nodes}],"startTime":0,"endTime":10,"samples":[1],"timeDeltas":[1]}}"#)
    };
    refused(Format::CpuProfile, file(&[root(1, 1)]).as_bytes(), "or in itself");
    refused(
        Format::CpuProfile,
        file(&[root(1, 2), root(2, 1)]).as_bytes(),
        "or in itself",
    );
}

#[test]
fn chains_with_a_sample_at_every_node_are_refused_by_their_weight() {
    let nodes: Vec<String> = (1..4000)
        .map(|id| {
            format!(
                r#"{{"id":{id},"callFrame":{{"functionName":"f{id}"}},"children":[{}]}}"#,
                id + 1
            )
        })
        .chain([r#"{"id":4000,"callFrame":{"functionName":"leaf"}}"#.to_owned()])
        .collect();
    let list = |of: &dyn Fn(usize) -> String| (1..=4000).map(of).collect::<Vec<_>>().join(",");
    let json = format!(
        r#"{{"nodes":[{}],"startTime":0,"endTime":9999,"samples":[{}],"timeDeltas":[{}]}}"#,
        nodes.join(","),
        list(&|id| id.to_string()),
        list(&|_| "1".to_owned())
    );
    assert!(json.len() < LIMIT / 2);
    refused(Format::CpuProfile, json.as_bytes(), "memory");
    let round = json.replace(
        r#""functionName":"leaf"}}"#,
        r#""functionName":"leaf"},"children":[1]}"#,
    );
    refused(Format::CpuProfile, round.as_bytes(), "or in itself");
}

#[test]
fn marshalled_values_are_bounded() {
    let flood = [b"{".to_vec(), b"N".repeat(LIMIT / 2)].concat();
    refused(Format::Pstats, &flood, "memory");
    refused(Format::Pstats, &b"{(\x01\0\0\0".repeat(50), "nest deeper");
    // A tuple of the tuple before, and so on: as deep as it is long.
    let mut chain = b"[\xff\xff\0\0\xa9\x01N".to_vec();
    for at in 0u32..60_000 {
        chain.extend([0xa9, 1, b'r']);
        chain.extend(at.to_le_bytes());
    }
    assert!(read_as(Format::Pstats, &chain).is_err());
    refused(Format::Pstats, b"{(\x03\0\0\0\xff\xff", "type");
    refused(Format::Pstats, b"{r\x05\0\0\0", "reference");
}

#[test]
fn binary_samples_of_others_are_bounded() {
    // Stacks that repeat the one before grow by a frame each.
    let mut mojo = b"MOJ\x04\x01mode\0wall\0".to_vec();
    mojo.extend(b"\x02\x01\x00t\0\x0b\x02a.py\0\x0b\x03f\0\x03\x01\x02\x03\x01\x01\x01\x01");
    for _ in 0..5000 {
        mojo.extend(b"\x02\x01\x00t\0\x05\x01\x0d\x09\x01");
    }
    assert!(mojo.len() < LIMIT / 8);
    let error = read_as(Format::Mojo, &mojo).map(|_| ()).unwrap_err();
    assert!(error.contains("memory") || error.contains("4096"), "{error}");
    refused(Format::Mojo, b"MOJ\x03\x05\x07", "before the first stack");
    refused(
        Format::Mojo,
        b"MOJ\x03\x02\x01\x00t\0\x05\x07",
        "frame 7 is not defined",
    );
    refused(Format::Mojo, b"MOJ\x03\x63", "kind 99");

    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    refused(
        Format::GperftoolsCpu,
        &words(&[0, 3, 0, 10_000, 0, 1, u64::MAX, 5]),
        "frames",
    );
    refused(
        Format::GperftoolsCpu,
        &words(&[0, 3, 0, 10_000, 0, 1, 2, 5]),
        "ends before",
    );
}

#[test]
fn an_error_of_json_does_not_repeat_the_file() {
    let long = "x".repeat(5_000);
    let node = format!(r#"{{"nodes":[{{"id":"{long}","callFrame":{{}}}}],"startTime":0,"endTime":1}}"#);
    let event = format!(r#"[{{"ph":{{"{long}":1}}}}]"#);
    let scope = format!(
        r#"{{"$schema":"https://www.speedscope.app/file-format-schema.json","shared":"{long}","profiles":[]}}"#
    );
    for (format, text) in [
        (Format::CpuProfile, node),
        (Format::ChromeTrace, event),
        (Format::Speedscope, scope),
    ] {
        let error = read_as(format, text.as_bytes()).unwrap_err();
        assert!(error.len() < 500 && error.contains("column"), "{format:?}: {error}");
    }
}
