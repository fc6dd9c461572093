//! What differs between processors: register names, the cycle counter, and what a call looks like in machine code.
//!
//! Guarantee: code bytes are read only inside the given text range. Wrong on purpose: `is_return_address` accepts byte
//! patterns that merely look like a call, and prologues other than the compiler's common ones are not recognised.

/// Registers of the interrupted thread that a walk needs.
#[derive(Copy, Clone, Debug)]
pub(super) struct Registers {
    pub(super) ip: usize,
    pub(super) fp: usize,
    pub(super) sp: usize,
    /// The link register, 0 where there is none.
    pub(super) lr: usize,
}

/// A half-open range of addresses.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) low: usize,
    pub(super) high: usize,
}

impl Range {
    pub(super) const EMPTY: Self = Self { low: 0, high: 0 };

    pub(super) fn contains(self, address: usize) -> bool {
        self.low <= address && address < self.high
    }
}

/// Where the return address is in a function that has not set up its frame yet or has already torn it down.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Unframed {
    /// On the stack, this many bytes above the stack pointer.
    #[cfg_attr(target_arch = "aarch64", allow(dead_code))]
    OnStack(usize),
    /// In the link register.
    #[cfg_attr(target_arch = "x86_64", allow(dead_code))]
    InLinkRegister,
}

#[cfg(target_arch = "x86_64")]
mod imp {
    use super::{Range, Registers, Unframed};

    /// # Safety
    ///
    /// `context` must be the one that the kernel passed to a running signal handler.
    #[inline]
    pub(in super::super) unsafe fn interrupted(context: *const libc::ucontext_t) -> Registers {
        // SAFETY: according to the caller, the kernel filled it.
        let registers = unsafe { &(*context).uc_mcontext.gregs };
        Registers {
            ip: registers[libc::REG_RIP as usize] as usize,
            fp: registers[libc::REG_RBP as usize] as usize,
            sp: registers[libc::REG_RSP as usize] as usize,
            lr: 0,
        }
    }

    #[inline]
    pub(in super::super) fn cycles() -> u64 {
        // SAFETY: every x86-64 processor has the instruction, and Linux lets user programs execute it.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    /// A code address without anything that the processor adds to it.
    #[inline]
    pub(in super::super) fn plain_address(address: usize) -> usize {
        address
    }

    /// The frame and stack pointers of the calling function.
    #[inline(always)]
    pub(in super::super) fn own_frame() -> (usize, usize) {
        let (fp, sp): (usize, usize);
        // SAFETY: copies two registers.
        unsafe {
            core::arch::asm!("mov {}, rbp", "mov {}, rsp", out(reg) fp, out(reg) sp,
                options(nomem, nostack, preserves_flags));
        }
        (fp, sp)
    }

    /// # Safety
    ///
    /// `address` must be in a readable mapping of code.
    #[inline]
    unsafe fn byte(address: usize) -> u8 {
        // SAFETY: according to the caller it is readable; any bit pattern is a byte.
        unsafe { (address as *const u8).read_volatile() }
    }

    /// Whether the instruction before `address` looks like a call.
    ///
    /// # Safety
    ///
    /// `text` must be a readable mapping of code.
    #[inline]
    pub(in super::super) unsafe fn is_return_address(address: usize, text: Range) -> bool {
        if !text.contains(address) || address - text.low < 7 {
            return false;
        }
        // SAFETY: the seven bytes before an address at least seven above the start of `text` are in it.
        unsafe {
            if byte(address - 5) == 0xE8 {
                return true;
            }
            // Indirect calls are FF /2, two to seven bytes long with their operand.
            (2..=7).any(|length| {
                byte(address - length) == 0xFF
                    && call_length(byte(address - length + 1), || byte(address - length + 2)) == Some(length)
            })
        }
    }

    /// Length of an indirect call, from its operand's first byte (Intel SDM volume 2, table 2-2); `None` if it is not a
    /// call.
    #[inline]
    fn call_length(operand: u8, scale: impl Fn() -> u8) -> Option<usize> {
        if (operand >> 3) & 7 != 2 {
            return None;
        }
        let with_scale = operand & 7 == 4;
        Some(match operand >> 6 {
            0 if operand & 7 == 5 => 6,
            0 if with_scale && scale() & 7 == 5 => 7,
            0 => 2 + usize::from(with_scale),
            1 => 3 + usize::from(with_scale),
            2 => 6 + usize::from(with_scale),
            _ => 2,
        })
    }

    /// Whether the function interrupted at `ip` has no frame of its own at that moment: before `push rbp`, between it
    /// and `mov rbp, rsp`, or after `pop rbp`, at `ret` or a jump to another function.
    ///
    /// # Safety
    ///
    /// `text` must be a readable mapping of code that contains `ip`.
    #[inline]
    pub(in super::super) unsafe fn unframed(ip: usize, text: Range) -> Option<Unframed> {
        if text.high - ip < 3 || ip == text.low {
            return None;
        }
        // SAFETY: the bytes from one before `ip` to two after it are in `text`, as just checked.
        let (previous, bytes) = unsafe { (byte(ip - 1), [byte(ip), byte(ip + 1), byte(ip + 2)]) };
        match bytes {
            [0x55, 0x48, 0x89] | [0xC3, ..] => Some(Unframed::OnStack(0)),
            [0x48, 0x89, 0xE5] if previous == 0x55 => Some(Unframed::OnStack(8)),
            // `jmp` near, short, through memory, through a register.
            [0xE9 | 0xEB, ..] | [0xFF, 0x25, _] | [0xFF, 0xE0..=0xE7, _] | [0x41, 0xFF, 0xE0..=0xE7]
                if previous == 0x5D =>
            {
                Some(Unframed::OnStack(0))
            }
            _ => None,
        }
    }

    /// Whether the function interrupted at `ip` was called just before `address` and has not set up its frame yet: the
    /// compiler may move a fast path there, as in Rust's allocator shims.
    ///
    /// # Safety
    ///
    /// `text` must be a readable mapping of code that contains `ip`, and `address` one of its return addresses.
    #[inline]
    pub(in super::super) unsafe fn is_before_frame(ip: usize, address: usize, text: Range) -> bool {
        const LONGEST_FAST_PATH: usize = 96;
        const MOST_JUMPS: usize = 3;
        const PROLOGUE: [u8; 4] = [0x55, 0x48, 0x89, 0xE5];
        // SAFETY: a return address is at least seven bytes above the start of `text`.
        if unsafe { byte(address - 5) } != 0xE8 {
            return false;
        }
        // SAFETY: as above.
        let mut start = unsafe { target(address) };
        for _ in 0..=MOST_JUMPS {
            if !text.contains(start) || text.high - start < 16 {
                return false;
            }
            // A function that only jumps on to another, with a frame set up and taken down or without.
            // SAFETY: at least 16 bytes follow `start` in `text`.
            let jump = unsafe {
                if byte(start) == 0xE9 {
                    Some(start + 5)
                } else if starts_with(start, PROLOGUE) && byte(start + 4) == 0x5D && byte(start + 5) == 0xE9 {
                    Some(start + 10)
                } else {
                    None
                }
            };
            if let Some(end) = jump {
                // SAFETY: the jump is within those 16 bytes.
                start = unsafe { target(end) };
                continue;
            }
            if ip < start || ip - start >= LONGEST_FAST_PATH || text.high - ip < 4 {
                return false;
            }
            // SAFETY: the four bytes at each place up to `ip` are in `text`.
            return !(start..ip).any(|place| unsafe { starts_with(place, PROLOGUE) });
        }
        false
    }

    /// # Safety
    ///
    /// The four bytes at `place` must be in a readable mapping of code.
    #[inline]
    unsafe fn starts_with(place: usize, bytes: [u8; 4]) -> bool {
        // SAFETY: guaranteed by the caller.
        (0..4).all(|index| unsafe { byte(place + index) } == bytes[index])
    }

    /// The target of a relative call or jump that ends at `end`.
    ///
    /// # Safety
    ///
    /// The four bytes before `end` must be in a readable mapping of code.
    #[inline]
    unsafe fn target(end: usize) -> usize {
        // SAFETY: guaranteed by the caller.
        let offset = i32::from_le_bytes(unsafe { [byte(end - 4), byte(end - 3), byte(end - 2), byte(end - 1)] });
        end.wrapping_add_signed(offset as isize)
    }
}

#[cfg(target_arch = "aarch64")]
mod imp {
    use super::{Range, Registers, Unframed};

    /// # Safety
    ///
    /// `context` must be the one that the kernel passed to a running signal handler.
    #[inline]
    pub(in super::super) unsafe fn interrupted(context: *const libc::ucontext_t) -> Registers {
        // SAFETY: according to the caller, the kernel filled it.
        let machine = unsafe { &(*context).uc_mcontext };
        Registers {
            ip: machine.pc as usize,
            fp: machine.regs[29] as usize,
            sp: machine.sp as usize,
            lr: plain_address(machine.regs[30] as usize),
        }
    }

    #[inline]
    pub(in super::super) fn cycles() -> u64 {
        let count: u64;
        // SAFETY: reads the virtual counter, which Linux lets user programs read.
        unsafe { core::arch::asm!("mrs {}, cntvct_el0", out(reg) count, options(nomem, nostack)) };
        count
    }

    /// A code address without its pointer-authentication bits, which are above the 48 bits of user addresses.
    #[inline]
    pub(in super::super) fn plain_address(address: usize) -> usize {
        address & 0x0000_FFFF_FFFF_FFFF
    }

    /// The frame and stack pointers of the calling function.
    #[inline(always)]
    pub(in super::super) fn own_frame() -> (usize, usize) {
        let (fp, sp): (usize, usize);
        // SAFETY: copies two registers.
        unsafe {
            core::arch::asm!("mov {}, x29", "mov {}, sp", out(reg) fp, out(reg) sp,
                options(nomem, nostack, preserves_flags));
        }
        (fp, sp)
    }

    /// # Safety
    ///
    /// `address` must be aligned to 4 and in a readable mapping of code.
    #[inline]
    unsafe fn instruction(address: usize) -> u32 {
        // SAFETY: according to the caller it is readable and aligned; any bit pattern is a number.
        unsafe { (address as *const u32).read_volatile() }
    }

    /// Whether the instruction before `address` is a call: BL or BLR (also with authentication).
    ///
    /// # Safety
    ///
    /// `text` must be a readable mapping of code.
    #[inline]
    pub(in super::super) unsafe fn is_return_address(address: usize, text: Range) -> bool {
        if !address.is_multiple_of(4) || !text.contains(address) || address - text.low < 4 {
            return false;
        }
        // SAFETY: the four bytes before an address at least four above the start of `text` are in it.
        let call = unsafe { instruction(address - 4) };
        call & 0xFC00_0000 == 0x9400_0000 || call & 0xFEFF_F000 == 0xD63F_0000
    }

    /// Whether the function interrupted at `ip` has no frame of its own at that moment: before
    /// `stp x29, x30, [sp, #-n]!` or at `ret`.
    ///
    /// # Safety
    ///
    /// `text` must be a readable mapping of code that contains `ip`.
    #[inline]
    pub(in super::super) unsafe fn unframed(ip: usize, text: Range) -> Option<Unframed> {
        if !ip.is_multiple_of(4) || text.high - ip < 4 {
            return None;
        }
        // SAFETY: the four bytes at `ip` are in `text`, as just checked.
        let next = unsafe { instruction(ip) };
        let is_prologue = next & 0xFFC0_7FFF == 0xA980_7BFD;
        let is_return = next == 0xD65F_03C0;
        (is_prologue || is_return).then_some(Unframed::InLinkRegister)
    }

    /// Not recognised on this processor.
    ///
    /// # Safety
    ///
    /// Nothing is required here; the signature is that of the other processor.
    #[inline]
    pub(in super::super) unsafe fn is_before_frame(_ip: usize, _address: usize, _text: Range) -> bool {
        false
    }
}

pub(super) use imp::{cycles, interrupted, is_before_frame, is_return_address, own_frame, plain_address, unframed};

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// `call` at 16 to a function at 48 that jumps on to 80, which has a fast path before its frame at 90.
    fn program() -> Vec<u8> {
        let mut code = vec![0xCC; 160];
        let mut put = |at: usize, bytes: &[u8]| code[at..at + bytes.len()].copy_from_slice(bytes);
        put(16, &[0xE8, 27, 0, 0, 0]);
        put(48, &[0x55, 0x48, 0x89, 0xE5, 0x5D, 0xE9, 22, 0, 0, 0]);
        put(80, &[0x48, 0x89, 0xFA, 0x48, 0x83, 0xFE, 0x11, 0x90, 0x90, 0x90]);
        put(90, &[0x55, 0x48, 0x89, 0xE5, 0x90, 0x5D, 0xC3]);
        put(110, &[0xFF, 0x15, 0, 0, 0, 0]);
        put(120, &[0x41, 0xFF, 0xD6]);
        code
    }

    fn range(code: &[u8]) -> Range {
        let low = code.as_ptr() as usize;
        Range {
            low,
            high: low + code.len(),
        }
    }

    #[test]
    fn return_addresses_follow_calls() {
        let code = program();
        let text = range(&code);
        // SAFETY: the text is a live slice.
        let found: Vec<usize> = (0..code.len())
            .filter(|at| unsafe { is_return_address(text.low + at, text) })
            .collect();
        assert_eq!(found, [21, 116, 123]);
        // SAFETY: as above.
        assert!(!unsafe { is_return_address(text.high + 21, text) });
    }

    #[test]
    fn a_function_without_its_frame_is_recognised() {
        let code = program();
        let text = range(&code);
        // SAFETY: the text is a live slice.
        let at = |place: usize| unsafe { unframed(text.low + place, text) };
        assert_eq!(at(90), Some(Unframed::OnStack(0)), "before push rbp");
        assert_eq!(at(91), Some(Unframed::OnStack(8)), "before mov rbp, rsp");
        assert_eq!(at(94), None, "inside");
        assert_eq!(at(96), Some(Unframed::OnStack(0)), "at ret");
        assert_eq!(at(53), Some(Unframed::OnStack(0)), "at a jump after pop rbp");
        assert_eq!(at(159), None, "at the end of the text");
    }

    #[test]
    fn a_fast_path_before_the_frame_is_recognised_by_the_call_that_led_there() {
        let code = program();
        let text = range(&code);
        let caller = text.low + 21;
        // SAFETY: the text is a live slice, and the caller's address a return address in it.
        let at = |place: usize, address: usize| unsafe { is_before_frame(text.low + place, address, text) };
        assert!(at(80, caller) && at(87, caller));
        assert!(!at(95, caller), "the frame is set up");
        assert!(!at(20, caller), "not in the function that was called");
        assert!(!at(87, text.low + 123), "an indirect call tells nothing");
    }
}
