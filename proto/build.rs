//! Compiles the schemas without any system tool: protox parses, tonic-prost-build generates.

use prost::Message as _;

const FILES: [&str; 7] = [
    "quorate/internal/v1/ports.proto",
    "quorate/peer/v1/hello.proto",
    "quorate/peer/v1/election.proto",
    "quorate/peer/v1/quorum.proto",
    "quorate/state/v1/state.proto",
    "quorate/v1/coordination.proto",
    "quorate/v1/node.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    // Served by gRPC reflection.
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // `bytes` everywhere: values are shared from socket to log to tree, not copied.
    tonic_prost_build::configure().bytes(".").codec_path("crate::codec::Codec").compile_fds(descriptors)?;
    Ok(())
}
