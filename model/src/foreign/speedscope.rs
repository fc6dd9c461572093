//! Files of speedscope (JSON): sampled and evented profiles with one table of frames.
//!
//! Guarantees: the total of a sampled profile is the sum of its weights; of an evented one the time between the first
//! and the last event during which a frame was open, each stretch given to the stack that was on top. References and
//! the nesting of events are checked and what is wrong is named.
//!
//! Wrong on purpose: the format does not say whether time ran on a CPU; it is taken as CPU time unless the sender says
//! `wall`. Fractions of a nanosecond, byte or count are rounded per row.
//!
//! Source: speedscope's published file format (`speedscope.app/file-format-schema.json`).

use std::collections::HashMap;

use serde::Deserialize;

use super::{Units, folded::MAX_DEPTH};
use crate::{
    profile::{Profile, ProfileType},
    profile_builder::ProfileBuilder,
    workload::LabelSet,
};

/// A file that is not speedscope's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpeedscopeError(String);

#[derive(Deserialize)]
struct File {
    shared: Shared,
    profiles: Vec<Source>,
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
        unit: String,
        samples: Vec<Vec<u32>>,
        weights: Vec<f64>,
    },
    Evented {
        unit: String,
        events: Vec<Event>,
    },
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

/// What the numbers of a unit are worth in the unit of the type.
fn units_of(unit: &str, of_time: &Units) -> Result<(ProfileType, f64), SpeedscopeError> {
    let time = |factor| Ok((of_time.profile_type.clone(), factor));
    match unit {
        "nanoseconds" => time(1.0),
        "microseconds" => time(1e3),
        "milliseconds" => time(1e6),
        "seconds" => time(1e9),
        "none" => Ok((of_time.profile_type.clone(), of_time.factor as f64)),
        "bytes" => Ok((
            Units::plain("memory", "alloc_space", "bytes", "space").profile_type,
            1.0,
        )),
        other => Err(SpeedscopeError(format!(
            "the unit `{}` is not one of none, nanoseconds, microseconds, milliseconds, seconds, bytes",
            other.chars().take(40).collect::<String>()
        ))),
    }
}

/// Reads a file: one profile per type. `of_time` says what time and plain counts mean.
pub fn read(json: &[u8], of_time: &Units) -> Result<Vec<Profile>, SpeedscopeError> {
    let file: File =
        serde_json::from_slice(json).map_err(|error| SpeedscopeError(format!("not a speedscope file: {error}")))?;
    let mut builders: Vec<(ProfileType, ProfileBuilder)> = Vec::new();
    for (number, source) in file.profiles.iter().enumerate() {
        let wrong = |what: String| SpeedscopeError(format!("profile {number}: {what}"));
        let unit = match source {
            Source::Sampled { unit, .. } | Source::Evented { unit, .. } => unit,
        };
        let (profile_type, factor) = units_of(unit, of_time)?;
        let at = builders.iter().position(|(known, _)| *known == profile_type);
        let at = at.unwrap_or_else(|| {
            let builder = ProfileBuilder::new(profile_type.clone(), of_time.period);
            builders.push((profile_type, builder));
            builders.len() - 1
        });
        let rows = Rows {
            frames: &file.shared.frames,
            known: HashMap::new(),
            builder: &mut builders[at].1,
            factor,
        };
        match source {
            Source::Sampled { samples, weights, .. } => rows.sampled(samples, weights).map_err(wrong)?,
            Source::Evented { events, .. } => rows.evented(events).map_err(wrong)?,
        }
    }
    Ok(builders.into_iter().map(|(_, builder)| builder.finish()).collect())
}

struct Rows<'a> {
    frames: &'a [FrameSource],
    /// Locations of frames: cleaning a long name for every mention of it would cost the product of both.
    known: HashMap<u32, u32>,
    builder: &'a mut ProfileBuilder,
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

    fn value(&self, weight: f64) -> Result<i64, String> {
        let value = (weight * self.factor).round();
        // The largest float below 2^63.
        if !(0.0..=9_223_372_036_854_774_784.0).contains(&value) {
            return Err(format!("the weight {weight} is negative or out of range"));
        }
        Ok(value as i64)
    }

    fn add(&mut self, leaf_first: Vec<u32>, weight: f64) -> Result<(), String> {
        let value = self.value(weight)?;
        self.builder.add(leaf_first, &LabelSet::none(), value, 1);
        Ok(())
    }

    fn sampled(mut self, samples: &[Vec<u32>], weights: &[f64]) -> Result<(), String> {
        if samples.len() != weights.len() {
            return Err(format!("{} samples and {} weights", samples.len(), weights.len()));
        }
        for (stack, &weight) in samples.iter().zip(weights) {
            if stack.len() > MAX_DEPTH {
                return Err(format!(
                    "a stack of {} frames; at most {MAX_DEPTH} are read",
                    stack.len()
                ));
            }
            // Samples are written from the root on.
            let leaf_first = stack.iter().rev().map(|&frame| self.location(frame));
            let leaf_first = leaf_first.collect::<Result<Vec<_>, _>>()?;
            self.add(leaf_first, weight)?;
        }
        Ok(())
    }

    fn evented(mut self, events: &[Event]) -> Result<(), String> {
        let mut open: Vec<u32> = Vec::new();
        let mut since = events.first().map_or(0.0, |event| event.at);
        let mut frames_written = 0usize;
        for event in events {
            if event.at < since {
                return Err(format!("an event at {} after one at {since}", event.at));
            }
            if event.at > since && !open.is_empty() {
                frames_written += open.len();
                if frames_written > MAX_EVENT_FRAMES {
                    return Err(format!("the events unfold to more than {MAX_EVENT_FRAMES} frames"));
                }
                let leaf_first = open.iter().rev().map(|&frame| self.location(frame));
                let leaf_first = leaf_first.collect::<Result<Vec<_>, _>>()?;
                self.add(leaf_first, event.at - since)?;
            }
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
            Ok(())
        } else {
            Err(format!("{} frames are never closed", open.len()))
        }
    }
}

/// Most frames that the stretches of all events name together: a few events can unfold to stacks of any size.
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
            let profiles = read(sampled(unit, "[[0,1],[0]]", weights).as_bytes(), &Units::cpu(100)).unwrap();
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
        let profiles = read(json.as_bytes(), &Units::wall(100)).unwrap();
        let rows: Vec<_> = profiles[0].samples.iter().map(|s| (s.stack, s.value)).collect();
        assert_eq!(rows, [(0, 3), (1, 5)]);
        assert_eq!(profiles[0].profile_type.parts()[0], "wall");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, word) in [
            (sampled("seconds", "[[9]]", "[1]"), "frame 9 of 2"),
            (sampled("seconds", "[[0]]", "[1, 2]"), "1 samples and 2 weights"),
            (sampled("seconds", "[[0]]", "[-1]"), "negative"),
            (sampled("parsecs", "[[0]]", "[1]"), "`parsecs`"),
            ("{".to_owned(), "not a speedscope file"),
        ] {
            let error = read(json.as_bytes(), &Units::cpu(100)).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    proptest! {
        #[test]
        fn events_of_any_order_are_refused_or_add_up(events in prop::collection::vec((any::<bool>(), 0u32..3, 0u32..50), 0..20)) {
            let list: Vec<String> = events.iter().map(|(open, frame, at)| format!(r#"{{"type":"{}","frame":{frame},"at":{at}}}"#, if *open { "O" } else { "C" })).collect();
            let json = format!(r#"{{"shared":{{"frames":[{{"name":"a"}},{{"name":"b"}}]}},"profiles":[{{"type":"evented","unit":"nanoseconds","events":[{}]}}]}}"#, list.join(","));
            if let Ok(profiles) = read(json.as_bytes(), &Units::cpu(1)) {
                prop_assert!(profiles[0].total() <= 50);
                prop_assert!(profiles[0].validate().is_ok());
            }
        }
    }
}
