//! Memory that the system takes care of: a process in a memory cgroup is ended when it needs more than its limit.
//!
//! Works where the tests may make cgroups (as root, of either version); elsewhere there is none, and what a process held
//! at most (`VmHWM`) has to be compared instead.
//!
//! Wrong on purpose: pages of files count until the kernel drops them, so use near the limit says little; being alive does.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// A cgroup with a limit of memory; removed when dropped, after its processes.
#[derive(Debug)]
pub struct MemoryCgroup {
    folder: PathBuf,
}

impl MemoryCgroup {
    /// A new one that holds this many bytes; nothing where the system gives this process none.
    pub fn new(limit_bytes: u64) -> Option<MemoryCgroup> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("emberline-test-{}-{number}", std::process::id());
        let places = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        places.iter().find_map(|(place, limit)| {
            let folder = Path::new(place).join(&name);
            make(&folder, limit, limit_bytes).ok()?;
            Some(MemoryCgroup { folder })
        })
    }

    /// The file to which a process writes its number to join.
    pub fn joining(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }
}

fn make(folder: &Path, limit: &str, limit_bytes: u64) -> io::Result<()> {
    fs::create_dir(folder)?;
    // Where memory is not among the group's controllers, its limit does not exist and cannot be created.
    let limited = fs::OpenOptions::new()
        .write(true)
        .open(folder.join(limit))
        .and_then(|mut file| io::Write::write_all(&mut file, limit_bytes.to_string().as_bytes()));
    if limited.is_err() {
        let _ = fs::remove_dir(folder);
    }
    limited
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // Fails while a process is in it; then it stays, empty, until the machine restarts.
        let _ = fs::remove_dir(&self.folder);
    }
}
