//! Requests made to cost a server as much memory as they can: small on the wire, large when unpacked or read.
//!
//! Guarantees: the bodies are the same in every run and as large as the server takes, for one that is refused by its length
//! costs nothing. Rows C1, C2, C6 and C9 of the catalogue
//! (`collector/tests/README.md`); what each must be answered with is tested there, here only memory counts.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
};

use flate2::{Compression, write::GzEncoder};

use crate::{Server, get_json, request};

/// One request.
pub struct Attack {
    /// What it is.
    pub name: &'static str,
    /// Where it goes, on the OTLP/HTTP port.
    pub path: &'static str,
    /// As what it is sent.
    pub content_type: &'static str,
    /// Its body.
    pub body: Vec<u8>,
}

/// The most bytes that the server takes in one request, in this machine or container.
///
/// # Panics
///
/// If the server does not answer.
pub fn max_request_bytes(server: &Server) -> usize {
    let status = get_json(server.web, "/api/v1/status").expect("a status");
    let limit = status["connections"]["limits"]["request_mb"].as_u64();
    (limit.expect("a limit") as usize) << 20
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

fn varint(mut number: usize, into: &mut Vec<u8>) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

/// A protobuf field with a length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    varint(content.len(), &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

/// A protobuf field that is a number.
fn number(field: u8, number: usize) -> Vec<u8> {
    let mut bytes = vec![field << 3];
    varint(number, &mut bytes);
    bytes
}

/// As many empty fields as fit into so many bytes.
fn empties(number: u8, bytes: usize) -> Vec<u8> {
    [number << 3 | 2, 0].repeat(bytes / 2)
}

/// A pprof file with a function, a location and a sample for each of `count` names of its own.
fn many_functions(count: usize) -> Vec<u8> {
    let mut file = [field(1, &[number(1, 1), number(2, 2)].concat()), field(6, b"")].concat();
    file.extend([field(6, b"cpu"), field(6, b"nanoseconds")].concat());
    for n in 0..count {
        file.extend(field(6, format!("function_{n}").as_bytes()));
        file.extend(field(5, &[number(1, n + 1), number(2, n + 3)].concat()));
        file.extend(field(4, &[number(1, n + 1), field(4, &number(1, n + 1))].concat()));
        let mut id = Vec::new();
        varint(n + 1, &mut id);
        file.extend(field(2, &[field(1, &id), field(2, &[1])].concat()));
    }
    file
}

/// All of them, none with more than so many bytes.
pub fn attacks(full: usize) -> Vec<Attack> {
    let protobuf = "application/x-protobuf";
    let types = [field(1, &number(1, 1)), field(6, b""), field(6, b"cpu")].concat();
    let pprof = |number: u8| [types.clone(), empties(number, full - types.len())].concat();
    let json = |name: &str| format!("{{\"{name}\":[{}{{}}]}}", "{},".repeat(full / 3 - 20)).into_bytes();
    let folded: String = (0..250_000).map(|n| format!("main;a{n};b{n} 1\n")).collect();
    let upload = "/api/ingest?service=hostile&time=received";
    let attack = |name, path, content_type, body| Attack {
        name,
        path,
        content_type,
        body,
    };
    vec![
        attack("C1 zeros packed 1000 times", upload, "", gzip(&vec![0; 256 << 20])),
        attack("C1 packed twice", upload, "", gzip(&gzip(&vec![b'a'; 64 << 20]))),
        attack("C1 as large as allowed, packed", upload, "", gzip(&pprof(4))),
        attack("C2 resources of metrics", "/v1/metrics", protobuf, empties(1, full)),
        attack(
            "C2 points of metrics",
            "/v1/metrics",
            protobuf,
            field(1, &field(2, &field(2, &field(10, &empties(1, full - 40))))),
        ),
        attack(
            "C2 metrics in JSON",
            "/v1/metrics",
            "application/json",
            json("resourceMetrics"),
        ),
        attack(
            "C2 profiles in JSON",
            "/v1/profiles",
            "application/json",
            json("resourceProfiles"),
        ),
        attack(
            "C2 samples",
            "/v1/profiles",
            protobuf,
            field(1, &field(2, &field(2, &empties(2, full - 40)))),
        ),
        attack(
            "C2 locations",
            "/v1/profiles",
            protobuf,
            field(2, &empties(2, full - 20)),
        ),
        attack(
            "C2 one stack",
            "/v1/profiles",
            protobuf,
            field(2, &field(7, &field(1, &vec![0; full - 40]))),
        ),
        attack("C2 pprof locations", upload, "", pprof(4)),
        attack("C2 pprof samples", upload, "", pprof(2)),
        attack("C2 pprof strings", upload, "", pprof(6)),
        attack(
            "C2 push",
            "/push.v1.PusherService/Push",
            "application/proto",
            empties(1, full),
        ),
        attack("C6 functions", upload, "", many_functions(100_000)),
        attack("C6 stacks", upload, "", folded.into_bytes()),
    ]
}

/// Sends an attack several times at once and answers the statuses; 0 where the server closed before it answered.
pub fn send(address: SocketAddr, attack: &Attack, at_once: usize) -> Vec<u16> {
    let one = || request(address, "POST", attack.path, attack.content_type, &attack.body).map_or(0, |a| a.status);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).collect()
    })
}

/// Uploads that begin and never go on (C9): they stay open as long as the value.
pub fn stalled(server: &Server, count: usize) -> Vec<TcpStream> {
    let length = max_request_bytes(server);
    let head = format!(
        "POST /v1/metrics HTTP/1.1\r\nHost: c\r\nContent-Type: application/x-protobuf\r\nContent-Length: {length}\r\n\r\n"
    );
    let start = [head.as_bytes(), &vec![0; 32 << 10]].concat();
    let open = |_| {
        let mut stream = TcpStream::connect(server.otlp_http).ok()?;
        stream.write_all(&start).ok()?;
        Some(stream)
    };
    (0..count).filter_map(open).collect()
}
