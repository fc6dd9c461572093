//! Prints `deploy/prometheus/emberline.rules.yml`.

fn main() {
    let metrics = emberline_storage::StoreStats::METRICS
        .iter()
        .chain(emberline_collector::METRICS);
    print!("{}", emberline_tests::alert_rules::rules(metrics));
}
