//! Profile types that other profilers name in ways of their own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use emberline_model::{
    Profile, ProfileType,
    foreign::formats::{Format, Reading, read},
    otlp::{decode_profiles, encode_profiles},
    proto::pprof as pb,
};
use prost::Message;

/// A file with one sample of one value per type.
fn file(types: &[(&str, &str, i64)], period: (&str, &str, i64)) -> Vec<u8> {
    let mut strings = vec![String::new()];
    let mut string = |text: &str| {
        strings.push(text.to_owned());
        strings.len() as i64 - 1
    };
    let sample_type = types.iter().map(|(kind, unit, _)| pb::ValueType {
        r#type: string(kind),
        unit: string(unit),
    });
    let sample_type = sample_type.collect();
    let period_type = pb::ValueType {
        r#type: string(period.0),
        unit: string(period.1),
    };
    let file = pb::Profile {
        sample_type,
        sample: vec![pb::Sample {
            value: types.iter().map(|(_, _, value)| *value).collect(),
            ..pb::Sample::default()
        }],
        period_type: Some(period_type),
        period: period.2,
        string_table: strings,
        ..pb::Profile::default()
    };
    file.encode_to_vec()
}

fn profiles(file: &[u8]) -> Vec<Profile> {
    let how = Reading {
        format: Some(Format::Pprof),
        limit: 1 << 20,
        ..Reading::default()
    };
    read(file, &how).unwrap().profiles
}

/// Agents outside the process (Parca's, OpenTelemetry's with eBPF) count samples and name their distance.
#[test]
fn samples_of_cpu_time_alone_become_cpu_time() {
    let read = profiles(&file(&[("samples", "count", 7)], ("cpu", "nanoseconds", 52_631_578)));
    assert_eq!(read[0].profile_type, ProfileType::cpu());
    assert_eq!(read[0].total(), 7 * 52_631_578);
    assert_eq!(read[0].samples[0].count, 7);
}

#[test]
fn samples_beside_cpu_time_or_of_unknown_distance_stay_samples() {
    let both = file(
        &[("samples", "count", 7), ("cpu", "nanoseconds", 70)],
        ("cpu", "nanoseconds", 10),
    );
    let read = profiles(&both);
    assert_eq!((read[0].total(), read[1].total()), (7, 70));
    assert_ne!(read[0].profile_type, ProfileType::cpu());
    let read = profiles(&file(&[("samples", "count", 7)], ("cpu", "nanoseconds", 0)));
    assert_eq!(read[0].total(), 7);
    let read = profiles(&file(&[("samples", "count", 7)], ("wall", "nanoseconds", 10)));
    assert_eq!(read[0].total(), 7);
}

#[test]
fn samples_of_otlp_become_cpu_time_as_well() {
    let read = profiles(&file(&[("samples", "count", 7)], ("cpu", "nanoseconds", 0)));
    let mut samples = read[0].clone();
    samples.period = 50;
    samples.start_unix_ns = 1_790_000_000_000_000_000;
    let window = |profiles: Vec<Profile>| emberline_model::WorkloadWindow {
        workload: emberline_model::Workload {
            service: "shop".into(),
            ..emberline_model::Workload::default()
        },
        component: emberline_model::Component::Application,
        start_unix_s: 1_790_000_000,
        length_s: 10,
        has_requests: false,
        has_profiles: true,
        requests: Vec::new(),
        profiles,
    };
    let decoded = decode_profiles(&encode_profiles(&window(vec![samples.clone()]))).unwrap();
    let profile = &decoded.windows[0].profiles[0];
    assert_eq!(
        (profile.profile_type.clone(), profile.total()),
        (ProfileType::cpu(), 350)
    );
    let mut time = samples.clone();
    time.profile_type = ProfileType::cpu();
    let decoded = decode_profiles(&encode_profiles(&window(vec![samples, time]))).unwrap();
    let totals: Vec<i64> = decoded.windows[0].profiles.iter().map(Profile::total).collect();
    assert_eq!(totals, [7, 7], "the same samples are not counted as time once more");
}

/// Node's sampler names the period after what it samples; every viewer asks for `space`.
#[test]
fn the_heap_of_node_has_the_type_that_viewers_ask_for() {
    let types = [("inuse_objects", "count", 3), ("inuse_space", "bytes", 900)];
    let read = profiles(&file(&types, ("inuse_space", "bytes", 512)));
    let names: Vec<&str> = read.iter().map(|profile| profile.profile_type.0.as_str()).collect();
    assert_eq!(
        names,
        [
            "memory:inuse_objects:count:space:bytes",
            "memory:inuse_space:bytes:space:bytes"
        ]
    );
}
