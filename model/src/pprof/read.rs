//! Reading a pprof file.
//!
//! Guarantees: every index is checked at both ends, and so is the decompressed size; each type of the file becomes a
//! profile whose total is the file's, in the unit that all endpoints store ([`meaning`](crate::formats::meaning)). What
//! is not kept is reported: a type with negative values (a difference) is dropped completely, since its positive half
//! is not a difference; invalid UTF-8 is replaced; stacks truncated by Go are counted. What the file asks to drop
//! (`drop_frames`) is dropped.
//!
//! Wrong on purpose: a type whose values are all 0 is not kept, except CPU and wall time, whose 0 is information, and
//! in a file without any values.

use std::collections::HashMap;

use prost::Message;

use super::{
    PprofError, PprofValue,
    places::{Addresses, Places, Tables},
    prune::Pruning,
};
use crate::{
    formats::meaning::{self, Meaning, clock_of, duration_of},
    otlp::Rejected,
    profile::{Exemplar, Profile, ProfileType, Sample},
    proto::pprof as pb,
    unpack::{UnpackError, unpack},
    weight::{NUMBERS, Shape, TEXT, memory_of, weigh},
    workload::{LabelSet, Side, clean_name},
};

/// Contents of a file.
#[derive(Debug, Clone, Default)]
pub struct PprofFile {
    /// One per type that is kept, in the order of the file.
    pub values: Vec<PprofValue>,
    /// The file's default profile: the one it names, or the last one.
    pub default_value: usize,
    /// What was dropped, in samples.
    pub left_out: Vec<Rejected>,
    /// What was changed.
    pub changed: Vec<Rejected>,
}

/// [`read_file`] for a file whose addresses are those of the process, for callers that need only the values.
///
/// # Errors
/// As [`read_file`].
pub fn read(bytes: &[u8], limit: u64) -> Result<Vec<PprofValue>, PprofError> {
    read_file(bytes, limit, Addresses::InMemory).map(|file| file.values)
}

/// Reads a pprof file of at most `limit` bytes when decompressed (gzip, zstd or neither): one profile per value type.
/// Frames keep the names in the file; unnamed addresses become offsets in their file, so that two processes of one
/// program agree; without a file they become `0x...` frames. Labels that name an endpoint become the route; labels that
/// name a trace or a span also make the sample an exemplar. How often a stack was seen is taken from the value that
/// counts samples, if the file has one.
///
/// # Errors
/// When it is not a pprof file, is too large, or contains dangling references.
pub fn read_file(bytes: &[u8], limit: u64, addresses: Addresses) -> Result<PprofFile, PprofError> {
    let raw = unpacked(bytes, limit)?;
    let most_memory = memory_of(limit);
    weigh(&raw, &FILE, most_memory)?;
    let mut file = PprofFile::default();
    let source = decode(&raw, &mut file.changed)?;
    drop(raw);
    let string = |index: i64| -> Result<&str, PprofError> {
        let found = usize::try_from(index).ok().and_then(|i| source.string_table.get(i));
        found.map(String::as_str).ok_or_else(|| {
            PprofError::Invalid(format!(
                "string {index} of {} does not exist",
                source.string_table.len()
            ))
        })
    };
    let types = Types::of(&source, &string)?;
    let duration_ns = duration_of(source.time_nanos, source.duration_nanos).map_err(PprofError::Invalid)?;
    if duration_ns != source.duration_nanos {
        Rejected::of("duration_is_the_end", "duration_nanos", 1).add_to(&mut file.changed);
    }
    let mut tables = Tables::new(most_memory);
    let pruning = Pruning::of(
        string(source.drop_frames)?,
        string(source.keep_frames)?,
        &mut file.changed,
    );
    let mut places = Places::of(&source, &string, addresses, pruning)?;
    let rows = rows(&source, &string, &mut places, &mut tables)?;
    let cut = cut_by_go(&source, &types, &string)?;
    if cut > 0 {
        Rejected::of("go_stack_depth", "", cut).add_to(&mut file.changed);
    }
    let mut kept = types.kept(&source, &mut file.left_out);
    tables.allowance.copies(kept.len())?;
    let sampled: Vec<ProfileType> = kept.iter().map(|&at| types.meanings[at].profile_type.clone()).collect();
    for &at in &kept {
        let meant = &types.meanings[at];
        let mut profile = Profile::empty_cpu(source.time_nanos, duration_ns);
        profile.profile_type = meant.profile_type.clone();
        profile.period = source.period.saturating_mul(meant.period_factor);
        profile.mappings = tables.mappings.clone();
        profile.locations = tables.locations.clone();
        profile.stacks = tables.stacks.clone();
        profile.label_sets = tables.label_sets.clone();
        let counts = meaning::counts_of(&types.names, at);
        for (sample, row) in source.sample.iter().zip(&rows) {
            let value = sample.value[at].saturating_mul(meant.factor);
            if value > 0 {
                row.add_to(&mut profile, value, counts.map(|counts| sample.value[counts]));
            }
        }
        profile.stats.truncated = cut;
        meaning::samples_as_time([&mut profile], &sampled);
        let [_, kind, unit, ..] = profile.profile_type.parts();
        // A type that keeps the sender's words keeps its name, so that it can be queried by it.
        let known = clock_of(&profile.profile_type).is_some();
        file.values.push(PprofValue {
            name: format!("{}/{unit}", if known { kind } else { types.names[at].0 }),
            profile,
        });
    }
    let wanted = types.default_type(string(source.default_sample_type)?);
    kept.retain(|&at| at <= wanted);
    file.default_value = match kept.last() {
        Some(&last) if last == wanted => kept.len() - 1,
        _ => file.values.len().saturating_sub(1),
    };
    Ok(file)
}

/// Samples in a Go CPU profile whose stacks end at the runtime's limit, which the file does not mention. Source: go1.24
/// `runtime/cpuprof.go`, `maxCPUProfStack`; `findings/go-cpu-profiles-lose-callers-beyond-64-frames.sh`.
fn cut_by_go<'s>(
    source: &'s pb::Profile,
    types: &Types<'_>,
    string: &impl Fn(i64) -> Result<&'s str, PprofError>,
) -> Result<u64, PprofError> {
    const FRAMES: usize = 64;
    if !types.names.contains(&("cpu", "nanoseconds")) {
        return Ok(0);
    }
    let mut is_go = false;
    for function in &source.function {
        is_go |= string(function.filename)?.ends_with(".go");
    }
    if !is_go {
        return Ok(0);
    }
    let lines: HashMap<u64, usize> = source.location.iter().map(|of| (of.id, of.line.len())).collect();
    let frames = |sample: &pb::Sample| -> usize {
        let locations = sample.location_id.iter();
        locations.map(|id| lines.get(id).copied().unwrap_or(0)).sum()
    };
    Ok(source.sample.iter().filter(|sample| frames(sample) == FRAMES).count() as u64)
}

fn unpacked(bytes: &[u8], limit: u64) -> Result<Vec<u8>, PprofError> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    match unpack(bytes, most) {
        Ok(Some(raw)) => Ok(raw),
        Ok(None) if bytes.len() <= most => Ok(bytes.to_vec()),
        Ok(None) | Err(UnpackError::TooLarge { .. }) => Err(PprofError::TooLarge { limit }),
        Err(broken) => Err(PprofError::Packed(broken)),
    }
}

/// Decodes a file, replacing invalid UTF-8 in its strings.
fn decode(raw: &[u8], changed: &mut Vec<Rejected>) -> Result<pb::Profile, PprofError> {
    const STRING_TABLE: u64 = 6;
    match pb::Profile::decode(raw) {
        Ok(source) => Ok(source),
        Err(error) => {
            let (written, replaced) = crate::lossy::repaired(raw, &[STRING_TABLE]).ok_or(error)?;
            Rejected::of("invalid_utf8", "strings of the file", replaced).add_to(changed);
            Ok(pb::Profile::decode(written.as_slice())?)
        }
    }
}

/// The value types of a file, in the sender's terms and in ours.
struct Types<'s> {
    names: Vec<(&'s str, &'s str)>,
    meanings: Vec<Meaning>,
}

impl<'s> Types<'s> {
    fn of(
        source: &'s pb::Profile,
        string: &impl Fn(i64) -> Result<&'s str, PprofError>,
    ) -> Result<Types<'s>, PprofError> {
        if source.sample_type.is_empty() {
            return Err(PprofError::Invalid("it has no sample type".to_owned()));
        }
        if source.sample_type.len() > MAX_SAMPLE_TYPES {
            return Err(PprofError::Invalid(format!(
                "it has {} sample types; the limit is {MAX_SAMPLE_TYPES}",
                source.sample_type.len()
            )));
        }
        let (period_type, period_unit) = match &source.period_type {
            Some(period) => (string(period.r#type)?, string(period.unit)?),
            None => ("", ""),
        };
        let mut types = Types {
            names: Vec::with_capacity(source.sample_type.len()),
            meanings: Vec::with_capacity(source.sample_type.len()),
        };
        for value_type in &source.sample_type {
            let (kind, unit) = (string(value_type.r#type)?, string(value_type.unit)?);
            types.names.push((kind, unit));
            types
                .meanings
                .push(meaning::meaning(kind, unit, period_type, period_unit));
        }
        Ok(types)
    }

    /// The types that become profiles; reports which were dropped.
    fn kept(&self, source: &pb::Profile, left_out: &mut Vec<Rejected>) -> Vec<usize> {
        let values = |at: usize| source.sample.iter().map(move |sample| sample.value[at]);
        let any_value = (0..self.names.len()).any(|at| values(at).any(|value| value != 0));
        let mut kept = Vec::with_capacity(self.names.len());
        for (at, meant) in self.meanings.iter().enumerate() {
            if values(at).any(|value| value < 0) {
                let samples = values(at).filter(|&value| value != 0).count() as u64;
                Rejected::of("negative_value", &meant.profile_type.0, samples).add_to(left_out);
            } else if !any_value || clock_of(&meant.profile_type).is_some() || values(at).any(|value| value != 0) {
                kept.push(at);
            }
        }
        kept
    }

    /// By convention the last one, if the file names none.
    fn default_type(&self, named: &str) -> usize {
        let found = self
            .names
            .iter()
            .position(|&(kind, _)| !named.is_empty() && kind == named);
        found.unwrap_or(self.names.len() - 1)
    }
}

/// Stack, labels and request of a sample.
#[derive(Clone, Copy)]
struct Row {
    stack: u32,
    label_set: u32,
    request: Request,
    unix_ns: i64,
}

impl Row {
    fn add_to(self, profile: &mut Profile, value: i64, counted: Option<i64>) {
        let count = counted.and_then(|counted| u64::try_from(counted).ok());
        profile.samples.push(Sample {
            stack: self.stack,
            label_set: self.label_set,
            value,
            count: count.unwrap_or(1).max(1),
        });
        if self.request != Request::default() {
            profile.push_exemplar(Exemplar {
                stack: self.stack,
                label_set: self.label_set,
                value,
                unix_ns: self.unix_ns,
                trace_id: self.request.trace_id,
                span_id: self.request.span_id,
            });
        }
    }
}

fn rows<'s>(
    source: &'s pb::Profile,
    string: &impl Fn(i64) -> Result<&'s str, PprofError>,
    places: &mut Places<'s>,
    tables: &mut Tables,
) -> Result<Vec<Row>, PprofError> {
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
            frames.push(places.location(*id, tables, string)?);
        }
        let mut labels = LabelSet::none();
        let mut request = Request::default();
        for label in &sample.label {
            if label.str != 0 {
                request.read(string(label.key)?, string(label.str)?);
            }
            if ROUTE_LABELS.contains(&string(label.key)?) && label.str != 0 {
                labels.route = clean_name(string(label.str)?);
                // What a profiler calls an endpoint is served by its process.
                labels.side = Some(Side::Server);
            }
        }
        rows.push(Row {
            stack: tables.stack(places.pruned(frames))?,
            label_set: tables.label_set(labels),
            request,
            unix_ns: source.time_nanos,
        });
    }
    Ok(rows)
}

/// The most sample types of one file: each becomes a profile of its own, unless it has no values.
const MAX_SAMPLE_TYPES: usize = 64;
/// Labels of samples that name what was served.
const ROUTE_LABELS: [&str; 5] = ["route", "http.route", "endpoint", "trace endpoint", "span_name"];

/// The request that a sample worked for, by its labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Request {
    trace_id: [u8; 16],
    span_id: u64,
}

impl Request {
    /// Uses a label that names a trace or a span in hexadecimal; other lengths identify nothing.
    fn read(&mut self, key: &str, value: &str) {
        let hexadecimal = |digits: usize| value.len() == digits && value.bytes().all(|byte| byte.is_ascii_hexdigit());
        match key {
            "trace_id" if hexadecimal(32) => {
                self.trace_id = u128::from_str_radix(value, 16).unwrap_or_default().to_be_bytes();
            }
            "span_id" if hexadecimal(16) => self.span_id = u64::from_str_radix(value, 16).unwrap_or_default(),
            // The span that began the work here; the span itself is more precise.
            "profile_id" if hexadecimal(16) && self.span_id == 0 => {
                self.span_id = u64::from_str_radix(value, 16).unwrap_or_default();
            }
            _ => {}
        }
    }
}

/// The weight of a file's messages in memory, with what is kept of them.
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
