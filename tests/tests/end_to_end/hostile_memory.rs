//! No request makes the server's memory grow without bound: the real process, with default settings, stays below the
//! cap. `make bench NAME=hostile` prints it attack by attack.

use std::time::Duration;

use emberline_tests::{MEMORY_CAP_BYTES, Scratch, Server, get, get_json, hostile, request, serial, wait_for};

#[test]
fn requests_made_to_cost_memory_stay_below_the_stated_cap() {
    let _serial = serial();
    let scratch = Scratch::new("hostile-memory");
    let server = Server::start(&scratch.path().join("data"));
    let well = |name: &str| {
        let path = format!("/api/ingest?service={name}&version=v1&time=received");
        request(server.otlp_http, "POST", &path, "", b"main;leaf 5\n")
            .unwrap()
            .status
    };
    assert_eq!(well("before"), 200);
    let open = hostile::stalled(&server, 100);
    for attack in hostile::attacks() {
        for status in hostile::send(server.otlp_http, &attack, 2) {
            assert!([0, 200, 400, 413, 503].contains(&status), "{}: {status}", attack.name);
        }
        let peak = server.peak_rss_mb();
        assert!(peak < MEMORY_CAP_BYTES as f64 / 1e6, "{peak} MB after {}", attack.name);
        assert_eq!(get(server.web, "/-/ready").unwrap().status, 200, "{}", attack.name);
    }
    assert_eq!(well("after"), 200);
    drop(open);
    // What is acknowledged is in answers once everything before it has been applied.
    wait_for("both services in an answer", Duration::from_secs(120), || {
        let services = get_json(server.web, "/api/v1/services").ok()?["services"].clone();
        let names: Vec<&str> = services
            .as_array()?
            .iter()
            .filter_map(|s| s["service"].as_str())
            .collect();
        (names.contains(&"before") && names.contains(&"after")).then_some(())
    });
    server.stop();
}
