//! Purges a service from sealed parts: finds which hold some of it, and rewrites them without it.
//!
//! Guarantees: rows of others stay, each once, in the same order under the same hours, sequence and batch numbers, so
//! that what is sealed stays known; a part with nothing but the service's rows has no successor; nothing is named
//! before it is durable. Runs on a thread of its own, in parallel with questions and ingest; memory is bounded by what
//! rewriting takes (`rewrite`) and by the dictionary of one part. Left on purpose: what others report about the service
//! (who called it).

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Shared,
    database::is_owned,
    rewrite::{Problem, Rewriter, from},
};
use crate::{
    deletions::{Deletion, Owned, ServiceName},
    ids::IdSet,
    parts::{Draft, Kind, Part, PartName, dictionary},
    questions::columns::Columns,
};

/// What sealed parts hold of a service.
#[derive(Default)]
pub(super) struct Found {
    pub(super) rows: u64,
    pub(super) parts: Vec<Arc<Part>>,
}

/// Parts without a service, written and durable, but not yet in use.
pub(super) struct Done {
    pub(super) drafts: Vec<Draft>,
    pub(super) replaced: Vec<Arc<Part>>,
    /// Rows removed.
    pub(super) rows: u64,
}

/// How a step of a deletion ended.
pub(super) enum Outcome {
    Found(Result<Found, Problem>),
    Written(Result<Done, Problem>),
}

/// Groups parts that were written together.
fn groups<'a>(parts: impl Iterator<Item = &'a Arc<Part>>) -> Vec<Vec<Arc<Part>>> {
    let mut groups: BTreeMap<(u32, u32, u32), Vec<Arc<Part>>> = BTreeMap::new();
    for part in parts {
        let name = part.name;
        let group = groups.entry((name.hour, name.hours, name.sequence)).or_default();
        group.push(part.clone());
    }
    groups.into_values().collect()
}

/// Searches parts for a service. Damaged ones are set aside and count as empty.
pub(super) fn find<'a>(
    shared: &Shared,
    who: &ServiceName,
    owned: &Owned,
    parts: impl Iterator<Item = &'a Arc<Part>>,
) -> Result<Found, Problem> {
    let mut found = Found::default();
    for group in groups(parts) {
        let mut others = 0;
        let has_samples = group.iter().any(|part| part.name.kind == Kind::Samples);
        for part in group.iter().filter(|part| part.name.kind.has_rows()) {
            if !part.is_intact(false)? {
                shared.set_aside(std::slice::from_ref(part));
                continue;
            }
            let rows = count(shared, part, owned)?;
            others += part.name.rows - rows.min(part.name.rows);
            if rows > 0 {
                found.parts.push(part.clone());
                found.rows += if is_counted(part.name.kind, has_samples) {
                    rows
                } else {
                    0
                };
            }
        }
        for part in group.iter().filter(|part| part.name.kind == Kind::Names) {
            let Some(bytes) = part.read()? else {
                shared.set_aside(std::slice::from_ref(part));
                continue;
            };
            let names = dictionary::read_names(&bytes)?;
            if !dictionary::purge::mentions(&names, &who.namespace, &who.service) {
                continue;
            }
            found.parts.push(part.clone());
            if others == 0 {
                let stacks = group.iter().filter(|part| part.name.kind == Kind::Stacks);
                found.parts.extend(stacks.cloned());
            }
        }
    }
    Ok(found)
}

/// Whether rows of a kind count as deleted: those of a roll-up repeat its samples if there are any, those of quarters
/// repeat a roll-up, and sums of requests, CPU and windows repeat what they were made of.
fn is_counted(kind: Kind, has_samples: bool) -> bool {
    match kind {
        Kind::Rollup => !has_samples,
        Kind::Quarters | Kind::Sums | Kind::DaySums | Kind::Totals | Kind::Runs => false,
        _ => true,
    }
}

fn count(shared: &Shared, part: &Arc<Part>, owned: &Owned) -> Result<u64, Problem> {
    let sql = format!(
        "SELECT CAST(count(*) AS UBIGINT) FROM {} WHERE {}",
        from(std::slice::from_ref(part)),
        is_owned(part.name.kind, owned)
    );
    let rows = shared.readers.read(|reader| {
        let mut rows = 0;
        reader.rows(&sql, &[], |chunk| {
            rows += Columns::new(chunk).u64(0)?.iter().sum::<u64>();
            Ok(())
        })?;
        Ok(rows)
    })?;
    Ok(rows)
}

/// The listed parts that are in use and were written together with the first of them, and all parts of that group.
/// Empty when nothing is left to do.
pub(super) fn next(shared: &Shared, deletion: &Deletion) -> (Vec<Arc<Part>>, Vec<Arc<Part>>) {
    let parts = shared.parts();
    let listed: Vec<Arc<Part>> = deletion
        .files
        .iter()
        .filter_map(|file| parts.by_file(file).cloned())
        .collect();
    let Some(first) = listed.first() else {
        return (Vec::new(), Vec::new());
    };
    let beside = parts.beside(first.name).cloned().collect();
    let group = listed.iter().filter(|part| part.name.is_beside(&first.name));
    (group.cloned().collect(), beside)
}

/// Rewrites parts without a service; `beside` is everything that was written together with them.
pub(super) fn purge(
    shared: &Shared,
    deletion: &Deletion,
    listed: Vec<Arc<Part>>,
    beside: &[Arc<Part>],
) -> Result<Done, Problem> {
    let rewriter = Rewriter {
        shared,
        label: "delete",
    };
    let owned = deletion.owned();
    let has_samples = beside.iter().any(|part| part.name.kind == Kind::Samples);
    let mut done = Done {
        drafts: Vec::new(),
        replaced: Vec::new(),
        rows: 0,
    };
    for part in listed {
        let kind = part.name.kind;
        let draft = match kind {
            // Listed only if nothing in the hour belongs to anyone else.
            Kind::Stacks => None,
            Kind::Names => names(&rewriter, deletion, &owned, &part, beside)?,
            kind => {
                let condition = format!("NOT {}", is_owned(kind, &owned));
                let writer = rewriter.rows(kind, std::slice::from_ref(&part), &condition)?;
                let draft = writer.map(|writer| writer.finish(part.name)).transpose()?;
                let rows = part.name.rows - draft.as_ref().map_or(0, Draft::rows).min(part.name.rows);
                done.rows += if is_counted(kind, has_samples) { rows } else { 0 };
                draft
            }
        };
        if let Some(draft) = &draft
            && draft.rows() >= part.name.rows
        {
            // With as many rows, the new file could not be told from the one it replaces.
            let message = format!("{} contains no data of the service it was listed for", part.name);
            return Err(Problem::Internal(message));
        }
        done.drafts.extend(draft);
        done.replaced.push(part);
    }
    Ok(done)
}

/// Writes the names without those of the service, and without label sets that only its rows had.
fn names(
    rewriter: &Rewriter<'_>,
    deletion: &Deletion,
    owned: &Owned,
    part: &Arc<Part>,
    beside: &[Arc<Part>],
) -> Result<Option<Draft>, Problem> {
    let Some(bytes) = part.read()? else {
        return Err(Problem::Damaged(vec![part.clone()]));
    };
    let used = used_label_sets(rewriter.shared, owned, beside)?;
    let who = deletion.who();
    let mut file = rewriter.create(Kind::Names)?;
    match dictionary::purge::without(
        &bytes,
        &rewriter.shared.checks,
        (&who.namespace, &who.service),
        &used,
        &mut file,
    )? {
        None => Ok(None),
        Some(gone) => Ok(Some(file.finish(PartName {
            rows: part.name.rows.saturating_sub(gone),
            ..part.name
        })?)),
    }
}

/// Label sets of rows that stay.
fn used_label_sets(shared: &Shared, owned: &Owned, beside: &[Arc<Part>]) -> Result<IdSet, Problem> {
    let mut used = IdSet::default();
    for part in beside {
        let kind = part.name.kind;
        if !matches!(kind, Kind::Samples | Kind::Rollup | Kind::Exemplars | Kind::Totals) {
            continue;
        }
        if !part.is_intact(false)? {
            return Err(Problem::Damaged(vec![part.clone()]));
        }
        let sql = format!(
            "SELECT DISTINCT label_set FROM {} WHERE NOT {}",
            from(std::slice::from_ref(part)),
            is_owned(kind, owned)
        );
        used.extend(shared.readers.read(|reader| {
            let mut ids = Vec::new();
            reader.rows(&sql, &[], |chunk| {
                ids.extend_from_slice(Columns::new(chunk).u64(0)?);
                Ok(())
            })?;
            Ok(ids)
        })?);
    }
    Ok(used)
}
