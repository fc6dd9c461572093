//! Inputs to begin with: the fixtures of real programs that other tests hold, unpacked, and what the product writes itself.

use std::{io::Read, path::Path};

use emberline_model::{
    Batch, BatchId, Component, Frame, Histogram, LabelSet, Location, Profile, RequestSeries, Sample, Side, Signal,
    Workload, WorkloadWindow, otlp, wire,
};
use prost::Message;

/// Larger ones make a search slow and are cut.
const MOST_BYTES: usize = 32 * 1024;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../model/tests/fixtures");
const COLLECTOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../collector/tests/fixtures");

/// What is packed with gzip or zstd, or the bytes themselves.
fn unpacked(bytes: Vec<u8>) -> Option<Vec<u8>> {
    if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return zstd::decode_all(bytes.as_slice()).ok();
    }
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Some(bytes);
    }
    let mut unpacked = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes.as_slice())
        .read_to_end(&mut unpacked)
        .ok()?;
    Some(unpacked)
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let bytes = std::fs::read(path).ok()?;
    let mut bytes = unpacked(bytes)?;
    bytes.truncate(MOST_BYTES);
    Some(bytes)
}

/// Files of the model's fixtures below a folder whose names hold one of some words.
pub(crate) fn fixtures(folder: &str, words: &[&str]) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(Path::new(MODEL).join(folder)) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let is_one = |path: &Path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| words.iter().any(|word| name.contains(word)))
    };
    paths.retain(|path| is_one(path));
    paths.iter().filter_map(|path| read(path)).collect()
}

/// Bodies of requests that real clients sent.
pub(crate) fn bodies(names: &[&str]) -> Vec<Vec<u8>> {
    let body = |name: &&str| {
        let request = std::fs::read(Path::new(COLLECTOR).join(name)).ok()?;
        let end = request.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let body = request.get(end..)?.to_vec();
        unpacked(body)
    };
    names.iter().filter_map(body).collect()
}

/// A window with requests and stacks.
pub(crate) fn window() -> WorkloadWindow {
    let workload = Workload {
        namespace: "shop".to_owned(),
        service: "checkout".to_owned(),
        version: "v2".to_owned(),
        instance: "checkout-1".to_owned(),
    };
    let mut duration = Histogram::new();
    for nanoseconds in [1_000_000, 2_000_000, 500] {
        duration.record_ns(nanoseconds);
    }
    let mut profile = Profile::empty_cpu(1_790_000_000_000_000_000, 10_000_000_000);
    profile.period = 10_000_000;
    profile.locations = ["main", "price_basket"]
        .map(|name| Location::Named {
            frames: vec![Frame {
                function: name.to_owned(),
                file: "src/pricing.rs".to_owned(),
                line: 7,
            }],
        })
        .to_vec();
    profile.stacks = vec![vec![1, 0]];
    profile.label_sets = vec![LabelSet {
        side: Some(Side::Server),
        route: "/quote/{id}".to_owned(),
        peer: Some(workload.release()),
    }];
    profile.samples = vec![Sample {
        stack: 0,
        label_set: 0,
        value: 20_000_000,
        count: 2,
    }];
    let requests = RequestSeries {
        side: Side::Server,
        route: "/quote/{id}".to_owned(),
        method: "GET".to_owned(),
        peer: Some(workload.release()),
        destination: "stock".to_owned(),
        protocol: "http/1.1".to_owned(),
        status: 200,
        error: false,
        duration,
        streaming_s: 0.5,
        request_bytes: 10,
        response_bytes: 20,
        open: 1,
    };
    WorkloadWindow {
        workload,
        component: Component::Application,
        start_unix_s: 1_790_000_000,
        length_s: 10,
        has_requests: true,
        has_profiles: true,
        requests: vec![requests],
        profiles: vec![profile],
    }
}

pub(crate) fn otlp_metrics() -> Vec<Vec<u8>> {
    let mut all = bodies(&[
        "v1-metrics-x-protobuf.http",
        "otelpy-defaults-1.http",
        "otelpy-defaults-2.http",
    ]);
    all.push(otlp::encode_requests(&window()).encode_to_vec());
    all
}

pub(crate) fn otlp_profiles() -> Vec<Vec<u8>> {
    vec![otlp::encode_profiles(&window()).encode_to_vec()]
}

/// A batch as the journal holds it, before it is packed.
pub(crate) fn batches() -> Vec<Vec<u8>> {
    let batch = Batch {
        id: Some(BatchId {
            sender: "checkout-1".to_owned(),
            epoch: 7,
            sequence: 9,
            signal: Signal::Profiles,
        }),
        received_unix_ms: 1_790_000_010_000,
        windows: vec![window()],
    };
    vec![wire::encode_batch(&batch)]
}

pub(crate) fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}
