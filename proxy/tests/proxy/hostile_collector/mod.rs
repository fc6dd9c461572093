//! Row C10 of the catalogue of attacks: a collector that means harm, or something else at its address. The exporter
//! reads a bounded part of any answer, follows nobody elsewhere, keeps what may still be delivered, and goes on;
//! traffic does not notice.
//!
//! One file because it is one row of the catalogue, an attack per test, told by the same exporter. The server that attacks is in
//! `server`.

mod server;

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::export_support::{ManualClock, eventually};
use emberline_model::{Component, Side, Workload, time::Clock};
use emberline_proxy::{
    Mesh, ProfilerOptions,
    export::{DropReason, ExportOptions, ExportStats, Exporter, ExporterHandle},
    telemetry::{Protocol, RequestRecord, ResponseFlags, Telemetry, TelemetryOptions},
};
use server::{Call, Hostile, message};

/// The most that is read of an answer.
const MOST_READ: usize = 64 << 10;
const AT_ONCE: Duration = Duration::ZERO;
const GRPC_OK: [(&str, &str); 1] = [("grpc-status", "0")];

fn workload() -> Workload {
    Workload {
        namespace: "shop".into(),
        service: "cart".into(),
        version: "v1".into(),
        instance: "cart-1".into(),
    }
}

/// An exporter with a clock of its own.
struct Exporting {
    clock: Arc<ManualClock>,
    telemetry: Telemetry,
    handle: ExporterHandle,
}

impl Exporting {
    fn to(server: &Hostile) -> Exporting {
        Exporting::patiently(server, Duration::from_secs(20))
    }

    fn patiently(server: &Hostile, call_timeout: Duration) -> Exporting {
        let options = ExportOptions {
            initial_backoff: Duration::from_millis(2),
            max_backoff: Duration::from_millis(20),
            call_timeout,
            clock_check: Duration::from_millis(1),
            ..ExportOptions::new(server.url(), workload(), Component::Proxy)
        };
        let clock = ManualClock::at_ms(1_700_000_000_000);
        let telemetry = Telemetry::new(TelemetryOptions::default(), Arc::clone(&clock) as Arc<dyn Clock>);
        let handle = Exporter::start(options, telemetry.clone(), None, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        Exporting {
            clock,
            telemetry,
            handle,
        }
    }

    /// A window with so many requests, cut.
    fn window(&self, requests: u64) {
        let route = self.telemetry.route("/cart/{id}");
        let label = self.telemetry.label(Side::Server, route, None);
        let series = self.telemetry.series(label, "GET", Protocol::Http1);
        for _ in 0..requests {
            self.telemetry.record(&RequestRecord {
                series,
                status: 200,
                error: false,
                duration_ns: 1_000_000,
                streaming_ns: 0,
                request_bytes: 0,
                response_bytes: 10,
                flags: ResponseFlags::NONE,
                upstream_ns: None,
            });
        }
        let cut = self.stats().windows_cut;
        self.clock.advance_ms(10_000);
        eventually("the window is cut", || self.stats().windows_cut > cut);
    }

    fn stats(&self) -> ExportStats {
        self.handle.stats()
    }
}

/// Whatever the server does, the batch waits and arrives when an honest collector is there; answers how the hostile
/// one was met.
#[track_caller]
fn keeps_the_batch(server: Hostile) -> Arc<server::Log> {
    // More often than a batch is tried that fails for an unknown cause.
    keeps_the_batch_of(&Exporting::to(&server), server, 6)
}

/// The same with a server that lets the time of each call run out.
#[track_caller]
fn outlasts(server: Hostile) -> Arc<server::Log> {
    keeps_the_batch_of(&Exporting::patiently(&server, Duration::from_millis(300)), server, 2)
}

#[track_caller]
fn keeps_the_batch_of(exporting: &Exporting, server: Hostile, retries: u64) -> Arc<server::Log> {
    exporting.window(3);
    eventually("it is tried again and again", || exporting.stats().retries >= retries);
    assert_eq!(exporting.stats().batches_dropped(), 0, "{:?}", exporting.stats());
    let log = Arc::clone(&server.log);
    let honest = server.replace();
    exporting.window(4);
    eventually("both batches are acknowledged", || {
        exporting.stats().requests_acked == 2
    });
    assert_eq!(honest.book.requests(), 3 + 4);
    assert_eq!(exporting.stats().batches_dropped(), 0, "{:?}", exporting.stats());
    log
}

/// The server fails on this batch each time for no reason that is known: it is given up, counted, and the next goes on.
#[track_caller]
fn gives_up_the_batch(server: Hostile, reason: DropReason, attempts: usize) -> Arc<server::Log> {
    let exporting = Exporting::to(&server);
    exporting.window(3);
    eventually("the batch is given up", || exporting.stats().batches_dropped() == 1);
    assert_eq!(exporting.stats().batches_dropped.keys().next().unwrap().0, reason);
    assert_eq!(server.requests(), attempts);
    let log = Arc::clone(&server.log);
    let honest = server.replace();
    exporting.window(4);
    eventually("the next batch is acknowledged", || {
        exporting.stats().requests_acked == 1
    });
    assert_eq!(honest.book.requests(), 4);
    log
}

/// Not more than is read of an answer, and as much again on its way.
#[track_caller]
fn took_little(log: &server::Log) {
    eventually("the answers were measured", || !log.taken.lock().is_empty());
    let most = log.taken.lock().iter().copied().max().unwrap();
    assert!(most <= 2 * MOST_READ, "{most} bytes of an answer were taken");
}

#[test]
fn of_a_page_without_end_nearly_nothing_is_read_and_the_batch_waits() {
    let log = keeps_the_batch(Hostile::answering(|call, _| {
        call.fields(&[(":status", "200"), ("content-type", "text/html")], false)?;
        call.data_without_end(&[b'x'; 9000], AT_ONCE)
    }));
    took_little(&log);
}

#[test]
fn of_an_answer_of_messages_without_end_64_kib_are_read() {
    // Each message is small and right; a reader that only bounds messages would read them all.
    let log = gives_up_the_batch(
        Hostile::answering(|call, _| {
            call.grpc_head()?;
            call.data_without_end(&message(b"").repeat(1000), AT_ONCE)
        }),
        DropReason::GaveUp,
        5,
    );
    took_little(&log);
    let log = gives_up_the_batch(
        Hostile::answering(|call, _| {
            call.grpc_head()?;
            call.data_without_end(&message(&[0; 1000]).repeat(10), AT_ONCE)
        }),
        DropReason::GaveUp,
        5,
    );
    took_little(&log);
}

#[test]
fn a_message_that_claims_four_gigabytes_is_not_waited_for() {
    let log = gives_up_the_batch(
        Hostile::answering(|call, _| {
            call.grpc_head()?;
            call.data(&[0, 255, 255, 255, 255])?;
            call.data_without_end(&[7; 9000], AT_ONCE)
        }),
        DropReason::GaveUp,
        5,
    );
    took_little(&log);
}

#[test]
fn a_packed_answer_is_not_unpacked() {
    gives_up_the_batch(
        Hostile::answering(|call, _| {
            let head = [
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("grpc-encoding", "zstd"),
            ];
            call.fields(&head, false)?;
            call.data(&[1, 0, 0, 0, 4, 0x28, 0xb5, 0x2f, 0xfd])?;
            call.fields(&GRPC_OK, true)
        }),
        DropReason::NotSupported,
        1,
    );
}

#[test]
fn a_server_that_sends_more_than_it_may_loses_its_connection_and_nothing_else() {
    keeps_the_batch(Hostile::answering(|call, _| {
        call.grpc_head()?;
        // Endless, too: the exporter hangs up.
        loop {
            call.data(&[0; 16_384])?;
        }
    }));
}

#[test]
fn huge_heads_and_trailers_are_not_kept() {
    let padding = "p".repeat(1 << 20);
    let (large, larger) = (padding[..40_000].to_owned(), padding);

    // Beyond what any honest server sends, in some frames and in many.
    for text in [large.clone(), larger.clone()] {
        keeps_the_batch(Hostile::answering(move |call, _| {
            let head = [
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("x-large", &text),
            ];
            call.fields(&head, false)?;
            call.data(&message(b""))?;
            call.fields(&GRPC_OK, true)
        }));
    }
    keeps_the_batch(Hostile::answering(move |call, _| {
        call.grpc_head()?;
        call.data(&message(b""))?;
        call.fields(&[("grpc-status", "0"), ("x-large", &larger)], true)
    }));
    let log = keeps_the_batch(Hostile::answering(|call, _| {
        call.grpc_head()?;
        call.data(&message(b""))?;
        call.fields_without_end()
    }));
    // What fills the buffers of two sockets was sent before the hang-up is seen here.
    let sent: usize = log.taken.lock().iter().sum();
    let connections = log.connections.load(Ordering::SeqCst);
    assert!(
        sent < connections * (32 << 20),
        "{sent} bytes in {connections} connections"
    );

    // The acknowledgement comes first: what follows it is cut off and undoes nothing.
    let server = Hostile::answering(move |call, _| {
        call.grpc_head()?;
        call.data(&message(b""))?;
        call.fields(&[("grpc-status", "0"), ("x-large", &large)], true)
    });
    let exporting = Exporting::to(&server);
    exporting.window(1);
    eventually("the batch is acknowledged", || exporting.stats().requests_acked == 1);
}

#[test]
fn a_redirect_is_not_followed_and_the_batch_waits() {
    for status in ["301", "302", "303", "307", "308"] {
        // Stands for an address inside, as that of a cloud's metadata.
        let inside = TcpListener::bind("127.0.0.1:0").unwrap();
        inside.set_nonblocking(true).unwrap();
        let location = format!("http://{}/latest/meta-data", inside.local_addr().unwrap());
        let log = keeps_the_batch(Hostile::answering(move |call, _| {
            call.fields(&[(":status", status), ("location", &location)], true)
        }));
        assert!(log.requests.load(Ordering::SeqCst) >= 6);
        let nobody = inside.accept().expect_err("the redirect was followed");
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
    }
}

/// `google.rpc.Status` with a `RetryInfo` of these seconds, as the header carries it.
fn retry_info(seconds: u64) -> String {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let mut delay = vec![1 << 3];
    let mut rest = seconds;
    while rest >= 128 {
        delay.push((rest % 128 + 128) as u8);
        rest /= 128;
    }
    delay.push(rest as u8);
    let detail = [
        field(1, b"type.googleapis.com/google.rpc.RetryInfo"),
        field(2, &field(1, &delay)),
    ]
    .concat();
    let bytes = field(3, &detail);
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        for place in 0..=three.len() {
            text.push(char::from(alphabet[(bits >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

#[test]
fn a_collector_that_asks_for_decades_of_silence_gets_five_minutes() {
    let (some, most) = (retry_info(1_000_000_000), retry_info(i64::MAX as u64));
    let answers: [Vec<(&str, &str)>; 5] = [
        vec![
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "8"),
            ("retry-after", "1000000000"),
        ],
        vec![
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "14"),
            ("retry-after", "18446744073709551615"),
        ],
        vec![
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "8"),
            ("grpc-status-details-bin", &some),
        ],
        vec![
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "14"),
            ("grpc-status-details-bin", &most),
        ],
        // A gateway in front that speaks no gRPC.
        vec![
            (":status", "503"),
            ("content-type", "text/html"),
            ("retry-after", "1000000000"),
        ],
    ];
    for answer in answers {
        let fields: Vec<(String, String)> = answer.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        let server = Hostile::answering(move |call, _| {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            call.fields(&fields, true)
        });
        let exporting = Exporting::to(&server);
        exporting.window(3);
        eventually("it waits", || !exporting.stats().waiting_to_retry.is_zero());
        assert_eq!(
            exporting.stats().waiting_to_retry,
            Duration::from_secs(300),
            "{answer:?}"
        );
        // The wait is over when the process ends: what can be delivered then, is.
        let honest = server.replace();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let report = runtime.block_on(exporting.handle.flush_and_stop(Duration::from_secs(60)));
        assert_eq!((report.acked, report.unacked), (2, 0));
        assert_eq!(honest.book.requests(), 3);
    }
}

#[test]
fn slow_answers_end_with_the_time_of_a_call() {
    // A byte now and then, in the body.
    let log = outlasts(Hostile::answering(|call, _| {
        call.grpc_head()?;
        call.data_without_end(&[0], Duration::from_millis(5))
    }));
    took_little(&log);
    // A head and no more; nothing at all.
    outlasts(Hostile::answering(|call, _| call.grpc_head()));
    outlasts(Hostile::answering(|_, _| Ok(())));
    // An acknowledgement without the end that makes it one.
    outlasts(Hostile::answering(|call, _| {
        call.grpc_head()?;
        call.data(&message(b""))
    }));
}

#[test]
fn a_server_that_takes_no_request_is_not_waited_for() {
    // No room for a body (SETTINGS_INITIAL_WINDOW_SIZE of 0), ever.
    outlasts(Hostile::with_settings(&[(4, 0)], |_, _| Ok(())));
    // Not one stream allowed (SETTINGS_MAX_CONCURRENT_STREAMS of 0).
    outlasts(Hostile::with_settings(&[(3, 0)], |_, _| Ok(())));
    // A connection that is accepted and never spoken to.
    outlasts(Hostile::speaking(|mut socket, _| {
        socket.read_to_end(&mut Vec::new()).map(|_| ())
    }));
}

#[test]
fn something_else_at_the_address_costs_no_batch() {
    let page = |socket: &mut TcpStream| {
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")?;
        loop {
            socket.write_all(&[b'x'; 9000])?;
        }
    };
    keeps_the_batch(Hostile::speaking(move |mut socket, _| page(&mut socket)));
    keeps_the_batch(Hostile::speaking(|mut socket, _| {
        socket.write_all(b"\x16\x03\x01 no HTTP at all")
    }));
    keeps_the_batch(Hostile::speaking(|_, _| Ok(())));
    // Goes away in the middle of each answer.
    keeps_the_batch(Hostile::answering(|call: &mut Call<'_>, _| {
        call.grpc_head()?;
        Err(io::ErrorKind::ConnectionReset.into())
    }));
}

#[test]
fn an_acknowledgement_with_a_malformed_partial_success_counts() {
    let rejected = |varint: &[u8]| {
        let inner = [&[1 << 3], varint].concat();
        [&[1 << 3 | 2, inner.len() as u8], inner.as_slice()].concat()
    };
    let most = rejected(&[255, 255, 255, 255, 255, 255, 255, 255, 127]);
    let minus_one = rejected(&[255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
    let long_text = {
        let text = vec![0x1b; 60_000];
        let inner = [&[2 << 3 | 2, 0xe0, 0xd4, 0x03], text.as_slice()].concat();
        [&[1 << 3 | 2, 0xe4, 0xd4, 0x03], inner.as_slice()].concat()
    };
    let answers = [
        b"".to_vec(),
        // No protobuf; a length beyond the end; another wire type; an overlong number.
        b"\xff\xff\xff\xff".to_vec(),
        vec![1 << 3 | 2, 0x7f, 0],
        vec![1 << 3, 5],
        rejected(&[255; 11]),
        minus_one,
        long_text,
        // More, all told, than 64 bits count.
        most.clone(),
        most.clone(),
        most,
    ];
    let count = answers.len();
    let server = Hostile::answering(move |call, number| {
        call.grpc_head()?;
        call.data(&message(&answers[number]))?;
        call.fields(&GRPC_OK, true)
    });
    let exporting = Exporting::to(&server);
    for batch in 1..=count as u64 {
        exporting.window(1);
        eventually("the batch is acknowledged", || {
            exporting.stats().requests_acked == batch
        });
    }
    let stats = exporting.stats();
    assert_eq!((server.requests(), stats.batches_dropped()), (count, 0), "{stats:?}");
    assert_eq!(stats.items_rejected, u64::MAX, "the count stays at its end");
}

#[test]
fn traffic_does_not_notice_a_hostile_collector() {
    let server = Hostile::answering(|call, number| match number % 3 {
        0 => {
            call.grpc_head()?;
            call.data_without_end(&message(b"").repeat(1000), AT_ONCE)
        }
        1 => call.fields(&[(":status", "307"), ("location", "http://127.0.0.1:1/")], true),
        _ => {
            call.grpc_head()?;
            call.fields_without_end()
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let clock = ManualClock::at_ms(1_700_000_000_000);
    let mesh = Mesh::builder(workload())
        .collector(server.url())
        .clock(Arc::clone(&clock) as Arc<dyn Clock>)
        .profiler(ProfilerOptions {
            enabled: false,
            ..ProfilerOptions::default()
        })
        .start()
        .unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let serving = mesh.clone();
    runtime.spawn(async move {
        let router = axum::Router::new().fallback(|| async { "hello" });
        serving.serve(listener, router).await.unwrap();
    });
    clock.advance_ms(10_000);
    let mut caller = TcpStream::connect(address).unwrap();
    caller.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut asked = 0;
    eventually("the collector did all it does", || {
        caller.write_all(b"GET /cart HTTP/1.1\r\nHost: cart\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            let mut byte = [0];
            caller.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        asked += 1;
        asked >= 100 && server.requests() >= 4
    });
    let counted: u64 = mesh
        .telemetry()
        .totals()
        .iter()
        .map(|series| series.duration.count())
        .sum();
    assert_eq!(counted, asked);
}
