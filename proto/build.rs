//! Compiles the schemas without any system tool: protox parses, tonic-prost-build generates.

use prost::Message as _;

const FILES: [&str; 8] = [
    "quorate/internal/v1/ports.proto",
    "quorate/peer/v1/hello.proto",
    "quorate/peer/v1/election.proto",
    "quorate/peer/v1/quorum.proto",
    "quorate/state/v1/state.proto",
    "quorate/v1/cluster.proto",
    "quorate/v1/coordination.proto",
    "quorate/v1/node.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    // Served by gRPC reflection.
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // The listener bounds these methods otherwise than those that take one message.
    let streamed: Vec<String> = descriptors
        .file
        .iter()
        .flat_map(|file| file.service.iter().map(move |service| (file.package(), service)))
        .flat_map(|(package, service)| {
            let streamed = service.method.iter().filter(|method| method.client_streaming());
            streamed.map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
        })
        .collect();
    std::fs::write(out.join("streamed.rs"), format!("&{streamed:?}"))?;
    // `bytes` everywhere: values are shared from socket to log to tree, not copied.
    tonic_prost_build::configure().bytes(".").codec_path("crate::codec::Codec").compile_fds(descriptors)?;
    Ok(())
}
