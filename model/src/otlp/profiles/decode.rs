//! OTLP profiles → profiles.
//!
//! Guarantees: an index is looked up only in its table, and an invalid one refuses the request; what a request expands
//! to is charged to one allowance before it is built; a profile without usable data is dropped and counted, and the
//! others are read.

use std::{borrow::Cow, cell::Cell, collections::HashMap};

use opentelemetry_proto::tonic::{
    collector::profiles::v1development::ExportProfilesServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    profiles::v1development as otlp,
    resource::v1::Resource,
};

use super::{
    super::{
        Decoded, Rejected, names,
        timestamps::{Part, parts_of},
        value_text, workload_of,
    },
    implied_count,
};
use crate::{
    formats::meaning::{self, Meaning, duration_of, samples_as_time},
    function,
    profile::{Exemplar, Frame, Location, Mapping, Profile, ProfileStats, ProfileType, Sample},
    weight::{Allowance, TooHeavy},
    workload::{LabelSet, Release, Side, UNKNOWN, clean_name},
};

/// A request that cannot be read at all; nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not the protobuf of a profiles request.
    #[error("{0}")]
    Protobuf(#[from] prost::DecodeError),
    /// The bytes are not even protobuf fields.
    #[error("not protobuf: {0}")]
    Wire(&'static str),
    /// Fields that belong to different versions.
    #[error("the request mixes OTLP versions (before 1.8, 1.8 to 1.9, from 1.10): send one version per request")]
    MixedLayouts,
    /// There are profiles but no dictionary.
    #[error(
        "the profiles have no dictionary: it was lost in transit, or the sender uses OTLP profiles 1.6, which has none"
    )]
    NoDictionary,
    /// More sample types in one profile than is plausible.
    #[error("a profile has {types} sample types; the limit is {limit}")]
    SampleTypes {
        /// How many there are.
        types: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A sample does not fit its profile's types.
    #[error("a sample has {values} values for {types} sample types")]
    Values {
        /// Values of the sample.
        values: usize,
        /// Types of the profile.
        types: usize,
    },
    /// Overlapping stacks that expand to more than is kept.
    #[error("the request's stacks have more than {limit} frames in total; send fewer samples at once")]
    Frames {
        /// How many there may be.
        limit: usize,
    },
    /// Its expansion needs too much memory.
    #[error("{0}")]
    TooHeavy(#[from] TooHeavy),
    /// An index is outside its table.
    #[error("{table} index {index} is outside its table of {len} entries")]
    Index {
        /// Which table.
        table: &'static str,
        /// The index.
        index: i64,
        /// Entries of the table.
        len: usize,
    },
}

/// Reads the profiles of a request. An invalid table refuses the whole request (the sender is wrong about all of it); a
/// profile without a service is dropped and counted.
pub fn decode_profiles(request: &ExportProfilesServiceRequest) -> Result<Decoded, DecodeError> {
    decode_profiles_within(request, u64::MAX)
}

/// [`decode_profiles`] for a request that may expand to at most `limit` bytes of memory.
pub fn decode_profiles_within(request: &ExportProfilesServiceRequest, limit: u64) -> Result<Decoded, DecodeError> {
    let mut decoded = Decoded::default();
    let any_profile = request
        .resource_profiles
        .iter()
        .any(|r| r.scope_profiles.iter().any(|s| !s.profiles.is_empty()));
    let Some(dictionary) = &request.dictionary else {
        return if any_profile {
            Err(DecodeError::NoDictionary)
        } else {
            Ok(decoded)
        };
    };
    let reader = Reader {
        dictionary,
        allowance: Cell::new(Allowance::new(limit)),
    };
    for group in &request.resource_profiles {
        let profiles = group.scope_profiles.iter().flat_map(|s| &s.profiles);
        let resource = group.resource.as_ref().map(|r| reader.resource(r)).transpose()?;
        let Some((workload, component)) = workload_of(resource.as_ref()) else {
            let samples = profiles.map(|p| p.samples.len() as u64).sum();
            decoded.reject("no_service_name", samples);
            continue;
        };
        let types: Vec<ProfileType> = profiles
            .clone()
            .map(|p| reader.meaning(p).map(|meant| meant.profile_type))
            .collect::<Result<_, _>>()?;
        for (profile, profile_type) in profiles.zip(&types) {
            let samples = profile.samples.len() as u64;
            let start = i64::try_from(profile.time_unix_nano).unwrap_or(i64::MAX);
            let said = i64::try_from(profile.duration_nano).unwrap_or(i64::MAX);
            let Ok(duration) = duration_of(start, said) else {
                decoded.leave_out(Rejected::of("duration_is_a_moment", &profile_type.0, samples.max(1)));
                continue;
            };
            if duration != said {
                decoded.change(Rejected::of("duration_is_the_end", &profile_type.0, 1));
            }
            let (parts, negative) = parts_of(profile, duration);
            if negative > 0 {
                // The positive half of a difference is not a difference.
                decoded.leave_out(Rejected::of("negative_value", &profile_type.0, samples));
                continue;
            }
            for (at, part) in parts.iter().enumerate() {
                let mut model = reader.profile(profile, part)?;
                samples_as_time([&mut model], &types);
                if at > 0 {
                    // Losses are reported once.
                    model.stats = ProfileStats {
                        rate_hz: model.stats.rate_hz,
                        ..ProfileStats::default()
                    };
                }
                let window = decoded.window(&workload, component, part.window_start_s, part.length_s);
                window.has_profiles = true;
                window.profiles.push(model);
            }
        }
    }
    Ok(decoded)
}

struct Reader<'a> {
    dictionary: &'a otlp::ProfilesDictionary,
    /// For all profiles of the request together.
    allowance: Cell<Allowance>,
}

fn at<'t, T>(table: &'t [T], index: i32, name: &'static str) -> Result<&'t T, DecodeError> {
    usize::try_from(index)
        .ok()
        .and_then(|i| table.get(i))
        .ok_or(DecodeError::Index {
            table: name,
            index: i64::from(index),
            len: table.len(),
        })
}

impl Reader<'_> {
    fn charge(&self, what: impl FnOnce(&mut Allowance) -> Result<(), TooHeavy>) -> Result<(), DecodeError> {
        let mut allowance = self.allowance.get();
        what(&mut allowance)?;
        self.allowance.set(allowance);
        Ok(())
    }

    fn string(&self, index: i32) -> Result<&str, DecodeError> {
        // An empty table with index 0 means "unset".
        if index == 0 && self.dictionary.string_table.is_empty() {
            return Ok("");
        }
        at(&self.dictionary.string_table, index, "string").map(String::as_str)
    }

    /// The resource with all references to the string table resolved.
    fn resource(&self, resource: &Resource) -> Result<Resource, DecodeError> {
        let mut attributes = Vec::with_capacity(resource.attributes.len());
        for attribute in &resource.attributes {
            let key = match attribute.key_strindex {
                0 => attribute.key.as_str(),
                index => self.string(index)?,
            };
            let value = attribute.value.as_ref().and_then(|v| v.value.as_ref());
            let value = value.map(|value| self.value(value)).transpose()?;
            attributes.push(KeyValue {
                key: key.to_owned(),
                value: value.map(|value| AnyValue {
                    value: Some(value.into_owned()),
                }),
                ..KeyValue::default()
            });
        }
        Ok(Resource {
            attributes,
            ..Resource::default()
        })
    }

    /// A value, with its reference to the string table resolved.
    fn value<'s>(&'s self, value: &'s Value) -> Result<Cow<'s, Value>, DecodeError> {
        Ok(match value {
            Value::StringValueStrindex(index) => Cow::Owned(Value::StringValue(self.string(*index)?.to_owned())),
            value => Cow::Borrowed(value),
        })
    }

    /// Resolved `(key, value)` pairs of attribute indices.
    fn attributes<'s>(
        &'s self,
        indices: &'s [i32],
    ) -> impl Iterator<Item = Result<(&'s str, Cow<'s, Value>), DecodeError>> {
        indices.iter().filter_map(move |&index| {
            let read = || {
                let attribute = at(&self.dictionary.attribute_table, index, "attribute")?;
                let key = self.string(attribute.key_strindex)?;
                let value = attribute.value.as_ref().and_then(|v| v.value.as_ref());
                value
                    .map(|value| self.value(value).map(|value| (key, value)))
                    .transpose()
            };
            read().transpose()
        })
    }

    fn profile(&self, profile: &otlp::Profile, part: &Part) -> Result<Profile, DecodeError> {
        let mut model = Profile::empty_cpu(part.start_unix_ns, part.duration_ns);
        let meant = self.meaning(profile)?;
        model.period = profile.period.saturating_mul(meant.period_factor);
        model.profile_type = meant.profile_type;
        model.stats = self.stats(&profile.attribute_indices)?;
        let mut stacks: HashMap<i32, u32> = HashMap::new();
        let mut locations: HashMap<i32, u32> = HashMap::new();
        let mut mappings: HashMap<i32, u32> = HashMap::new();
        let mut label_sets: HashMap<Vec<i32>, (u32, Option<u64>)> = HashMap::new();
        let mut known_labels: HashMap<LabelSet, u32> = HashMap::new();
        // Stack and label set of the samples that have a row.
        let mut placed: HashMap<usize, (u32, u32)> = HashMap::new();
        for row in &part.rows {
            let (sample, value) = (&profile.samples[row.sample], row.value.saturating_mul(meant.factor));
            let stack = match stacks.get(&sample.stack_index) {
                Some(&stack) => stack,
                None => {
                    let source = at(&self.dictionary.stack_table, sample.stack_index, "stack")?;
                    self.charge(|allowance| allowance.stack(source.location_indices.len()))?;
                    let mut frames = Vec::with_capacity(source.location_indices.len());
                    for &index in &source.location_indices {
                        let known = locations.get(&index).copied();
                        let location = match known {
                            Some(location) => location,
                            None => {
                                let location = self.location(index, &mut model, &mut mappings)?;
                                locations.insert(index, location);
                                location
                            }
                        };
                        frames.push(location);
                    }
                    if frames.is_empty() {
                        model.locations.push(unknown_location());
                        frames.push(model.locations.len() as u32 - 1);
                    }
                    model.stacks.push(frames);
                    let stack = model.stacks.len() as u32 - 1;
                    stacks.insert(sample.stack_index, stack);
                    stack
                }
            };
            let (label_set, count) = match label_sets.get(&sample.attribute_indices) {
                Some(&known) => known,
                None => {
                    let (labels, count) = self.labels(&sample.attribute_indices)?;
                    let index = *known_labels.entry(labels).or_insert_with_key(|labels| {
                        model.label_sets.push(labels.clone());
                        model.label_sets.len() as u32 - 1
                    });
                    label_sets.insert(sample.attribute_indices.clone(), (index, count));
                    (index, count)
                }
            };
            let count = count.unwrap_or_else(|| match row.instants {
                0 => implied_count(value, model.period),
                instants => instants,
            });
            model.samples.push(Sample {
                stack,
                label_set,
                value,
                count,
            });
            if sample.link_index > 0 {
                placed.insert(row.sample, (stack, label_set));
            }
        }
        for linked in &part.linked {
            let link_index = profile.samples[linked.sample].link_index;
            let link = at(&self.dictionary.link_table, link_index, "link")?;
            let trace_id = <[u8; 16]>::try_from(link.trace_id.as_slice()).unwrap_or_default();
            let span_id = <[u8; 8]>::try_from(link.span_id.as_slice()).map_or(0, u64::from_be_bytes);
            // Zeros, and identifiers of another length, identify nothing.
            if let Some(&(stack, label_set)) = placed.get(&linked.sample)
                && (trace_id != [0; 16] || span_id != 0)
            {
                model.push_exemplar(Exemplar {
                    stack,
                    label_set,
                    value: linked.value.saturating_mul(meant.factor),
                    unix_ns: linked.unix_ns,
                    trace_id,
                    span_id,
                });
            }
        }
        Ok(model)
    }

    fn meaning(&self, profile: &otlp::Profile) -> Result<Meaning, DecodeError> {
        let value_type = |value: Option<&otlp::ValueType>| match value {
            None => Ok::<_, DecodeError>(("", "")),
            Some(v) => Ok((self.string(v.type_strindex)?, self.string(v.unit_strindex)?)),
        };
        let (sample_type, unit) = value_type(profile.sample_type.as_ref())?;
        let (period_type, period_unit) = value_type(profile.period_type.as_ref())?;
        Ok(meaning::meaning(sample_type, unit, period_type, period_unit))
    }

    fn stats(&self, indices: &[i32]) -> Result<ProfileStats, DecodeError> {
        let mut stats = ProfileStats::default();
        for attribute in self.attributes(indices) {
            let (key, value) = attribute?;
            match (key, value.as_ref()) {
                (names::RATE_HZ, Value::DoubleValue(rate)) => stats.rate_hz = *rate,
                (names::DROPPED, Value::IntValue(n)) => stats.dropped = u64::try_from(*n).unwrap_or(0),
                (names::TRUNCATED, Value::IntValue(n)) => stats.truncated = u64::try_from(*n).unwrap_or(0),
                (names::CPU_NS, Value::IntValue(n)) => stats.cpu_ns = u64::try_from(*n).unwrap_or(0),
                (names::OVERHEAD_NS, Value::IntValue(n)) => stats.overhead_ns = u64::try_from(*n).unwrap_or(0),
                _ => {}
            }
        }
        Ok(stats)
    }

    fn labels(&self, indices: &[i32]) -> Result<(LabelSet, Option<u64>), DecodeError> {
        let mut labels = LabelSet::none();
        let mut count = None;
        let mut peer = Release {
            version: UNKNOWN.to_owned(),
            ..Release::default()
        };
        for attribute in self.attributes(indices) {
            let (key, value) = attribute?;
            let text = || value_text(&value).unwrap_or_default();
            match key {
                names::SIDE => {
                    labels.side = match text().as_str() {
                        "client" => Some(Side::Client),
                        "server" => Some(Side::Server),
                        _ => None,
                    };
                }
                names::ROUTE => labels.route = text(),
                names::PEER_SERVICE => peer.service = text(),
                names::PEER_NAMESPACE => peer.namespace = text(),
                names::PEER_VERSION => peer.version = text(),
                names::SAMPLE_COUNT => {
                    if let Value::IntValue(n) = value.as_ref() {
                        count = u64::try_from(*n).ok();
                    }
                }
                _ => {}
            }
        }
        if !peer.service.is_empty() {
            labels.peer = Some(peer);
        }
        Ok((labels, count))
    }

    fn location(&self, index: i32, model: &mut Profile, mappings: &mut HashMap<i32, u32>) -> Result<u32, DecodeError> {
        let source = at(&self.dictionary.location_table, index, "location")?;
        let location = if source.lines.is_empty() {
            let mapping_source = match source.mapping_index {
                0 => None,
                index => Some(at(&self.dictionary.mapping_table, index, "mapping")?),
            };
            match mapping_source {
                None if source.address == 0 => unknown_location(),
                _ => {
                    let mapping = match mappings.get(&source.mapping_index) {
                        Some(&mapping) => mapping,
                        None => {
                            let mapping = self.mapping(mapping_source)?;
                            model.mappings.push(mapping);
                            let index = model.mappings.len() as u32 - 1;
                            mappings.insert(source.mapping_index, index);
                            index
                        }
                    };
                    let (start, file_offset) = mapping_source.map_or((0, 0), |m| (m.memory_start, m.file_offset));
                    let offset = source.address.wrapping_sub(start).wrapping_add(file_offset);
                    Location::Native { mapping, offset }
                }
            }
        } else {
            let mut frames = Vec::with_capacity(source.lines.len());
            for line in &source.lines {
                let function = at(&self.dictionary.function_table, line.function_index, "function")?;
                // Some writers have only the linker's name.
                let name = match self.string(function.name_strindex)? {
                    "" => self.string(function.system_name_strindex)?,
                    name => name,
                };
                frames.push(function::frame(
                    name,
                    self.string(function.filename_strindex)?,
                    u32::try_from(line.line).unwrap_or(0),
                ));
            }
            self.charge(|allowance| allowance.location(&frames))?;
            Location::Named { frames }
        };
        model.locations.push(location);
        Ok(model.locations.len() as u32 - 1)
    }

    fn mapping(&self, source: Option<&otlp::Mapping>) -> Result<Mapping, DecodeError> {
        let Some(source) = source else {
            return Ok(Mapping::default());
        };
        let mut mapping = Mapping {
            path: clean_name(self.string(source.filename_strindex)?),
            build_id: String::new(),
        };
        for attribute in self.attributes(&source.attribute_indices) {
            let (key, value) = attribute?;
            if let (names::BUILD_ID, Value::StringValue(id)) = (key, value.as_ref())
                && id.len() <= 128
                && id.bytes().all(|b| b.is_ascii_hexdigit())
            {
                mapping.build_id = id.to_ascii_lowercase();
            }
        }
        Ok(mapping)
    }
}

fn unknown_location() -> Location {
    Location::Named {
        frames: vec![Frame {
            function: "[unknown]".to_owned(),
            ..Frame::default()
        }],
    }
}
