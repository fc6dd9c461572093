//! Windows of time. Guarantee: every instance of every release cuts its windows at the same instants, whole
//! multiples of [`WINDOW_SECONDS`] since the Unix epoch, so that "the same window" of two releases exists.

/// Length of a window in seconds: what one batch covers.
pub const WINDOW_SECONDS: u32 = 10;

/// Start, in seconds since the Unix epoch, of the window that holds the instant `unix_seconds`.
pub fn window_start(unix_seconds: i64) -> i64 {
    unix_seconds - unix_seconds.rem_euclid(i64::from(WINDOW_SECONDS))
}

/// Where the production code reads the time; tests pass their own, so that faults of clocks can be simulated.
pub trait Clock: Send + Sync {
    /// Nanoseconds since the Unix epoch.
    fn now_unix_ns(&self) -> i64;

    /// Seconds since the Unix epoch, rounded down.
    fn now_unix_s(&self) -> i64 {
        self.now_unix_ns().div_euclid(1_000_000_000)
    }

    /// Milliseconds since the Unix epoch, rounded down.
    fn now_unix_ms(&self) -> i64 {
        self.now_unix_ns().div_euclid(1_000_000)
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_unix_ns(&self) -> i64 {
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_nanos()).unwrap_or(i64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned_before_and_after_the_epoch() {
        assert_eq!(window_start(0), 0);
        assert_eq!(window_start(19), 10);
        assert_eq!(window_start(20), 20);
        assert_eq!(window_start(-1), -10);
    }
}
