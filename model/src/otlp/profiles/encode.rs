//! Profiles → OTLP profiles.
//!
//! Guarantees: every table begins with the entry that means "unset", as the format requires; each string and attribute
//! is in its table once; [`super::decode_profiles`] returns the window that was written.

use std::collections::HashMap;

use opentelemetry_proto::tonic::{
    collector::profiles::v1development::ExportProfilesServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    profiles::v1development as otlp,
};

use super::{
    super::{names, resource, scope},
    implied_count,
};
use crate::{
    batch::WorkloadWindow,
    profile::{Frame, Location, Profile},
    workload::LabelSet,
};

/// Interns the contents of the dictionary tables; entry 0 of each is "unset".
struct Tables {
    dictionary: otlp::ProfilesDictionary,
    strings: HashMap<String, i32>,
    attributes: HashMap<(i32, String), i32>,
}

impl Tables {
    fn new() -> Tables {
        Tables {
            dictionary: otlp::ProfilesDictionary {
                mapping_table: vec![otlp::Mapping::default()],
                location_table: vec![otlp::Location::default()],
                function_table: vec![otlp::Function::default()],
                link_table: vec![otlp::Link::default()],
                string_table: vec![String::new()],
                attribute_table: vec![otlp::KeyValueAndUnit::default()],
                stack_table: vec![otlp::Stack::default()],
            },
            strings: HashMap::from([(String::new(), 0)]),
            attributes: HashMap::new(),
        }
    }

    fn string(&mut self, text: &str) -> i32 {
        if let Some(&index) = self.strings.get(text) {
            return index;
        }
        let index = self.dictionary.string_table.len() as i32;
        self.dictionary.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), index);
        index
    }

    fn attribute(&mut self, key: &str, value: Value) -> i32 {
        let key_strindex = self.string(key);
        let seen = (key_strindex, format!("{value:?}"));
        if let Some(&index) = self.attributes.get(&seen) {
            return index;
        }
        let index = self.dictionary.attribute_table.len() as i32;
        self.dictionary.attribute_table.push(otlp::KeyValueAndUnit {
            key_strindex,
            value: Some(AnyValue { value: Some(value) }),
            unit_strindex: 0,
        });
        self.attributes.insert(seen, index);
        index
    }

    fn text_attribute(&mut self, key: &str, value: &str) -> i32 {
        self.attribute(key, Value::StringValue(value.to_owned()))
    }
}

/// Encodes the profiles of one window, even if it has no samples.
pub fn encode_profiles(window: &WorkloadWindow) -> ExportProfilesServiceRequest {
    let mut tables = Tables::new();
    let profiles = window.profiles.iter().map(|p| encode_profile(p, &mut tables)).collect();
    ExportProfilesServiceRequest {
        resource_profiles: vec![otlp::ResourceProfiles {
            resource: Some(resource(&window.workload, window.component)),
            scope_profiles: vec![otlp::ScopeProfiles {
                scope: Some(scope()),
                profiles,
                ..otlp::ScopeProfiles::default()
            }],
            ..otlp::ResourceProfiles::default()
        }],
        dictionary: Some(tables.dictionary),
    }
}

fn encode_profile(profile: &Profile, tables: &mut Tables) -> otlp::Profile {
    let mapping_base = tables.dictionary.mapping_table.len() as i32;
    for mapping in &profile.mappings {
        let filename_strindex = tables.string(&mapping.path);
        let attribute_indices = match mapping.build_id.as_str() {
            "" => Vec::new(),
            build_id => vec![tables.text_attribute(names::BUILD_ID, build_id)],
        };
        // Start and file offset 0: addresses below are already file offsets.
        tables.dictionary.mapping_table.push(otlp::Mapping {
            filename_strindex,
            attribute_indices,
            ..otlp::Mapping::default()
        });
    }
    let location_base = tables.dictionary.location_table.len() as i32;
    for location in &profile.locations {
        let encoded = match location {
            Location::Native { mapping, offset } => otlp::Location {
                mapping_index: mapping_base + *mapping as i32,
                address: *offset,
                ..otlp::Location::default()
            },
            Location::Named { frames } => otlp::Location {
                lines: frames.iter().map(|f| encode_frame(f, tables)).collect(),
                ..otlp::Location::default()
            },
        };
        tables.dictionary.location_table.push(encoded);
    }
    let stack_base = tables.dictionary.stack_table.len() as i32;
    for stack in &profile.stacks {
        let location_indices = stack.iter().map(|&l| location_base + l as i32).collect();
        tables.dictionary.stack_table.push(otlp::Stack { location_indices });
    }
    let label_sets: Vec<Vec<i32>> = profile.label_sets.iter().map(|l| encode_labels(l, tables)).collect();
    let mut samples = Vec::with_capacity(profile.samples.len());
    for sample in &profile.samples {
        let mut attribute_indices = label_sets[sample.label_set as usize].clone();
        if sample.count != implied_count(sample.value, profile.period) {
            let count = Value::IntValue(i64::try_from(sample.count).unwrap_or(i64::MAX));
            attribute_indices.push(tables.attribute(names::SAMPLE_COUNT, count));
        }
        samples.push(otlp::Sample {
            stack_index: stack_base + sample.stack as i32,
            attribute_indices,
            values: vec![sample.value],
            ..otlp::Sample::default()
        });
    }
    let stats = &profile.stats;
    let mut attribute_indices = vec![tables.attribute(names::RATE_HZ, Value::DoubleValue(stats.rate_hz))];
    for (key, number) in [
        (names::DROPPED, stats.dropped),
        (names::TRUNCATED, stats.truncated),
        (names::CPU_NS, stats.cpu_ns),
        (names::OVERHEAD_NS, stats.overhead_ns),
    ] {
        attribute_indices.push(tables.attribute(key, Value::IntValue(i64::try_from(number).unwrap_or(i64::MAX))));
    }
    let [_, sample_type, unit, period_type, period_unit] = profile.profile_type.parts();
    let mut value_type = |kind: &str, unit: &str| otlp::ValueType {
        type_strindex: tables.string(kind),
        unit_strindex: tables.string(unit),
    };
    otlp::Profile {
        sample_type: Some(value_type(sample_type, unit)),
        samples,
        time_unix_nano: u64::try_from(profile.start_unix_ns).unwrap_or(0),
        duration_nano: u64::try_from(profile.duration_ns).unwrap_or(0),
        period_type: Some(value_type(period_type, period_unit)),
        period: profile.period,
        attribute_indices,
        ..otlp::Profile::default()
    }
}

fn encode_frame(frame: &Frame, tables: &mut Tables) -> otlp::Line {
    let function = otlp::Function {
        name_strindex: tables.string(&frame.function),
        filename_strindex: tables.string(&frame.file),
        ..otlp::Function::default()
    };
    let table = &mut tables.dictionary.function_table;
    table.push(function);
    otlp::Line {
        function_index: (table.len() - 1) as i32,
        line: i64::from(frame.line),
        column: 0,
    }
}

fn encode_labels(labels: &LabelSet, tables: &mut Tables) -> Vec<i32> {
    let mut indices = Vec::new();
    if let Some(side) = labels.side {
        indices.push(tables.text_attribute(names::SIDE, side.as_str()));
    }
    if !labels.route.is_empty() {
        indices.push(tables.text_attribute(names::ROUTE, &labels.route));
    }
    if let Some(peer) = &labels.peer {
        indices.push(tables.text_attribute(names::PEER_NAMESPACE, &peer.namespace));
        indices.push(tables.text_attribute(names::PEER_SERVICE, &peer.service));
        indices.push(tables.text_attribute(names::PEER_VERSION, &peer.version));
    }
    indices
}
