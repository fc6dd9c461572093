//! Another proxy on this machine whose listeners a new process takes over.
//!
//! Guarantees: only a running proxy that can hand over is asked, since the signal would end any other process; and only
//! one that listens on an address of the new process, so that a wrong process id stops nobody.
//!
//! Wrong on purpose: it does not say that it has heard. One that is stopped (SIGSTOP) or stopping keeps its addresses, and two
//! processes that take over the same one at the same instant both succeed.

use std::{collections::BTreeSet, fs};

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process, test_kill_process},
};

/// What the kernel calls a process of this program.
const NAME: &str = "emberline-proxy";

/// The number of the signal that asks a proxy to hand its listeners over ([`Proxy::hand_over`](super::Proxy::hand_over)).
pub const HAND_OVER: i32 = SIGNAL.as_raw();

const SIGNAL: Signal = Signal::USR2;

/// A process that can be asked to hand over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherProcess {
    process: Pid,
    /// Ports that it listens on.
    ports: BTreeSet<u16>,
}

/// Why a process cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum NoProxy {
    /// It does not run, is another program, or one that does not know of hand-overs.
    #[error(
        "no emberline-proxy that can hand over runs as process {0}; find it with `pgrep emberline-proxy`, or start without --take-over"
    )]
    NotOne(i32),
    /// It listens elsewhere, or was handed over already.
    #[error(
        "the proxy that runs as process {0} listens on no address of this configuration: give the process id of the one that does (`ss -ltnp`)"
    )]
    ListensElsewhere(i32),
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
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let process = (pid > 0).then(|| Pid::from_raw(pid)).flatten();
        match process {
            Some(process) if name.trim_end() == NAME && pid.unsigned_abs() != std::process::id() => {
                test_kill_process(process).map_err(|error| refused(pid, error))?;
                if !catches(pid) {
                    return Err(NoProxy::NotOne(pid));
                }
                let ports = ports_of(pid);
                Ok(OtherProcess { process, ports })
            }
            _ => Err(NoProxy::NotOne(pid)),
        }
    }

    /// Whether it listens on a port.
    pub(super) fn listens_on(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    /// Refuses a process that listens on none of these ports.
    pub(super) fn expect_any(&self, ports: impl IntoIterator<Item = u16>) -> Result<(), NoProxy> {
        if ports.into_iter().any(|port| self.listens_on(port)) {
            return Ok(());
        }
        Err(NoProxy::ListensElsewhere(self.process.as_raw_nonzero().get()))
    }

    /// Asks it to hand over. One that has ended since it was found has nothing to hand over.
    pub(super) fn ask(&self) -> Result<(), NoProxy> {
        match kill_process(self.process, SIGNAL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(refused(self.process.as_raw_nonzero().get(), error)),
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

/// Whether a process handles [`HAND_OVER`]; the mask is described in proc_pid_status(5).
fn catches(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (HAND_OVER - 1)) != 0)
}

/// Ports that a process listens on: its sockets among those that the kernel lists as listening (proc_pid_net(5)).
fn ports_of(pid: i32) -> BTreeSet<u16> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    let inodes: BTreeSet<String> = links
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut ports = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, state, _, _, _, _, _, inode, ..] = columns.as_slice() else {
                continue;
            };
            let port = local
                .rsplit_once(':')
                .and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
            if *state == LISTEN && inodes.contains(*inode) {
                ports.extend(port);
            }
        }
    }
    ports
}

/// `TCP_LISTEN` as the tables write it.
const LISTEN: &str = "0A";
