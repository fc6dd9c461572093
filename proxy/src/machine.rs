//! What this machine allows a process: the memory of its cgroup and its file descriptors. Every limit on connections
//! and on bytes held for strangers is derived from these two, in the proxy and in the server.
//!
//! Guarantees: reads and, for descriptors, raises a soft limit within the hard one; never fails, since a process that
//! cannot determine its limits still has to run.
//!
//! Source: `Documentation/admin-guide/cgroup-v2.rst` (`memory.max`) and `cgroup-v1/memory.rst`
//! (`memory.limit_in_bytes`) of Linux; `setrlimit(2)`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Version 1 writes "no limit" as the largest multiple of a page; anything beyond 1 PiB means the same.
const NO_LIMIT: u64 = 1 << 50;

/// The lowest memory limit, in bytes, of this process's cgroup and its ancestors; `None` if there is none.
pub fn memory_limit_bytes() -> Option<u64> {
    let of_process = fs::read_to_string("/proc/self/cgroup").ok()?;
    memory_limit_in(Path::new("/sys/fs/cgroup"), &of_process)
}

/// `of_process` is the text of `/proc/self/cgroup`: lines of `number:controllers:path`.
fn memory_limit_in(mount: &Path, of_process: &str) -> Option<u64> {
    let limits = of_process.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (root, file) = if controllers.is_empty() {
            (mount.to_owned(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (mount.join("memory"), "memory.limit_in_bytes")
        } else {
            return None;
        };
        // In a container the mount shows the container's own group as its root, and the path may be outside of it.
        least_upwards(&root, path.trim_start_matches('/'), file)
    });
    limits.min()
}

/// The lowest limit of a group and its ancestors.
fn least_upwards(root: &Path, path: &str, file: &str) -> Option<u64> {
    let inside: Vec<PathBuf> = Path::new(path).ancestors().map(|folder| root.join(folder)).collect();
    let limits = inside.iter().filter_map(|folder| {
        let text = fs::read_to_string(folder.join(file)).ok()?;
        text.trim().parse::<u64>().ok().filter(|limit| *limit < NO_LIMIT)
    });
    limits.min()
}

/// Raises the file descriptor limit of this process to its hard limit and returns it.
pub fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Nothing here scales beyond this, and some systems report limits that no kernel table could hold.
    let wanted = limit.maximum.unwrap_or(1 << 20).min(1 << 20);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        // Refused only if a sandbox forbids the call; then the soft limit applies.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    getrlimit(Resource::Nofile).current.unwrap_or(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let mount = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = mount.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        mount
    }

    #[test]
    fn the_least_limit_of_a_group_and_those_above_it_counts() {
        let mount = group(&[
            ("system.slice/memory.max", "268435456\n"),
            ("system.slice/proxy.service/memory.max", "max\n"),
        ]);
        let limit = memory_limit_in(mount.path(), "0::/system.slice/proxy.service\n");
        assert_eq!(limit, Some(256 << 20));
    }

    #[test]
    fn version_1_has_a_limit_of_its_own_file_and_a_large_number_for_none() {
        let mount = group(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/a/memory.limit_in_bytes", "67108864\n"),
        ]);
        let of_process = |path: &str| format!("5:cpu,cpuacct:/b\n3:memory:{path}\n1:name=systemd:/c\n");
        assert_eq!(memory_limit_in(mount.path(), &of_process("/a")), Some(64 << 20));
        assert_eq!(memory_limit_in(mount.path(), &of_process("/")), None);
    }

    #[test]
    fn a_path_outside_of_the_mount_falls_back_to_what_the_mount_shows() {
        let mount = group(&[("memory.max", "536870912\n")]);
        assert_eq!(memory_limit_in(mount.path(), "0::/../not/here\n"), Some(512 << 20));
        assert_eq!(memory_limit_in(mount.path(), ""), None);
    }

    #[test]
    fn raising_descriptors_never_lowers_them() {
        let before = getrlimit(Resource::Nofile).current.unwrap_or(0);
        assert!(raise_descriptors() >= before.min(1 << 20));
    }
}
