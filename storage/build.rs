//! Places `libduckdb.so` where the run path of every binary looks for it, and fails with one plain line when
//! the library has not been fetched. With the feature `bundled` there is no library to place.

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

const LIBRARY: &str = "libduckdb.so";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DUCKDB_LIB_DIR");
    if env::var_os("CARGO_FEATURE_BUNDLED").is_some() {
        return;
    }
    let library = library_path();
    println!("cargo::rerun-if-changed={}", library.display());
    if !library.is_file() {
        println!("cargo::error=libduckdb.so is missing: run `make setup`");
        return;
    }
    let Some(binaries) = binaries_dir() else {
        println!("cargo::warning=cannot find the directory of the binaries to copy {LIBRARY} to");
        return;
    };
    // Tests and benches lie in folders of their own; what ships looks beside itself alone.
    let placed = place(&library, &binaries.join(LIBRARY))
        .and_then(|()| link_in(&binaries.join("deps")))
        .and_then(|()| link_in(&binaries.join("examples")));
    if let Err(error) = placed {
        println!(
            "cargo::error=cannot copy {} to {}: {error}",
            library.display(),
            binaries.display()
        );
    }
}

/// Makes the library of the folder above found in this one.
fn link_in(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    match symlink(Path::new("..").join(LIBRARY), folder.join(LIBRARY)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Where the prebuilt library lies: `.cargo/config.toml` says so, and this crate's parent is the fallback.
fn library_path() -> PathBuf {
    match env::var_os("DUCKDB_LIB_DIR") {
        Some(dir) => PathBuf::from(dir).join(LIBRARY),
        None => PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default())
            .join("../third_party/duckdb")
            .join(LIBRARY),
    }
}

/// `target/<profile>`: three folders above `target/<profile>/build/<crate>/out`.
fn binaries_dir() -> Option<PathBuf> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR")?);
    out_dir.ancestors().nth(3).map(Path::to_path_buf)
}

/// Copies when size or time differ. The rename makes the change atomic for programs that are starting meanwhile.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    let source = fs::metadata(from)?;
    if let Ok(present) = fs::metadata(to)
        && present.len() == source.len()
        && present.modified()? >= source.modified()?
    {
        return Ok(());
    }
    let temporary = to.with_extension(format!("so.{}.tmp", std::process::id()));
    fs::copy(from, &temporary)?;
    fs::rename(&temporary, to)
}
