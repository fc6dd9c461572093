//! Who owns the signal, who may start, what a forked child does, and what the handler leaves unchanged.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;
use std::time::Duration;

use crate::support::{burn, isolated, isolated_with, wait_until};
use emberline_profiler::{Config, Label, StartError, probe_current_thread, register_thread, scope, start};

/// Counts the allocations of each thread.
struct CountingAllocator;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: passes everything to the system's allocator unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: guaranteed by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: guaranteed by the caller.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn errno() -> &'static mut i32 {
    // SAFETY: belongs to this thread, and each test uses it on one thread.
    unsafe { &mut *libc::__errno_location() }
}

#[test]
fn a_second_start_is_refused_and_one_after_a_stop_is_not() {
    isolated(
        "ownership::a_second_start_is_refused_and_one_after_a_stop_is_not",
        || {
            let first = start(Config::default()).unwrap();
            assert!(matches!(start(Config::default()), Err(StartError::AlreadyRunning)));
            first.stop();
            drop(start(Config::default()).unwrap());
            let third = start(Config::default()).unwrap();
            assert!(third.stats().frame_pointers, "the test build keeps frame pointers");
        },
    );
}

#[test]
fn the_kill_switch_refuses_the_start() {
    isolated_with(
        "ownership::the_kill_switch_refuses_the_start",
        &[("EMBERLINE_PROFILER", "off")],
        || {
            let error = start(Config::default()).unwrap_err();
            assert!(matches!(error, StartError::Disabled));
            assert!(error.to_string().contains("EMBERLINE_PROFILER"), "{error}");
            // Labels and registration still work, and nothing samples.
            let _label = scope(Label::new(1));
            register_thread();
            burn(Duration::from_millis(50));
        },
    );
}

extern "C" fn other_handler(_: libc::c_int) {}

/// Returns its address: that of a small function may differ each time it is taken.
fn install_other_handler() -> usize {
    let handler = other_handler as *const () as usize;
    // SAFETY: a handler that does nothing.
    let before = unsafe { libc::signal(libc::SIGPROF, handler) };
    assert_ne!(before, libc::SIG_ERR);
    handler
}

#[test]
fn a_signal_owned_by_another_handler_is_left_alone() {
    isolated("ownership::a_signal_owned_by_another_handler_is_left_alone", || {
        let installed = install_other_handler();
        assert!(matches!(start(Config::default()), Err(StartError::SignalOwned)));
        // SAFETY: changes nothing; writes to the local variable.
        let current = unsafe {
            let mut current: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGPROF, ptr::null(), &raw mut current);
            current.sa_sigaction
        };
        assert_eq!(current, installed);
    });
}

#[test]
fn a_handler_that_takes_the_signal_later_ends_the_sampling() {
    isolated(
        "ownership::a_handler_that_takes_the_signal_later_ends_the_sampling",
        || {
            let profiler = start(Config::default()).unwrap();
            register_thread();
            assert!(profiler.stats().enabled);
            install_other_handler();
            wait_until("the loss to be noticed", || profiler.stats().handler_replaced);
            assert!(!profiler.stats().enabled);
            profiler.take_window();
            burn(Duration::from_millis(100));
            assert_eq!(profiler.take_window().stats.thread_cpu_ns, 0);
        },
    );
}

#[test]
fn a_sigprof_from_elsewhere_is_ignored_and_counted() {
    isolated("ownership::a_sigprof_from_elsewhere_is_ignored_and_counted", || {
        let profiler = start(Config {
            hz: 1,
            ..Config::default()
        })
        .unwrap();
        register_thread();
        let before = profiler.take_window().stats.captured;
        let foreign_before = profiler.stats().foreign_signals;
        for _ in 0..100 {
            // SAFETY: sends a signal to this thread.
            unsafe { libc::raise(libc::SIGPROF) };
            // A queued signal with a value that is not ours.
            let value = libc::sigval {
                sival_ptr: ptr::dangling_mut::<u64>().cast(),
            };
            // SAFETY: sends a signal to this process.
            assert_eq!(unsafe { libc::sigqueue(libc::getpid(), libc::SIGPROF, value) }, 0);
        }
        wait_until("the signals to be counted", || {
            profiler.stats().foreign_signals >= foreign_before + 101
        });
        let window = profiler.take_window();
        assert!(
            before + window.stats.captured <= window.stats.weight + 1,
            "{:?}",
            window.stats
        );
        // An ordinary `kill -PROF` after the stop must not kill the process either.
        profiler.stop();
        // SAFETY: sends a signal to this thread.
        unsafe { libc::raise(libc::SIGPROF) };
    });
}

#[test]
fn the_handler_keeps_errno_and_allocates_nothing() {
    isolated("ownership::the_handler_keeps_errno_and_allocates_nothing", || {
        let profiler = start(Config {
            hz: 1_000,
            ..Config::default()
        })
        .unwrap();
        register_thread();
        let probe = probe_current_thread().unwrap();
        let allocations = ALLOCATIONS.get();
        for number in 0..2_000 {
            *errno() = number;
            probe.request().unwrap();
            assert_eq!(*errno(), number);
        }
        *errno() = 4_242;
        burn(Duration::from_millis(200));
        assert_eq!(*errno(), 4_242);
        assert_eq!(ALLOCATIONS.get(), allocations, "a sample allocated memory");
        let stats = profiler.take_window().stats;
        assert!(stats.captured + stats.dropped >= 2_000, "{stats:?}");
    });
}

/// Forks; the child runs `body` and exits with 0, or with 1 if it panicked. Returns the child's status.
fn in_fork(body: impl FnOnce()) -> i32 {
    // SAFETY: the child runs only test code and exits without running destructors of the parent's threads.
    match unsafe { libc::fork() } {
        -1 => panic!("fork failed"),
        0 => {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
        child => {
            let mut status = -1;
            // SAFETY: waits for the child; writes to the local variable.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            status
        }
    }
}

#[test]
fn a_forked_child_neither_samples_nor_reports() {
    isolated("ownership::a_forked_child_neither_samples_nor_reports", || {
        let profiler = start(Config {
            hz: 1_000,
            ..Config::default()
        })
        .unwrap();
        register_thread();
        burn(Duration::from_millis(100));
        let status = in_fork(|| {
            let _label = scope(Label::new(9));
            burn(Duration::from_millis(100));
            let probe = probe_current_thread().unwrap();
            let _ = probe.request();
            let window = profiler.take_window();
            assert!(window.samples.is_empty(), "{window:?}");
            assert_eq!(profiler.stats().captured, 0);
            assert!(matches!(start(Config::default()), Err(StartError::Forked)));
            profiler.set_enabled(true);
            std::thread::spawn(|| burn(Duration::from_millis(10))).join().unwrap();
        });
        assert_eq!(status, 0);
        let window = profiler.take_window();
        assert!(window.stats.weight >= 50, "{:?}", window.stats);
        assert!(window.samples.iter().all(|sample| sample.label != Label::new(9)));

        // Dropping the handle in a child must neither hang on the drainer nor disarm the parent.
        let status = in_fork(move || drop(profiler));
        assert_eq!(status, 0);
    });
}

#[test]
fn a_child_that_executes_another_program_is_not_killed() {
    isolated("ownership::a_child_that_executes_another_program_is_not_killed", || {
        let profiler = start(Config {
            hz: 10_000,
            cpu_budget: 1.0,
            ..Config::default()
        })
        .unwrap();
        register_thread();
        for _ in 0..20 {
            let status = in_fork(|| {
                burn(Duration::from_millis(5));
                let path = c"/bin/sh";
                let script = c"i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done";
                // SAFETY: zero-terminated strings and a terminated list.
                unsafe {
                    libc::execl(
                        path.as_ptr(),
                        path.as_ptr(),
                        c"-c".as_ptr(),
                        script.as_ptr(),
                        ptr::null::<u8>(),
                    )
                };
                panic!("exec failed");
            });
            assert_eq!(status, 0);
            // The standard library's way, which may use vfork.
            assert!(std::process::Command::new("/bin/true").status().unwrap().success());
            burn(Duration::from_millis(5));
        }
        assert!(profiler.take_window().stats.weight > 0);
    });
}
