//! What the configuration says when it cannot be used, word for word: operators read it.

use emberline_proxy::config;

const GOOD: &str = "\
workload: {namespace: demo, service: frontend, version: v1, instance: frontend-1}
workers: 1
admin: 127.0.0.1:15000
collector: {endpoint: \"http://127.0.0.1:4317\"}
profiler: {hz: 99, enabled: true}
routes: [\"/cart/{id}\", \"/checkout\"]
inbound:
  - {listen: 127.0.0.1:8080, to: 127.0.0.1:9080, protocol: auto, trusted_callers: [10.0.0.0/8]}
outbound:
  - listen: 127.0.0.1:8081
    service: checkout
    routes: [\"/checkout\", \"/quote/{id}\"]
    destinations: [{address: 127.0.0.1:9101, weight: 50}, {address: checkout-v2:9102, weight: 50}]
    timeouts: {connect_ms: 1000, request_ms: 30000, idle_ms: 60000}
limits: {memory_bytes: 50000000, max_connections: 2000, max_header_bytes: 16384}
trace: {create: true, sampled: 0.5}
drain_seconds: 10
";

fn message(text: &str) -> String {
    config::parse("proxy.yaml".as_ref(), text).expect_err(text).to_string()
}

fn changed(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    message(&GOOD.replacen(from, to, 1))
}

#[test]
fn the_documented_configuration_loads() {
    let config = config::parse("proxy.yaml".as_ref(), GOOD).unwrap();
    assert_eq!(
        (
            config.inbound.len(),
            config.outbound[0].destinations.len(),
            config.trace.sampled
        ),
        (1, 2, 0.5)
    );
    assert_eq!(config.limits.detect_ms, 1000);
    let small = config::parse(
        "p".as_ref(),
        "workload: {service: a}\ninbound: [{listen: 127.0.0.1:1, to: 127.0.0.1:2}]",
    )
    .unwrap();
    assert_eq!(
        (small.workers, small.drain_seconds, small.workload.version.as_str()),
        (1, 10, "unknown")
    );
    assert!(!small.workload.instance.is_empty());
}

#[test]
fn every_message_has_the_line_and_says_what_to_write() {
    for (from, to, expected) in [
        (
            "    service: checkout\n",
            "    servcie: checkout\n",
            "proxy.yaml:11: unknown key `servcie`: did you mean `service`? (keys here: listen, service, hosts, routes, \
             destinations, clusters, rules, filters, tls, balancer, hash_on, balancer_options, outlier, health, retries, protocol, \
             upstream_protocol, timeouts)",
        ),
        (
            "drain_seconds: 10",
            "zzz: 10",
            "proxy.yaml:17: unknown key `zzz`: remove it (keys here: workload, workers, admin, collector, profiler, \
             routes, inbound, outbound, limits, trace, access_log, drain_seconds, drain_delay_seconds)",
        ),
        (
            "protocol: auto",
            "protocol: htp1",
            "proxy.yaml:8: unknown value `htp1`: did you mean `http1`? use one of auto, http1, http2, tcp",
        ),
        (
            ", to: 127.0.0.1:9080",
            "",
            "proxy.yaml:8: the key `to` in `inbound[0]` is missing: add `to: 127.0.0.1:9080`",
        ),
        (
            "workers: 1",
            "workers: 0",
            "proxy.yaml:2: workers: 0 is out of range: use a number of threads from 1 to 64",
        ),
        (
            "connect_ms: 1000",
            "connect_ms: soon",
            "proxy.yaml:14: outbound[0].timeouts.connect_ms: invalid type: string \"soon\", expected milliseconds from 1 to 86400000",
        ),
        (
            "127.0.0.1:9101, weight: 50",
            "127.0.0.1, weight: 50",
            "proxy.yaml:13: outbound[0].destinations[0].address: `127.0.0.1` is not a valid address (the port is missing): use, for example, `127.0.0.1:9080`",
        ),
        (
            "listen: 127.0.0.1:8081",
            "listen: localhost:8081",
            "proxy.yaml:10: outbound[0].listen: `localhost:8081` is not an IP address with a port: use, for example, \
             `127.0.0.1:8080` or `0.0.0.0:8080`",
        ),
        (
            "http://127.0.0.1:4317",
            "ftp://127.0.0.1:4317",
            "proxy.yaml:4: collector.endpoint: `ftp://127.0.0.1:4317` cannot be used: it must begin with http:// or https://; use, \
             for example, `http://127.0.0.1:4317` or `https://collector:4317`",
        ),
        (
            "endpoint: \"http://127.0.0.1:4317\"",
            "endpoint: \"https://127.0.0.1:4317\", tls: {cert_file: own.pem}",
            "proxy.yaml:4: collector.tls: `cert_file` is set without `key_file`: set both, or neither",
        ),
        (
            "endpoint: \"http://127.0.0.1:4317\"",
            "endpoint: \"http://127.0.0.1:4317\", tls: {ca_file: ca.pem}",
            "proxy.yaml:4: `collector.tls` has no effect without an `https://` endpoint: use one, or remove `tls`",
        ),
        (
            "\"/cart/{id}\"",
            "\"cart/{id}\"",
            "proxy.yaml:6: routes[0]: `cart/{id}` is not a path template: it must begin with `/`; use, for example, \
             `/cart/{id}` or `/static/{*rest}`",
        ),
        (
            "\"/quote/{id}\"",
            "\"/checkout\"",
            "proxy.yaml:12: the templates `/checkout` and `/checkout` match the same paths: remove one",
        ),
        (
            "sampled: 0.5",
            "sampled: 5",
            "proxy.yaml:16: trace.sampled: 5 is out of range: use a share from 0 to 1",
        ),
        (
            "listen: 127.0.0.1:8081",
            "listen: 127.0.0.1:8080",
            "proxy.yaml:10: 127.0.0.1:8080 is used by two listeners: give each its own port",
        ),
        (
            "to: 127.0.0.1:9080",
            "to: 127.0.0.1:8080",
            "proxy.yaml:8: `to: 127.0.0.1:8080` is the listener itself: set it to the application's address",
        ),
        (
            "[{address: 127.0.0.1:9101, weight: 50}, {address: checkout-v2:9102, weight: 50}]",
            "[]",
            "proxy.yaml:13: `destinations` of checkout is empty: add `destinations: [{address: 127.0.0.1:9101}]`",
        ),
        (
            "weight: 50}, {address: checkout-v2:9102, weight: 50}",
            "weight: 0}",
            "proxy.yaml:13: every destination of checkout has weight 0: give at least one a `weight` above 0",
        ),
        (
            "inbound:\n  -",
            "inbound:\n\t-",
            "proxy.yaml:8: this line is indented with a tab: use spaces",
        ),
    ] {
        assert_eq!(changed(from, to), expected, "{from} -> {to}");
    }
}

#[test]
fn what_contradicts_in_how_requests_are_shared_is_told() {
    for (keys, expected) in [
        (
            "balancer: maglev",
            "this balancer hashes a key: add, for example, `hash_on: {header: x-user}`",
        ),
        (
            "hash_on: source_address",
            "`hash_on` has no effect with this balancer: use `balancer: maglev`, or remove it",
        ),
        (
            "balancer: maglev\n    hash_on: {header: 'x user'}",
            "`x user` is not a valid header name",
        ),
        (
            "balancer: ring_hash\n    hash_on: {cookie: 'a=b'}",
            "`a=b` is not a valid cookie name",
        ),
        (
            "balancer_options: {table_size: 65536}",
            "65536 is not a prime: use, for example, 65537",
        ),
        (
            "balancer_options: {table_size: 2}",
            "`table_size` must be larger than the number of endpoints (2 here)",
        ),
        (
            "balancer_options: {ring_max_points: 9}",
            "`ring_max_points` is below `ring_min_points` (1024): raise it",
        ),
        (
            "outlier: {max_ejected_percent: 0}",
            "0 is out of range: use a percentage from 1 to 100",
        ),
        (
            "health: {path: healthz}",
            "`healthz` is not a path: use, for example, `/healthz`",
        ),
        (
            "health: {check: tcp, path: /healthz}",
            "`path` and `expect` have no effect with this check: use `check: http`, or remove them",
        ),
        (
            "health: {service: shop.Cart}",
            "`service` has no effect with this check: use `check: grpc`, or remove it",
        ),
        (
            "retries: {on: [often]}",
            "`often` is not a reason for a retry: use connect_failure, unprocessed, reset, timeout or a status such as 503",
        ),
        (
            "retries: {per_try_ms: 40000}",
            "`per_try_ms: 40000` has no effect above `timeouts.request_ms` (30000): lower it, or remove it",
        ),
    ] {
        let line = "    timeouts: {connect_ms";
        let told = changed(line, &format!("    {keys}\n{line}"));
        assert!(told.starts_with("proxy.yaml:1") && told.ends_with(expected), "{told}");
    }
}

#[test]
fn several_contradictions_are_told_together() {
    let text = GOOD.replacen("weight: 50}, {address: checkout-v2:9102, weight: 50}", "weight: 0}", 1);
    let text = text.replacen("listen: 127.0.0.1:8081", "listen: 127.0.0.1:15000", 1);
    assert_eq!(message(&text).lines().count(), 2);
}

#[test]
fn files_that_are_no_configuration_say_so() {
    assert_eq!(
        message(" \n"),
        "proxy.yaml:1: the file is empty: add at least `workload` and a listener"
    );
    assert_eq!(
        message("workers: 1\n"),
        "proxy.yaml:1: the key `workload` is missing: add `workload: {service: cart, version: v1}`"
    );
    assert_eq!(
        message("workload: {service: a}\n"),
        "proxy.yaml:1: no listener: add `inbound: [{listen: 127.0.0.1:8080, to: 127.0.0.1:9080}]` or an `outbound` entry"
    );
    assert!(message("workload: {service: a\ninbound: [").starts_with("proxy.yaml:"));
    let missing = config::load("/nowhere/proxy.yaml".as_ref()).unwrap_err().to_string();
    assert!(
        missing.starts_with("/nowhere/proxy.yaml: cannot read the configuration: No such file"),
        "{missing}"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.yaml");
    std::fs::write(&path, vec![b'#'; 2 << 20]).unwrap();
    assert!(
        config::load(&path)
            .unwrap_err()
            .to_string()
            .contains("is this the right file?")
    );
}

#[test]
fn hostile_yaml_is_an_error_and_not_a_hang() {
    let nested = "[".repeat(100_000);
    message(&nested);
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    message(bomb);
}

#[test]
fn tls_that_verifies_nobody_is_refused() {
    let inbound = |more: &str| changed(", protocol: auto", &format!(", protocol: auto, {more}"));
    for (said, expected) in [
        (
            inbound("tls: {cert_file: a, key_file: b}"),
            "client certificates cannot be verified without `client_ca_file`: set it, or `require_client_certificate: false`",
        ),
        (
            inbound("identity: certificate"),
            "`identity: certificate` trusts nobody without `tls` and its `client_ca_file`: set them",
        ),
        (
            changed("service: checkout", "service: checkout\n    tls: {spiffe_id: cart}"),
            "`cart` is not a SPIFFE id: use, for example, `spiffe://cluster.local/ns/shop/sa/cart`",
        ),
        (
            changed("service: checkout", "service: checkout\n    tls: {cert_file: a}"),
            "`cert_file` is set without `key_file`: set both, or neither",
        ),
        (
            changed("service: checkout", "service: checkout\n    health: {}\n    tls: {}"),
            "health checks connect to the addresses of a name: say with `server_name` or `spiffe_id` whose certificate they expect",
        ),
    ] {
        assert!(said.contains(expected), "{said}");
    }
}

proptest::proptest! {
    /// Whatever a hand or a template does to the file: it is read, or refused with its line.
    #[test]
    fn a_changed_configuration_is_read_or_refused_with_its_line(
        changes in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 0usize..12, "\\PC{0,6}"), 1..5),
    ) {
        let mut text = GOOD.to_owned();
        for (at, length, with) in changes {
            let starts: Vec<usize> = text.char_indices().map(|(start, _)| start).collect();
            if starts.is_empty() {
                break;
            }
            let first = at.index(starts.len());
            let end = starts.get(first + length).copied().unwrap_or(text.len());
            text.replace_range(starts[first]..end, &with);
        }
        if let Err(error) = config::parse("proxy.yaml".as_ref(), &text) {
            proptest::prop_assert!(error.to_string().starts_with("proxy.yaml:"), "{error}\n{text}");
        }
    }
}
