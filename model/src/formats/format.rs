//! The supported formats of profiles, and their names.

/// A supported format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// pprof, optionally gzip-compressed.
    Pprof,
    /// Collapsed stacks with a number at the end of each line.
    Folded,
    /// A stack per line, each one sample.
    Lines,
    /// The output of `perf script`.
    PerfScript,
    /// A speedscope file.
    Speedscope,
    /// A Java flight recording.
    Jfr,
    /// V8's `.cpuprofile`.
    CpuProfile,
    /// V8's `.heapprofile`.
    HeapProfile,
    /// A Chrome trace that contains CPU profiles.
    ChromeTrace,
    /// Austin's text format.
    Austin,
    /// Austin's binary format.
    Mojo,
    /// CPU samples from gperftools.
    GperftoolsCpu,
    /// A heap profile from gperftools.
    GperftoolsHeap,
    /// A heap profile from jemalloc.
    Jemalloc,
    /// Output of bpftrace.
    Bpftrace,
    /// Costs and calls from callgrind.
    Callgrind,
    /// Times and calls from Python's cProfile.
    Pstats,
}

/// Names of the supported formats.
pub const FORMAT_NAMES: &str = "pprof, folded (collapsed), lines, perf-script, speedscope, jfr, cpuprofile, heapprofile, \
     chrome-trace, austin, mojo, gperftools-cpu, gperftools-heap, jemalloc, bpftrace, callgrind, pstats";

impl Format {
    /// The format with this name; `groups` and `collapsed` are synonyms of folded.
    pub fn of_name(name: &str) -> Option<Format> {
        Some(match name {
            "pprof" => Format::Pprof,
            "folded" | "groups" | "collapsed" => Format::Folded,
            "lines" => Format::Lines,
            "perf-script" | "perf_script" | "perf" => Format::PerfScript,
            "speedscope" => Format::Speedscope,
            "jfr" => Format::Jfr,
            "cpuprofile" => Format::CpuProfile,
            "heapprofile" => Format::HeapProfile,
            "chrome-trace" | "chrome_trace" => Format::ChromeTrace,
            "austin" => Format::Austin,
            "mojo" => Format::Mojo,
            "gperftools-cpu" | "gperftools_cpu" => Format::GperftoolsCpu,
            "gperftools-heap" | "gperftools_heap" => Format::GperftoolsHeap,
            "jemalloc" => Format::Jemalloc,
            "bpftrace" => Format::Bpftrace,
            "callgrind" | "cachegrind" => Format::Callgrind,
            "pstats" | "cprofile" => Format::Pstats,
            _ => return None,
        })
    }

    /// Its primary name.
    pub fn name(self) -> &'static str {
        match self {
            Format::Pprof => "pprof",
            Format::Folded => "folded",
            Format::Lines => "lines",
            Format::PerfScript => "perf-script",
            Format::Speedscope => "speedscope",
            Format::Jfr => "jfr",
            Format::CpuProfile => "cpuprofile",
            Format::HeapProfile => "heapprofile",
            Format::ChromeTrace => "chrome-trace",
            Format::Austin => "austin",
            Format::Mojo => "mojo",
            Format::GperftoolsCpu => "gperftools-cpu",
            Format::GperftoolsHeap => "gperftools-heap",
            Format::Jemalloc => "jemalloc",
            Format::Bpftrace => "bpftrace",
            Format::Callgrind => "callgrind",
            Format::Pstats => "pstats",
        }
    }

    /// Human-readable name.
    pub fn described(self) -> &'static str {
        match self {
            Format::Pprof => "pprof",
            Format::Folded => "folded stacks",
            Format::Lines => "lines of stacks",
            Format::PerfScript => "perf script",
            Format::Speedscope => "speedscope",
            Format::Jfr => "a JFR recording",
            Format::CpuProfile => "a V8 CPU profile (.cpuprofile)",
            Format::HeapProfile => "a V8 heap profile (.heapprofile)",
            Format::ChromeTrace => "a Chrome trace",
            Format::Austin => "Austin text",
            Format::Mojo => "Austin samples (MOJO)",
            Format::GperftoolsCpu => "a gperftools CPU profile",
            Format::GperftoolsHeap => "a gperftools heap profile",
            Format::Jemalloc => "a jemalloc heap profile",
            Format::Bpftrace => "bpftrace output",
            Format::Callgrind => "a callgrind profile",
            Format::Pstats => "a Python cProfile profile (pstats)",
        }
    }
}
