//! What callers made a proxy hold goes back to the system when they have left: the real binary, whose allocator that is.
//! `make bench NAME=hostile_proxy` is the long version.

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use emberline_tests::{Scratch, binary, free_port, get, serial, wait_for};

/// Ends the child with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Memory that is not pages of files, in MB.
    fn own_memory_mb(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1.024e-3
    }
}

#[test]
fn memory_that_callers_took_goes_back_when_they_have_left() {
    let _serial = serial();
    let scratch = Scratch::new("proxy-memory");
    let local = || SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (listen, admin, nobody) = (local(), local(), local());
    let config = scratch.path().join("proxy.yaml");
    let text = format!(
        "workload: {{namespace: test, service: cart, version: v1, instance: cart-1}}\nadmin: \"{admin}\"\n\
         inbound:\n  - {{listen: \"{listen}\", to: \"{nobody}\"}}\n"
    );
    fs::write(&config, text).unwrap();
    let proxy = Command::new(binary("emberline-proxy"))
        .arg("--config")
        .arg(&config)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let proxy = Running(proxy);
    wait_for("the proxy", Duration::from_secs(30), || get(admin, "/ready").ok());
    let head = format!("GET / HTTP/1.1\r\nHost: c\r\nX: {}", "a".repeat(15_000));
    let knock = || -> Vec<TcpStream> {
        let open = |_| {
            let mut stream = TcpStream::connect(listen).ok()?;
            stream.write_all(head.as_bytes()).ok()?;
            Some(stream)
        };
        (0..400).filter_map(open).collect()
    };
    let before = proxy.own_memory_mb();
    let held = knock();
    wait_for("heads in memory", Duration::from_secs(30), || {
        (proxy.own_memory_mb() > before + 5.0).then_some(())
    });
    drop(held);
    // Tables and threads that a first crowd made stay; its heads do not.
    wait_for("memory to go back", Duration::from_secs(60), || {
        (proxy.own_memory_mb() < before + 2.0).then_some(())
    });
}
