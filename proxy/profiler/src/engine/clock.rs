//! CPU clocks, and the relation of the cycle counter to nanoseconds.
//!
//! Guarantee: the clock of a thread or process that is gone returns `None`, never another thread's time (a thread id
//! that was reused in this process returns the time of its new owner).

use std::time::Instant;

use super::arch;

/// The kernel's id for the CPU clock of a thread of this process: the complement of the thread id, shifted by three,
/// with the bits for "per thread" and "scheduler time" (linux/posix-timers.h).
pub(super) fn thread_clock(tid: libc::pid_t) -> libc::clockid_t {
    (!tid << 3) | 0b110
}

pub(super) fn read_ns(clock: libc::clockid_t) -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to the local variable.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    (result == 0).then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

pub(super) fn thread_cpu_ns(tid: libc::pid_t) -> Option<u64> {
    read_ns(thread_clock(tid))
}

pub(super) fn own_thread_cpu_ns() -> u64 {
    read_ns(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or(0)
}

pub(super) fn process_cpu_ns() -> u64 {
    read_ns(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap_or(0)
}

pub(super) fn own_tid() -> libc::pid_t {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { libc::gettid() }
}

/// Converts cycles by comparing the counter with the monotonic clock since its creation.
#[derive(Copy, Clone)]
pub(super) struct CycleRate {
    since: Instant,
    cycles: u64,
}

impl CycleRate {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            cycles: arch::cycles(),
        }
    }

    /// Nanoseconds taken by `cycles`; more accurate the longer this exists.
    pub(super) fn nanoseconds(&self, cycles: u64) -> u64 {
        let elapsed_ns = self.since.elapsed().as_nanos() as f64;
        let elapsed_cycles = arch::cycles().saturating_sub(self.cycles).max(1) as f64;
        (cycles as f64 * (elapsed_ns / elapsed_cycles)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_name_of_this_thread_reads_its_own_cpu_time() {
        let mut work = 0_u64;
        let before = own_thread_cpu_ns();
        while own_thread_cpu_ns() < before + 2_000_000 {
            work = std::hint::black_box(work + 1);
        }
        let lower = own_thread_cpu_ns();
        let by_name = thread_cpu_ns(own_tid()).unwrap();
        let upper = own_thread_cpu_ns();
        assert!(lower <= by_name && by_name <= upper, "{lower} {by_name} {upper}");
        assert_eq!(thread_cpu_ns(1), None, "a thread of another process");
    }
}
