//! pprof ⇄ model, gzip included. Guarantees: the total of what is written equals the total of what was given;
//! reading checks every index at both ends and the decompressed size; ids of foreign files need not be in
//! sequence.
//!
//! Source: the pprof format, github.com/google/pprof `proto/profile.proto`.

use std::{
    collections::HashMap,
    io::{Read, Write},
};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use prost::Message;

use crate::{
    foreign, function,
    profile::{Exemplar, Frame, Location, Mapping, Profile, ProfileType, Sample},
    proto::pprof as pb,
    resolve::ResolvedStacks,
    weight::{Allowance, NUMBERS, Shape, TEXT, TooHeavy, memory_of, weigh},
    workload::{LabelSet, Side, clean_name},
};

/// A file that is not a pprof profile, or too large a one.
#[derive(Debug, thiserror::Error)]
pub enum PprofError {
    /// Not gzip, or cut off.
    #[error("not a readable pprof file: {0}")]
    Gzip(#[from] std::io::Error),
    /// Not the protobuf of a profile.
    #[error("not a pprof file: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Larger than the limit.
    #[error("more than {limit} bytes when unpacked; give a larger limit if the file is trusted")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// It unfolds to too much.
    #[error("{0}")]
    TooHeavy(#[from] TooHeavy),
    /// A reference that points nowhere.
    #[error("not a valid pprof file: {0}")]
    Invalid(String),
}

/// One value type of a pprof file, as a profile with named frames.
#[derive(Debug, Clone)]
pub struct PprofValue {
    /// `type/unit` of the value.
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
    /// Distance of two samples; 0 when unknown.
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
    // A row whose stack is not in the dictionary keeps its value, under a function that says so.
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

/// Reads a pprof file, gzipped or not, of at most `limit` bytes unpacked: one profile per value type. Frames keep
/// the names the file gives; addresses without a name stay native locations where the build is known by its id, and
/// become `0x...` frames otherwise. Labels that name an endpoint become the route, those that name a
/// trace or a span make the sample an exemplar too. How often a stack was seen is taken
/// from the value that counts samples, where the file has one.
pub fn read(bytes: &[u8], limit: u64) -> Result<Vec<PprofValue>, PprofError> {
    read_addresses(bytes, limit, Addresses::InMemory)
}

/// What the addresses of locations are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Addresses {
    /// Where the process had its code; the mapping says where the file begins.
    #[default]
    InMemory,
    /// Offsets in the file already.
    InFile,
}

/// [`read`], for senders that say what their addresses are.
pub fn read_addresses(bytes: &[u8], limit: u64, addresses: Addresses) -> Result<Vec<PprofValue>, PprofError> {
    let raw = if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut raw = Vec::new();
        MultiGzDecoder::new(bytes)
            .take(limit.saturating_add(1))
            .read_to_end(&mut raw)?;
        raw
    } else {
        bytes.to_vec()
    };
    if raw.len() as u64 > limit {
        return Err(PprofError::TooLarge { limit });
    }
    let most_memory = memory_of(limit);
    weigh(&raw, &FILE, most_memory)?;
    let source = pb::Profile::decode(raw.as_slice())?;
    drop(raw);
    if source.sample_type.is_empty() {
        return Err(PprofError::Invalid("it names no sample type".to_owned()));
    }
    let string = |index: i64| -> Result<&str, PprofError> {
        let found = usize::try_from(index).ok().and_then(|i| source.string_table.get(i));
        found.map(String::as_str).ok_or_else(|| {
            PprofError::Invalid(format!(
                "string {index} of {} does not exist",
                source.string_table.len()
            ))
        })
    };
    if source.sample_type.len() > MAX_SAMPLE_TYPES {
        return Err(PprofError::Invalid(format!(
            "it has {} sample types; at most {MAX_SAMPLE_TYPES} are read",
            source.sample_type.len()
        )));
    }
    let mut tables = Tables::new(most_memory);
    let mut places = Places::of(&source, &string, addresses)?;
    // Per sample: stack and label set.
    let mut rows = Vec::with_capacity(source.sample.len());
    for sample in &source.sample {
        if sample.value.len() != source.sample_type.len() {
            return Err(PprofError::Invalid(format!(
                "a sample has {} values for {} sample types",
                sample.value.len(),
                source.sample_type.len()
            )));
        }
        let mut frames = Vec::with_capacity(sample.location_id.len());
        for id in &sample.location_id {
            frames.push(places.location(*id, &mut tables, &string)?);
        }
        let mut labels = LabelSet::none();
        let mut request = Request::default();
        for label in &sample.label {
            if label.str != 0 {
                request.read(string(label.key)?, string(label.str)?);
            }
            if ROUTE_LABELS.contains(&string(label.key)?) && label.str != 0 {
                labels.route = clean_name(string(label.str)?);
                // What a profiler calls an endpoint is what its process serves.
                labels.side = Some(Side::Server);
            }
        }
        rows.push((tables.stack(frames)?, tables.label_set(labels), request));
    }
    let (period_type, period_unit) = match &source.period_type {
        Some(period) => (string(period.r#type)?, string(period.unit)?),
        None => ("", ""),
    };
    let mut types = Vec::with_capacity(source.sample_type.len());
    for value_type in &source.sample_type {
        types.push((string(value_type.r#type)?, string(value_type.unit)?));
    }
    let counts = types
        .iter()
        .position(|&(kind, unit)| COUNTS.contains(&kind) && unit == "count");
    tables.allowance.copies(types.len())?;
    let mut values = Vec::new();
    for (at, &(kind, unit)) in types.iter().enumerate() {
        let name = foreign::name_of(kind, period_type);
        let mut profile = Profile::empty_cpu(source.time_nanos, source.duration_nanos);
        // CPU time is CPU time, whatever clock set the samples off.
        profile.profile_type = match (kind, unit) {
            ("cpu", "nanoseconds") => ProfileType::cpu(),
            _ => foreign::type_of(&name, kind, unit, period_type, period_unit),
        };
        profile.period = source.period;
        profile.mappings = tables.mappings.clone();
        profile.locations = tables.locations.clone();
        profile.stacks = tables.stacks.clone();
        profile.label_sets = tables.label_sets.clone();
        for (sample, &(stack, label_set, request)) in source.sample.iter().zip(&rows) {
            let value = sample.value[at];
            if value < 0 {
                return Err(PprofError::Invalid(format!(
                    "a sample has the negative value {value}: compare files instead of differences"
                )));
            }
            if value > 0 {
                let counted = counts.and_then(|counts| u64::try_from(sample.value[counts]).ok());
                profile.samples.push(Sample {
                    stack,
                    label_set,
                    value,
                    count: counted.unwrap_or(1).max(1),
                });
                if request != Request::default() {
                    profile.push_exemplar(Exemplar {
                        stack,
                        label_set,
                        value,
                        unix_ns: source.time_nanos,
                        trace_id: request.trace_id,
                        span_id: request.span_id,
                    });
                }
            }
        }
        values.push(PprofValue {
            name: format!("{kind}/{unit}"),
            profile,
        });
    }
    Ok(values)
}

/// Most sample types of one file: each becomes a profile of its own.
const MAX_SAMPLE_TYPES: usize = 16;
/// Labels of samples that name what was served.
const ROUTE_LABELS: [&str; 5] = ["route", "http.route", "endpoint", "trace endpoint", "span_name"];
/// Sample types that say how often a stack was seen.
const COUNTS: [&str; 3] = ["samples", "sample", "contentions"];

/// Which request a sample worked for, by its labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Request {
    trace_id: [u8; 16],
    span_id: u64,
}

impl Request {
    /// Takes a label in when it names a trace or a span in hexadecimal; what is of another length names nothing.
    fn read(&mut self, key: &str, value: &str) {
        let hexadecimal = |digits: usize| value.len() == digits && value.bytes().all(|byte| byte.is_ascii_hexdigit());
        match key {
            "trace_id" if hexadecimal(32) => {
                self.trace_id = u128::from_str_radix(value, 16).unwrap_or_default().to_be_bytes();
            }
            "span_id" if hexadecimal(16) => self.span_id = u64::from_str_radix(value, 16).unwrap_or_default(),
            // Of the span that began the work here; the span itself says more.
            "profile_id" if hexadecimal(16) && self.span_id == 0 => {
                self.span_id = u64::from_str_radix(value, 16).unwrap_or_default();
            }
            _ => {}
        }
    }
}

/// What the messages of a file weigh in memory, with what is kept of them.
static FILE: Shape = Shape {
    each: 0,
    per_byte: 0,
    fields: &[
        (1, &leaf(64)),
        (
            2,
            &Shape {
                each: 300,
                per_byte: 0,
                fields: &[(1, &NUMBERS), (2, &NUMBERS), (3, &leaf(160))],
            },
        ),
        (3, &leaf(240)),
        (
            4,
            &Shape {
                each: 200,
                per_byte: 0,
                fields: &[(4, &leaf(64))],
            },
        ),
        (5, &leaf(120)),
        (6, &TEXT),
        (13, &NUMBERS),
    ],
};

const fn leaf(each: u64) -> Shape {
    Shape {
        each,
        per_byte: 0,
        fields: &[],
    }
}

/// What the samples of a file mention; equal stacks and label sets once.
struct Tables {
    mappings: Vec<Mapping>,
    locations: Vec<Location>,
    stacks: Vec<Vec<u32>>,
    label_sets: Vec<LabelSet>,
    stack_index: HashMap<Vec<u32>, u32>,
    label_index: HashMap<LabelSet, u32>,
    unknown: Option<u32>,
    allowance: Allowance,
}

/// The locations of a file, of which only those are kept that a sample mentions.
struct Places<'s> {
    locations: HashMap<u64, &'s pb::Location>,
    functions: HashMap<u64, &'s pb::Function>,
    mappings: HashMap<u64, &'s pb::Mapping>,
    addresses: Addresses,
    known_locations: HashMap<u64, u32>,
    known_mappings: HashMap<u64, u32>,
}

impl<'s> Places<'s> {
    /// Checks every reference, also of what no sample mentions.
    fn of(
        source: &'s pb::Profile,
        string: &impl Fn(i64) -> Result<&'s str, PprofError>,
        addresses: Addresses,
    ) -> Result<Places<'s>, PprofError> {
        let places = Places {
            locations: source.location.iter().map(|l| (l.id, l)).collect(),
            functions: source.function.iter().map(|f| (f.id, f)).collect(),
            mappings: source.mapping.iter().map(|m| (m.id, m)).collect(),
            addresses,
            known_locations: HashMap::new(),
            known_mappings: HashMap::new(),
        };
        for line in source.location.iter().flat_map(|location| &location.line) {
            let function = places.function(line.function_id)?;
            string(function.name)?;
            string(function.filename)?;
        }
        for mapping in source
            .location
            .iter()
            .filter_map(|l| places.mappings.get(&l.mapping_id))
        {
            string(mapping.build_id)?;
            string(mapping.filename)?;
        }
        Ok(places)
    }

    fn function(&self, id: u64) -> Result<&'s pb::Function, PprofError> {
        let missing = || PprofError::Invalid(format!("function {id} does not exist"));
        self.functions.get(&id).copied().ok_or_else(missing)
    }

    /// Where the location of an id stands in the tables.
    fn location(
        &mut self,
        id: u64,
        tables: &mut Tables,
        string: &impl Fn(i64) -> Result<&'s str, PprofError>,
    ) -> Result<u32, PprofError> {
        if let Some(&known) = self.known_locations.get(&id) {
            return Ok(known);
        }
        let missing = || PprofError::Invalid(format!("location {id} does not exist"));
        let location = *self.locations.get(&id).ok_or_else(missing)?;
        let mut frames = Vec::with_capacity(location.line.len());
        for line in &location.line {
            let function = self.function(line.function_id)?;
            frames.push(Frame {
                function: function::normalise(&function::clean(string(function.name)?)),
                file: clean_name(string(function.filename)?),
                line: u32::try_from(line.line).unwrap_or(0),
            });
        }
        let mapping = self.mappings.get(&location.mapping_id).copied();
        let build_id = match mapping {
            Some(mapping) => build_id(string(mapping.build_id)?),
            None => String::new(),
        };
        let read = match mapping {
            _ if !frames.is_empty() => Location::Named { frames },
            // A build that may be named later, when its debug information is here.
            Some(mapping) if !build_id.is_empty() => Location::Native {
                mapping: match self.known_mappings.get(&location.mapping_id) {
                    Some(&known) => known,
                    None => {
                        tables.mappings.push(Mapping {
                            build_id,
                            path: clean_name(string(mapping.filename)?),
                        });
                        let known = tables.mappings.len() as u32 - 1;
                        self.known_mappings.insert(location.mapping_id, known);
                        known
                    }
                },
                offset: match self.addresses {
                    Addresses::InFile => location.address,
                    Addresses::InMemory => location
                        .address
                        .wrapping_sub(mapping.memory_start)
                        .wrapping_add(mapping.file_offset),
                },
            },
            mapping => Location::Named {
                frames: vec![Frame {
                    function: format!("{:#x}", location.address),
                    file: match mapping {
                        Some(mapping) => clean_name(string(mapping.filename)?),
                        None => String::new(),
                    },
                    line: 0,
                }],
            },
        };
        if let Location::Named { frames } = &read {
            tables.allowance.location(frames)?;
        }
        tables.locations.push(read);
        let known = tables.locations.len() as u32 - 1;
        self.known_locations.insert(id, known);
        Ok(known)
    }
}

impl Tables {
    fn new(most_memory: u64) -> Tables {
        Tables {
            mappings: Vec::new(),
            locations: Vec::new(),
            stacks: Vec::new(),
            label_sets: Vec::new(),
            stack_index: HashMap::new(),
            label_index: HashMap::new(),
            unknown: None,
            allowance: Allowance::new(most_memory),
        }
    }

    fn stack(&mut self, mut frames: Vec<u32>) -> Result<u32, PprofError> {
        if frames.is_empty() {
            let locations = &mut self.locations;
            frames.push(*self.unknown.get_or_insert_with(|| {
                locations.push(Location::Named {
                    frames: vec![Frame {
                        function: "[unknown]".to_owned(),
                        ..Frame::default()
                    }],
                });
                locations.len() as u32 - 1
            }));
        }
        if let Some(&known) = self.stack_index.get(&frames) {
            return Ok(known);
        }
        self.allowance.stack(frames.len())?;
        self.stacks.push(frames.clone());
        let stack = self.stacks.len() as u32 - 1;
        self.stack_index.insert(frames, stack);
        Ok(stack)
    }

    fn label_set(&mut self, labels: LabelSet) -> u32 {
        let label_sets = &mut self.label_sets;
        *self.label_index.entry(labels).or_insert_with_key(|labels| {
            label_sets.push(labels.clone());
            label_sets.len() as u32 - 1
        })
    }
}

/// A build id as this crate writes it; other things that are put there (Go's own ids, paths) name no file.
fn build_id(text: &str) -> String {
    let hexadecimal = (8..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hexadecimal {
        text.to_ascii_lowercase()
    } else {
        String::new()
    }
}

/// Resolves a profile whose locations are named, without a dictionary: stack ids are positions in it.
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
                resolved.functions.push(crate::resolve::FunctionInfo {
                    id,
                    name: frame.function.clone(),
                    module: String::new(),
                    file: frame.file.clone(),
                    unresolved: frame.function.starts_with("0x"),
                });
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
    use crate::resolve::FunctionInfo;

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
            functions: vec![info(0), info(1)],
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
            let values = read_addresses(&bytes, 1 << 20, addresses).unwrap();
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
