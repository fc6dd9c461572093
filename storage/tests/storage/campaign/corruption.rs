//! Damage to every file that a killed store left behind: one flipped bit, a zeroed tail, a truncation, at random
//! places.
//!
//! What must hold: the store starts, and reports what it lost; every fact that it still reports is true; what is
//! missing is covered by what it reports as lost; it accepts new batches. The kinds of files are found, not listed: a
//! new kind is damaged like the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::{
    MEMORY_CAP_MB, Random,
    ledger::{Ledger, Report},
    load::{self, Facts},
    process::{Process, command},
};

/// Rows of a batch: two of samples, one of requests, one of windows, one of exemplars.
const SAMPLE_ROWS: u64 = 2;
const ROWS: u64 = SAMPLE_ROWS + 3;
/// Batches of the first run: from noon until the day is over, sealed and compacted.
const FIRST_LIFE: u64 = 420;
/// How long samples are kept: all the time.
const RETENTION_HOURS: u64 = 48;
/// Kinds of files that a victim must have; once these exist, so do the others.
const NEEDED: [&str; 3] = [
    "deleted.bin",
    "parts/compacted quarters.parquet",
    "parts/exemplars.parquet",
];
/// Folders examined by one process.
const PER_PROCESS: u64 = 50;

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    FlippedBit,
    ZeroedTail,
    Truncation,
}

pub const DAMAGES: [Damage; 3] = [Damage::FlippedBit, Damage::ZeroedTail, Damage::Truncation];

impl Damage {
    /// Changes the bytes somewhere; if they were zeros, they may stay the same.
    fn apply(self, bytes: &mut Vec<u8>, random: &mut Random) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len() as u64) as usize;
        match self {
            Damage::FlippedBit => bytes[at] ^= 1 << random.below(8),
            Damage::ZeroedTail => bytes[at..].fill(0),
            Damage::Truncation => bytes.truncate(at),
        }
    }
}

/// What a campaign found.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub trials: u64,
    pub failed_starts: u64,
    pub wrong_answers: u64,
    pub problems: Vec<String>,
    /// Trials of each kind of file, and in how many of them something was lost.
    pub kinds: BTreeMap<String, (u64, u64)>,
    pub peak_rss_mb: u64,
}

/// A killed store, and what it answers undamaged.
struct Victim {
    dir: PathBuf,
    files: BTreeMap<String, Vec<PathBuf>>,
    /// Parts that the next start removes without reading them: a compaction had replaced them before the kill.
    replaced: BTreeSet<PathBuf>,
    truth: Report,
    fresh: u64,
}

/// Damages each kind of file `each` times in each way.
pub fn run(each: u64, seed: u64, dir: &Path) -> Outcome {
    let mut random = Random::new(seed);
    let mut outcome = Outcome::default();
    let victim = victim(&mut random, dir, &mut outcome);
    let mut examiner = Examiner::new();
    for (kind, files) in &victim.files {
        for damage in DAMAGES {
            for _ in 0..each {
                let file = &files[random.below(files.len() as u64) as usize];
                let trial = Trial {
                    kind,
                    file,
                    damage,
                    ends_journal: is_end_of_journal(file, files, damage),
                    without_hot_store: is_countable(kind, file, files, damage) && random.below(2) == 0,
                };
                trial.run(&victim, &dir.join("trial"), &mut random, &mut examiner, &mut outcome);
                if outcome.problems.len() > 20 {
                    return outcome;
                }
            }
        }
        println!("{kind}: {:?} trials, with losses", outcome.kinds[kind]);
    }
    outcome.peak_rss_mb = examiner.peak_rss_kb >> 10;
    if outcome.peak_rss_mb > MEMORY_CAP_MB {
        outcome
            .problems
            .push(format!("{} MiB were resident", outcome.peak_rss_mb));
    }
    outcome
}

/// True for damage to the journal whose extent the journal itself knows: the hot store may then be gone, too, and hide
/// nothing. If the very end of the journal is cut, only the hot store and the parts know that there was more.
fn is_countable(kind: &str, file: &Path, files: &[PathBuf], damage: Damage) -> bool {
    kind == "journal/*.log" && !is_end_of_journal(file, files, damage)
}

/// True when the end of the journal is lost.
fn is_end_of_journal(file: &Path, files: &[PathBuf], damage: Damage) -> bool {
    damage != Damage::FlippedBit
        && file.extension().is_some_and(|e| e == "log")
        && files.last().map(PathBuf::as_path) == Some(file)
}

/// Kinds are folder, first word and extension; parts of several hours are a separate kind.
fn kind_of(path: &Path) -> String {
    let folder = path.parent().and_then(Path::to_str).unwrap_or_default();
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
    let word = stem.split('-').next().unwrap_or_default();
    let word = if word.bytes().any(|b| b.is_ascii_digit()) {
        "*"
    } else {
        word
    };
    let is_compacted = folder == "parts" && stem.split('-').nth(2).is_some_and(|hours| hours != "01");
    let word = if is_compacted {
        format!("compacted {word}")
    } else {
        word.to_owned()
    };
    format!("{folder}/{word}.{extension}")
        .trim_start_matches('/')
        .to_owned()
}

fn files_below(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap) {
        let path = folder.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            files_below(root, &path, found);
        } else {
            found.push(path);
        }
    }
    found.sort();
}

/// Runs a store until every kind of file exists, and kills it.
fn victim(random: &mut Random, dir: &Path, outcome: &mut Outcome) -> Victim {
    let dir = dir.join("victim");
    let mut ledger = Ledger::default();
    let kinds = loop {
        let mut process = Process::start(command());
        process.order(&format!("dir {}", dir.display()));
        process.order(&format!("first {}", ledger.sent + 1));
        process.order(&format!("seed {}", random.number()));
        let retry: Vec<String> = ledger.in_doubt().iter().map(u64::to_string).collect();
        process.order(&format!("retry {}", retry.join(" ")));
        process.order(&format!("retention {RETENTION_HOURS}"));
        process.order("delete");
        process.order("limit 1000");
        process.order("live");
        process.end_orders();
        // After the first run, short ones follow until one ends with batches in DuckDB's write-ahead log.
        let enough = if ledger.sent == 0 { FIRST_LIFE } else { 4 } + random.below(12);
        let mut heard = 0;
        while let Some(line) = process.line() {
            ledger.note(&line);
            heard += u64::from(line.starts_with("stored"));
            if heard >= enough {
                process.kill();
            }
        }
        process.wait();
        let mut files = Vec::new();
        files_below(&dir, Path::new(""), &mut files);
        let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for file in files {
            kinds.entry(kind_of(&file)).or_default().push(file);
        }
        let log = fs::metadata(dir.join("hot.duckdb.wal")).map_or(0, |m| m.len());
        if log > 4000 && NEEDED.iter().all(|kind| kinds.contains_key(*kind)) {
            break kinds;
        }
        // In what is kept: nothing has expired yet.
        assert!(
            ledger.sent < RETENTION_HOURS * 30,
            "DuckDB's write-ahead log and {NEEDED:?} are never there together: {:?}",
            kinds.keys()
        );
    };
    let fresh = ledger.sent + 1;
    // A copy is examined: the victim stays as the kill left it.
    let copy = dir.with_extension("copy");
    copy_tree(&dir, &copy);
    let mut examiner = Examiner::new();
    let reports = examiner.examine(&copy, fresh);
    match reports.as_slice() {
        [truth, _] => {
            ledger.judge(truth);
            outcome.problems.extend(ledger.verdict.problems);
            let replaced = kinds.values().flatten().filter(|file| file.starts_with("parts"));
            Victim {
                replaced: replaced.filter(|file| !copy.join(file).exists()).cloned().collect(),
                dir,
                files: kinds,
                truth: truth.clone(),
                fresh,
            }
        }
        _ => panic!("the undamaged store cannot be examined: {:?}", examiner.said),
    }
}

fn copy_tree(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let mut files = Vec::new();
    files_below(from, Path::new(""), &mut files);
    for file in files {
        let target = to.join(&file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(from.join(file), target).unwrap();
    }
}

/// A process that opens folders and reports what is in them.
struct Examiner {
    process: Option<Process>,
    examined: u64,
    peak_rss_kb: u64,
    /// What it wrote about the last folder besides the reports.
    said: Vec<String>,
}

impl Examiner {
    fn new() -> Examiner {
        Examiner {
            process: None,
            examined: 0,
            peak_rss_kb: 0,
            said: Vec::new(),
        }
    }

    /// The reports before and after a new batch; fewer if the store did not get that far.
    fn examine(&mut self, dir: &Path, fresh: u64) -> Vec<Report> {
        let process = self.process.get_or_insert_with(|| Process::start(command()));
        process.order(&format!("dir {}", dir.display()));
        process.order(&format!("first {fresh}"));
        process.order(&format!("retention {RETENTION_HOURS}"));
        process.order("examine");
        self.said.clear();
        let (mut reports, mut report) = (Vec::new(), Report::default());
        let mut done = false;
        while let Some(line) = process.line() {
            match line.as_str() {
                "reported" => reports.push(std::mem::take(&mut report)),
                "examined" => {
                    done = true;
                    break;
                }
                _ if ["failed", "stored", "duplicate", "refused"]
                    .iter()
                    .any(|w| line.starts_with(w)) =>
                {
                    self.said.push(line);
                }
                _ => report.note(&line),
            }
        }
        self.examined += 1;
        self.peak_rss_kb = self.peak_rss_kb.max(process.peak_rss_kb);
        if !done {
            self.said.push(format!("the process ended: {}", process.wait()));
        }
        if !done || self.examined.is_multiple_of(PER_PROCESS) {
            self.process = None;
        }
        reports
    }
}

struct Trial<'a> {
    kind: &'a str,
    file: &'a Path,
    damage: Damage,
    ends_journal: bool,
    without_hot_store: bool,
}

impl Trial<'_> {
    fn run(&self, victim: &Victim, dir: &Path, random: &mut Random, examiner: &mut Examiner, outcome: &mut Outcome) {
        copy_tree(&victim.dir, dir);
        if self.without_hot_store {
            let _ = fs::remove_file(dir.join("hot.duckdb"));
            let _ = fs::remove_file(dir.join("hot.duckdb.wal"));
        }
        let path = dir.join(self.file);
        let before = fs::read(&path).unwrap();
        let mut bytes = before.clone();
        self.damage.apply(&mut bytes, random);
        fs::write(&path, &bytes).unwrap();
        let mut reports = examiner.examine(dir, victim.fresh);
        outcome.trials += 1;
        for report in &mut reports {
            report.recognise(&victim.truth);
        }
        let mut problems = examiner.said.clone();
        problems.retain(|line| *line != format!("stored {}", victim.fresh));
        let [first, second] = reports.as_slice() else {
            outcome.failed_starts += 1;
            outcome.problems.push(format!("{self}: {problems:?}"));
            return;
        };
        let wrong = wrong_answers(victim, first, second);
        outcome.wrong_answers += u64::from(!wrong.is_empty());
        problems.extend(wrong);
        let missing = missing_rows(&victim.truth, first);
        let said = self.said(first);
        if missing > said && !self.ends_journal {
            problems.push(format!(
                "{missing} rows are gone, {said} are said to be: {:?}",
                first.stats
            ));
        }
        let is_checked = ["parts", "journal", "deleted.bin", "releases.bin"]
            .iter()
            .any(|place| self.file.starts_with(place));
        let is_read = is_checked && !victim.replaced.contains(self.file);
        // Damage to sums that none of these questions read is noticed by one that does, or by `verify`.
        let is_noticed = is_noticed(first) || self.is_sums() && is_found_by_verify(dir, self.file);
        if is_read && bytes != before && !self.ends_journal && !is_noticed {
            problems.push(format!("not noticed: {:?}", first.stats));
        }
        let counts = outcome.kinds.entry(self.kind.to_owned()).or_default();
        *counts = (counts.0 + 1, counts.1 + u64::from(missing > 0));
        if !problems.is_empty() {
            outcome.problems.push(format!("{self}: {problems:?}"));
        }
    }

    fn is_sums(&self) -> bool {
        let name = self.file.file_name().unwrap().to_string_lossy();
        ["sums-", "daysums-", "totals-", "runs-"]
            .iter()
            .any(|kind| name.starts_with(kind))
    }

    /// Rows that the store reports as lost.
    fn said(&self, report: &Report) -> u64 {
        // The end of the journal is cut by bytes: nobody knows how many batches that was; but a flipped bit hits one.
        let tail = u64::from(report.stat("tail_bytes_cut") > 0 && self.damage == Damage::FlippedBit);
        report.stat("rows_lost") + ROWS * (report.stat("records_lost") + report.stat("unreadable_batches") + tail)
    }
}

impl std::fmt::Display for Trial<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hot = if self.without_hot_store { ", hot store gone" } else { "" };
        write!(f, "{:?} in {}{hot}", self.damage, self.file.display())
    }
}

fn is_found_by_verify(dir: &Path, file: &Path) -> bool {
    let verified =
        emberline_storage::inspect::verify(dir, &emberline_storage::disk::RealDisk, 64, &mut |_, _, _| {}).unwrap();
    let name = file.file_name().unwrap().to_string_lossy();
    verified.damage.iter().any(|damage| damage.file.contains(&*name))
}

fn is_noticed(report: &Report) -> bool {
    [
        "records_lost",
        "tail_bytes_cut",
        "bytes_damaged",
        "unreadable_batches",
        "dedup_rebuilds",
        "parts_quarantined",
        "deletions_lost",
        "releases_forgotten",
    ]
    .iter()
    .any(|counter| report.stat(counter) > 0)
}

/// Each kind of row of a batch is there as it was sent, or not at all.
fn is_part_of(found: &Facts, truth: &Facts) -> bool {
    let samples = (found.value, found.samples);
    (samples == (truth.value, truth.samples) || samples == (0, 0))
        && [0, truth.requests].contains(&found.requests)
        && [0, truth.cpu_ns].contains(&found.cpu_ns)
        && [0, truth.exemplars].contains(&found.exemplars)
}

fn wrong_answers(victim: &Victim, first: &Report, second: &Report) -> Vec<String> {
    let mut wrong = first.contradictions();
    wrong.extend(second.contradictions());
    for (what, sums) in [("hours", first.hourly), ("quarters", first.quarterly)] {
        if !(first.total.1..=victim.truth.hourly.1).contains(&sums.1) {
            wrong.push(format!(
                "sums of {what} are {sums:?}, of samples {:?}, and were {:?}",
                first.total, victim.truth.hourly
            ));
        }
    }
    for (number, found) in &first.facts {
        if !victim
            .truth
            .facts
            .get(number)
            .is_some_and(|truth| is_part_of(found, truth))
        {
            wrong.push(format!("{number} has {found:?}"));
        }
    }
    for report in [first, second] {
        if report.deleted_rows > 0 && report.stat("deletions_lost") == 0 {
            wrong.push(format!("{} rows of a deleted service are back", report.deleted_rows));
        }
    }
    if !first.named.is_subset(&victim.truth.named) {
        wrong.push("names that nobody gave".to_owned());
    }
    for (leaf, &value) in &first.shared {
        let sent = first
            .facts
            .iter()
            .filter(|(n, f)| f.samples > 0 && (1 << 42) + **n % 5 == *leaf);
        let due = sent.count() as i64 * load::SHARED_VALUE;
        if value != due {
            wrong.push(format!("the stack of {leaf:x} has {value} and should have {due}"));
        }
    }
    if !first.unknown.is_empty() {
        wrong.push(format!("stacks that nobody sent: {:?}", first.unknown));
    }
    let mut after = second.facts.clone();
    if after.remove(&victim.fresh) != Some(load::facts(victim.fresh)) {
        wrong.push("the new batch is not there".to_owned());
    }
    if after != first.facts {
        wrong.push("a new batch changed what was told of others".to_owned());
    }
    wrong
}

fn missing_rows(truth: &Report, report: &Report) -> u64 {
    truth
        .facts
        .keys()
        .map(|number| {
            let found = report.facts.get(number).copied().unwrap_or_default();
            let rows = [found.requests == 0, found.cpu_ns == 0, found.exemplars == 0];
            u64::from(found.samples == 0) * SAMPLE_ROWS + rows.map(u64::from).iter().sum::<u64>()
        })
        .sum()
}
