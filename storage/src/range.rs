//! The time a question is about, and into what it is cut.

/// Seconds since the Unix epoch; `from` belongs to the range, `to` does not. A window belongs to a range when its
/// start does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First second.
    pub from_unix_s: i64,
    /// Second after the last.
    pub to_unix_s: i64,
}

impl Range {
    /// Everything that can be stored.
    pub const ALL: Range = Range {
        from_unix_s: 0,
        to_unix_s: u32::MAX as i64,
    };
}

/// Which windows of a range share their rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Step {
    /// All: their rows say 0 as their start.
    #[default]
    Range,
    /// None: each has rows of its own.
    Window,
    /// Those that start within the same so many seconds, counted from the Unix epoch; 0 is 1. Rows say the start of
    /// these seconds.
    Seconds(u32),
}

/// Lengths of steps that people read easily, in seconds; longer ones are whole days.
const LENGTHS_S: [u32; 6] = [10, 60, 300, 900, 3_600, 6 * 3_600];
const DAY_S: u32 = 24 * 3_600;

impl Step {
    /// The shortest of the usual lengths, in seconds, that makes at most `most` steps of these times. At least 10.
    pub fn length_s(first_unix_s: u32, last_unix_s: u32, most: u32) -> u32 {
        let fits = |step: &u32| last_unix_s / step - first_unix_s / step < most;
        let mut lengths = LENGTHS_S.into_iter().chain((DAY_S..).step_by(DAY_S as usize));
        lengths.find(fits).unwrap_or(u32::MAX)
    }

    /// The shortest of the usual lengths that holds a window of so many seconds.
    pub fn holding_s(window_s: u32) -> u32 {
        let mut lengths = LENGTHS_S.into_iter().chain((DAY_S..).step_by(DAY_S as usize));
        lengths.find(|&length| length >= window_s).unwrap_or(u32::MAX)
    }

    /// Its length in seconds, 0 for all of a range; `None` where windows are told apart.
    pub(crate) fn seconds(self) -> Option<u32> {
        match self {
            Step::Range => Some(0),
            Step::Window => None,
            Step::Seconds(seconds) => Some(seconds.max(1)),
        }
    }

    /// What the rows of a window say as their start.
    pub(crate) fn start_of(self, window_s: u32) -> u32 {
        match self {
            Step::Range => 0,
            Step::Window => window_s,
            Step::Seconds(seconds) => window_s - window_s % seconds.max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn there_are_never_too_many_steps(first_s: u32, length_s: u32, most in 2u32..1_000) {
            let last_s = first_s.saturating_add(length_s);
            let step_s = Step::length_s(first_s, last_s, most);
            proptest::prop_assert!(last_s / step_s - first_s / step_s < most);
            // A step as long as the range is too long.
            proptest::prop_assert!(step_s == LENGTHS_S[0] || step_s < last_s - first_s);
        }
    }
}
