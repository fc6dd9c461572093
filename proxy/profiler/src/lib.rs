//! An in-process CPU sampler with labels, small enough to stay on all the time.
//!
//! Every registered thread gets its own timer on its own CPU clock. When it expires, a signal handler copies the
//! thread's call stack (by frame pointers) and its current [`Label`] into a preallocated ring of that thread. A
//! drainer thread interns the stacks; [`Profiler::take_window`] hands out what was sampled since the last call.
//!
//! ```no_run
//! use emberline_profiler::{Config, Label, Labeled, register_thread, scope, start};
//!
//! # async fn handle_request() {}
//! # async fn example() -> Result<(), emberline_profiler::StartError> {
//! let profiler = start(Config::default())?;
//!
//! // Asynchronous work: the label is the thread's current one whenever the future is polled, and
//! // the thread registers itself at its first such poll.
//! Labeled::new(Label::new(7), handle_request()).await;
//!
//! // Synchronous work.
//! register_thread();
//! {
//!     let _label = scope(Label::new(8));
//!     // … everything here counts to label 8 …
//! }
//!
//! let window = profiler.take_window();
//! for sample in &window.samples {
//!     println!("{:?}: {} ns in {:?}", sample.label, sample.cpu_ns, window.stacks[sample.stack as usize]);
//! }
//! profiler.stop();
//! # Ok(())
//! # }
//! ```
//!
//! # What it guarantees
//!
//! - **CPU time adds up.** A timer that expired several times before the kernel delivered its signal counts that many
//!   times, so the weights of a window sum to the CPU time of the registered threads at any rate, even above the
//!   kernel's tick. A window states how much it lost ([`WindowStats`]).
//! - **The handler is harmless.** It allocates nothing, takes no lock, makes no system call, unwinds no tables and
//!   dereferences nothing outside the interrupted thread's own stack and this program's own text. `errno` is preserved.
//! - **It never fights for the signal.** If someone else owns `SIGPROF`, the start is refused; a `SIGPROF` sent by
//!   someone else is ignored. The handler is installed once and never removed, so a late signal cannot kill the
//!   process.
//! - **It limits itself.** CPU (the rate is halved when sampling costs more than [`Config::cpu_budget`]), memory (one
//!   ring per thread, capped stacks and labels per window). `EMBERLINE_PROFILER=off` in the environment refuses the
//!   start.
//! - **A forked child neither samples nor reports.**
//!
//! # What it needs
//!
//! Frame pointers in the program (`-C force-frame-pointers=yes`; C code: `-fno-omit-frame-pointer`). The sampler tests
//! its own walk at the start and reports the result in [`Stats::frame_pointers`]. It returns addresses as (module, file
//! offset) with the module's build id; symbolising them is up to the reader.
//!
//! # What it gets wrong on purpose
//!
//! - CPU only: a thread that sleeps or waits is not sampled.
//! - Threads that never registered are counted but not sampled.
//! - The kernel checks CPU timers only at its ticks (every 4 ms at 250 Hz). What a thread used between the last tick
//!   during which it ran and its end has no stack; it is counted ([`WindowStats::unattributed_ns`]). Threads shorter
//!   than a tick are mostly of that kind.
//! - Inside code without frame pointers (libc, C++ libraries) only the innermost frame and the first caller in the
//!   program's own text are kept; frames between them are missing.
//! - Polls have to nest. When a section ends, it reads the label of the enclosing one from that one's task, assuming
//!   that the enclosing poll has not returned. Code that switches stacks inside a poll (stackful coroutines) can make
//!   it return first; what is read then is freed memory. Do not poll [`LabeledBy`] inside such a coroutine, or keep the
//!   switches inside one poll. Holding the task's label instead would cost two counter updates at every poll.
//! - It must never be unloaded: the signal handler stays.
//! - It must be linked into the executable: in a library loaded at run time, it is not safe to touch thread-locals for
//!   the first time in a signal handler.
//!
//! Linux on x86-64 and aarch64. Elsewhere [`start`] returns [`StartError::Unsupported`]; labels still work and cost the
//! same, but nobody reads them.

#[cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    allow(dead_code)
)]
mod config;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod engine;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[path = "unsupported.rs"]
mod engine;
#[cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    allow(dead_code)
)]
mod label;
mod labeled;
mod window;
#[cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    allow(dead_code)
)]
mod words;

pub use config::{Config, KILL_SWITCH, StartError};
pub use engine::{Profiler, SampleProbe, probe_current_thread, register_thread, start};
pub use label::{Label, ScopeGuard, current_label, scope};
pub use labeled::{Labeled, LabeledBy, TaskLabel};
pub use window::{Frame, Module, Sample, Stats, Window, WindowStats};
