//! The proxy and its library, driven over real sockets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod data_path;
mod export_delivery;
mod export_forgetting;
mod export_profiles;
mod export_spool;
mod export_support;
mod export_telemetry;
mod export_tls;
mod hostile_collector;
mod siege;

/// Runs `body` as the test `name` in a process of its own: a process has one sampler, which would sample the other tests
/// as well.
fn in_a_process_of_its_own(name: &str, body: impl FnOnce()) {
    const CHILD: &str = "EMBERLINE_PROXY_TEST_CHILD";
    if std::env::var(CHILD).is_ok_and(|child| child == name) {
        return body();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, name)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{name} ended with {}:\n{text}", output.status);
    assert!(text.contains("1 passed"), "{name} is not the name of the test:\n{text}");
}
