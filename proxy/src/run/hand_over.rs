//! Another proxy on this machine whose listeners a new process takes over.
//!
//! Guarantee: only a running process that is a proxy is asked; the signal would end any other.

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process, test_kill_process},
};

/// What the kernel calls a process of this program.
const NAME: &str = "emberline-proxy";

/// The signal that asks a proxy to hand its listeners over.
pub(super) const HAND_OVER: Signal = Signal::USR2;

/// A process that can be asked to hand over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherProcess(Pid);

/// Why a process cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum NoProxy {
    /// It does not run, or is another program.
    #[error(
        "no emberline-proxy runs as process {0}; find it with `pgrep emberline-proxy`, or start without --take-over"
    )]
    NotOne(i32),
    /// It belongs to somebody else, whose addresses cannot be shared either.
    #[error("process {0} runs as another user; start this one as the same user")]
    OfSomebodyElse(i32),
    /// The operating system refuses.
    #[error("cannot signal process {0}: {1}")]
    System(i32, std::io::Error),
}

impl OtherProcess {
    /// The proxy that runs as `pid`.
    ///
    /// # Errors
    /// When nothing that is one runs there, or it cannot be signalled.
    pub fn find(pid: i32) -> Result<OtherProcess, NoProxy> {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let process = (pid > 0).then(|| Pid::from_raw(pid)).flatten();
        match process {
            Some(process) if name.trim_end() == NAME && pid.unsigned_abs() != std::process::id() => {
                test_kill_process(process).map_err(|error| refused(pid, error))?;
                Ok(OtherProcess(process))
            }
            _ => Err(NoProxy::NotOne(pid)),
        }
    }

    /// Asks it to hand over. One that has ended since it was found has nothing to hand over.
    pub(super) fn ask(self) -> Result<(), NoProxy> {
        match kill_process(self.0, HAND_OVER) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(refused(self.0.as_raw_nonzero().get(), error)),
        }
    }
}

fn refused(pid: i32, error: Errno) -> NoProxy {
    match error {
        Errno::SRCH => NoProxy::NotOne(pid),
        Errno::PERM => NoProxy::OfSomebodyElse(pid),
        error => NoProxy::System(pid, error.into()),
    }
}
