//! Every decoder of the model against changed input: a valid value is written, some of its bytes are changed, removed,
//! repeated or put elsewhere, and the decoder must refuse it or give something that fits together and is not larger
//! than its input allows.

use base64::Engine as _;
use emberline_model::{
    Batch, BatchId, Component, Exemplar, Frame, Histogram, LabelSet, Location, Profile, ProfileType, RequestSeries,
    Sample, Side, Signal, Workload, WorkloadWindow,
    formats::{
        Format, Reading, Sender, read,
        series::{read_push, read_push_json, read_write_raw},
    },
    otlp::{self, Decoded},
    pprof::{PprofMeta, write},
    proto::{parca, push},
    resolve::{FunctionInfo, ResolvedStacks},
    wire,
};
use opentelemetry_proto::tonic::metrics::v1 as metrics;
use proptest::prelude::*;
use prost::Message;

/// One change of some bytes.
#[derive(Debug, Clone)]
enum Change {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(prop::sample::Index, usize, usize),
    Cut(prop::sample::Index),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let end = |at: usize, length: usize, of: &[u8]| (at + length).min(of.len());
        match self {
            Change::Set(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Flip(at, bit) => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << (bit % 8);
            }
            Change::Remove(at, length) => {
                let at = at.index(bytes.len());
                bytes.drain(at..end(at, *length, bytes));
            }
            Change::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Change::Repeat(at, length, times) => {
                let at = at.index(bytes.len());
                let piece = bytes[at..end(at, *length, bytes)].repeat(*times);
                bytes.splice(at..at, piece);
            }
            Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    // Numbers that protobuf readers stumble over: the longest ones, the largest lengths, ends of ranges.
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..8),
        Just(vec![0xff; 10]),
        Just(vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
        Just(vec![0x80; 12]),
        Just(b"\0".to_vec()),
        Just("\u{202e}".as_bytes().to_vec()),
    ];
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), any::<u8>()).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (at(), 1usize..9).prop_map(|(at, length)| Change::Remove(at, length)),
        (at(), bytes).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at(), 1usize..40, 1usize..5).prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
        at().prop_map(Change::Cut),
    ]
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(change(), 1..5)
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    changes.iter().for_each(|change| change.apply(&mut bytes));
    bytes
}

fn window() -> WorkloadWindow {
    let mut duration = Histogram::new();
    [1_000_000, 2_500_000, 900_000_000]
        .iter()
        .for_each(|&ns| duration.record_ns(ns));
    let mut profile = Profile::empty_cpu(1_790_000_000_000_000_000, 10_000_000_000);
    profile.period = 10_000_000;
    let frame = |name: &str| Location::Named {
        frames: vec![Frame {
            function: name.to_owned(),
            file: "src/x.rs".to_owned(),
            line: 7,
        }],
    };
    profile.locations = vec![frame("leaf"), frame("main")];
    profile.stacks = vec![vec![0, 1], vec![1]];
    profile.label_sets = vec![LabelSet {
        side: Some(Side::Server),
        route: "/a".to_owned(),
        peer: None,
    }];
    profile.samples = [(0, 30_000_000, 3), (1, 10_000_000, 1)]
        .map(|(stack, value, count)| Sample {
            stack,
            label_set: 0,
            value,
            count,
        })
        .to_vec();
    WorkloadWindow {
        workload: Workload {
            namespace: "demo".into(),
            service: "shop".into(),
            version: "1".into(),
            instance: "shop-0".into(),
        },
        component: Component::Application,
        start_unix_s: 1_790_000_000,
        length_s: 10,
        has_requests: true,
        has_profiles: true,
        requests: vec![RequestSeries {
            side: Side::Server,
            route: "/a".into(),
            method: "GET".into(),
            peer: None,
            destination: String::new(),
            protocol: "http/1.1".into(),
            status: 200,
            error: false,
            duration,
            streaming_s: 0.0,
            request_bytes: 1,
            response_bytes: 2,
            open: 0,
        }],
        profiles: vec![profile],
    }
}

/// A pprof file, not packed.
fn pprof() -> Vec<u8> {
    let info = |id, name: &str| FunctionInfo {
        id,
        name: name.to_owned(),
        module: "/bin/shop".to_owned(),
        file: "main.rs".to_owned(),
        unresolved: false,
    };
    let resolved = ResolvedStacks {
        functions: vec![info(1, "leaf").into(), info(2, "main").into()],
        stacks: [(7, vec![0u32, 1].into_boxed_slice())].into_iter().collect(),
    };
    let meta = PprofMeta {
        profile_type: ProfileType::cpu(),
        time_ns: 1_790_000_000_000_000_000,
        duration_ns: 10_000_000_000,
        period: 10_000_000,
    };
    let packed = write(&meta, &resolved, &[(7, [42, 0])], false);
    let mut raw = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut raw).unwrap();
    raw
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/formats/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A recording of Java, not packed.
fn jfr() -> Vec<u8> {
    static WHOLE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        let packed = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/jfr/busy.jfr.gz")).unwrap();
        let mut whole = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut whole).unwrap();
        whole
    });
    WHOLE.clone()
}

/// What any decoder may give for so many bytes.
fn fits(decoded: &Decoded, bytes: usize) -> Result<(), TestCaseError> {
    prop_assert!(decoded.windows.len() <= bytes);
    for window in &decoded.windows {
        prop_assert!(window.requests.len() <= bytes);
        for profile in &window.profiles {
            prop_assert!(profile.validate().is_ok(), "{:?}", profile.validate());
            prop_assert!(profile.samples.len() <= bytes && profile.locations.len() <= bytes + 2);
        }
    }
    Ok(())
}

fn push_request() -> push::PushRequest {
    let label = |name: &str, value: &str| push::LabelPair {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    push::PushRequest {
        series: vec![push::RawProfileSeries {
            labels: vec![label("service_name", "shop"), label("version", "1")],
            samples: vec![push::RawSample {
                raw_profile: pprof(),
                id: "0".to_owned(),
            }],
        }],
    }
}

fn write_raw() -> parca::WriteRawRequest {
    let label = |name: &str, value: &str| parca::Label {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    parca::WriteRawRequest {
        series: vec![parca::RawProfileSeries {
            labels: Some(parca::LabelSet {
                labels: vec![label("job", "shop")],
            }),
            samples: vec![parca::RawSample { raw_profile: pprof() }],
        }],
        normalized: true,
    }
}

const LIMIT: usize = 1 << 16;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn pprof_files(changes in changes()) {
        let bytes = changed(pprof(), &changes);
        let how = Reading { format: Some(Format::Pprof), limit: LIMIT, ..Reading::default() };
        if let Ok(profiles) = read(&bytes, &how) {
            fits(&Sender::of_service("shop").windows(profiles.profiles, 0), bytes.len())?;
        }
    }

    #[test]
    fn otlp_profiles_of_every_layout(changes in changes()) {
        let bytes = changed(otlp::encode_profiles(&window()).encode_to_vec(), &changes);
        if otlp::weigh_profiles(&bytes, u64::MAX).is_ok()
            && let Ok(request) = otlp::read_profiles(&bytes)
            && let Ok(decoded) = otlp::decode_profiles_within(&request, 1 << 20)
        {
            fits(&decoded, bytes.len())?;
        }
    }

    #[test]
    fn otlp_metrics(changes in changes()) {
        let bytes = changed(otlp::encode_requests(&window()).encode_to_vec(), &changes);
        if let Ok(request) = Message::decode(bytes.as_slice()) {
            fits(&otlp::decode_metrics(request), bytes.len())?;
        }
    }

    #[test]
    fn histograms_that_grow(changes in changes(), at in 1_790_000_000_000_000_000u64..1_790_000_100_000_000_000) {
        let point = |time_unix_nano| metrics::HistogramDataPoint {
            start_time_unix_nano: at,
            time_unix_nano,
            bucket_counts: vec![1, 2, 3],
            explicit_bounds: vec![0.1, 0.2],
            ..metrics::HistogramDataPoint::default()
        };
        let points = [60, 120].map(|second| point(at + second * 1_000_000_000)).to_vec();
        let histogram = metrics::Histogram { data_points: points, aggregation_temporality: 2 };
        let data = metrics::metric::Data::Histogram(histogram);
        let sent = crate::explicit_bounds::request("http.server.duration", "ms", data);
        let bytes = changed(sent.encode_to_vec(), &changes);
        if let Ok(read) = Message::decode(bytes.as_slice()) {
            let decoded = otlp::decode_metrics(read);
            prop_assert!(decoded.cumulative.len() <= bytes.len());
            let grown = otlp::grow(None, &decoded.cumulative, 0, &mut 1_000);
            fits(&grown.decoded, bytes.len())?;
            // Streams that are hours apart are forgotten, and then not taken to be new.
            let again = otlp::grow(Some(&grown.next), &decoded.cumulative, grown.forgotten_unix_ns, &mut 1_000);
            prop_assert!(again.decoded.windows.is_empty(), "nothing counts twice");
        }
    }

    #[test]
    fn traces_and_logs_are_counted(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(items) = otlp::count_items(&bytes) {
            prop_assert!(items as usize <= bytes.len() / 2);
        }
        if let Ok(items) = otlp::count_items_in_json(&bytes) {
            prop_assert!(items as usize <= bytes.len());
        }
    }

    #[test]
    fn otlp_json(changes in changes(), profiles in any::<bool>()) {
        let json = if profiles {
            include_str!("../samples/profiles.json")
        } else {
            include_str!("../samples/metrics.json")
        };
        let bytes = changed(json.as_bytes().to_vec(), &changes);
        if profiles && let Ok(protobuf) = otlp::profiles_to_protobuf(&bytes) {
            prop_assert!(protobuf.len() <= 8 * bytes.len() + 64);
            let request = Message::decode(protobuf.as_slice()).unwrap();
            if let Ok(decoded) = otlp::decode_profiles_within(&request, 1 << 20) {
                fits(&decoded, bytes.len())?;
            }
        }
        if !profiles && let Ok(protobuf) = otlp::metrics_to_protobuf(&bytes) {
            prop_assert!(protobuf.len() <= 8 * bytes.len() + 64);
            let request = Message::decode(protobuf.as_slice()).unwrap();
            fits(&otlp::decode_metrics(request), bytes.len())?;
        }
    }

    #[test]
    fn pushes_in_protobuf(changes in changes()) {
        let bytes = changed(push_request().encode_to_vec(), &changes);
        if let Ok(decoded) = read_push(&bytes, LIMIT, 0) {
            fits(&decoded, bytes.len())?;
        }
    }

    #[test]
    fn pushes_in_json(changes in changes()) {
        let raw = base64::engine::general_purpose::STANDARD.encode(pprof());
        let json = format!(
            r#"{{"series":[{{"labels":[{{"name":"service_name","value":"shop"}}],"samples":[{{"ID":"x","rawProfile":"{raw}"}}]}}]}}"#
        );
        let bytes = changed(json.into_bytes(), &changes);
        if let Ok(decoded) = read_push_json(&bytes, LIMIT, 0) {
            fits(&decoded, bytes.len())?;
        }
    }

    #[test]
    fn raw_writes_of_parca(changes in changes()) {
        let bytes = changed(write_raw().encode_to_vec(), &changes);
        if let Ok(decoded) = read_write_raw(&bytes, LIMIT, 0) {
            fits(&decoded, bytes.len())?;
        }
    }

    #[test]
    fn text_files(changes in changes(), which in 0usize..4, named in any::<bool>()) {
        let (format, text) = [
            (Format::Folded, "main;price 3\nmain;leaf 2\n# comment\nmain 1\n"),
            (Format::Lines, "main;price\nmain\n"),
            (Format::PerfScript, "shop 1/2 [000] 5000.0:   250000 cpu-clock: \n\tff price+0x1 (/bin/shop)\n\taa main (/bin/shop)\n\n"),
            (Format::Speedscope, r#"{"shared":{"frames":[{"name":"main","file":"a","line":1},{"name":"b"}]},"profiles":[
                {"type":"sampled","name":"p","unit":"milliseconds","startValue":0,"endValue":1,"samples":[[0],[0,1]],"weights":[3,4.5]},
                {"type":"evented","name":"e","unit":"none","startValue":0,"endValue":9,"events":[
                {"type":"O","frame":0,"at":0},{"type":"C","frame":0,"at":9}]}]}"#),
        ][which];
        let bytes = changed(text.as_bytes().to_vec(), &changes);
        let how = Reading { format: named.then_some(format), limit: LIMIT, ..Reading::default() };
        if let Ok(profiles) = read(&bytes, &how) {
            fits(&Sender::of_service("shop").windows(profiles.profiles, 0), bytes.len() + 1)?;
        }
    }

    #[test]
    fn files_of_profilers(changes in changes(), which in 0usize..12, named in any::<bool>()) {
        let (format, file) = [
            (Format::Jfr, jfr()),
            (Format::CpuProfile, fixture("node-20.20.2.cpuprofile")),
            (Format::HeapProfile, fixture("node-20.20.2.heapprofile")),
            (Format::Austin, fixture("austin-3.7.0-full.txt")),
            (Format::Mojo, fixture("austin-4.0.0-wall.mojo")),
            (Format::GperftoolsCpu, fixture("gperftools-2.10.cpu")),
            (Format::GperftoolsHeap, fixture("gperftools-2.10.heap")),
            (Format::Jemalloc, fixture("jemalloc-5.3.0.heap")),
            (Format::Bpftrace, fixture("bpftrace-0.17.0.txt")),
            (Format::Callgrind, fixture("callgrind-3.19.0.out")),
            (Format::Pstats, fixture("cprofile-3.11.pstats")),
            (Format::ChromeTrace, br#"{"traceEvents":[{"ph":"P","name":"Profile","pid":1,"id":"0x1","args":{"data":{"startTime":1}}},
                {"ph":"P","name":"ProfileChunk","pid":1,"id":"0x1","args":{"data":{"cpuProfile":{"nodes":[{"id":1,"callFrame":{"functionName":"a","url":"b","lineNumber":3}},
                {"id":2,"parent":1,"callFrame":{"functionName":"c"}}],"samples":[1,2]},"timeDeltas":[5,7],"endTime":99}}}]}"#.to_vec()),
        ][which].clone();
        let bytes = changed(file, &changes);
        let how = Reading { format: named.then_some(format), limit: 2 << 20, ..Reading::default() };
        match read(&bytes, &how) {
            Ok(profiles) => fits(&Sender::of_service("shop").windows(profiles.profiles, 0), bytes.len() + 1)?,
            Err(error) => prop_assert!(error.to_string().len() < 1000),
        }
    }

    #[test]
    fn noise_behind_every_beginning(which in 0usize..14, noise in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b':'), Just(b' '), Just(b'1')], 0..200)) {
        let beginning: &[u8] = [
            &b"FLR\0\0\x02\0\x01"[..], b"MOJ\x03", b"MOJ\x04\x02\x01\x00t\0", b"# austin: 3\n# mode: full\n", b"heap profile: 1: 2 [ 3: 4] @ heapprofile\n",
            b"heap_v2/524288\n@ 0x1\n", b"@[\n", b"events: Ir\nfn=a\n", b"{\xa9\x03", br#"{"nodes":["#, br#"{"head":{"#, br#"{"traceEvents":["#,
            br#"{"type": "map", "data": {"@": {"#, b"\0\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\x27\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ][which];
        let bytes = [beginning, &noise].concat();
        if let Ok(profiles) = read(&bytes, &Reading { limit: 1 << 16, ..Reading::default() }) {
            fits(&Sender::of_service("shop").windows(profiles.profiles, 0), bytes.len() + 1)?;
        }
    }

    #[test]
    fn batches_of_the_journal(changes in changes()) {
        let id = BatchId { sender: "shop".into(), epoch: 1, sequence: 2, signal: Signal::Profiles };
        let batch = Batch { id: Some(id), received_unix_ms: 5, windows: vec![window()] };
        let whole = wire::encode_batch(&batch);
        prop_assert_eq!(&wire::decode_batch(&whole).unwrap(), &batch);
        let bytes = changed(whole, &changes);
        if let Ok(read) = wire::decode_batch(&bytes) {
            fits(&Decoded { windows: read.windows, ..Decoded::default() }, bytes.len())?;
        }
    }

    #[test]
    fn ids_of_batches(changes in changes()) {
        let id = BatchId { sender: "shop;\u{e9} 1".into(), epoch: 1, sequence: 2, signal: Signal::Requests };
        prop_assert_eq!(&id.to_string().parse::<BatchId>().unwrap(), &id);
        let bytes = changed(id.to_string().into_bytes(), &changes);
        if let Ok(read) = String::from_utf8_lossy(&bytes).parse::<BatchId>() {
            prop_assert_eq!(read.to_string().parse::<BatchId>().unwrap(), read);
        }
    }

    #[test]
    fn debug_information_messages(changes in changes()) {
        use emberline_model::proto::v1::{UploadHeader, UploadRequest, upload_request::Part};
        let header = UploadHeader { build_id: "00ff".into(), path: "/bin/shop".into(), size: 9, ..UploadHeader::default() };
        for part in [Part::Header(header), Part::Chunk(vec![1, 2, 3])] {
            let bytes = changed(UploadRequest { part: Some(part) }.encode_to_vec(), &changes);
            if let Ok(read) = UploadRequest::decode(bytes.as_slice()) {
                prop_assert!(read.encoded_len() <= bytes.len() + 16);
            }
        }
    }

    #[test]
    fn only_what_samples_mention_is_kept(
        samples in prop::collection::vec((0u32..4, 0u32..3, 1i64..9), 0..6),
        exemplars in prop::collection::vec((0u32..4, 0u32..3, 1i64..9), 0..3),
        stacks in prop::collection::vec(prop::collection::vec(0u32..5, 1..4), 4),
    ) {
        let mut profile = window().profiles.remove(0);
        let frame = |n: usize| Location::Named { frames: vec![Frame { function: format!("f{n}"), ..Frame::default() }] };
        profile.mappings = (0..2).map(|n| emberline_model::Mapping { build_id: n.to_string(), path: String::new() }).collect();
        profile.locations = (0..4).map(frame).collect();
        profile.locations.push(Location::Native { mapping: 1, offset: 8 });
        profile.stacks = stacks;
        profile.label_sets = (0..3).map(|n| LabelSet { route: n.to_string(), ..LabelSet::none() }).collect();
        profile.samples = samples.iter().map(|&(stack, label_set, value)| Sample { stack, label_set, value, count: 1 }).collect();
        profile.exemplars = exemplars
            .iter()
            .map(|&(stack, label_set, value)| Exemplar { stack, label_set, value, unix_ns: 0, trace_id: [1; 16], span_id: 0 })
            .collect();
        let meaning = |profile: &Profile| -> Vec<String> {
            let of = |(stack, label_set, value): (u32, u32, i64)| {
                let stack: Vec<String> = profile.stacks[stack as usize].iter().map(|&at| match &profile.locations[at as usize] {
                    Location::Named { frames } => frames[0].function.clone(),
                    Location::Native { mapping, offset } => format!("{}+{offset}", profile.mappings[*mapping as usize].build_id),
                }).collect();
                format!("{stack:?} {} {value}", profile.label_sets[label_set as usize].route)
            };
            let samples = profile.samples.iter().map(|s| (s.stack, s.label_set, s.value));
            let exemplars = profile.exemplars.iter().map(|e| (e.stack, e.label_set, e.value));
            samples.chain(exemplars).map(of).collect()
        };
        let before = meaning(&profile);
        profile.keep_used();
        prop_assert_eq!(before, meaning(&profile));
        prop_assert!(profile.validate().is_ok());
        prop_assert!(profile.stacks.len() <= profile.samples.len() + profile.exemplars.len());
        let mentioned = |at: usize| profile.stacks.iter().flatten().any(|&l| l as usize == at);
        prop_assert!((0..profile.locations.len()).all(mentioned));
    }
}
