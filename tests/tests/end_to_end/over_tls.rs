//! The real programs with TLS terminators between them: commands and a proxy reach a server over `https`, and what is wrong with a
//! certificate is said where its user looks.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use emberline_terminator::{Authority, Fault, Terminator};
use emberline_tests::{Scratch, Server, binary, free_port, get_json, serial, wait_for};

/// Runs a command; its code, and all that it said.
fn run(arguments: &[&str], environment: &[(&str, &Path)]) -> (i32, String) {
    let mut command = Command::new(binary("emberline"));
    for name in [
        "EMBERLINE_SERVER",
        "EMBERLINE_URL",
        "EMBERLINE_CA_FILE",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
    ] {
        command.env_remove(name);
    }
    command.args(arguments).envs(environment.iter().copied());
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Ends a process with its value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn commands_reach_a_server_over_https_and_say_what_is_wrong_with_its_certificate() {
    let _serial = serial();
    let scratch = Scratch::new("over-tls");
    let folder = scratch.path();
    let server = Server::start(&folder.join("data"));
    let authority = Authority::new();
    let good = authority.certificate(&["localhost"]);
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let ca_file = ca.to_str().unwrap();
    let profile = folder.join("cpu.folded");
    std::fs::write(&profile, "main;price_basket 5\n").unwrap();

    // A client certificate for the port that takes profiles.
    let ingest = Terminator::start(server.otlp_http, &good, Some(&authority));
    let url = ingest.url("localhost");
    let import = [
        "import",
        profile.to_str().unwrap(),
        "--service",
        "shop",
        "--version",
        "v1",
        "--now",
        "--url",
        &url,
    ];
    let (code, said) = run(&[&import[..], &["--ca-file", ca_file]].concat(), &[]);
    assert!(code != 0 && said.contains("requires a client certificate"), "{said}");
    let (cert, key) = authority.certificate(&["ci"]).write(folder, "own");
    let own = [
        "--ca-file",
        ca_file,
        "--cert-file",
        cert.to_str().unwrap(),
        "--key-file",
        key.to_str().unwrap(),
    ];
    let (code, said) = run(&[&import[..], &own].concat(), &[]);
    assert_eq!(code, 0, "{said}");

    // The API: with a CA of our own, and with the system's.
    let web = Terminator::start(server.web, &good, None);
    let url = web.url("localhost");
    let ask = ["query", "top", "--server", &url];
    wait_for("the profile", Duration::from_secs(60), || {
        let (code, said) = run(&[&ask[..], &["--ca-file", ca_file]].concat(), &[]);
        (code == 0 && said.contains("price_basket")).then_some(())
    });
    let (code, said) = run(&ask, &[("SSL_CERT_FILE", &ca)]);
    assert!(code == 0 && said.contains("price_basket"), "{said}");

    for (certificate, words) in [
        (
            authority.faulty(&["localhost"], Fault::Expired),
            "expired on Wed, 03 Feb 2021",
        ),
        (
            authority.certificate(&["shop.example"]),
            "not for `localhost`: it is for shop.example",
        ),
        (
            Authority::new().certificate(&["localhost"]),
            "does not trust: set `ca_file`",
        ),
    ] {
        web.renew(&certificate, None);
        let (code, said) = run(&ask, &[("SSL_CERT_FILE", &ca)]);
        assert!(
            code != 0 && said.contains(words) && said.contains("--server"),
            "{words}: {said}"
        );
    }
    let plain = format!("https://{}", server.web);
    let (code, said) = run(&["query", "top", "--server", &plain], &[("SSL_CERT_FILE", &ca)]);
    assert!(
        code != 0 && said.contains("does not speak TLS on this port: use `http://`"),
        "{said}"
    );
    let mixed = format!("http://{}", web.address);
    let (code, said) = run(&["query", "top", "--server", &mixed], &[]);
    assert!(
        code != 0 && said.contains("speaks TLS on this port: use `https://`"),
        "{said}"
    );
    server.stop();
}

#[test]
fn a_proxy_exports_over_https_with_a_client_certificate() {
    let _serial = serial();
    let scratch = Scratch::new("proxy-over-tls");
    let folder = scratch.path();
    let server = Server::start(&folder.join("data"));
    let authority = Authority::new();
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    authority.certificate(&["proxy"]).write(folder, "own");
    let collector = Terminator::start(
        server.otlp_grpc,
        &authority.certificate(&["collector.mesh"]),
        Some(&authority),
    );
    // Names of files are meant from the folder of the file.
    let text = format!(
        "workload: {{service: shop, version: v1}}\nadmin: 127.0.0.1:{}\ncollector:\n  endpoint: \"{}\"\n  tls: {{ca_file: ca.pem, \
         cert_file: own.crt, key_file: own.key, server_name: collector.mesh}}\ninbound: [{{listen: 127.0.0.1:{}, to: 127.0.0.1:{}}}]\n",
        free_port(),
        collector.url("localhost"),
        free_port(),
        free_port(),
    );
    let config = folder.join("proxy.yaml");
    std::fs::write(&config, text).unwrap();
    let (code, said) = run(&["check", config.to_str().unwrap()], &[]);
    assert_eq!(code, 0, "{said}");
    let proxy = Command::new(binary("emberline-proxy"))
        .arg("--config")
        .arg(&config)
        .stderr(File::create(folder.join("proxy.log")).unwrap())
        .spawn()
        .unwrap();
    let _proxy = Running(proxy);
    wait_for("windows of the proxy", Duration::from_secs(120), || {
        let services = get_json(server.web, "/api/v1/services?from=now-1h").ok()?;
        let services = services["services"].as_array()?;
        services
            .iter()
            .any(|service| service["service"] == "shop")
            .then_some(())
    });
    assert!(collector.accepted() >= 1);
    server.stop();
}
