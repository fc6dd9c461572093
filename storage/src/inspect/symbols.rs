//! Names of builds in a store inspected from outside: lists them, and forgets one.
//!
//! Guarantees: [`list`] changes nothing; [`forget`] is refused while another process has the folder open, and removes
//! only names: no stored row changes, and the locations of the build are looked up again when its file is available.

use std::path::Path;

use emberline_model::Mapping;
use serde::Serialize;

use super::{Layout, is_half_written};
use crate::{
    disk::Disk,
    error::OpenError,
    lock::DirLock,
    symbols::{check, path_of, remove},
};

/// Names of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NamedBuild {
    /// Its build id; for a file without one, the hash that names its symbol file.
    pub build: String,
    /// Size of its names in bytes.
    pub bytes: u64,
    /// Locations that were looked up.
    pub locations: u64,
}

/// Lists the builds that have names, by build id.
pub fn list(data_dir: &Path, disk: &dyn Disk) -> Result<Vec<NamedBuild>, OpenError> {
    let layout = Layout::read(disk, data_dir)?;
    let mut builds = Vec::new();
    for (path, bytes) in layout.symbols.iter().filter(|(path, _)| !is_half_written(path)) {
        // A file that disappears while it is looked at counts as gone.
        let Ok(content) = disk.read(path) else { continue };
        builds.push(NamedBuild {
            build: path
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
                .unwrap_or_default(),
            bytes: *bytes,
            locations: check(&content).locations,
        });
    }
    builds.sort_by(|a, b| a.build.cmp(&b.build));
    Ok(builds)
}

/// Forgets the names of a build; true if there were any. `also` runs while no other process can open the store.
pub fn forget<T>(
    data_dir: &Path,
    disk: &dyn Disk,
    build: &str,
    also: impl FnOnce() -> T,
) -> Result<(bool, T), OpenError> {
    Layout::read(disk, data_dir)?;
    let _not_open = DirLock::take_unchanged(data_dir)?;
    let mapping = Mapping {
        build_id: build.to_owned(),
        path: String::new(),
    };
    let path = path_of(&data_dir.join("symbols"), &mapping.key());
    let forgotten = remove(disk, &path).map_err(|source| OpenError::NotWritable { path, source })?;
    Ok((forgotten, also()))
}
