//! Windows of time. Guarantee: every instance of every release cuts its windows at the same times, whole multiples of
//! [`WINDOW_SECONDS`] since the Unix epoch, so that "the same window" of two releases exists.

/// Length of a window in seconds, the time that one batch covers.
pub const WINDOW_SECONDS: u32 = 10;

/// The same, signed for calculations.
pub const WINDOW_S: i64 = WINDOW_SECONDS as i64;

/// The longest window accepted from other senders: a day.
pub const LONGEST_SECONDS: u32 = 86_400;

/// Start, in seconds since the Unix epoch, of the window that contains `unix_seconds`.
pub fn window_start(unix_seconds: i64) -> i64 {
    unix_seconds - unix_seconds.rem_euclid(i64::from(WINDOW_SECONDS))
}

/// An interval in whole seconds: its start since the Unix epoch, and its length, at least 1. Both ends are rounded, so
/// that adjacent intervals stay adjacent: no second is covered twice or not at all.
pub fn whole_seconds(start_unix_ns: i64, end_unix_ns: i64) -> (i64, u32) {
    let round = |ns: i64| ns.saturating_add(500_000_000).div_euclid(1_000_000_000);
    let start = round(start_unix_ns);
    let length = round(end_unix_ns).saturating_sub(start).max(1);
    (start, u32::try_from(length).unwrap_or(u32::MAX))
}

/// The whole seconds of a duration, capped so that several can be added up.
pub fn seconds_of(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

/// Source of time in production code; tests pass their own to simulate clock faults.
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

    #[test]
    fn whole_seconds_follow_one_another() {
        assert_eq!(whole_seconds(10_000_000_000, 20_000_000_000), (10, 10));
        assert_eq!(whole_seconds(10_499_000_000, 25_510_000_000), (10, 16));
        assert_eq!(
            whole_seconds(25_510_000_000, 25_600_000_000),
            (26, 1),
            "an instant is a second"
        );
        assert_eq!(whole_seconds(5, 0), (0, 1));
        assert_eq!(whole_seconds(0, i64::MAX).1, u32::MAX);
    }
}
