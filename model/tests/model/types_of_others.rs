//! Profile types that other profilers name in ways of their own.

use emberline_model::{
    Profile, ProfileType,
    formats::{Format, Reading, read},
    otlp::{decode_profiles, encode_profiles, read_profiles_counting},
    proto::pprof as pb,
};
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use prost::Message;

fn window_of(profiles: Vec<Profile>) -> emberline_model::WorkloadWindow {
    emberline_model::WorkloadWindow {
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
    }
}

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
}

#[test]
fn samples_of_wall_time_become_wall_time() {
    let read = profiles(&file(&[("samples", "count", 7)], ("wall", "nanoseconds", 10)));
    assert_eq!(read[0].profile_type.0, emberline_model::formats::meaning::WALL);
    assert_eq!(read[0].total(), 70);
    let beside = [("samples", "count", 7), ("cpu", "nanoseconds", 60)];
    let read = profiles(&file(&beside, ("wall", "nanoseconds", 10)));
    assert_eq!((read[0].total(), read[1].total()), (70, 60), "CPU time is no wall time");
}

/// Some writers give no ids: then the position in the table is meant.
#[test]
fn functions_without_ids_are_known_by_their_position() {
    let strings = ["", "cpu", "nanoseconds", "main", "price"];
    let function = |name| pb::Function {
        name,
        ..pb::Function::default()
    };
    for first in [1u64, 0] {
        let location = |id, function_id| pb::Location {
            id,
            line: vec![pb::Line {
                function_id,
                ..pb::Line::default()
            }],
            ..pb::Location::default()
        };
        let file = pb::Profile {
            sample_type: vec![pb::ValueType { r#type: 1, unit: 2 }],
            sample: vec![pb::Sample {
                location_id: vec![8, 7],
                value: vec![5],
                ..pb::Sample::default()
            }],
            location: vec![location(7, first), location(8, first + 1)],
            function: vec![function(3), function(4)],
            string_table: strings.map(str::to_owned).to_vec(),
            ..pb::Profile::default()
        };
        let read = profiles(&file.encode_to_vec());
        let names: Vec<&str> = read[0]
            .locations
            .iter()
            .map(|location| match location {
                emberline_model::Location::Named { frames } => frames[0].function.as_str(),
                emberline_model::Location::Native { .. } => "",
            })
            .collect();
        assert_eq!(names, ["price", "main"], "counted from {first}");
    }
}

#[test]
fn text_that_is_no_utf_8_is_replaced_and_said() {
    let mut bytes = file(&[("c?u", "nanoseconds", 7)], ("cpu", "nanoseconds", 1));
    let at = bytes.iter().position(|&byte| byte == b'?').unwrap();
    bytes[at] = 0xc3;
    let how = Reading {
        limit: 1 << 20,
        ..Reading::default()
    };
    let found = read(&bytes, &how).unwrap();
    assert_eq!(found.profiles[0].total(), 7);
    assert_eq!((found.changed[0].reason, found.changed[0].count), ("invalid_utf8", 1));
    assert!(found.profiles[0].profile_type.0.contains('\u{fffd}'));
}

#[test]
fn a_duration_that_is_the_end_is_read_as_that_and_another_is_refused() {
    let start = 1_790_000_000_000_000_000i64;
    for (duration, expected) in [
        (start + 5_000_000_000, Some(5_000_000_000)),
        (start, Some(0)),
        (start - 7, None),
    ] {
        let mut source =
            pb::Profile::decode(file(&[("cpu", "nanoseconds", 7)], ("cpu", "nanoseconds", 1)).as_slice()).unwrap();
        (source.time_nanos, source.duration_nanos) = (start, duration);
        let how = Reading {
            format: Some(Format::Pprof),
            limit: 1 << 20,
            ..Reading::default()
        };
        match (read(&source.encode_to_vec(), &how), expected) {
            (Ok(read), Some(expected)) => {
                assert_eq!(read.profiles[0].duration_ns, expected);
                assert_eq!(read.changed[0].reason, "duration_is_the_end");
            }
            (Err(error), None) => assert!(error.to_string().contains("probably an end time"), "{error}"),
            (other, _) => panic!("{duration}: {other:?}"),
        }
    }
}

#[test]
fn samples_of_otlp_become_cpu_time_as_well() {
    let read = profiles(&file(&[("samples", "count", 7)], ("cpu", "nanoseconds", 0)));
    let mut samples = read[0].clone();
    samples.period = 50;
    samples.start_unix_ns = 1_790_000_000_000_000_000;
    let decoded = decode_profiles(&encode_profiles(&window_of(vec![samples.clone()]))).unwrap();
    let profile = &decoded.windows[0].profiles[0];
    assert_eq!(
        (profile.profile_type.clone(), profile.total()),
        (ProfileType::cpu(), 350)
    );
    let mut time = samples.clone();
    time.profile_type = ProfileType::cpu();
    let decoded = decode_profiles(&encode_profiles(&window_of(vec![samples, time]))).unwrap();
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

/// A request of one sample of a type, through the layout of today.
fn otlp(kind: &str, unit: &str, period: (&str, &str, i64), value: i64) -> ExportProfilesServiceRequest {
    let mut profile = Profile::empty_cpu(1_790_000_000_000_000_000, 10_000_000_000);
    profile.profile_type = ProfileType::from_parts("x", kind, unit, period.0, period.1);
    profile.period = period.2;
    profile.locations = vec![emberline_model::Location::Named {
        frames: vec![emberline_model::Frame {
            function: "m?in".to_owned(),
            ..emberline_model::Frame::default()
        }],
    }];
    profile.stacks = vec![vec![0]];
    profile.label_sets = vec![emberline_model::LabelSet::none()];
    profile.samples = vec![emberline_model::Sample {
        stack: 0,
        label_set: 0,
        value,
        count: 1,
    }];
    encode_profiles(&window_of(vec![profile]))
}

#[test]
fn units_and_words_of_otlp_mean_what_they_mean_in_files() {
    for (kind, unit, expected, factor) in [
        ("cpu", "milliseconds", ProfileType::CPU, 1_000_000),
        ("wall-time", "us", emberline_model::formats::meaning::WALL, 1_000),
        ("alloc-space", "bytes", "memory:alloc_space:bytes:space:bytes", 1),
        ("inuse_space", "kb", "memory:inuse_space:bytes:space:bytes", 1024),
    ] {
        let decoded = decode_profiles(&otlp(kind, unit, ("cpu", unit, 10), 7)).unwrap();
        let profile = &decoded.windows[0].profiles[0];
        assert_eq!(
            (profile.profile_type.0.as_str(), profile.total()),
            (expected, 7 * factor)
        );
        if kind == "cpu" {
            assert_eq!(profile.period, 10_000_000, "the period is of the same unit");
        }
    }
}

#[test]
fn text_of_otlp_that_is_no_utf_8_is_replaced_and_said() {
    let mut bytes = otlp("cpu", "nanoseconds", ("cpu", "nanoseconds", 1), 7).encode_to_vec();
    assert_eq!(read_profiles_counting(&bytes).unwrap().1, 0);
    let at = bytes.windows(4).position(|four| four == b"m?in").unwrap() + 1;
    bytes[at] = 0xff;
    let (request, replaced) = read_profiles_counting(&bytes).unwrap();
    assert_eq!(replaced, 1);
    let decoded = decode_profiles(&request).unwrap();
    assert_eq!(decoded.windows[0].profiles[0].total(), 7);
}

#[test]
fn durations_of_otlp_that_are_moments_are_read_as_the_end_or_left_out() {
    let start = 1_790_000_000_000_000_000u64;
    for (duration, kept) in [(start + 5_000_000_000, true), (start - 7, false)] {
        let mut request = otlp("cpu", "nanoseconds", ("cpu", "nanoseconds", 1), 7);
        request.resource_profiles[0].scope_profiles[0].profiles[0].duration_nano = duration;
        let decoded = decode_profiles(&request).unwrap();
        assert_eq!(decoded.windows.len(), usize::from(kept));
        let (changed, rejected) = (decoded.changed.len(), decoded.rejected.len());
        assert_eq!((changed, rejected), if kept { (1, 0) } else { (0, 1) });
    }
}

/// The positive half of a difference is no difference.
#[test]
fn a_profile_of_otlp_with_a_negative_value_is_left_out_whole() {
    let mut request = otlp("inuse_space", "bytes", ("space", "bytes", 1), 7);
    let profile = &mut request.resource_profiles[0].scope_profiles[0].profiles[0];
    let mut negative = profile.samples[0].clone();
    negative.values = vec![-3];
    profile.samples.push(negative);
    let decoded = decode_profiles(&request).unwrap();
    assert!(decoded.windows.is_empty());
    assert_eq!(decoded.rejected[0].count, 2);
    assert_eq!(decoded.rejected[0].what, "memory:inuse_space:bytes:space:bytes");
}
