//! One kernel timer on one thread's CPU clock, which signals that thread.
//!
//! Guarantee: the timer is deleted when dropped; its expiry times are known exactly, so expiries that the kernel has
//! not noticed can be counted. Expectations are exact whenever the timer is armed, because the first expiry is
//! uniformly random within one period: a stretch of T nanoseconds is worth T / period expiries on average.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ptr;

use super::clock;

/// A kernel timer; dropping it deletes it.
pub(super) struct Timer {
    id: libc::timer_t,
    schedule: Schedule,
}

/// When a timer expires, by its thread's CPU clock. A period of 0 means never.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) first_ns: u64,
    pub(super) period_ns: u64,
}

impl Schedule {
    /// How often it was due by the time the clock reads `now_ns`.
    pub(super) fn due(self, now_ns: u64) -> u64 {
        match now_ns.checked_sub(self.first_ns) {
            Some(since) if self.period_ns > 0 => 1 + since / self.period_ns,
            _ => 0,
        }
    }
}

// SAFETY: a timer id is a number of this process, valid on every thread.
unsafe impl Send for Timer {}

impl Timer {
    /// Creates a disarmed timer on the CPU clock of the thread `tid` of this process; its signals carry `cookie`.
    pub(super) fn new(tid: libc::pid_t, cookie: *mut libc::c_void) -> io::Result<Self> {
        // SAFETY: all-zero is a valid value of this plain structure.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGPROF;
        event.sigev_value = libc::sigval { sival_ptr: cookie };
        event.sigev_notify_thread_id = tid;
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: reads and writes the two local variables.
        let result = unsafe { libc::timer_create(clock::thread_clock(tid), &raw mut event, &raw mut timer) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            id: timer,
            schedule: Schedule::default(),
        })
    }

    /// Makes the timer expire every `period_ns` nanoseconds of its thread's CPU time, whose clock reads `now_ns`.
    pub(super) fn arm(&mut self, now_ns: u64, period_ns: u64) -> io::Result<()> {
        let first_ns = now_ns + 1 + RandomState::new().hash_one(self.id as usize) % period_ns;
        let setting = libc::itimerspec {
            it_interval: timespec(period_ns),
            it_value: timespec(first_ns),
        };
        // SAFETY: the timer exists until dropped; reads the local variable.
        let result = unsafe { libc::timer_settime(self.id, libc::TIMER_ABSTIME, &raw const setting, ptr::null_mut()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        self.schedule = Schedule { first_ns, period_ns };
        Ok(())
    }

    /// Deletes the timer; returns its schedule.
    pub(super) fn delete(self) -> Schedule {
        self.schedule
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: the timer exists: only this call deletes it.
        unsafe { libc::timer_delete(self.id) };
    }
}

fn timespec(nanoseconds: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: (nanoseconds / 1_000_000_000) as libc::time_t,
        tv_nsec: (nanoseconds % 1_000_000_000) as libc::c_long,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries_are_due_from_the_first_on() {
        let schedule = Schedule {
            first_ns: 100,
            period_ns: 10,
        };
        assert_eq!(
            [0, 99, 100, 109, 110, 200].map(|now| schedule.due(now)),
            [0, 0, 1, 1, 2, 11]
        );
        assert_eq!(Schedule::default().due(1_000), 0);
    }
}
