//! The profiler cannot hurt its host: patterns that crash other samplers, at the highest rate and under a flood of
//! signals. Each runs in a process of its own whose exit is checked; a crash is a failed test.

use std::backtrace::Backtrace;
use std::hint::black_box;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::support::{burn, own_cpu_ns, work};
use emberline_profiler::{
    Config, Label, SampleProbe, WindowStats, probe_current_thread, register_thread, scope, start,
};

/// One at a time: the flood reaches a thread only while both run.
static ALONE: Mutex<()> = Mutex::new(());

fn isolated(name: &str, body: impl FnOnce()) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    crate::support::isolated(name, body);
}

/// Threads targeted by the flood: with our own requests, and with plain signals without our cookie.
#[derive(Clone, Default)]
struct Targets(Arc<Mutex<Vec<(SampleProbe, libc::pid_t)>>>);

impl Targets {
    /// Registers the calling thread and targets it.
    fn add_me(&self) {
        register_thread();
        // SAFETY: takes no arguments and cannot fail.
        let tid = unsafe { libc::gettid() };
        self.0.lock().unwrap().push((probe_current_thread().unwrap(), tid));
    }
}

/// Runs `body` while every target gets the highest timer rate and a flood of signals.
fn under_flood(body: impl FnOnce(&Targets)) -> WindowStats {
    let profiler = start(Config {
        hz: 10_000,
        cpu_budget: 1.0,
        ..Config::default()
    })
    .unwrap();
    let targets = Targets::default();
    let ended = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let flood = {
        let (targets, ended, sent) = (targets.clone(), Arc::clone(&ended), Arc::clone(&sent));
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let now = targets.0.lock().unwrap().clone();
                for (probe, tid) in now {
                    // Both fail for threads that have ended.
                    let reached = probe.request().is_ok();
                    // SAFETY: signals a thread of this process, or none.
                    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGPROF) };
                    if !reached {
                        targets.0.lock().unwrap().retain(|(_, other)| *other != tid);
                    }
                    sent.fetch_add(2, Ordering::Relaxed);
                }
                // The targets need some of the processor, too.
                work(1);
            }
        })
    };
    body(&targets);
    ended.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    let stats = profiler.take_window().stats;
    println!(
        "{} signals sent; {} foreign; {stats:?}",
        sent.load(Ordering::Relaxed),
        profiler.stats().foreign_signals
    );
    assert!(sent.load(Ordering::Relaxed) > 500, "the flood was a trickle");
    assert!(stats.captured + stats.dropped > 100, "{stats:?}");
    stats
}

/// Runs `step` on `threads` targeted threads until each has used `cpu`.
fn on_threads(targets: &Targets, threads: u32, cpu: Duration, step: impl Fn(u32) + Send + Clone + 'static) {
    let running: Vec<_> = (0..threads)
        .map(|index| {
            let (targets, step) = (targets.clone(), step.clone());
            thread::spawn(move || {
                targets.add_me();
                let _label = scope(Label::new(index + 1));
                let end = own_cpu_ns() + cpu.as_nanos() as u64;
                while own_cpu_ns() < end {
                    step(index);
                }
            })
        })
        .collect();
    running.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn panics_and_backtraces_survive_a_flood_of_samples() {
    isolated("crash_stress::panics_and_backtraces_survive_a_flood_of_samples", || {
        std::panic::set_hook(Box::new(|_| {}));
        under_flood(|targets| {
            on_threads(targets, 3, Duration::from_millis(900), |index| {
                if index == 0 {
                    let _ = black_box(Backtrace::force_capture());
                    return;
                }
                let result = catch_unwind(|| {
                    let _inner = scope(Label::new(77));
                    panic!("on purpose: {}", black_box(1));
                });
                assert!(result.is_err());
                assert_eq!(emberline_profiler::current_label(), Label::new(index + 1));
            });
        });
    });
}

#[test]
fn malloc_storms_survive_a_flood_of_samples() {
    isolated("crash_stress::malloc_storms_survive_a_flood_of_samples", || {
        under_flood(|targets| {
            on_threads(targets, 2, Duration::from_millis(900), |_| {
                let mut blocks = Vec::new();
                for round in 0..500_usize {
                    blocks.push(vec![1_u8; round * 997 % 200_000]);
                    if round % 3 == 0 {
                        blocks.swap_remove(round * 31 % blocks.len());
                    }
                }
                black_box(format!("{:?}", blocks.len()));
            });
        });
    });
}

#[test]
fn loading_and_unloading_libraries_survives_a_flood_of_samples() {
    isolated(
        "crash_stress::loading_and_unloading_libraries_survives_a_flood_of_samples",
        || {
            under_flood(|targets| {
                on_threads(targets, 2, Duration::from_millis(800), |_| {
                    for name in [
                        c"libm.so.6",
                        c"libz.so.1",
                        c"libresolv.so.2",
                        c"libnsl.so.1",
                        c"libthread_db.so.1",
                    ] {
                        // SAFETY: system libraries whose initialisers are harmless.
                        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
                        if library.is_null() {
                            continue;
                        }
                        // SAFETY: the library is open, and nothing in it is used afterwards.
                        unsafe {
                            libc::dlsym(library, c"erf".as_ptr());
                            libc::dlclose(library);
                        }
                    }
                });
            });
        },
    );
}

#[test]
fn thread_churn_survives_a_flood_of_samples() {
    isolated("crash_stress::thread_churn_survives_a_flood_of_samples", || {
        let stats = under_flood(|targets| {
            for round in 0..400_u32 {
                let threads: Vec<_> = (0..3)
                    .map(|index| {
                        let targets = targets.clone();
                        // The smallest stacks in use in practice.
                        let builder = thread::Builder::new().stack_size(64 * 1024);
                        builder
                            .spawn(move || {
                                if index > 0 {
                                    targets.add_me();
                                }
                                let _label = scope(Label::new(round));
                                burn(Duration::from_micros(u64::from(round % 4) * 300));
                            })
                            .unwrap()
                    })
                    .collect();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
            }
        });
        assert_eq!(stats.threads, 1_200);
    });
}

/// A thread with its own stack and no alternate signal stack, as C libraries start them.
#[test]
fn threads_of_c_libraries_survive_a_flood_of_samples() {
    extern "C" fn body(targets: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: the test passes its targets, which live until the thread is joined.
        let targets = unsafe { &*targets.cast::<Targets>() };
        targets.add_me();
        let mut stack = libc::stack_t {
            ss_sp: std::ptr::null_mut(),
            ss_flags: 0,
            ss_size: 0,
        };
        // SAFETY: changes nothing; writes to the local variable.
        unsafe { libc::sigaltstack(std::ptr::null(), &raw mut stack) };
        assert_eq!(
            stack.ss_flags & libc::SS_DISABLE,
            0,
            "the thread was given an alternate stack"
        );
        burn(Duration::from_millis(3));
        std::ptr::null_mut()
    }
    isolated(
        "crash_stress::threads_of_c_libraries_survive_a_flood_of_samples",
        || {
            under_flood(|targets| {
                for _ in 0..150 {
                    // SAFETY: plain pthread calls; the thread is joined before `targets` is dropped.
                    unsafe {
                        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
                        assert_eq!(libc::pthread_attr_init(&raw mut attributes), 0);
                        assert_eq!(libc::pthread_attr_setstacksize(&raw mut attributes, 64 * 1024), 0);
                        let mut thread: libc::pthread_t = std::mem::zeroed();
                        let argument = std::ptr::from_ref(targets).cast_mut().cast();
                        assert_eq!(
                            libc::pthread_create(&raw mut thread, &raw const attributes, body, argument),
                            0
                        );
                        libc::pthread_attr_destroy(&raw mut attributes);
                        assert_eq!(libc::pthread_join(thread, std::ptr::null_mut()), 0);
                    }
                }
            });
        },
    );
}

#[test]
fn switching_on_and_off_survives_a_flood_of_samples() {
    isolated("crash_stress::switching_on_and_off_survives_a_flood_of_samples", || {
        let targets = Targets::default();
        let ended = Arc::new(AtomicBool::new(false));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (targets, ended) = (targets.clone(), Arc::clone(&ended));
                thread::spawn(move || {
                    targets.add_me();
                    while !ended.load(Ordering::Relaxed) {
                        work(1);
                    }
                })
            })
            .collect();
        while targets.0.lock().unwrap().len() < 2 {
            thread::yield_now();
        }
        let mut weight = 0;
        for round in 0..150_u32 {
            let profiler = start(Config {
                hz: 10_000,
                cpu_budget: 1.0,
                ..Config::default()
            })
            .unwrap();
            for toggle in 0..40 {
                profiler.set_enabled(toggle % 2 == 0);
                for (probe, tid) in targets.0.lock().unwrap().iter() {
                    probe.request().unwrap();
                    // SAFETY: signals a thread of this process.
                    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), *tid, libc::SIGPROF) };
                }
                if toggle % 10 == 0 {
                    profiler.set_rate(1_000 + round * 10).unwrap();
                }
            }
            profiler.set_enabled(true);
            work(u64::from(round));
            weight += profiler.take_window().stats.captured;
            profiler.stop();
        }
        ended.store(true, Ordering::Relaxed);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert!(weight > 100, "{weight}");
    });
}

/// Frame pointers that point nowhere, outside, misaligned, to themselves.
#[cfg(target_arch = "x86_64")]
#[test]
fn corrupted_frame_pointers_survive_a_flood_of_samples() {
    #[inline(never)]
    fn with_frame_pointer(value: u64, rounds: u64) {
        // SAFETY: the register is restored before the block ends, and nothing inside uses it.
        unsafe {
            std::arch::asm!(
                "xchg rbp, {value}",
                "2:",
                "dec {rounds}",
                "jnz 2b",
                "xchg rbp, {value}",
                value = inout(reg) value => _,
                rounds = inout(reg) rounds => _,
                options(nomem, nostack),
            );
        }
    }
    isolated(
        "crash_stress::corrupted_frame_pointers_survive_a_flood_of_samples",
        || {
            under_flood(|targets| {
                on_threads(targets, 2, Duration::from_millis(900), |_| {
                    let mut words = [0_u64; 16];
                    let base = words.as_ptr() as u64;
                    words[0] = base;
                    words[1] = 0x5555_5555_0000;
                    words[2] = base + 8 * 4;
                    words[4] = base + 8 * 2;
                    words[6] = u64::MAX - 7;
                    black_box(&words);
                    let seed = work(base);
                    for value in [
                        0,
                        1,
                        8,
                        base,
                        base + 4,
                        base + 16,
                        base + 48,
                        base + (1 << 23),
                        u64::MAX,
                        u64::MAX - 7,
                        seed,
                    ] {
                        with_frame_pointer(black_box(value), 20_000);
                    }
                });
            });
        },
    );
}
