//! Collapsed stacks: a line per stack, frames from the root on with `;` between them, and a number at the end. Also the
//! form without numbers, where each line is one sample.
//!
//! Guarantees: the sum is that of the lines; a line that is not of this form is named by its number and nothing of the
//! text is taken.

use super::Units;
use crate::{profile::Profile, profile_builder::ProfileBuilder, workload::LabelSet};

/// Most frames of one line.
pub(super) const MAX_DEPTH: usize = 4096;

/// A line that is not a stack.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct FoldedError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// Reads collapsed stacks. With `numbers`, each line ends in one; without, each line counts 1.
pub fn read(text: &str, units: &Units, numbers: bool) -> Result<Profile, FoldedError> {
    let mut builder = ProfileBuilder::new(units.profile_type.clone(), units.period);
    let none = LabelSet::none();
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: String| FoldedError { line: at + 1, what };
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (stack, count) = if numbers {
            let Some((stack, number)) = line.rsplit_once([' ', '\t']) else {
                return Err(wrong("no number at the end; expected `root;frame;leaf 12`".to_owned()));
            };
            let shown: String = number.chars().take(40).collect();
            let count: u64 = number.parse().map_err(|_| {
                wrong(format!(
                    "`{shown}` is not a number of samples; expected `root;frame;leaf 12`"
                ))
            })?;
            (stack, count)
        } else {
            (line, 1)
        };
        let value = i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(units.factor);
        let depth = stack.bytes().filter(|&byte| byte == b';').count() + 1;
        if depth > MAX_DEPTH {
            return Err(wrong(format!(
                "a stack of {depth} frames; at most {MAX_DEPTH} are read"
            )));
        }
        let frames: Vec<u32> = stack
            .rsplit(';')
            .map(str::trim)
            .filter(|frame| !frame.is_empty())
            .map(|frame| builder.frame(frame, "", 0))
            .collect();
        // Where a number is no count of samples, the row was seen at least once.
        let samples = if units.period > 0 { count } else { 1 };
        builder.add(frames, &none, value, samples);
    }
    Ok(builder.finish())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::Location;

    fn name(profile: &Profile, at: u32) -> &str {
        match &profile.locations[at as usize] {
            Location::Named { frames } => &frames[0].function,
            Location::Native { .. } => "native",
        }
    }

    #[test]
    fn lines_become_rows_with_the_leaf_first() {
        let profile = read("main;a b;leaf 3\n\nmain 1\nmain;a b;leaf 2\n", &Units::cpu(100), true).unwrap();
        assert_eq!(profile.samples.len(), 2);
        assert_eq!((profile.samples[0].value, profile.samples[0].count), (50_000_000, 5));
        let names: Vec<_> = profile.stacks[0].iter().map(|&at| name(&profile, at)).collect();
        assert_eq!(names, ["leaf", "a b", "main"]);
        assert!(profile.validate().is_ok());
        let lines = read(
            "main;a\nmain;a\n",
            &Units::plain("memory", "alloc_space", "bytes", "space"),
            false,
        )
        .unwrap();
        assert_eq!(lines.total(), 2);
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, line, word) in [
            ("a;b 1\nc;d\n", 2, "no number"),
            ("a -1", 1, "`-1`"),
            ("a 1.5", 1, "`1.5`"),
        ] {
            let error = read(text, &Units::cpu(100), true).unwrap_err();
            assert_eq!(error.line, line);
            assert!(error.what.contains(word), "{error}");
        }
    }

    proptest! {
        #[test]
        fn text_of_any_kind_keeps_its_sum_or_is_refused(text in "[a-z; 0-9\n\t\u{0}é-]{0,80}") {
            if let Ok(profile) = read(&text, &Units::plain("x", "x", "count", "x"), true) {
                prop_assert!(profile.validate().is_ok());
                let numbers = text.lines().map(str::trim_end).filter(|l| !l.is_empty() && !l.starts_with('#'));
                let sum = numbers.map(|l| l.rsplit([' ', '\t']).next().unwrap().parse::<i64>().unwrap_or(i64::MAX)).fold(0, i64::saturating_add);
                prop_assert_eq!(profile.total(), sum);
            }
        }
    }
}
