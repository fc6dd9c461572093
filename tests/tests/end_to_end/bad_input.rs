//! Bad input gets a clear error that names what was wrong and what to do, and loses nothing already accepted.

use std::process::{Command, Output, Stdio};

use emberline_tests::{Scratch, Server, binary, get, get_json, request, serial};

fn serve(arguments: &[&str]) -> Output {
    let mut all = vec!["serve"];
    all.extend(arguments);
    for (option, address) in [
        ("--listen", "127.0.0.1:0"),
        ("--otlp-grpc", "127.0.0.1:0"),
        ("--otlp-http", "127.0.0.1:0"),
    ] {
        if !arguments.contains(&option) {
            all.extend([option, address]);
        }
    }
    Command::new(binary("emberline"))
        .args(all)
        .stdin(Stdio::null())
        .output()
        .expect("the server runs")
}

/// The command failed, and its last words hold each of the texts.
fn assert_refused(output: &Output, texts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it should have failed: {said}");
    assert!(!said.contains("panicked"), "{said}");
    for text in texts {
        assert!(said.contains(text), "`{text}` is not named in: {said}");
    }
}

#[test]
fn a_port_in_use_is_named_with_its_setting() {
    let _serial = serial();
    let scratch = Scratch::new("port-in-use");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let data = scratch.path().join("data");
    let output = serve(&["--data-dir", data.to_str().unwrap(), "--listen", &address]);
    assert_refused(&output, &[&address, "--listen"]);
    let output = serve(&["--data-dir", data.to_str().unwrap(), "--otlp-grpc", &address]);
    assert_refused(&output, &[&address, "--otlp-grpc"]);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let _serial = serial();
    let scratch = Scratch::new("not-writable");
    let file = scratch.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let data = file.join("data");
    assert_refused(
        &serve(&["--data-dir", data.to_str().unwrap()]),
        &[data.to_str().unwrap()],
    );
}

#[test]
fn a_second_server_on_the_same_data_is_refused_and_the_first_goes_on() {
    let _serial = serial();
    let scratch = Scratch::new("second-server");
    let data = scratch.path().join("data");
    let server = Server::start(&data);
    let pid = emberline_tests::server_pid(&data).to_string();
    assert_refused(
        &serve(&["--data-dir", data.to_str().unwrap()]),
        &[data.to_str().unwrap(), &pid],
    );
    assert_eq!(get(server.web, "/-/healthy").unwrap().status, 200);
    server.stop();
}

#[test]
fn broken_requests_are_refused_by_reason_and_the_server_goes_on() {
    let _serial = serial();
    let scratch = Scratch::new("broken-requests");
    let server = Server::start(&scratch.path().join("data"));
    let protobuf = "application/x-protobuf";
    // Field 1, 127 bytes long, of which two are there.
    let truncated = request(server.otlp_http, "POST", "/v1/metrics", protobuf, &[0x0a, 0x7f, 1, 2]).unwrap();
    assert_eq!(truncated.status, 400, "{}", String::from_utf8_lossy(&truncated.body));
    let truncated = request(
        server.otlp_http,
        "POST",
        "/v1development/profiles",
        protobuf,
        &[0x0a, 0x7f, 1, 2],
    )
    .unwrap();
    assert_eq!(truncated.status, 400);
    let oversized = request(server.otlp_http, "POST", "/v1/metrics", protobuf, &vec![0; 17 << 20]);
    // The server may answer and close before all of it was sent.
    if let Ok(answer) = oversized {
        assert_eq!(answer.status, 413);
    }
    let strange = request(server.otlp_http, "POST", "/v1/metrics", "text/plain", b"hello").unwrap();
    assert_eq!(strange.status, 415);
    assert!(String::from_utf8_lossy(&strange.body).contains("application/x-protobuf"));
    assert_eq!(
        get_json(server.web, "/api/v1/services").unwrap()["services"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    server.stop();
}

#[test]
fn questions_about_what_is_unknown_say_so() {
    let _serial = serial();
    let scratch = Scratch::new("unknown-service");
    let server = Server::start(&scratch.path().join("data"));
    let answer = get(server.web, "/api/v1/diff?service=nosuch").unwrap();
    assert_eq!(answer.status, 404);
    let error = answer.json().unwrap()["error"].clone();
    assert_eq!(error["code"], "unknown_service");
    assert!(error["message"].as_str().unwrap().contains("nosuch"));
    let answer = get(server.web, "/api/v1/services?form=now-1h").unwrap();
    assert_eq!(answer.status, 400);
    assert!(
        String::from_utf8_lossy(&answer.body).contains("form"),
        "the unknown parameter is named"
    );
    let answer = get(server.web, "/api/v1/services?from=yesterday").unwrap();
    assert_eq!(answer.status, 400);
    server.stop();
}

#[test]
fn a_broken_proxy_configuration_is_explained_with_its_line() {
    let _serial = serial();
    let scratch = Scratch::new("broken-yaml");
    let file = scratch.path().join("proxy.yaml");
    std::fs::write(
        &file,
        "workload: {service: a, version: v1, instance: a-1}\nadmin: \"127.0.0.1:0\"\ninbuond: []\n",
    )
    .unwrap();
    let output = Command::new(binary("emberline"))
        .arg("check")
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success());
    assert!(
        said.contains(":3") && said.contains("inbuond") && said.contains("inbound"),
        "{said}"
    );
    std::fs::write(&file, "workload: {service: a\n").unwrap();
    let output = Command::new(binary("emberline-proxy"))
        .arg("--config")
        .arg(&file)
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("proxy.yaml"));
}
