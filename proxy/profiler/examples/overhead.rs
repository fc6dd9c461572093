//! What one sample costs the sampled thread, by amplification: another thread requests thousands of samples per second,
//! and the CPU time of a fixed piece of work is compared with and without.
//!
//! Prints one JSON object: `us_per_sample`, and `overhead_ratio_99hz` = 1 + `us_per_sample` × 1e-6 × 99. Rounds with
//! and without alternate; the figure is the median over pairs of rounds. It is an upper bound: each request interrupts
//! another processor, which a timer does not. Also prints `label_ns`, the cost of entering and leaving one labelled
//! section.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use emberline_profiler::{Config, Label, Profiler, SampleProbe, probe_current_thread, scope, start};

const ROUNDS: usize = 60;
const DEPTH: u32 = 30;
const STEPS: u64 = 60_000_000;
/// Pause between two requests, so that the rate is some thousands per second and the thread runs between samples.
const PAUSE: Duration = Duration::from_micros(120);

fn own_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to the local variable.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Fixed work at a typical stack depth.
#[inline(never)]
fn at_depth(depth: u32) -> u64 {
    if depth > 0 {
        return black_box(at_depth(depth - 1)) + 1;
    }
    let mut state = black_box(1_u64);
    for _ in 0..STEPS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state)
}

/// One round; returns its CPU nanoseconds and the samples taken in it.
fn round(profiler: &Profiler, asking: &AtomicBool, with_samples: bool) -> (u64, u64) {
    profiler.take_window();
    asking.store(with_samples, Ordering::SeqCst);
    let before = own_cpu_ns();
    at_depth(DEPTH);
    let used = own_cpu_ns() - before;
    asking.store(false, Ordering::SeqCst);
    let stats = profiler.take_window().stats;
    (used, stats.captured + stats.dropped)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The timer is effectively off: only requests are measured.
    let config = Config {
        hz: 1,
        ring_words: 1 << 20,
        cpu_budget: 1.0,
        ..Config::default()
    };
    let profiler = start(config)?;
    let _label = scope(Label::new(1));
    let probe = probe_current_thread().ok_or("this thread cannot be registered")?;
    let (stop, stopped) = mpsc::channel::<()>();
    let asking = std::sync::Arc::new(AtomicBool::new(false));
    let asker = {
        let asking = std::sync::Arc::clone(&asking);
        thread::spawn(move || ask(probe, &asking, &stopped))
    };
    let (mut costs, mut rates) = (Vec::new(), Vec::new());
    round(&profiler, &asking, true);
    for _ in 0..ROUNDS {
        let (off_ns, off_samples) = round(&profiler, &asking, false);
        let began = Instant::now();
        let (on_ns, on_samples) = round(&profiler, &asking, true);
        let samples = on_samples.saturating_sub(off_samples).max(1);
        costs.push((on_ns as f64 - off_ns as f64) / samples as f64 / 1e3);
        rates.push(samples as f64 / began.elapsed().as_secs_f64());
    }
    drop(stop);
    asker.join().map_err(|_| "the asking thread panicked")?;
    let stats = profiler.stats();
    let us_per_sample = median(&mut costs);
    println!(
        "{{\"us_per_sample\":{us_per_sample:.3},\"overhead_ratio_99hz\":{:.6},\"samples_per_second\":{:.0},\
         \"rounds\":{ROUNDS},\"quartiles_us\":[{:.3},{:.3}],\"handler_us\":{:.3},\"label_ns\":{:.1}}}",
        1.0 + us_per_sample * 1e-6 * 99.0,
        median(&mut rates),
        costs[ROUNDS / 4],
        costs[3 * ROUNDS / 4],
        stats.handler_ns as f64 / (stats.captured + stats.dropped).max(1) as f64 / 1e3,
        label_ns(),
    );
    Ok(())
}

fn ask(probe: SampleProbe, asking: &AtomicBool, stopped: &mpsc::Receiver<()>) {
    while stopped.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
        if asking.load(Ordering::SeqCst) {
            // A request made while another is pending is lost, and therefore not counted either.
            let _ = probe.request();
        }
        thread::sleep(PAUSE);
    }
}

/// Nanoseconds to set and restore a label.
fn label_ns() -> f64 {
    const SECTIONS: u32 = 10_000_000;
    let before = own_cpu_ns();
    for number in 0..SECTIONS {
        let section = scope(Label::new(black_box(number)));
        black_box(&section);
    }
    (own_cpu_ns() - before) as f64 / f64::from(SECTIONS)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
