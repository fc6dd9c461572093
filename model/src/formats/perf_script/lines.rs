//! The lines of `perf script`: the header of a sample, its frames, and the source lines below them.
//!
//! Guarantees: a command may contain blanks and numbers; only modifiers are cut from an event; deleted files and files
//! with brackets in their path are recognised.

use crate::formats::{NS, text_frame};

/// The line about a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Head<'t> {
    pub(super) command: &'t str,
    /// Where it ran: the processor if named, otherwise the thread.
    pub(super) lane: &'t str,
    pub(super) time_ns: Option<i64>,
    pub(super) period: Option<i64>,
    pub(super) event: &'t str,
}

/// True if the text looks like output of `perf script`: its first line is the header of a sample.
pub(in crate::formats) fn looks_like(text: &str) -> bool {
    let first = text
        .lines()
        .find(|line| !line.trim().is_empty() && !line.starts_with('#'));
    first.is_some_and(|line| head(line).is_some())
}

/// Words of a line with their positions.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    line.split_ascii_whitespace()
        .map(|word| (word.as_ptr() as usize - line.as_ptr() as usize, word))
}

/// `command pid[/tid] [cpu] time: [period] event:`; parts in square brackets may be missing, and so may the time.
pub(super) fn head(line: &str) -> Option<Head<'_>> {
    if line.starts_with([' ', '\t']) && !line.trim_start().contains(": ") && !line.trim_end().ends_with(':') {
        return None;
    }
    let line = line.trim();
    // A command may contain blanks and numbers: what precedes the time is read from there backwards.
    let time = words(line).find_map(|(at, word)| Some((at, word, seconds_as_ns(word.strip_suffix(':')?)?)));
    let (before, after, time_ns) = match time {
        Some((at, word, time)) => (&line[..at], &line[at + word.len()..], Some(time)),
        None => {
            let (at, id) = words(line).skip(1).find(|(_, word)| is_id(word))?;
            (&line[..at + id.len()], &line[at + id.len()..], None)
        }
    };
    let mut lane = "";
    let mut id = None;
    for (at, word) in words(before).collect::<Vec<_>>().into_iter().rev() {
        if word.starts_with('[') {
            lane = word;
        } else if is_id(word) {
            id = Some((at, word));
            break;
        } else if !is_flags(word) {
            break;
        }
    }
    let (at, id) = id?;
    let command = before[..at].trim();
    if command.is_empty() {
        return None;
    }
    let mut head = Head {
        command,
        lane: if lane.is_empty() { id } else { lane },
        time_ns,
        period: None,
        event: "",
    };
    for (_, word) in words(after) {
        if word.starts_with('[') {
            continue;
        }
        if let Some(name) = word.strip_suffix(':') {
            head.event = event(name);
            break;
        } else if let Ok(period) = word.parse() {
            head.period = Some(period);
        }
    }
    (!head.event.is_empty() || head.time_ns.is_some()).then_some(head)
}

fn is_id(word: &str) -> bool {
    let word = word.strip_prefix('-').unwrap_or(word);
    word.bytes().next().is_some_and(|byte| byte.is_ascii_digit())
        && word.bytes().all(|b| b.is_ascii_digit() || b == b'/')
}

/// Interrupt flags (`d.h.`), between the processor and the time.
fn is_flags(word: &str) -> bool {
    word.len() >= 4
        && word.bytes().all(|byte| {
            matches!(
                byte,
                b'.' | b'd' | b'D' | b'X' | b'i' | b'n' | b'N' | b'p' | b'h' | b'H' | b's'
            )
        })
}

/// An event without its modifiers: `cycles` of `cycles:uP`, `cycles` of `cpu_core/cycles/P`.
fn event(name: &str) -> &str {
    const MODIFIERS: &str = "ukhGHIpPDSWebR";
    let name = match name.rsplit_once(':') {
        Some((name, modifiers)) if modifiers.chars().all(|c| MODIFIERS.contains(c)) => name,
        _ => name,
    };
    let Some((unit, rest)) = name.split_once('/') else {
        return name;
    };
    let Some((event, modifiers)) = rest.split_once('/') else {
        return name;
    };
    let plain = !event.is_empty() && event.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    match unit {
        "cpu" | "cpu_core" | "cpu_atom" if plain => event,
        _ => &name[..name.len() - modifiers.len()],
    }
}

fn seconds_as_ns(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.')?;
    let digits = fraction.len();
    if !(1..=9).contains(&digits) || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<9}").parse().ok()?;
    seconds.parse::<i64>().ok()?.checked_mul(NS)?.checked_add(fraction)
}

/// A frame of a stack.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FrameLine<'t> {
    pub(super) name: String,
    pub(super) file: &'t str,
    pub(super) line: u32,
}

/// `address symbol+0x12 (file)`: the symbol, or the file in brackets if there is none.
pub(super) fn frame(line: &str) -> Option<FrameLine<'_>> {
    let line = line.trim();
    let (address, rest) = line.split_once(' ')?;
    if address.is_empty() || !address.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let (symbol, file) = symbol_and_file(rest);
    let symbol = match symbol.rsplit_once("+0x") {
        Some((name, offset)) if offset.bytes().all(|b| b.is_ascii_hexdigit()) => name,
        _ => symbol,
    };
    if symbol.is_empty() || symbol == "[unknown]" {
        return Some(FrameLine {
            name: name_of_file(file),
            file: "",
            line: 0,
        });
    }
    let frame = text_frame::split(symbol);
    Some(FrameLine {
        name: frame.function.to_owned(),
        file: frame.file,
        line: frame.line,
    })
}

/// Splits off the file in brackets at the end; files and symbols may contain brackets, too.
fn symbol_and_file(rest: &str) -> (&str, &str) {
    // Symbols end in an offset before the file, unless they are unknown or the offset was not requested.
    let split = |at: usize| {
        (
            rest[..at].trim(),
            rest[at + 2..].trim_end().strip_suffix(')').unwrap_or_default(),
        )
    };
    if let Some(file) = rest.trim_start().strip_prefix("[unknown] (") {
        return ("[unknown]", file.trim_end().strip_suffix(')').unwrap_or(file));
    }
    let after_offset = rest.match_indices("+0x").find_map(|(at, _)| {
        let digits = rest[at + 3..].bytes().take_while(u8::is_ascii_hexdigit).count();
        let end = at + 3 + digits;
        (digits > 0 && rest[end..].starts_with(" (")).then_some(end)
    });
    if let Some(at) = after_offset {
        return split(at);
    }
    // A path begins with `/`, a kernel module with `[`.
    let at = [" (/", " (["].iter().filter_map(|start| rest.find(start)).min();
    match at.or_else(|| rest.rfind(" (")) {
        Some(at) if rest.trim_end().ends_with(')') => split(at),
        _ => (rest.trim(), ""),
    }
}

/// `[shop]` for `/usr/bin/shop (deleted)`; a name already in brackets is unchanged.
fn name_of_file(file: &str) -> String {
    let file = file.trim_end().strip_suffix(" (deleted)").unwrap_or(file.trim_end());
    let name = file.rsplit('/').next().unwrap_or_default();
    match name {
        "" => "[unknown]".to_owned(),
        name if name.starts_with('[') && name.ends_with(']') => name.to_owned(),
        name => format!("[{name}]"),
    }
}

/// `price.c:12`, the line below a frame with `-F +srcline`; also `??:0` and `libc.so.6[29d8f]`.
pub(super) fn source_line(line: &str) -> Option<(&str, u32)> {
    if !line.starts_with([' ', '\t']) {
        return None;
    }
    let place = line.trim();
    let place = place.split(" (discriminator").next().unwrap_or(place);
    if let Some((file, number)) = place.rsplit_once(':')
        && !file.is_empty()
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'?')
    {
        let number = number.parse().unwrap_or(0);
        return Some(if file == "??" { ("", 0) } else { (file, number) });
    }
    let (file, address) = place.strip_suffix(']')?.rsplit_once('[')?;
    let is_address = !file.is_empty() && !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_address.then_some(("", 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_modifiers_are_no_part_of_an_event() {
        for (written, expected) in [
            ("cycles:u", "cycles"),
            ("cpu-clock:pppH", "cpu-clock"),
            ("sched:sched_switch", "sched:sched_switch"),
            ("cpu_core/cycles/P", "cycles"),
            ("cpu_atom/cycles/P", "cycles"),
            ("cpu/event=0x3c/u", "cpu/event=0x3c/"),
            ("power/energy-pkg/", "power/energy-pkg/"),
            ("r01c2", "r01c2"),
        ] {
            assert_eq!(event(written), expected);
        }
    }

    #[test]
    fn commands_may_hold_blanks_and_numbers_and_fields_may_be_missing() {
        let parsed = |line| head(line).map(|head| (head.command, head.time_ns.is_some(), head.period, head.event));
        for (line, expected) in [
            (
                "worker 1 4321 5000.000001: 10000000 cpu-clock: ",
                ("worker 1", true, Some(10_000_000), "cpu-clock"),
            ),
            (
                "worker 1 4321 5000.000001: cpu-clock: ",
                ("worker 1", true, None, "cpu-clock"),
            ),
            (
                "worker 2 12/34 [001] d.h. 5000.000001: 7 cycles:P: ",
                ("worker 2", true, Some(7), "cycles"),
            ),
            (
                "migration/0    18 [000]  3372.692281: sched:sched_switch: prev=x",
                ("migration/0", true, None, "sched:sched_switch"),
            ),
            (
                "kworker/u8:1-ev 12 3372.692281: 1 cycles: ",
                ("kworker/u8:1-ev", true, Some(1), "cycles"),
            ),
            ("shop 12/34 5000.000001: ", ("shop", true, None, "")),
            ("shop 12 [000] 4000 cycles: ", ("shop", false, Some(4000), "cycles")),
        ] {
            assert_eq!(parsed(line), Some(expected), "{line}");
        }
        assert_eq!(parsed("12 5000.000001: cycles:"), None);
    }

    #[test]
    fn files_that_are_gone_or_have_brackets_are_still_one_file() {
        for (line, expected) in [
            ("\t ff [unknown] (/srv/gone2 (deleted))", "[gone2]"),
            ("\t ff [unknown] (/opt/shop (x86)/bin/shop)", "[shop]"),
            ("\t ff price+0x1 (/opt/shop (x86)/bin/shop)", "price"),
            ("\t ff operator() (int)+0x1 (/bin/shop (deleted))", "operator() (int)"),
            ("\t ff f(int) (/bin/shop (deleted))", "f(int)"),
            ("\t ff [unknown] ([unknown])", "[unknown]"),
            (
                "\t ff [unknown] (/memfd:doublemapper (deleted))",
                "[memfd:doublemapper]",
            ),
            ("\t ff main+0x1 (inlined)", "main"),
            ("\t ff main (inlined)", "main"),
            ("\t ff schedule+0x23 ([kernel.kallsyms])", "schedule"),
            ("\t ff JS:*main /srv/busy.js:3:14+0x158 (/tmp/perf-2484.map)", "main"),
        ] {
            assert_eq!(frame(line).unwrap().name, expected, "{line}");
        }
        assert_eq!(
            frame("\t ff JS:*main /srv/busy.js:3:14+0x158 (/tmp/perf-1.map)")
                .unwrap()
                .line,
            3
        );
    }
}
