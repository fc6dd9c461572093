//! V8's `.cpuprofile` (Node's `--cpu-prof`, inspectors, Chrome's older developer tools).
//!
//! Guarantees: a sample stands for the time until the next one, the last for the time until `endTime`, so that the
//! total is the time since the first sample. Time becomes wall time; without what V8 calls `(idle)` it is close to the
//! thread's CPU time, which is reported as well. Samples out of order are sorted first.
//!
//! Wrong on purpose: `hitCount` is not read (it leaves out the first sample); a function is known by the line of its
//! definition, not by the lines that were hit; V8's clock begins anywhere, so only lengths of time are taken.
//!
//! Bun writes the same format with the samples of JavaScriptCore, which takes none while nothing runs: its last sample before a pause
//! would stand for the pause. Its clock is that of the calendar, which V8's never is, so such a file is known by its
//! `startTime`; what is far longer than its samples are apart is idle ([`without_pauses`]).

use std::collections::HashMap;

use serde::Deserialize;

use super::{
    call_tree::{Node, Rows},
    read_error::{Outcome, ReadError, in_json},
    table::{Column, How, Table, wall},
};
use crate::profile::ProfileType;

#[derive(Deserialize)]
struct File {
    nodes: Vec<NodeSource>,
    #[serde(rename = "startTime")]
    start: f64,
    #[serde(rename = "endTime")]
    end: f64,
    #[serde(default)]
    samples: Vec<u64>,
    #[serde(default, rename = "timeDeltas")]
    deltas: Vec<f64>,
}

/// A node as written in files and traces.
#[derive(Debug, Deserialize)]
pub(super) struct NodeSource {
    pub(super) id: u64,
    #[serde(rename = "callFrame")]
    call_frame: CallFrame,
    /// In traces.
    #[serde(default)]
    parent: Option<u64>,
    /// In files.
    #[serde(default)]
    children: Vec<u64>,
}

#[derive(Debug, Deserialize)]
struct CallFrame {
    #[serde(default, rename = "functionName")]
    name: String,
    #[serde(default)]
    url: String,
    #[serde(default = "unknown_line", rename = "lineNumber")]
    line: f64,
}

fn unknown_line() -> f64 {
    -1.0
}

/// The nodes of one profile, which may arrive in several pieces.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    by_id: HashMap<u64, usize>,
    parents: Vec<(usize, u64)>,
    children: Vec<(u64, usize)>,
}

impl Tree {
    /// Adds more nodes.
    pub(super) fn add(&mut self, nodes: Vec<NodeSource>) -> Result<(), ReadError> {
        for node in nodes {
            let at = self.nodes.len();
            if self.by_id.insert(node.id, at).is_some() {
                return Err(ReadError::Content(format!("node {} is defined twice", node.id)));
            }
            self.parents.extend(node.parent.map(|parent| (at, parent)));
            self.children.extend(node.children.iter().map(|&child| (child, at)));
            self.nodes.push(Node {
                parent: None,
                name: node.call_frame.name,
                file: node.call_frame.url,
                line: node.call_frame.line as i64,
            });
        }
        Ok(())
    }

    /// A node of its own for idle time.
    fn add_idle(&mut self) -> Result<u64, ReadError> {
        let id = self.by_id.keys().max().map_or(1, |id| id.saturating_add(1));
        let call_frame = CallFrame {
            name: IDLE.to_owned(),
            url: String::new(),
            line: unknown_line(),
        };
        let node = NodeSource {
            id,
            call_frame,
            parent: None,
            children: Vec::new(),
        };
        self.add(vec![node])?;
        Ok(id)
    }

    /// Ties the nodes together, when all are there.
    fn tie(&mut self) -> Result<(), ReadError> {
        let missing = |id: u64| ReadError::Content(format!("node {id} does not exist"));
        for (at, parent) in std::mem::take(&mut self.parents) {
            let parent = *self.by_id.get(&parent).ok_or_else(|| missing(parent))?;
            self.nodes[at].parent = Some(parent);
        }
        for (child, parent) in std::mem::take(&mut self.children) {
            let child = *self.by_id.get(&child).ok_or_else(|| missing(child))?;
            self.nodes[child].parent = Some(parent);
        }
        Ok(())
    }
}

/// The table for V8 samples.
pub(super) fn table(how: &How<'_>) -> Table {
    Table::new(
        vec![Column::new(wall(), 0), Column::new(ProfileType::cpu(), 0)],
        how.memory,
    )
}

/// Adds one profile: the nodes hit, and when, in microseconds.
pub(super) fn add(
    table: &mut Table,
    how: &How<'_>,
    mut tree: Tree,
    mut hits: Vec<(f64, u64)>,
    end_us: f64,
) -> Result<(), ReadError> {
    tree.tie()?;
    if hits.iter().any(|(time, _)| !time.is_finite()) || !end_us.is_finite() {
        return Err(ReadError::Content("a time is not a number".to_owned()));
    }
    if !hits.is_sorted_by(|a, b| a.0 <= b.0) {
        hits.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    let mut sums: HashMap<usize, (f64, u64)> = HashMap::new();
    for (at, &(time, id)) in hits.iter().enumerate() {
        let next = hits.get(at + 1).map_or(end_us, |next| next.0);
        let node = *tree
            .by_id
            .get(&id)
            .ok_or_else(|| ReadError::Content(format!("sample {at} refers to node {id}, which does not exist")))?;
        let sum = sums.entry(node).or_default();
        sum.0 += (next - time).max(0.0);
        sum.1 += 1;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_unstable_by_key(|(node, _)| *node);
    let mut rows = Rows::new(&tree.nodes);
    for (node, (us, samples)) in sums {
        let row = rows.row(node, table)?;
        let ns = (us * 1e3).round() as i64;
        if how.wants_wall() {
            table.add(row, 0, ns, samples)?;
        }
        if how.wants_cpu() && tree.nodes[node].name != IDLE {
            table.add(row, 1, ns, samples)?;
        }
    }
    Ok(())
}

/// What V8 calls the time in which nothing runs.
const IDLE: &str = "(idle)";
/// Microseconds since 1970 that no clock of V8 shows: the year 2001.
const CALENDAR_US: f64 = 1e15;
/// From so many distances of samples on, it is a pause between two of them.
const PAUSE: f64 = 10.0;

/// Ends samples before pauses after their usual distance, and gives the rest to V8's word for idle.
fn without_pauses(hits: Vec<(f64, u64)>, end_us: f64, tree: &mut Tree) -> Result<Vec<(f64, u64)>, ReadError> {
    let next = |at: usize| hits.get(at + 1).map_or(end_us, |next: &(f64, u64)| next.0);
    let mut lengths: Vec<f64> = (0..hits.len())
        .map(|at| next(at) - hits[at].0)
        .filter(|us| *us > 0.0)
        .collect();
    lengths.sort_by(f64::total_cmp);
    // Not the middle one: where a program mostly waits, most samples have a pause behind them.
    let Some(&usual) = lengths.get(lengths.len() / 10) else {
        return Ok(hits);
    };
    let idle = tree.add_idle()?;
    let mut all = Vec::with_capacity(hits.len());
    for (at, &(time, node)) in hits.iter().enumerate() {
        all.push((time, node));
        if next(at) - time > PAUSE * usual {
            all.push((time + usual, idle));
        }
    }
    Ok(all)
}

/// Reads a file.
pub(super) fn read(json: &[u8], how: &How<'_>) -> Result<Outcome, ReadError> {
    let file: File = serde_json::from_slice(json).map_err(|error| ReadError::Content(in_json(&error)))?;
    if file.samples.len() != file.deltas.len() {
        return Err(ReadError::Content(format!(
            "{} samples but {} timeDeltas",
            file.samples.len(),
            file.deltas.len()
        )));
    }
    let mut tree = Tree::default();
    tree.add(file.nodes)?;
    let mut time = file.start;
    let hits = file.samples.iter().zip(&file.deltas).map(|(&node, delta)| {
        time += delta;
        (time, node)
    });
    let mut hits: Vec<_> = hits.collect();
    if file.start >= CALENDAR_US {
        hits = without_pauses(hits, file.end, &mut tree)?;
    }
    let mut table = table(how);
    add(&mut table, how, tree, hits, file.end)?;
    let length_ns = ((file.end - file.start).max(0.0) * 1e3) as i64;
    table.finish(0, length_ns)
}
