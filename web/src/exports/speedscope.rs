//! speedscope's file format (`https://www.speedscope.app/file-format-schema.json`): one `sampled` profile per side.
//!
//! Guarantee: the weights of a profile add up to the API's total for that side. Wrong on purpose: readers use doubles,
//! so a single stack of more than 2^53 units loses its last digits there (104 days of CPU).

use emberline_model::tree::FlameTree;
use serde::Serialize;

use super::{UNKNOWN, for_each_stack};
use crate::http::error::ApiError;

#[derive(Serialize)]
struct File<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    name: &'a str,
    exporter: &'static str,
    #[serde(rename = "activeProfileIndex")]
    active: usize,
    shared: Shared<'a>,
    profiles: Vec<Sampled<'a>>,
}

#[derive(Serialize)]
struct Shared<'a> {
    frames: Vec<Frame<'a>>,
}

#[derive(Serialize)]
struct Frame<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    file: &'a str,
}

#[derive(Serialize)]
struct Sampled<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    unit: &'static str,
    #[serde(rename = "startValue")]
    start: i64,
    #[serde(rename = "endValue")]
    end: i64,
    samples: Vec<Vec<u32>>,
    weights: Vec<i64>,
}

/// Writes a tree; `sides` names the sides to write, starting with side 0. The last one is shown first.
pub(crate) fn write(tree: &FlameTree, title: &str, sides: &[&str], unit: &str) -> Result<Vec<u8>, ApiError> {
    let mut frames: Vec<Frame<'_>> = tree
        .functions
        .iter()
        .map(|info| Frame {
            name: &info.name,
            file: if info.file.is_empty() { &info.module } else { &info.file },
        })
        .collect();
    let unknown = frames.len() as u32;
    frames.push(Frame {
        name: UNKNOWN,
        file: "",
    });
    let profiles = sides.iter().enumerate().map(|(side, name)| {
        let (mut samples, mut weights) = (Vec::new(), Vec::new());
        for_each_stack(tree, |path, value| {
            if value[side] != 0 {
                samples.push(if path.is_empty() { vec![unknown] } else { path.to_vec() });
                weights.push(value[side]);
            }
        });
        Sampled {
            kind: "sampled",
            name,
            unit: unit_of(unit),
            start: 0,
            end: tree.total()[side],
            samples,
            weights,
        }
    });
    let profiles: Vec<Sampled<'_>> = profiles.collect();
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        name: title,
        exporter: concat!("emberline@", env!("CARGO_PKG_VERSION")),
        active: profiles.len().saturating_sub(1),
        shared: Shared { frames },
        profiles,
    };
    serde_json::to_vec(&file).map_err(|error| ApiError::internal(format!("cannot encode the profile: {error}")))
}

/// The format's name for a unit; it has none for counts.
fn unit_of(unit: &str) -> &'static str {
    match unit {
        "nanoseconds" => "nanoseconds",
        "microseconds" => "microseconds",
        "milliseconds" => "milliseconds",
        "seconds" => "seconds",
        "bytes" => "bytes",
        _ => "none",
    }
}
