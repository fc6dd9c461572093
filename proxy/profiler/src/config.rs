//! What a host may set, and why a start can be refused.
//!
//! Guarantee: a configuration that passes [`Config::validate`] cannot make the sampler exceed its memory or signal a
//! thread more often than every 100 microseconds of its CPU time.

use std::io;

/// The environment variable that refuses a start when it is `off`, `0`, `false` or `no`.
pub const KILL_SWITCH: &str = "EMBERLINE_PROFILER";

/// The highest rate, per second of a thread's CPU time. The kernel delivers at most one signal per tick and thread;
/// anything above that is returned as weight.
const HIGHEST_HZ: u32 = 10_000;
const HIGHEST_FRAMES: usize = 1_024;
const HIGHEST_RING_WORDS: usize = 1 << 24;

/// Settings of [`start`](crate::start). `Default` is suitable for production.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Samples per second of CPU time of each thread, 1 to 10,000. The default is 99 rather than 100, so that work
    /// repeated every 10 ms is not always sampled at the same point.
    pub hz: u32,
    /// Size of each thread's ring in words of 8 bytes; rounded up to a power of two. A sample takes 3 words and one
    /// per frame. Default 8,192 (64 KiB).
    pub ring_words: usize,
    /// Frames kept of a stack, from the leaf, 1 to 1,024. Deeper stacks lose their outermost frames and are counted as
    /// truncated. Default 128.
    pub max_frames: usize,
    /// Share of the process's CPU time that sampling may cost (signals, handler and drainer), above 0 and at most 1.
    /// Above it the rate is halved (not below 1 Hz); well below half of it the rate is doubled again. Default 0.01.
    pub cpu_budget: f64,
    /// Distinct stacks kept in one window; further ones fold into one empty stack and are counted. Default 16,384.
    pub max_stacks: usize,
    /// Distinct labels kept in one window; further ones fold into [`Label::OVERFLOW`](crate::Label::OVERFLOW) and are
    /// counted. Default 4,096.
    pub max_labels: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hz: 99,
            ring_words: 8_192,
            max_frames: 128,
            cpu_budget: 0.01,
            max_stacks: 16_384,
            max_labels: 4_096,
        }
    }
}

impl Config {
    /// Checks every setting; the ring size is checked as rounded up.
    pub(crate) fn validate(&self) -> Result<(), StartError> {
        check_hz(self.hz)?;
        if self.max_frames == 0 || self.max_frames > HIGHEST_FRAMES {
            return Err(StartError::invalid("max_frames", "must be 1 to 1,024"));
        }
        if self.ring_words > HIGHEST_RING_WORDS {
            return Err(StartError::invalid("ring_words", "must be at most 16,777,216"));
        }
        if self.ring_words < 2 * (self.max_frames + 3) {
            return Err(StartError::invalid(
                "ring_words",
                "must have room for two samples of maximum depth: 2 * (max_frames + 3)",
            ));
        }
        if !(self.cpu_budget > 0.0 && self.cpu_budget <= 1.0) {
            return Err(StartError::invalid("cpu_budget", "must be above 0 and at most 1"));
        }
        if self.max_stacks == 0 || self.max_stacks > u32::MAX as usize - 1 {
            return Err(StartError::invalid("max_stacks", "must be 1 to 4,294,967,294"));
        }
        if self.max_labels == 0 {
            return Err(StartError::invalid("max_labels", "must be at least 1"));
        }
        Ok(())
    }
}

/// Checks a rate; also for [`Profiler::set_rate`](crate::Profiler::set_rate).
pub(crate) fn check_hz(hz: u32) -> Result<(), StartError> {
    if hz == 0 || hz > HIGHEST_HZ {
        return Err(StartError::invalid("hz", "must be 1 to 10,000"));
    }
    Ok(())
}

/// Whether the environment forbids profilers in this process.
pub(crate) fn kill_switch_is_off() -> bool {
    std::env::var(KILL_SWITCH)
        .is_ok_and(|value| matches!(value.trim().to_ascii_lowercase().as_str(), "off" | "0" | "false" | "no"))
}

/// Why the sampler did not start. The process is never affected and can continue without profiles.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// This operating system or processor is not supported. A retry cannot help.
    #[error("the profiler supports only Linux (x86-64, aarch64); continuing without profiles")]
    Unsupported,
    /// Disabled by the operator. Unset the environment variable to enable it.
    #[error("the profiler is switched off by the environment variable {KILL_SWITCH}; unset it to allow profiling")]
    Disabled,
    /// A profiler is already running; there is at most one per process. Stop it first.
    #[error("a profiler is already running in this process; stop it before starting another")]
    AlreadyRunning,
    /// This process is a forked child of one that used the profiler, whose locks and threads it does not have.
    #[error(
        "this process was forked from one that uses the profiler; start the profiler after the fork, or exec first"
    )]
    Forked,
    /// Another handler owns `SIGPROF`. A retry helps once that other profiler is removed from the program.
    #[error("SIGPROF already has a handler in this process, probably from another profiler; remove one of the two")]
    SignalOwned,
    /// A setting is out of range: fix the caller.
    #[error("profiler setting `{setting}` {problem}")]
    InvalidConfig {
        /// Name of the field of [`Config`].
        setting: &'static str,
        /// What it must be.
        problem: &'static str,
    },
    /// The kernel refused a CPU timer (some sandboxes have none). A retry cannot help while it runs there.
    #[error("the kernel refused a per-thread CPU timer (timer_create): {0}; the sandbox may not allow CPU timers")]
    Timers(#[source] io::Error),
    /// The signal handler could not be installed.
    #[error("cannot install the SIGPROF handler (sigaction): {0}")]
    Signal(#[source] io::Error),
    /// The drainer thread could not be started, for example because of a thread limit. A retry may help.
    #[error("cannot start the profiler's drainer thread: {0}; check the limit on threads")]
    Thread(#[source] io::Error),
}

impl StartError {
    pub(crate) fn invalid(setting: &'static str, problem: &'static str) -> Self {
        Self::InvalidConfig { setting, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_each_bad_setting_is_named() {
        Config::default().validate().unwrap();
        let bad: [(&str, Config); 6] = [
            (
                "hz",
                Config {
                    hz: 0,
                    ..Config::default()
                },
            ),
            (
                "hz",
                Config {
                    hz: 10_001,
                    ..Config::default()
                },
            ),
            (
                "max_frames",
                Config {
                    max_frames: 0,
                    ..Config::default()
                },
            ),
            (
                "ring_words",
                Config {
                    ring_words: 200,
                    ..Config::default()
                },
            ),
            (
                "cpu_budget",
                Config {
                    cpu_budget: f64::NAN,
                    ..Config::default()
                },
            ),
            (
                "max_labels",
                Config {
                    max_labels: 0,
                    ..Config::default()
                },
            ),
        ];
        for (name, config) in bad {
            match config.validate() {
                Err(StartError::InvalidConfig { setting, .. }) => assert_eq!(setting, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
