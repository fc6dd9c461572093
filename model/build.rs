//! Generates the wire types from `proto/` at build time, without `protoc` and without network.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "emberline/v1/batch.proto",
        "emberline/v1/debuginfo.proto",
        "parca/profilestore/v1alpha1/profilestore.proto",
        "perftools/profiles/profile.proto",
        "push/v1/push.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
