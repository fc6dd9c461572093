//! Samples that say which request they worked for, as OTLP links them and as pprof labels them.

use emberline_model::{
    Exemplar, LabelSet, Profile, ProfileType, WorkloadWindow, formats::Sender, otlp, pprof,
    profile_builder::ProfileBuilder, proto::pprof as pb,
};
use opentelemetry_proto::tonic::profiles::v1development as proto;
use prost::Message;

const NS: i64 = 1_000_000_000;
const TRACE: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

fn builder() -> ProfileBuilder {
    let mut builder = ProfileBuilder::new(ProfileType::cpu(), 10);
    for name in ["one", "two", "three", "four"] {
        let frame = builder.frame(name, "", 0);
        builder.add(vec![frame], &LabelSet::none(), 7, 1);
    }
    builder
}

/// A request of four samples with links: two instants in two windows, no instants, a link of zeros, no link.
fn linked(
    change: impl FnOnce(&mut proto::ProfilesDictionary, &mut Vec<proto::Sample>),
) -> Result<Vec<Profile>, otlp::DecodeError> {
    let sender = Sender::of_service("shop");
    let mut profile = builder().finish();
    (profile.start_unix_ns, profile.duration_ns) = (1_000 * NS, 20 * NS);
    let window: WorkloadWindow = sender.windows(vec![profile], 0).windows.remove(0);
    let mut request = otlp::encode_profiles(&window);
    let dictionary = request.dictionary.as_mut().unwrap();
    dictionary.link_table.push(proto::Link {
        trace_id: TRACE.to_vec(),
        span_id: vec![0, 0, 0, 0, 0, 0, 0, 9],
    });
    dictionary.link_table.push(proto::Link {
        trace_id: vec![0; 16],
        span_id: Vec::new(),
    });
    let samples = &mut request.resource_profiles[0].scope_profiles[0].profiles[0].samples;
    samples[0].link_index = 1;
    samples[0].values = vec![3, 4];
    samples[0].timestamps_unix_nano = vec![1_001 * NS as u64 + 5, 1_011 * NS as u64 + 6];
    samples[1].link_index = 1;
    samples[2].link_index = 2;
    change(dictionary, samples);
    let decoded = otlp::decode_profiles(&request)?;
    Ok(decoded.windows.into_iter().flat_map(|window| window.profiles).collect())
}

fn shown(profile: &Profile) -> Vec<(u32, i64, i64)> {
    let exemplars = profile.exemplars.iter();
    exemplars
        .map(|exemplar| (exemplar.stack, exemplar.value, exemplar.unix_ns))
        .collect()
}

#[test]
fn links_of_otlp_become_exemplars_at_their_instants() {
    let profiles = linked(|_, _| {}).unwrap();
    let [first, second] = profiles.as_slice() else {
        panic!("two windows");
    };
    profiles.iter().for_each(|profile| profile.validate().unwrap());
    assert_eq!(first.total() + second.total(), 28, "exemplars are a view of the rows");
    let stack_of = |value: i64| first.samples.iter().find(|sample| sample.value == value).unwrap().stack;
    assert_eq!(
        shown(first),
        [(stack_of(3), 3, 1_001 * NS + 5), (shown(first)[1].0, 7, 1_000 * NS)],
        "what has no instant is at the start"
    );
    assert_eq!(shown(second), [(second.samples[0].stack, 4, 1_011 * NS + 6)]);
    for exemplar in first.exemplars.iter().chain(&second.exemplars) {
        assert_eq!((exemplar.trace_id, exemplar.span_id), (TRACE, 9));
    }
}

#[test]
fn a_link_that_points_nowhere_is_refused_and_one_of_another_length_names_nothing() {
    let error = linked(|_, samples| samples[1].link_index = 99).unwrap_err();
    assert!(error.to_string().starts_with("link index 99"), "{error}");
    let profiles = linked(|dictionary, _| {
        dictionary.link_table[1].trace_id.push(0);
        dictionary.link_table[1].span_id.push(0);
    });
    assert!(profiles.unwrap().iter().all(|profile| profile.exemplars.is_empty()));
    let negative = linked(|_, samples| samples[1].link_index = -1).unwrap();
    assert_eq!(negative.iter().map(|profile| profile.exemplars.len()).sum::<usize>(), 2);
}

/// A pprof file of one sample for each list of labels, worth 1, 2, 3 and so on.
fn labelled(samples: &[&[(&str, &str)]]) -> Profile {
    let mut strings = vec![
        String::new(),
        "cpu".to_owned(),
        "nanoseconds".to_owned(),
        "main".to_owned(),
    ];
    let mut index = |text: &str| {
        strings.push(text.to_owned());
        strings.len() as i64 - 1
    };
    let sample = samples.iter().enumerate().map(|(at, labels)| pb::Sample {
        location_id: vec![1],
        value: vec![at as i64 + 1],
        label: labels
            .iter()
            .map(|(key, value)| pb::Label {
                key: index(key),
                str: index(value),
                ..pb::Label::default()
            })
            .collect(),
    });
    let sample = sample.collect();
    let file = pb::Profile {
        sample_type: vec![pb::ValueType { r#type: 1, unit: 2 }],
        sample,
        location: vec![pb::Location {
            id: 1,
            line: vec![pb::Line {
                function_id: 1,
                ..pb::Line::default()
            }],
            ..pb::Location::default()
        }],
        function: vec![pb::Function {
            id: 1,
            name: 3,
            ..pb::Function::default()
        }],
        string_table: strings,
        time_nanos: 1_000 * NS,
        duration_nanos: 10 * NS,
        ..pb::Profile::default()
    };
    pprof::read(&file.encode_to_vec(), 1 << 20).unwrap().remove(0).profile
}

#[test]
fn labels_of_pprof_become_exemplars() {
    let profile = labelled(&[
        &[
            ("trace_id", "0102030405060708090a0b0c0d0e0f10"),
            ("span_id", "00f067aa0ba902b7"),
        ],
        &[("profile_id", "00000000000000FF"), ("span_id", "000000000000000a")],
        &[("span_id", "000000000000000a"), ("profile_id", "00000000000000FF")],
        &[("profile_id", "00000000000000FF")],
        &[("trace_id", "not hexadecimal"), ("span_id", "12")],
        &[("thread", "main")],
    ]);
    profile.validate().unwrap();
    assert_eq!(profile.total(), 21);
    let found: Vec<(i64, u64)> = profile
        .exemplars
        .iter()
        .map(|exemplar| (exemplar.value, exemplar.span_id))
        .collect();
    assert_eq!(found, [(1, 0x00f0_67aa_0ba9_02b7), (2, 10), (3, 10), (4, 255)]);
    assert_eq!(profile.exemplars[0].trace_id, TRACE);
    assert!(profile.exemplars.iter().all(|exemplar| exemplar.unix_ns == 1_000 * NS));
}

#[test]
fn exemplars_lie_in_the_profile_that_the_server_placed() {
    let mut profile = labelled(&[&[("span_id", "000000000000000a")]]);
    profile.exemplars.push(Exemplar {
        unix_ns: i64::MAX,
        ..profile.exemplars[0]
    });
    let sender = Sender {
        times: emberline_model::formats::Times::Given {
            from_unix_ns: 2_000 * NS,
            until_unix_ns: 2_010 * NS,
        },
        ..Sender::of_service("shop")
    };
    let window = sender.windows(vec![profile], 0).windows.remove(0);
    let instants: Vec<i64> = window.profiles[0]
        .exemplars
        .iter()
        .map(|exemplar| exemplar.unix_ns)
        .collect();
    assert_eq!(instants, [2_000 * NS, 2_010 * NS - 1]);
}
