//! Makes the engine's file and the parts agree, at a start and after hours were dropped.
//!
//! Guarantees: rows that are sealed are removed from the tables, so that no crash shows a row twice; the names in the
//! parts are in the engine's tables, so that a deleted file is no loss; a damaged part is set aside and the start
//! continues.

use std::{collections::BTreeMap, io, sync::Arc};

use emberline_model::{Location, Mapping, id::Content};

use super::{
    ROOM_BYTES, Shared,
    database::{Contents, Database, Kept, WriteError},
    rows::{self, Seen, Staged},
    sources::Sources,
};
use crate::{
    checks::Salted,
    journal::Lsn,
    parts::{
        Kind, Part, PartSet,
        dictionary::{self, Names},
    },
};

/// What is known about an opened file.
pub(super) struct Reconciled {
    pub(super) applied: Lsn,
    pub(super) seen: Seen,
    /// For each hour with tables, the first batch with rows in them.
    pub(super) first: BTreeMap<u32, Lsn>,
    pub(super) next_generation: u32,
    /// Rows of deleted services still have to be removed from the tables.
    pub(super) holds_deleted: bool,
}

/// At a start: removes from the tables what a crash left in two places.
pub(super) fn first(
    shared: &Shared,
    database: &Database,
    mut contents: Contents,
    parts: PartSet,
) -> duckdb::Result<Reconciled> {
    let next_generation = contents.tables.values().max().map_or(1, |last| last + 1);
    database.remove_sealed(&contents.tables, &parts)?;
    let mut first = BTreeMap::new();
    let free = shared.disk.free_bytes(&shared.options.data_dir).unwrap_or(u64::MAX);
    let has_room = free >= ROOM_BYTES;
    let tables = contents.tables.clone();
    for (hour, generation) in tables {
        match database.first_lsn(hour, generation)? {
            Some(lsn) => drop(first.insert(hour, lsn)),
            None if has_room => {
                database.drop_hour(hour, generation)?;
                contents.tables.remove(&hour);
            }
            // Empty tables do no harm, and questions must not wait for space on a full disk.
            None => {}
        }
    }
    *shared.known.sources.write() = Sources {
        tables: contents.tables.clone(),
        parts: Arc::new(parts),
    };
    let applied = contents.applied;
    let mut seen = again(shared, database, contents)?;
    remember_sealed(shared, &mut seen);
    shared.known.set_dictionary(&seen);
    Ok(Reconciled {
        applied,
        seen,
        first,
        next_generation,
        holds_deleted: false,
    })
}

/// Adds the names of all parts that the tables lack, and publishes what there is to the rest of the store.
pub(super) fn again(shared: &Shared, database: &Database, contents: Contents) -> duckdb::Result<Seen> {
    let Contents {
        applied,
        tables,
        mut seen,
        mut spans,
        native,
    } = contents;
    shared.symbols.forget_seen();
    native
        .iter()
        .for_each(|(mapping, offsets)| shared.symbols.note(mapping, offsets));
    let mut staged = Staged::default();
    let mut damaged = Vec::new();
    for part in shared.parts().iter().filter(|part| part.name.kind == Kind::Names) {
        let Some((bytes, names)) = read(part) else {
            damaged.push(part.clone());
            continue;
        };
        staged = rows::restore(&names, &mut seen, staged);
        for span in &names.spans {
            let known = spans.entry(span.workload_id).or_insert((span.first_s, span.last_s));
            *known = (known.0.min(span.first_s), known.1.max(span.last_s));
        }
        if note_native(shared, &bytes, &names).is_err() {
            damaged.push(part.clone());
        }
    }
    shared.set_aside(&damaged);
    // If no names are missing, nothing is written: the file must open on a full disk, too.
    if !staged.is_empty() {
        database.write(staged, &tables, applied).map_err(|error| match error {
            WriteError::Before(error) | WriteError::Commit(error) => error,
        })?;
    }
    *shared.known.spans.write() = spans;
    Ok(seen)
}

/// Remembers which locations and stacks are in parts, newest first, up to the limit. An unreadable part is found and
/// counted by whoever needs it.
fn remember_sealed(shared: &Shared, seen: &mut Seen) {
    let parts = shared.parts();
    for part in parts.iter().rev().filter(|part| part.name.kind == Kind::Names) {
        if seen.sealed_locations.is_full() {
            break;
        }
        let Some((bytes, names)) = read(part) else { continue };
        let salted = Salted::new(&shared.checks, &names.salted);
        let _ = dictionary::each_location(&bytes, &names, &salted, |entry| {
            seen.sealed_locations
                .insert(entry.id, shared.checks.check(entry.content));
        });
    }
    for part in parts.iter().rev().filter(|part| part.name.kind == Kind::Stacks) {
        if seen.sealed_stacks.is_full() {
            break;
        }
        let Some((locations, salted)) = dictionary::location_ids(&shared.checks, &parts, part) else {
            continue;
        };
        let Ok(Some(bytes)) = part.read() else { continue };
        let _ = dictionary::each_stack_id(&bytes, &locations, &salted, |id, content, _| {
            seen.sealed_stacks.insert(id, shared.checks.check(content));
        });
    }
}

/// The names of a part; `None` when it is damaged. If reading fails, the part counts as damaged only if its bytes are
/// wrong: otherwise its names are missing until the next start.
fn read(part: &Part) -> Option<(Vec<u8>, Names)> {
    match part.read() {
        Ok(Some(bytes)) => {
            let names = dictionary::read_names(&bytes).ok()?;
            Some((bytes, names))
        }
        Ok(None) => None,
        Err(error) => {
            tracing::error!(path = %part.path.display(), %error, "cannot read the names of a sealed hour");
            Some((Vec::new(), Names::default()))
        }
    }
}

fn note_native(shared: &Shared, bytes: &[u8], names: &Names) -> io::Result<()> {
    let mut offsets: Vec<(Arc<Mapping>, Vec<u64>)> = Vec::new();
    let salted = Salted::new(&shared.checks, &names.salted);
    dictionary::each_location(bytes, names, &salted, |entry| {
        if let (Location::Native { offset, .. }, Some(mapping)) = (entry.location, entry.mapping) {
            match offsets.last_mut() {
                Some((last, offsets)) if Arc::ptr_eq(last, mapping) => offsets.push(*offset),
                _ => offsets.push((mapping.clone(), vec![*offset])),
            }
        }
    })?;
    offsets
        .iter()
        .for_each(|(mapping, offsets)| shared.symbols.note(mapping, offsets));
    Ok(())
}

/// What the names of all parts mention.
pub(super) fn kept(shared: &Shared, parts: &PartSet) -> Kept {
    let mut kept = Kept::default();
    for part in parts.iter().filter(|part| part.name.kind == Kind::Names) {
        // A damaged part is found and counted when the names are added back.
        let Some((_, names)) = read(part) else { continue };
        let salted = Salted::new(&shared.checks, &names.salted);
        let workload_id = |series: &dictionary::SeriesName| salted.id(&rows::workload_content(&series.workload()));
        let workloads = names.series.iter().map(workload_id);
        kept.workloads.extend(workloads);
        let label_sets = names
            .label_sets
            .iter()
            .map(|labels| salted.id(&Content::label_set(&labels.label_set())));
        kept.label_sets.extend(label_sets);
    }
    kept
}
