//! `emberline store stats|verify|repair|delete|symbols` on the files of a real server: what is damaged is named, what is not stays.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use emberline_model::{
    Component, LabelSet, Location, Mapping, Profile, Sample, Workload, WorkloadWindow, otlp::encode_profiles,
};
use emberline_tests::{Scratch, Server, binary, get, get_json, request, serial, server_pid, wait_for};
use prost::Message;
use serde_json::Value;

/// Runs `emberline store` on a directory; the exit code, and what it says as JSON (its words, when it is none).
fn store(data: &Path, arguments: &[&str]) -> (i32, Value) {
    let output = Command::new(binary("emberline"))
        .arg("store")
        .args(arguments)
        .args(["--output", "json", "--data"])
        .arg(data)
        .env_remove("EMBERLINE_SERVER")
        .output()
        .unwrap();
    let said = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&output.stderr).into_owned()));
    (output.status.code().unwrap(), said)
}

/// Sends one window of `function` with `samples` samples, taken `hours` ago.
fn send(server: &Server, function: &str, samples: u64, hours: u64) {
    send_of(server, "checkout", function, samples, hours);
}

fn send_of(server: &Server, service: &str, function: &str, samples: u64, hours: u64) {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let from = (now_s - hours * 3600) / 10 * 10;
    let path = format!(
        "/api/ingest?service={service}&version=v1&sample_rate=100&from={from}&until={}",
        from + 10
    );
    let body = format!("main;{function} {samples}\n");
    let answer = request(server.otlp_http, "POST", &path, "text/plain", body.as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
}

/// CPU time of all samples of the last day, in nanoseconds.
fn total(server: &Server) -> u64 {
    // What was acknowledged is shown a moment later.
    wait_for("applied batches", Duration::from_secs(60), || {
        let status = get_json(server.web, "/api/v1/status").unwrap();
        (status["store"]["lsn_applied"] == status["store"]["lsn_durable"]).then_some(())
    });
    let merged = get_json(server.web, "/api/v1/merge?from=now-23h&limit=1").unwrap();
    merged["total"].as_u64().unwrap()
}

/// Every file below a folder with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

fn one_file(data: &Path, folder: &str, beginning: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir(data.join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(beginning))
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn flip_a_bit(path: &Path, from_the_end: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - from_the_end;
    bytes[at] ^= 8;
    fs::write(path, bytes).unwrap();
}

fn damaged_files(report: &Value) -> Vec<&str> {
    let damage = report["damage"].as_array().unwrap();
    damage.iter().map(|one| one["file"].as_str().unwrap()).collect()
}

#[test]
fn damaged_files_are_named_set_aside_and_cost_only_what_they_held() {
    let _serial = serial();
    let scratch = Scratch::new("store-files");
    let data = scratch.path().join("data");
    let (code, said) = store(&data, &["verify"]);
    assert_eq!(code, 1);
    assert!(said.as_str().unwrap().contains("no store in"), "{said}");

    let server = Server::start(&data);
    send(&server, "old", 100, 5);
    send(&server, "older", 1000, 6);
    assert_eq!(total(&server), 11_000_000_000);

    // A running server: its files can be listed, its counters asked for, and nothing else.
    let pid = server_pid(&data);
    let url = format!("http://{}", server.web);
    let (code, said) = store(&data, &["stats", "--server", &url]);
    assert_eq!((code, &said["server"]["pid"]), (0, &Value::from(pid)), "{said}");
    assert_eq!(said["server"]["store"]["batches_stored"], 2);
    let (code, said) = store(&data, &["stats", "--server", "http://127.0.0.1:9"]);
    assert_eq!(code, 0);
    assert!(said["server"]["error"].as_str().unwrap().contains("--server"), "{said}");
    for command in ["verify", "repair"] {
        let (code, said) = store(&data, &[command]);
        assert_eq!(code, 1);
        assert!(said.as_str().unwrap().contains(&format!("process {pid}")), "{said}");
    }
    server.stop();

    // Nothing is wrong: verify changes no byte, and a repair does no more than seal the hours that are over.
    let before = files(&data);
    let (code, said) = store(&data, &["verify"]);
    assert_eq!((code, damaged_files(&said)), (0, vec![]), "{said}");
    assert_eq!(said["journal_batches"], 2);
    assert_eq!(files(&data), before);
    fs::create_dir_all(data.join("parts")).unwrap();
    fs::write(data.join("parts/samples.tmp"), b"half").unwrap();
    let (code, said) = store(&data, &["repair"]);
    assert_eq!((code, damaged_files(&said["found"])), (0, vec![]), "{said}");
    let done = said["done"].to_string();
    assert!(
        done.contains("removed 1 partial files") && done.contains("sealed 2 completed hours"),
        "{done}"
    );
    let (_, said) = store(&data, &["stats"]);
    assert_eq!(
        (&said["server"], &said["files"]["sealed_hours"]),
        (&Value::Null, &Value::from(2)),
        "{said}"
    );

    // The journal gets something that is not sealed; then a bit flips in each kind of file.
    let server = Server::start(&data);
    send(&server, "new", 1, 0);
    send(&server, "newer", 10, 0);
    assert_eq!(total(&server), 11_110_000_000);
    server.stop();
    let (code, said) = store(&data, &["verify"]);
    assert_eq!((code, damaged_files(&said)), (0, vec![]), "{said}");
    let hours: Vec<PathBuf> = fs::read_dir(data.join("parts"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("samples-"))
        .collect();
    assert_eq!(hours.len(), 2);
    let oldest = hours.iter().min().unwrap();
    flip_a_bit(oldest, 20);
    // The last record: batch 4.
    let journal = fs::read_dir(data.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let last = journal.filter(|path| path.extension().unwrap() == "log").max().unwrap();
    flip_a_bit(&last, 5);
    flip_a_bit(&one_file(&data, "journal", "dedup.bin"), 3);
    flip_a_bit(&data.join("hot.duckdb"), 20);
    for header in [100, 4096 + 100, 8192 + 100] {
        let mut bytes = fs::read(data.join("hot.duckdb")).unwrap();
        bytes[header] ^= 0xff;
        fs::write(data.join("hot.duckdb"), bytes).unwrap();
    }
    let before = files(&data);
    let (code, said) = store(&data, &["verify"]);
    assert_eq!(code, 1, "{said}");
    let mut damaged = damaged_files(&said);
    damaged.sort_unstable();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let expected = [
        "hot.duckdb".to_owned(),
        format!("journal/{}", name(&last)),
        "journal/dedup.bin".to_owned(),
        format!("parts/{}", name(oldest)),
    ];
    assert_eq!(damaged, expected, "{said}");
    let all = said["damage"].to_string();
    assert!(all.contains("1 rows of samples") && all.contains("batch 4"), "{all}");
    assert_eq!(files(&data), before, "verify changes nothing");

    let (code, said) = store(&data, &["repair"]);
    assert_eq!(code, 0, "{said}");
    let done = said["done"].to_string();
    for step in [
        "moved 1 sealed files",
        "query engine's file to quarantine",
        "list of stored batches",
    ] {
        assert!(done.contains(step), "{step}: {done}");
    }
    let (code, said) = store(&data, &["verify"]);
    assert_eq!((code, damaged_files(&said)), (0, vec![]), "{said}");
    // What was intact is all there: the old hours, that of the damaged samples from its roll-up, and the first of the new
    // batches.
    let server = Server::start(&data);
    assert_eq!(total(&server), 11_010_000_000);
    server.stop();
}

#[test]
fn a_service_is_deleted_from_a_stopped_store_and_over_the_api() {
    let _serial = serial();
    let scratch = Scratch::new("store-delete");
    let data = scratch.path().join("data");
    let (code, said) = store(&data, &["delete", "--service", "checkout", "--yes"]);
    assert_eq!(code, 1);
    assert!(said.as_str().unwrap().contains("no store in"), "{said}");

    let server = Server::start_with(&data, &["--allow-delete"], None);
    send_of(&server, "checkout", "old", 100, 5);
    send_of(&server, "cart", "older", 1000, 5);
    send_of(&server, "quote", "oldest", 1, 5);
    assert_eq!(total(&server), 11_010_000_000);
    let pid = server_pid(&data);
    let (code, said) = store(&data, &["delete", "--service", "checkout", "--yes"]);
    assert_eq!(code, 1);
    assert!(said.as_str().unwrap().contains(&format!("process {pid}")), "{said}");
    let quote = "/api/v1/services/quote?confirm=quote";
    let answer = request(server.web, "DELETE", quote, "text/plain", b"").unwrap();
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(total(&server), 11_000_000_000);
    server.stop();

    // Sealed, so that files have to be written anew.
    let (code, _) = store(&data, &["repair"]);
    assert_eq!(code, 0);
    let (code, said) = store(&data, &["delete", "--service", "checkout"]);
    assert_eq!(code, 1);
    assert!(said.as_str().unwrap().contains("--yes"), "{said}");
    let (code, said) = store(&data, &["delete", "--service", "chekout", "--yes"]);
    assert_eq!(code, 1);
    assert!(said.as_str().unwrap().contains("no data of service"), "{said}");
    let (code, said) = store(&data, &["delete", "--service", "checkout", "--yes"]);
    assert_eq!((code, &said["service"]), (0, &Value::from("checkout")), "{said}");
    assert!(
        said["rows"].as_u64() > Some(0) && said["files"].as_u64() > Some(0),
        "{said}"
    );
    let (code, said) = store(&data, &["verify"]);
    assert_eq!((code, damaged_files(&said)), (0, vec![]), "{said}");
    let server = Server::start(&data);
    assert_eq!(total(&server), 10_000_000_000);
    server.stop();
}

#[test]
fn what_is_stored_is_for_the_servers_user_alone() {
    use std::os::unix::fs::PermissionsExt;

    let _serial = serial();
    let scratch = Scratch::new("rights");
    let data = scratch.path().join("data");
    let server = Server::start(&data);
    send_of(&server, "checkout", "v1", 100, 5);
    let mut folders = vec![data];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files += 1;
                assert_eq!(mode(&path), 0o600, "{}", path.display());
            }
        }
    }
    assert!(files >= 3, "journal, tables and lock: {files}");
    server.stop();
}

const BUILD: &str = "00112233445566778899aabbccddeeff00112233";

/// A program that says of one of its sections that it unpacks to a terabyte.
fn bomb() -> Vec<u8> {
    let mut bytes = fs::read(binary("emberline-proxy")).unwrap();
    let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let table = number(&bytes, 40) as usize;
    let section = table + 64;
    let (flags, content) = (number(&bytes, section + 8), number(&bytes, section + 24) as usize);
    bytes[section + 8..section + 16].copy_from_slice(&(flags | 0x800).to_le_bytes());
    bytes[content + 8..content + 16].copy_from_slice(&(1u64 << 40).to_le_bytes());
    bytes
}

/// One sample of an address of the build.
fn send_address(server: &Server) {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let start = now_s / 10 * 10 - 60;
    let mut profile = Profile::empty_cpu(start * 1_000_000_000, 10_000_000_000);
    profile.mappings = vec![Mapping {
        build_id: BUILD.into(),
        path: "/srv/shop".into(),
    }];
    profile.label_sets = vec![LabelSet::none()];
    profile.locations = vec![Location::Native {
        mapping: 0,
        offset: 0x40,
    }];
    profile.stacks = vec![vec![0]];
    profile.samples = vec![Sample {
        stack: 0,
        label_set: 0,
        value: 1,
        count: 1,
    }];
    let window = WorkloadWindow {
        workload: Workload {
            service: "shop".into(),
            version: "1".into(),
            ..Workload::default()
        },
        component: Component::Application,
        start_unix_s: start,
        length_s: 10,
        has_requests: false,
        has_profiles: true,
        requests: Vec::new(),
        profiles: vec![profile],
    };
    let body = encode_profiles(&window).encode_to_vec();
    let answer = request(
        server.otlp_http,
        "POST",
        "/v1development/profiles",
        "application/x-protobuf",
        &body,
    )
    .unwrap();
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
}

/// Why the file of the build is refused, if it is.
fn refused(data: &Path) -> Option<String> {
    let (code, said) = store(data, &["symbols", "list"]);
    assert_eq!(code, 0, "{said}");
    let file = said.as_array()?.iter().find(|build| build["build"] == BUILD)?;
    Some(file["file"]["refused"].as_str()?.to_owned())
}

/// A file on disk that cannot be read within the limits ended the server at each start.
#[test]
fn a_bomb_on_disk_is_refused_at_each_start_until_somebody_forgets_it() {
    let _serial = serial();
    let scratch = Scratch::new("store-symbols");
    let data = scratch.path().join("data");
    fs::create_dir_all(data.join("debuginfo")).unwrap();
    fs::write(data.join(format!("debuginfo/{BUILD}.debug")), bomb()).unwrap();
    for _ in 0..3 {
        let server = Server::start(&data);
        send_address(&server);
        let why = wait_for("refusal", Duration::from_secs(60), || refused(&data));
        assert!(why.contains("1099511627776 bytes"), "{why}");
        assert_eq!(get(server.web, "/-/ready").unwrap().status, 200);
        let (code, said) = store(&data, &["symbols", "forget", BUILD]);
        assert_eq!(code, 1);
        assert!(said.as_str().unwrap().contains("in use by process"), "{said}");
        server.stop();
    }
    let (code, said) = store(&data, &["symbols", "forget", BUILD]);
    assert_eq!((code, &said["file_forgotten"]), (0, &Value::from(true)), "{said}");
    assert_eq!(refused(&data), None);
    let (code, said) = store(&data, &["symbols", "forget", BUILD]);
    assert_eq!(code, 1);
    assert!(said.as_str().unwrap().contains("symbols list"), "{said}");
}
