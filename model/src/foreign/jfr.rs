//! Java's flight recordings (JFR), as the JDK and async-profiler write them, of the version 2 that JDK 9 began.
//!
//! What becomes of the events, each with its stack:
//! - `jdk.ExecutionSample`: the period of the recording as *wall* time, because the JDK looks at threads that run Java code
//!   at moments of time, whether they have a CPU or not; async-profiler samples CPU time into the same event and says so
//!   (`event=cpu`, `itimer`, `ctimer`): then it is CPU time. `kind=cpu` or `wall` says it for the recording.
//! - `jdk.CPUTimeSample`: CPU time, by the period each one carries. `profiler.WallClockSample`: wall time.
//! - `jdk.NativeMethodSample`: a count of its own, never time: a thread that sleeps in `accept` is sampled too.
//! - `jdk.ObjectAllocationSample`: its weight as bytes allocated; where there is none, the events of TLABs.
//! - `jdk.JavaMonitorEnter`: how long threads waited for locks, and how often; `jdk.ThreadPark`: the same for blocking.
//!
//! Guarantees: sums per type are those of `jfr print` over all chunks; lengths and counts of the file are never trusted:
//! what is kept is charged, what is passed over is bounded by work, and pools that lead round are refused.
//!
//! Wrong on purpose: threads, states, classes of objects and the instants of events are not kept. Waits shorter than the
//! recording's threshold are not in the file. Stacks are as deep as the recording allows (64 frames unless told otherwise);
//! how many were cut is in the profile's statistics.
//!
//! The crate `jfrs` reads the same files and takes lengths at their word, which a server cannot.

mod chunk;
mod cursor;
mod types;

/// First bytes.
pub(super) const MAGIC: &[u8] = b"FLR\0";
