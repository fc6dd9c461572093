//! The right function under the right label, named from (module, file offset) as a reader of the profile would do.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::hint::black_box;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{burn, isolated, own_cpu_ns, work};
use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer};
use emberline_profiler::{Config, Frame, Label, Labeled, LabeledBy, TaskLabel, Window, scope, start};

/// Names frames, including inlined ones, innermost first.
struct Names {
    symbolizer: Symbolizer,
    known: HashMap<(PathBuf, u64), Vec<String>>,
}

impl Names {
    fn new() -> Self {
        Self {
            symbolizer: Symbolizer::new(),
            known: HashMap::new(),
        }
    }

    fn of_frame(&mut self, window: &Window, frame: Frame) -> &[String] {
        let path = window
            .modules
            .get(frame.module as usize)
            .map_or_else(PathBuf::new, |module| module.path.clone());
        let symbolizer = &self.symbolizer;
        self.known.entry((path.clone(), frame.offset)).or_insert_with(|| {
            if !path.is_file() {
                return vec!["?".into()];
            }
            let source = Source::Elf(Elf::new(&path));
            match symbolizer.symbolize_single(&source, Input::FileOffset(frame.offset)) {
                Ok(Symbolized::Sym(symbol)) => {
                    let inlined = symbol.inlined.iter().rev().map(|function| function.name.to_string());
                    inlined.chain([symbol.name.to_string()]).collect()
                }
                _ => vec!["?".into()],
            }
        })
    }

    fn of_stack(&mut self, window: &Window, stack: u32) -> Vec<String> {
        let frames = &window.stacks[stack as usize];
        frames
            .iter()
            .flat_map(|frame| self.of_frame(window, *frame).to_vec())
            .collect()
    }
}

/// Of the weight under `label`, the share whose named stack satisfies `is_right`; prints some that do not.
fn share(window: &Window, names: &mut Names, label: Label, is_right: impl Fn(&[String]) -> bool) -> (f64, u64) {
    let (mut right, mut all) = (0, 0);
    for sample in window.samples.iter().filter(|sample| sample.label == label) {
        let stack = names.of_stack(window, sample.stack);
        all += sample.weight;
        if is_right(&stack) {
            right += sample.weight;
        } else {
            println!("{label:?} wrong ({}): {}", sample.weight, stack.join(" < "));
        }
    }
    println!("{label:?}: {right} of {all}");
    (right as f64 / all.max(1) as f64, all)
}

fn has(stack: &[String], function: &str) -> bool {
    stack.iter().any(|name| name.ends_with(function))
}

// The two return different values: the compiler merges equal functions into one, with one name.

#[inline(never)]
fn burn_cart(microseconds: u64) -> u64 {
    burn(Duration::from_micros(microseconds));
    black_box(microseconds + 1)
}

#[inline(never)]
fn burn_checkout(microseconds: u64) -> u64 {
    burn(Duration::from_micros(microseconds));
    black_box(microseconds + 2)
}

#[test]
fn two_routes_alternating_on_one_thread_keep_their_own_functions() {
    isolated(
        "attribution::two_routes_alternating_on_one_thread_keep_their_own_functions",
        || {
            let profiler = start(Config {
                hz: 997,
                ..Config::default()
            })
            .unwrap();
            let (cart, checkout, connection) = (Label::new(1), Label::new(2), Label::new(3));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                const ROUNDS: usize = 4_000;
                let carts = tokio::spawn(Labeled::new(cart, async move {
                    for _ in 0..ROUNDS {
                        burn_cart(300);
                        tokio::task::yield_now().await;
                    }
                }));
                // What an HTTP/1 connection does: a sticky label that changes inside a poll.
                let task_label = TaskLabel::new(connection);
                let handle = task_label.clone();
                let checkouts = tokio::spawn(LabeledBy::new(task_label, async move {
                    for _ in 0..ROUNDS {
                        handle.set(checkout);
                        burn_checkout(300);
                        tokio::task::yield_now().await;
                    }
                }));
                carts.await.unwrap();
                checkouts.await.unwrap();
            });
            let window = profiler.take_window();
            let mut names = Names::new();
            for (label, own, other) in [
                (cart, "burn_cart", "burn_checkout"),
                (checkout, "burn_checkout", "burn_cart"),
            ] {
                let (right, weight) = share(&window, &mut names, label, |stack| {
                    has(stack, own) && !has(stack, other)
                });
                assert!(weight > 500, "{label:?}: {weight}");
                assert!(right >= 0.99, "{label:?}: {right}");
            }
            let labelled: u64 = window
                .samples
                .iter()
                .filter(|s| s.label == cart || s.label == checkout)
                .map(|s| s.weight)
                .sum();
            assert!(
                labelled * 100 >= window.stats.weight * 98,
                "{labelled} of {}",
                window.stats.weight
            );
        },
    );
}

#[inline(always)]
fn inlined_leaf(mut state: u64) -> u64 {
    for _ in 0..20_000 {
        state = state.rotate_left(5) ^ state.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    state
}

#[inline(never)]
fn burn_inlined(seed: u64) -> u64 {
    black_box(inlined_leaf(black_box(seed)))
}

#[test]
fn an_inlined_leaf_is_named_inside_its_function() {
    isolated("attribution::an_inlined_leaf_is_named_inside_its_function", || {
        let profiler = start(Config {
            hz: 997,
            ..Config::default()
        })
        .unwrap();
        let label = Label::new(1);
        {
            let _label = scope(label);
            let end = own_cpu_ns() + 2_000_000_000;
            let mut state = 1;
            while own_cpu_ns() < end {
                for _ in 0..200 {
                    state = burn_inlined(state);
                }
            }
        }
        let window = profiler.take_window();
        let mut names = Names::new();
        let (mut right, mut weight) = (0, 0);
        for sample in window.samples.iter().filter(|sample| sample.label == label) {
            // All names for the leaf's single address: what `inlined_leaf` calls is inlined too and comes first.
            let leaf = names.of_frame(&window, window.stacks[sample.stack as usize][0]);
            let is_right = leaf.last().is_some_and(|outer| outer.ends_with("burn_inlined"))
                && leaf[..leaf.len() - 1]
                    .last()
                    .is_some_and(|inner| inner.ends_with("inlined_leaf"));
            weight += sample.weight;
            right += if is_right { sample.weight } else { 0 };
            if !is_right {
                println!("wrong ({}): {}", sample.weight, leaf.join(" < "));
            }
        }
        let right = right as f64 / weight as f64;
        assert!(weight > 500);
        // On a busy machine, one sample taken between two calls may stand for twenty.
        assert!(right >= 0.95, "{right}");
    });
}

#[inline(never)]
fn tiny(value: u64) -> u64 {
    black_box(value) + 1
}

#[inline(never)]
fn calls_tiny_functions(count: u64) -> u64 {
    let mut sum = 0;
    for value in 0..count {
        sum += tiny(value);
    }
    black_box(sum)
}

/// Much of a tiny function is its prologue and epilogue, where the frame pointer is still, or again, the caller's.
#[test]
fn the_caller_of_a_tiny_function_is_not_lost() {
    isolated("attribution::the_caller_of_a_tiny_function_is_not_lost", || {
        let profiler = start(Config {
            hz: 997,
            ..Config::default()
        })
        .unwrap();
        let label = Label::new(1);
        {
            let _label = scope(label);
            let end = own_cpu_ns() + 1_000_000_000;
            while own_cpu_ns() < end {
                calls_tiny_functions(20_000);
            }
        }
        let window = profiler.take_window();
        let (right, weight) = share(&window, &mut Names::new(), label, |stack| {
            has(stack, "calls_tiny_functions") || has(stack, "own_cpu_ns")
        });
        assert!(weight > 500);
        assert!(right >= 0.99, "{right}");
    });
}

#[inline(never)]
fn copies_memory(from: &[u8], to: &mut [u8]) {
    to.copy_from_slice(black_box(from));
    black_box(to);
}

#[inline(never)]
fn allocates_much(blocks: &mut Vec<Vec<u8>>) {
    for round in 0..200_usize {
        blocks[round % 64] = Vec::with_capacity(black_box(64 + round * 37 % 2_000));
    }
    black_box(blocks);
}

/// The C library keeps no frame pointers, so its caller must be found on the stack.
#[test]
fn the_caller_of_the_c_library_is_not_lost() {
    isolated("attribution::the_caller_of_the_c_library_is_not_lost", || {
        let profiler = start(Config {
            hz: 997,
            ..Config::default()
        })
        .unwrap();
        let (copying, allocating) = (Label::new(1), Label::new(2));
        let (from, mut to) = (vec![1; 1 << 20], vec![0; 1 << 20]);
        let mut blocks = vec![Vec::new(); 64];
        let end = own_cpu_ns() + 2_000_000_000;
        while own_cpu_ns() < end {
            {
                let _label = scope(copying);
                for _ in 0..20 {
                    copies_memory(&from, &mut to);
                }
            }
            let _label = scope(allocating);
            for _ in 0..100 {
                allocates_much(&mut blocks);
            }
        }
        let window = profiler.take_window();
        let mut names = Names::new();
        for (label, function, floor) in [(copying, "copies_memory", 0.97), (allocating, "allocates_much", 0.98)] {
            let (right, weight) = share(&window, &mut names, label, |stack| has(stack, function));
            assert!(weight > 300, "{weight}");
            assert!(right >= floor, "{function}: {right}");
        }
        // Beyond the first caller: the chain must continue to the test itself.
        let (rooted, _) = share(&window, &mut names, allocating, |stack| {
            stack
                .iter()
                .any(|name| name.contains("the_caller_of_the_c_library_is_not_lost"))
        });
        assert!(rooted >= 0.95, "{rooted}");
    });
}

#[inline(never)]
fn calls_loaded_library(function: extern "C" fn(f64) -> f64, end: u64) -> f64 {
    let mut sum = 0.0;
    while own_cpu_ns() < end {
        for step in 0..2_000 {
            sum += function(black_box(f64::from(step) / 100.0));
        }
    }
    sum
}

/// Where the dynamic loader finds the mathematical library.
fn path_of_libm() -> PathBuf {
    // SAFETY: a library of the C library's family; its initialisers are harmless. It stays loaded.
    unsafe {
        let library = libc::dlopen(c"libm.so.6".as_ptr(), libc::RTLD_NOW);
        assert!(!library.is_null());
        let symbol = libc::dlsym(library, c"tgamma".as_ptr());
        let mut info: libc::Dl_info = std::mem::zeroed();
        assert_ne!(libc::dladdr(symbol, &raw mut info), 0);
        PathBuf::from(OsStr::from_bytes(CStr::from_ptr(info.dli_fname).to_bytes()))
    }
}

#[test]
fn a_library_loaded_after_the_start_is_known_by_path_and_build_id() {
    isolated(
        "attribution::a_library_loaded_after_the_start_is_known_by_path_and_build_id",
        || {
            let profiler = start(Config {
                hz: 997,
                ..Config::default()
            })
            .unwrap();
            let label = Label::new(1);
            let _label = scope(label);
            work(1);
            let before = profiler.take_window();
            let is_copy = |path: &Path| path.ends_with("libcopied_math.so");
            assert!(!before.modules.iter().any(|module| is_copy(&module.path)));
            // A copy under another name, as the C library's own one may be loaded already.
            let folder = tempfile::tempdir().unwrap();
            let copy = folder.path().join("libcopied_math.so");
            std::fs::copy(path_of_libm(), &copy).unwrap();
            let copy = CString::new(copy.into_os_string().into_vec()).unwrap();
            // SAFETY: a library of the C library's family; its initialisers are harmless.
            let library = unsafe { libc::dlopen(copy.as_ptr(), libc::RTLD_NOW) };
            assert!(!library.is_null());
            // SAFETY: the library was opened above.
            let symbol = unsafe { libc::dlsym(library, c"tgamma".as_ptr()) };
            assert!(!symbol.is_null());
            // SAFETY: `tgamma` has this type (C11, 7.12.8.4).
            let function: extern "C" fn(f64) -> f64 = unsafe { std::mem::transmute(symbol) };
            calls_loaded_library(function, own_cpu_ns() + 600_000_000);
            let window = profiler.take_window();
            let module = window
                .modules
                .iter()
                .position(|module| is_copy(&module.path))
                .expect("the library is known");
            assert!(
                window.modules[module].build_id.len() >= 16,
                "{:?}",
                window.modules[module]
            );
            assert!(window.modules[module].size > 100_000);
            let mut names = Names::new();
            let mut in_library = 0;
            let (right, _) = share(&window, &mut names, label, |stack| has(stack, "calls_loaded_library"));
            for sample in &window.samples {
                let leaf = window.stacks[sample.stack as usize].first();
                in_library += if leaf.is_some_and(|leaf| leaf.module as usize == module) {
                    sample.weight
                } else {
                    0
                };
            }
            assert!(
                in_library * 2 > window.stats.weight,
                "{in_library} of {}",
                window.stats.weight
            );
            // Some of the library's frames are deeper than the search for a caller goes.
            assert!(right >= 0.85, "{right}");
            println!(
                "{}",
                window
                    .modules
                    .iter()
                    .map(|m| format!("{} {}\n", m.path.display(), m.build_id))
                    .collect::<String>()
            );
        },
    );
}

/// Leaves return addresses throughout the unused part of the stack, as densely as calls can.
#[inline(never)]
fn dirties_the_stack(depth: u32) {
    if depth > 0 {
        dirties_the_stack(depth - 1);
    }
    // SAFETY: emits no instruction; it keeps the call above from becoming a jump.
    unsafe { std::arch::asm!("") };
}

#[inline(never)]
fn reads_the_clock(count: u64) -> u64 {
    let mut sum = 0_u64;
    for _ in 0..count {
        dirties_the_stack(12);
        sum = sum.wrapping_add(own_cpu_ns());
    }
    sum
}

/// From the kernel's vDSO through the C library: two kinds of foreign code above ours.
#[test]
fn the_caller_of_the_clock_is_not_lost() {
    isolated("attribution::the_caller_of_the_clock_is_not_lost", || {
        let profiler = start(Config {
            hz: 997,
            ..Config::default()
        })
        .unwrap();
        let label = Label::new(1);
        {
            let _label = scope(label);
            let end = own_cpu_ns() + 1_000_000_000;
            while own_cpu_ns() < end {
                reads_the_clock(200);
            }
        }
        let window = profiler.take_window();
        let program = std::env::current_exe().unwrap();
        let mut names = Names::new();
        let (mut right, mut weight) = (0, 0);
        for sample in window.samples.iter().filter(|sample| sample.label == label) {
            // Above a foreign leaf, this program's first frame must be the caller, not something that returned long
            // ago.
            let is_ours = |frame: &&Frame| {
                let module = window.modules.get(frame.module as usize);
                module.is_some_and(|module| module.path == program)
            };
            let stack = &window.stacks[sample.stack as usize];
            if is_ours(&&stack[0]) {
                continue;
            }
            let caller = stack.iter().find(is_ours);
            let called_from = caller
                .map(|frame| names.of_frame(&window, *frame).to_vec())
                .unwrap_or_default();
            // The loop itself rarely reads the clock, and where time is stolen from the machine, one reading may weigh
            // forty.
            if has(&called_from, "the_caller_of_the_clock_is_not_lost::{{closure}}") {
                continue;
            }
            let is_right = has(&called_from, "reads_the_clock");
            weight += sample.weight;
            right += if is_right { sample.weight } else { 0 };
            if !is_right {
                println!(
                    "wrong ({}): {}",
                    sample.weight,
                    names.of_stack(&window, sample.stack).join(" < ")
                );
            }
        }
        println!("{right} of {weight}");
        let right = right as f64 / weight as f64;
        assert!(weight > 500);
        assert!(right >= 0.97, "{right}");
    });
}
