//! What the latency verdict does beside the usual rules: false alarms where nothing changed, and how often and how fast a
//! change is found; with seeds and 95 % intervals (Clopper and Pearson).
//!
//! `cargo run --release -p emberline-analysis --example replay -- [RUNS] [quiet] [hostile] [found] [rules] [nohistory] [only=ROW] [SETTING=VALUE]`

mod hostile;
mod rules;
#[path = "../../tests/analysis/support/mod.rs"]
mod support;
mod traffic;
mod watch;

use emberline_analysis::latency::LatencyConfig;
use traffic::{Change, Model, Request, Split};
use watch::Said;

struct Options {
    runs: u64,
    parts: Vec<String>,
    config: LatencyConfig,
    /// Rows whose name contains this.
    only: Option<String>,
}

impl Options {
    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|p| p == part)
    }
    /// Whether a row was asked for.
    fn shows(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }
    fn has(&self, flag: &str) -> bool {
        self.parts.iter().any(|p| p == flag)
    }
}

fn main() {
    let mut runs = 200;
    let (mut parts, mut only) = (Vec::new(), None);
    let mut config = LatencyConfig::default();
    for argument in std::env::args().skip(1) {
        if let Some(name) = argument.strip_prefix("only=") {
            only = Some(name.to_owned());
        } else if let Some((name, value)) = argument.split_once('=') {
            set(&mut config, name, value);
        } else if let Ok(n) = argument.parse() {
            runs = n;
        } else {
            parts.push(argument);
        }
    }
    let options = Options {
        runs,
        parts,
        config,
        only,
    };
    if options.wants("quiet") {
        quiet(&options);
    }
    if options.wants("hostile") {
        hostile(&options);
    }
    if options.wants("found") {
        found(&options);
    }
}

/// Sets one setting of the verdict, to see what it buys and costs.
fn set(config: &mut LatencyConfig, name: &str, value: &str) {
    let Ok(value) = value.parse::<f64>() else {
        panic!("{name}: {value} is no number");
    };
    match name {
        "alpha" => config.alpha = value,
        "block_alpha" => config.block_alpha = value,
        "block_windows" => config.block_windows = value as u32,
        "tested" => config.tested_relative = value,
        "tested_after" => config.before_after_tested_relative = value,
        "floor" => config.floor_relative = value,
        "wander" => config.wander_errors = value,
        "stratum" => config.min_stratum_requests = value as u64,
        _ => panic!("no setting {name}"),
    }
}

const HALF: Split = Split::Concurrent {
    share: 0.5,
    by_trace: false,
};

fn splits() -> Vec<(&'static str, Split)> {
    let concurrent = |share, by_trace| Split::Concurrent { share, by_trace };
    vec![
        ("1/2 by request", concurrent(0.5, false)),
        ("1/4 by request", concurrent(0.25, false)),
        ("1/10 by request", concurrent(0.1, false)),
        ("9/10 by request", concurrent(0.9, false)),
        ("1/2 by trace", concurrent(0.5, true)),
        ("1/4 by trace", concurrent(0.25, true)),
        ("1/10 by trace", concurrent(0.1, true)),
        ("before/after", Split::BeforeAfter),
    ]
}

/// What is said of some requests.
fn said(options: &Options, mut requests: Vec<Request>, split: Split) -> Said {
    let before_after = split == Split::BeforeAfter;
    let rules = if options.has("rules") {
        watch::usual(&requests, before_after)
    } else {
        Default::default()
    };
    if options.has("nohistory") && !before_after {
        requests.retain(|request| request.at >= 0.0);
    }
    Said {
        verdict: watch::verdict(&requests, &options.config),
        rules,
    }
}

fn print_head(title: &str) {
    println!("\n{title}");
}

fn row(name: &str, all: &[Said], with_rules: bool) {
    let within = |minutes: f64, of: &dyn Fn(&Said) -> Option<f64>| {
        all.iter()
            .filter(|said| of(said).is_some_and(|at| at <= minutes))
            .count()
    };
    let verdict = |said: &Said| said.verdict;
    let percent = |hits: usize| 100.0 * hits as f64 / all.len().max(1) as f64;
    let (ten, hour) = (within(10.0, &verdict), within(60.0, &verdict));
    let (low, high) = rules::interval(hour, all.len());
    let mut at: Vec<f64> = all.iter().filter_map(verdict).collect();
    at.sort_by(f64::total_cmp);
    let median = at.get(at.len() / 2).map_or("-".to_owned(), |at| format!("{at:.0}"));
    let (ten_low, ten_high) = rules::interval(ten, all.len());
    print!(
        "{name:<40} {:>5.1} / {:>5.1}  [{:.1}, {:.1}] / [{:.1}, {:.1}]  median {median} min, n {}",
        percent(ten),
        percent(hour),
        100.0 * ten_low,
        100.0 * ten_high,
        100.0 * low,
        100.0 * high,
        all.len()
    );
    if with_rules {
        for (at, name) in rules::NAMES.iter().enumerate() {
            let of = |said: &Said| said.rules[at];
            print!(
                "; {name} {:.0} / {:.0}",
                percent(within(10.0, &of)),
                percent(within(60.0, &of))
            );
        }
    }
    println!();
}

fn quiet(options: &Options) {
    print_head(
        "No change, recorded-like traffic (.02 to 1 request/s of the smaller side): stated within 10 / 60 min, %",
    );
    let mut whole = Vec::new();
    for (name, split) in splits() {
        let all: Vec<Said> = (0..options.runs)
            .map(|seed| {
                let model = Model::recorded_like(seed, (0.02, 1.0), split);
                said(options, model.draw(split, Change::None, seed + 10_000), split)
            })
            .collect();
        row(name, &all, options.has("rules"));
        whole.extend(all);
    }
    row("all", &whole, false);
    figure("verdict_false_alarms_percent", share(&whole, 60.0));
}

fn share(all: &[Said], minutes: f64) -> f64 {
    let hits = all
        .iter()
        .filter(|said| said.verdict.is_some_and(|at| at <= minutes))
        .count();
    100.0 * hits as f64 / all.len().max(1) as f64
}

fn figure(name: &str, value: f64) {
    println!("{name} {value:.2}");
}

fn hostile(options: &Options) {
    let mut worst: f64 = 0.0;
    for (title, split) in [("concurrent 1/2", HALF), ("before/after", Split::BeforeAfter)] {
        print_head(&format!(
            "No change, hostile settings, {title}: stated within 10 / 60 min, %"
        ));
        for setting in hostile::settings() {
            if !options.shows(setting.name) || (setting.concurrent_only && split == Split::BeforeAfter) {
                continue;
            }
            let runs = if setting.model.rate > 50.0 {
                (options.runs / 20).max(1)
            } else {
                options.runs
            };
            let all: Vec<Said> = (0..runs)
                .map(|seed| said(options, setting.model.draw(split, Change::None, seed + 20_000), split))
                .collect();
            row(setting.name, &all, options.has("rules"));
            let share = share(&all, 60.0);
            if share > setting.most_percent {
                println!("    above the promise of {} %", setting.most_percent);
            }
            if split != Split::BeforeAfter && setting.most_percent < 5.0 {
                worst = worst.max(share);
            }
        }
    }
    figure("verdict_hostile_false_alarms_percent", worst);
}

fn found(options: &Options) {
    let recorded = |name, (least, most), split, change| {
        if !options.shows(name) {
            return (0.0, 0.0);
        }
        let all: Vec<Said> = (0..options.runs)
            .map(|seed| {
                let model = Model::recorded_like(seed + 50_000, (least, most), split);
                said(options, model.draw(split, change, seed + 30_000), split)
            })
            .collect();
        row(name, &all, options.has("rules"));
        (share(&all, 10.0), share(&all, 60.0))
    };
    let usual = (0.1, 1.0);
    let quarter = Split::Concurrent {
        share: 0.25,
        by_trace: true,
    };
    print_head("A change, recorded-like traffic (.1 to 1 request/s of the smaller side): found within 10 / 60 min, %");
    recorded("concurrent 1/2, x1.05", usual, HALF, Change::Times(1.05));
    recorded("concurrent 1/2, x1.10", usual, HALF, Change::Times(1.10));
    let twenty = recorded("concurrent 1/2, x1.20 (35 / 80)", usual, HALF, Change::Times(1.20));
    recorded("concurrent 1/2, x1.50 (70 / 98)", usual, HALF, Change::Times(1.50));
    recorded("concurrent 1/4 by trace, x1.20", usual, quarter, Change::Times(1.20));
    recorded("concurrent 1/4 by trace, x1.50", usual, quarter, Change::Times(1.50));
    let after = recorded(
        "before/after, x1.20 (35 / 65)",
        usual,
        Split::BeforeAfter,
        Change::Times(1.20),
    );
    recorded(
        "before/after, x1.50 (75 / 92)",
        usual,
        Split::BeforeAfter,
        Change::Times(1.50),
    );
    let adds = |share, seconds| Change::Adds { share, seconds };
    recorded(
        "busy (.5 to 5/s), +20 ms on 10 % (30/60)",
        (0.5, 5.0),
        HALF,
        adds(0.1, 0.020),
    );
    // What the server takes, and with it the way there and back, which takes longer to the candidate.
    recorded(
        "network delay of 100 ms, by callers (75 / -)",
        usual,
        HALF,
        Change::Way(0.1),
    );
    recorded("the same, by the server (0)", usual, HALF, Change::None);
    let made = |name, model: &Model, split, change| {
        if !options.shows(name) {
            return;
        }
        let all: Vec<Said> = (0..options.runs)
            .map(|seed| said(options, model.draw(split, change, seed + 40_000), split))
            .collect();
        row(name, &all, options.has("rules"));
    };
    print_head("The same, made-up routes, 2.5 requests/s a side");
    let cached = Model {
        misses: Some((0.10, 13.7)),
        ..Model::plain()
    };
    made("hit rate 90 to 85 % (40 / 85)", &cached, HALF, Change::Misses(0.15));
    let tiny = Model {
        median: 0.000_2,
        ..Model::plain()
    };
    made("0.2 ms x3 (95)", &tiny, HALF, Change::Times(3.0));
    made("independent, x1.2", &Model::plain(), HALF, Change::Times(1.2));
    let sessions = Model {
        session: Some((30, 1.0, 0.8)),
        ..Model::plain()
    };
    made("sessions of 30, x1.5", &sessions, HALF, Change::Times(1.5));
    figure("verdict_found_20_in_10min_percent", twenty.0);
    figure("verdict_found_20_in_60min_percent", twenty.1);
    figure("verdict_found_20_before_after_60min_percent", after.1);
}
