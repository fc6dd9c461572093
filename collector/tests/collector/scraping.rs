//! Scraping real sockets into a real store: recorded files of Go's runtime, restarts, targets that misbehave.

use std::{collections::HashMap, net::SocketAddr, path::Path, sync::Arc};

use crate::support::{Server, eventually};
use axum::{Router, extract::State, http::StatusCode, response::IntoResponse};
use emberline_collector::scrape;
use emberline_storage::{Range, SelectedQuery, StackQuery, WorkloadFilter};
use parking_lot::Mutex;
use tokio::net::TcpListener;

const ALLOC_SPACE: &str = "memory:alloc_space:bytes:space:bytes";
const INUSE_SPACE: &str = "memory:inuse_space:bytes:space:bytes";
const GOROUTINES: &str = "goroutine:goroutine:count:goroutine:count";
const MUTEX_DELAY: &str = "mutex:delay:nanoseconds:contentions:count";

/// What a recorded file of Go's runtime holds; see `model/tests/fixtures/go`.
fn go_file(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/go");
    std::fs::read(folder.join(format!("{name}.pb.gz"))).unwrap()
}

/// A program with pages that a test changes; it counts how often each was asked for.
#[derive(Clone, Default)]
struct Program(Arc<Mutex<HashMap<String, Page>>>);

/// Status, body, and how often it was asked for.
type Page = (StatusCode, Vec<u8>, usize);

impl Program {
    fn set(&self, path: &str, status: StatusCode, body: Vec<u8>) {
        self.0.lock().insert(path.to_owned(), (status, body, 0));
    }

    fn asked(&self, path: &str) -> usize {
        self.0.lock().get(path).map_or(0, |page| page.2)
    }

    /// Waits until a page was asked for twice since it was set: the answer to the first is stored then.
    async fn seen(&self, path: &str) {
        eventually("two scrapes", || async { (self.asked(path) >= 2).then_some(()) }).await;
    }

    async fn serve(&self) -> SocketAddr {
        async fn page(State(program): State<Program>, uri: http::Uri) -> impl IntoResponse {
            let mut pages = program.0.lock();
            let path = uri.path_and_query().unwrap().as_str();
            let Some(page) = pages.get_mut(path) else {
                return (StatusCode::NOT_FOUND, [("location", "/elsewhere")], Vec::new());
            };
            page.2 += 1;
            (page.0, [("location", "/elsewhere")], page.1.clone())
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(page).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }
}

/// Which profiles of the job are on.
fn job(target: SocketAddr, on: &[&str]) -> String {
    let switches = ["profile", "heap", "allocs", "mutex", "block", "goroutine"]
        .map(|kind| format!("{kind}: {{enabled: {}}}", on.contains(&kind)));
    format!(
        "scrape_configs:\n  - job_name: shop\n    scrape_interval: 200ms\n    scrape_timeout: 200ms\n    profiles: {{{}}}\n    \
         static_configs:\n      - {{targets: ['{target}'], labels: {{version: v1, instance: one}}}}\n",
        switches.join(", ")
    )
}

async fn scraping(yaml: &str) -> Server {
    let config = scrape::parse(Path::new("scrape.yaml"), yaml).unwrap();
    let mut server = Server::start(|settings| settings.scrape = Some(config)).await;
    server.spawn_tasks();
    server
}

async fn stored(server: &Server, profile_type: &str) -> i64 {
    server.store.flush_applied().await.unwrap();
    let query = StackQuery::new(WorkloadFilter::service("shop"), profile_type, Range::ALL);
    let found = server.store.ask(query).await.unwrap();
    found.rows.iter().map(|row| row.value).sum()
}

/// Their mean over time; `None` as long as nothing is stored.
async fn goroutines(server: &Server) -> Option<i64> {
    server.store.flush_applied().await.unwrap();
    let query = SelectedQuery::new(GOROUTINES, Vec::new(), Range::ALL);
    let rows = server.store.ask(query).await.unwrap();
    rows.first().map(|row| row.value)
}

/// The row of a profile on the status page.
fn row(server: &Server, profile: &str) -> Option<serde_json::Value> {
    let status = server.collector.status_probe()();
    let rows = status["scrape"]["targets"].as_array().unwrap();
    rows.iter().find(|row| row["profile"] == profile).cloned()
}

async fn error_of(server: &Server, profile: &str) -> String {
    eventually("a scrape that fails", || async {
        let row = row(server, profile)?;
        (row["state"] == "down").then(|| row["last_error"].as_str().unwrap().to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_of_go_are_stored_as_growth_across_a_restart() {
    let program = Program::default();
    let path = "/debug/pprof/allocs";
    program.set(path, StatusCode::OK, go_file("allocs"));
    let server = scraping(&job(program.serve().await, &["allocs"])).await;
    program.seen(path).await;
    assert_eq!(
        stored(&server, ALLOC_SPACE).await,
        0,
        "the first scrape only sets the base"
    );
    program.set(path, StatusCode::OK, go_file("allocs-later"));
    program.seen(path).await;
    // As `go tool pprof -base allocs.pb.gz allocs-later.pb.gz` says.
    assert_eq!(stored(&server, ALLOC_SPACE).await, 78_821_831);
    program.set(path, StatusCode::OK, go_file("allocs-restarted"));
    program.seen(path).await;
    assert_eq!(stored(&server, ALLOC_SPACE).await, 78_821_831 + 62_412_369);
    assert_eq!(row(&server, "allocs").unwrap()["restarts"], 1);
    assert!(stored(&server, INUSE_SPACE).await > 0, "gauges are stored as they are");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn growth_that_a_failing_target_hid_is_made_up_for() {
    let program = Program::default();
    let path = "/debug/pprof/mutex";
    program.set(path, StatusCode::OK, go_file("mutex"));
    let server = scraping(&job(program.serve().await, &["mutex"])).await;
    program.seen(path).await;
    program.set(path, StatusCode::INTERNAL_SERVER_ERROR, b"out of order".to_vec());
    let error = error_of(&server, "mutex").await;
    assert!(error.contains("500") && error.contains("out of order"), "{error}");
    program.set(path, StatusCode::OK, go_file("mutex-later"));
    program.seen(path).await;
    assert_eq!(stored(&server, MUTEX_DELAY).await, 6_148_760_923 - 4_846_199_875);
    assert_eq!(row(&server, "mutex").unwrap()["state"], "up");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_heap_and_allocs_both_hold_counts_once() {
    let program = Program::default();
    for kind in ["heap", "allocs"] {
        program.set(&format!("/debug/pprof/{kind}"), StatusCode::OK, go_file("allocs"));
    }
    let server = scraping(&job(program.serve().await, &["heap", "allocs"])).await;
    for kind in ["heap", "allocs"] {
        program.seen(&format!("/debug/pprof/{kind}")).await;
    }
    for kind in ["heap", "allocs"] {
        program.set(&format!("/debug/pprof/{kind}"), StatusCode::OK, go_file("allocs-later"));
    }
    for kind in ["heap", "allocs"] {
        program.seen(&format!("/debug/pprof/{kind}")).await;
    }
    assert_eq!(stored(&server, ALLOC_SPACE).await, 78_821_831);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_in_use_is_not_doubled_where_allocs_is_scraped_beside_heap() {
    let program = Program::default();
    program.set("/debug/pprof/heap", StatusCode::SERVICE_UNAVAILABLE, Vec::new());
    program.set("/debug/pprof/allocs", StatusCode::OK, go_file("allocs"));
    let server = scraping(&job(program.serve().await, &["heap", "allocs"])).await;
    program.seen("/debug/pprof/allocs").await;
    assert_eq!(stored(&server, INUSE_SPACE).await, 0, "that is for `heap` to say");
    program.set("/debug/pprof/heap", StatusCode::OK, go_file("allocs"));
    program.seen("/debug/pprof/heap").await;
    assert!(stored(&server, INUSE_SPACE).await > 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gauge_that_is_scraped_more_often_than_windows_end_keeps_its_size() {
    let program = Program::default();
    let path = "/debug/pprof/goroutine";
    program.set(path, StatusCode::OK, go_file("goroutine"));
    let server = scraping(&job(program.serve().await, &["goroutine"])).await;
    let first = eventually("a scrape is stored", || goroutines(&server)).await;
    // So many of them do not fit into windows of their own.
    eventually("more scrapes", || async { (program.asked(path) >= 12).then_some(()) }).await;
    assert_eq!(goroutines(&server).await, Some(first));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_misbehave_are_told_and_bounded() {
    let program = Program::default();
    let address = program.serve().await;
    let bomb = {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
        encoder.finish().unwrap()
    };
    let pages = [
        ("heap", StatusCode::OK, vec![b'x'; 100_000], "max_profile_bytes"),
        ("mutex", StatusCode::FOUND, Vec::new(), "redirect"),
        ("block", StatusCode::OK, b"<html>".to_vec(), "pprof"),
        ("goroutine", StatusCode::OK, bomb, "max_profile_bytes"),
    ];
    for (kind, status, body, _) in &pages {
        program.set(&format!("/debug/pprof/{kind}"), *status, body.clone());
    }
    let yaml = job(address, &["heap", "mutex", "block", "goroutine"]);
    let server = scraping(&format!("limits: {{max_profile_bytes: 65536}}\n{yaml}")).await;
    for (kind, _, _, said) in &pages {
        let error = error_of(&server, kind).await;
        assert!(error.contains(said), "{kind}: {error}");
    }
    assert_eq!(program.asked("/elsewhere"), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_says_nothing_is_left_after_its_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = scraping(&job(silent.local_addr().unwrap(), &["heap"])).await;
    let error = error_of(&server, "heap").await;
    assert!(error.contains("scrape_timeout"), "{error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_leaves_its_file_is_no_longer_scraped() {
    let program = Program::default();
    let address = program.serve().await;
    program.set("/debug/pprof/goroutine", StatusCode::OK, go_file("goroutine"));
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("targets.json");
    let write = |text: String| std::fs::write(&list, text).unwrap();
    write(format!(
        r#"[{{"targets": ["{address}"], "labels": {{"version": "v1"}}}}]"#
    ));
    let yaml = "scrape_configs:\n  - job_name: shop\n    scrape_interval: 200ms\n    profiles: {profile: {enabled: false}, heap: \
                {enabled: false}, mutex: {enabled: false}, block: {enabled: false}}\n    file_sd_configs: [{files: \
                [targets.json], refresh_interval: 100ms, allow_this_machine: true}]\n";
    let config = scrape::parse(&folder.path().join("scrape.yaml"), yaml).unwrap();
    let mut server = Server::start(|settings| settings.scrape = Some(config)).await;
    server.spawn_tasks();
    program.seen("/debug/pprof/goroutine").await;
    assert!(stored(&server, "goroutine:goroutine:count:goroutine:count").await >= 15);
    write("[]".to_owned());
    eventually("the row to go", || async {
        row(&server, "goroutine").is_none().then_some(())
    })
    .await;
    server.stop().await;
}
