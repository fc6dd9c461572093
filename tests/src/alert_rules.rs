//! Prometheus alert rules for the losses that the lists of metrics name, and the tests that `promtool` runs on them.
//!
//! Guarantees: a rule for every loss, and none for anything else. It fires when the counter grows, also when the growth happened
//! before the first scrape: what a start finds damaged is counted before anybody can look.
//!
//! Wrong on purpose: when a server restarts within 15 minutes and counts exactly as much as before, only the age of the
//! process tells; an alert about a loss ends 15 minutes after it, since nothing says that it was looked at.

use std::fmt::Write;

use emberline_model::metric::{Condition, Loss, Metric};

const HEAD: &str = "\
# Alerts for what an Emberline server loses or fails at. Generated from its lists of metrics, so that no loss is without one:
#     cargo build --release --workspace --example alert_rules && target/release/examples/alert_rules > deploy/prometheus/emberline.rules.yml
# Use: rule_files: [emberline.rules.yml], and a scrape job for the server's pages (port 4040, /metrics).
groups:
  - name: emberline-losses
    rules:
";

/// Labels that a scrape adds.
const TARGET: &str = "instance=\"emberline:4040\",job=\"emberline\"";

/// Metrics whose growth is a loss, with what the loss is.
fn losses<'m>(metrics: impl IntoIterator<Item = &'m Metric>) -> impl Iterator<Item = (&'m Metric, Loss)> {
    metrics.into_iter().filter_map(|metric| Some((metric, metric.loss?)))
}

/// `emberline_store_sealed_rows_lost` becomes `EmberlineStoreSealedRowsLost`.
fn alert_name(metric: &Metric) -> String {
    let capitalised = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    metric.name.split('_').map(capitalised).collect()
}

fn severity(loss: &Loss) -> &'static str {
    if loss.is_final { "critical" } else { "warning" }
}

fn selector(metric: &Metric, conditions: &[Condition]) -> String {
    let matches = |condition: &Condition| {
        let operator = match (condition.excludes, condition.values.len()) {
            (false, 1) => "=",
            (true, 1) => "!=",
            (false, _) => "=~",
            (true, _) => "!~",
        };
        format!("{}{operator}\"{}\"", condition.label, condition.values.join("|"))
    };
    let conditions: Vec<String> = conditions.iter().map(matches).collect();
    match conditions.is_empty() {
        true => metric.sample_name(),
        false => format!("{}{{{}}}", metric.sample_name(), conditions.join(",")),
    }
}

fn expression(metric: &Metric, loss: &Loss) -> String {
    let counter = selector(metric, loss.of);
    let grew = format!("increase({counter}[15m]) > 0");
    let at_start = format!("({counter} > 0 and on (job, instance) time() - process_start_time_seconds < 900)");
    match loss.of.is_empty() {
        true => format!("{grew} or {at_start}"),
        // A series of a family may appear with its first count.
        false => format!("{grew} or {at_start} or ({counter} > 0 unless {counter} offset 15m)"),
    }
}

/// Text between double quotes, as YAML and JSON have it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The file of rules.
pub fn rules<'m>(metrics: impl IntoIterator<Item = &'m Metric>) -> String {
    let mut file = HEAD.to_owned();
    for (metric, loss) in losses(metrics) {
        let rule = format!(
            "      - alert: {}\n        expr: {}\n        labels: {{severity: {}}}\n        annotations:\n          summary: {}\n          description: {}\n",
            alert_name(metric),
            quoted(&expression(metric, &loss)),
            severity(&loss),
            quoted(&format!("{} (on {{{{ $labels.instance }}}})", metric.help)),
            quoted(loss.remedy),
        );
        file.push_str(&rule);
    }
    file
}

/// Labels of a series that is a loss, and of one of the same family that is none, where there are such.
fn example_labels(loss: &Loss) -> (String, Option<String>) {
    let write = |is_loss: bool| -> Vec<String> {
        let value = |condition: &Condition| match condition.excludes == is_loss {
            true => "anything else",
            false => condition.values[0],
        };
        loss.of
            .iter()
            .map(|of| format!("{}=\"{}\"", of.label, value(of)))
            .collect()
    };
    let joined = |labels: Vec<String>| labels.iter().map(|label| format!("{label},")).collect::<String>();
    (joined(write(true)), (!loss.of.is_empty()).then(|| joined(write(false))))
}

/// What happens to a counter and to the start of its process, minute by minute, and whether its alert is there.
struct Scenario {
    name: &'static str,
    start: &'static str,
    values: &'static str,
    at: &'static [(u32, bool)],
    /// Which series of a family: one that is a loss, or one that is none.
    of: Of,
}

enum Of {
    AnyLoss,
    LossOfFamily,
    NoLossOfFamily,
}

const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "grows while the server runs",
        start: "0x90",
        values: "0x30 3x60",
        at: &[(10, false), (35, true), (60, false)],
        of: Of::AnyLoss,
    },
    Scenario {
        name: "was counted at the start",
        start: "0x90",
        values: "5x60",
        at: &[(5, true), (40, false)],
        of: Of::AnyLoss,
    },
    Scenario {
        name: "stays at nothing",
        start: "0x90",
        values: "0x60",
        at: &[(5, false), (40, false)],
        of: Of::AnyLoss,
    },
    Scenario {
        name: "begins at nothing after a restart",
        start: "0x20 1260x70",
        values: "5x20 0x40",
        at: &[(25, false), (45, false)],
        of: Of::AnyLoss,
    },
    Scenario {
        name: "appears with its first count",
        start: "0x90",
        values: "_x30 1x60",
        at: &[(20, false), (35, true)],
        of: Of::LossOfFamily,
    },
    Scenario {
        name: "is another series of the family",
        start: "0x90",
        values: "0x30 3x60",
        at: &[(10, false), (35, false)],
        of: Of::NoLossOfFamily,
    },
];

/// The file of tests: for each rule, that it fires for the fault it names and for nothing else. All counters share a test,
/// because each test evaluates all rules.
pub fn promtool_tests<'m>(rules_file: &str, metrics: impl IntoIterator<Item = &'m Metric>) -> String {
    let losses: Vec<(&Metric, Loss)> = losses(metrics).collect();
    let mut file = format!(
        "rule_files: [{}]\nevaluation_interval: 1m\ntests:\n",
        quoted(rules_file)
    );
    for scenario in SCENARIOS {
        let _ = write!(
            file,
            "  - name: {}\n    interval: 1m\n    input_series:\n      - {{series: {}, values: \"{}\"}}\n",
            quoted(scenario.name),
            quoted(&format!("process_start_time_seconds{{{TARGET}}}")),
            scenario.start,
        );
        let mut expected = String::new();
        for (metric, loss) in &losses {
            let (of_loss, of_others) = example_labels(loss);
            let labels = match (&scenario.of, of_others) {
                (Of::AnyLoss, _) | (Of::LossOfFamily, Some(_)) => of_loss,
                (Of::NoLossOfFamily, Some(of_others)) => of_others,
                (Of::LossOfFamily | Of::NoLossOfFamily, None) => continue,
            };
            let series = format!("{}{{{labels}{TARGET}}}", metric.sample_name());
            let _ = writeln!(
                file,
                "      - {{series: {}, values: \"{}\"}}",
                quoted(&series),
                scenario.values
            );
            for &(minute, fires) in scenario.at {
                expected.push_str(&expectation(metric, loss, &labels, minute, fires));
            }
        }
        let _ = write!(file, "    alert_rule_test:\n{expected}");
    }
    file
}

fn expectation(metric: &Metric, loss: &Loss, labels: &str, minute: u32, fires: bool) -> String {
    let alert = alert_name(metric);
    let head = format!("      - eval_time: {minute}m\n        alertname: {alert}\n        exp_alerts:");
    if !fires {
        return format!("{head} []\n");
    }
    let labels = format!("{labels}{TARGET}").replace('=', ": ");
    format!(
        "{head}\n          - exp_labels: {{severity: {}, {labels}}}\n            exp_annotations:\n              summary: {}\n              description: {}\n",
        severity(loss),
        quoted(&format!("{} (on emberline:4040)", metric.help)),
        quoted(loss.remedy),
    )
}
