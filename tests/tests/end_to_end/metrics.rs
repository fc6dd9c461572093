//! What a real server says about itself: every counter is a metric, every loss has an alert rule that `promtool` tried, and the
//! dashboard asks for what is there.

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use emberline_collector::METRICS;
use emberline_model::metric::Metric;
use emberline_storage::StoreStats;
use emberline_tests::{Scratch, Server, alert_rules, get, get_json, repository, request, serial};

fn metrics() -> impl Iterator<Item = &'static Metric> {
    StoreStats::METRICS.iter().chain(METRICS)
}

#[test]
fn every_counter_of_store_and_collector_is_at_metrics_and_every_loss_in_the_status() {
    let _serial = serial();
    let scratch = Scratch::new("metrics");
    let server = Server::start(&scratch.path().join("data"));
    // A loss that a sender can cause.
    let refused = request(
        server.otlp_http,
        "POST",
        "/v1/metrics",
        "application/x-protobuf",
        &[0x0a, 0x7f],
    )
    .unwrap();
    assert_eq!(refused.status, 400);
    let page = String::from_utf8(get(server.web, "/metrics").unwrap().body).unwrap();
    for metric in metrics() {
        let line = format!("# TYPE {} {}\n", metric.name, metric.kind.word());
        assert!(page.contains(&line), "{line} is not in\n{page}");
    }
    let start = page
        .lines()
        .find_map(|line| line.strip_prefix("process_start_time_seconds "));
    assert!(start.unwrap().parse::<f64>().unwrap() > 1.7e9, "{start:?}");
    let status = get_json(server.web, "/api/v1/status").unwrap();
    let losses = status["losses"].as_array().unwrap();
    let named: BTreeSet<&str> = losses.iter().map(|loss| loss["name"].as_str().unwrap()).collect();
    let all: BTreeSet<&str> = metrics()
        .filter(|metric| metric.loss.is_some())
        .map(|metric| metric.name)
        .collect();
    assert_eq!(named, all);
    let happened: Vec<&str> = losses
        .iter()
        .filter(|loss| loss["count"].as_u64().unwrap() > 0)
        .map(|loss| loss["name"].as_str().unwrap())
        .collect();
    assert_eq!(happened, ["emberline_collector_ingest_requests"]);
    the_dashboard_asks_for_what_is_at_metrics(&page);
}

/// The names of series in a text.
fn series_in(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_name(c))
        .filter(|word| word.starts_with("emberline_") || word.starts_with("process_"))
        .collect()
}

fn the_dashboard_asks_for_what_is_at_metrics(page: &str) {
    let path = repository().join("deploy/grafana/dashboards/emberline-server.json");
    let dashboard: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    // What has a label appears with its first count, but its type is there from the start.
    let mut known = BTreeSet::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        known.extend(match kind {
            "counter" => vec![format!("{name}_total")],
            "histogram" => ["bucket", "sum", "count"].map(|part| format!("{name}_{part}")).to_vec(),
            _ => vec![name.to_owned()],
        });
    }
    let mut asked = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            asked.extend(series_in(target["expr"].as_str().unwrap()));
        }
    }
    for name in &asked {
        assert!(
            known.contains(*name),
            "the dashboard asks for {name}, which is not at /metrics"
        );
    }
    for metric in metrics().filter(|metric| metric.loss.is_some()) {
        let name = metric.sample_name();
        assert!(
            asked.contains(name.as_str()),
            "the dashboard does not show the loss {name}"
        );
    }
}

#[test]
fn the_alert_rules_are_those_of_the_list() {
    let path = repository().join("deploy/prometheus/emberline.rules.yml");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == alert_rules::rules(metrics()),
        "{} is not what the lists of metrics give: cargo build --release --workspace --example alert_rules && target/release/examples/alert_rules > {}",
        path.display(),
        path.display()
    );
}

/// `promtool` from where the set-up puts it, or from the PATH.
fn promtool() -> Option<PathBuf> {
    let own = repository().join("third_party/prometheus/bin/promtool");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("promtool"));
    std::iter::once(own).chain(on_path).find(|path| path.is_file())
}

#[test]
fn every_alert_rule_fires_for_its_fault_and_is_silent_without() {
    let Some(promtool) = promtool() else {
        println!("skipped: there is no promtool; `make test` fetches it where apt can (Debian's package prometheus)");
        return;
    };
    let scratch = Scratch::new("promtool");
    let rules = repository().join("deploy/prometheus/emberline.rules.yml");
    let tests = scratch.path().join("tests.yml");
    std::fs::write(&tests, alert_rules::promtool_tests(rules.to_str().unwrap(), metrics())).unwrap();
    for arguments in [
        ["check", "rules", rules.to_str().unwrap()],
        ["test", "rules", tests.to_str().unwrap()],
    ] {
        let output = Command::new(&promtool).args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success(),
            "{arguments:?}:\n{}",
            String::from_utf8_lossy(&said)
        );
    }
}
