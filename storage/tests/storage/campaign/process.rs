//! The process under test: this same program, started again. Only whole lines of its output count, because a kill may
//! cut the last one anywhere.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
};

/// Set in the environment of the process under test.
pub const CHILD: &str = "EMBERLINE_CAMPAIGN_CHILD";

/// The peak resident memory of a process, in KiB; `pid` may be `self`.
pub fn peak_rss_kb(pid: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// How the process under test is started. The arguments are for a test binary; the bench's program ignores them.
pub fn command() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "campaigns::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1");
    command
}

/// A running process under test.
pub struct Process {
    child: Child,
    orders: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub peak_rss_kb: u64,
}

impl Process {
    pub fn start(mut command: Command) -> Process {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Process {
            orders: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            peak_rss_kb: 0,
        }
    }

    /// Gives an order; a process that is gone does not read it, and its silence shows that.
    pub fn order(&mut self, line: &str) {
        if let Some(orders) = &mut self.orders {
            let _ = writeln!(orders, "{line}");
        }
    }

    /// Closes the stream of orders.
    pub fn end_orders(&mut self) {
        self.orders = None;
    }

    /// The next whole line; `None` when the process is gone.
    pub fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        self.output.read_until(b'\n', &mut line).ok()?;
        if line.pop()? != b'\n' {
            return None;
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        if let Some(kb) = line.strip_prefix("rss ") {
            self.peak_rss_kb = self.peak_rss_kb.max(kb.parse().unwrap_or(0));
        }
        Some(line)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let peak = peak_rss_kb(&self.child.id().to_string());
        self.peak_rss_kb = self.peak_rss_kb.max(peak.unwrap_or(0));
        let _ = self.child.kill();
    }

    /// Waits for it to exit.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
