//! `emberline import`: sends recorded profiles to a server, one request per file.
//!
//! Guarantees: a file counts as imported only when the server has it on disk; a busy server is retried after the time
//! it asks for; a file that is refused does not hold back the others, but the command fails in the end. Wrong on
//! purpose: a file that is imported twice counts twice.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use emberline_collector::{Stored, Told};
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    cli::{ImportArgs, TableOutput},
    client::{self, Answer, Server, Target},
    progress::Progress,
};

/// The server's endpoint for files.
const PATH: &str = "/api/ingest";
/// Longest wait for a response: the server itself limits requests.
const LIMIT: Duration = Duration::from_secs(120);
/// The most bytes read of a response.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// How often a busy server is retried.
const MAX_RETRIES: u32 = 8;
/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(30);

pub(crate) fn run(args: &ImportArgs) -> Result<ExitCode> {
    let reports = client::run(import(args))?;
    let text = match args.output {
        TableOutput::Table => table(&reports),
        TableOutput::Json => format!("{:#}\n", as_json(&reports)),
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write the report")?;
    let failed = reports.iter().any(|report| report.outcome.is_err());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Sends all files, one after the other.
async fn import(args: &ImportArgs) -> Result<Vec<Report>> {
    let server = Server::new(&args.url, "--url", &args.tls, LIMIT, "")?;
    let mut reports = Vec::with_capacity(args.files.len());
    let progress = Progress::of_files(args.files.len());
    for (at, path) in args.files.iter().enumerate() {
        progress.show(path, at as u64);
        let outcome = send(&server, args, path).await;
        reports.push(Report {
            path: path.clone(),
            outcome: outcome.map_err(|error| format!("{error:#}")),
        });
    }
    Ok(reports)
}

/// The result for a file.
struct Report {
    path: PathBuf,
    /// The server's response, or why the file was not imported.
    outcome: Result<Stored<'static>, String>,
}

/// The URL of a file's upload, with its workload.
fn target(args: &ImportArgs) -> Target {
    let target = Target::new(PATH)
        .with("service", &args.service)
        .with("version", &args.version)
        .maybe("namespace", args.namespace.as_ref())
        .maybe("instance", args.instance.as_ref())
        .maybe("route", args.route.as_ref())
        .maybe("format", args.format.as_ref())
        .maybe("kind", args.kind.as_ref())
        .maybe("sample_rate", args.sample_rate.as_ref())
        .maybe("from", args.from.as_ref())
        .maybe("until", args.until.as_ref());
    match args.now {
        true => target.with("time", "received"),
        false => target,
    }
}

async fn send(server: &Server, args: &ImportArgs, path: &Path) -> Result<Stored<'static>> {
    let file = Bytes::from(std::fs::read(path).context("cannot read the file")?);
    for _ in 0..MAX_RETRIES {
        let answer = server
            .send(Method::POST, target(args), file.clone(), MAX_ANSWER_BYTES)
            .await?;
        if answer.status == StatusCode::OK {
            return serde_json::from_slice(&answer.body)
                .context("not a response to an import: is the server of another version?");
        }
        let Some(pause) = pause_before_retry(&answer) else {
            return Err(server.refusal(&answer));
        };
        tokio::time::sleep(pause).await;
    }
    bail!(
        "{} was busy {MAX_RETRIES} times; import the file again later",
        server.address()
    )
}

/// How long to wait before retrying a server without room; `None` if retrying does not help.
fn pause_before_retry(answer: &Answer) -> Option<Duration> {
    let is_busy = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&answer.status);
    let pause = answer.headers.get(header::RETRY_AFTER).filter(|_| is_busy)?;
    let seconds = pause.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_PAUSE))
}

/// One item that was not stored as sent: what, how much, why, remedy.
fn told_in_words(word: &str, told: &Told<'_>) -> String {
    let mut words = format!("{word}: {} {}", told.count, told.unit);
    for (between, part) in [(" of ", &told.what), (": ", &told.why), ("; ", &told.remedy)] {
        if !part.is_empty() {
            words.push_str(between);
            words.push_str(part);
        }
    }
    words
}

fn table(reports: &[Report]) -> String {
    let mut text = format!("{:>8} {:>8} {:>8}  file\n", "windows", "profiles", "samples");
    for report in reports {
        let path = report.path.display();
        match &report.outcome {
            Ok(stored) => {
                let mut notes = String::new();
                for (word, list) in [("dropped", &stored.left_out), ("changed", &stored.changed)] {
                    for told in list {
                        notes.push_str(&format!("\n{:>28}{}", "", told_in_words(word, told)));
                    }
                }
                let Stored {
                    windows,
                    profiles,
                    samples,
                    ..
                } = stored;
                text.push_str(&format!("{windows:>8} {profiles:>8} {samples:>8}  {path}{notes}\n"));
            }
            Err(why) => text.push_str(&format!("{:>8} {:>8} {:>8}  {path}: {why}\n", "-", "-", "-")),
        }
    }
    text
}

fn as_json(reports: &[Report]) -> Value {
    let files = reports.iter().map(|report| match &report.outcome {
        Ok(answer) => json!({ "file": report.path.display().to_string(), "imported": answer }),
        Err(why) => json!({ "file": report.path.display().to_string(), "error": why }),
    });
    json!({ "files": files.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::Parser;
    use emberline_collector::{Collector, CollectorConfig};
    use emberline_model::{
        ProfileType,
        time::{Clock, SystemClock},
    };
    use emberline_storage::{Options, Range, StackQuery, Store, WorkloadFilter};

    use super::*;
    use crate::cli::{Cli, Command};

    fn arguments(line: &[&str]) -> ImportArgs {
        match Cli::parse_from(["emberline", "import"].iter().chain(line)).command {
            Command::Import(args) => args,
            _ => panic!("the command is import"),
        }
    }

    #[tokio::test]
    async fn files_arrive_and_a_wrong_one_keeps_none_of_the_others_back() {
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let options = Options {
            memory_limit_mb: 128,
            ..Options::new(folder.path().join("data"))
        };
        let store = Store::open(options, Arc::clone(&clock)).unwrap();
        let config = CollectorConfig::new(folder.path().join("data"));
        let collector = Collector::new(config, store.clone(), clock).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = collector.http_router();
        let server = tokio::spawn(async move { axum::serve(listener, router).await });

        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let files = [
            file("a.folded", "main;leaf 2\n"),
            file("broken.folded", "main;leaf\n"),
            folder.path().join("missing").display().to_string(),
            file("b.folded", "main 1\n"),
        ];
        let mut line: Vec<&str> = files.iter().map(String::as_str).collect();
        line.extend([
            "--service",
            "shop & co",
            "--version",
            "v2",
            "--sample-rate",
            "1000",
            "--url",
            &url,
        ]);
        let reports = import(&arguments(&line)).await.unwrap();
        let text = table(&reports);
        assert_eq!(
            reports.iter().map(|r| r.outcome.is_ok()).collect::<Vec<_>>(),
            [true, false, false, true],
            "{text}"
        );
        assert!(
            text.contains("line 1: the sample count is missing") && text.contains("cannot read the file"),
            "{text}"
        );
        assert_eq!(as_json(&reports)["files"][0]["imported"]["samples"], 1);

        store.flush_applied().await.unwrap();
        let who = WorkloadFilter {
            version: Some("v2".to_owned()),
            ..WorkloadFilter::service("shop & co")
        };
        let rows = store
            .ask(StackQuery::new(who, ProfileType::CPU, Range::ALL))
            .await
            .unwrap()
            .rows;
        assert_eq!(rows.iter().map(|row| row.value).sum::<i64>(), 3_000_000);
        server.abort();
        let _ = server.await;
        drop(collector);
        store.close();
    }

    #[tokio::test]
    async fn addresses_that_cannot_work_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.folded");
        std::fs::write(&path, "main 1\n").unwrap();
        let path = path.display().to_string();
        let line = |url| arguments(&[&path, "--service", "a", "--version", "b", "--url", url]);
        let error = import(&line("ftp://example.org")).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("`ftp://example.org`"), "{error}");
        // Bound and closed again: nothing is listening there.
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let reports = import(&line(&format!("http://{free}"))).await.unwrap();
        let error = reports[0].outcome.as_ref().unwrap_err();
        assert!(error.contains("--url"), "{error}");
    }

    #[tokio::test]
    async fn a_server_without_room_is_asked_again_after_the_time_it_names() {
        let answer = |status: u16, pause: Option<&'static str>| Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: pause
                .map(|pause| (header::RETRY_AFTER, pause.parse().unwrap()))
                .into_iter()
                .collect(),
            body: Bytes::new(),
        };
        for (status, pause, expected) in [
            (503, Some("2"), Some(2)),
            (429, Some("7"), Some(7)),
            (429, Some("86400"), Some(MAX_PAUSE.as_secs())),
            (429, None, None),
            (400, Some("2"), None),
            (413, Some("2"), None),
        ] {
            let waits = pause_before_retry(&answer(status, pause));
            assert_eq!(waits, expected.map(Duration::from_secs), "{status} {pause:?}");
        }

        let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = Arc::clone(&asked);
        let upload = move || async move {
            match counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => Err((StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "0")])),
                1 => Err((StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "0")])),
                _ => Ok(r#"{"windows":1,"profiles":2,"samples":3,"left_out":[],"changed":[]}"#),
            }
        };
        let router = axum::Router::new().route(PATH, axum::routing::post(upload));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.folded");
        std::fs::write(&path, "main 1\n").unwrap();
        let path = path.display().to_string();
        let line = [&path, "--service", "a", "--version", "b", "--url", &url];
        let reports = import(&arguments(&line)).await.unwrap();
        let stored = reports[0].outcome.as_ref().unwrap();
        assert_eq!((stored.windows, stored.profiles, stored.samples), (1, 2, 3));
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 3);
        server.abort();
    }
}
