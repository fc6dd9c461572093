//! Recognises formats by unmistakable beginnings.
//!
//! Guarantees: whatever is recognised is named, even if it is unsupported: then with an alternative that is supported.
//! JSON is recognised by the names in its outermost object, not by being JSON. Without such a beginning, reading has to
//! be tried.

use super::{
    bpftrace, callgrind, chrome_trace, format::Format, gperftools, jemalloc, jfr, json_tokens::top_keys, mojo, pstats,
};

/// A recognised but unsupported format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotRead {
    /// What it is, with its article: `a recording of perf (perf.data)`.
    pub what: &'static str,
    /// What to do instead.
    pub instead: &'static str,
}

/// What bytes were recognised as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognised {
    /// A supported format.
    Read(Format),
    /// An unsupported format.
    NotRead(NotRead),
}

const fn not_read(what: &'static str, instead: &'static str) -> Recognised {
    Recognised::NotRead(NotRead { what, instead })
}

/// Beginnings of unsupported binary files.
const BINARY: [(&[u8], Recognised); 13] = [
    (
        b"PERFILE2",
        not_read("a perf recording (perf.data)", "send the output of `perf script`"),
    ),
    (
        b"2ELIFREP",
        not_read("a perf recording (perf.data)", "send the output of `perf script`"),
    ),
    (b"memray", not_read("a memray recording", MEMRAY)),
    (
        &[0x04, 0x22, 0x4d, 0x18],
        not_read("an LZ4-compressed file, perhaps a memray recording", MEMRAY),
    ),
    (
        &[0x04, 0x08],
        not_read(
            "a Ruby Marshal file, perhaps from stackprof",
            "send the output of `stackprof --stackcollapse` with its `sample_rate`",
        ),
    ),
    (
        b"gmon",
        not_read(
            "a gprof profile (gmon.out)",
            "it has no stacks; record with perf instead",
        ),
    ),
    (
        b"JAVA PROFILE 1.0",
        not_read(
            "a Java heap dump (hprof)",
            "record allocations with JFR: `jcmd PID JFR.start settings=profile`",
        ),
    ),
    (
        b"--- symbol\n",
        not_read(
            "a symbolized profile (`pprof --raw`)",
            "send the original file: this one lacks callers and the sampling period",
        ),
    ),
    (
        b"Nettrace",
        not_read(
            "a .NET trace",
            "convert it with `dotnet-trace convert --format Speedscope`",
        ),
    ),
    (
        b"PK\x03\x04",
        not_read("a ZIP archive", "unpack it and send each profile"),
    ),
    (
        b"\x7fELF",
        not_read(
            "a program or library (ELF)",
            "send a profile; debug information is sent automatically",
        ),
    ),
    (b"\xfd7zXZ", not_read("an xz-compressed file", "decompress it first")),
    (b"BZh", not_read("a bzip2-compressed file", "decompress it first")),
];

/// Beginnings of images and web pages.
const PICTURES: [&[u8]; 5] = [b"<svg", b"<!DOCTYPE", b"<!doctype", b"<html", b"<?xml"];

const MEMRAY: &str = "convert it with `memray transform speedscope`";
const PICTURE: Recognised = not_read(
    "a rendered profile (SVG, HTML, XML)",
    "send the profile it was rendered from",
);
const HEAPTRACK: Recognised = not_read(
    "a heaptrack recording",
    "convert it with `heaptrack_print --print-flamegraph FILE` and send it as folded",
);
const MASSIF: Recognised = not_read(
    "a valgrind massif profile",
    "its snapshots cannot be combined; record the heap with heaptrack (`heaptrack_print --print-flamegraph`)",
);
const STACKPROF: Recognised = not_read(
    "a stackprof profile (JSON)",
    "send the output of `stackprof --stackcollapse` with its `sample_rate`",
);
const PYINSTRUMENT: Recognised = not_read(
    "a pyinstrument profile (JSON)",
    "render it with `pyinstrument -r speedscope`",
);
const DHAT: Recognised = not_read(
    "a valgrind dhat profile",
    "record the heap with heaptrack (`heaptrack_print --print-flamegraph`), or send a callgrind file",
);
const HEAP_SNAPSHOT: Recognised = not_read(
    "a V8 heap snapshot",
    "it contains objects, not stacks; record with `node --heap-prof`",
);
const FIREFOX: Recognised = not_read(
    "a Firefox Profiler profile (also written by samply)",
    "record with perf and send the output of `perf script`, or export speedscope",
);
const V8_LOG: Recognised = not_read("a V8 log (`node --prof`)", "record with `node --cpu-prof`");
const OTLP_JSON: Recognised = not_read("an OTLP message (JSON)", "send it to /v1development/profiles");
const SNAPSHOT_OF_GO: Recognised = not_read(
    "a Go profile as text (`debug=1`)",
    "request it without `debug` to get pprof",
);
const OTHER_JSON: Recognised = not_read(
    "JSON of an unknown profiler",
    "send JSON from speedscope, V8 (.cpuprofile, .heapprofile), Chrome traces or bpftrace",
);

/// Recognises decompressed bytes; `None` if only trying to read them can tell.
pub fn recognise(unpacked: &[u8]) -> Option<Recognised> {
    let read = |format| Some(Recognised::Read(format));
    if unpacked.starts_with(jfr::MAGIC) {
        return read(Format::Jfr);
    }
    if unpacked.starts_with(mojo::MAGIC) && unpacked.get(3).is_some_and(|&version| (1..32).contains(&version)) {
        return read(Format::Mojo);
    }
    if gperftools::Words::of(unpacked).is_some() {
        return read(Format::GperftoolsCpu);
    }
    if pstats::begins(unpacked) {
        return read(Format::Pstats);
    }
    if let Some((_, known)) = BINARY.iter().find(|(beginning, _)| unpacked.starts_with(beginning)) {
        return Some(*known);
    }
    // A small pprof file may happen to be UTF-8, and begins with a line feed; text contains no such bytes.
    let text = std::str::from_utf8(unpacked).ok()?;
    if text.bytes().any(|byte| byte < 9) {
        return None;
    }
    let begins = unpacked.trim_ascii_start();
    if PICTURES.iter().any(|beginning| begins.starts_with(beginning)) {
        return Some(PICTURE);
    }
    match begins.first() {
        Some(b'{') => return Some(json(unpacked)),
        Some(b'[') if !begins.starts_with(b"[unknown]") => {
            let mut is_trace = false;
            top_keys(begins, |key| is_trace |= key == "ph");
            if is_trace {
                return read(Format::ChromeTrace);
            }
        }
        _ => {}
    }
    text_beginning(text)
}

/// JSON by the names in its outermost object.
fn json(text: &[u8]) -> Recognised {
    let mut keys: Vec<String> = Vec::new();
    top_keys(text, |key| {
        if keys.len() < 64 {
            keys.push(key.chars().take(40).collect());
        }
    });
    let has = |key: &str| keys.iter().any(|known| known == key);
    let is_speedscope = has("shared") || has("$schema") && has("profiles");
    match () {
        () if is_speedscope => Recognised::Read(Format::Speedscope),
        () if has(chrome_trace::EVENTS) => Recognised::Read(Format::ChromeTrace),
        () if has("nodes") && !has("snapshot") => Recognised::Read(Format::CpuProfile),
        () if has("head") => Recognised::Read(Format::HeapProfile),
        () if has("dhatFileVersion") => DHAT,
        () if has("snapshot") => HEAP_SNAPSHOT,
        () if has("root_frame") => PYINSTRUMENT,
        () if has("mode") && has("interval") && has("frames") => STACKPROF,
        () if has("resourceProfiles") || has("resource_profiles") || has("resourceMetrics") => OTLP_JSON,
        () if has("meta") && has("threads") => FIREFOX,
        () if has("type") => Recognised::Read(Format::Bpftrace),
        () => OTHER_JSON,
    }
}

/// Text by its first lines.
fn text_beginning(text: &str) -> Option<Recognised> {
    let mut lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let first = lines.next()?;
    let read = |format| Some(Recognised::Read(format));
    if first.starts_with("# austin:") {
        return read(Format::Austin);
    }
    if first.starts_with("heap profile:") {
        return read(Format::GperftoolsHeap);
    }
    if first.starts_with(jemalloc::BEGINNING) {
        return read(Format::Jemalloc);
    }
    if first.starts_with("v8-version,") {
        return Some(V8_LOG);
    }
    if first.starts_with("goroutine profile: total")
        || first.starts_with("--- mutex:")
        || first.starts_with("--- contention:")
    {
        return Some(SNAPSHOT_OF_GO);
    }
    let is_heaptrack = |line: &str| {
        let mut words = line.split(' ');
        words.next() == Some("v")
            && words
                .next()
                .is_some_and(|version| version.len() >= 5 && version.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    if is_heaptrack(first) && lines.clone().next().is_some_and(|line| line.starts_with(['x', 'X'])) {
        return Some(HEAPTRACK);
    }
    let head: Vec<&str> = std::iter::once(first).chain(lines.take(60)).collect();
    if head.iter().any(|line| line.starts_with("time_unit:")) && first.starts_with("desc:") {
        return Some(MASSIF);
    }
    if head.iter().any(|line| callgrind::names_events(line)) {
        return read(Format::Callgrind);
    }
    let is_bpftrace = first.starts_with("Attaching ") && first.contains(" probe")
        || head.iter().take(3).any(|line| bpftrace::begins_entry(line));
    if is_bpftrace {
        return read(Format::Bpftrace);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_is_named_with_what_to_do() {
        for (bytes, what, instead) in [
            (&b"PERFILE2\x68\0"[..], "perf.data", "perf script"),
            (b"\x04\x22\x4d\x18@p\xdf", "memray", "speedscope"),
            (b"\x04\x08{\x0b:\x0c", "stackprof", "--stackcollapse"),
            (
                br#"{"version":1.2,"mode":"cpu","interval":1000,"samples":260,"frames":{}}"#,
                "stackprof",
                "sample_rate",
            ),
            (
                br#"{"start_time": 1.5, "duration": 2, "root_frame": {"function": "a"}}"#,
                "pyinstrument",
                "speedscope",
            ),
            (br#"{"dhatFileVersion":2,"mode":"heap"}"#, "dhat", "heaptrack"),
            (
                b"desc: (none)\ncmd: ./busy\ntime_unit: i\n#-----------\nsnapshot=0\n",
                "massif",
                "heaptrack",
            ),
            (b"v 10400 3\nx 5 /srv/busy\n", "heaptrack", "heaptrack_print"),
            (br#"{"snapshot":{"meta":{}},"nodes":[1,2]}"#, "snapshot", "--heap-prof"),
            (
                br#"{"meta":{"interval":1},"libs":[],"threads":[]}"#,
                "Firefox",
                "perf script",
            ),
            (b"v8-version,11,3,244\n", "V8 log", "--cpu-prof"),
            (b"<?xml version=\"1.0\"?><svg/>", "SVG", "rendered from"),
            (b"Nettrace\x14", ".NET", "Speedscope"),
            (b"\x7fELF\x02", "ELF", "profile"),
            (br#"{"hello": 1}"#, "unknown profiler", "speedscope"),
            (b"goroutine profile: total 5\n1 @ 0x1\n", "debug=1", "pprof"),
        ] {
            match recognise(bytes) {
                Some(Recognised::NotRead(known)) => {
                    assert!(known.what.contains(what), "{what}: {known:?}");
                    assert!(known.instead.contains(instead), "{instead}: {known:?}");
                }
                other => panic!("{what}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_read_is_recognised_by_its_beginning() {
        for (bytes, format) in [
            (&b"FLR\0\0\x02\0\x01"[..], Format::Jfr),
            (b"MOJ\x03\x01austin\x004.0.0\0", Format::Mojo),
            (b"# austin: 3.7.0\n# mode: wall\n", Format::Austin),
            (b"heap profile: 1: 2 [ 3: 4] @ heapprofile\n", Format::GperftoolsHeap),
            (b"heap_v2/524288\n  t*: 1: 2 [0: 0]\n", Format::Jemalloc),
            (b"Attaching 2 probes...\n\n@[\n    a+1\n]: 1\n", Format::Bpftrace),
            (b"@samples[\n    a+1\n]: 1\n", Format::Bpftrace),
            (
                br#"{"type": "attached_probes", "data": {"probes": 2}}"#,
                Format::Bpftrace,
            ),
            (b"# callgrind format\nversion: 1\n", Format::Callgrind),
            (
                b"version: 1\ncreator: xdebug 3\npositions: line\nevents: Time_(10ns)\n",
                Format::Callgrind,
            ),
            (br#" {"nodes":[{"id":1}],"startTime":1}"#, Format::CpuProfile),
            (br#"{"head":{"callFrame":{}},"samples":[]}"#, Format::HeapProfile),
            (br#"{"traceEvents":[]}"#, Format::ChromeTrace),
            (br#"[{"name":"a","ph":"P"}]"#, Format::ChromeTrace),
            (
                br#"{"exporter":"x","$schema":"y","profiles":[],"shared":{}}"#,
                Format::Speedscope,
            ),
            (b"{\xa9\x03\xda\x04a.py", Format::Pstats),
            (b"\xfb(\x03\0\0\0", Format::Pstats),
        ] {
            assert_eq!(recognise(bytes), Some(Recognised::Read(format)));
        }
        for text in [
            "main;a 3\n",
            "[unknown];a 3\n",
            "@babel/core;a[0] 3\n",
            "a 1 2.0: 5 cpu-clock: \n\tff f (x)\n",
            "",
        ] {
            assert_eq!(recognise(text.as_bytes()), None, "{text}");
        }
    }
}
