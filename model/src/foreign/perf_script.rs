//! The text of `perf script`: a line about the sample, a line per frame from the leaf on, an empty line.
//!
//! Guarantees: every sample of the text is counted once, under the event that most samples are of when there are
//! several (the others are said in [`PerfScript::other_events`]); a text that holds no sample is refused with the line
//! that was not understood. The command is the outermost frame, as in other tools, so that processes stay apart.
//!
//! Wrong on purpose: the times of `perf` count from the start of the machine; only their distance is used. Without a
//! rate, events other than the CPU clocks are counted in their own unit and not turned into time.

use std::collections::HashMap;

use super::{NS, Units, folded::MAX_DEPTH, type_of};
use crate::{
    profile::{Profile, ProfileType},
    profile_builder::ProfileBuilder,
    workload::LabelSet,
};

/// Text that is not of `perf script`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct PerfScriptError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// What the text holds.
#[derive(Debug, Clone, PartialEq)]
pub struct PerfScript {
    /// The samples of the event most of them are of.
    pub profile: Profile,
    /// Samples of other events, which are left out.
    pub other_events: u64,
}

/// The line about a sample.
#[derive(Debug, Clone, PartialEq)]
struct Head<'t> {
    command: &'t str,
    time_ns: Option<i64>,
    period: Option<i64>,
    event: &'t str,
}

/// True when the text looks like one of `perf script`: its first line is the head of a sample.
pub(super) fn looks_like(text: &str) -> bool {
    let first = text
        .lines()
        .find(|line| !line.trim().is_empty() && !line.starts_with('#'));
    first.is_some_and(|line| head(line).is_some())
}

/// `command pid[/tid] [cpu] time: [period] event:`; parts in square brackets may be missing, and so may the time.
fn head(line: &str) -> Option<Head<'_>> {
    if line.starts_with([' ', '\t']) && !line.trim_start().contains(": ") && !line.trim_end().ends_with(':') {
        return None;
    }
    let line = line.trim();
    // The command may hold blanks: it ends before the first word that is a process id.
    let mut at = 0;
    let mut command = None;
    for word in line.split(' ') {
        let id = word.split('/').next().unwrap_or_default();
        let is_id = !id.is_empty() && word.bytes().all(|b| b.is_ascii_digit() || b == b'/');
        if at > 0 && is_id {
            command = Some((line[..at].trim(), &line[at + word.len()..]));
            break;
        }
        at += word.len() + 1;
    }
    let (command, rest) = command?;
    let mut head = Head {
        command,
        time_ns: None,
        period: None,
        event: "",
    };
    for word in rest.split_whitespace() {
        if word.starts_with('[') {
            continue;
        }
        if let Some(name) = word.strip_suffix(':') {
            match seconds_as_ns(name) {
                Some(time) => head.time_ns = Some(time),
                None => {
                    // An event may have modifiers, `cycles:u:`.
                    head.event = name.split(':').next().unwrap_or_default();
                    break;
                }
            }
        } else if let Ok(period) = word.parse() {
            head.period = Some(period);
        }
    }
    (!head.event.is_empty() || head.time_ns.is_some()).then_some(head)
}

fn seconds_as_ns(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.')?;
    let digits = fraction.len();
    if digits > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<9}").parse().ok()?;
    seconds.parse::<i64>().ok()?.checked_mul(NS)?.checked_add(fraction)
}

/// `address symbol+0x12 (file)`: the symbol, or the file in brackets where there is none.
fn frame_name(line: &str) -> Option<String> {
    let line = line.trim();
    let (address, rest) = line.split_once(' ')?;
    if !address.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let (symbol, file) = match rest.rsplit_once(" (") {
        Some((symbol, file)) => (symbol.trim(), file.trim_end_matches(')')),
        None => (rest.trim(), ""),
    };
    let symbol = match symbol.rsplit_once("+0x") {
        Some((name, offset)) if offset.bytes().all(|b| b.is_ascii_hexdigit()) => name,
        _ => symbol,
    };
    if symbol.is_empty() || symbol == "[unknown]" {
        let file = file.rsplit('/').next().unwrap_or_default();
        return Some(if file.is_empty() {
            "[unknown]".to_owned()
        } else {
            format!("[{file}]")
        });
    }
    Some(symbol.to_owned())
}

/// Reads the text. With a rate each sample is worth its share of a second of CPU time.
pub fn read(text: &str, rate_hz: Option<u32>) -> Result<PerfScript, PerfScriptError> {
    let event = most_frequent_event(text);
    let is_clock = matches!(event.as_str(), "cpu-clock" | "task-clock");
    let (units, times) = match rate_hz {
        Some(rate) => (Units::cpu(rate), false),
        // The period of a clock is in nanoseconds.
        None if is_clock => (Units::cpu(super::DEFAULT_RATE_HZ), true),
        None => {
            let profile_type: ProfileType = type_of("perf", &event, "count", &event, "count");
            let units = Units {
                profile_type,
                factor: 1,
                period: 0,
            };
            (units, true)
        }
    };
    let mut builder = ProfileBuilder::new(units.profile_type.clone(), units.period);
    let (mut first_ns, mut last_ns) = (i64::MAX, i64::MIN);
    let (mut other_events, mut samples) = (0u64, 0u64);
    let mut open: Option<(Head<'_>, Vec<u32>)> = None;
    let mut finish = |open: &mut Option<(Head<'_>, Vec<u32>)>, builder: &mut ProfileBuilder| {
        let Some((head, mut frames)) = open.take() else { return };
        if head.event != event {
            other_events += 1;
            return;
        }
        samples += 1;
        if let Some(time) = head.time_ns {
            (first_ns, last_ns) = (first_ns.min(time), last_ns.max(time));
        }
        frames.push(builder.frame(head.command, "", 0));
        let value = match head.period {
            Some(period) if times => period.max(0),
            _ => units.factor,
        };
        builder.add(frames, &LabelSet::none(), value, 1);
    };
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: &str| PerfScriptError {
            line: at + 1,
            what: format!("{what}: `{}`", line.trim().chars().take(60).collect::<String>()),
        };
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            finish(&mut open, &mut builder);
            continue;
        }
        if let (Some((_, frames)), Some(name)) = (&mut open, frame_name(line))
            && line.starts_with([' ', '\t'])
        {
            if frames.len() >= MAX_DEPTH {
                return Err(wrong("a stack of more frames than are read"));
            }
            frames.push(builder.frame(&name, "", 0));
            continue;
        }
        finish(&mut open, &mut builder);
        let head = head(line).ok_or_else(|| wrong("neither the head of a sample nor one of its frames"))?;
        open = Some((head, Vec::new()));
    }
    finish(&mut open, &mut builder);
    if samples == 0 {
        return Err(PerfScriptError {
            line: text.lines().count().max(1),
            what: "the text holds no sample of `perf script`".to_owned(),
        });
    }
    let mut profile = builder.finish();
    profile.duration_ns = if last_ns > first_ns {
        last_ns.saturating_sub(first_ns)
    } else {
        0
    };
    Ok(PerfScript { profile, other_events })
}

fn most_frequent_event(text: &str) -> String {
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with([' ', '\t']) && frame_name(line).is_some() {
            continue;
        }
        if let Some(head) = head(line) {
            *counts.entry(head.event).or_default() += 1;
        }
    }
    let most = counts
        .into_iter()
        .max_by(|a, b| a.1.cmp(&b.1).then_with(|| b.0.cmp(a.0)));
    most.map(|(event, _)| event.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::Location;

    const TEXT: &str = "# a comment\nweb server 12/34 [001] 5000.250000:   10101010 cpu-clock:u: \n\t    55d0c8 shop::price+0x1a (/bin/shop)\n\t7f0000 [unknown] (/lib/libc.so.6)\n\nweb server 12/34 [001] 5003.250000:   10101010 cpu-clock:u: \n\t    55d0c8 shop::price+0x1b (/bin/shop)\n\t7f0000 [unknown] (/lib/libc.so.6)\n\nperf 9 5001.0: 4000 cycles: \n\tffff native_write+0xa ([kernel.kallsyms])\n";

    fn names(profile: &Profile, stack: usize) -> Vec<String> {
        let name = |&l: &u32| match &profile.locations[l as usize] {
            Location::Named { frames } => frames[0].function.clone(),
            Location::Native { .. } => String::new(),
        };
        profile.stacks[stack].iter().map(name).collect()
    }

    #[test]
    fn samples_of_the_main_event_become_time_and_others_are_counted() {
        let read = read(TEXT, None).unwrap();
        assert_eq!(read.other_events, 1);
        assert_eq!(read.profile.profile_type, ProfileType::cpu());
        assert_eq!(read.profile.samples.len(), 1, "offsets within a function do not matter");
        assert_eq!((read.profile.total(), read.profile.samples[0].count), (20_202_020, 2));
        assert_eq!(names(&read.profile, 0), ["shop::price", "[libc.so.6]", "web server"]);
        assert_eq!(read.profile.duration_ns, 3 * NS);
        assert!(looks_like(TEXT));
    }

    #[test]
    fn events_that_are_no_clock_keep_their_unit_unless_a_rate_is_given() {
        let text = "a 1 2.0: 4000 cycles: \n\tff f+0x1 (x)\n";
        let plain = read(text, None).unwrap().profile;
        assert_eq!(plain.profile_type.0, "perf:cycles:count:cycles:count");
        assert_eq!(plain.total(), 4000);
        let rated = read(text, Some(50)).unwrap().profile;
        assert_eq!((rated.profile_type.unit(), rated.total()), ("nanoseconds", 20_000_000));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let error = read("a 1 2.0: 5 cycles: \n\tff f (x)\nwhat is this\n", None).unwrap_err();
        assert_eq!(error.line, 3);
        assert!(error.what.contains("what is this"), "{error}");
        assert!(read("", None).unwrap_err().what.contains("no sample"));
        assert!(!looks_like("main;a;b 12\n"));
    }

    proptest! {
        #[test]
        fn text_of_any_kind_never_panics(text in "[a-f0-9 :;.\n\t()+x\\[\\]#/é-]{0,120}") {
            let _ = looks_like(&text);
            if let Ok(read) = read(&text, None) {
                prop_assert!(read.profile.validate().is_ok());
            }
        }

        #[test]
        fn every_sample_is_counted_once(samples in prop::collection::vec(("[a-z]{1,5}", prop::collection::vec("[a-z]{1,3}", 0..4), 1i64..1000), 1..20)) {
            let text: String = samples.iter().map(|(command, frames, period)| {
                let frames: String = frames.iter().map(|f| format!("\t ff {f}+0x1 (/x)\n")).collect();
                format!("{command} 1/2 [000] 3.5: {period} cpu-clock: \n{frames}\n")
            }).collect();
            let profile = read(&text, None).unwrap().profile;
            prop_assert_eq!(profile.total(), samples.iter().map(|s| s.2).sum::<i64>());
            prop_assert_eq!(profile.samples.iter().map(|s| s.count).sum::<u64>(), samples.len() as u64);
        }
    }
}
