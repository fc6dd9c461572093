//! What the process under test does. It judges nothing: it reports the outcome of its orders and what the store
//! answers.

use std::{
    collections::BTreeMap,
    io::{BufRead, Write},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use emberline_model::{Frame, ProfileType};
use emberline_storage::{
    Appended, ExemplarQuery, Label, LabelFilter, Options, QueryError, Range, RequestQuery, StackQuery, Step, Store,
    TotalsQuery, WindowQuery, WorkloadFilter,
};

use super::{
    Random,
    failpoints::{FailpointDisk, Point},
    load, process,
};
use crate::common::TestClock;

/// How long anything may take before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Writing only fails when the parent is gone.
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Runs when the environment says that this process is the one under test.
pub fn run() {
    // The test harness has already started a line.
    say("");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut orders = BTreeMap::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "live" => return runtime.block_on(live(&orders)),
            "examine" => runtime.block_on(examine(&orders)),
            "fill" => return runtime.block_on(super::disk_full::fill(&orders)),
            "replay" => return runtime.block_on(super::replay::replay(&orders)),
            _ => drop(orders.insert(word.to_owned(), rest.to_owned())),
        }
    }
}

/// Orders, keyed by their first word.
pub type Orders = BTreeMap<String, String>;

pub fn number(orders: &Orders, word: &str) -> u64 {
    orders.get(word).and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub fn folder(orders: &Orders) -> PathBuf {
    PathBuf::from(&orders["dir"])
}

pub fn options(orders: &Orders) -> Options {
    let retention_hours = match number(orders, "retention") {
        0 => load::RETENTION_HOURS,
        hours => hours as i64,
    };
    super::options(&folder(orders), retention_hours)
}

fn numbers(orders: &Orders, word: &str) -> Vec<u64> {
    let text = orders.get(word).map_or("", String::as_str);
    text.split_ascii_whitespace().map(|n| n.parse().unwrap()).collect()
}

/// Sends, asks, seals and applies retention until it is killed.
async fn live(orders: &Orders) {
    let (first, limit) = (number(orders, "first"), number(orders, "limit"));
    let mut random = Random::new(number(orders, "seed"));
    let point: Option<Point> = orders.get("point").map(|text| text.parse().unwrap());
    let disk = FailpointDisk::new(point, number(orders, "nth"), &folder(orders));
    let clock = TestClock::at(load::clock_s(first));
    let store = match Store::open_on(options(orders), clock.clone(), Arc::new(disk)) {
        Ok(store) => store,
        Err(error) => return say(&format!("failed to open: {error}")),
    };
    report(&store).await;
    for again in numbers(orders, "again") {
        send(&store, vec![again]).await;
    }
    if orders.contains_key("delete") {
        delete(&store, first).await;
    }
    let asking = tokio::spawn(ask(store.clone(), random.clone()));
    for retried in numbers(orders, "retry").chunks(8) {
        send(&store, retried.to_vec()).await;
    }
    let mut next = first;
    while next < first + limit {
        let last = next + random.below(8);
        clock.set(load::clock_s(last));
        say(&format!("sent {last}"));
        send(&store, (next..=last).collect()).await;
        for named in (next..=last).filter(|&n| load::is_named(n)) {
            let frame = Frame {
                function: load::name(named),
                ..Frame::default()
            };
            match store.put_symbols(load::NAMED_BUILD, vec![(named, vec![frame])]) {
                Ok(()) => say(&format!("named {named}")),
                Err(error) => say(&format!("failed to name: {error}")),
            }
        }
        next = last + 1;
        if random.below(4) == 0 {
            let _ = store.seal().await;
        }
        if random.below(6) == 0 {
            let _ = store.apply_retention().await;
        }
        if random.below(8) == 0 {
            let _ = store.compact().await;
        }
    }
    asking.abort();
    if orders.contains_key("report") {
        report(&store).await;
    }
    store.close();
    say(&format!("rss {}\nclosed", process::peak_rss_kb("self").unwrap_or(0)));
}

/// Stores a batch of a service and deletes that service.
async fn delete(store: &Store, number: u64) {
    say("deleting");
    if let Err(error) = store.append(load::of_deleted(number)).await {
        return say(&format!("failed to store what is to be deleted: {error}"));
    }
    match store.delete_service("demo", load::DELETED_SERVICE, &mut |_| {}).await {
        Ok(_) => say("deleted"),
        Err(error) => say(&format!("failed to delete: {error}")),
    }
}

/// Hands batches over together, and reports what became of each; returns those that have to be sent again.
pub async fn send(store: &Store, numbers: Vec<u64>) -> Vec<u64> {
    let mut refused = Vec::new();
    let appended: Vec<_> = numbers.into_iter().map(|n| (n, store.append(load::made(n)))).collect();
    for (n, appended) in appended {
        match appended.await {
            Ok(Appended::Stored { .. }) => say(&format!("stored {n}")),
            Ok(Appended::Duplicate) => say(&format!("duplicate {n}")),
            Err(error) if error.is_retryable() => {
                say(&format!("refused {n} {error}"));
                refused.push(n);
            }
            Err(error) => say(&format!("failed to store {n}: {error}")),
        }
    }
    refused
}

/// Asks questions at any moment; the answers are checked after the restart.
async fn ask(store: Store, mut random: Random) {
    loop {
        let asked = match random.below(3) {
            0 => store.ask(stacks(Step::Window)).await.map(drop),
            1 => store.ask(requests()).await.map(drop),
            _ => store.ask(totals()).await.map(drop),
        };
        if let Err(error) = asked
            && !error.is_retryable()
        {
            say(&format!("failed to answer: {error}"));
        }
        tokio::time::sleep(Duration::from_millis(random.below(20))).await;
    }
}

fn stacks(step: Step) -> StackQuery {
    StackQuery {
        step,
        ..StackQuery::new(WorkloadFilter::service(load::SERVICE), ProfileType::CPU, Range::ALL)
    }
}

fn requests() -> RequestQuery {
    RequestQuery {
        step: Step::Window,
        by_instance: true,
        ..RequestQuery::new(WorkloadFilter::service(load::SERVICE), Range::ALL)
    }
}

fn windows(service: &str) -> WindowQuery {
    WindowQuery {
        who: WorkloadFilter::service(service),
        component: None,
        range: Range::ALL,
    }
}

pub fn totals() -> TotalsQuery {
    TotalsQuery {
        who: WorkloadFilter::service(load::SERVICE),
        component: None,
        profile_type: ProfileType::CPU.into(),
        only_complete: false,
        step: Step::Window,
        by_route: true,
        range: Range::ALL,
    }
}

/// Reports what the store answers, once everything it holds is visible.
pub async fn report(store: &Store) {
    let until = Instant::now() + PATIENCE;
    loop {
        let flushed = tokio::time::timeout(PATIENCE, store.flush_applied()).await;
        let lines = match flushed {
            Ok(Ok(())) => lines(store).await,
            Ok(Err(error)) => Err(error),
            Err(_) => return say(&format!("failed to apply: {:?}", store.stats())),
        };
        match lines {
            Ok(lines) => {
                say(&lines);
                break;
            }
            Err(error) if error.is_retryable() && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return say(&format!("failed to answer: {error}")),
        }
    }
    let stats = store.stats();
    for (name, value) in [
        ("records_lost", stats.journal_records_lost),
        ("tail_bytes_cut", stats.journal_tail_bytes_cut),
        ("bytes_damaged", stats.journal_bytes_damaged),
        ("unreadable_batches", stats.journal_unreadable_batches),
        ("dedup_rebuilds", stats.dedup_rebuilds),
        ("symbols_damaged", stats.symbol_records_damaged),
        ("hot_rebuilds", stats.hot_rebuilds),
        ("batches_skipped", stats.batches_skipped),
        ("parts_quarantined", stats.parts_quarantined),
        ("rows_lost", stats.sealed_rows_lost),
        ("deletions_lost", stats.deletions_lost),
        ("releases_forgotten", stats.releases_forgotten),
    ] {
        say(&format!("stats {name} {value}"));
    }
    let peak = process::peak_rss_kb("self").unwrap_or(0);
    say(&format!("rss {peak}\nreported"));
}

async fn lines(store: &Store) -> Result<String, QueryError> {
    // From single samples; the sums of hours must agree with these as long as nothing is damaged.
    let mut sums: BTreeMap<u64, (i64, u64)> = BTreeMap::new();
    for row in store.ask(stacks(Step::Window)).await?.rows {
        let sum = sums.entry(row.stack_id).or_default();
        *sum = (sum.0 + row.value, sum.1 + row.samples);
    }
    let ids: Vec<u64> = sums.keys().copied().collect();
    let resolved = store.resolve(&ids).await?;
    let mut lines = vec!["report".to_owned()];
    for (id, (value, samples)) in sums {
        let leaf = resolved.frames(id).next();
        let name = leaf.map_or("-", |f| &resolved.functions[f as usize].name);
        lines.push(format!("stack {id:x} {value} {samples} {name}"));
    }
    // Cut within a quarter of the day, sums of its hours answer; uncut, those of quarters, if there are any.
    for (word, cuts) in [("quarterly", vec![]), ("hourly", vec![load::CUT_S])] {
        let (mut value, mut samples, mut from_unix_s) = (0, 0, Range::ALL.from_unix_s);
        for to_unix_s in cuts.into_iter().chain([Range::ALL.to_unix_s]) {
            let query = StackQuery {
                range: Range { from_unix_s, to_unix_s },
                ..stacks(Step::Range)
            };
            let found = store.ask(query).await?;
            (value, samples) = (value + found.value, samples + found.samples);
            from_unix_s = to_unix_s;
        }
        lines.push(format!("{word} {value} {samples}"));
    }
    let mut per_window: BTreeMap<(i64, String), u64> = BTreeMap::new();
    for row in store.ask(requests()).await? {
        *per_window.entry((row.window_start_s, row.instance)).or_default() += row.duration.count();
    }
    for ((start, instance), count) in per_window {
        lines.push(format!("requests {start} {instance} {count}"));
    }
    for mark in store.ask(windows(load::SERVICE)).await? {
        let (start, instance, cpu) = (mark.window_start_s, mark.workload.instance, mark.stats.cpu_ns);
        lines.push(format!("window {start} {instance} {cpu}"));
    }
    let exemplars = ExemplarQuery {
        filters: vec![of_service(load::SERVICE)],
        ..ExemplarQuery::new(Range::ALL, 10_000)
    };
    for row in store.ask(exemplars).await?.rows {
        lines.push(format!("exemplar {} {}", row.span_id, row.value));
    }
    lines.push(format!("deleted_rows {}", rows_of_deleted(store).await?));
    let sums = store.ask(totals()).await?;
    let (value, samples) = sums.iter().fold((0, 0), |(v, s), row| (v + row.value, s + row.samples));
    lines.push(format!("total {value} {samples}"));
    Ok(lines.join("\n"))
}

fn of_service(service: &str) -> LabelFilter {
    LabelFilter {
        label: Label::Service,
        values: vec![service.to_owned()],
        negated: false,
    }
}

/// How much of the deleted service any kind of question finds.
async fn rows_of_deleted(store: &Store) -> Result<usize, QueryError> {
    let who = WorkloadFilter::service(load::DELETED_SERVICE);
    let mut rows = store.ask(windows(load::DELETED_SERVICE)).await?.len();
    for step in [Step::Range, Step::Window] {
        let stacks = StackQuery {
            step,
            ..StackQuery::new(who.clone(), ProfileType::CPU, Range::ALL)
        };
        rows += store.ask(stacks).await?.rows.len();
    }
    rows += store.ask(RequestQuery::new(who, Range::ALL)).await?.len();
    let exemplars = ExemplarQuery {
        filters: vec![of_service(load::DELETED_SERVICE)],
        ..ExemplarQuery::new(Range::ALL, 10)
    };
    Ok(rows + store.ask(exemplars).await?.rows.len())
}

/// Opens a damaged folder, reports what is left, and stores another batch.
async fn examine(orders: &Orders) {
    let fresh = number(orders, "first");
    match Store::open(options(orders), TestClock::at(load::clock_s(fresh))) {
        Ok(store) => {
            report(&store).await;
            send(&store, vec![fresh]).await;
            report(&store).await;
            store.close();
        }
        Err(error) => say(&format!("failed to open: {error}")),
    }
    say("examined");
}
