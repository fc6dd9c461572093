//! The user interface, health, counters, and the headers that all answers carry.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::body::Body;
use emberline_web::{CONTENT_SECURITY_POLICY, router};
use http::Request;
use prometheus_client::{metrics::counter::Counter, registry::Registry};

use crate::support::{World, shop};

#[tokio::test]
async fn every_answer_carries_the_policy() {
    let world = World::new(shop()).await;
    for address in [
        "/",
        "/compare?service=checkout",
        "/api/v1/services",
        "/api/v1/nothing",
        "/api/v1/diff?service=checkout&from=now-2m&format=svg",
        "/api/v1/diff?service=checkout&from=now-2m&format=html",
        "/metrics",
        "/-/healthy",
        "/assets/missing.js",
    ] {
        let answer = world.get(address).await;
        assert_eq!(
            answer.header("content-security-policy"),
            CONTENT_SECURITY_POLICY,
            "{address}"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert!(!answer.header("cache-control").is_empty());
    }
    assert!(
        CONTENT_SECURITY_POLICY.contains("default-src 'none'")
            && CONTENT_SECURITY_POLICY.contains("script-src 'self';")
    );
}

#[tokio::test]
async fn pages_of_the_interface_all_answer_the_start_page() {
    let world = World::new(Vec::new()).await;
    let start = world.get("/").await;
    assert_eq!(
        (start.status.as_u16(), start.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    assert_eq!(start.header("cache-control"), "no-cache");
    for address in [
        "/compare?service=x&from=now-1h",
        "/topology",
        "/service",
        "/alerts",
        "/status",
        "/index.html",
    ] {
        assert_eq!(world.get(address).await.body, start.body, "{address}");
    }
    for address in [
        "/assets/missing.js",
        "/favicon-that-is-not-there.ico",
        "/..%2f..%2fetc%2fpasswd.txt",
    ] {
        assert_eq!(world.get(address).await.status.as_u16(), 404, "{address}");
    }
    for asset in start
        .text()
        .split("=\"./assets/")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
    {
        let answer = world.get(&format!("/assets/{asset}")).await;
        assert_eq!(answer.status.as_u16(), 200, "{asset}");
        assert_eq!(answer.header("cache-control"), "public, max-age=31536000, immutable");
    }
    let request = Request::get("/")
        .header("if-none-match", start.header("etag"))
        .body(Body::empty())
        .unwrap();
    assert_eq!(world.send(request).await.status.as_u16(), 304);
}

/// Without `make ui` the server serves this page; its links must work.
#[tokio::test]
async fn the_placeholder_page_links_to_what_answers() {
    let placeholder = include_str!("../../src/ui_placeholder.html");
    assert!(placeholder.contains("UI not built: run <code>make ui</code>") && !placeholder.contains("<script"));
    let world = World::new(shop()).await;
    let links: Vec<&str> = placeholder
        .split("href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert!(links.len() >= 5, "{links:?}");
    for link in links {
        assert_eq!(world.get(link).await.status.as_u16(), 200, "{link}");
    }
}

#[tokio::test]
async fn a_folder_on_disk_replaces_the_embedded_interface() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("assets")).unwrap();
    std::fs::write(folder.path().join("index.html"), "<!doctype html>mine").unwrap();
    std::fs::write(folder.path().join("assets/app-1a2b.js"), "1").unwrap();
    let mut world = World::new(Vec::new()).await;
    world.state.ui_dir = Some(folder.path().to_owned());
    world.router = router(world.state.clone());
    assert_eq!(world.get("/compare").await.text(), "<!doctype html>mine");
    let asset = world.get("/assets/app-1a2b.js").await;
    assert_eq!(
        (asset.text(), asset.header("content-type")),
        ("1", "text/javascript; charset=utf-8")
    );
    assert_eq!(asset.header("cache-control"), "public, max-age=31536000, immutable");
    std::fs::write(folder.path().join("index.html"), "<!doctype html>edited").unwrap();
    assert_eq!(world.get("/").await.text(), "<!doctype html>edited");
}

#[tokio::test]
async fn readiness_says_why_not() {
    let mut world = World::new(Vec::new()).await;
    assert_eq!(world.get("/-/healthy").await.text(), "healthy\n");
    assert_eq!(world.json("/-/ready").await["ready"], true);
    let open = Arc::new(AtomicBool::new(false));
    let seen = open.clone();
    world.state.ready = Arc::new(move || match seen.load(Ordering::Relaxed) {
        true => Ok(()),
        false => Err("the collector is starting".to_owned()),
    });
    world.router = router(world.state.clone());
    let answer = world.get("/-/ready").await;
    assert_eq!(answer.status.as_u16(), 503);
    assert_eq!(answer.json()["reason"], "the collector is starting");
    assert_eq!(world.json("/api/v1/status").await["ready"], false);
    assert_eq!(
        world.get("/-/healthy").await.status.as_u16(),
        200,
        "a server that is not ready lives"
    );
    open.store(true, Ordering::Relaxed);
    assert_eq!(world.get("/-/ready").await.status.as_u16(), 200);
}

#[tokio::test]
async fn counters_of_all_parts_stand_on_one_page() {
    let mut world = World::new(shop()).await;
    let batches: Counter = Counter::default();
    batches.inc_by(7);
    let mut registry = Registry::with_prefix("emberline_collector");
    registry.register("batches", "Batches received", batches);
    world.state.registries.push(Arc::new(registry));
    world.state.ingest_status = Arc::new(|| serde_json::json!({ "batches": 7 }));
    world.router = router(world.state.clone());
    world.json("/api/v1/diff?service=checkout&from=now-2m").await;
    world.get("/api/v1/diff").await;
    world.get("/one/of/many/addresses").await;
    let page = world.get("/metrics").await;
    assert!(page.header("content-type").starts_with("application/openmetrics-text"));
    for line in [
        "emberline_web_requests_total{endpoint=\"/api/v1/diff\",status=\"200\"} 1",
        "emberline_web_requests_total{endpoint=\"/api/v1/diff\",status=\"400\"} 1",
        "emberline_web_requests_total{endpoint=\"ui\",status=\"200\"} 1",
        "emberline_store_batches_stored_total 30",
        "emberline_collector_batches_total 7",
    ] {
        assert!(page.text().contains(line), "{line} is not in\n{}", page.text());
    }
    assert!(page.text().ends_with("# EOF\n") && page.text().matches("# EOF").count() == 1);
    let status = world.json("/api/v1/status").await;
    assert_eq!(status["ingest"]["batches"], 7);
    assert_eq!(status["store"]["batches_stored"], 30);
    assert_eq!(
        (&status["symbols"]["builds"], &status["symbols"]["resolved"]),
        (&2.into(), &0.into())
    );
}

#[tokio::test]
async fn large_answers_travel_compressed_when_the_caller_accepts_it() {
    let world = World::new(shop()).await;
    let address = "/api/v1/diff?service=checkout&from=now-2m";
    let plain = world.get(address).await;
    assert_eq!(plain.header("content-encoding"), "");
    let request = Request::get(address)
        .header("accept-encoding", "gzip")
        .body(Body::empty())
        .unwrap();
    let compressed = world.send(request).await;
    assert_eq!(compressed.header("content-encoding"), "gzip");
    assert!(compressed.body.len() * 2 < plain.body.len());
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(compressed.body.as_slice())
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, plain.body);
    // A file that is compressed already is left alone.
    let request = Request::get(format!("{address}&format=pprof"))
        .header("accept-encoding", "gzip")
        .body(Body::empty())
        .unwrap();
    assert_eq!(world.send(request).await.header("content-encoding"), "");
}

#[tokio::test]
async fn an_empty_store_answers_empty_lists() {
    let world = World::new(Vec::new()).await;
    assert_eq!(world.json("/api/v1/services").await["services"], serde_json::json!([]));
    assert_eq!(world.json("/api/v1/topology").await["nodes"], serde_json::json!([]));
    let answer = world.get("/api/v1/service?service=checkout").await;
    assert_eq!(answer.json()["error"]["code"], "unknown_service");
    assert!(answer.text().contains("none are known"));
}

/// Also errors are for pages of this server alone, and other names than its own lead browsers nowhere.
#[tokio::test]
async fn pages_of_other_sites_and_foreign_names_are_refused_everywhere() {
    let mut world = World::new(shop()).await;
    world.state.allowed_hosts =
        Arc::new(emberline_web::AllowedHosts::new([], Some("https://prof.example.com/")).unwrap());
    world.router = router(world.state.clone());
    let asked = |address: &str, headers: &[(&str, &str)]| {
        let request = headers.iter().fold(Request::get(address), |request, (name, value)| {
            request.header(*name, *value)
        });
        request.body(Body::empty()).unwrap()
    };
    for address in [
        "/api/v1/services",
        "/api/v1/profile?format=svg&service=checkout",
        "/metrics",
        "/no.js",
        "/",
    ] {
        let foreign = [
            ("host", "127.0.0.1:4040"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "no-cors"),
        ];
        let rebound = [("host", "evil.example:4040"), ("sec-fetch-site", "same-origin")];
        for (headers, status, code) in [(&foreign[..], 403, "cross_site"), (&rebound, 421, "unknown_host")] {
            let answer = world.send(asked(address, headers)).await;
            assert_eq!(answer.status.as_u16(), status, "{address}");
            assert_eq!(answer.json()["error"]["code"], code, "{address}");
            assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
            assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin");
        }
    }
    let link = [
        ("host", "prof.example.com"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    assert_eq!(
        world
            .send(asked("/compare?service=checkout", &link))
            .await
            .status
            .as_u16(),
        200
    );
    assert_eq!(
        world
            .send(asked("/api/v1/services", &[("host", "any.example")]))
            .await
            .status
            .as_u16(),
        200
    );
}
