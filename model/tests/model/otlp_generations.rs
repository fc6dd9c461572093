//! Profiles of all layouts of OTLP, written byte by byte as their versions write them.

use emberline_model::{
    Frame, Location, Profile,
    otlp::{DecodeError, Decoded, decode_profiles, names, read_profiles},
};
use proptest::prelude::*;

/// Writes protobuf, so that nothing of the code under test is used.
#[derive(Default, Clone)]
struct Writer(Vec<u8>);

impl Writer {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(mut self, number: u64, value: i64) -> Writer {
        self.raw_varint(number << 3);
        self.raw_varint(value as u64);
        self
    }

    fn fixed64(mut self, number: u64, value: u64) -> Writer {
        self.raw_varint(number << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn bytes(mut self, number: u64, bytes: &[u8]) -> Writer {
        self.raw_varint(number << 3 | 2);
        self.raw_varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    #[allow(clippy::needless_pass_by_value, reason = "messages are built where they are used")]
    fn message(self, number: u64, message: Writer) -> Writer {
        self.bytes(number, &message.0)
    }

    fn packed(self, number: u64, values: &[i64]) -> Writer {
        let mut packed = Writer::default();
        values.iter().for_each(|&value| packed.raw_varint(value as u64));
        self.message(number, packed)
    }

    fn packed_fixed(self, number: u64, values: &[u64]) -> Writer {
        let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.bytes(number, &packed)
    }

    fn texts(mut self, number: u64, texts: &[&str]) -> Writer {
        for text in texts {
            self = self.bytes(number, text.as_bytes());
        }
        self
    }
}

fn w() -> Writer {
    Writer::default()
}

const START_NS: u64 = 1_790_000_000_000_000_000;
const STRINGS: [&str; 8] = ["", "cpu", "nanoseconds", "main", "leaf", names::ROUTE, "/a", "src.rs"];

fn text_value(text: &str) -> Writer {
    w().bytes(1, text.as_bytes())
}

fn resource() -> Writer {
    let attribute = |key: &str, value: &str| w().bytes(1, key.as_bytes()).message(2, text_value(value));
    w().message(1, attribute(names::SERVICE, "shop"))
        .message(1, attribute(names::VERSION, "v1"))
}

fn cpu_type() -> Writer {
    w().varint(1, 1).varint(2, 2)
}

/// Locations and functions with entry 0 as "unset": location 1 is `main`, 2 is `leaf`.
fn function(name: i64) -> Writer {
    w().varint(1, name).varint(3, 7)
}

fn location(function: i64) -> Writer {
    w().message(3, w().varint(1, function).varint(2, 12))
}

fn dictionary_from_1_8() -> Writer {
    w().message(1, w())
        .message(2, w())
        .message(2, location(1))
        .message(2, location(2))
        .message(3, w())
        .message(3, function(3))
        .message(3, function(4))
        .message(4, w())
        .texts(5, &STRINGS)
        .message(6, w())
        .message(6, w().varint(1, 5).message(2, text_value("/a")))
        .message(7, w())
        .message(7, w().packed(1, &[2, 1]))
}

fn request(profile: Writer, dictionary: Option<Writer>) -> Vec<u8> {
    let group = w().message(1, resource()).message(2, w().message(2, profile));
    let request = w().message(1, group);
    match dictionary {
        Some(dictionary) => request.message(2, dictionary).0,
        None => request.0,
    }
}

fn profile_from_1_8(samples: &[Writer]) -> Writer {
    let profile = samples.iter().fold(w().message(1, cpu_type()), |profile, sample| {
        profile.message(2, sample.clone())
    });
    profile
        .fixed64(3, START_NS)
        .varint(4, 10_000_000_000)
        .message(5, cpu_type())
        .varint(6, 10)
}

fn read(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    decode_profiles(&read_profiles(bytes)?)
}

/// `(functions leaf first, route, value)` per sample.
fn rows(profile: &Profile) -> Vec<(Vec<String>, String, i64)> {
    let name = |&location: &u32| match &profile.locations[location as usize] {
        Location::Named { frames } => frames[0].function.clone(),
        Location::Native { .. } => "native".to_owned(),
    };
    let rows = profile.samples.iter().map(|sample| {
        let stack = profile.stacks[sample.stack as usize].iter().map(name).collect();
        let route = profile.label_sets[sample.label_set as usize].route.clone();
        (stack, route, sample.value)
    });
    rows.collect()
}

fn expect_rows(bytes: &[u8], expected: &[(&str, i64)]) {
    let decoded = read(bytes).unwrap();
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    let window = &decoded.windows[0];
    assert_eq!(
        (window.workload.service.as_str(), window.workload.version.as_str()),
        ("shop", "v1")
    );
    let profile = &window.profiles[0];
    assert_eq!(profile.profile_type.0, "process_cpu:cpu:nanoseconds:cpu:nanoseconds");
    assert_eq!(profile.start_unix_ns, START_NS as i64);
    assert!(profile.validate().is_ok());
    let leaf_first = vec!["leaf".to_owned(), "main".to_owned()];
    let expected: Vec<_> = expected
        .iter()
        .map(|&(route, value)| (leaf_first.clone(), route.to_owned(), value))
        .collect();
    assert_eq!(rows(profile), expected);
}

#[test]
fn the_layout_from_1_10_is_read() {
    let samples = [
        w().varint(1, 1).packed(2, &[1]).packed(4, &[30]),
        w().varint(1, 1).varint(3, 0).packed(4, &[12]),
    ];
    let bytes = request(profile_from_1_8(&samples), Some(dictionary_from_1_8()));
    expect_rows(&bytes, &[("/a", 30), ("", 12)]);
}

#[test]
fn the_layout_of_1_8_and_1_9_is_read() {
    let samples = [
        w().varint(1, 1).packed(2, &[30]).packed(3, &[1]),
        w().varint(1, 1).packed(2, &[12]),
        // As the eBPF profiler writes it: instants without values.
        w().varint(1, 1)
            .packed(3, &[1])
            .packed_fixed(5, &[START_NS + 1, START_NS + 2]),
    ];
    let bytes = request(profile_from_1_8(&samples), Some(dictionary_from_1_8()));
    expect_rows(&bytes, &[("/a", 30), ("", 12), ("/a", 2)]);
    // The profile's own fields stood one higher in 1.8: 12 are the attributes, 7 comments, 11 another format's bytes.
    let profile = profile_from_1_8(&samples)
        .packed(7, &[1])
        .bytes(11, b"junk")
        .packed(12, &[1]);
    expect_rows(
        &request(profile, Some(dictionary_from_1_8())),
        &[("/a", 30), ("", 12), ("/a", 2)],
    );
}

#[test]
fn values_alone_are_of_1_8_whatever_they_could_mean_as_indices() {
    let samples = [w().varint(1, 1).packed(2, &[1])];
    expect_rows(
        &request(profile_from_1_8(&samples), Some(dictionary_from_1_8())),
        &[("", 1)],
    );
    let samples = [w().varint(1, 1).packed(2, &[500]).packed_fixed(5, &[START_NS])];
    expect_rows(
        &request(profile_from_1_8(&samples), Some(dictionary_from_1_8())),
        &[("", 500)],
    );
    // Two instants for one number: it cannot be a value each.
    let samples = [w()
        .varint(1, 1)
        .packed(2, &[1])
        .packed_fixed(5, &[START_NS, START_NS + 9])];
    expect_rows(
        &request(profile_from_1_8(&samples), Some(dictionary_from_1_8())),
        &[("/a", 2)],
    );
}

fn samples_before_1_8() -> [Writer; 2] {
    [
        w().varint(2, 2).packed(3, &[30]).packed(4, &[0]),
        w().varint(1, 2).varint(2, 2).packed(3, &[12]),
    ]
}

fn attribute_before_1_8() -> Writer {
    w().bytes(1, names::ROUTE.as_bytes()).message(2, text_value("/a"))
}

#[test]
fn the_layout_of_1_7_is_read() {
    let [first, second] = samples_before_1_8();
    let profile = w()
        .message(1, cpu_type())
        .message(2, first)
        .message(2, second)
        .packed(3, &[1, 0, 1, 0])
        .varint(4, START_NS as i64)
        .varint(5, 10_000_000_000)
        .message(6, cpu_type())
        .varint(7, 10);
    let dictionary = w()
        .message(2, location(0))
        .message(2, location(1))
        .message(3, function(3))
        .message(3, function(4))
        .texts(5, &STRINGS)
        .message(6, attribute_before_1_8());
    expect_rows(&request(profile.clone(), Some(dictionary)), &[("/a", 30), ("", 12)]);
    // 1.6 lost its tables.
    assert_eq!(read(&request(profile, None)), Err(DecodeError::NoDictionary));
}

#[test]
fn the_layout_of_1_5_with_tables_in_each_profile_is_read() {
    let [first, second] = samples_before_1_8();
    let profile = w()
        .message(1, cpu_type())
        .message(2, first)
        .message(2, second)
        .message(4, location(0))
        .message(4, location(1))
        .packed(5, &[1, 0, 1, 0])
        .message(6, function(3))
        .message(6, function(4))
        .message(7, attribute_before_1_8())
        .texts(10, &STRINGS)
        .varint(11, START_NS as i64)
        .varint(12, 10_000_000_000)
        .message(13, cpu_type())
        .varint(14, 10);
    expect_rows(&request(profile, None), &[("/a", 30), ("", 12)]);
}

#[test]
fn mixed_layouts_are_refused_by_name() {
    let samples = [
        w().varint(1, 1).packed(2, &[1]).packed(4, &[30]),
        w().varint(1, 1).packed(2, &[30]).packed(3, &[1]),
    ];
    let bytes = request(profile_from_1_8(&samples), Some(dictionary_from_1_8()));
    assert_eq!(read(&bytes), Err(DecodeError::MixedLayouts));
}

#[test]
fn samples_with_instants_fall_into_their_windows() {
    let second = 1_000_000_000;
    let instants = [START_NS + second, START_NS + 11 * second, START_NS + 12 * second];
    let samples = [w()
        .varint(1, 1)
        .packed(2, &[1])
        .packed(4, &[5, 7, 9])
        .packed_fixed(5, &instants)];
    let profile = samples
        .iter()
        .fold(w().message(1, cpu_type()), |profile, sample| {
            profile.message(2, sample.clone())
        })
        .fixed64(3, START_NS)
        .varint(4, 20 * second as i64);
    let decoded = read(&request(profile, Some(dictionary_from_1_8()))).unwrap();
    let shown: Vec<_> = decoded
        .windows
        .iter()
        .map(|w| {
            (
                w.start_unix_s,
                w.length_s,
                w.profiles[0].samples[0].value,
                w.profiles[0].samples[0].count,
            )
        })
        .collect();
    assert_eq!(shown, [(1_790_000_000, 10, 5, 1), (1_790_000_010, 10, 16, 2)]);
}

#[test]
fn resources_may_refer_to_the_string_table() {
    let mut strings = STRINGS.to_vec();
    strings.extend([names::SERVICE, "cart"]);
    let by_index = w().message(2, w().varint(8, 9)).varint(3, 8);
    let profile = profile_from_1_8(&[w().varint(1, 1).packed(2, &[1]).packed(4, &[3])]);
    let group = w()
        .message(1, w().message(1, by_index))
        .message(2, w().message(2, profile));
    let dictionary = dictionary_from_1_8().texts(5, &strings[STRINGS.len()..]);
    let decoded = read(&w().message(1, group).message(2, dictionary).0).unwrap();
    assert_eq!(decoded.windows[0].workload.service, "cart");
}

#[test]
fn frames_keep_their_file_and_line() {
    let bytes = request(
        profile_from_1_8(&[w().varint(1, 1).packed(2, &[7_000])]),
        Some(dictionary_from_1_8()),
    );
    let decoded = read(&bytes).unwrap();
    let frame = Frame {
        function: "leaf".to_owned(),
        file: "src.rs".to_owned(),
        line: 12,
    };
    assert_eq!(
        decoded.windows[0].profiles[0].locations[0],
        Location::Named { frames: vec![frame] }
    );
}

proptest! {
    #[test]
    fn bytes_of_any_kind_are_refused_or_valid(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(decoded) = read(&bytes) {
            let mut profiles = decoded.windows.iter().flat_map(|window| &window.profiles);
            prop_assert!(profiles.all(|profile| profile.validate().is_ok()));
        }
    }

    #[test]
    fn a_request_with_any_byte_changed_is_refused_or_valid(
        old in any::<bool>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(), whole in any::<bool>(),
    ) {
        let [first, second] = samples_before_1_8();
        let mut bytes = if old {
            let profile = w().message(1, cpu_type()).message(2, first).message(2, second).packed(3, &[1, 0, 1, 0]).varint(4, START_NS as i64);
            request(profile, Some(w().message(2, location(0)).message(2, location(1)).message(3, function(3)).message(3, function(4)).texts(5, &STRINGS).message(6, attribute_before_1_8())))
        } else {
            request(profile_from_1_8(&[w().varint(1, 1).packed(2, &[30]).packed(3, &[1])]), Some(dictionary_from_1_8()))
        };
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(decoded) = read(&bytes) {
            for profile in decoded.windows.iter().flat_map(|w| &w.profiles) {
                prop_assert!(profile.validate().is_ok());
            }
        }
    }
}
