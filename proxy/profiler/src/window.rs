//! What the sampler hands out: plain data, no handles into the running sampler.
//!
//! Guarantee: in a [`Window`], the `weight` of all samples sums to [`WindowStats::weight`], every `stack` and `module`
//! index is valid, and no sample was in an earlier window. Wrong on purpose: what a full ring dropped is only in
//! [`WindowStats`], not spread over the samples that were kept.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::label::Label;

/// Everything sampled between two calls of [`Profiler::take_window`](crate::Profiler::take_window), aggregated.
#[derive(Clone, Debug)]
pub struct Window {
    /// Wall-clock time at which the window began.
    pub started: SystemTime,
    /// Its length by the monotonic clock.
    pub duration: Duration,
    /// Effective samples per CPU second: `1e9 / period_ns`, before rounding.
    pub hz: f64,
    /// CPU nanoseconds that one tick stands for. If the rate changed inside the window this is the mean over its
    /// ticks; [`Sample::cpu_ns`] stays exact.
    pub period_ns: u64,
    /// One row per (label, stack), sorted by both.
    pub samples: Vec<Sample>,
    /// Distinct stacks, leaf first. An empty stack stands for those over
    /// [`Config::max_stacks`](crate::Config::max_stacks).
    pub stacks: Vec<Vec<Frame>>,
    /// The modules that contain the frames of this window.
    pub modules: Vec<Module>,
    /// How much was captured and lost.
    pub stats: WindowStats,
}

/// CPU time of one stack under one label.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The label word at the time of the samples.
    pub label: Label,
    /// Index into [`Window::stacks`].
    pub stack: u32,
    /// Timer expiries that these samples stand for: 1 + overruns, summed.
    pub weight: u64,
    /// Stacks actually captured.
    pub count: u64,
    /// CPU time in nanoseconds: each weight times the period in effect.
    pub cpu_ns: u64,
}

/// A location in the program.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame {
    /// Index into [`Window::modules`], or [`Frame::NO_MODULE`].
    pub module: u32,
    /// Offset in the module's file. For a frame that called another it is the return address minus 1, which is inside
    /// the call. With no module it is the absolute address.
    pub offset: u64,
}

impl Frame {
    /// The `module` of an address in no known module, such as generated code.
    pub const NO_MODULE: u32 = u32::MAX;
}

/// An executable or shared library.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Module {
    /// Path as the dynamic loader knows it.
    pub path: PathBuf,
    /// GNU build id in lower-case hexadecimal, empty if the module has none.
    pub build_id: String,
    /// Bytes of address space from its first to its last loaded segment.
    pub size: u64,
}

/// Losses and costs of one window.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowStats {
    /// Timer expiries in the samples of this window.
    pub weight: u64,
    /// Stacks captured.
    pub captured: u64,
    /// Samples lost because a thread's ring was full.
    pub dropped: u64,
    /// Timer expiries those lost samples stood for.
    pub dropped_weight: u64,
    /// Threads registered at any time in the window.
    pub threads: u32,
    /// Threads alive at the end of the window that never registered (not counting the drainer).
    pub unregistered_threads: u32,
    /// CPU time of the registered threads while they were sampled, by their own clocks, in nanoseconds. The samples
    /// lag behind it by what the kernel has not noticed yet; that comes with the next window.
    pub thread_cpu_ns: u64,
    /// CPU time in `thread_cpu_ns` that no sample will stand for, because the thread ended or was disarmed before the
    /// kernel noticed it, in nanoseconds.
    pub unattributed_ns: u64,
    /// CPU time of the whole process in the window, in nanoseconds.
    pub process_cpu_ns: u64,
    /// Time spent inside the signal handler, in nanoseconds.
    pub handler_ns: u64,
    /// Estimated cost of sampling in nanoseconds: handler, signal delivery (measured at the start) and drainer.
    pub overhead_ns: u64,
    /// Stacks deeper than [`Config::max_frames`](crate::Config::max_frames).
    pub truncated: u64,
    /// Samples taken while the thread was not running on its own stack; they contain only the leaf.
    pub off_stack: u64,
    /// Samples folded into the empty stack because of [`Config::max_stacks`](crate::Config::max_stacks).
    pub stacks_overflowed: u64,
    /// Samples folded into [`Label::OVERFLOW`] because of [`Config::max_labels`](crate::Config::max_labels).
    pub labels_overflowed: u64,
}

/// The sampler's state and its sums since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Whether the sampler's test of its own frame-pointer walk succeeded. If not, stacks hold little more than leaves:
    /// build with `-C force-frame-pointers=yes`.
    pub frame_pointers: bool,
    /// Whether timers are armed now.
    pub enabled: bool,
    /// Whether another handler took `SIGPROF` after the start; sampling has stopped then.
    pub handler_replaced: bool,
    /// Requested rate, per CPU second.
    pub configured_hz: u32,
    /// Effective rate under the CPU budget, per CPU second.
    pub effective_hz: f64,
    /// How often the CPU budget halved the rate.
    pub rate_halvings: u64,
    /// How often it doubled the rate back.
    pub rate_doublings: u64,
    /// Registered threads alive now.
    pub threads: u32,
    /// Threads alive now that never registered (not counting the drainer).
    pub unregistered_threads: u32,
    /// Registered threads that have no timer, because the kernel refused it (`RLIMIT_SIGPENDING`); retried every second.
    pub threads_without_timer: u32,
    /// How often the kernel refused a timer.
    pub timers_refused: u64,
    /// `SIGPROF` signals that were not ours and were ignored.
    pub foreign_signals: u64,
    /// Timer expiries sampled.
    pub weight: u64,
    /// Stacks captured.
    pub captured: u64,
    /// Samples lost because a ring was full.
    pub dropped: u64,
    /// Stacks that were truncated.
    pub truncated: u64,
    /// Nanoseconds in the signal handler.
    pub handler_ns: u64,
    /// Estimated total cost of sampling in nanoseconds: handler, delivery, drainer.
    pub overhead_ns: u64,
    /// Delivery cost of one signal in nanoseconds, measured at the start on a warm cache.
    pub delivery_ns: u64,
}
