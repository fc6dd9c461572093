//! The loaded executables and libraries, as listed by the dynamic loader, and their build ids.
//!
//! Guarantee: memory of a module is read only while the loader's own lock keeps it loaded; loading and unloading of a
//! library is noticed at the next refresh. Wrong on purpose: an address sampled in a library that was unloaded before
//! the next drain (at most half a second) is unknown, or, if another library took its place, attributed to that one.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::arch::Range;
use super::walk::Program;
use crate::window::{Frame, Module};

/// The type of a GNU build id note (elf.h).
const NT_GNU_BUILD_ID: u32 = 3;
/// Anything longer is not a build id.
const LONGEST_BUILD_ID: usize = 64;

/// A loaded range of code.
struct Segment {
    start: u64,
    end: u64,
    file_offset: u64,
    module: usize,
}

struct Loaded {
    module: Module,
    /// Index in the open window's list.
    in_window: Option<u32>,
}

/// The modules of the process, and those to which the open window refers.
#[derive(Default)]
pub(super) struct ModuleTable {
    segments: Vec<Segment>,
    loaded: Vec<Loaded>,
    /// The loader's lifetime counts of libraries loaded and unloaded.
    generation: Option<(u64, u64)>,
    window: Vec<Module>,
}

impl ModuleTable {
    /// Checks for loaded and unloaded libraries; returns whether anything changed.
    pub(super) fn refresh(&mut self) -> bool {
        let now = generation();
        if self.generation == Some(now) {
            return false;
        }
        self.generation = Some(now);
        self.segments.clear();
        self.loaded.clear();
        for image in images() {
            let module = self.loaded.len();
            for segment in &image.code {
                self.segments.push(Segment {
                    start: segment.start,
                    end: segment.start + segment.length,
                    file_offset: segment.file_offset,
                    module,
                });
            }
            let in_window = self
                .window
                .iter()
                .position(|known| *known == image.module)
                .and_then(|index| u32::try_from(index).ok());
            self.loaded.push(Loaded {
                module: image.module,
                in_window,
            });
        }
        self.segments.sort_by_key(|segment| segment.start);
        true
    }

    /// The frame at `address`, which is inside an instruction.
    pub(super) fn frame(&mut self, address: u64) -> Frame {
        let unknown = Frame {
            module: Frame::NO_MODULE,
            offset: address,
        };
        let after = self.segments.partition_point(|segment| segment.start <= address);
        let Some(segment) = after.checked_sub(1).and_then(|index| self.segments.get(index)) else {
            return unknown;
        };
        if address >= segment.end {
            return unknown;
        }
        let Some(loaded) = self.loaded.get_mut(segment.module) else {
            return unknown;
        };
        let module = *loaded.in_window.get_or_insert_with(|| {
            self.window.push(loaded.module.clone());
            (self.window.len() - 1) as u32
        });
        Frame {
            module,
            offset: address - segment.start + segment.file_offset,
        }
    }

    /// The modules that frames have referred to since the last call.
    pub(super) fn take_window(&mut self) -> Vec<Module> {
        for loaded in &mut self.loaded {
            loaded.in_window = None;
        }
        std::mem::take(&mut self.window)
    }
}

/// The `getauxval` key of the vDSO's address (linux/auxvec.h).
const AT_SYSINFO_EHDR: libc::c_ulong = 33;

/// The code that keeps frame pointers: the segment around `address`, and the vDSO.
pub(super) fn program_around(address: usize) -> Program {
    // On x86-64 the kernel builds the vDSO with frame pointers; elsewhere its functions mostly have no frame.
    let vdso = if cfg!(target_arch = "x86_64") {
        // SAFETY: only reads a value.
        unsafe { libc::getauxval(AT_SYSINFO_EHDR) }
    } else {
        0
    };
    Program {
        text: code_around(address),
        vdso: code_around(vdso as usize),
    }
}

/// The readable code around `address`; empty if the loader does not know it.
fn code_around(address: usize) -> Range {
    images()
        .into_iter()
        .flat_map(|image| image.code)
        .filter(|code| code.readable)
        .map(|code| Range {
            low: code.start as usize,
            high: (code.start + code.length) as usize,
        })
        .find(|range| range.contains(address))
        .unwrap_or(Range::EMPTY)
}

struct Code {
    start: u64,
    length: u64,
    file_offset: u64,
    readable: bool,
}

struct Image {
    module: Module,
    code: Vec<Code>,
}

fn images() -> Vec<Image> {
    let mut images: Vec<Image> = Vec::new();
    // SAFETY: the callback receives the address of the vector, and runs only during this call.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut images).cast()) };
    images
}

fn generation() -> (u64, u64) {
    let mut generation = (0_u64, 0_u64);
    // SAFETY: the callback receives the address of the pair, and runs only during this call.
    unsafe { libc::dl_iterate_phdr(Some(read_generation), (&raw mut generation).cast()) };
    generation
}

unsafe extern "C" fn read_generation(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    generation: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader passes a valid entry; the pointer is the one that `generation()` passed.
    unsafe { *generation.cast::<(u64, u64)>() = ((*info).dlpi_adds, (*info).dlpi_subs) };
    // The counts are the same in every entry.
    1
}

unsafe extern "C" fn collect(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    images: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader passes a valid entry.
    let info = unsafe { &*info };
    // SAFETY: the pointer is the one that `images()` passed, and nothing else uses the vector meanwhile.
    let images = unsafe { &mut *images.cast::<Vec<Image>>() };
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the loader states the number of program headers, and keeps them loaded during the callback.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let loads = || headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let lowest = loads().map(|load| load.p_vaddr).min().unwrap_or(0);
    let highest = loads().map(|load| load.p_vaddr + load.p_memsz).max().unwrap_or(0);
    let code = loads()
        .filter(|load| load.p_flags & libc::PF_X != 0)
        .map(|load| Code {
            start: info.dlpi_addr + load.p_vaddr,
            length: load.p_memsz,
            file_offset: load.p_offset,
            readable: load.p_flags & libc::PF_R != 0,
        })
        .collect();
    let build_id = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_NOTE)
        .filter(|note| {
            loads().any(|load| {
                load.p_flags & libc::PF_R != 0
                    && load.p_vaddr <= note.p_vaddr
                    && note.p_vaddr + note.p_memsz <= load.p_vaddr + load.p_memsz
            })
        })
        .find_map(|note| {
            let start = (info.dlpi_addr + note.p_vaddr) as *const u8;
            // SAFETY: the note is in a readable loaded segment, as just checked, which stays loaded during the
            // callback.
            let bytes = unsafe { std::slice::from_raw_parts(start, note.p_memsz as usize) };
            build_id(bytes, note.p_align as usize)
        })
        .unwrap_or_default();
    images.push(Image {
        module: Module {
            path: path_of(info),
            build_id,
            size: highest - lowest,
        },
        code,
    });
    0
}

fn path_of(info: &libc::dl_phdr_info) -> PathBuf {
    let name = if info.dlpi_name.is_null() {
        &[][..]
    } else {
        // SAFETY: the loader passes a string that ends with a zero byte and lives during the callback.
        unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes()
    };
    if !name.is_empty() {
        return PathBuf::from(OsStr::from_bytes(name));
    }
    // The executable itself has no name. The kernel marks it if the file was replaced meanwhile, as in an upgrade.
    let mut path = std::fs::read_link("/proc/self/exe")
        .unwrap_or_default()
        .into_os_string()
        .into_vec();
    if path.ends_with(b" (deleted)") {
        path.truncate(path.len() - b" (deleted)".len());
    }
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

/// Finds the GNU build id in the notes of an ELF segment (gABI, "Note Section"), in lower-case hexadecimal.
fn build_id(mut notes: &[u8], alignment: usize) -> Option<String> {
    let alignment = if alignment == 8 { 8 } else { 4 };
    let number =
        |bytes: &[u8], at: usize| -> Option<u32> { Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
    loop {
        let name_length = number(notes, 0)? as usize;
        let length = number(notes, 4)? as usize;
        let kind = number(notes, 8)?;
        let name = notes.get(12..12_usize.checked_add(name_length)?)?;
        let start = (12 + name_length).checked_next_multiple_of(alignment)?;
        let end = start.checked_add(length)?;
        let content = notes.get(start..end)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" && (1..=LONGEST_BUILD_ID).contains(&length) {
            return Some(content.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = notes.get(end.checked_next_multiple_of(alignment)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn note(kind: u32, name: &[u8], content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((name.len() as u32).to_ne_bytes());
        bytes.extend((content.len() as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        for part in [name, content] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn the_build_id_is_found_behind_other_notes() {
        let mut notes = note(1, b"GNU\0", &[1, 2, 3]);
        notes.extend(note(3, b"Go\0\0", b"abc"));
        notes.extend(note(3, b"GNU\0", &[0xAB, 0x01, 0xFF]));
        assert_eq!(build_id(&notes, 4).as_deref(), Some("ab01ff"));
        assert_eq!(build_id(&notes[..notes.len() - 8], 4), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), alignment in 0_usize..16) {
            let _ = build_id(&bytes, alignment);
        }
    }

    #[test]
    fn an_address_of_this_program_has_its_file_offset_and_build_id() {
        let mut table = ModuleTable::default();
        assert!(table.refresh());
        assert!(!table.refresh(), "nothing was loaded meanwhile");
        let address = build_id as *const () as u64;
        let frame = table.frame(address);
        let modules = table.take_window();
        let module = &modules[frame.module as usize];
        assert_eq!(module.path, std::env::current_exe().unwrap());
        assert!(module.build_id.len() >= 16, "{module:?}");
        // The function's bytes are at that offset of the file.
        let file = std::fs::read(&module.path).unwrap();
        // SAFETY: the function is longer than 16 bytes, and code is readable.
        let code = unsafe { std::slice::from_raw_parts(address as *const u8, 16) };
        assert_eq!(&file[frame.offset as usize..][..16], code);
        assert_eq!(table.frame(1).module, Frame::NO_MODULE);
    }
}
