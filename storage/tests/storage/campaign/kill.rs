//! `kill -9`, again and again, at random moments and at every failpoint in turn. After each start, the last kill is
//! judged before new load is sent; batches in doubt are sent again, and so are some that were acknowledged.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use super::{
    MEMORY_CAP_MB, Random,
    failpoints::POINTS,
    ledger::{Ledger, Report},
    process::{Process, command},
};

/// What a campaign found.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub cycles: u64,
    pub acknowledged: u64,
    pub duplicates: u64,
    pub lost: u64,
    pub doubled: u64,
    pub problems: Vec<String>,
    /// How often the kill happened at which place.
    pub places: BTreeMap<String, u64>,
    pub peak_rss_mb: u64,
}

/// Kills `cycles` times, then checks once more, also without the hot store.
pub fn run(cycles: u64, seed: u64, dir: &Path) -> Outcome {
    // The old copy of the hot store is kept next to it.
    let dir = &dir.join("store");
    let mut campaign = Campaign {
        random: Random::new(seed),
        ledger: Ledger::default(),
        outcome: Outcome::default(),
    };
    for cycle in 0..cycles {
        campaign.cycle(cycle, dir);
        campaign.tamper(cycle, dir);
        if cycle % 100 == 99 {
            println!(
                "{} of {cycles}: {} acknowledged",
                cycle + 1,
                campaign.ledger.acknowledgements
            );
        }
        if !campaign.ledger.verdict.problems.is_empty() {
            println!("cycle {cycle}: {:#?}", campaign.ledger.verdict.problems);
            break;
        }
    }
    campaign.look(dir);
    let _ = fs::remove_file(dir.join("hot.duckdb"));
    campaign.look(dir);
    let (ledger, mut outcome) = (campaign.ledger, campaign.outcome);
    if outcome.peak_rss_mb > MEMORY_CAP_MB {
        outcome
            .problems
            .push(format!("{} MiB were resident", outcome.peak_rss_mb));
    }
    outcome.cycles = cycles;
    outcome.acknowledged = ledger.acknowledgements;
    outcome.duplicates = ledger.duplicates;
    (outcome.lost, outcome.doubled) = (ledger.verdict.lost, ledger.verdict.doubled);
    outcome.problems.extend(ledger.verdict.problems);
    outcome
}

struct Campaign {
    random: Random,
    ledger: Ledger,
    outcome: Outcome,
}

impl Campaign {
    fn start(&mut self, dir: &Path, orders: &[(&str, String)]) -> Process {
        let mut process = Process::start(command());
        let text = |numbers: Vec<u64>| {
            let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
            words.join(" ")
        };
        let kept = self.ledger.kept();
        let chosen = (0..3).filter_map(|_| kept.get(self.random.below(kept.len().max(1) as u64) as usize));
        let again: Vec<u64> = chosen.copied().collect();
        process.order(&format!("dir {}", dir.display()));
        process.order(&format!("first {}", self.ledger.sent + 1));
        process.order(&format!("seed {}", self.random.number()));
        process.order(&format!("retry {}", text(self.ledger.in_doubt())));
        process.order(&format!("again {}", text(again)));
        for (word, rest) in orders {
            process.order(&format!("{word} {rest}"));
        }
        process.order("live");
        process.end_orders();
        process
    }

    fn cycle(&mut self, cycle: u64, dir: &Path) {
        let at_point = cycle % 4 != 3;
        let point = POINTS[(cycle - cycle / 4) as usize % POINTS.len()];
        let mut orders = vec![("limit", "2000".to_owned())];
        let mut patience = 1 + self.random.below(120);
        if at_point {
            // Some places are reached before the store is up: the kill then happens during recovery.
            let nth = 1 + self.random.below(point.times());
            orders.extend([("point", point.to_string()), ("nth", nth.to_string())]);
            patience = 250;
        }
        if cycle % 6 == 4 {
            orders.push(("delete", String::new()));
        }
        let mut process = self.start(dir, &orders);
        let (mut report, mut answered) = (Report::default(), false);
        let mut killed_at = "random".to_owned();
        let mut heard = 0;
        while let Some(line) = process.line() {
            if let Some(place) = line.strip_prefix("at ") {
                place.clone_into(&mut killed_at);
            }
            if line == "reported" {
                self.ledger.judge(&std::mem::take(&mut report));
                answered = true;
            } else if answered || line.starts_with("failed") {
                self.ledger.note(&line);
                heard += u64::from(line.starts_with("stored") || line.starts_with("duplicate"));
            } else {
                report.note(&line);
            }
            if heard == patience {
                std::thread::sleep(Duration::from_micros(self.random.below(16_000)));
                process.kill();
                // What is still in the pipe was written before the kill.
                heard += 1;
            }
        }
        let status = process.wait();
        let by_signal = std::os::unix::process::ExitStatusExt::signal(&status);
        if by_signal != Some(9) {
            self.ledger
                .verdict
                .problems
                .push(format!("the process ended by itself: {status}"));
        }
        self.outcome.peak_rss_mb = self.outcome.peak_rss_mb.max(process.peak_rss_kb >> 10);
        *self.outcome.places.entry(killed_at).or_default() += 1;
    }

    /// Sometimes removes the hot store, or restores an old copy of it.
    fn tamper(&mut self, cycle: u64, dir: &Path) {
        let (hot, log) = (dir.join("hot.duckdb"), dir.join("hot.duckdb.wal"));
        let copy = dir.with_extension("hot");
        match cycle % 14 {
            3 | 9 => {
                let _ = fs::remove_file(hot);
                let _ = fs::remove_file(log);
            }
            5 => drop(fs::copy(hot, copy)),
            12 => {
                let _ = fs::remove_file(log);
                let _ = fs::copy(copy, hot);
            }
            _ => {}
        }
    }

    /// A start without a kill, which ends by itself.
    fn look(&mut self, dir: &Path) {
        let mut process = self.start(dir, &[("limit", "0".to_owned()), ("report", String::new())]);
        let (mut report, mut reports) = (Report::default(), 0);
        while let Some(line) = process.line() {
            match line.as_str() {
                "reported" => {
                    self.ledger.judge(&std::mem::take(&mut report));
                    reports += 1;
                }
                _ => {
                    self.ledger.note(&line);
                    report.note(&line);
                }
            }
        }
        if reports != 2 || !process.wait().success() {
            self.ledger.verdict.problems.push("the last look failed".to_owned());
        }
    }
}
