//! Valid configurations, and invalid ones, each refused with its line.

use std::path::Path;

use super::*;

fn read(text: &str) -> Result<ScrapeConfig, String> {
    parse(Path::new("/etc/scrape.yaml"), text).map_err(|error| error.to_string())
}

fn one_job(more: &str) -> String {
    format!("scrape_configs:\n  - job_name: shop\n    static_configs: [{{targets: ['127.0.0.1:1']}}]\n{more}")
}

#[test]
fn a_job_has_the_defaults_of_all_and_its_own() {
    let text = format!(
        "global: {{scrape_interval: 30s}}\n{}",
        one_job("    path_prefix: /x\n    profiles: {heap: {path: /h}, block: {enabled: false}}\n")
    );
    let config = read(&text).unwrap();
    let job = &config.jobs[0];
    assert_eq!((job.interval.as_secs(), job.timeout.as_secs()), (30, 10));
    let paths: Vec<&str> = job.endpoints.iter().map(|endpoint| endpoint.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/x/debug/pprof/profile?seconds=10",
            "/x/h",
            "/x/debug/pprof/mutex",
            "/x/debug/pprof/goroutine"
        ]
    );
    assert_eq!(config.folder, Path::new("/etc"));
    assert_eq!((job.scheme, job.tls.is_empty()), (Scheme::Http, true));
    let text = one_job("    scheme: https\n    tls_config: {ca_file: tls/ca.pem, server_name: shop}\n");
    let job = &read(&text).unwrap().jobs[0];
    assert_eq!(job.scheme, Scheme::Https);
    assert_eq!(job.tls.ca_file.as_deref(), Some(Path::new("/etc/tls/ca.pem")));
}

#[test]
fn what_heap_and_allocs_both_hold_is_taken_once() {
    let kept = |yaml: &str| -> Vec<(Kind, Keeps)> {
        let config = read(&one_job(yaml)).unwrap();
        let endpoints = config.jobs[0].endpoints.iter();
        endpoints
            .filter(|e| matches!(e.kind, Kind::Heap | Kind::Allocs))
            .map(|e| (e.kind, e.keeps))
            .collect()
    };
    assert_eq!(kept(""), [(Kind::Heap, Keeps::All)]);
    assert_eq!(
        kept("    profiles: {allocs: {enabled: true}}"),
        [(Kind::Heap, Keeps::Gauges), (Kind::Allocs, Keeps::Counters)]
    );
    assert_eq!(
        kept("    profiles: {heap: {enabled: false}, allocs: {enabled: true}}"),
        [(Kind::Allocs, Keeps::All)]
    );
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (text, line, said) in [
        (
            one_job("    job: x\n"),
            4,
            "unknown key `job`: did you mean `job_name`?",
        ),
        (
            one_job("    scheme: ftp\n"),
            4,
            "unknown value `ftp`: use one of http, https",
        ),
        (
            one_job("    tls_config: {ca_file: ca.pem}\n"),
            4,
            "no effect without `scheme: https`",
        ),
        (
            one_job("    scheme: https\n    tls_config: {cert_file: own.pem}\n"),
            5,
            "`cert_file` is set without `key_file`",
        ),
        (
            one_job("    scheme: https\n    tls_config: {insecure_skip_verify: true}\n"),
            5,
            "unknown key `insecure_skip_verify`",
        ),
        (
            one_job("    scrape_interval: 5s\n    scrape_timeout: 6s\n"),
            5,
            "scrape_timeout",
        ),
        (one_job("    scrape_interval: soon\n"), 4, "`soon` is not a duration"),
        (
            one_job("    relabel_configs: [{action: keep, regex: '('}]\n"),
            4,
            "cannot be used",
        ),
        (
            one_job("    relabel_configs: [{source_labels: [a]}]\n"),
            4,
            "target_label",
        ),
        (
            one_job("    dns_sd_configs: [{names: [a], type: SRV, port: 1}]\n"),
            4,
            "remove it",
        ),
        (
            one_job("    dns_sd_configs: [{names: [a], type: AAAA}]\n"),
            4,
            "needs a `port`",
        ),
        (
            one_job("    file_sd_configs: [{files: ['*/a.yaml']}]\n"),
            4,
            "last path segment",
        ),
        (one_job("    profiles: {profile: {seconds: 16}}\n"), 4, "`seconds: 16`"),
        (one_job("    profiles: {heap: {seconds: 1}}\n"), 4, "only `profile`"),
        (
            one_job("    profiles: {wall: {enabled: true}}\n"),
            4,
            "unknown key `wall`",
        ),
        (one_job("    path_prefix: x\n"), 4, "path_prefix"),
        (one_job("  - {job_name: shop, static_configs: []}\n"), 4, "two jobs"),
        ("scrape_configs: []\n".to_owned(), 1, "is empty"),
        ("scrape_configs:\n  - {job_name: a}\n".to_owned(), 2, "no targets"),
        (
            one_job("    static_configs: [{targets: ['http://a']}]\n"),
            4,
            "`static_configs` occurs twice",
        ),
        (one_job("").replace("127.0.0.1:1", "http://a/b"), 3, "`http://a/b`"),
        (format!("limits: {{max_targets: 0}}\n{}", one_job("")), 1, "max_targets"),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.contains(said), "{error}\n{text}");
        let place = error.split(": ").next().unwrap_or_default();
        let at = place.rsplit(':').next().unwrap_or_default();
        assert_eq!(at, line.to_string(), "{error}\n{text}");
    }
}

proptest::proptest! {
    /// Keys and values in any place and nesting: accepted, or refused with a line.
    #[test]
    fn text_of_any_kind_is_read_or_refused(
        lines in proptest::collection::vec((0usize..4, proptest::sample::select(vec![
            "scrape_configs:", "- job_name: a", "- job_name: b", "scheme: https", "scheme: http", "tls_config: {ca_file: [x], server_name: 'a b'}", "static_configs:",
            "- targets: ['127.0.0.1:1', 'x']", "labels: {service: s}", "dns_sd_configs: [{names: [a.b], type: SRV, port: 99999}]",
            "file_sd_configs: [{files: ['*.yaml', '/etc/../*']}]", "relabel_configs: [{source_labels: [a], regex: '((', action: drop}]",
            "profiles: {heap: {enabled: 7}, profile: {seconds: 99999999999}}", "scrape_interval: 9999999y", "scrape_timeout: -1s",
            "global: &a {scrape_interval: 15s}", "global: *a", "limits: {max_targets: 18446744073709551616}", "path_prefix: \"\\0\"", "? [x]", "!!binary |",
        ])), 0..12),
        noise in "\\PC{0,40}",
    ) {
        let text: String = lines.iter().map(|(depth, line)| format!("{}{line}\n", "  ".repeat(*depth))).collect();
        for text in [format!("{text}{noise}"), one_job(&text), noise] {
            if let Err(error) = read(&text) {
                proptest::prop_assert!(error.starts_with("/etc/scrape.yaml:"), "{error}");
            }
        }
    }
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for depth in 1..12 {
        let before = vec![format!("*a{}", depth - 1); 10].join(", ");
        text.push_str(&format!("a{depth}: &a{depth} [{before}]\n"));
    }
    assert!(read(&text).is_err());
    assert!(read(&format!("scrape_configs: {}", "[".repeat(100_000))).is_err());
}
