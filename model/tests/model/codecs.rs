//! Every codec gives back what it was given, and survives what it was not meant for.

use emberline_model::{
    Batch, BatchId, Component, Exemplar, Frame, Histogram, LabelSet, Location, Mapping, Profile, ProfileStats,
    ProfileType, Release, RequestSeries, Sample, Side, Signal, Workload, WorkloadWindow, otlp, wire,
};
use opentelemetry_proto::tonic::collector::{
    metrics::v1::ExportMetricsServiceRequest, profiles::v1development::ExportProfilesServiceRequest,
};
use proptest::prelude::*;
use prost::Message;

fn name() -> impl Strategy<Value = String> {
    "[a-z/{}]{1,8}"
}

fn release() -> impl Strategy<Value = Release> {
    (name(), name(), name()).prop_map(|(namespace, service, version)| Release {
        namespace,
        service,
        version,
    })
}

fn histogram() -> impl Strategy<Value = Histogram> {
    prop::collection::vec(0u64..20_000_000_000, 1..40).prop_map(|values| {
        let mut histogram = Histogram::new();
        values.into_iter().for_each(|v| histogram.record_ns(v));
        histogram
    })
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

fn requests() -> impl Strategy<Value = Vec<RequestSeries>> {
    let one = (
        side(),
        prop::option::of(release()),
        histogram(),
        100u16..600,
        0u64..9999,
        0u64..9999,
        (name(), 0.0f64..1e6, 0u64..9),
    );
    prop::collection::vec(one, 0..6).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        numbered
            .map(
                |(n, (side, peer, duration, status, request_bytes, response_bytes, beside))| RequestSeries {
                    side,
                    route: format!("/route{n}/{{id}}"),
                    method: "GET".to_owned(),
                    peer,
                    destination: if side == Side::Client { beside.0 } else { String::new() },
                    protocol: "http/1.1".to_owned(),
                    status,
                    error: status >= 500,
                    duration,
                    streaming_s: beside.1,
                    request_bytes,
                    response_bytes,
                    open: beside.2,
                },
            )
            .collect()
    })
}

fn profile() -> impl Strategy<Value = Profile> {
    let frame = (name(), name(), 0u32..500).prop_map(|(function, file, line)| Frame { function, file, line });
    let location = prop_oneof![
        (0u32..2, 0u64..1 << 40).prop_map(|(mapping, offset)| Location::Native { mapping, offset }),
        prop::collection::vec(frame, 1..3).prop_map(|frames| Location::Named { frames }),
    ];
    let labels = (prop::option::of(side()), name(), prop::option::of(release()))
        .prop_map(|(side, route, peer)| LabelSet { side, route, peer });
    (
        prop::collection::vec(location, 1..6),
        prop::collection::hash_set(labels, 1..4),
    )
        .prop_flat_map(|(locations, labels)| {
            let stack = prop::collection::vec(0..locations.len() as u32, 1..5);
            let label_sets: Vec<LabelSet> = labels.into_iter().collect();
            let label_count = label_sets.len() as u32;
            prop::collection::vec(stack, 1..5).prop_flat_map(move |stacks| {
                let (locations, label_sets) = (locations.clone(), label_sets.clone());
                let sample = (0..stacks.len() as u32, 0..label_count, 0i64..1 << 40, 1u64..50).prop_map(
                    |(stack, label_set, value, count)| Sample {
                        stack,
                        label_set,
                        value,
                        count,
                    },
                );
                prop::collection::vec(sample, 0..8).prop_map(move |samples| Profile {
                    profile_type: ProfileType::cpu(),
                    start_unix_ns: 20_000_000_000,
                    duration_ns: 10_000_000_000,
                    period: 10_101_010,
                    mappings: vec![
                        Mapping {
                            build_id: "ab12".to_owned(),
                            path: "/bin/a".to_owned(),
                        },
                        Mapping {
                            build_id: String::new(),
                            path: "/lib/b.so".to_owned(),
                        },
                    ],
                    locations: locations.clone(),
                    stacks: stacks.clone(),
                    label_sets: label_sets.clone(),
                    exemplars: samples
                        .iter()
                        .map(|sample| Exemplar {
                            stack: sample.stack,
                            label_set: sample.label_set,
                            value: sample.value,
                            unix_ns: 20_000_000_001 + sample.value,
                            trace_id: [sample.count as u8; 16],
                            span_id: sample.count,
                        })
                        .collect(),
                    exemplars_cut: samples.len() as u64,
                    samples,
                    stats: ProfileStats {
                        rate_hz: 99.0,
                        dropped: 1,
                        truncated: 2,
                        cpu_ns: 3,
                        overhead_ns: 4,
                    },
                })
            })
        })
}

fn workload() -> Workload {
    Workload {
        namespace: "demo".to_owned(),
        service: "cart".to_owned(),
        version: "v1".to_owned(),
        instance: "cart-1".to_owned(),
    }
}

fn window(requests: Vec<RequestSeries>, profiles: Vec<Profile>, signal: Signal) -> WorkloadWindow {
    WorkloadWindow {
        workload: workload(),
        component: Component::Proxy,
        start_unix_s: 20,
        length_s: 10,
        has_requests: signal == Signal::Requests,
        has_profiles: signal == Signal::Profiles,
        requests,
        profiles,
    }
}

/// A profile as rows that do not depend on the order of its tables.
fn rows(profile: &Profile) -> Vec<(Vec<String>, LabelSet, i64, u64)> {
    let place = |l: &Location| match l {
        Location::Native { mapping, offset } => format!("{:?}+{offset}", profile.mappings[*mapping as usize]),
        Location::Named { frames } => format!("{frames:?}"),
    };
    let stack = |s: u32| {
        profile.stacks[s as usize]
            .iter()
            .map(|&l| place(&profile.locations[l as usize]))
            .collect()
    };
    profile
        .samples
        .iter()
        .map(|s| {
            (
                stack(s.stack),
                profile.label_sets[s.label_set as usize].clone(),
                s.value,
                s.count,
            )
        })
        .collect()
}

proptest! {
    #[test]
    fn journal_batches_round_trip(requests in requests(), profile in profile()) {
        let batch = Batch {
            id: Some(BatchId { sender: "s".to_owned(), epoch: 3, sequence: 4, signal: Signal::Requests }),
            received_unix_ms: 77,
            windows: vec![window(requests, vec![profile], Signal::Requests)],
        };
        prop_assert_eq!(wire::decode_batch(&wire::encode_batch(&batch)).unwrap(), batch);
    }

    #[test]
    fn journal_bytes_of_any_kind_are_refused_or_a_batch(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(batch) = wire::decode_batch(&bytes) {
            let again = wire::decode_batch(&wire::encode_batch(&batch)).unwrap();
            prop_assert_eq!(format!("{:?}", again), format!("{:?}", batch));
        }
    }

    #[test]
    fn requests_round_trip_through_otlp(requests in requests()) {
        let window = window(requests, Vec::new(), Signal::Requests);
        let bytes = otlp::encode_requests(&window).encode_to_vec();
        let decoded = otlp::decode_metrics(ExportMetricsServiceRequest::decode(bytes.as_slice()).unwrap());
        prop_assert!(decoded.rejected.is_empty());
        prop_assert_eq!(decoded.windows.len(), 1);
        let mut got = decoded.windows[0].clone();
        let mut expected = window;
        got.requests.sort_by(|a, b| a.route.cmp(&b.route));
        expected.requests.sort_by(|a, b| a.route.cmp(&b.route));
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn profiles_round_trip_through_otlp(profile in profile()) {
        let window = window(Vec::new(), vec![profile.clone()], Signal::Profiles);
        let bytes = otlp::encode_profiles(&window).encode_to_vec();
        let decoded = otlp::decode_profiles(&ExportProfilesServiceRequest::decode(bytes.as_slice()).unwrap()).unwrap();
        prop_assert_eq!(decoded.windows.len(), 1);
        prop_assert!(decoded.windows[0].has_profiles);
        prop_assert_eq!(&decoded.windows[0].workload, &window.workload);
        let got = &decoded.windows[0].profiles[0];
        prop_assert!(got.validate().is_ok());
        prop_assert_eq!(rows(got), rows(&profile));
        prop_assert_eq!(got.stats, profile.stats);
        prop_assert_eq!(&got.profile_type, &profile.profile_type);
    }

    #[test]
    fn a_profile_with_any_index_changed_is_refused_or_valid(profile in profile(), which in 0usize..6, index in prop::sample::select(vec![-1i32, 1000, i32::MAX, i32::MIN])) {
        let mut request = otlp::encode_profiles(&window(Vec::new(), vec![profile], Signal::Profiles));
        let dictionary = request.dictionary.as_mut().unwrap();
        match which {
            0 => dictionary.location_table.iter_mut().for_each(|l| l.mapping_index = index),
            1 => dictionary.stack_table.iter_mut().for_each(|s| s.location_indices.push(index)),
            2 => dictionary.function_table.iter_mut().for_each(|f| f.name_strindex = index),
            3 => dictionary.attribute_table.iter_mut().for_each(|a| a.key_strindex = index),
            4 => dictionary.mapping_table.iter_mut().for_each(|m| m.filename_strindex = index),
            _ => request.resource_profiles[0].scope_profiles[0].profiles[0].samples.iter_mut().for_each(|s| s.stack_index = index),
        }
        if let Ok(decoded) = otlp::decode_profiles(&request) {
            for profile in &decoded.windows[0].profiles {
                prop_assert!(profile.validate().is_ok());
            }
        }
    }
}

#[test]
fn idle_windows_arrive_as_windows() {
    let idle = window(Vec::new(), Vec::new(), Signal::Requests);
    assert_eq!(otlp::decode_metrics(otlp::encode_requests(&idle)).windows, [idle]);
    let empty = Profile::empty_cpu(20_000_000_000, 10_000_000_000);
    let idle = window(Vec::new(), vec![empty], Signal::Profiles);
    let decoded = otlp::decode_profiles(&otlp::encode_profiles(&idle)).unwrap();
    assert!(decoded.windows[0].has_profiles);
}

#[test]
fn a_request_without_a_service_is_counted_not_stored() {
    let mut request = otlp::encode_requests(&window(Vec::new(), Vec::new(), Signal::Requests));
    request.resource_metrics[0].resource = None;
    let decoded = otlp::decode_metrics(request);
    assert!(decoded.windows.is_empty());
    assert_eq!(
        decoded.rejected,
        [otlp::Rejected::of("no_service_name", "emberline.window.requests", 1).sent_by("", "sum")]
    );
}
