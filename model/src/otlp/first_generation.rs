//! OTLP profiles before 1.8, converted to the current layout.
//!
//! Guarantees: the sums per sample type, stack and attributes are the request's; a reference outside its table is
//! refused by name; a request without its tables is refused, never treated as empty. 1.5 has tables in each profile and
//! 1.7 one dictionary for all; both are supported. 1.6 lost its tables in transit and cannot be read.
//!
//! Wrong on purpose: units of attributes, comments and payloads in other formats are dropped. If several samples use a
//! stack, it is listed once per distinct slice of the location list, not per distinct content.

use std::collections::HashMap;

use opentelemetry_proto::tonic::{
    collector::profiles::v1development::ExportProfilesServiceRequest, common::v1::KeyValue,
    profiles::v1development as current, resource::v1::Resource,
};
use prost::Message;

use super::DecodeError;

/// The most sample types of one profile: each becomes a profile of its own.
const MAX_SAMPLE_TYPES: usize = 64;
/// The most frames in all stacks of a request together.
const MAX_FRAMES: usize = 8 << 20;

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_profiles: Vec<ResourceProfiles>,
    #[prost(message, optional, tag = "2")]
    dictionary: Option<Dictionary>,
}

#[derive(Clone, PartialEq, Message)]
struct Dictionary {
    #[prost(message, repeated, tag = "1")]
    mappings: Vec<current::Mapping>,
    #[prost(message, repeated, tag = "2")]
    locations: Vec<Location>,
    #[prost(message, repeated, tag = "3")]
    functions: Vec<current::Function>,
    #[prost(message, repeated, tag = "4")]
    links: Vec<current::Link>,
    #[prost(string, repeated, tag = "5")]
    strings: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceProfiles {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_profiles: Vec<ScopeProfiles>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeProfiles {
    /// Kept as bytes until the version is known.
    #[prost(bytes = "vec", repeated, tag = "2")]
    profiles: Vec<Vec<u8>>,
}

/// A profile in 1.7: its tables are in the dictionary.
#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_types: Vec<current::ValueType>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(int32, repeated, tag = "3")]
    location_indices: Vec<i32>,
    #[prost(int64, tag = "4")]
    time_nanos: i64,
    #[prost(int64, tag = "5")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "6")]
    period_type: Option<current::ValueType>,
    #[prost(int64, tag = "7")]
    period: i64,
    #[prost(int32, repeated, tag = "14")]
    attribute_indices: Vec<i32>,
}

/// A profile in 1.5, with its own tables.
#[derive(Clone, PartialEq, Message)]
struct ProfileWithTables {
    #[prost(message, repeated, tag = "1")]
    sample_types: Vec<current::ValueType>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mappings: Vec<current::Mapping>,
    #[prost(message, repeated, tag = "4")]
    locations: Vec<Location>,
    #[prost(int32, repeated, tag = "5")]
    location_indices: Vec<i32>,
    #[prost(message, repeated, tag = "6")]
    functions: Vec<current::Function>,
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "9")]
    links: Vec<current::Link>,
    #[prost(string, repeated, tag = "10")]
    strings: Vec<String>,
    #[prost(int64, tag = "11")]
    time_nanos: i64,
    #[prost(int64, tag = "12")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "13")]
    period_type: Option<current::ValueType>,
    #[prost(int64, tag = "14")]
    period: i64,
    #[prost(int32, repeated, tag = "22")]
    attribute_indices: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(int32, tag = "1")]
    start: i32,
    #[prost(int32, tag = "2")]
    length: i32,
    #[prost(int64, repeated, tag = "3")]
    values: Vec<i64>,
    #[prost(int32, repeated, tag = "4")]
    attribute_indices: Vec<i32>,
    #[prost(int32, optional, tag = "5")]
    link_index: Option<i32>,
    #[prost(uint64, repeated, tag = "6")]
    timestamps: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    /// 0 is a valid mapping here; only a missing index means none.
    #[prost(int32, optional, tag = "1")]
    mapping_index: Option<i32>,
    #[prost(uint64, tag = "2")]
    address: u64,
    #[prost(message, repeated, tag = "3")]
    lines: Vec<current::Line>,
    #[prost(int32, repeated, tag = "5")]
    attribute_indices: Vec<i32>,
}

/// Reads a request in 1.5 or 1.7.
pub(super) fn read(bytes: &[u8]) -> Result<ExportProfilesServiceRequest, DecodeError> {
    let request = Request::decode(bytes)?;
    let mut tables = Tables::default();
    let shared = match request.dictionary {
        Some(dictionary) => Some(tables.add(dictionary)?),
        None => None,
    };
    let mut resource_profiles = Vec::with_capacity(request.resource_profiles.len());
    for group in request.resource_profiles {
        let mut profiles = Vec::new();
        for bytes in group.scope_profiles.into_iter().flat_map(|scope| scope.profiles) {
            match &shared {
                Some(bases) => tables.profile(Profile::decode(bytes.as_slice())?, *bases, &mut profiles)?,
                None => {
                    // In 1.6 these fields have other types.
                    let decoded = ProfileWithTables::decode(bytes.as_slice()).map_err(|_| DecodeError::NoDictionary)?;
                    let (profile, dictionary) = decoded.split();
                    if dictionary.strings.is_empty() && !profile.samples.is_empty() {
                        return Err(DecodeError::NoDictionary);
                    }
                    let bases = tables.add(dictionary)?;
                    tables.profile(profile, bases, &mut profiles)?;
                }
            }
        }
        resource_profiles.push(current::ResourceProfiles {
            resource: group.resource,
            scope_profiles: vec![current::ScopeProfiles {
                profiles,
                ..current::ScopeProfiles::default()
            }],
            ..current::ResourceProfiles::default()
        });
    }
    Ok(ExportProfilesServiceRequest {
        resource_profiles,
        dictionary: Some(tables.dictionary),
    })
}

impl ProfileWithTables {
    fn split(self) -> (Profile, Dictionary) {
        let profile = Profile {
            sample_types: self.sample_types,
            samples: self.samples,
            location_indices: self.location_indices,
            time_nanos: self.time_nanos,
            duration_nanos: self.duration_nanos,
            period_type: self.period_type,
            period: self.period,
            attribute_indices: self.attribute_indices,
        };
        let dictionary = Dictionary {
            mappings: self.mappings,
            locations: self.locations,
            functions: self.functions,
            links: self.links,
            strings: self.strings,
            attributes: self.attributes,
        };
        (profile, dictionary)
    }
}

/// Where the tables of an old dictionary begin in the new one, and their lengths.
#[derive(Clone, Copy)]
struct Bases {
    strings: Part,
    mappings: Part,
    locations: Part,
    functions: Part,
    attributes: Part,
    links: Part,
}

#[derive(Clone, Copy)]
struct Part {
    name: &'static str,
    base: usize,
    length: usize,
}

impl Part {
    fn of(name: &'static str, base: usize, length: usize) -> Part {
        Part { name, base, length }
    }

    /// Converts an old index to a new one.
    fn at(&self, index: i32) -> Result<i32, DecodeError> {
        // A missing table contains only "unset".
        if index == 0 && self.length == 0 {
            return Ok(0);
        }
        let inside = usize::try_from(index).ok().filter(|&index| index < self.length);
        let moved = inside.and_then(|index| i32::try_from(self.base + index).ok());
        moved.ok_or(DecodeError::Index {
            table: self.name,
            index: i64::from(index),
            len: self.length,
        })
    }

    fn all(&self, indices: &mut [i32]) -> Result<(), DecodeError> {
        for index in indices {
            *index = self.at(*index)?;
        }
        Ok(())
    }
}

/// The current dictionary as it grows; entry 0 of each table is "unset".
struct Tables {
    dictionary: current::ProfilesDictionary,
    named_frames: usize,
}

impl Default for Tables {
    fn default() -> Tables {
        Tables {
            dictionary: current::ProfilesDictionary {
                mapping_table: vec![current::Mapping::default()],
                location_table: vec![current::Location::default()],
                function_table: vec![current::Function::default()],
                link_table: vec![current::Link::default()],
                string_table: vec![String::new()],
                attribute_table: vec![current::KeyValueAndUnit::default()],
                stack_table: vec![current::Stack::default()],
            },
            named_frames: 0,
        }
    }
}

impl Tables {
    fn add(&mut self, old: Dictionary) -> Result<Bases, DecodeError> {
        let new = &mut self.dictionary;
        let bases = Bases {
            strings: Part::of("string", new.string_table.len(), old.strings.len()),
            mappings: Part::of("mapping", new.mapping_table.len(), old.mappings.len()),
            locations: Part::of("location", new.location_table.len(), old.locations.len()),
            functions: Part::of("function", new.function_table.len(), old.functions.len()),
            attributes: Part::of("attribute", new.attribute_table.len(), old.attributes.len()),
            links: Part::of("link", new.link_table.len(), old.links.len()),
        };
        new.string_table.extend(old.strings);
        new.link_table.extend(old.links);
        for attribute in old.attributes {
            // Keys were text within the table.
            new.string_table.push(attribute.key);
            new.attribute_table.push(current::KeyValueAndUnit {
                key_strindex: i32::try_from(new.string_table.len() - 1).unwrap_or(0),
                value: attribute.value,
                unit_strindex: 0,
            });
        }
        for mut mapping in old.mappings {
            mapping.filename_strindex = bases.strings.at(mapping.filename_strindex)?;
            bases.attributes.all(&mut mapping.attribute_indices)?;
            new.mapping_table.push(mapping);
        }
        for mut function in old.functions {
            function.name_strindex = bases.strings.at(function.name_strindex)?;
            function.system_name_strindex = bases.strings.at(function.system_name_strindex)?;
            function.filename_strindex = bases.strings.at(function.filename_strindex)?;
            new.function_table.push(function);
        }
        for mut location in old.locations {
            for line in &mut location.lines {
                line.function_index = bases.functions.at(line.function_index)?;
            }
            bases.attributes.all(&mut location.attribute_indices)?;
            new.location_table.push(current::Location {
                mapping_index: location.mapping_index.map_or(Ok(0), |index| bases.mappings.at(index))?,
                address: location.address,
                lines: location.lines,
                attribute_indices: location.attribute_indices,
            });
        }
        Ok(bases)
    }

    /// One profile per sample type: the current layout has one type each.
    fn profile(&mut self, old: Profile, bases: Bases, into: &mut Vec<current::Profile>) -> Result<(), DecodeError> {
        let value_type = |old: &current::ValueType| {
            Ok::<_, DecodeError>(current::ValueType {
                type_strindex: bases.strings.at(old.type_strindex)?,
                unit_strindex: bases.strings.at(old.unit_strindex)?,
            })
        };
        let mut attribute_indices = old.attribute_indices;
        bases.attributes.all(&mut attribute_indices)?;
        let mut location_indices = old.location_indices;
        bases.locations.all(&mut location_indices)?;
        let types = old.sample_types.len();
        if types > MAX_SAMPLE_TYPES {
            return Err(DecodeError::SampleTypes {
                types,
                limit: MAX_SAMPLE_TYPES,
            });
        }
        let mut profiles = Vec::with_capacity(types);
        for sample_type in &old.sample_types {
            profiles.push(current::Profile {
                sample_type: Some(value_type(sample_type)?),
                time_unix_nano: u64::try_from(old.time_nanos).unwrap_or(0),
                duration_nano: u64::try_from(old.duration_nanos).unwrap_or(0),
                period_type: old.period_type.as_ref().map(value_type).transpose()?,
                period: old.period,
                attribute_indices: attribute_indices.clone(),
                ..current::Profile::default()
            });
        }
        let mut stacks: HashMap<(i32, i32), i32> = HashMap::new();
        for mut sample in old.samples {
            // One value per type, or one per timestamp if there is only one type.
            let per_timestamp = types == 1 && sample.values.len() == sample.timestamps.len();
            if !sample.values.is_empty() && sample.values.len() != types && !per_timestamp {
                return Err(DecodeError::Values {
                    values: sample.values.len(),
                    types,
                });
            }
            bases.attributes.all(&mut sample.attribute_indices)?;
            let link_index = sample.link_index.map_or(Ok(0), |index| bases.links.at(index))?;
            let slice = (sample.start, sample.length);
            let stack_index = match stacks.get(&slice) {
                Some(&stack) => stack,
                None => {
                    let stack = self.stack(&location_indices, slice)?;
                    stacks.insert(slice, stack);
                    stack
                }
            };
            for (at, profile) in profiles.iter_mut().enumerate() {
                let values = match sample.values.get(at) {
                    Some(_) if per_timestamp => sample.values.clone(),
                    Some(&value) => vec![value],
                    None => Vec::new(),
                };
                // A sum over several timestamps cannot be split again.
                let keep_times = values.is_empty() || values.len() == sample.timestamps.len();
                profile.samples.push(current::Sample {
                    stack_index,
                    attribute_indices: sample.attribute_indices.clone(),
                    link_index,
                    values,
                    timestamps_unix_nano: if keep_times {
                        sample.timestamps.clone()
                    } else {
                        Vec::new()
                    },
                });
            }
        }
        into.append(&mut profiles);
        Ok(())
    }

    fn stack(&mut self, location_indices: &[i32], (start, length): (i32, i32)) -> Result<i32, DecodeError> {
        let slice = || {
            let start = usize::try_from(start).ok()?;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            location_indices.get(start..end)
        };
        let locations = slice().ok_or(DecodeError::Index {
            table: "location list",
            index: i64::from(start) + i64::from(length),
            len: location_indices.len(),
        })?;
        // Slices may overlap, so a small request could contain stacks of any size in total.
        self.named_frames += locations.len();
        if self.named_frames > MAX_FRAMES {
            return Err(DecodeError::Frames { limit: MAX_FRAMES });
        }
        let table = &mut self.dictionary.stack_table;
        table.push(current::Stack {
            location_indices: locations.to_vec(),
        });
        Ok(i32::try_from(table.len() - 1).unwrap_or(0))
    }
}
