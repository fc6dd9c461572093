//! Whether frame pointers work: a recursion of known depth, walked like a sample.
//!
//! Guarantee: `true` means that this crate's own code keeps frame pointers. Wrong on purpose: it cannot see how other
//! crates and C libraries were built; within one `cargo build` the setting is the same for all Rust code.

use std::hint::black_box;

use super::{arch, registry, walk};

const DEPTH: usize = 8;

/// Tests the walk on the calling thread.
pub(super) fn frame_pointers_work() -> bool {
    let mut frames = [0_usize; 4 * DEPTH];
    let found = descend(DEPTH, &mut frames).min(frames.len());
    // Each level returns to the same place, so a walk that works yields a run of equal addresses.
    let mut longest = 0;
    let mut run = 0;
    for pair in frames[..found].windows(2) {
        run = if pair[0] == pair[1] { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest >= DEPTH - 2
}

#[inline(never)]
fn descend(depth: usize, frames: &mut [usize]) -> usize {
    if depth == 0 {
        return capture(frames);
    }
    // The barriers keep the compiler from turning the recursion into a loop.
    let found = descend(black_box(depth - 1), frames);
    black_box(found)
}

#[inline(never)]
fn capture(frames: &mut [usize]) -> usize {
    let Some(stack) = registry::current_stack() else {
        return 0;
    };
    let (fp, sp) = arch::own_frame();
    if !stack.contains(sp) {
        return 0;
    }
    let mut found = 0;
    // SAFETY: the stack of this thread, from this function's stack pointer upwards.
    unsafe {
        walk::walk_frames(fp, sp, stack, |address| match frames.get_mut(found) {
            Some(frame) => {
                *frame = address;
                found += 1;
                true
            }
            None => false,
        });
    }
    black_box(found)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_build_keeps_frame_pointers() {
        assert!(super::frame_pointers_work(), "build with -C force-frame-pointers=yes");
    }
}
