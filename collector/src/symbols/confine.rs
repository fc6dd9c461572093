//! The symbol reader process confines itself before it opens a file.
//!
//! Guarantees, enforced by the kernel: it holds no more memory than requested, plus the program's own and the file's
//! pages; it writes no file and leaves no core dump; it uses no more CPU time than requested; when memory runs out it
//! is killed first; it runs at the lowest priority. Where the kernel filters system calls (Linux on x86-64, ARM64 and
//! RISC-V) it opens no socket, starts no program and inspects no process.
//!
//! Wrong on purpose: it may open files that its user may read, since the reader opens the one it is told by name. Its
//! output goes only to the worker, as names of functions.

use std::{collections::BTreeMap, fs};

use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Descriptors it may have: the pipes, the file, and what the reader opens with it.
const DESCRIPTORS: u64 = 32;
/// CPU time of one process in total, in queries; see [`super::child::MOST_QUESTIONS`].
pub(super) const CPU_TIMES: u64 = 20;

/// System calls for network, other programs and other processes. The reader may need any other.
const FORBIDDEN: &[libc::c_long] = &[
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kill,
    libc::SYS_io_uring_setup,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_mount,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_keyctl,
];

/// Gives up everything but memory, CPU time and one file. Returns what the kernel does not let it give up.
pub(super) fn give_up_rights() -> Result<(), String> {
    // Not fatal: it then runs at normal priority.
    let _ = setpriority_process(None, 19);
    // A process may always raise its own score.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    for (resource, limit) in [
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, DESCRIPTORS),
    ] {
        set(resource, limit, Some(limit))?;
    }
    filter_calls().map_err(|error| format!("cannot filter system calls: {error}"))
}

fn filter_calls() -> Result<(), Box<dyn std::error::Error>> {
    let rules: BTreeMap<i64, Vec<_>> = FORBIDDEN.iter().map(|&call| (call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter_all_threads(&program)?)
}

/// Limits the address space to `more_bytes` above the current size. Permanent.
pub(super) fn bound_memory(more_bytes: u64) -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let kib = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmSize:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()
        })
        .ok_or("cannot determine its own size")?;
    let limit = kib.saturating_mul(1024).saturating_add(more_bytes);
    set(Resource::As, limit, Some(limit))
}

/// Limits the CPU time to `seconds` more, and to [`CPU_TIMES`] as many in total.
pub(super) fn bound_cpu(seconds: u64) -> Result<(), String> {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).tv_sec;
    let soft = used.unsigned_abs().saturating_add(seconds).saturating_add(1);
    let hard = getrlimit(Resource::Cpu)
        .maximum
        .unwrap_or(seconds.saturating_mul(CPU_TIMES));
    set(Resource::Cpu, soft.min(hard), Some(hard))
}

fn set(resource: Resource, current: u64, maximum: Option<u64>) -> Result<(), String> {
    let lower = |wanted: u64| getrlimit(resource).maximum.map_or(wanted, |there| there.min(wanted));
    let limit = Rlimit {
        current: Some(lower(current)),
        maximum: maximum.map(lower),
    };
    setrlimit(resource, limit).map_err(|error| format!("cannot limit {resource:?}: {error}"))
}
