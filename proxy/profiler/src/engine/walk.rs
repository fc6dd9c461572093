//! Walks an interrupted thread's stack by frame pointers.
//!
//! Guarantee: it reads only whole words between the interrupted stack pointer and the top of the thread's own stack,
//! and code bytes of this program's own text; whatever the register values, it ends and reads nothing else. It
//! allocates nothing, calls nothing and cannot panic.
//!
//! A leaf in code without frame pointers (libc) would lose its caller: the frame pointer still holds the caller's
//! frame, whose return address leads to the caller's caller. So for code outside our text, the first words of the
//! stack are searched for a return address into our text. The kernel's vDSO keeps frame pointers and is walked like our
//! own code.
//!
//! Wrong on purpose: a stale return address among those words can be mistaken for the caller; callers more than
//! [`SEARCHED_WORDS`] away are not found; a leaf of our text without a frame (assembly, a long fast path that the
//! compiler moved before the frame is set up) loses its caller.

use super::arch::{self, Range, Registers, Unframed};

/// How far above the stack pointer the caller of code without frame pointers is searched for.
const SEARCHED_WORDS: usize = 32;

/// How many frames outside our text are left one by one before the rest is walked as is.
const FOREIGN_FRAMES: usize = 8;

const WORD: usize = size_of::<usize>();

/// There is no code below this address: the kernel keeps the first page unmapped.
const LOWEST_CODE: usize = 4_096;

/// Code that is known to keep frame pointers and is readable.
#[derive(Copy, Clone, Debug)]
pub(super) struct Program {
    /// This program's own.
    pub(super) text: Range,
    /// The kernel's vDSO; empty if unknown or without frame pointers.
    pub(super) vdso: Range,
}

/// Passes the addresses of a stack, leaf first, to `emit` until it returns `false`. All but the first are return
/// addresses. Returns whether the interrupted thread was on the stack `bounds`; if not, only the leaf was passed.
///
/// # Safety
///
/// `bounds` must be the mapped stack of the interrupted thread, which must not run meanwhile, and every word from its
/// stack pointer to `bounds.high` must be readable if the stack pointer is inside. The ranges of `program` must be
/// readable mappings of code, or empty.
#[inline]
pub(super) unsafe fn walk(
    registers: Registers,
    bounds: Range,
    program: Program,
    mut emit: impl FnMut(usize) -> bool,
) -> bool {
    let Registers {
        mut ip,
        mut fp,
        mut sp,
        mut lr,
    } = registers;
    if !emit(ip) {
        return true;
    }
    if !bounds.contains(sp) {
        return false;
    }
    // SAFETY: guaranteed by the caller.
    if let Some((address, above)) = unsafe { unframed_caller(registers, bounds, program) } {
        if !emit(address) {
            return true;
        }
        (ip, sp, lr) = (address, above, 0);
    }
    for _ in 0..FOREIGN_FRAMES {
        if program.text.contains(ip) {
            break;
        }
        let step = if program.vdso.contains(ip) {
            Step::OwnFrame
        } else {
            // SAFETY: guaranteed by the caller; `sp` only rises, and stays inside `bounds`.
            unsafe { leave_foreign(fp, sp, lr, bounds, program.text) }
        };
        match step {
            Step::Caller {
                address,
                above,
                fp: caller_fp,
            } => {
                if !emit(address) {
                    return true;
                }
                let Some(caller_fp) = caller_fp else { return true };
                (ip, fp, sp) = (address, caller_fp, above);
            }
            Step::OwnFrame if is_frame(fp, sp, bounds) => {
                // SAFETY: `is_frame`: two whole words inside the readable range.
                let (next, address) = unsafe { (read(fp), arch::plain_address(read(fp + WORD))) };
                if address < LOWEST_CODE || !emit(address) {
                    return true;
                }
                (ip, fp, sp) = (address, next, fp + 2 * WORD);
            }
            Step::OwnFrame | Step::Lost => break,
        }
        lr = 0;
    }
    // SAFETY: guaranteed by the caller; `sp` only rose, and stayed inside `bounds`.
    unsafe { walk_frames(fp, sp, bounds, emit) };
    true
}

/// Follows the chain of frames from `fp`: each holds the next frame pointer and, above it, a return address.
///
/// # Safety
///
/// Every word from `floor` to `bounds.high` must be readable.
#[inline]
pub(super) unsafe fn walk_frames(mut fp: usize, mut floor: usize, bounds: Range, mut emit: impl FnMut(usize) -> bool) {
    while is_frame(fp, floor, bounds) {
        // SAFETY: `is_frame`: two whole words inside the readable range.
        let (next, address) = unsafe { (read(fp), arch::plain_address(read(fp + WORD))) };
        if address < LOWEST_CODE || !emit(address) {
            return;
        }
        // Callers' frames are strictly above, so the chain ends.
        floor = fp + 2 * WORD;
        fp = next;
    }
}

#[inline]
fn is_frame(fp: usize, floor: usize, bounds: Range) -> bool {
    fp.is_multiple_of(WORD) && fp >= floor && fp >= bounds.low && bounds.high.saturating_sub(2 * WORD) >= fp
}

/// # Safety
///
/// The word at `address` must be readable.
#[inline]
unsafe fn read(address: usize) -> usize {
    // SAFETY: according to the caller it is readable; volatile because the memory belongs to interrupted code.
    unsafe { (address as *const usize).read_volatile() }
}

/// The return address of a leaf that was interrupted while it had no frame of its own, and the address above it.
///
/// # Safety
///
/// As for [`walk`], with the stack pointer inside `bounds`.
#[inline]
unsafe fn unframed_caller(registers: Registers, bounds: Range, program: Program) -> Option<(usize, usize)> {
    let Registers { ip, sp, lr, .. } = registers;
    let code = if program.text.contains(ip) {
        program.text
    } else {
        program.vdso
    };
    if !code.contains(ip) {
        return None;
    }
    let return_address_at = |place: usize| {
        let readable = place.is_multiple_of(WORD) && place + WORD <= bounds.high;
        // SAFETY: a whole word between the stack pointer and the top.
        readable.then(|| (unsafe { read(place) }, place + WORD))
    };
    // SAFETY: `code` is readable and contains `ip`.
    let (address, above) = match unsafe { arch::unframed(ip, code) } {
        Some(Unframed::InLinkRegister) => (lr, sp),
        Some(Unframed::OnStack(offset)) => return_address_at(sp + offset)?,
        None => {
            let (address, above) = return_address_at(sp)?;
            let text = program.text;
            // SAFETY: both read only `text`, which contains `ip` if it is `code`.
            let is_before_frame = code == text
                && unsafe { arch::is_return_address(address, text) && arch::is_before_frame(ip, address, text) };
            return is_before_frame.then_some((address, above));
        }
    };
    // Bytes that only look like a prologue must not add a bogus caller.
    let in_vdso = program.vdso.contains(ip);
    // SAFETY: `is_return_address` reads only `program.text`.
    let is_call = unsafe { arch::is_return_address(address, program.text) };
    (is_call || (in_vdso && address >= LOWEST_CODE)).then_some((address, above))
}

/// How to continue from code outside our text.
enum Step {
    /// To this return address into our text, found below `above`; the chain continues at `fp`, or is lost.
    Caller {
        address: usize,
        above: usize,
        fp: Option<usize>,
    },
    /// The code keeps frames of its own.
    OwnFrame,
    /// No caller was found.
    Lost,
}

/// # Safety
///
/// As for [`walk`], with `sp` inside `bounds`.
#[inline]
unsafe fn leave_foreign(fp: usize, sp: usize, lr: usize, bounds: Range, text: Range) -> Step {
    let fp_is_frame = is_frame(fp, sp, bounds);
    // SAFETY: `is_return_address` reads only `text`.
    if unsafe { arch::is_return_address(lr, text) } {
        // SAFETY: `is_frame`: the word is readable.
        let in_chain = fp_is_frame && unsafe { arch::plain_address(read(fp + WORD)) } == lr;
        return if in_chain {
            Step::OwnFrame
        } else {
            Step::Caller {
                address: lr,
                above: sp,
                fp: Some(fp),
            }
        };
    }
    let start = sp.next_multiple_of(WORD);
    for place in (start..bounds.high.saturating_sub(WORD - 1))
        .step_by(WORD)
        .take(SEARCHED_WORDS)
    {
        if fp_is_frame && place >= fp {
            return Step::OwnFrame;
        }
        // SAFETY: a whole word between the stack pointer and the top; code is read in `text` only.
        let (address, found) = unsafe {
            let address = arch::plain_address(read(place));
            (address, arch::is_return_address(address, text))
        };
        if found {
            // SAFETY: guaranteed by the caller; `start` to `place` is between the stack pointer and the top.
            let fp = unsafe { frame_above(fp, start, place, bounds, text) };
            return Step::Caller {
                address,
                above: place + WORD,
                fp,
            };
        }
    }
    Step::Lost
}

/// The frame of the function that was called from `place`: the frame-pointer register if the callee left it alone,
/// otherwise the copy that the callee pushed below the return address. Only frames whose return address is in our text
/// count, since the register may hold anything.
///
/// # Safety
///
/// As for [`walk`]; `start` and `place` must be between the stack pointer and `bounds.high`.
#[inline]
unsafe fn frame_above(fp: usize, start: usize, place: usize, bounds: Range, text: Range) -> Option<usize> {
    let is_ours = |candidate: usize| {
        is_frame(candidate, place + WORD, bounds)
            // SAFETY: `is_frame`: the word is readable.
            && unsafe { arch::is_return_address(arch::plain_address(read(candidate + WORD)), text) }
    };
    if is_ours(fp) {
        return Some(fp);
    }
    (start..place)
        .step_by(WORD)
        .rev()
        // SAFETY: a whole word between the stack pointer and the top.
        .map(|saved| unsafe { read(saved) })
        .find(|candidate| is_ours(*candidate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn walk_memory(words: &[usize], registers: Registers) -> Vec<usize> {
        let low = words.as_ptr() as usize;
        let bounds = Range {
            low,
            high: low + words.len() * WORD,
        };
        let mut frames = Vec::new();
        // SAFETY: the bounds are those of a live slice; no text.
        unsafe {
            walk(
                registers,
                bounds,
                Program {
                    text: Range::EMPTY,
                    vdso: Range::EMPTY,
                },
                |address| {
                    frames.push(address);
                    true
                },
            );
        }
        frames
    }

    #[test]
    fn a_chain_of_frames_is_followed_to_its_end() {
        let mut words = vec![0_usize; 16];
        let at = |words: &[usize], index: usize| words.as_ptr() as usize + index * WORD;
        words[4] = at(&words, 8);
        words[5] = 0x10_000;
        words[8] = 0;
        words[9] = 0x20_000;
        let registers = Registers {
            ip: 0x30_000,
            fp: at(&words, 4),
            sp: at(&words, 1),
            lr: 0,
        };
        assert_eq!(walk_memory(&words, registers), [0x30_000, 0x10_000, 0x20_000]);
    }

    proptest! {
        /// Whatever the memory and registers, the walk ends and stays inside (a stray read would crash or trip a
        /// sanitizer).
        #[test]
        fn corrupted_frame_pointers_end_the_walk(
            shape in prop::collection::vec((0_usize..80, any::<bool>(), any::<usize>()), 64),
            fp in 0_usize..70,
            sp in 0_usize..70,
        ) {
            let mut words = vec![0_usize; 64];
            let base = words.as_ptr() as usize;
            for (word, (index, is_pointer, raw)) in words.iter_mut().zip(&shape) {
                *word = if *is_pointer { base + index * WORD } else { *raw };
            }
            let registers = Registers { ip: 0x1000, fp: base + fp * WORD, sp: base + sp * WORD, lr: 0 };
            let frames = walk_memory(&words, registers);
            prop_assert!(frames.len() <= 1 + 64 / 2);
        }
    }
}
