//! pprof ⇄ model, gzip included. Guarantee: the total written equals the total given. For reading, see [`read_file`].
//!
//! Source: the pprof format, github.com/google/pprof `proto/profile.proto`.

mod places;
mod prune;
mod read;

use std::{collections::HashMap, io::Write, sync::Arc};

use flate2::{Compression, write::GzEncoder};
use prost::Message;

pub use self::{
    places::Addresses,
    read::{PprofFile, read, read_file},
};
use crate::{
    function,
    profile::{Frame, Location, Profile, ProfileType},
    proto::pprof as pb,
    resolve::{FunctionInfo, ResolvedStacks},
    unpack::UnpackError,
    weight::TooHeavy,
};

/// A file that is not a pprof profile, or too large a one.
#[derive(Debug, thiserror::Error)]
pub enum PprofError {
    /// Compressed and damaged.
    #[error("cannot read the pprof file: {0}")]
    Packed(UnpackError),
    /// Not the protobuf of a profile.
    #[error("not a pprof file: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Larger than the limit.
    #[error("more than {limit} bytes after decompression; use a larger limit if the file is trusted")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// It expands to too much data.
    #[error("{0}")]
    TooHeavy(#[from] TooHeavy),
    /// A dangling reference.
    #[error("not a valid pprof file: {0}")]
    Invalid(String),
}

/// One value type of a pprof file, as a profile with named frames.
#[derive(Debug, Clone)]
pub struct PprofValue {
    /// `type/unit` of the value, as in the file: `cpu/nanoseconds` even if the file counts milliseconds.
    pub name: String,
    /// The samples of that type.
    pub profile: Profile,
}

/// Strings of a profile being written; index 0 is empty.
struct Strings {
    table: Vec<String>,
    index: HashMap<String, i64>,
}

impl Strings {
    fn new() -> Strings {
        Strings {
            table: vec![String::new()],
            index: HashMap::from([(String::new(), 0)]),
        }
    }

    fn get(&mut self, text: &str) -> i64 {
        if let Some(&index) = self.index.get(text) {
            return index;
        }
        let index = self.table.len() as i64;
        self.table.push(text.to_owned());
        self.index.insert(text.to_owned(), index);
        index
    }
}

/// What a written profile says about itself.
#[derive(Debug, Clone)]
pub struct PprofMeta {
    /// Profile type: gives sample type, unit and period type.
    pub profile_type: ProfileType,
    /// Start, nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// Length of the range in nanoseconds.
    pub duration_ns: i64,
    /// Interval between samples; 0 if unknown.
    pub period: i64,
}

/// Writes resolved stacks as a gzipped pprof file with one value per sample. With two sides (a comparison) the
/// values are `baseline` and `candidate`, and each row holds `[baseline, candidate]`.
pub fn write(meta: &PprofMeta, resolved: &ResolvedStacks, rows: &[(u64, [i64; 2])], both_sides: bool) -> Vec<u8> {
    let mut strings = Strings::new();
    let [_, sample_type, unit, period_type, period_unit] = meta.profile_type.parts();
    let unit_index = strings.get(unit);
    let mut value_types = Vec::new();
    if both_sides {
        for side in ["baseline", "candidate"] {
            value_types.push(pb::ValueType {
                r#type: strings.get(&format!("{side}_{sample_type}")),
                unit: unit_index,
            });
        }
    } else {
        value_types.push(pb::ValueType {
            r#type: strings.get(sample_type),
            unit: unit_index,
        });
    }
    let period_type = pb::ValueType {
        r#type: strings.get(period_type),
        unit: strings.get(period_unit),
    };

    let mut mappings: Vec<pb::Mapping> = Vec::new();
    let mut mapping_ids: HashMap<String, u64> = HashMap::new();
    let mut functions = Vec::new();
    let mut locations = Vec::new();
    for (at, info) in resolved.functions.iter().enumerate() {
        let id = at as u64 + 1;
        let name = strings.get(&info.name);
        let filename = strings.get(&info.file);
        let mapping_id = *mapping_ids.entry(info.module.clone()).or_insert_with(|| {
            mappings.push(pb::Mapping {
                id: mappings.len() as u64 + 1,
                filename: strings.get(&info.module),
                has_functions: true,
                has_filenames: true,
                has_inline_frames: true,
                ..pb::Mapping::default()
            });
            mappings.len() as u64
        });
        functions.push(pb::Function {
            id,
            name,
            system_name: name,
            filename,
            start_line: 0,
        });
        locations.push(pb::Location {
            id,
            mapping_id,
            line: vec![pb::Line {
                function_id: id,
                line: 0,
                column: 0,
            }],
            ..pb::Location::default()
        });
    }
    // A row whose stack is not in the dictionary keeps its value, under a placeholder function.
    let mut unknown: Option<u64> = None;
    let mut samples = Vec::with_capacity(rows.len());
    for (stack, values) in rows {
        let mut location_id: Vec<u64> = resolved.frames(*stack).map(|f| u64::from(f) + 1).collect();
        if location_id.is_empty() {
            location_id.push(*unknown.get_or_insert_with(|| {
                let id = functions.len() as u64 + 1;
                let name = strings.get("[unknown]");
                functions.push(pb::Function {
                    id,
                    name,
                    system_name: name,
                    ..pb::Function::default()
                });
                let line = vec![pb::Line {
                    function_id: id,
                    line: 0,
                    column: 0,
                }];
                locations.push(pb::Location {
                    id,
                    line,
                    ..pb::Location::default()
                });
                id
            }));
        }
        let value = if both_sides { values.to_vec() } else { vec![values[0]] };
        samples.push(pb::Sample {
            location_id,
            value,
            label: Vec::new(),
        });
    }
    let profile = pb::Profile {
        sample_type: value_types,
        sample: samples,
        mapping: mappings,
        location: locations,
        function: functions,
        string_table: strings.table,
        time_nanos: meta.time_ns,
        duration_nanos: meta.duration_ns,
        period_type: Some(period_type),
        period: meta.period,
        ..pb::Profile::default()
    };
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let written = gzip.write_all(&profile.encode_to_vec()).and_then(|()| gzip.finish());
    written.expect("writing to memory does not fail")
}

/// Resolves a profile with named locations, without a dictionary: stack ids are positions in it.
pub fn resolve_named(profile: &Profile) -> ResolvedStacks {
    let mut resolved = ResolvedStacks::default();
    let mut by_id: HashMap<u64, u32> = HashMap::new();
    let mut per_location: Vec<Vec<u32>> = Vec::with_capacity(profile.locations.len());
    for location in &profile.locations {
        let frames = match location {
            Location::Named { frames } => frames.clone(),
            Location::Native { mapping, offset } => {
                let module = profile
                    .mappings
                    .get(*mapping as usize)
                    .map(|m| m.path.clone())
                    .unwrap_or_default();
                vec![Frame {
                    function: format!("{offset:#x}"),
                    file: module,
                    line: 0,
                }]
            }
        };
        let indices = frames.iter().map(|frame| {
            let id = function::function_id(frame);
            *by_id.entry(id).or_insert_with(|| {
                let info = FunctionInfo::named(frame.clone());
                resolved.functions.push(Arc::new(info));
                resolved.functions.len() as u32 - 1
            })
        });
        per_location.push(indices.collect());
    }
    let stacks = (0..).zip(&profile.stacks).map(|(at, stack)| {
        let frames = stack.iter().flat_map(|&l| per_location[l as usize].iter().copied());
        (at, frames)
    });
    resolved.stacks = stacks.collect();
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved() -> ResolvedStacks {
        let info = |id: u64| FunctionInfo {
            id,
            name: format!("shop::f{id}"),
            module: "shop".to_owned(),
            file: String::new(),
            unresolved: false,
        };
        let stacks = [(7, vec![0u32, 1].into_boxed_slice()), (8, vec![1].into_boxed_slice())];
        ResolvedStacks {
            functions: vec![Arc::new(info(0)), Arc::new(info(1))],
            stacks: stacks.into_iter().collect(),
        }
    }

    #[test]
    fn totals_survive_a_round_trip_even_of_unknown_stacks() {
        let meta = PprofMeta {
            profile_type: ProfileType::cpu(),
            time_ns: 5,
            duration_ns: 6,
            period: 10,
        };
        let rows = [(7, [30, 1]), (8, [12, 2]), (99, [1, 4])];
        let one = read(&write(&meta, &resolved(), &rows, false), 1 << 20).unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].profile.total(), 43);
        assert_eq!(one[0].profile.profile_type, ProfileType::cpu());
        let names = resolve_named(&one[0].profile);
        assert_eq!(
            names.functions.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(),
            ["shop::f0", "shop::f1", "[unknown]"]
        );
        let two = read(&write(&meta, &resolved(), &rows, true), 1 << 20).unwrap();
        assert_eq!(two.iter().map(|v| v.profile.total()).collect::<Vec<_>>(), [43, 7]);
    }

    #[test]
    fn addresses_of_known_builds_stay_native_and_counts_come_from_the_file() {
        let strings = [
            "",
            "samples",
            "count",
            "cpu",
            "nanoseconds",
            "/bin/shop",
            "00ffAA1122334455",
            "endpoint",
            "/a",
        ];
        let kind = |r#type, unit| pb::ValueType { r#type, unit };
        let profile = pb::Profile {
            sample_type: vec![kind(1, 2), kind(3, 4)],
            sample: vec![pb::Sample {
                location_id: vec![7, 7],
                value: vec![3, 30],
                label: vec![pb::Label {
                    key: 7,
                    str: 8,
                    ..pb::Label::default()
                }],
            }],
            mapping: vec![pb::Mapping {
                id: 9,
                memory_start: 0x1000,
                file_offset: 0x200,
                filename: 5,
                build_id: 6,
                ..pb::Mapping::default()
            }],
            location: vec![pb::Location {
                id: 7,
                mapping_id: 9,
                address: 0x1010,
                ..pb::Location::default()
            }],
            string_table: strings.map(str::to_owned).to_vec(),
            ..pb::Profile::default()
        };
        let bytes = profile.encode_to_vec();
        for (addresses, offset) in [(Addresses::InMemory, 0x210), (Addresses::InFile, 0x1010)] {
            let values = read_file(&bytes, 1 << 20, addresses).unwrap().values;
            let cpu = &values[1].profile;
            assert_eq!(cpu.profile_type, ProfileType::cpu());
            assert_eq!(cpu.locations, [Location::Native { mapping: 0, offset }]);
            assert_eq!(cpu.mappings[0].build_id, "00ffaa1122334455");
            assert_eq!((cpu.samples[0].value, cpu.samples[0].count), (30, 3));
            assert_eq!(cpu.label_sets[cpu.samples[0].label_set as usize].route, "/a");
            assert!(cpu.validate().is_ok());
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_unpacked_size() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&vec![0u8; 1 << 20]).unwrap();
        let bomb = gzip.finish().unwrap();
        assert!(bomb.len() < 4096);
        assert!(matches!(read(&bomb, 1000), Err(PprofError::TooLarge { limit: 1000 })));
    }

    #[test]
    fn broken_references_are_named() {
        let mut profile = pb::Profile {
            sample_type: vec![pb::ValueType { r#type: 0, unit: 0 }],
            string_table: vec![String::new()],
            sample: vec![pb::Sample {
                location_id: vec![3],
                value: vec![1],
                label: vec![],
            }],
            ..pb::Profile::default()
        };
        let error = read(&profile.encode_to_vec(), 1 << 20).unwrap_err().to_string();
        assert!(error.contains("location 3 does not exist"), "{error}");
        profile.sample_type[0].unit = -1;
        profile.sample.clear();
        assert!(read(&profile.encode_to_vec(), 1 << 20).is_err());
    }
}
