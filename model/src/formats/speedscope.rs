//! speedscope files (JSON): sampled and evented profiles with one table of frames.
//!
//! Guarantees: the total of a sampled profile is the sum of its weights, to half a unit; that of an evented one is the
//! time between the first and the last event during which a frame was open, each interval attributed to the stack that
//! was on top; frames still open at the end of the file end at its `endValue`. References and the nesting of events are
//! checked, and errors say what is wrong. Profiles of one unit are added up, as threads of one process; if their names
//! are not those of threads, that is reported; a comparison exported by this program is refused.
//!
//! Wrong on purpose: the format does not say whether time was on the CPU; the sender's statement counts, then what is
//! known about the program that wrote the file ([`Exporter`]), and otherwise it is taken as CPU time.
//!
//! Source: speedscope's published file format (`speedscope.app/file-format-schema.json`).

use std::collections::HashMap;

use serde::Deserialize;

use super::{MOST_WEIGHT, Units, folded::MAX_DEPTH, fractions::Fractions, meaning, read_error::in_json};
use crate::{
    otlp::Rejected,
    profile::{Profile, ProfileType},
    profile_builder::ProfileBuilder,
};

/// The contents of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Speedscope {
    /// One for each type.
    pub profiles: Vec<Profile>,
    /// Profiles in the file that were added up.
    pub changed: Vec<Rejected>,
}

/// What is known about the program that wrote a file, by its field `exporter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exporter {
    /// Measures wall time, whatever it calls its profiles: pyinstrument, Austin's converter.
    Wall,
    /// Shows memory at its peak: memray.
    MemoryInUse,
    /// This program.
    Own,
    Other,
}

impl Exporter {
    fn of(name: &str) -> Exporter {
        let name = name.to_lowercase();
        match name.split(['@', ' ', '/']).next().unwrap_or_default() {
            "pyinstrument" | "austin" | "austin2speedscope" => Exporter::Wall,
            "memray" => Exporter::MemoryInUse,
            "emberline" => Exporter::Own,
            _ => Exporter::Other,
        }
    }
}

/// How the numbers of a file are interpreted.
struct Numbers<'u> {
    /// The meaning of time and plain counts.
    of_time: &'u Units,
    exporter: Exporter,
    /// Whether one of its profiles counts bytes: then profiles without a unit count objects.
    has_bytes: bool,
}

/// Not a valid speedscope file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpeedscopeError(String);

#[derive(Deserialize)]
struct File {
    shared: Shared,
    profiles: Vec<Source>,
    #[serde(default)]
    exporter: Option<String>,
}

#[derive(Deserialize)]
struct Shared {
    frames: Vec<FrameSource>,
}

#[derive(Deserialize)]
struct FrameSource {
    name: String,
    #[serde(default)]
    file: Option<String>,
    #[serde(default)]
    line: Option<f64>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Source {
    Sampled {
        #[serde(default)]
        name: String,
        unit: String,
        samples: Vec<Vec<u32>>,
        weights: Vec<f64>,
    },
    Evented {
        #[serde(default)]
        name: String,
        unit: String,
        #[serde(default, rename = "endValue")]
        end: Option<f64>,
        events: Vec<Event>,
    },
}

impl Source {
    fn unit(&self) -> &str {
        match self {
            Source::Sampled { unit, .. } | Source::Evented { unit, .. } => unit,
        }
    }

    fn name(&self) -> &str {
        match self {
            Source::Sampled { name, .. } | Source::Evented { name, .. } => name,
        }
    }
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: EventKind,
    frame: u32,
    at: f64,
}

#[derive(Deserialize, PartialEq)]
enum EventKind {
    #[serde(rename = "O")]
    Open,
    #[serde(rename = "C")]
    Close,
}

impl Numbers<'_> {
    /// What the numbers of a unit mean, and the factor to the unit of the type.
    fn meaning(&self, unit: &str) -> Result<(ProfileType, f64), SpeedscopeError> {
        let memory = |objects: &str, unit: &str| Units::plain("memory", objects, unit, "space").profile_type;
        let asked = self.of_time.profile_type.parts()[1];
        let in_use = match asked {
            "inuse_space" | "inuse_objects" => true,
            "alloc_space" | "alloc_objects" => false,
            _ => self.exporter == Exporter::MemoryInUse,
        };
        if let Some(factor) = meaning::time_unit(unit) {
            let profile_type = match (self.of_time.profile_type.unit(), self.exporter) {
                ("nanoseconds", _) => self.of_time.profile_type.clone(),
                // Memory was requested; time is still time.
                (_, Exporter::Wall) => ProfileType(meaning::WALL.to_owned()),
                _ => ProfileType::cpu(),
            };
            return Ok((profile_type, factor as f64));
        }
        if let Some(factor) = meaning::size_unit(unit) {
            let kind = if in_use { "inuse_space" } else { "alloc_space" };
            return Ok((memory(kind, "bytes"), factor as f64));
        }
        match unit {
            "none" if self.has_bytes => {
                let kind = if in_use { "inuse_objects" } else { "alloc_objects" };
                Ok((memory(kind, "count"), 1.0))
            }
            "none" => Ok((self.of_time.profile_type.clone(), self.of_time.factor as f64)),
            other => Err(SpeedscopeError(format!(
                "the unit `{}` is not one of none, nanoseconds, microseconds, milliseconds, seconds, bytes",
                other.chars().take(40).collect::<String>()
            ))),
        }
    }
}

/// Reads a file: one profile per type. `asked` says what time and plain counts mean; without it, the program that wrote
/// the file determines whether it is wall or CPU time, at `rate_hz`.
///
/// # Errors
/// When the file is invalid; the error says why.
pub fn read(json: &[u8], asked: Option<&Units>, rate_hz: u32) -> Result<Speedscope, SpeedscopeError> {
    let file: File = serde_json::from_slice(json)
        .map_err(|error| SpeedscopeError(format!("not a speedscope file: {}", in_json(&error))))?;
    let exporter = Exporter::of(file.exporter.as_deref().unwrap_or_default());
    if exporter == Exporter::Own && file.profiles.len() > 1 {
        return Err(SpeedscopeError(
            "this is an exported comparison of two releases, not a profile; export each release separately".to_owned(),
        ));
    }
    let assumed = match exporter {
        Exporter::Wall => Units::wall(rate_hz),
        _ => Units::cpu(rate_hz),
    };
    let numbers = Numbers {
        of_time: asked.unwrap_or(&assumed),
        exporter,
        has_bytes: file
            .profiles
            .iter()
            .any(|source| meaning::size_unit(source.unit()).is_some()),
    };
    let mut types: Vec<TypeRows<'_>> = Vec::new();
    for (number, source) in file.profiles.iter().enumerate() {
        let wrong = |what: String| SpeedscopeError(format!("profile {number}: {what}"));
        let (profile_type, factor) = numbers.meaning(source.unit())?;
        let at = types.iter().position(|known| known.profile_type == profile_type);
        let at = at.unwrap_or_else(|| {
            types.push(TypeRows {
                builder: ProfileBuilder::new(profile_type.clone(), numbers.of_time.period),
                profile_type,
                fractions: Fractions::default(),
                names: Vec::new(),
            });
            types.len() - 1
        });
        types[at].names.push(source.name());
        let of_type = &mut types[at];
        let rows = Rows {
            frames: &file.shared.frames,
            known: HashMap::new(),
            builder: &mut of_type.builder,
            fractions: &mut of_type.fractions,
            factor,
        };
        match source {
            Source::Sampled { samples, weights, .. } => rows.sampled(samples, weights).map_err(wrong)?,
            Source::Evented { events, end, .. } => rows.evented(events, *end).map_err(wrong)?,
        }
    }
    let mut read = Speedscope {
        profiles: Vec::with_capacity(types.len()),
        changed: Vec::new(),
    };
    for mut of_type in types {
        let are_threads = of_type.names.iter().all(|name| name.to_lowercase().contains("thread"));
        if of_type.names.len() > 1 && !are_threads {
            let names = of_type.names.join("`, `");
            let count = of_type.names.len() as u64;
            Rejected::of("profiles_added_up", &format!("`{names}`"), count).add_to(&mut read.changed);
        }
        of_type.fractions.finish(&mut of_type.builder);
        read.profiles.push(of_type.builder.finish());
    }
    Ok(read)
}

/// The sum of the profiles of one type.
struct TypeRows<'f> {
    profile_type: ProfileType,
    builder: ProfileBuilder,
    fractions: Fractions,
    /// Their names in the file.
    names: Vec<&'f str>,
}

struct Rows<'a> {
    frames: &'a [FrameSource],
    /// Locations of frames: cleaning a long name on every reference would cost the product of both.
    known: HashMap<u32, u32>,
    builder: &'a mut ProfileBuilder,
    fractions: &'a mut Fractions,
    factor: f64,
}

impl Rows<'_> {
    fn location(&mut self, index: u32) -> Result<u32, String> {
        if let Some(&known) = self.known.get(&index) {
            return Ok(known);
        }
        let frame = self.frames.get(index as usize);
        let frame = frame.ok_or_else(|| format!("frame {index} of {} does not exist", self.frames.len()))?;
        let line = frame.line.map_or(0, |line| line as u32);
        let location = self
            .builder
            .frame(&frame.name, frame.file.as_deref().unwrap_or_default(), line);
        self.known.insert(index, location);
        Ok(location)
    }

    fn add(&mut self, leaf_first: Vec<u32>, weight: f64) -> Result<(), String> {
        let value = weight * self.factor;
        if !(0.0..=MOST_WEIGHT).contains(&value) {
            return Err(format!("the weight {weight} is negative or out of range"));
        }
        let added = self.fractions.add(self.builder, leaf_first, value, 1);
        added.map_err(|heavy| heavy.to_string())
    }

    fn sampled(mut self, samples: &[Vec<u32>], weights: &[f64]) -> Result<(), String> {
        if samples.len() != weights.len() {
            return Err(format!("{} samples but {} weights", samples.len(), weights.len()));
        }
        for (stack, &weight) in samples.iter().zip(weights) {
            if stack.len() > MAX_DEPTH {
                return Err(format!("a stack has {} frames; the limit is {MAX_DEPTH}", stack.len()));
            }
            // Samples are written from the root.
            let leaf_first = stack.iter().rev().map(|&frame| self.location(frame));
            let leaf_first = leaf_first.collect::<Result<Vec<_>, _>>()?;
            self.add(leaf_first, weight)?;
        }
        Ok(())
    }

    fn evented(mut self, events: &[Event], end: Option<f64>) -> Result<(), String> {
        let mut open: Vec<u32> = Vec::new();
        let mut since = events.first().map_or(0.0, |event| event.at);
        let mut frames_written = 0usize;
        for event in events {
            if event.at < since {
                return Err(format!("an event at {} follows one at {since}", event.at));
            }
            self.stretch(&open, event.at - since, &mut frames_written)?;
            since = event.at;
            match event.kind {
                EventKind::Open if open.len() >= MAX_DEPTH => {
                    return Err(format!("more than {MAX_DEPTH} frames are open at {}", event.at));
                }
                EventKind::Open => open.push(event.frame),
                EventKind::Close if open.last() == Some(&event.frame) => {
                    open.pop();
                }
                EventKind::Close => {
                    return Err(format!(
                        "frame {} closes at {} but is not the innermost",
                        event.frame, event.at
                    ));
                }
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        match end {
            Some(end) if end >= since => self.stretch(&open, end - since, &mut frames_written),
            _ => Err(format!(
                "{} frames are never closed, and there is no `endValue` after the last event to say when they ended",
                open.len()
            )),
        }
    }

    /// Attributes time to the open stack.
    fn stretch(&mut self, open: &[u32], time: f64, frames_written: &mut usize) -> Result<(), String> {
        if time <= 0.0 || open.is_empty() {
            return Ok(());
        }
        *frames_written += open.len();
        if *frames_written > MAX_EVENT_FRAMES {
            return Err(format!("the events expand to more than {MAX_EVENT_FRAMES} frames"));
        }
        let leaf_first = open.iter().rev().map(|&frame| self.location(frame));
        let leaf_first = leaf_first.collect::<Result<Vec<_>, _>>()?;
        self.add(leaf_first, time)
    }
}

/// The most frames in the intervals of all events together: a few events can expand to stacks of any size.
const MAX_EVENT_FRAMES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampled(unit: &str, samples: &str, weights: &str) -> String {
        format!(
            r#"{{"$schema":"x","shared":{{"frames":[{{"name":"main"}},{{"name":"leaf","file":"a.py","line":7}}]}},
            "profiles":[{{"type":"sampled","name":"p","unit":"{unit}","startValue":0,"endValue":9,"samples":{samples},"weights":{weights}}}]}}"#
        )
    }

    #[test]
    fn weights_become_values_in_the_unit_of_the_type() {
        for (unit, weights, total) in [
            ("seconds", "[0.5, 1]", 1_500_000_000),
            ("microseconds", "[2, 1]", 3_000),
            ("none", "[2, 1]", 30_000_000),
            ("bytes", "[2, 1]", 3),
        ] {
            let profiles = read(sampled(unit, "[[0,1],[0]]", weights).as_bytes(), None, 100)
                .unwrap()
                .profiles;
            assert_eq!(profiles.len(), 1);
            assert_eq!(profiles[0].total(), total, "{unit}");
            assert!(profiles[0].validate().is_ok());
        }
    }

    #[test]
    fn events_become_the_time_of_the_innermost_stack() {
        let json = r#"{"shared":{"frames":[{"name":"a"},{"name":"b"}]},"profiles":[{"type":"evented","name":"p",
            "unit":"nanoseconds","startValue":0,"endValue":9,"events":[{"type":"O","frame":0,"at":1},
            {"type":"O","frame":1,"at":3},{"type":"C","frame":1,"at":8},{"type":"C","frame":0,"at":9}]}]}"#;
        let profiles = read(json.as_bytes(), Some(&Units::wall(100)), 100).unwrap().profiles;
        let rows: Vec<_> = profiles[0].samples.iter().map(|s| (s.stack, s.value)).collect();
        assert_eq!(rows, [(0, 3), (1, 5)]);
        assert_eq!(profiles[0].profile_type.parts()[0], "wall");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, word) in [
            (sampled("seconds", "[[9]]", "[1]"), "frame 9 of 2"),
            (sampled("seconds", "[[0]]", "[1, 2]"), "1 samples but 2 weights"),
            (sampled("seconds", "[[0]]", "[-1]"), "negative"),
            (sampled("parsecs", "[[0]]", "[1]"), "`parsecs`"),
            ("{".to_owned(), "not a speedscope file"),
        ] {
            let error = read(json.as_bytes(), None, 100).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    proptest! {
        #[test]
        fn events_of_any_order_are_refused_or_add_up(events in prop::collection::vec((any::<bool>(), 0u32..3, 0u32..50), 0..20)) {
            let list: Vec<String> = events.iter().map(|(open, frame, at)| format!(r#"{{"type":"{}","frame":{frame},"at":{at}}}"#, if *open { "O" } else { "C" })).collect();
            let json = format!(r#"{{"shared":{{"frames":[{{"name":"a"}},{{"name":"b"}}]}},"profiles":[{{"type":"evented","unit":"nanoseconds","events":[{}]}}]}}"#, list.join(","));
            if let Ok(read) = read(json.as_bytes(), None, 1) {
                prop_assert!(read.profiles[0].total() <= 50);
                prop_assert!(read.profiles[0].validate().is_ok());
            }
        }

        /// As samplers write it: stacks of indices with weights in any unit, whole or fractional.
        #[test]
        fn what_a_sampler_writes_is_read_back(
            names in prop::collection::vec("[a-zA-Z_<>(){}\\[\\];:.,*&$ 0-9]{1,12}", 1..6),
            samples in prop::collection::vec((prop::collection::vec(any::<prop::sample::Index>(), 1..6), 0.0f64..10.0), 1..20),
        ) {
            let frames: Vec<serde_json::Value> = names.iter().map(|name| serde_json::json!({"name": name})).collect();
            let stacks: Vec<Vec<usize>> = samples.iter().map(|(stack, _)| stack.iter().map(|at| at.index(names.len())).collect()).collect();
            let weights: Vec<f64> = samples.iter().map(|(_, weight)| *weight).collect();
            let file = serde_json::json!({"shared": {"frames": frames}, "profiles": [{"type": "sampled", "name": "p",
                "unit": "milliseconds", "startValue": 0, "endValue": 1, "samples": stacks, "weights": weights}]});
            let profile = read(file.to_string().as_bytes(), None, 100).unwrap().profiles.remove(0);
            let sum: f64 = weights.iter().map(|weight| weight * 1e6).sum();
            prop_assert!((profile.total() as f64 - sum).abs() <= 1.0);
            for stack in &stacks {
                let expected: Vec<String> = stack.iter().rev().map(|&at| crate::function::normalise(&names[at])).collect();
                let found = profile.stacks.iter().any(|found| found.iter().map(|&at| match &profile.locations[at as usize] {
                    crate::profile::Location::Named { frames } => frames[0].function.clone(),
                    crate::profile::Location::Native { .. } => String::new(),
                }).eq(expected.iter().cloned()));
                prop_assert!(found, "{:?}", expected);
            }
        }
    }
}
