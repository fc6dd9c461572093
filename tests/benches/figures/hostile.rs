//! The memory of a server with default settings under requests made to cost memory.

use anyhow::{Result, ensure};
use emberline_tests::{Scratch, Server, get, hostile};

use crate::Figure;

/// Requests of each kind at the same time.
const AT_ONCE: usize = 8;

pub(crate) fn run() -> Result<Vec<Figure>> {
    let scratch = Scratch::new("bench-hostile");
    let server = Server::start(&scratch.path().join("data"));
    println!("{}", server.cap_in_words());
    println!("{:40} {:8.1} MB", "ready", server.peak_rss_mb());
    let _open = hostile::stalled(&server, 500);
    for attack in hostile::attacks() {
        let statuses = hostile::send(server.otlp_http, &attack, AT_ONCE);
        println!("{:40} {:8.1} MB  {statuses:?}", attack.name, server.peak_rss_mb());
        ensure!(get(server.web, "/-/ready")?.status == 200, "the server is gone");
    }
    let peak = server.peak_rss_mb();
    server.stop();
    Ok(vec![Figure {
        name: "hostile_peak_rss_mb",
        value: peak,
        unit: "MB",
        peer: None,
        ratio: None,
        n: 1,
        command: "make bench NAME=hostile",
    }])
}
