//! CPU time adds up: per thread, per process, across overruns and changes of rate; and what is lost is counted.

use std::collections::HashMap;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use crate::support::{burn, isolated, own_cpu_ns, relative_error, wait_until};
use emberline_profiler::{Config, Label, Window, probe_current_thread, register_thread, scope, start};

fn cpu_of(window: &Window, label: Label) -> u64 {
    window
        .samples
        .iter()
        .filter(|sample| sample.label == label)
        .map(|sample| sample.cpu_ns)
        .sum()
}

fn total_cpu(window: &Window) -> u64 {
    window.samples.iter().map(|sample| sample.cpu_ns).sum()
}

/// Samples and unattributed time add up to the CPU time of the threads, none of which is sampled any more.
fn assert_complete(window: &Window) {
    let (sampled, stats) = (total_cpu(window), window.stats);
    let error = relative_error(sampled + stats.unattributed_ns, stats.thread_cpu_ns);
    println!("{stats:?}: sampled {sampled}, error {error}");
    assert!(error < 0.01, "{error}");
}

#[test]
fn threads_with_known_duty_cycles_weigh_what_their_cpu_clocks_say() {
    isolated(
        "cpu_accounting::threads_with_known_duty_cycles_weigh_what_their_cpu_clocks_say",
        || {
            let profiler = start(Config {
                hz: 499,
                ..Config::default()
            })
            .unwrap();
            // Rest between bursts of work in microseconds, and CPU time to use in milliseconds.
            let cycles = [(0_u64, 3_200_u64), (1_500, 1_600), (800, 1_200), (1_200, 800)];
            let begin = Arc::new(Barrier::new(cycles.len()));
            let threads: Vec<_> = cycles
                .into_iter()
                .enumerate()
                .map(|(index, (rest_us, cpu_ms))| {
                    let begin = Arc::clone(&begin);
                    thread::spawn(move || {
                        let label = Label::new(index as u32 + 1);
                        let _label = scope(label);
                        begin.wait();
                        let from = own_cpu_ns();
                        while own_cpu_ns() - from < cpu_ms * 1_000_000 {
                            burn(Duration::from_micros(400));
                            if rest_us > 0 {
                                thread::sleep(Duration::from_micros(rest_us));
                            }
                        }
                        (label, own_cpu_ns())
                    })
                })
                .collect();
            let truth: HashMap<Label, u64> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            let window = profiler.take_window();
            let (all_truth, all_sampled) = (truth.values().sum::<u64>(), total_cpu(&window));
            for (label, cpu_ns) in &truth {
                let wanted = 100.0 * *cpu_ns as f64 / all_truth as f64;
                let sampled = 100.0 * cpu_of(&window, *label) as f64 / all_sampled as f64;
                println!("{label:?}: {wanted:.2} % of CPU, {sampled:.2} % of samples");
                assert!((wanted - sampled).abs() < 2.0, "{label:?}: {wanted} {sampled}");
            }
            // Each of the four threads may end before its last tick.
            assert!(
                relative_error(all_sampled, all_truth) < 0.03,
                "{all_sampled} of {all_truth}"
            );
        },
    );
}

#[test]
fn overrun_weights_sum_to_the_cpu_time_of_registered_threads() {
    isolated(
        "cpu_accounting::overrun_weights_sum_to_the_cpu_time_of_registered_threads",
        || {
            // Above any kernel's tick, so most expiries are returned as overrun.
            let profiler = start(Config {
                hz: 5_000,
                cpu_budget: 1.0,
                ..Config::default()
            })
            .unwrap();
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    thread::spawn(|| {
                        register_thread();
                        burn(Duration::from_millis(2_000));
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let window = profiler.take_window();
            let stats = window.stats;
            println!("{stats:?}");
            assert!(
                stats.captured * 3 < stats.weight,
                "no overruns: {} of {}",
                stats.captured,
                stats.weight
            );
            assert_eq!(stats.dropped, 0);
            assert_eq!(
                stats.weight,
                window.samples.iter().map(|sample| sample.weight).sum::<u64>()
            );
            assert!(stats.thread_cpu_ns >= 4_000_000_000);
            assert_complete(&window);
            assert_eq!(stats.weight * window.period_ns, total_cpu(&window));
            assert!(stats.unattributed_ns < stats.thread_cpu_ns / 20, "{stats:?}");
        },
    );
}

#[test]
fn a_change_of_rate_inside_a_window_keeps_cpu_time_exact() {
    isolated(
        "cpu_accounting::a_change_of_rate_inside_a_window_keeps_cpu_time_exact",
        || {
            let profiler = start(Config {
                hz: 400,
                cpu_budget: 1.0,
                ..Config::default()
            })
            .unwrap();
            register_thread();
            for hz in [1_000, 250, 2_000] {
                burn(Duration::from_millis(700));
                profiler.set_rate(hz).unwrap();
            }
            burn(Duration::from_millis(700));
            profiler.set_enabled(false);
            let window = profiler.take_window();
            assert_complete(&window);
            let by_mean = relative_error(window.stats.weight * window.period_ns, total_cpu(&window));
            assert!(
                by_mean < 0.001,
                "the window's period is the mean over its ticks: {by_mean}"
            );

            // Running timers really switch to a new rate.
            profiler.set_enabled(true);
            profiler.set_rate(500).unwrap();
            burn(Duration::from_millis(200));
            profiler.take_window();
            burn(Duration::from_millis(1_000));
            let last = profiler.take_window();
            let ticks_per_second = last.stats.weight as f64 / (total_cpu(&last) as f64 / 1e9);
            assert!((499.0..501.0).contains(&ticks_per_second), "{ticks_per_second}");
            assert!((499.0..501.0).contains(&last.hz), "{}", last.hz);
            assert!((300..700).contains(&last.stats.weight), "{:?}", last.stats);
        },
    );
}

/// Each change comes before a kernel tick could notice what was due.
#[test]
fn frequent_changes_of_rate_lose_no_cpu_time() {
    isolated("cpu_accounting::frequent_changes_of_rate_lose_no_cpu_time", || {
        let profiler = start(Config {
            hz: 5_000,
            cpu_budget: 1.0,
            ..Config::default()
        })
        .unwrap();
        let _label = scope(Label::new(1));
        for round in 0..300 {
            burn(Duration::from_millis(3));
            profiler.set_rate(5_000 + 2_000 * (round % 2)).unwrap();
        }
        burn(Duration::from_millis(100));
        profiler.set_enabled(false);
        let window = profiler.take_window();
        assert_complete(&window);
        assert!(
            window.stats.unattributed_ns < window.stats.thread_cpu_ns / 10,
            "{:?}",
            window.stats
        );
    });
}

#[test]
fn what_short_threads_used_is_reported_even_if_no_tick_met_them() {
    isolated(
        "cpu_accounting::what_short_threads_used_is_reported_even_if_no_tick_met_them",
        || {
            let profiler = start(Config {
                hz: 10_000,
                cpu_budget: 1.0,
                ..Config::default()
            })
            .unwrap();
            for _ in 0..150 {
                let short = thread::spawn(|| {
                    register_thread();
                    burn(Duration::from_millis(2));
                });
                short.join().unwrap();
            }
            let window = profiler.take_window();
            assert_complete(&window);
            assert!(
                window.stats.unattributed_ns > window.stats.thread_cpu_ns / 10,
                "{:?}",
                window.stats
            );
        },
    );
}

#[test]
fn cpu_time_while_disabled_is_in_no_window() {
    isolated("cpu_accounting::cpu_time_while_disabled_is_in_no_window", || {
        let profiler = start(Config {
            hz: 1_000,
            ..Config::default()
        })
        .unwrap();
        register_thread();
        burn(Duration::from_millis(300));
        profiler.set_enabled(false);
        profiler.take_window();
        burn(Duration::from_millis(300));
        let disabled = profiler.take_window();
        assert_eq!((disabled.stats.weight, disabled.stats.thread_cpu_ns), (0, 0));
        assert!(!profiler.stats().enabled);
        profiler.set_enabled(true);
        let before = own_cpu_ns();
        burn(Duration::from_millis(1_000));
        profiler.set_enabled(false);
        let enabled = profiler.take_window();
        let used = own_cpu_ns() - before;
        assert!(
            relative_error(enabled.stats.thread_cpu_ns, used) < 0.02,
            "{:?} {used}",
            enabled.stats
        );
        assert_complete(&enabled);
    });
}

#[test]
fn a_thread_that_ended_is_counted_and_its_slot_serves_the_next() {
    isolated(
        "cpu_accounting::a_thread_that_ended_is_counted_and_its_slot_serves_the_next",
        || {
            let profiler = start(Config {
                hz: 1_000,
                cpu_budget: 1.0,
                ..Config::default()
            })
            .unwrap();
            let mut used = 0;
            for round in 1..=10_u32 {
                used += thread::spawn(move || {
                    let _label = scope(Label::new(round));
                    burn(Duration::from_millis(200));
                    own_cpu_ns()
                })
                .join()
                .unwrap();
            }
            let window = profiler.take_window();
            println!("{:?} used {used}", window.stats);
            assert_eq!(window.stats.threads, 10);
            assert!(relative_error(window.stats.thread_cpu_ns, used) < 0.02);
            assert_complete(&window);
            for round in 1..=10 {
                let cpu_ns = cpu_of(&window, Label::new(round));
                assert!((100_000_000..210_000_000).contains(&cpu_ns), "{round}: {cpu_ns}");
            }
            assert_eq!(profiler.take_window().stats.threads, 0);
        },
    );
}

#[test]
fn threads_registered_before_the_start_are_sampled() {
    isolated(
        "cpu_accounting::threads_registered_before_the_start_are_sampled",
        || {
            let ready = Arc::new(Barrier::new(2));
            let started = Arc::new(Barrier::new(2));
            let early = {
                let (ready, started) = (Arc::clone(&ready), Arc::clone(&started));
                thread::spawn(move || {
                    let _label = scope(Label::new(5));
                    ready.wait();
                    started.wait();
                    burn(Duration::from_millis(400));
                })
            };
            ready.wait();
            for _ in 0..2 {
                // Twice, as a stop must not lose them either.
                start(Config::default()).unwrap().stop();
            }
            let profiler = start(Config {
                hz: 1_000,
                ..Config::default()
            })
            .unwrap();
            started.wait();
            early.join().unwrap();
            let cpu_ns = cpu_of(&profiler.take_window(), Label::new(5));
            assert!((250_000_000..420_000_000).contains(&cpu_ns), "{cpu_ns}");
        },
    );
}

#[test]
fn threads_that_never_registered_are_counted() {
    isolated("cpu_accounting::threads_that_never_registered_are_counted", || {
        let profiler = start(Config::default()).unwrap();
        let before = profiler.take_window().stats.unregistered_threads;
        let hold = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..3)
            .map(|index| {
                let hold = Arc::clone(&hold);
                thread::spawn(move || {
                    if index == 0 {
                        register_thread();
                    }
                    hold.wait();
                    hold.wait();
                })
            })
            .collect();
        hold.wait();
        let stats = profiler.take_window().stats;
        assert_eq!((stats.threads, stats.unregistered_threads), (1, before + 2));
        assert_eq!(profiler.stats().unregistered_threads, before + 2);
        hold.wait();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn what_a_full_ring_drops_is_counted() {
    isolated("cpu_accounting::what_a_full_ring_drops_is_counted", || {
        let config = Config {
            hz: 1,
            ring_words: 64,
            max_frames: 16,
            cpu_budget: 1.0,
            ..Config::default()
        };
        let profiler = start(config).unwrap();
        register_thread();
        let probe = probe_current_thread().unwrap();
        const REQUESTS: u64 = 20_000;
        for _ in 0..REQUESTS {
            // To itself: the signal is handled before the call returns, so none is lost.
            probe.request().unwrap();
        }
        let stats = profiler.take_window().stats;
        println!("{stats:?}");
        assert!(stats.dropped > REQUESTS / 2, "{stats:?}");
        // The timer may have added a sample per second of CPU.
        let timer_samples = stats.weight + stats.dropped_weight;
        let seen = stats.captured + stats.dropped;
        assert!((REQUESTS..=REQUESTS + timer_samples).contains(&seen), "{stats:?}");
        assert_eq!(profiler.stats().dropped, stats.dropped);
    });
}

#[test]
fn deep_stacks_are_cut_and_counted() {
    isolated("cpu_accounting::deep_stacks_are_cut_and_counted", || {
        #[inline(never)]
        fn deep(depth: u32, then: &dyn Fn()) -> u32 {
            if depth == 0 {
                then();
                return 0;
            }
            std::hint::black_box(deep(depth - 1, then)) + 1
        }
        let profiler = start(Config {
            hz: 1,
            max_frames: 32,
            ..Config::default()
        })
        .unwrap();
        register_thread();
        let probe = probe_current_thread().unwrap();
        deep(100, &|| probe.request().unwrap());
        deep(2, &|| probe.request().unwrap());
        let window = profiler.take_window();
        assert_eq!(window.stats.truncated, 1);
        assert!(window.stacks.iter().any(|stack| stack.len() == 32));
        assert!(window.stacks.iter().all(|stack| stack.len() <= 32));
        let weights: Vec<u64> = window.samples.iter().map(|sample| sample.weight).collect();
        assert!(
            weights.iter().sum::<u64>() <= 1,
            "requested samples weigh nothing: {weights:?}"
        );
    });
}

#[test]
fn a_sampler_over_its_cpu_budget_halves_its_rate() {
    isolated("cpu_accounting::a_sampler_over_its_cpu_budget_halves_its_rate", || {
        let profiler = start(Config {
            hz: 800,
            cpu_budget: 1e-9,
            ..Config::default()
        })
        .unwrap();
        assert_eq!(profiler.stats().effective_hz, 800.0);
        register_thread();
        wait_until("the rate to halve twice", || {
            burn(Duration::from_millis(100));
            profiler.stats().rate_halvings >= 2
        });
        burn(Duration::from_millis(1_000));
        let stats = profiler.stats();
        assert!(stats.effective_hz <= 200.0, "{stats:?}");
        assert_eq!(stats.configured_hz, 800);
        profiler.set_enabled(false);
        let window = profiler.take_window();
        // At each rate the error may be just under one tick; periods double, so in total it is less than two of the
        // last.
        let tolerance = 2.0 * 1e9 / profiler.stats().effective_hz;
        let counted = total_cpu(&window) + window.stats.unattributed_ns;
        let off_by = counted.abs_diff(window.stats.thread_cpu_ns) as f64;
        println!("off by {off_by} of at most {tolerance}");
        assert!(off_by < tolerance, "{:?}", window.stats);
        // A new rate starts over.
        profiler.set_rate(400).unwrap();
        assert_eq!(profiler.stats().effective_hz, 400.0);
        assert!(profiler.set_rate(0).is_err());
    });
}
