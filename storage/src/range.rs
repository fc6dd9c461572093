//! The time range of a question, and the steps it is divided into.

/// Seconds since the Unix epoch; `from` is in the range, `to` is not. A window is in a range when its start is.
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
    /// All of them: their rows have 0 as their start.
    #[default]
    Range,
    /// None: each window has rows of its own.
    Window,
    /// Those that start within the same step of this many seconds, counted from the Unix epoch; 0 means 1. Rows have
    /// the start of the step.
    Seconds(u32),
}

/// Lengths of steps that people read easily, in seconds; longer ones are whole days.
const LENGTHS_S: [u32; 6] = [10, 60, 300, 900, 3_600, 6 * 3_600];
const DAY_S: u32 = 24 * 3_600;

impl Step {
    /// The shortest usual step, in seconds, that divides these times into at most `most` steps. At least 10.
    pub fn length_s(first_unix_s: u32, last_unix_s: u32, most: u32) -> u32 {
        let fits = |step: &u32| last_unix_s / step - first_unix_s / step < most;
        let mut lengths = LENGTHS_S.into_iter().chain((DAY_S..).step_by(DAY_S as usize));
        lengths.find(fits).unwrap_or(u32::MAX)
    }

    /// The shortest usual step that is as long as a window of `window_s` seconds.
    pub fn holding_s(window_s: u32) -> u32 {
        let mut lengths = LENGTHS_S.into_iter().chain((DAY_S..).step_by(DAY_S as usize));
        lengths.find(|&length| length >= window_s).unwrap_or(u32::MAX)
    }

    /// Its length in seconds, 0 for the whole range; `None` where each window is separate.
    pub(crate) fn seconds(self) -> Option<u32> {
        match self {
            Step::Range => Some(0),
            Step::Window => None,
            Step::Seconds(seconds) => Some(seconds.max(1)),
        }
    }

    /// The start that the rows of a window have.
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
