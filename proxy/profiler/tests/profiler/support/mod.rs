//! Helpers for the sampler's tests.
//!
//! A process has one profiler, so each test runs in a process of its own: the test starts this binary again for itself
//! alone and checks how that exited. A crash in a signal handler then becomes a failed test with the signal's name.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

const CHILD: &str = "EMBERLINE_PROFILER_TEST_CHILD";

/// Generous: the tests are bounded by CPU time and counts, and machines may be busy.
const DEADLINE: Duration = Duration::from_secs(180);

/// Runs `body` as the test `name` in a process of its own.
pub fn isolated(name: &str, body: impl FnOnce()) {
    isolated_with(name, &[], body);
}

/// Like [`isolated`], with environment variables.
pub fn isolated_with(name: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    if env::var(CHILD).is_ok_and(|child| child == name) {
        body();
        return;
    }
    let mut child = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, name)
        .env_remove("EMBERLINE_PROFILER")
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = thread::spawn(move || io::read_to_string(&mut stdout).unwrap());
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{name} hangs");
        }
        thread::sleep(Duration::from_millis(10));
    };
    let output = reader.join().unwrap();
    assert!(status.success(), "{name} ended with {status}:\n{output}");
    assert!(
        output.contains("1 passed"),
        "{name} is not the name of the test:\n{output}"
    );
    print!("{output}");
}

/// CPU time of the calling thread in nanoseconds: the ground truth for samples.
pub fn own_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to the local variable.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// About 20 microseconds of work.
#[inline(never)]
pub fn work(seed: u64) -> u64 {
    let mut state = seed | 1;
    for _ in 0..10_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state)
}

/// Uses `cpu` of this thread's CPU time.
pub fn burn(cpu: Duration) {
    let end = own_cpu_ns() + cpu.as_nanos() as u64;
    let mut seed = 1;
    while own_cpu_ns() < end {
        seed = work(seed);
    }
}

/// Calls `condition` until it holds; the deadline only ends a test that has failed anyway.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// `|a - b| / b`.
pub fn relative_error(a: u64, b: u64) -> f64 {
    (a as f64 - b as f64).abs() / b as f64
}
