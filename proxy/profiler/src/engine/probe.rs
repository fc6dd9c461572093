//! Requests a sample from a thread: to measure the cost of a sample, and for tests that need many.
//!
//! Guarantee: a requested sample has weight 0, so it never changes how CPU time is attributed. Wrong on purpose: a
//! request made while a `SIGPROF` of the thread is pending is lost, as the kernel keeps only one pending signal of a
//! kind.

use std::io;

use super::clock;
use super::handler::SignalInfo;
use super::slot::ThreadSlot;
use crate::words::WORDS;

/// Requests samples from one registered thread, from any thread.
#[derive(Copy, Clone, Debug)]
pub struct SampleProbe {
    tid: libc::pid_t,
    cookie: usize,
}

/// A probe of the calling thread; `None` if it is not registered or cannot be.
#[must_use]
pub fn probe_current_thread() -> Option<SampleProbe> {
    let slot = WORDS.with(ThreadSlot::of)?;
    Some(SampleProbe {
        tid: clock::own_tid(),
        cookie: std::ptr::from_ref(slot) as usize,
    })
}

impl SampleProbe {
    /// Signals the thread to record its stack now, with weight 0.
    ///
    /// # Errors
    ///
    /// The system's error, `ESRCH` if the thread has ended.
    pub fn request(&self) -> io::Result<()> {
        send(self.tid, self.cookie)
    }
}

/// Queues a `SIGPROF` that carries `cookie` to a thread of this process.
pub(super) fn send(tid: libc::pid_t, cookie: usize) -> io::Result<()> {
    // SAFETY: takes no arguments and cannot fail.
    let pid = unsafe { libc::getpid() };
    let info = SignalInfo {
        signal: libc::SIGPROF,
        error: 0,
        code: libc::SI_QUEUE,
        padding: 0,
        timer_or_pid: pid,
        overrun_or_uid: 0,
        value: cookie,
        rest: [0; 12],
    };
    // SAFETY: reads the local variable, which has the kernel's layout and size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_tgsigqueueinfo,
            libc::c_long::from(pid),
            libc::c_long::from(tid),
            libc::c_long::from(libc::SIGPROF),
            &raw const info,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
