//! Chooses the folder of the user interface that is embedded: `UI_DIST_DIR`, else `ui/dist`, else a generated page
//! that says how to build it. It never runs npm: a build of the server needs no network and no node.
//!
//! Generates the types of the Pyroscope query API from `proto/`, with their JSON form, without `protoc`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/ui_placeholder.html");
    println!("cargo::rerun-if-env-changed=UI_DIST_DIR");
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let folder = match env::var_os("UI_DIST_DIR").filter(|dir| !dir.is_empty()) {
        Some(given) => {
            let given = here.join(given);
            println!("cargo::rerun-if-changed={}", given.display());
            if !given.join("index.html").is_file() {
                println!(
                    "cargo::error=UI_DIST_DIR={} contains no index.html: build the UI or unset it",
                    given.display()
                );
            }
            given
        }
        None => built_or_placeholder(&here, &out),
    };
    println!("cargo::rustc-env=EMBERLINE_UI_FOLDER={}", folder.display());
    generate_protos(&here);
}

fn generate_protos(here: &Path) {
    let folders = [here.join("proto"), here.join("../model/proto")];
    for folder in &folders {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    let descriptors = protox::compile(["querier/v1/querier.proto"], folders).expect("the files in proto/ are valid");
    let mut json = pbjson_build::Builder::new();
    for file in &descriptors.file {
        json.register_file_descriptor(file.clone());
    }
    // What newer clients add is not known here and must not stop them.
    json.ignore_unknown_fields();
    json.build(&[".querier.v1", ".perftools.profiles"])
        .expect("the files in proto/ have a JSON form");
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .compile_fds(descriptors)
        .expect("the files in proto/ make Rust types");
}

fn built_or_placeholder(here: &Path, out: &Path) -> PathBuf {
    let dist = here.join("ui/dist");
    // Cargo runs a build script again each time when a watched path is missing, and with it the whole crate. So the
    // (ignored) folder is made, and filling it later is noticed. Where the sources are read-only nothing is lost.
    if here.join("ui").is_dir() {
        let _ = fs::create_dir(&dist);
    }
    if dist.is_dir() {
        println!("cargo::rerun-if-changed={}", dist.display());
    }
    if dist.join("index.html").is_file() {
        return dist;
    }
    let placeholder = out.join("ui-placeholder");
    fs::create_dir_all(&placeholder).expect("OUT_DIR is writable");
    fs::copy(here.join("src/ui_placeholder.html"), placeholder.join("index.html")).expect("OUT_DIR is writable");
    placeholder
}
