//! The targets.

use emberline_model::{
    BatchId, Profile,
    formats::{self, Format, FormatError, Reading, app_name::AppName, series},
    function,
    otlp::{self, Decoded, Streams},
    route, wire,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;

use crate::{Target, seeds};

/// Most bytes that a file may unfold to, and a moment.
const LIMIT: usize = 1 << 20;
const NOW_NS: i64 = 1_790_000_000_000_000_000;
const MOST_MEMORY: u64 = 8 << 20;

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds }
}

/// Runs what reads text on text.
macro_rules! on_text {
    ($run:expr) => {
        |bytes: &[u8]| {
            if let Ok(text) = std::str::from_utf8(bytes) {
                $run(text);
            }
        }
    };
}

/// All targets.
pub const TARGETS: &[Target] = &[
    target(
        "pprof",
        |b| file(Format::Pprof, b),
        || seeds::fixtures("go", &["cpu", "mutex", "goroutine"]),
    ),
    target(
        "folded",
        |b| file(Format::Folded, b),
        || seeds::fixtures("others", &["folded", "py-spy"]),
    ),
    target(
        "lines",
        |b| file(Format::Lines, b),
        || seeds::fixtures("others", &["folded"]),
    ),
    target(
        "perf_script",
        |b| file(Format::PerfScript, b),
        || seeds::fixtures("others", &["perf-"]),
    ),
    target(
        "speedscope",
        |b| file(Format::Speedscope, b),
        || seeds::fixtures("others", &["speedscope"]),
    ),
    target("jfr", |b| file(Format::Jfr, b), || seeds::fixtures("jfr", &["jfr.gz"])),
    target(
        "v8_cpu",
        |b| file(Format::CpuProfile, b),
        || seeds::fixtures("formats", &["cpuprofile"]),
    ),
    target(
        "v8_heap",
        |b| file(Format::HeapProfile, b),
        || seeds::fixtures("formats", &["heapprofile"]),
    ),
    target(
        "chrome_trace",
        |b| file(Format::ChromeTrace, b),
        || seeds::fixtures("formats", &["chromium"]),
    ),
    target(
        "austin",
        |b| file(Format::Austin, b),
        || seeds::fixtures("formats", &["austin-3"]),
    ),
    target(
        "mojo",
        |b| file(Format::Mojo, b),
        || seeds::fixtures("formats", &["mojo"]),
    ),
    target(
        "gperftools_cpu",
        |b| file(Format::GperftoolsCpu, b),
        || seeds::fixtures("formats", &["10.cpu"]),
    ),
    target(
        "gperftools_heap",
        |b| file(Format::GperftoolsHeap, b),
        || seeds::fixtures("formats", &["10.heap"]),
    ),
    target(
        "jemalloc",
        |b| file(Format::Jemalloc, b),
        || seeds::fixtures("formats", &["jemalloc"]),
    ),
    target(
        "bpftrace",
        |b| file(Format::Bpftrace, b),
        || seeds::fixtures("formats", &["bpftrace"]),
    ),
    target(
        "callgrind",
        |b| file(Format::Callgrind, b),
        || seeds::fixtures("formats", &["callgrind"]),
    ),
    target(
        "pstats",
        |b| file(Format::Pstats, b),
        || seeds::fixtures("formats", &["pstats"]),
    ),
    target("any_file", any_file, || {
        seeds::fixtures("formats", &["stackprof", "bpftrace", "jemalloc"])
    }),
    target("otlp_metrics", otlp_metrics, seeds::otlp_metrics),
    target("otlp_metrics_json", otlp_metrics_json, || {
        seeds::bodies(&["v1-metrics-json.http", "oteljs-defaults-1.http"])
    }),
    target("otlp_profiles", otlp_profiles, seeds::otlp_profiles),
    target("otlp_profiles_json", otlp_profiles_json, || {
        seeds::texts(&[
            r#"{"resourceProfiles":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a"}}]},"scopeProfiles":[{"profiles":[{"sampleType":{"typeStrindex":1,"unitStrindex":2},"samples":[{"stackIndex":1,"values":["5"]}],"timeUnixNano":"1790000000000000000","durationNano":"10"}]}]}],"dictionary":{"stringTable":["","cpu","nanoseconds","main"],"functionTable":[{},{"nameStrindex":3}],"locationTable":[{},{"lines":[{"functionIndex":1}]}],"stackTable":[{},{"locationIndices":[1]}]}}"#,
        ])
    }),
    target("otlp_untaken", otlp_untaken, || {
        let mut all = seeds::otlp_metrics();
        all.extend(seeds::texts(&[
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{},{}]}]}]}"#,
        ]));
        all
    }),
    target(
        "pyroscope_push",
        |b| decoded(series::read_push(b, LIMIT, NOW_NS).ok().as_ref()),
        || seeds::bodies(&["push.v1.PusherService-Push-proto.http"]),
    ),
    target(
        "pyroscope_push_json",
        |b| decoded(series::read_push_json(b, LIMIT, NOW_NS).ok().as_ref()),
        || {
            seeds::texts(&[
                r#"{"series":[{"labels":[{"name":"service_name","value":"a"}],"samples":[{"rawProfile":"CgYKBAoCCAE=","ID":"1"}]}]}"#,
            ])
        },
    ),
    target(
        "parca_write_raw",
        |b| decoded(series::read_write_raw(b, LIMIT, NOW_NS).ok().as_ref()),
        || seeds::bodies(&["push.v1.PusherService-Push-proto.http"]),
    ),
    target("pyroscope_name", app_name, || {
        seeds::texts(&["shop.cpu{version=v2,region=\"a,b\"}", "shop"])
    }),
    target("journal_batch", journal_batch, seeds::batches),
    target("batch_id", batch_id, || {
        seeds::texts(&["checkout-1/7/9/2", "a%2Fb/18446744073709551615/1/1"])
    }),
    target("route", on_text!(route_text), || {
        seeds::texts(&["GET /quote/<int:id>/[x]", "/a/{id:[0-9]+}/(?P<y>z)/*"])
    }),
    target("function_name", on_text!(function_name), || {
        seeds::texts(&[
            "_ZN4core3fmt9Formatter3pad17h0123456789abcdefE",
            "shop::pricing::{{closure}}",
            "java.util.function.Lambda$14/0x00007f.run",
            "main.(*T[go.shape.int]).f.func1",
        ])
    }),
    #[cfg(feature = "programs")]
    target("journal_frames", emberline_storage::untrusted::journal_frames, || {
        vec![emberline_storage::untrusted::framed(&seeds::batches())]
    }),
    #[cfg(feature = "programs")]
    target("part_name", on_text!(emberline_storage::untrusted::part_name), || {
        seeds::texts(&["samples-497222-1-1-2-3-4-0000abcd.parquet"])
    }),
    #[cfg(feature = "programs")]
    target("selector", on_text!(emberline_web::untrusted::selector), || {
        seeds::texts(&[
            r#"process_cpu:cpu:nanoseconds:cpu:nanoseconds{service="checkout",version=~"v1|v2",route!=""}"#,
            r#"{component="proxy", side!~"c.*"}"#,
        ])
    }),
    #[cfg(feature = "programs")]
    target("times", on_text!(emberline_web::untrusted::time), || {
        seeds::texts(&["now-1h", "1790000000", "2026-01-02T03:04:05Z"])
    }),
    #[cfg(feature = "programs")]
    target("proxy_config", on_text!(proxy_config), || {
        seeds::texts(&[
            "workload: {namespace: a, service: b, version: c}\ncollector: {endpoint: 'http://e:4317'}\nroutes: ['/a/{id}']\n\
             inbound: [{listen: 127.0.0.1:1, to: 127.0.0.1:2}]\noutbound: [{listen: 127.0.0.1:3, service: d, routes: ['/x'], \
             destinations: [{address: 127.0.0.1:4, weight: 5}]}]\n",
        ])
    }),
    #[cfg(feature = "programs")]
    target("scrape_config", on_text!(scrape_config), || {
        seeds::texts(&[
            "scrape_configs: [{job_name: a, static_configs: [{targets: ['a:1'], labels: {service: b}}], relabel_configs: \
             [{source_labels: [x], regex: '(.*)', target_label: y, replacement: '$1'}], profiles: {profile: {seconds: 10}}}]",
        ])
    }),
    #[cfg(feature = "programs")]
    target("http1_framing", emberline_proxy::untrusted::http1_framing, || {
        seeds::texts(&[
            "POST /a HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: u\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: b\r\n\r\n",
        ])
    }),
    #[cfg(feature = "programs")]
    target("protocol", emberline_proxy::untrusted::protocol, || {
        seeds::texts(&[
            "\r\nGET / HTTP/1.1\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "BREW /x HTTP/1.1\r\n",
            "\u{16}\u{3}\u{1}",
        ])
    }),
    #[cfg(feature = "programs")]
    target("peer_identity", peer_identity, || {
        seeds::texts(&["v1;shop;check%20out;v2;a-1", "v1;;a;;"])
    }),
    #[cfg(feature = "programs")]
    target("elf", emberline_collector::untrusted::elf, || vec![elf()]),
];

fn fits(profiles: &[Profile]) {
    for profile in profiles {
        if let Err(error) = profile.validate() {
            panic!("a profile that was read does not fit together: {error}");
        }
    }
}

fn decoded(decoded: Option<&Decoded>) {
    for window in decoded.iter().flat_map(|decoded| &decoded.windows) {
        fits(&window.profiles);
    }
}

fn file(format: Format, bytes: &[u8]) {
    let how = Reading {
        format: Some(format),
        limit: LIMIT,
        ..Reading::default()
    };
    keep_promises(formats::read(bytes, &how));
}

fn any_file(bytes: &[u8]) {
    let how = Reading {
        limit: LIMIT,
        ..Reading::default()
    };
    keep_promises(formats::read(bytes, &how));
}

fn keep_promises(read: Result<formats::ReadProfiles, FormatError>) {
    match read {
        Ok(read) => {
            fits(&read.profiles);
            assert!(read.unpacked_bytes <= LIMIT, "more bytes than the limit");
        }
        // Errors are shown to people and written to logs.
        Err(error) => assert!(error.to_string().len() < 4_096, "an error repeats its input: {error}"),
    }
}

fn otlp_metrics(bytes: &[u8]) {
    if otlp::weigh_metrics(bytes, MOST_MEMORY).is_err() {
        return;
    }
    let Ok(request) = ExportMetricsServiceRequest::decode(bytes) else {
        return;
    };
    let read = otlp::decode_metrics_within(request, MOST_MEMORY);
    let mut room = otlp::bucket_room(MOST_MEMORY);
    let growth = otlp::grow(None::<&Streams>, &read.cumulative, 0, &mut room);
    otlp::grow(Some(&growth.next), &read.cumulative, 0, &mut room);
    decoded(Some(&read));
}

fn otlp_metrics_json(bytes: &[u8]) {
    if let Ok(written) = otlp::metrics_to_protobuf(bytes) {
        otlp_metrics(&written);
    }
}

fn otlp_profiles(bytes: &[u8]) {
    if otlp::weigh_profiles(bytes, MOST_MEMORY).is_err() {
        return;
    }
    if let Ok((request, _)) = otlp::read_profiles_counting(bytes) {
        decoded(otlp::decode_profiles_within(&request, MOST_MEMORY).ok().as_ref());
    }
}

fn otlp_profiles_json(bytes: &[u8]) {
    if let Ok(written) = otlp::profiles_to_protobuf(bytes) {
        otlp_profiles(&written);
    }
}

fn otlp_untaken(bytes: &[u8]) {
    let _ = otlp::count_items(bytes);
    let _ = otlp::count_items_in_json(bytes);
}

fn app_name(bytes: &[u8]) {
    on_text!(|text: &str| drop(text.parse::<AppName>()))(bytes);
}

fn journal_batch(bytes: &[u8]) {
    if let Ok(batch) = wire::decode_batch(bytes) {
        for window in &batch.windows {
            fits(&window.profiles);
        }
        let again = wire::decode_batch(&wire::encode_batch(&batch));
        assert!(
            again.is_ok(),
            "what was read cannot be written and read again: {again:?}"
        );
    }
}

fn batch_id(bytes: &[u8]) {
    on_text!(|text: &str| {
        if let Ok(id) = text.parse::<BatchId>() {
            assert_eq!(
                id.to_string().parse::<BatchId>().ok(),
                Some(id),
                "an id is written as it is read"
            );
        }
    })(bytes);
}

fn route_text(text: &str) {
    // What comes out may be read once more as something else: a `*` behind a regular expression is one of its signs.
    for route in [route::normalise(text), route::of_path(text)] {
        let characters = route.chars().count();
        assert!(
            characters <= emberline_model::workload::MAX_NAME_CHARS,
            "a name of {characters} characters"
        );
    }
}

fn function_name(text: &str) {
    let name = function::normalise(text);
    let _ = function::scope(&name, "src/x.rs");
    let _ = function::function_id(&function::frame(text, "", 1));
}

#[cfg(feature = "programs")]
fn proxy_config(text: &str) {
    let _ = emberline_proxy::config::parse(std::path::Path::new("proxy.yaml"), text);
}

#[cfg(feature = "programs")]
fn scrape_config(text: &str) {
    let _ = emberline_collector::scrape::parse(std::path::Path::new("scrape.yaml"), text);
}

#[cfg(feature = "programs")]
fn peer_identity(bytes: &[u8]) {
    if let Ok(workload) = emberline_proxy::telemetry::parse_peer(bytes) {
        let written = emberline_proxy::telemetry::encode_peer(&workload);
        let again = emberline_proxy::telemetry::parse_peer(written.as_bytes());
        assert_eq!(again.ok(), Some(workload), "an identity is written as it is read");
    }
}

/// The beginning of an ELF file with one segment of notes.
#[cfg(feature = "programs")]
fn elf() -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(64, 0);
    bytes[16] = 3;
    bytes[18] = 62;
    bytes[32] = 64;
    bytes[52..60].copy_from_slice(&[64, 0, 56, 0, 1, 0, 64, 0]);
    let mut segment = vec![0; 56];
    segment[0] = 4;
    segment[8] = 120;
    segment[32] = 36;
    bytes.extend(segment);
    bytes.extend([4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0]);
    bytes.extend(b"GNU\0");
    bytes.extend([0xab; 20]);
    bytes
}
