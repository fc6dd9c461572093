//! The configuration through the real binary: what it sets is in force, what is wrong is named, and `config show` says where it
//! came from.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{SystemTime, UNIX_EPOCH},
};

use emberline_tests::{Scratch, Server, binary, get, request, serial};

fn emberline(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(binary("emberline"))
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_the_file_sets_is_in_force_and_flags_override_it() {
    let _serial = serial();
    let scratch = Scratch::new("configuration");
    let file = write(
        scratch.path(),
        "emberline.yaml",
        "ingest: {max_request_mb: 1, max_stack_depth: 8, otlp_http: \"127.0.0.1:1\"}\nretention: {retention_hours: 1}\nweb:\n  allow_delete: true\n  max_request_seconds: 5\nscrape:\n  scrape_configs:\n    - job_name: unreachable\n      static_configs: [{targets: [\"127.0.0.1:9\"]}]\n",
    );
    // The harness gives the addresses as flags; the one in the file could not be listened on.
    let server = Server::start_with(
        &scratch.path().join("data"),
        &["--config", file.to_str().unwrap()],
        None,
    );
    let large = request(
        server.otlp_http,
        "POST",
        "/v1/metrics",
        "application/x-protobuf",
        &vec![0; 2 << 20],
    )
    .unwrap();
    assert_eq!(large.status, 413);
    let said = text(&large.body);
    assert!(said.contains("`max_request_mb`") && said.contains("1048576"), "{said}");
    let stack = (0..20).map(|frame| format!("f{frame}")).collect::<Vec<_>>().join(";");
    let sent = request(
        server.otlp_http,
        "POST",
        "/api/ingest?service=deep&version=v1",
        "text/plain",
        format!("{stack} 1\n").as_bytes(),
    )
    .unwrap();
    let said = text(&sent.body);
    assert!(sent.status == 200 && said.contains("max_stack_depth"), "{said}");
    let then = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 2 * 3600;
    let path = format!("/api/ingest?service=old&version=v1&from={then}&until={}", then + 10);
    let old = request(server.otlp_http, "POST", &path, "text/plain", b"main 1\n").unwrap();
    let said = text(&old.body);
    assert!(old.status == 400 && said.contains("`retention_hours`"), "{said}");
    let deleted = request(server.web, "DELETE", "/api/v1/services/absent?confirm=absent", "", b"").unwrap();
    assert_eq!(deleted.status, 404, "{}", text(&deleted.body));
    let status = text(&get(server.web, "/api/v1/status").unwrap().body);
    assert!(status.contains("unreachable"), "{status}");
    server.stop();
}

#[test]
fn what_is_wrong_is_named_before_anything_is_opened() {
    let scratch = Scratch::new("wrong-configuration");
    let file = write(
        scratch.path(),
        "wrong.yaml",
        "store:\n  memory_limit: 5\n  query_threads: 0\n",
    );
    let data = scratch.path().join("data");
    let serve = [
        "serve",
        "--config",
        file.to_str().unwrap(),
        "--data-dir",
        data.to_str().unwrap(),
    ];
    for arguments in [&serve[..], &["check", file.to_str().unwrap()]] {
        let output = emberline(arguments, &[]);
        let said = text(&output.stderr);
        assert!(!output.status.success());
        assert!(
            said.contains("wrong.yaml:2: unknown key `memory_limit` in `store`: did you mean `memory_limit_mb`?"),
            "{said}"
        );
        assert!(
            said.contains("wrong.yaml:3: `query_threads`: 0 is out of range: use 1 to 256"),
            "{said}"
        );
    }
    assert!(!data.exists());
    let output = emberline(&["serve", "--config", "/absent.yaml"], &[]);
    assert!(text(&output.stderr).contains("/absent.yaml: cannot read the configuration"));
    let output = emberline(&["serve"], &[("EMBERLINE_MAX_WORKLOADS", "many")]);
    let said = text(&output.stderr);
    assert!(
        said.contains("EMBERLINE_MAX_WORKLOADS in the environment: `max_workloads`: `many` is not a whole number"),
        "{said}"
    );
    // What used to be a file of its own.
    let file = write(scratch.path(), "scrape.yaml", "scrape_configs: []\n");
    let said = text(&emberline(&["check", file.to_str().unwrap()], &[]).stderr);
    assert!(said.contains("belongs in the section `scrape`"), "{said}");
    // A proxy's file is still told from it.
    let file = write(scratch.path(), "proxy.yaml", "workload: {service: cart}\n");
    let said = text(&emberline(&["check", file.to_str().unwrap()], &[]).stderr);
    assert!(said.contains("no listener"), "{said}");
}

#[test]
fn config_show_prints_what_is_in_force_and_where_it_came_from() {
    let scratch = Scratch::new("config-show");
    let file = write(
        scratch.path(),
        "emberline.yaml",
        "store: {memory_limit_mb: 100, query_threads: 2}\nretention: {retention_hours: 5}\n",
    );
    let arguments = [
        "config",
        "show",
        "--config",
        file.to_str().unwrap(),
        "--query-threads",
        "3",
    ];
    let output = emberline(
        &arguments,
        &[
            ("EMBERLINE_RETENTION_HOURS", "6"),
            ("EMBERLINE_WEBHOOK", "http://a,http://b"),
        ],
    );
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for (setting, origin) in [
        ("memory_limit_mb: 100", "emberline.yaml:1"),
        ("query_threads: 3", "--query-threads"),
        ("retention_hours: 6", "EMBERLINE_RETENTION_HOURS in the environment"),
        (
            "webhooks: [\"http://a\", \"http://b\"]",
            "EMBERLINE_WEBHOOK in the environment",
        ),
        ("max_query_seconds: 30", "default"),
    ] {
        let line = shown.lines().find(|line| line.trim_start().starts_with(setting));
        assert!(
            line.is_some_and(|line| line.ends_with(origin)),
            "{setting} of {origin} is not in\n{shown}"
        );
    }
    let again = write(scratch.path(), "again.yaml", &shown);
    assert!(emberline(&["check", again.to_str().unwrap()], &[]).status.success());
    let completions = text(&emberline(&["completions", "bash"], &[]).stdout);
    assert!(completions.contains("--max-stack-depth") && completions.contains("--config"));
}
