//! What was acknowledged, and what a store says it holds. The campaign judges only by comparing the two.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::load::{self, Facts};

/// Offsets of leaves above this are shared by batches.
const OWN_OFFSETS: u64 = 1 << 32;

/// What a store answered.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// By batch; only what was found.
    pub facts: BTreeMap<u64, Facts>,
    /// Batches whose leaf has its name.
    pub named: BTreeSet<u64>,
    /// Offsets of leaves by the identifier of their stack.
    pub leaves: HashMap<u64, u64>,
    /// Stacks without names: identifier, value.
    pub unknown: BTreeMap<u64, Facts>,
    /// Value of the stacks shared by batches, by their leaf.
    pub shared: BTreeMap<u64, i64>,
    /// Everything added up by the store itself.
    pub total: (i64, u64),
    /// The same from sums of hours, where there are any.
    pub hourly: (i64, u64),
    /// The same from sums of quarters of a day, where there are any.
    pub quarterly: (i64, u64),
    pub stats: BTreeMap<String, u64>,
    /// What is left of the deleted service.
    pub deleted_rows: u64,
    /// Sums of all stacks, as listed.
    listed: (i64, u64),
    /// Lines that make no sense.
    pub strange: Vec<String>,
}

impl Report {
    /// Takes one line of a report.
    pub fn note(&mut self, line: &str) {
        if self.try_note(line).is_none() {
            self.strange.push(line.to_owned());
        }
    }

    fn try_note(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["stack", id, value, samples, name] => {
                let id = u64::from_str_radix(id, 16).ok()?;
                let (value, samples): (i64, u64) = (value.parse().ok()?, samples.parse().ok()?);
                self.listed = (self.listed.0 + value, self.listed.1 + samples);
                let leaf = name.get(2..).and_then(|hex| u64::from_str_radix(hex, 16).ok());
                match leaf {
                    None => drop(self.unknown.insert(
                        id,
                        Facts {
                            value,
                            samples,
                            ..Facts::default()
                        },
                    )),
                    Some(leaf) => {
                        if name.starts_with("n_") {
                            self.named.insert(leaf);
                        }
                        self.leaves.insert(id, leaf);
                        self.stack(leaf, value, samples);
                    }
                }
            }
            ["requests", start, instance, count] => {
                let number = load::number_of(start.parse().ok()?, instance)?;
                self.facts.entry(number).or_default().requests += count.parse::<u64>().ok()?;
            }
            ["window", start, instance, cpu] => {
                let number = load::number_of(start.parse().ok()?, instance)?;
                self.facts.entry(number).or_default().cpu_ns += cpu.parse::<u64>().ok()?;
            }
            ["exemplar", span, value] => {
                let number: u64 = span.parse().ok()?;
                if value.parse() != Ok(load::exemplar_value(number)) {
                    return None;
                }
                self.facts.entry(number).or_default().exemplars += 1;
            }
            ["deleted_rows", rows] => self.deleted_rows = rows.parse().ok()?,
            ["total", value, samples] => self.total = (value.parse().ok()?, samples.parse().ok()?),
            ["quarterly", value, samples] => self.quarterly = (value.parse().ok()?, samples.parse().ok()?),
            ["hourly", value, samples] => self.hourly = (value.parse().ok()?, samples.parse().ok()?),
            ["stats", name, value] => drop(self.stats.insert((*name).to_owned(), value.parse().ok()?)),
            _ => {}
        }
        Some(())
    }

    fn stack(&mut self, leaf: u64, value: i64, samples: u64) {
        if leaf >= OWN_OFFSETS {
            *self.shared.entry(leaf).or_default() += value;
            return;
        }
        let facts = self.facts.entry(leaf).or_default();
        facts.value += value;
        facts.samples += samples;
    }

    /// Assigns stacks whose names were lost to their batches, by what an undamaged store called them.
    pub fn recognise(&mut self, undamaged: &Report) {
        for (id, facts) in std::mem::take(&mut self.unknown) {
            match undamaged.leaves.get(&id) {
                Some(&leaf) => self.stack(leaf, facts.value, facts.samples),
                None => drop(self.unknown.insert(id, facts)),
            }
        }
    }

    pub fn stat(&self, name: &str) -> u64 {
        self.stats.get(name).copied().unwrap_or(0)
    }

    /// Contradictions within the report itself.
    pub fn contradictions(&self) -> Vec<String> {
        let mut found: Vec<String> = self
            .strange
            .iter()
            .map(|line| format!("strange line: {line}"))
            .collect();
        if self.total != self.listed {
            found.push(format!(
                "the total is {:?}, all stacks are {:?}",
                self.total, self.listed
            ));
        }
        found
    }
}

/// What went wrong, by kind.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    pub lost: u64,
    pub doubled: u64,
    pub problems: Vec<String>,
}

/// Everything that was sent and reported so far.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    acknowledged: BTreeSet<u64>,
    in_doubt: BTreeSet<u64>,
    named: BTreeSet<u64>,
    /// The deleted service was reported gone, and no batch of it was sent since.
    is_deleted: bool,
    /// The last batch sent.
    pub sent: u64,
    pub acknowledgements: u64,
    pub duplicates: u64,
    pub verdict: Verdict,
}

impl Ledger {
    /// Takes one line of the process under test.
    pub fn note(&mut self, line: &str) {
        if line.starts_with("failed") {
            self.verdict.problems.push(line.to_owned());
            return;
        }
        match line {
            "deleting" => self.is_deleted = false,
            "deleted" => self.is_deleted = true,
            _ => {}
        }
        let mut words = line.split(' ');
        let (Some(word), Some(Ok(number))) = (words.next(), words.next().map(str::parse::<u64>)) else {
            return;
        };
        match word {
            "sent" => {
                self.in_doubt.extend(self.sent + 1..=number);
                self.sent = self.sent.max(number);
            }
            "stored" | "duplicate" => {
                let is_new = self.acknowledged.insert(number);
                if word == "stored" && !is_new {
                    self.verdict.doubled += 1;
                    self.verdict.problems.push(format!("{number} was stored again"));
                }
                self.acknowledgements += u64::from(is_new);
                self.duplicates += u64::from(word == "duplicate");
                self.in_doubt.remove(&number);
            }
            "named" => drop(self.named.insert(number)),
            _ => {}
        }
    }

    /// Batches that were sent without anyone knowing whether they are stored.
    pub fn in_doubt(&self) -> Vec<u64> {
        self.in_doubt.iter().copied().collect()
    }

    /// Batches that were acknowledged and are recent enough to be accepted again.
    pub fn kept(&self) -> Vec<u64> {
        let oldest_s = load::clock_s(self.sent + 1) - load::RETENTION_HOURS * 3600;
        let kept = self.acknowledged.iter().copied();
        kept.filter(|&n| load::start_s(n) >= oldest_s).collect()
    }

    /// The store may forget it: its hour is before the first that is kept.
    fn is_past_retention(&self, number: u64) -> bool {
        let oldest = load::clock_s(self.sent + 1) / 3600 - load::RETENTION_HOURS;
        load::start_s(number) / 3600 < oldest
    }

    /// Compares a report with what should be there.
    pub fn judge(&mut self, report: &Report) {
        let mut problems = report.contradictions();
        if self.is_deleted && report.deleted_rows > 0 {
            self.verdict.doubled += 1;
            problems.push(format!("{} rows of a deleted service are back", report.deleted_rows));
        }
        // Expired samples may be gone while their sums are still there.
        if report.hourly.1 < report.total.1 || report.quarterly != report.hourly {
            problems.push(format!(
                "sums of quarters are {:?}, of hours {:?}, of samples {:?}",
                report.quarterly, report.hourly, report.total
            ));
        }
        for &number in &self.acknowledged {
            if !self.is_past_retention(number) && report.facts.get(&number) != Some(&load::facts(number)) {
                let found = report.facts.get(&number).copied().unwrap_or_default();
                if found != more(found, load::facts(number)) {
                    self.verdict.lost += 1;
                    problems.push(format!("{number} was acknowledged and is lost: {found:?}"));
                }
            }
        }
        let mut shared: BTreeMap<u64, i64> = BTreeMap::new();
        for (&number, &found) in &report.facts {
            let truth = load::facts(number);
            if more(truth, found) != truth {
                self.verdict.doubled += 1;
                problems.push(format!("{number} is there more than once: {found:?}"));
            } else if found != truth && !self.is_past_retention(number) {
                problems.push(format!("{number} is there in part: {found:?}"));
            }
            if number > self.sent {
                problems.push(format!("{number} was never sent"));
            }
            if found.samples > 0 {
                *shared.entry((1 << 42) + number % 5).or_default() += load::SHARED_VALUE;
            }
        }
        if shared != report.shared {
            problems.push(format!(
                "shared stacks are {:?} and should be {shared:?}",
                report.shared
            ));
        }
        for (&number, _) in report.facts.iter().filter(|(_, facts)| facts.samples > 0) {
            if self.named.contains(&number) && !report.named.contains(&number) {
                problems.push(format!("the name of {number} is lost"));
            }
        }
        if !report.unknown.is_empty() {
            problems.push(format!("{} stacks have no names", report.unknown.len()));
        }
        for counter in [
            "records_lost",
            "unreadable_batches",
            "batches_skipped",
            "parts_quarantined",
            "rows_lost",
        ] {
            if report.stat(counter) > 0 {
                problems.push(format!("{counter} is {}", report.stat(counter)));
            }
        }
        // One mistake shows in many batches.
        problems.truncate(20);
        self.verdict.problems.extend(problems);
        self.forget();
    }

    /// Stops tracking what is past retention.
    fn forget(&mut self) {
        let old = self.sent.saturating_sub(2000);
        self.acknowledged = self.acknowledged.split_off(&old);
        self.named = self.named.split_off(&old);
    }
}

/// The greater of each number.
fn more(a: Facts, b: Facts) -> Facts {
    Facts {
        value: a.value.max(b.value),
        samples: a.samples.max(b.samples),
        requests: a.requests.max(b.requests),
        cpu_ns: a.cpu_ns.max(b.cpu_ns),
        exemplars: a.exemplars.max(b.exemplars),
    }
}
