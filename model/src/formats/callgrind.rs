//! Callgrind's files (valgrind; also Xdebug, yappi, StackProf, pprofile, pyprof2calltree): what each function cost itself, and
//! its calls.
//!
//! Guarantees: the sum of own costs is the program's total as `callgrind_annotate` shows it, per event; names that stand
//! for numbers are resolved over the whole file, objects, files and functions apart. One profile per event, in the event's
//! unit where it names one (`Time_(10ns)`, `microseconds`) or its writer is known to mean one (yappi, StackProf), counts otherwise.
//! An event that is one thing by another (`event: usphit :microseconds/hit`) has no sum: it is dropped, and named.
//!
//! Wrong on purpose: such files contain no stacks, see [`super::edges`]. Lines of code are not kept, only functions.
//! Code inlined from other files counts towards the function that contains it.

use std::collections::HashMap;

use super::{
    edges::Edges,
    meaning::{size_unit, time_unit},
    read_error::{Outcome, ReadError, shown},
    table::{Column, How, Table, memory, wall},
    type_of,
};
use crate::{otlp::Rejected, profile::ProfileType};

/// The most events of one file.
const MAX_EVENTS: usize = 64;

/// True for the line that says what is counted.
pub(super) fn names_events(line: &str) -> bool {
    line.starts_with("events:") || line.starts_with("# callgrind format")
}

/// The type of an event, and what one of it is worth. `creator` is the file's own word for who wrote it.
fn event(name: &str, creator: &str, how: &How<'_>) -> (ProfileType, i64) {
    // Sums of clocks that the programs do not name: Python's are of wall time unless they are given another.
    if let Some(factor) = time_unit(name) {
        let time = if how.says_cpu() { ProfileType::cpu() } else { wall() };
        return (time, factor);
    }
    match (creator, name) {
        // Microseconds of yappi's clock, which is the CPU's unless configured otherwise (`yappi.py`,
        // `_save_as_CALLGRIND`).
        ("yappi", "Ticks") => return (ProfileType::cpu(), 1_000),
        // Samples, despite the name (`report.rb`, `print_callgrind`). The requested interval is in the file but is not
        // used: kernel timers are coarser.
        ("stackprof", "Instructions") => return (type_of("stackprof", "samples", "count", "samples", "count"), 1),
        _ => {}
    }
    let unit = name
        .split_once("_(")
        .map(|(word, unit)| (word, unit.trim_end_matches(')')));
    match unit {
        Some(("Time", unit)) => {
            let digits = unit.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
            let times: i64 = unit[..digits].parse().unwrap_or(1);
            let factor = match &unit[digits..] {
                "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                _ => 1,
            };
            (wall(), factor * times.clamp(1, 1_000_000))
        }
        Some(("Memory", "bytes")) => (memory("alloc_space", "bytes"), 1),
        _ => (type_of("callgrind", name, "count", name, "count"), 1),
    }
}

/// True for `microseconds/hit`, and not for `I/O`.
fn is_ratio(full_name: &str) -> bool {
    full_name
        .split_once('/')
        .is_some_and(|(unit, _)| time_unit(unit).is_some() || size_unit(unit).is_some())
}

/// Abbreviated names: `(12) name` the first time, `(12)` afterwards.
#[derive(Default)]
struct Names<'t>(HashMap<&'t str, &'t str>);

impl<'t> Names<'t> {
    fn resolve(&mut self, text: &'t str, at: usize) -> Result<&'t str, ReadError> {
        let text = text.trim();
        let number = text.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        // `(below main)` is a name.
        let Some((number, name)) = number.filter(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit())) else {
            return Ok(text);
        };
        let name = name.trim();
        if !name.is_empty() {
            self.0.insert(number, name);
            return Ok(name);
        }
        let known = self.0.get(number).copied();
        known.ok_or_else(|| ReadError::line(at, format!("the number ({number}) is used before it is named")))
    }
}

/// The name and the line of `work /srv/app.py:2`, which is how yappi writes a function of `/srv/app.py`, and of `work:2`, which is how
/// pprofile does.
fn name_and_line<'t>(name: &'t str, file: &str, creator: &str) -> (&'t str, u32) {
    let split = || {
        let (rest, line) = name.rsplit_once(':')?;
        let own = match creator {
            "pprofile" => rest,
            _ => rest.strip_suffix(file)?.strip_suffix(' ')?,
        };
        Some((own, line.parse().ok()?))
    };
    split().unwrap_or((name, 0))
}

struct State<'t> {
    /// Who wrote the file.
    creator: &'t str,
    objects: Names<'t>,
    files: Names<'t>,
    functions: Names<'t>,
    object: &'t str,
    /// Of the function.
    file: &'t str,
    /// Of the current line: another file inside inlined code.
    line_file: &'t str,
    function: Option<u32>,
    called_object: Option<&'t str>,
    called_file: Option<&'t str>,
    called: Option<u32>,
    known: HashMap<(&'t str, &'t str, &'t str), u32>,
}

impl<'t> State<'t> {
    fn frame(&mut self, object: &'t str, file: &'t str, name: &'t str, table: &mut Table) -> Result<u32, ReadError> {
        if let Some(&known) = self.known.get(&(object, file, name)) {
            return Ok(known);
        }
        let place = if file.is_empty() || file == "???" { object } else { file };
        let (own, line) = name_and_line(name, place, self.creator);
        let frame = table.frame(own, place, line)?;
        table.charge(96)?;
        self.known.insert((object, file, name), frame);
        Ok(frame)
    }

    /// Processes `key=value`; false if the key is unknown.
    fn set(&mut self, key: &str, value: &'t str, at: usize, table: &mut Table) -> Result<bool, ReadError> {
        match key {
            "ob" => self.object = self.objects.resolve(value, at)?,
            "fl" => {
                self.file = self.files.resolve(value, at)?;
                self.line_file = self.file;
            }
            // The file of inlined code: the function stays.
            "fi" | "fe" => self.line_file = self.files.resolve(value, at)?,
            "fn" => {
                let name = self.functions.resolve(value, at)?;
                self.function = Some(self.frame(self.object, self.file, name, table)?);
            }
            "cob" => self.called_object = Some(self.objects.resolve(value, at)?),
            "cfi" | "cfl" => self.called_file = Some(self.files.resolve(value, at)?),
            "cfn" => {
                let name = self.functions.resolve(value, at)?;
                let (object, file) = (
                    self.called_object.take().unwrap_or(self.object),
                    self.called_file.take().unwrap_or(self.line_file),
                );
                self.called = Some(self.frame(object, file, name, table)?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Reads a file.
pub(super) fn read(text: &str, how: &How<'_>) -> Result<Outcome, ReadError> {
    let mut table = Table::new(Vec::new(), how.memory);
    // One for each event; none for one that has no sum.
    let mut edges: Vec<Option<(Edges, i64)>> = Vec::new();
    let mut ratios: Vec<&str> = Vec::new();
    let mut columns = 1;
    let mut state = State {
        creator: "",
        objects: Names::default(),
        files: Names::default(),
        functions: Names::default(),
        object: "",
        file: "",
        line_file: "",
        function: None,
        called_object: None,
        called_file: None,
        called: None,
        known: HashMap::new(),
    };
    // The line after `calls=` is the inclusive cost of the calls, the line after `jump=` costs nothing.
    let (mut after_calls, mut after_jump) = (false, false);
    let mut seen_cost = false;
    let (mut dropped, mut lines) = (Vec::new(), 0);
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '*')) {
            let mut words = line.split_ascii_whitespace().skip(columns);
            if std::mem::take(&mut after_jump) {
                continue;
            }
            let is_call = std::mem::take(&mut after_calls);
            let function = state
                .function
                .ok_or_else(|| ReadError::line(at, "a cost comes before any function"))?;
            let called = state.called.filter(|_| is_call);
            seen_cost = true;
            lines += 1;
            for event in &mut edges {
                // Costs of 0 at the end of a line may be left away.
                let Some(cost) = words.next() else { break };
                let Some((edges, factor)) = event else { continue };
                let cost: u64 = cost
                    .parse()
                    .map_err(|_| ReadError::line(at, format!("`{}` is not a cost", shown(cost))))?;
                match called {
                    Some(called) => edges.call(called, function, cost),
                    None => edges.spend(
                        function,
                        i64::try_from(cost).unwrap_or(i64::MAX).saturating_mul(*factor),
                    ),
                }
            }
            continue;
        }
        if let Some((key, value)) = line.split_once('=') {
            let key = key.trim();
            if state.set(key, value, at, &mut table)? {
                continue;
            }
            match key {
                "calls" => after_calls = true,
                "jump" | "jcnd" => after_jump = true,
                _ if seen_cost || state.function.is_some() => {
                    return Err(ReadError::line(at, format!("`{}` is not supported", shown(line))));
                }
                _ => {}
            }
            continue;
        }
        match line.split_once(':') {
            Some(("events", names)) if edges.is_empty() => {
                for name in names.split_ascii_whitespace() {
                    if edges.len() >= MAX_EVENTS {
                        return Err(ReadError::line(at, format!("more than {MAX_EVENTS} events")));
                    }
                    if ratios.contains(&name) {
                        dropped.push(name);
                        edges.push(None);
                        continue;
                    }
                    let (profile_type, factor) = event(name, state.creator, how);
                    table.columns.push(Column::new(profile_type, 0));
                    edges.push(Some((Edges::default(), factor)));
                }
            }
            // `event: NAME : what it is in full`.
            Some(("event", event)) if ratios.len() < MAX_EVENTS => {
                ratios.extend(
                    event
                        .split_once(':')
                        .filter(|(_, full)| is_ratio(full))
                        .map(|(name, _)| name.trim()),
                );
            }
            Some(("creator", name)) => state.creator = name.trim(),
            Some(("positions", names)) => columns = names.split_ascii_whitespace().count().clamp(1, 2),
            Some(_) => {}
            None => return Err(ReadError::line(at, format!("`{}` is not supported", shown(line)))),
        }
    }
    if table.columns.is_empty() {
        return Err(ReadError::Content(
            "the line `events:` is missing, or names nothing that can be added up".to_owned(),
        ));
    }
    for (column, (edges, _)) in edges.into_iter().flatten().enumerate() {
        edges.write(&mut table, column)?;
    }
    let mut outcome = table.finish(0, 0)?;
    for name in dropped {
        Rejected::of("ratio_event", name, lines).add_to(&mut outcome.left_out);
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fmt::Write};

    use proptest::prelude::*;

    use super::*;

    const HOW: How<'static> = How {
        kind: None,
        rate_hz: None,
        memory: 16 << 20,
    };

    fn totals(text: &str) -> Vec<(String, i64)> {
        let profiles = read(text, &HOW).unwrap().profiles;
        profiles
            .iter()
            .map(|profile| (profile.profile_type.0.clone(), profile.total()))
            .collect()
    }

    #[test]
    fn what_calls_cost_in_all_and_jumps_are_no_own_cost() {
        let text = "# callgrind format\npositions: instr line\nevents: Ir Dr\nfl=(1) a.c\nfn=(1) main\n0x10 1 5 1\ncfn=(2) work\ncalls=2 +3\n+4 * 700 90\n\
                    jump=3 0x20 +1\n+8 +1\nfn=(2)\n0x40 9 700 90\n* * 1\n";
        assert_eq!(
            totals(text),
            [
                ("callgrind:Ir:count:Ir:count".to_owned(), 706),
                ("callgrind:Dr:count:Dr:count".to_owned(), 91)
            ]
        );
    }

    #[test]
    fn units_in_names_of_events_are_read() {
        let text = "version: 1\ncreator: xdebug 3.2\nevents: Time_(10ns) Memory_(bytes)\n\nfl=(1) a.php\nfn=(1) {main}\n1 25 4096\n";
        assert_eq!(
            totals(text),
            [
                ("wall:wall:nanoseconds:wall:nanoseconds".to_owned(), 250),
                ("memory:alloc_space:bytes:space:bytes".to_owned(), 4096)
            ]
        );
    }

    #[test]
    fn an_event_is_a_ratio_only_by_a_unit() {
        let text = "creator: x\nevent: io : I/O\nevent: rate : bytes/s\nevents: io rate us\nfn=f:9\n1 2 3 4\n";
        assert_eq!(
            totals(text),
            [
                ("callgrind:io:count:io:count".to_owned(), 2),
                ("wall:wall:nanoseconds:wall:nanoseconds".to_owned(), 4_000)
            ]
        );
        let error = read("event: rate : us/hit\nevents: rate\nfn=f\n1 2\n", &HOW).unwrap_err();
        assert!(error.to_string().contains("events"), "{error}");
    }

    #[test]
    fn what_yappi_and_stackprof_mean_by_their_events_is_read() {
        let yappi = "version: 1\ncreator: yappi\nevents: Ticks\n\nfl=(1) /srv/app.py\nfn=(2) work /srv/app.py:2\n\nfl=(1)\nfn=(2)\n2 107296\n";
        assert_eq!(totals(yappi), [(ProfileType::CPU.to_owned(), 107_296_000)]);
        let profile = read(yappi, &HOW).unwrap().profiles.remove(0);
        let crate::Location::Named { frames } = &profile.locations[0] else {
            panic!("a function has a name")
        };
        assert_eq!(
            (frames[0].function.as_str(), frames[0].file.as_str(), frames[0].line),
            ("work", "/srv/app.py", 2)
        );
        let stackprof = "version: 1\ncreator: stackprof\ndesc: mode: cpu(1000)\npositions: line\nevents: Instructions\nfl=a.rb\nfn=Object#work\n2 9\n";
        assert_eq!(
            totals(stackprof),
            [("stackprof:samples:count:samples:count".to_owned(), 9)]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("events: Ir\nfn=(3)\n1 2\n", "(3)"),
            ("events: Ir\n1 2\n", "before any function"),
            ("events: Ir\nfn=a\n1 x\n", "`x`"),
            ("positions: line\n", "events"),
        ] {
            let error = read(text, &HOW).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    /// Writes a name as callgrind does: in full the first time, then by its number.
    fn short(known: &mut Vec<String>, name: &str) -> String {
        match known.iter().position(|other| other == name) {
            Some(at) => format!("({at})"),
            None => {
                known.push(name.to_owned());
                format!("({}) {name}", known.len() - 1)
            }
        }
    }

    proptest! {
        /// Writes what callgrind writes, with brackets and blanks in names, relative line numbers, calls, jumps and
        /// inlined files, and reads it back.
        #[test]
        fn what_callgrind_writes_is_read_back(
            functions in prop::collection::vec(
                ("[a-z]{1,4}(\\(int, [a-z]\\)|<[a-z]>|'2| \\[clone\\]|=x)?", "[a-c]{1,2}\\.c", prop::collection::vec((0u64..5000, 0u32..90, 0u8..5), 1..8)),
                1..8,
            ),
        ) {
            let mut text = "# callgrind format\nversion: 1\ncreator: x\ncmd: ./a b=c\n\npositions: line\nevents: Ir\nsummary: 1\n\n".to_owned();
            let (mut names, mut files) = (Vec::new(), Vec::new());
            let mut expected: BTreeMap<(String, String), i64> = BTreeMap::new();
            for (name, file, lines) in &functions {
                writeln!(text, "fl={}\nfn={}", short(&mut files, file), short(&mut names, name)).unwrap();
                for (cost, line, what) in lines {
                    match what {
                        0 => writeln!(text, "+{line} {cost}").unwrap(),
                        1 => writeln!(text, "* {cost}").unwrap(),
                        2 => {
                            let (called, other, _) = &functions[0];
                            writeln!(text, "cfi={}\ncfn={}\ncalls=3 +{line}\n* 70000", short(&mut files, other), short(&mut names, called)).unwrap();
                            writeln!(text, "{line} {cost}").unwrap();
                        }
                        3 => writeln!(text, "fi={}\n-{line} {cost}\nfe={}", short(&mut files, "inlined.h"), short(&mut files, file)).unwrap(),
                        _ => writeln!(text, "jump=4 +{line}\n*\n{line} {cost}").unwrap(),
                    }
                    *expected.entry((crate::function::normalise(name), file.clone())).or_insert(0) += *cost as i64;
                }
                text.push('\n');
            }
            text.push_str("totals: 1\n");
            let profile = read(&text, &HOW).unwrap().profiles.remove(0);
            let mut own: BTreeMap<(String, String), i64> = BTreeMap::new();
            for sample in &profile.samples {
                let leaf = profile.stacks[sample.stack as usize][0];
                let crate::Location::Named { frames } = &profile.locations[leaf as usize] else { continue };
                *own.entry((frames[0].function.clone(), frames[0].file.clone())).or_insert(0) += sample.value;
            }
            expected.retain(|_, cost| *cost > 0);
            own.retain(|_, cost| *cost > 0);
            prop_assert_eq!(own, expected);
        }

        #[test]
        fn text_of_any_kind_never_panics(text in "(events: Ir\n)?(fn=a\n)?[a-z=():+*0-9 \n-]{0,80}") {
            if let Ok(read) = read(&text, &HOW) {
                prop_assert!(read.profiles.iter().all(|profile| profile.validate().is_ok()));
            }
        }
    }
}
