//! Collapsed stacks: one stack per line, frames from the root separated by `;`, and a number at the end. Also the form
//! without numbers, in which each line is one sample.
//!
//! Guarantees: the sum is that of the lines, to half a unit if numbers have decimals; frames are parsed as their tools
//! write them ([`text_frame`](super::text_frame)); if a line does not have this form, the error gives its number and
//! nothing of the text is used. Text with two numbers per line is a comparison, and refused as such. The first line of
//! a file written by this program says what its numbers are ([`header_of`]), whatever is requested.
//!
//! Wrong on purpose: a line that begins with `# ` is a comment, so no outermost frame may begin that way.

use super::{Units, fractions::Fractions, meaning, text_frame};
use crate::{profile::Profile, profile::ProfileType, profile_builder::ProfileBuilder, weight::TooHeavy};

/// The most frames of one line.
pub(super) const MAX_DEPTH: usize = 4096;
/// Beginning of the first line that says what the numbers are.
const HEADER: &str = "# profile type: ";

/// Why text was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldedError {
    /// A line is not a stack.
    #[error("line {line}: {what}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// There are too many different stacks and names.
    #[error(transparent)]
    TooHeavy(#[from] TooHeavy),
}

/// First line of collapsed stacks that declares their type; other tools treat it as a comment.
pub fn header_of(profile_type: &ProfileType) -> String {
    format!("{HEADER}{profile_type}\n", profile_type = profile_type.0)
}

/// What the first line says the numbers are.
fn units_of_header(text: &str) -> Option<Units> {
    let said = text.lines().next()?.strip_prefix(HEADER)?.trim();
    let parts = ProfileType::parts_of(said);
    let [_, sample_type, unit, period_type, period_unit] = parts;
    if sample_type.is_empty() || unit.is_empty() {
        return None;
    }
    let meant = meaning::meaning(sample_type, unit, period_type, period_unit);
    let named = super::type_of(parts[0], sample_type, unit, period_type, period_unit);
    Some(Units {
        // As stored: only the units need to be understood.
        profile_type: if meant.factor == 1 { named } else { meant.profile_type },
        factor: meant.factor,
        period: 0,
    })
}

/// Reads collapsed stacks into at most `memory` bytes. With `numbers`, each line ends in one; without, each line counts 1.
///
/// # Errors
/// When a line is not a stack, which the error names; or the profile would need more memory.
pub fn read(text: &str, units: &Units, numbers: bool, memory: u64) -> Result<Profile, FoldedError> {
    let said = units_of_header(text).filter(|_| numbers);
    let units = said.as_ref().unwrap_or(units);
    if numbers {
        refuse_comparison(text)?;
    }
    let mut builder = ProfileBuilder::new(units.profile_type.clone(), units.period).within(memory);
    let mut fractions = Fractions::default();
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: String| FoldedError::Line { line: at + 1, what };
        let line = line.trim_end();
        if is_comment(line) {
            continue;
        }
        let (stack, count) = match numbers {
            true => stack_and_number(line).map_err(wrong)?,
            false => (line, 1.0),
        };
        let mut leaf_first = Vec::new();
        let mut roots = true;
        for frame in frames(stack).filter(|frame| !frame.is_empty()) {
            roots = roots && text_frame::is_process_or_thread(frame);
            if roots {
                continue;
            }
            let frame = text_frame::split(frame);
            leaf_first.push(builder.frame(frame.function, frame.file, frame.line));
            // Checked here, because one line may be the whole file.
            builder.affordable()?;
        }
        if leaf_first.len() > MAX_DEPTH {
            return Err(wrong(format!(
                "a stack has {} frames; the limit is {MAX_DEPTH}",
                leaf_first.len()
            )));
        }
        leaf_first.reverse();
        let weight = count * units.factor as f64;
        if !(0.0..=super::MOST_WEIGHT).contains(&weight) {
            return Err(wrong(format!("the number {count} is out of range")));
        }
        // If a number is not a count of samples, the row was seen at least once.
        let samples = if units.period > 0 { count.round() as u64 } else { 1 };
        fractions.add(&mut builder, leaf_first, weight, samples)?;
        builder.affordable()?;
    }
    fractions.finish(&mut builder);
    Ok(builder.finish())
}

fn is_comment(line: &str) -> bool {
    line.is_empty() || line == "#" || line.starts_with("# ")
}

/// The frames of a stack, from the root. A process's command line may contain semicolons; it ends at its closing quote.
fn frames(stack: &str) -> impl Iterator<Item = &str> {
    let process = stack
        .starts_with("process ")
        .then(|| stack.find("\";").map(|end| stack.split_at(end + 1)))
        .flatten()
        .filter(|(process, _)| text_frame::is_process_or_thread(process));
    let (process, rest) = match process {
        Some((process, rest)) => (Some(process), rest),
        None => (None, stack),
    };
    process.into_iter().chain(rest.split(';').map(str::trim))
}

fn stack_and_number(line: &str) -> Result<(&str, f64), String> {
    let Some((stack, number)) = line.rsplit_once([' ', '\t']) else {
        return Err("the sample count is missing; expected `root;frame;leaf 12`".to_owned());
    };
    // Only digits and a point: `inf`, `1e9` and signs are not counts.
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let parsed = number.parse().ok().filter(|_| is_number);
    match parsed {
        Some(count) if count <= super::MOST_WEIGHT => Ok((stack, count)),
        _ => {
            let shown: String = number.chars().take(40).collect();
            Err(format!(
                "`{shown}` is not a sample count; expected `root;frame;leaf 12`"
            ))
        }
    }
}

/// Two numbers at the end of every line are a comparison, as written by `difffolded.pl`.
fn refuse_comparison(text: &str) -> Result<(), FoldedError> {
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let mut lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !is_comment(line.trim_end()));
    let two = |line: &str| {
        let mut words = line.trim_end().rsplit([' ', '\t']);
        let last_two = [words.next(), words.next()];
        // After a process or thread, `worker 1` is a name.
        last_two.iter().all(|word| word.is_some_and(is_number)) && words.next().is_some_and(|rest| !rest.is_empty())
    };
    let Some((first, line)) = lines.next() else {
        return Ok(());
    };
    if !two(line) || !lines.all(|(_, line)| two(line)) {
        return Ok(());
    }
    Err(FoldedError::Line {
        line: first + 1,
        what: "every line ends with two numbers: this is a comparison (difffolded), not a profile; send the two profiles separately"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::Location;

    fn read(text: &str, units: &Units, numbers: bool) -> Result<Profile, FoldedError> {
        super::read(text, units, numbers, u64::MAX)
    }

    #[test]
    fn names_and_stacks_are_charged_when_they_are_new() {
        let cpu = Units::cpu(100);
        let same = "main;price;parse 1\n".repeat(10_000);
        super::read(&same, &cpu, true, 2_000).unwrap();
        let different: String = (0..100).map(|n| format!("main;f{n} 1.5\n")).collect();
        let refused = super::read(&different, &cpu, true, 40_000).unwrap_err();
        assert!(matches!(refused, FoldedError::TooHeavy(_)), "{refused}");
        // Also in the middle of a line: here its depth would be refused at the end.
        let deep: String = (0..MAX_DEPTH + 1).map(|n| format!("f{n};")).collect();
        let refused = super::read(&format!("{deep}leaf 1"), &cpu, true, 40_000).unwrap_err();
        assert!(matches!(refused, FoldedError::TooHeavy(_)), "{refused}");
        // 101 names, and each stack twice: once with fractions.
        super::read(&different, &cpu, true, 101 * 250 + 200 * 176).unwrap();
    }

    fn named(profile: &Profile, at: u32) -> (&str, &str, u32) {
        match &profile.locations[at as usize] {
            Location::Named { frames } => (&frames[0].function, &frames[0].file, frames[0].line),
            Location::Native { .. } => ("native", "", 0),
        }
    }

    fn name(profile: &Profile, at: u32) -> &str {
        named(profile, at).0
    }

    fn stack(profile: &Profile, at: usize) -> Vec<&str> {
        profile.stacks[at].iter().map(|&at| name(profile, at)).collect()
    }

    #[test]
    fn lines_become_rows_with_the_leaf_first() {
        let profile = read("main;a b;leaf 3\n\nmain 1\nmain;a b;leaf 2\n", &Units::cpu(100), true).unwrap();
        assert_eq!(profile.samples.len(), 2);
        assert_eq!((profile.samples[0].value, profile.samples[0].count), (50_000_000, 5));
        assert_eq!(stack(&profile, 0), ["leaf", "a b", "main"]);
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
            ("a;b 1\nc;d\n", 2, "the sample count is missing"),
            ("a -1", 1, "`-1`"),
            ("a 1.5.2", 1, "`1.5.2`"),
            ("a 1e9", 1, "`1e9`"),
            ("a inf", 1, "`inf`"),
            ("a 18446744073709551616", 1, "is not a sample count"),
            ("# a comment\na;b 10 12\na 1 1\n", 2, "difffolded"),
        ] {
            let error = read(text, &Units::cpu(100), true).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("line {line}: ")) && error.contains(word),
                "{error}"
            );
        }
    }

    #[test]
    fn only_a_text_of_two_numbers_everywhere_is_a_comparison() {
        let profile = read("main;worker 1 10\nmain;price 5\n", &Units::cpu(100), true).unwrap();
        assert_eq!(stack(&profile, 0), ["worker 1", "main"]);
        let refused = read("worker 1 10\n", &Units::cpu(100), true);
        assert!(matches!(refused, Err(FoldedError::Line { line: 1, .. })));
    }

    #[test]
    fn a_root_with_a_hash_is_no_comment() {
        let profile = read("#<Class:0x1>#call;price 10\nmain;price 5\n", &Units::cpu(100), true).unwrap();
        assert_eq!(profile.samples.iter().map(|s| s.count).sum::<u64>(), 15);
    }

    #[test]
    fn decimals_are_rounded_in_all_and_not_line_by_line() {
        let profile = read("main;price 10.5\nmain;parse 4.5\n", &Units::cpu(100), true).unwrap();
        assert_eq!(profile.total(), 150_000_000);
        let plain = Units::plain("memory", "alloc_space", "bytes", "space");
        let text: String = (0..1000).map(|n| format!("main;f{n} 0.4\n")).collect();
        assert_eq!(read(&text, &plain, true).unwrap().total(), 400);
    }

    #[test]
    fn processes_and_threads_leave_the_root() {
        let text = "process 7:\"python -c a;b; c\";thread (7): worker 1;main (app.py:3) 5\nprocess 7:\"x\" 1\n";
        let profile = read(text, &Units::cpu(100), true).unwrap();
        assert_eq!(stack(&profile, 0), ["main"]);
        assert_eq!(named(&profile, 0), ("main", "app.py", 3));
        assert_eq!(
            stack(&profile, 1),
            ["[unknown]"],
            "what a process has no stack of is kept"
        );
    }

    #[test]
    fn what_this_program_wrote_says_what_its_numbers_are() {
        for stored in [
            ProfileType::CPU,
            "block:delay:nanoseconds:contentions:count",
            "memory:inuse_space:bytes:space:bytes",
        ] {
            let stored = ProfileType(stored.to_owned());
            let text = format!("{}main;price 494494494\n", header_of(&stored));
            let profile = read(&text, &Units::cpu(100), true).unwrap();
            assert_eq!((profile.profile_type.clone(), profile.total()), (stored, 494_494_494));
        }
    }

    proptest! {
        #[test]
        fn text_of_any_kind_keeps_its_sum_or_is_refused(text in "[a-z; 0-9\n\t\u{0}é#-]{0,80}") {
            if let Ok(profile) = read(&text, &Units::plain("x", "x", "count", "x"), true) {
                prop_assert!(profile.validate().is_ok());
                let numbers = text.lines().map(str::trim_end).filter(|line| !is_comment(line));
                let sum = numbers.map(|l| l.rsplit([' ', '\t']).next().unwrap().parse::<f64>().unwrap()).sum::<f64>();
                prop_assert!((profile.total() as f64 - sum).abs() <= 1e-9 * sum + 0.5);
            }
        }

        /// Collapsed stacks as tools write them: any name without `;`, including brackets, blanks and numbers.
        #[test]
        fn what_a_tool_writes_is_read_back(
            stacks in prop::collection::vec((prop::collection::vec("[a-zA-Z_<>(){}\\[\\]:.,*&$~0-9]{1,10}( [a-z0-9]{1,4})?", 1..6), 1u32..1000), 1..12),
        ) {
            let text: String = stacks.iter().map(|(frames, count)| format!("{} {count}\n", frames.join(";"))).collect();
            let read = read(&text, &Units::cpu(100), true);
            if let Err(error) = &read {
                prop_assert!(error.to_string().contains("difffolded"), "{}", error);
                return Ok(());
            }
            let profile = read.unwrap();
            prop_assert_eq!(profile.total(), stacks.iter().map(|(_, count)| i64::from(*count) * 10_000_000).sum::<i64>());
            let mut expected: Vec<Vec<String>> = stacks.iter().map(|(frames, _)| frames.iter().rev().map(|frame| {
                let frame = text_frame::split(frame);
                crate::function::normalise(frame.function)
            }).collect()).collect();
            let mut found: Vec<Vec<String>> = (0..profile.stacks.len()).map(|at| stack(&profile, at).iter().map(|name| (*name).to_owned()).collect()).collect();
            expected.sort();
            expected.dedup();
            found.sort();
            found.dedup();
            prop_assert_eq!(found, expected);
        }
    }
}
