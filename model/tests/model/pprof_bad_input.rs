//! pprof files with every reference pointing anywhere: refused by name, or read into something that fits together.

use emberline_model::{
    pprof::{Addresses, PprofError, read, read_file},
    proto::pprof as pb,
};
use proptest::prelude::*;
use prost::Message;

fn file() -> pb::Profile {
    let strings = [
        "",
        "cpu",
        "nanoseconds",
        "main",
        "main.rs",
        "/bin/shop",
        "0011223344556677",
        "route",
        "/a",
    ];
    pb::Profile {
        sample_type: vec![pb::ValueType { r#type: 1, unit: 2 }],
        sample: vec![pb::Sample {
            location_id: vec![1, 2],
            value: vec![30],
            label: vec![pb::Label {
                key: 7,
                str: 8,
                num: 0,
                num_unit: 0,
            }],
        }],
        mapping: vec![pb::Mapping {
            id: 1,
            filename: 5,
            build_id: 6,
            ..pb::Mapping::default()
        }],
        location: vec![
            pb::Location {
                id: 1,
                mapping_id: 1,
                address: 16,
                ..pb::Location::default()
            },
            pb::Location {
                id: 2,
                line: vec![pb::Line {
                    function_id: 1,
                    line: 7,
                    column: 0,
                }],
                ..pb::Location::default()
            },
        ],
        function: vec![pb::Function {
            id: 1,
            name: 3,
            filename: 4,
            ..pb::Function::default()
        }],
        string_table: strings.map(str::to_owned).to_vec(),
        period_type: Some(pb::ValueType { r#type: 1, unit: 2 }),
        period: 10,
        ..pb::Profile::default()
    }
}

/// `findings/go-cpu-profiles-lose-callers-beyond-64-frames.sh`.
#[test]
fn stacks_that_gos_cpu_profiler_cut_are_counted() {
    let cut = |name: &str, kind: &str, frames: usize| {
        let mut file = file();
        kind.clone_into(&mut file.string_table[1]);
        name.clone_into(&mut file.string_table[4]);
        file.sample[0].location_id = vec![2; frames];
        let read = read_file(&file.encode_to_vec(), 1 << 20, Addresses::InMemory).unwrap();
        let told = read.changed.iter().any(|changed| changed.reason == "go_stack_depth");
        (read.values[0].profile.stats.truncated, told)
    };
    assert_eq!(cut("main.go", "cpu", 64), (1, true));
    assert_eq!(cut("main.go", "cpu", 63), (0, false));
    assert_eq!(cut("main.rs", "cpu", 64), (0, false));
    assert_eq!(cut("main.go", "wall", 64), (0, false));
}

#[test]
fn ids_need_no_order_and_the_last_of_two_equal_ones_counts() {
    let mut source = file();
    source.location[0].id = u64::MAX;
    source.sample[0].location_id[0] = u64::MAX;
    source.function.insert(
        0,
        pb::Function {
            id: 1,
            name: 1,
            ..pb::Function::default()
        },
    );
    let values = read(&source.encode_to_vec(), 1 << 20).unwrap();
    assert_eq!(values[0].profile.total(), 30);
    assert!(values[0].profile.validate().is_ok());
}

#[test]
fn more_types_than_anyone_has_are_refused() {
    let mut source = file();
    source.sample_type = vec![pb::ValueType { r#type: 1, unit: 2 }; 65];
    source.sample.clear();
    let error = read(&source.encode_to_vec(), 1 << 20).unwrap_err();
    assert!(
        matches!(&error, PprofError::Invalid(why) if why.contains("65 sample types")),
        "{error}"
    );
}

#[test]
fn equal_stacks_and_label_sets_are_stored_once() {
    let mut source = file();
    let sample = source.sample[0].clone();
    source.sample.extend(std::iter::repeat_n(sample, 999));
    let profile = &read(&source.encode_to_vec(), 1 << 20).unwrap()[0].profile;
    assert_eq!(
        (profile.stacks.len(), profile.label_sets.len(), profile.samples.len()),
        (1, 1, 1000)
    );
    assert_eq!(profile.total(), 30_000);
}

proptest! {
    #[test]
    fn a_reference_to_anywhere_is_refused_or_valid(
        field in 0usize..13,
        number in prop_oneof![Just(-1i64), 0i64..10, Just(i64::MIN), Just(i64::MAX), any::<i64>()],
    ) {
        let mut source = file();
        match field {
            0 => source.sample[0].location_id[0] = number as u64,
            1 => source.location[0].mapping_id = number as u64,
            2 => source.location[1].line[0].function_id = number as u64,
            3 => source.function[0].name = number,
            4 => source.function[0].filename = number,
            5 => source.mapping[0].filename = number,
            6 => source.mapping[0].build_id = number,
            7 => source.sample[0].label[0].key = number,
            8 => source.sample[0].label[0].str = number,
            9 => source.sample_type[0].unit = number,
            10 => source.period_type.as_mut().unwrap().r#type = number,
            11 => source.sample[0].value[0] = number,
            _ => source.location[1].line[0].line = number,
        }
        for addresses in [Addresses::InMemory, Addresses::InFile] {
            if let Ok(values) = read_file(&source.encode_to_vec(), 1 << 20, addresses).map(|file| file.values) {
                prop_assert!(values.iter().all(|value| value.profile.validate().is_ok()));
            }
        }
    }

    #[test]
    fn bytes_of_any_kind_are_refused_or_valid(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(values) = read(&bytes, 1 << 20) {
            prop_assert!(values.iter().all(|value| value.profile.validate().is_ok()));
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_or_valid(at in any::<prop::sample::Index>()) {
        let whole = file().encode_to_vec();
        if let Ok(values) = read(&whole[..at.index(whole.len())], 1 << 20) {
            for value in values {
                prop_assert!(value.profile.validate().is_ok());
            }
        }
    }
}
