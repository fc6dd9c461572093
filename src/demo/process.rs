//! Child processes and their working directory.
//!
//! Guarantee: each child gets a pipe as standard input whose other end only this process holds, and children end when
//! it closes; so none is left behind, whatever happens to this process.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// The directory for data, logs and generated configuration.
pub(crate) struct Directory {
    path: PathBuf,
    /// Removed when dropped: only what was created here, under an unpredictable name, accessible only to this user.
    _temporary: Option<TempDir>,
}

impl Directory {
    /// The named directory, or a temporary one that is removed at the end.
    pub(crate) fn new(named: Option<&Path>) -> Result<Directory> {
        let Some(path) = named else {
            let temporary = tempfile::Builder::new().prefix("emberline-demo-").tempdir();
            let temporary = temporary.context("cannot create a temporary directory: set one with --data-dir")?;
            return Ok(Directory {
                path: temporary.path().canonicalize()?,
                _temporary: Some(temporary),
            });
        };
        std::fs::create_dir_all(path).with_context(|| {
            format!(
                "cannot create {}: set a writable directory with --data-dir",
                path.display()
            )
        })?;
        Ok(Directory {
            path: path.canonicalize()?,
            _temporary: None,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A running child.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with its output in `<directory>/<name>.log`.
    pub(crate) fn start(name: &str, program: &Path, arguments: &[String], directory: &Directory) -> Result<Process> {
        let log = directory.path().join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            // A group of its own: Ctrl-C reaches only this process, which stops its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!(
                    "cannot start {}: run `make build`, or install it next to this program",
                    program.display()
                )
            })?;
        Ok(Process {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Fails with the end of its log if the process has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(5)..].join("\n  ");
        bail!("{} exited ({status}):\n  {tail}", self.name);
    }

    /// True once the process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks the process to end by closing its standard input, waits, and kills it if it takes too long.
    pub(crate) async fn stop(&mut self, patience: Duration) {
        drop(self.child.stdin.take());
        if tokio::time::timeout(patience, self.child.wait()).await.is_err() {
            // It may already have ended.
            let _ = self.child.kill().await;
        }
    }
}

/// Another of the project's programs, next to this one.
pub(crate) fn sibling(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot determine this program's path")?;
    let path = own.with_file_name(name);
    if !path.is_file() {
        bail!(
            "{} is missing: run `make build`, or install it next to this program",
            path.display()
        );
    }
    Ok(path)
}

/// A port on which nothing is listening at the moment, never the same one twice. Below Linux's range for outgoing
/// connections, so that none of those takes it before the service that it is meant for starts.
pub(crate) fn free_port() -> Result<u16> {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    const PORTS: std::ops::Range<u16> = 20_000..32_000;
    let span = PORTS.end - PORTS.start;
    // Two demos on one machine start at different ports.
    let begin = (std::process::id() % u32::from(span)) as u16;
    for _ in 0..span {
        let step = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (begin + step % span) % span;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port between {} and {} is free", PORTS.start, PORTS.end)
}
