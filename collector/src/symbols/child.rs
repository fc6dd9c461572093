//! The symbol reader process, as seen by the worker: started when there is something to read, queried, ended.
//!
//! Guarantees: there is at most one; its response is bounded ([`super::wire`]); it is killed if it takes too long or if
//! this is dropped; its ends are distinguished: the file's fault, killed from outside, or not started at all.
//!
//! A process reads one file. It stays as long as that file's names are requested, so that they are parsed once.

use std::{
    ffi::OsString,
    io,
    os::unix::{ffi::OsStrExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use emberline_model::Frame;
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{
    confine,
    wire::{self, Answer, Ask, HELLO},
};

/// Queries per process, so that its CPU time is enough for each.
pub(super) const MOST_QUESTIONS: u64 = confine::CPU_TIMES - 2;
/// How long a process may take to start.
const START: Duration = Duration::from_secs(20);
/// How long to wait for the exit of a process that closed its output.
const END: Duration = Duration::from_secs(5);

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;

/// Limits on reading a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadLimits {
    /// Setting `symbol_memory_mb`.
    pub(super) memory_bytes: u64,
    /// Setting `symbol_seconds`.
    pub(super) seconds: u64,
}

/// Why there are no names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// The file is at fault.
    File(String),
    /// The process was killed, for lack of memory or from outside.
    Killed(String),
    /// There is no process to read it.
    NotStarted(String),
}

/// Starts processes that read symbols, and queries them.
pub(super) struct SymbolReader {
    program: Vec<OsString>,
    limits: ReadLimits,
    current: Option<Current>,
}

/// A process, and the file that it has read.
struct Current {
    path: PathBuf,
    questions: u64,
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl SymbolReader {
    /// `program` is a path and its arguments.
    pub(super) fn new(program: Vec<OsString>, limits: ReadLimits) -> SymbolReader {
        SymbolReader {
            program,
            limits,
            current: None,
        }
    }

    /// Ends the process, if there is one.
    pub(super) fn rest(&mut self) {
        self.current = None;
    }

    /// The frames at each offset of a file. Also which rights the process could not give up, if any.
    pub(super) async fn frames(
        &mut self,
        path: &Path,
        offsets: &[u64],
    ) -> Result<(Vec<(u64, Vec<Frame>)>, String), ReadError> {
        let is_of = |current: &Current| current.path == path && current.questions < MOST_QUESTIONS;
        let mut current = match self.current.take().filter(is_of) {
            Some(current) => current,
            None => self.start(path).await?,
        };
        current.questions += 1;
        let ask = Ask {
            path: path.as_os_str().as_bytes().to_vec(),
            memory_bytes: self.limits.memory_bytes,
            cpu_seconds: self.limits.seconds,
            offsets: offsets.to_vec(),
        };
        let limit = Duration::from_secs(self.limits.seconds);
        // Dropped on every path but the last: a process whose answer was incomplete is killed.
        let answer = match tokio::time::timeout(limit, current.ask(&ask)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => return Err(self.ended(current).await),
            Err(_) => {
                return Err(ReadError::File(format!(
                    "reading it took longer than {} s (`symbol_seconds`)",
                    limit.as_secs()
                )));
            }
        };
        if !answer.error.is_empty() {
            return Err(ReadError::File(answer.error));
        }
        self.current = Some(current);
        let unconfined = answer.unconfined.clone();
        Ok((answer.frames(), unconfined))
    }

    async fn start(&self, path: &Path) -> Result<Current, ReadError> {
        let not_started = |why: String| {
            ReadError::NotStarted(format!(
                "cannot start the symbol reader `{}`: {why}",
                self.program
                    .iter()
                    .map(|word| word.to_string_lossy())
                    .collect::<Vec<_>>()
                    .join(" ")
            ))
        };
        let Some((program, arguments)) = self.program.split_first() else {
            return Err(not_started("no program is configured".to_owned()));
        };
        let spawned = Command::new(program)
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let mut child = spawned.map_err(|error| not_started(error.to_string()))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(not_started("its pipes are missing".to_owned()));
        };
        let mut current = Current {
            path: path.to_owned(),
            questions: 0,
            child,
            to,
            from,
        };
        let mut hello = [0; HELLO.len()];
        match tokio::time::timeout(START, current.from.read_exact(&mut hello)).await {
            Ok(Ok(_)) if hello == *HELLO => Ok(current),
            Ok(Err(_)) => match self.ended(current).await {
                killed @ ReadError::Killed(_) => Err(killed),
                ReadError::File(why) | ReadError::NotStarted(why) => Err(not_started(why)),
            },
            _ => Err(not_started("it did not start as expected".to_owned())),
        }
    }

    /// Why a process no longer responds.
    async fn ended(&self, mut current: Current) -> ReadError {
        drop((current.to, current.from));
        let status: Option<ExitStatus> = match tokio::time::timeout(END, current.child.wait()).await {
            Ok(status) => status.ok(),
            Err(_) => None,
        };
        let ReadLimits { memory_bytes, seconds } = self.limits;
        match status.and_then(|status| status.signal()) {
            Some(SIGKILL) => ReadError::Killed("the symbol reader was killed".to_owned()),
            Some(SIGABRT) => ReadError::File(format!(
                "reading it needs more than {memory_bytes} bytes of memory (`symbol_memory_mb`)"
            )),
            Some(SIGXCPU) => ReadError::File(format!(
                "reading it needs more than {seconds} s of CPU time (`symbol_seconds`)"
            )),
            Some(signal) => ReadError::File(format!("the symbol reader was terminated by signal {signal}")),
            None => ReadError::File(format!(
                "the symbol reader exited{}",
                status.map_or_else(String::new, |status| format!(" ({status})"))
            )),
        }
    }
}

impl Current {
    async fn ask(&mut self, ask: &Ask) -> io::Result<Answer> {
        self.to.write_all(&wire::framed(ask)).await?;
        self.to.flush().await?;
        let mut prefix = [0; 4];
        self.from.read_exact(&mut prefix).await?;
        let mut bytes = vec![0; wire::length(prefix)?];
        self.from.read_exact(&mut bytes).await?;
        Answer::decode(bytes.as_slice()).map_err(io::Error::other)
    }
}
