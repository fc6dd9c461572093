//! A page of another site, in a real browser, stores nothing, states nothing and learns nothing; the server's own page and a
//! link to it work.

use std::{process::Command, time::Duration};

use emberline_tests::{Scratch, Server, get, get_json, repository, request, serial, wait_for};
use serde_json::Value;

#[test]
fn pages_of_other_sites_neither_write_nor_learn_anything() {
    let _serial = serial();
    let scratch = Scratch::new("cross-site");
    let server = Server::start(&scratch.path().join("data"));
    let path = "/api/ingest?service=known&version=v1&time=received";
    assert_eq!(
        request(server.otlp_http, "POST", path, "", b"main;leaf 5\n")
            .unwrap()
            .status,
        200
    );
    let services = || -> Option<Vec<String>> {
        let services = get_json(server.web, "/api/v1/services?from=now-1h").ok()?["services"].clone();
        let names = services.as_array()?.iter().filter_map(|s| s["service"].as_str());
        Some(names.map(str::to_owned).collect())
    };
    wait_for("stored profile", Duration::from_secs(60), || {
        services().filter(|names| names.iter().any(|name| name == "known"))
    });

    let output = Command::new("node")
        .arg(repository().join("web/ui/e2e/cross_site.mjs"))
        .env("BASE_URL", format!("http://{}", server.web))
        .env("INGEST_URL", format!("http://{}", server.otlp_http))
        .env("SERVICE", "known")
        .current_dir(repository().join("web/ui"))
        .output()
        .expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    // An opaque answer would have the status 0 and type `opaque`: the policy of resources takes it away altogether.
    for what in ["upload", "statement", "reading"] {
        assert_eq!(found["attack"][what], "failed", "{what}: {found:#}");
    }
    for what in ["picture", "script"] {
        assert_eq!(found["attack"][what], "error", "{what}: {found:#}");
    }
    assert!(
        found["followed"].as_str().unwrap().contains("Emberline"),
        "a link leads to the page: {found:#}"
    );
    assert!(
        found["own"]["title"].as_str().unwrap().contains("Emberline"),
        "{found:#}"
    );
    assert_eq!(found["own"]["problems"], serde_json::json!([]), "{found:#}");
    assert_eq!(
        (&found["own"]["picture"], &found["own"]["statement"]),
        (&"load".into(), &200.into()),
        "{found:#}"
    );

    // What would have been stored would be there by now: it is applied in the order in which it came.
    assert_eq!(
        request(
            server.otlp_http,
            "POST",
            &path.replace("known", "later"),
            "",
            b"main;leaf 5\n"
        )
        .unwrap()
        .status,
        200
    );
    let names = wait_for("later profile", Duration::from_secs(60), || {
        services().filter(|names| names.iter().any(|name| name == "later"))
    });
    assert_eq!(names.len(), 2, "something was planted: {names:?}");
    let releases = get_json(server.web, "/api/v1/releases?service=known&from=now-1h").unwrap();
    assert_eq!(releases["releases"].as_array().unwrap().len(), 1, "{releases:#}");
    assert_eq!(get(server.web, "/-/ready").unwrap().status, 200);
    server.stop();
}
