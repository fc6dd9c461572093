//! Compaction: the parts of a finished day become one of each kind, and the roll-up and the sums of requests are also
//! added up over quarters of the day. Parts from before sums existed get theirs.
//!
//! Guarantees: no answer changes; the compacted parts hold as many rows as those they replace, or nothing is replaced;
//! a crash leaves the old parts or the new ones (`parts::compacted`). Runs on a thread of its own, in parallel with
//! questions and ingest; memory is bounded by `compaction_locations` and by what rewriting takes (`rewrite`). Only what
//! the journal can no longer bring back is compacted: every row of the batches up to the last one in a part is sealed.

use std::{collections::BTreeSet, io, ops::Range, path::PathBuf, sync::Arc};

use super::{
    Shared,
    rewrite::{Problem, Rewriter, from, from_windows},
    sums,
};
use crate::{
    journal::Lsn,
    parts::{self, Commit, Draft, Kind, MAX_HOURS, Part, PartName, PartSet, dictionary::compact::Compacted},
};

/// A compacted day is compacted again once late windows have left this many more parts of a kind.
const LATE_PARTS: usize = 8;
/// Hours of a day.
const DAY_HOURS: u32 = 24;

/// Parts that were written together.
type Group = Vec<Arc<Part>>;

/// Groups of consecutive hours that can be merged.
pub(super) struct Plan {
    groups: Vec<Group>,
}

impl Plan {
    /// Its first hour.
    pub(super) fn hour(&self) -> u32 {
        extent(&self.groups).start
    }

    /// Everything that it may replace. Fixed before the work begins: what is sealed from then on must not be included.
    pub(super) fn commit(&self) -> Commit {
        let hours = extent(&self.groups);
        let sequences = self.groups.iter().flatten().map(|part| part.name.sequence);
        Commit {
            hour: hours.start,
            hours: hours.end - hours.start,
            sequence: sequences.max().unwrap_or(0) + 1,
        }
    }
}

/// How a compaction ended.
pub(super) struct Outcome {
    /// First hour of the plan.
    pub(super) hour: u32,
    /// `Ok(None)`: it does not fit into memory.
    pub(super) result: Result<Option<Done>, Problem>,
}

/// Written and durable, but not yet in use.
pub(super) struct Done {
    pub(super) commit: Commit,
    pub(super) drafts: Vec<Draft>,
    pub(super) replaced: Group,
}

/// What is due for compaction.
pub(super) struct Due<'a> {
    /// Days that end at this hour or earlier.
    pub(super) before_hour: u32,
    /// Every row of the batches up to this one is sealed.
    pub(super) sealed_through: Lsn,
    /// Hours with rows in tables.
    pub(super) has_table: &'a dyn Fn(u32) -> bool,
    /// First hours of groups that could not be compacted.
    pub(super) refused: &'a BTreeSet<u32>,
}

/// The next parts to compact: of one day, with everything in their hours.
pub(super) fn plan(parts: &PartSet, due: &Due<'_>) -> Option<Plan> {
    let all: Vec<Group> = parts
        .iter()
        .filter(|part| part.name.kind == Kind::Names)
        .map(|names| parts.beside(names.name).cloned().collect())
        .collect();
    let blocked = blocked_hours(parts, &all, due);
    let mut groups: Vec<Group> = Vec::new();
    for group in all {
        let hours = extent(std::slice::from_ref(&group));
        let usable = blocked.range(hours.clone()).next().is_none();
        let continues = groups.last().is_some_and(|last| {
            let run = extent(&groups);
            run.start / DAY_HOURS == hours.start / DAY_HOURS
                && is_alike(last, &group)
                && blocked.range(run.start..hours.end.max(run.end)).next().is_none()
        });
        if !(usable && continues) {
            if is_worth_it(&groups) {
                break;
            }
            groups.clear();
        }
        if usable {
            groups.push(group);
        }
    }
    is_worth_it(&groups).then_some(Plan { groups })
}

/// Hours with something that has to stay as it is. A commit replaces everything with a lower sequence in its hours, so
/// neither a part of such an hour may be compacted nor one that overlaps it.
fn blocked_hours(parts: &PartSet, groups: &[Group], due: &Due<'_>) -> BTreeSet<u32> {
    // Rows without their names cannot be compacted.
    let nameless = parts
        .iter()
        .filter(|part| parts.beside(part.name).all(|other| other.name.kind != Kind::Names));
    let mut blocked: BTreeSet<u32> = nameless.flat_map(|part| part.name.extent()).collect();
    for (at, group) in groups.iter().enumerate() {
        let hours = extent(std::slice::from_ref(group));
        let may_go = (hours.start / DAY_HOURS + 1) * DAY_HOURS <= due.before_hour
            && hours.clone().all(|hour| !(due.has_table)(hour))
            && group.iter().all(|part| part.name.last_lsn <= due.sealed_through)
            && !due.refused.contains(&hours.start)
            && is_whole(group);
        if !may_go {
            blocked.extend(hours.clone());
        }
        // Groups are ordered by first hour: those that overlap are next to each other.
        for other in groups[at + 1..]
            .iter()
            .take_while(|other| extent(std::slice::from_ref(*other)).start < hours.end)
        {
            if !is_alike(group, other) {
                blocked.extend(hours.clone());
            }
        }
    }
    loop {
        let before = blocked.len();
        for group in groups {
            let hours = extent(std::slice::from_ref(group));
            if blocked.range(hours.clone()).next().is_some() {
                blocked.extend(hours);
            }
        }
        if blocked.len() == before {
            return blocked;
        }
    }
}

/// The hours covered by some groups.
fn extent(groups: &[Group]) -> Range<u32> {
    let of = groups.iter().flatten().map(|part| part.name.extent());
    let start = of.clone().map(|hours| hours.start).min().unwrap_or(0);
    start..of.map(|hours| hours.end).max().unwrap_or(start)
}

/// True when the group has every part that others in it need.
fn is_whole(group: &Group) -> bool {
    let has = |kind| group.iter().any(|part| part.name.kind == kind);
    (!has(Kind::Samples) || has(Kind::Rollup)) && (has(Kind::Stacks) || !(has(Kind::Rollup) || has(Kind::Exemplars)))
}

/// True when both still have their samples, or neither: otherwise nobody could tell which hours still have them.
fn is_alike(a: &Group, b: &Group) -> bool {
    let without_samples = |group: &Group| {
        let has = |kind| group.iter().any(|part| part.name.kind == kind);
        has(Kind::Rollup) && !has(Kind::Samples)
    };
    without_samples(a) == without_samples(b)
}

fn is_worth_it(groups: &[Group]) -> bool {
    let compacted = groups.iter().flatten().any(|part| part.name.hours > 1);
    // A result of a single hour would look like a sealed part: wait for a neighbour.
    extent(groups).len() > 1 && groups.len() >= if compacted { LATE_PARTS } else { 2 }
}

/// Compacts as much of a plan as fits into memory. `Ok(None)`: not even two groups do.
pub(super) fn compact(shared: &Shared, plan: Plan) -> Result<Option<Done>, Problem> {
    let sequence = plan.commit().sequence;
    let mut dictionary = Compacted::new(shared.checks.clone());
    let mut taken: Vec<Group> = Vec::new();
    let mut groups = plan.groups.into_iter().peekable();
    while let Some(group) = groups.next() {
        // All of an hour or nothing: what is left must not be in hours that the result claims.
        let mut together = vec![group];
        while let Some(group) = groups.next_if(|next| extent(std::slice::from_ref(next)).start < extent(&together).end)
        {
            together.push(group);
        }
        let dictionaries: Vec<_> = together.iter().map(read_dictionary).collect::<Result<_, _>>()?;
        if !dictionary.add(&dictionaries, shared.options.compaction_locations)? {
            break;
        }
        taken.extend(together);
    }
    let hours = extent(&taken);
    if taken.len() < 2 || hours.len() < 2 || hours.len() > MAX_HOURS as usize {
        return Ok(None);
    }
    let parts: Group = taken.into_iter().flatten().collect();
    let commit = Commit {
        hour: hours.start,
        hours: hours.end - hours.start,
        sequence,
    };
    let rewriter = Rewriter {
        shared,
        label: "compact",
    };
    let work = Work {
        rewriter,
        commit,
        parts,
    };
    let mut drafts = work.dictionary(dictionary)?;
    for kind in [
        Kind::Windows,
        Kind::Requests,
        Kind::Samples,
        Kind::Rollup,
        Kind::Exemplars,
    ] {
        drafts.extend(work.rows(kind)?);
    }
    drafts.extend(work.quarters()?);
    drafts.extend(work.request_sums()?);
    drafts.extend(work.totals()?);
    drafts.extend(work.runs()?);
    Ok(Some(Done {
        commit,
        drafts,
        replaced: work.parts,
    }))
}

/// The bytes of a group's names and stacks.
fn read_dictionary(group: &Group) -> Result<(Vec<u8>, Option<Vec<u8>>), Problem> {
    let read = |kind| -> Result<Option<Vec<u8>>, Problem> {
        let Some(part) = group.iter().find(|part| part.name.kind == kind) else {
            return Ok(None);
        };
        match part.read()? {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(Problem::Damaged(vec![part.clone()])),
        }
    };
    let names = read(Kind::Names)?.ok_or_else(|| Problem::Internal("a group has no names".to_owned()))?;
    Ok((names, read(Kind::Stacks)?))
}

struct Work<'a> {
    rewriter: Rewriter<'a>,
    commit: Commit,
    parts: Group,
}

impl Work<'_> {
    fn of_kind(&self, kind: Kind) -> Group {
        let of_kind = self.parts.iter().filter(|part| part.name.kind == kind);
        of_kind.cloned().collect()
    }

    fn name(&self, kind: Kind, rows: u64) -> PartName {
        let replaced = self
            .parts
            .iter()
            .filter(|part| part.name.kind == kind)
            .map(|part| part.name);
        PartName {
            kind,
            hour: self.commit.hour,
            hours: self.commit.hours,
            sequence: self.commit.sequence,
            first_lsn: replaced.clone().map(|name| name.first_lsn).min().unwrap_or(0),
            last_lsn: replaced.map(|name| name.last_lsn).max().unwrap_or(0),
            rows,
            checksum: 0,
        }
    }

    fn dictionary(&self, dictionary: Compacted) -> Result<Vec<Draft>, Problem> {
        let (mut names, mut stacks) = (self.rewriter.create(Kind::Names)?, self.rewriter.create(Kind::Stacks)?);
        let (entries, stack_count) = dictionary.write(&mut names, &mut stacks)?;
        let mut drafts = vec![names.finish(self.name(Kind::Names, entries))?];
        if !self.of_kind(Kind::Stacks).is_empty() {
            drafts.push(stacks.finish(self.name(Kind::Stacks, stack_count))?);
        }
        Ok(drafts)
    }

    /// Writes the rows of a kind, sorted.
    fn rows(&self, kind: Kind) -> Result<Option<Draft>, Problem> {
        let sources = self.of_kind(kind);
        if sources.is_empty() {
            return Ok(None);
        }
        let expected: u64 = sources.iter().map(|part| part.name.rows).sum();
        let Some(writer) = self.rewriter.rows(kind, &sources, "true")? else {
            return Err(Problem::Internal(format!(
                "compaction of {expected} rows produced none"
            )));
        };
        let draft = writer.finish(self.name(kind, 0))?;
        if draft.rows() != expected {
            let rows = draft.rows();
            return Err(Problem::Internal(format!(
                "compaction of {expected} rows produced {rows}"
            )));
        }
        Ok(Some(draft))
    }

    /// The sums that were made from parts of a kind, then the parts that have none. Sums whose rows are gone are
    /// ignored.
    fn summed(&self, of: Kind, sums: Kind) -> (Group, Group) {
        let mut summed = Group::new();
        let mut unsummed = Group::new();
        for part in self.of_kind(of) {
            let beside = |other: &&Arc<Part>| other.name.kind == sums && other.name.is_beside(&part.name);
            match self.parts.iter().find(beside) {
                Some(sums) => summed.push(sums.clone()),
                None => unsummed.push(part),
            }
        }
        (summed, unsummed)
    }

    /// A name with the batches of the rows that the part goes with.
    fn name_beside(&self, of: Kind, kind: Kind) -> PartName {
        PartName {
            kind,
            ..self.name(of, 0)
        }
    }

    /// Merges sums of requests, and adds them up over quarters of the day.
    fn request_sums(&self) -> Result<Vec<Draft>, Problem> {
        let (summed, unsummed) = self.summed(Kind::Requests, Kind::Sums);
        let writers = self
            .rewriter
            .request_sums(&summed, &unsummed, &self.of_kind(Kind::Windows))?;
        let kinds = [Kind::Sums, Kind::DaySums].into_iter().zip(writers);
        let drafts = kinds.filter_map(|(kind, writer)| Some((kind, writer?)));
        drafts
            .map(|(kind, writer)| Ok(writer.finish(self.name_beside(Kind::Requests, kind))?))
            .collect()
    }

    /// Merges CPU without its stacks.
    fn totals(&self) -> Result<Option<Draft>, Problem> {
        let (summed, unsummed) = self.summed(Kind::Samples, Kind::Totals);
        let windows = self.of_kind(Kind::Windows);
        let add_up = |samples: &Group| sums::of_cpu(&from(samples), &from_windows(&windows));
        self.put_together(Kind::Totals, Kind::Samples, [&summed, &unsummed, &windows], add_up)
    }

    /// Merges runs of windows.
    fn runs(&self) -> Result<Option<Draft>, Problem> {
        let (summed, unsummed) = self.summed(Kind::Windows, Kind::Runs);
        let add_up = |windows: &Group| sums::of_windows(&from(windows));
        self.put_together(Kind::Runs, Kind::Windows, [&summed, &unsummed, &Group::new()], add_up)
    }

    fn put_together(
        &self,
        kind: Kind,
        of: Kind,
        [summed, unsummed, beside]: [&Group; 3],
        add_up: impl Fn(&Group) -> String,
    ) -> Result<Option<Draft>, Problem> {
        let mut queries = Vec::new();
        if !summed.is_empty() {
            queries.push(format!("SELECT * FROM {}", from(summed)));
        }
        if !unsummed.is_empty() {
            queries.push(add_up(unsummed));
        }
        let sources = [summed.as_slice(), unsummed, beside].concat();
        let writer = self.rewriter.queries(kind, &sources, &queries)?;
        writer
            .map(|writer| Ok(writer.finish(self.name_beside(of, kind))?))
            .transpose()
    }

    /// Adds up the roll-up over quarters of the day.
    fn quarters(&self) -> Result<Option<Draft>, Problem> {
        let Some(writer) = self.rewriter.quarters(&self.of_kind(Kind::Rollup))? else {
            return Ok(None);
        };
        Ok(Some(writer.finish(self.name_beside(Kind::Rollup, Kind::Quarters))?))
    }
}

/// Replaces the parts that were compacted. After an error only the folder knows which are in use.
pub(super) fn publish(shared: &Shared, done: Done) -> io::Result<()> {
    let dir: PathBuf = parts::folder(&shared.options.data_dir);
    let compacted = parts::publish(&shared.disk, &dir, done.drafts)?;
    done.commit.write(&*shared.disk, &dir)?;
    let mut sources = shared.known.sources.write();
    let mut set = PartSet::clone(&sources.parts);
    compacted.into_iter().for_each(|part| set.insert(part));
    set.give_up(&done.replaced);
    sources.parts = Arc::new(set);
    Ok(())
}
