//! Clients of other makers, unmodified, from their registries: what they sent is read back with equal totals.
//!
//! Says so and measures nothing where Python, Node or a registry is not there.

use std::{net::SocketAddr, process::Command};

use anyhow::{Result, bail};
use emberline_tests::{Scratch, Server, repository};

use crate::Figure;

/// What the script ends with when it cannot fetch the clients.
const SKIPPED: i32 = 77;

pub(crate) fn run() -> Result<Vec<Figure>> {
    let scratch = Scratch::new("bench-clients");
    let server = Server::start(&scratch.path().join("data"));
    let address = |address: SocketAddr| address.to_string();
    let script = repository().join("tests/clients/run.py");
    let ran = Command::new("python3")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script)
        .args(["--web", &address(server.web), "--http", &address(server.otlp_http)])
        .args(["--grpc", &address(server.otlp_grpc), "--folder"])
        .arg(scratch.path().join("clients"))
        .status();
    let Ok(status) = ran else {
        println!("skipped: there is no python3");
        return Ok(Vec::new());
    };
    match status.code() {
        Some(0) => {}
        Some(SKIPPED) => return Ok(Vec::new()),
        _ => bail!("a client's totals are not what it sent, or it failed: see above"),
    }
    server.stop();
    Ok(Vec::new())
}
