//! Chrome traces: the CPU profiles in them, recorded with the category `disabled-by-default-v8.cpu_profiler`.
//!
//! Guarantees: chunks of one profile are matched by process and id (every process counts its ids from 1); the time of a
//! sample extends to the next one, as in [`super::v8_cpu`].
//!
//! Wrong on purpose: the last sample of a profile that does not say when it ended has no time. Events other than
//! samples (begin and end of work) are ignored.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    read_error::{Outcome, ReadError, in_json},
    table::How,
    v8_cpu::{self, NodeSource, Tree},
};

#[derive(Deserialize)]
struct File {
    #[serde(rename = "traceEvents")]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    name: String,
    #[serde(default)]
    ph: String,
    #[serde(default)]
    pid: f64,
    #[serde(default)]
    id: Id,
    #[serde(default)]
    args: Option<Args>,
}

/// Ids are text or numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(u64),
    #[default]
    None,
}

#[derive(Default, Deserialize)]
struct Args {
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Default, Deserialize)]
struct Data {
    #[serde(default, rename = "startTime")]
    start: Option<f64>,
    #[serde(default, rename = "endTime")]
    end: Option<f64>,
    #[serde(default, rename = "timeDeltas")]
    deltas: Vec<f64>,
    #[serde(default, rename = "cpuProfile")]
    profile: Option<Piece>,
}

#[derive(Default, Deserialize)]
struct Piece {
    #[serde(default)]
    nodes: Vec<NodeSource>,
    #[serde(default)]
    samples: Vec<u64>,
    #[serde(default, rename = "endTime")]
    end: Option<f64>,
}

/// A partially read profile.
#[derive(Default)]
struct Open {
    tree: Tree,
    start: Option<f64>,
    time: f64,
    end: Option<f64>,
    hits: Vec<(f64, u64)>,
}

/// The events of an object or of a plain list, whose closing bracket may be missing (if the program was killed).
fn events(json: &[u8]) -> Result<Vec<Event>, serde_json::Error> {
    let json = json.trim_ascii();
    if !json.starts_with(b"[") {
        return serde_json::from_slice::<File>(json).map(|file| file.events);
    }
    if json.ends_with(b"]") {
        return serde_json::from_slice(json);
    }
    let closed = [json.strip_suffix(b",").unwrap_or(json), b"]"].concat();
    serde_json::from_slice(&closed)
}

/// The name of the list of events.
pub(super) const EVENTS: &str = "traceEvents";

/// Reads the profiles of a trace.
pub(super) fn read(json: &[u8], how: &How<'_>) -> Result<Outcome, ReadError> {
    let events = events(json).map_err(|error| ReadError::Content(in_json(&error)))?;
    let all = events.len();
    let mut open: BTreeMap<(i64, Id), Open> = BTreeMap::new();
    for event in events {
        if event.ph != "P" || !matches!(event.name.as_str(), "Profile" | "ProfileChunk") {
            continue;
        }
        let data = event.args.and_then(|args| args.data).unwrap_or_default();
        let profile = open.entry((event.pid as i64, event.id)).or_default();
        if let Some(start) = data.start {
            (profile.start, profile.time) = (Some(start), start);
        }
        let piece = data.profile.unwrap_or_default();
        if piece.samples.len() != data.deltas.len() {
            return Err(ReadError::Content(format!(
                "a chunk has {} samples but {} timeDeltas",
                piece.samples.len(),
                data.deltas.len()
            )));
        }
        profile.tree.add(piece.nodes)?;
        for (&node, delta) in piece.samples.iter().zip(&data.deltas) {
            profile.time += delta;
            profile.hits.push((profile.time, node));
        }
        profile.end = data.end.or(piece.end).or(profile.end);
    }
    if open.values().all(|profile| profile.hits.is_empty()) {
        return Err(ReadError::Content(format!(
            "the trace has {all} events but no samples: record it with the category `disabled-by-default-v8.cpu_profiler`"
        )));
    }
    let mut table = v8_cpu::table(how);
    let mut length_us = 0.0f64;
    for profile in open.into_values() {
        let last = profile.hits.iter().map(|(time, _)| *time).fold(f64::MIN, f64::max);
        let end = profile.end.unwrap_or(last).max(last);
        let Some(&(first, _)) = profile.hits.first() else {
            continue;
        };
        length_us = length_us.max(end - profile.start.unwrap_or(first));
        v8_cpu::add(&mut table, how, profile.tree, profile.hits, end)?;
    }
    table.finish(0, (length_us * 1e3) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOW: How<'static> = How {
        kind: None,
        rate_hz: None,
        memory: 1 << 20,
    };

    /// As Chromium 156 writes it, with names changed: two processes, one id, a profile without a chunk.
    fn trace() -> String {
        let chunk = |pid: u32, nodes: &str, samples: &str, deltas: &str, more: &str| {
            format!(
                r#"{{"ph":"P","name":"ProfileChunk","pid":{pid},"id":"0x1","tid":3,"ts":9,"args":{{"data":{{"cpuProfile":{{"nodes":{nodes},"samples":{samples}}},"timeDeltas":{deltas}{more}}}}}}}"#
            )
        };
        let profile = |pid: u32| {
            format!(r#"{{"ph":"P","name":"Profile","pid":{pid},"id":"0x1","args":{{"data":{{"startTime":1000}}}}}}"#)
        };
        let node = |id: u32, parent: &str, name: &str| {
            format!(
                r#"{{"id":{id},{parent}"callFrame":{{"functionName":"{name}","scriptId":1,"url":"a.js","lineNumber":4,"columnNumber":0}}}}"#
            )
        };
        let first = format!("[{},{}]", node(1, "", "(root)"), node(2, r#""parent":1,"#, "price"));
        let second = format!("[{}]", node(3, r#""parent":2,"#, "(idle)"));
        let events = [
            profile(1),
            profile(2),
            profile(7),
            chunk(1, &first, "[2,2]", "[10,100]", ""),
            chunk(2, &first, "[2]", "[5]", r#","endTime":1205"#),
            chunk(1, &second, "[3]", "[50]", ""),
            chunk(1, "[]", "[2]", "[25]", ""),
            r#"{"ph":"X","name":"task","pid":1,"ts":1,"dur":5,"args":{"data":{"frame":"x"}}}"#.to_owned(),
        ];
        format!(r#"{{"metadata":{{}},"traceEvents":[{}]}}"#, events.join(","))
    }

    #[test]
    fn pieces_belong_together_by_process_and_id() {
        let read = read(trace().as_bytes(), &HOW).unwrap().profiles;
        // Process 1: 100 + 50 of `price`, 25 idle, the last 0; process 2: from 1005 to 1205.
        let totals: Vec<(&str, i64)> = read
            .iter()
            .map(|profile| (profile.profile_type.parts()[0], profile.total()))
            .collect();
        assert_eq!(totals, [("wall", 375_000), ("process_cpu", 350_000)]);
        let listed = format!("[{}", trace().split_once('[').unwrap().1.trim_end_matches("]}"));
        let cut = super::read(listed.as_bytes(), &HOW).unwrap().profiles;
        assert_eq!(cut[0].total(), 375_000, "a list without its end");
    }

    #[test]
    fn a_trace_without_samples_says_how_to_record_them() {
        let error = read(br#"{"traceEvents":[{"ph":"X","name":"a","dur":5}]}"#, &HOW).unwrap_err();
        assert!(error.to_string().contains("cpu_profiler"), "{error}");
    }
}
