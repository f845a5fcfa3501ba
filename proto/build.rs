//! Compiles the schemas without any system tool: protox parses, tonic-prost-build generates.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prost::Message as _;
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

const FILES: [&str; 16] = [
    "quorate/internal/v1/ports.proto",
    "quorate/internal/v1/store.proto",
    "quorate/peer/v1/hello.proto",
    "quorate/peer/v1/election.proto",
    "quorate/peer/v1/quorum.proto",
    "quorate/state/v1/state.proto",
    "quorate/v1/access.proto",
    "quorate/v1/cluster.proto",
    "quorate/v1/coordination.proto",
    "quorate/v1/error.proto",
    "quorate/v1/node.proto",
    "quorate/v1/notice.proto",
    "quorate/v1/quota.proto",
    "quorate/v1/session.proto",
    "quorate/v1/watch.proto",
    "quorate/v1/znode.proto",
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
    std::fs::write(out.join("shapes.rs"), shapes(&descriptors))?;
    // `bytes` everywhere: values are shared from socket to log to tree, not copied.
    tonic_prost_build::configure()
        .bytes(".")
        // `client/who.rs` has the form that does not show a secret, `client/items.rs` that of a token.
        .skip_debug([".quorate.v1.Credential", ".quorate.v1.UserPassword", ".quorate.v1.SessionRef"])
        .codec_path("crate::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}

/// Of each message that a client sends: which of its fields repeat, and which are messages; for `codec.rs`.
fn shapes(descriptors: &FileDescriptorSet) -> String {
    let public: Vec<_> = descriptors.file.iter().filter(|file| file.package() == "quorate.v1").collect();
    let messages: BTreeMap<String, &DescriptorProto> = (public.iter().flat_map(|file| &file.message_type))
        .map(|message| (format!(".quorate.v1.{}", message.name()), message))
        .collect();
    let index = |name: &str| messages.keys().position(|known| known == name);
    let mut text = String::from("const SHAPES: &[&[Field]] = &[\n");
    for message in messages.values() {
        let fields = message.field.iter().filter_map(|field| {
            let repeated = match (field.label(), field.r#type()) {
                (Label::Repeated, Type::Message | Type::String | Type::Bytes) => "Repeated::Whole",
                (Label::Repeated, _) => "Repeated::Packed",
                _ => "Repeated::No",
            };
            let within = index(field.type_name());
            (repeated != "Repeated::No" || within.is_some()).then(|| {
                format!("Field {{ number: {}, repeated: {repeated}, within: {within:?} }}", field.number())
            })
        });
        let fields: Vec<String> = fields.collect();
        let _ = writeln!(text, "    &[{}],", fields.join(", "));
    }
    text.push_str("];\n\nfn shape_of<M: 'static>() -> Option<&'static [Field]> {\n");
    text.push_str("    let id = TypeId::of::<M>();\n");
    let methods = public.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
    let requests: std::collections::BTreeSet<&str> = methods.map(|method| method.input_type()).collect();
    for request in requests {
        let Some(index) = index(request) else { continue };
        let name = request.rsplit('.').next().unwrap_or_default();
        let _ = writeln!(text, "    if id == TypeId::of::<v1::{name}>() {{ return Some(SHAPES[{index}]); }}");
    }
    text.push_str("    None\n}\n");
    text
}
