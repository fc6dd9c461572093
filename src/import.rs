//! `emberline import`: sends recorded profiles to a server, one request per file.
//!
//! What it guarantees: a file is counted as imported only when the server has it on disk; a server that is busy is asked
//! again after the time it names; one file that is refused does not keep the others back, and the command fails in the
//! end. What it gets wrong on purpose: a file that is imported twice counts twice.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    cli::{ImportArgs, TableOutput},
    client::{self, Server, Target},
    progress::Progress,
};

/// Where the server takes files.
const PATH: &str = "/api/ingest";
/// Longest wait for an answer: the server bounds requests itself.
const LIMIT: Duration = Duration::from_secs(120);
/// Bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// How often a busy server is asked again.
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

/// What became of a file.
struct Report {
    path: PathBuf,
    /// The server's answer, or why the file was not imported.
    outcome: Result<Value, String>,
}

/// Where a file goes, and whose it is.
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

async fn send(server: &Server, args: &ImportArgs, path: &Path) -> Result<Value> {
    let file = Bytes::from(std::fs::read(path).context("cannot read it")?);
    for _ in 0..MAX_RETRIES {
        let answer = server
            .send(Method::POST, target(args), file.clone(), MAX_ANSWER_BYTES)
            .await?;
        if answer.status == StatusCode::OK {
            return serde_json::from_slice(&answer.body).context("the server's answer is not JSON");
        }
        let pause = answer.headers.get(header::RETRY_AFTER);
        let pause: Option<u64> = pause.and_then(|value| value.to_str().ok()?.parse().ok());
        let Some(pause) = pause.filter(|_| answer.status == StatusCode::SERVICE_UNAVAILABLE) else {
            return Err(server.refusal(&answer));
        };
        tokio::time::sleep(Duration::from_secs(pause).min(MAX_PAUSE)).await;
    }
    bail!(
        "{} was busy {MAX_RETRIES} times; import the file again later",
        server.address()
    )
}

/// One thing that was not kept as it was sent: what, how much, why, remedy.
fn told_in_words(word: &str, told: &Value) -> String {
    let text = |name: &str| told[name].as_str().unwrap_or_default();
    let mut words = format!("{word}: {} {}", told["count"], text("unit"));
    for (between, part) in [(" of ", text("what")), (": ", text("why")), ("; ", text("remedy"))] {
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
            Ok(answer) => {
                let number = |name: &str| answer[name].as_u64().unwrap_or(0);
                let mut notes = String::new();
                for (word, list) in [("left out", &answer["left_out"]), ("changed", &answer["changed"])] {
                    for told in list.as_array().into_iter().flatten() {
                        notes.push_str(&format!("\n{:>28}{}", "", told_in_words(word, told)));
                    }
                }
                text.push_str(&format!(
                    "{:>8} {:>8} {:>8}  {path}{notes}\n",
                    number("windows"),
                    number("profiles"),
                    number("samples")
                ));
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
            text.contains("line 1: no number") && text.contains("cannot read it"),
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
        // Bound and closed again: nobody listens there.
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let reports = import(&line(&format!("http://{free}"))).await.unwrap();
        let error = reports[0].outcome.as_ref().unwrap_err();
        assert!(error.contains("--url"), "{error}");
    }
}
