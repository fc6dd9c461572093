//! What is open at the end of a range: streams, gRPC calls, connections.

use std::collections::{BTreeMap, HashMap};

use emberline_model::{Release, Side};

use crate::{
    questions::{
        Question, View,
        columns::Columns,
        requests::{self, RequestQuery},
        selection::WorkloadFilter,
    },
    range::{Range, Step},
    readers::Failure,
};

/// Memory for a process, and for a row of it with its names, in bytes.
const PROCESS_BYTES: usize = 96;
const ROW_BYTES: usize = 512;

/// What is open in the last window with requests of each process, counted once, as for [`RequestQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenQuery {
    /// Who reports it.
    pub who: WorkloadFilter,
    /// When.
    pub range: Range,
}

/// What is open between two ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRow {
    /// Who reports it.
    pub reporter: Release,
    /// The end that reports.
    pub side: Side,
    /// The peer release, if it identified itself.
    pub peer: Option<Release>,
    /// The target as named by the caller; empty if it gave none.
    pub destination: String,
    /// How many; greater than 0.
    pub open: u64,
}

type Key = (Release, Side, Option<Release>, String);

/// The last window of a process, and what is open in it.
#[derive(Default)]
struct Last {
    start_s: u32,
    open: Vec<(Key, u64)>,
}

impl Question for OpenQuery {
    type Answer = Vec<OpenRow>;

    fn range(&self) -> Range {
        self.range
    }

    fn run(&self, view: &View<'_>) -> Result<Vec<OpenRow>, Failure> {
        if view.span.is_empty() {
            return Ok(Vec::new());
        }
        let (reader, span) = (view.reader, view.span);
        let all = RequestQuery {
            step: Step::Window,
            by_instance: true,
            ..RequestQuery::new(self.who.clone(), self.range)
        };
        let mut processes: HashMap<(u64, u8), Last> = HashMap::new();
        requests::each(reader, span, &all, None, |columns, row, counts| {
            let (component, workload) = (columns.u8(5)?[row], columns.u64(21)?[row]);
            let (start_s, open) = (columns.u32(0)?[row], columns.u64(26)?[row]);
            if !processes.contains_key(&(workload, component)) {
                reader.hold(PROCESS_BYTES)?;
            }
            let last = processes.entry((workload, component)).or_default();
            if start_s > last.start_s {
                reader.release(ROW_BYTES * last.open.len());
                *last = Last {
                    start_s,
                    open: Vec::new(),
                };
            }
            if open == 0 || start_s < last.start_s {
                return Ok(());
            }
            reader.hold(ROW_BYTES)?;
            last.open.push((key(columns, row, counts.side)?, open));
            Ok(())
        })?;
        let mut sums: BTreeMap<Key, u64> = BTreeMap::new();
        for (key, open) in processes.into_values().flat_map(|last| last.open) {
            let sum = sums.entry(key).or_default();
            *sum = sum.saturating_add(open);
        }
        let rows = sums
            .into_iter()
            .map(|((reporter, side, peer, destination), open)| OpenRow {
                reporter,
                side,
                peer,
                destination,
                open,
            });
        Ok(rows.collect())
    }
}

fn key(columns: &Columns<'_>, row: usize, side: Side) -> Result<Key, Failure> {
    let text = |column| columns.text(column).map(|texts| texts.string(row));
    let reporter = Release {
        namespace: text(1)?,
        service: text(2)?,
        version: text(3)?,
    };
    Ok((reporter, side, requests::peer(columns, row)?, text(24)?))
}
