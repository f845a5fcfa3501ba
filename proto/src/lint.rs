//! The rules for the schemas of the public API: buf's STANDARD rules as far as descriptors show them, without
//! SERVICE_SUFFIX, because people type method paths; and no change that breaks a client (buf's FILE).

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

use crate::{DESCRIPTORS, client::CODES};

/// What clients were promised: a line for each field, value and method. Lines may be added.
const PROMISED: &str = include_str!("lint/api.txt");

/// What an entry of the log and a record of the state may have, each with the feature level that it came with. Lines may be added.
const AT_LEVEL: &str = include_str!("lint/state.txt");

fn public() -> Vec<FileDescriptorProto> {
    let all = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    all.file.into_iter().filter(|file| file.package() == "quorate.v1").collect()
}

/// `ABCDef_g` in parts that begin with a capital: `abc`, `def` ...
fn upper_snake(pascal: &str) -> String {
    let mut text = String::new();
    for (i, c) in pascal.char_indices() {
        if c.is_uppercase() && i > 0 {
            text.push('_');
        }
        text.extend(c.to_uppercase());
    }
    text
}

fn is_pascal(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric())
}

fn is_lower_snake(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.contains("__")
        && !name.ends_with('_')
}

#[test]
fn the_public_schemas_keep_bufs_standard_rules() {
    let files = public();
    let mut problems = Vec::new();
    let mut options = BTreeSet::new();
    let mut requests_and_responses = BTreeSet::new();
    for file in &files {
        let base = file.name().strip_prefix("quorate/v1/").and_then(|name| name.strip_suffix(".proto"));
        if !base.is_some_and(is_lower_snake) {
            problems.push(format!("{}: the folder or the name", file.name()));
        }
        if file.syntax() != "proto3" {
            problems.push(format!("{}: the syntax", file.name()));
        }
        let set = file.options.clone().unwrap_or_default();
        options.insert((set.go_package, set.java_package, set.java_multiple_files, set.csharp_namespace));
        file.message_type.iter().for_each(|message| lint_message(message, &mut problems));
        file.enum_type.iter().for_each(|e| lint_enum(e, &mut problems));
        for service in &file.service {
            if !is_pascal(service.name()) {
                problems.push(format!("service {}", service.name()));
            }
            for method in &service.method {
                let name = format!("{}.{}", service.name(), method.name());
                if !is_pascal(method.name()) {
                    problems.push(format!("method {name}"));
                }
                for (kind, suffix) in [(method.input_type(), "Request"), (method.output_type(), "Response")] {
                    if kind != format!(".quorate.v1.{}{suffix}", method.name()) {
                        problems.push(format!("method {name}: {kind} is not its own {suffix}"));
                    }
                    if !requests_and_responses.insert(kind.to_owned()) {
                        problems.push(format!("method {name}: {kind} belongs to another one too"));
                    }
                }
            }
        }
    }
    if options.len() != 1 {
        problems.push(format!("the files have different options: {options:?}"));
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

fn lint_message(message: &DescriptorProto, problems: &mut Vec<String>) {
    let name = message.name();
    if !is_pascal(name) {
        problems.push(format!("message {name}"));
    }
    for field in &message.field {
        if !is_lower_snake(field.name()) {
            problems.push(format!("{name}.{}", field.name()));
        }
        // Protos of Java, C# and JSON make one word of both.
        let plain = |name: &str| name.replace('_', "").to_lowercase();
        let same = message.field.iter().filter(|other| plain(other.name()) == plain(field.name())).count();
        if same > 1 {
            problems.push(format!("{name}.{}: another field has the same name elsewhere", field.name()));
        }
    }
    for oneof in &message.oneof_decl {
        if !is_lower_snake(oneof.name().trim_start_matches('_')) {
            problems.push(format!("{name}.{}", oneof.name()));
        }
    }
    if !message.nested_type.iter().all(|nested| nested.options.as_ref().is_some_and(|o| o.map_entry())) {
        problems.push(format!("{name}: nested messages have no names of their own in some languages"));
    }
}

fn lint_enum(e: &EnumDescriptorProto, problems: &mut Vec<String>) {
    let prefix = format!("{}_", upper_snake(e.name()));
    if !is_pascal(e.name()) {
        problems.push(format!("enum {}", e.name()));
    }
    let zero = e.value.first().map(|value| (value.name().to_owned(), value.number()));
    if zero != Some((format!("{prefix}UNSPECIFIED"), 0)) {
        problems.push(format!("enum {}: it begins with {zero:?}", e.name()));
    }
    for value in &e.value {
        if !value.name().starts_with(&prefix) || value.name() != value.name().to_uppercase() {
            problems.push(format!("enum {}: {}", e.name(), value.name()));
        }
    }
}

/// A line for everything that a client may rely on.
fn api() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in public() {
        let at = file.name().strip_prefix("quorate/v1/").unwrap_or_default().to_owned();
        for message in &file.message_type {
            for field in &message.field {
                let kind = match field.r#type() {
                    Type::Message | Type::Enum => field.type_name().replace(".quorate.v1.", ""),
                    other => other.as_str_name().replace("TYPE_", "").to_lowercase(),
                };
                let presence = match (field.label(), field.proto3_optional(), field.oneof_index) {
                    (Label::Repeated, ..) => "repeated ",
                    (_, true, _) => "optional ",
                    (_, false, Some(_)) => "oneof ",
                    _ => "",
                };
                let (name, number) = (field.name(), field.number());
                lines.insert(format!("{at}: {}.{number} {presence}{kind} {name}", message.name()));
            }
        }
        for e in &file.enum_type {
            for value in &e.value {
                lines.insert(format!("{at}: {}.{} {}", e.name(), value.number(), value.name()));
            }
        }
        for service in &file.service {
            for method in &service.method {
                let stream = |yes| if yes { "stream " } else { "" };
                let idempotency = method.options.as_ref().map_or("", |o| match o.idempotency_level() {
                    prost_types::method_options::IdempotencyLevel::IdempotencyUnknown => "",
                    prost_types::method_options::IdempotencyLevel::NoSideEffects => ", changes nothing",
                    prost_types::method_options::IdempotencyLevel::Idempotent => ", idempotent",
                });
                lines.insert(format!(
                    "{at}: {}/{}: {}in, {}out{idempotency}",
                    service.name(),
                    method.name(),
                    stream(method.client_streaming()),
                    stream(method.server_streaming())
                ));
            }
        }
    }
    lines
}

#[test]
fn nothing_that_clients_rely_on_is_changed() {
    let (promised, present): (BTreeSet<String>, _) = (PROMISED.lines().map(str::to_owned).collect(), api());
    let gone: Vec<_> = promised.difference(&present).collect();
    assert!(gone.is_empty(), "clients rely on this, and it is gone or has changed: {gone:#?}");
    let new: Vec<_> = present.difference(&promised).collect();
    assert!(new.is_empty(), "add to proto/src/lint/api.txt what is new, in its place: {new:#?}");
}

/// A node of an older build stops at what it does not know, so nothing is written below the level that it came with. What comes
/// after 1.0 has a level above 1 here, and its writer asks for that level.
#[test]
fn everything_in_the_state_has_a_feature_level() {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let state: Vec<_> = files.into_iter().filter(|file| file.package() == "quorate.state.v1").collect();
    let mut present = BTreeSet::new();
    for message in state.iter().flat_map(|file| &file.message_type) {
        assert!(
            message.nested_type.is_empty() && message.enum_type.is_empty(),
            "{} has others in it",
            message.name()
        );
        let fields = message.field.iter();
        present.extend(fields.map(|field| format!("{}.{} {}", message.name(), field.number(), field.name())));
    }
    for e in state.iter().flat_map(|file| &file.enum_type) {
        present
            .extend(e.value.iter().map(|value| format!("{}.{} {}", e.name(), value.number(), value.name())));
    }
    let known = (0..=u16::MAX).filter(|kind| {
        let payloads =
            [api::Roster::initial(api::Ensemble::of_voters(1..=3).unwrap()).encode(), vec![1, 0, 0, 0]];
        payloads.into_iter().any(|payload| api::Body::from_parts(*kind, payload.into()).is_ok())
    });
    present.extend(known.map(|kind| format!("entry.{kind}")));
    let mut listed = BTreeSet::new();
    for line in AT_LEVEL.lines() {
        let (level, what) = line.split_once(' ').unwrap();
        let level = level.parse().ok().and_then(api::Level::known).unwrap();
        assert!(api::Levels::BUILD.contains(level), "{line}");
        listed.insert(what.split("  ").next().unwrap().to_owned());
    }
    let missing: Vec<_> = present.difference(&listed).collect();
    assert!(
        missing.is_empty(),
        "add to proto/src/lint/state.txt, with the level it comes with: {missing:#?}"
    );
    let gone: Vec<_> = listed.difference(&present).collect();
    assert!(gone.is_empty(), "old logs and snapshots may have this: {gone:#?}");
}

/// A client, or a proxy between, may resend a call by itself only if the method is marked idempotent.
#[test]
fn each_method_says_whether_it_may_be_sent_again() {
    let levels = public().into_iter().flat_map(|file| file.service).flat_map(|service| {
        service.method.into_iter().map(|method| {
            let level = method.options.as_ref().map(|o| o.idempotency_level()).unwrap_or_default();
            (level.as_str_name(), method.name().to_owned())
        })
    });
    let mut methods = std::collections::BTreeMap::<_, BTreeSet<String>>::new();
    for (level, method) in levels {
        methods.entry(level).or_default().insert(method);
    }
    let of = |names: &str| names.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
    // A session's writes have numbers instead; unary writes may be carried out twice.
    let unknown = of("Create Delete DeleteTree Multi Session Set SetAcl");
    assert_eq!(methods.remove("IDEMPOTENCY_UNKNOWN"), Some(unknown));
    assert_eq!(methods.remove("IDEMPOTENT"), Some(of("SetLevel SetQuota")));
    assert_eq!(methods.keys().collect::<Vec<_>>(), [&"NO_SIDE_EFFECTS"]);
}

/// The comments are the reference: of each method its right, its errors by their codes, and whether a retry is safe.
#[test]
fn each_method_documents_its_right_its_errors_and_its_retry() {
    // Those that a node makes, not all that have a number.
    let codes: BTreeSet<_> =
        CODES.iter().filter_map(|(_, code)| code.as_str_name().strip_prefix("ERROR_CODE_")).collect();
    let schemas = [
        include_str!("../proto/quorate/v1/coordination.proto"),
        include_str!("../proto/quorate/v1/cluster.proto"),
        include_str!("../proto/quorate/v1/node.proto"),
    ];
    let mut comments = std::collections::BTreeMap::new();
    for schema in schemas {
        let mut comment = String::new();
        for line in schema.lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("//") {
                comment.push_str(text);
                continue;
            }
            let comment = std::mem::take(&mut comment);
            if let Some(name) = line.strip_prefix("rpc ").and_then(|rest| rest.split('(').next()) {
                comments.insert(name.to_owned(), comment);
            }
        }
    }
    for method in public().into_iter().flat_map(|file| file.service).flat_map(|service| service.method) {
        let comment = comments.get(method.name()).map_or("", String::as_str);
        for part in ["Right: ", "Errors: ", "Retry: "] {
            assert!(comment.contains(part), "{}: its comment has no `{part}`", method.name());
        }
        let errors =
            comment.split("Errors: ").nth(1).and_then(|rest| rest.split('.').next()).unwrap_or_default();
        for code in errors.split(|c: char| !c.is_ascii_uppercase() && c != '_').filter(|word| word.len() > 3)
        {
            assert!(codes.contains(code), "{}: no node makes the error {code}", method.name());
        }
        let level = method.options.as_ref().map(|o| o.idempotency_level().as_str_name()).unwrap_or_default();
        let marked = ["IDEMPOTENT", "NO_SIDE_EFFECTS"].contains(&level);
        assert_eq!(comment.contains("Retry: safe."), marked, "{}", method.name());
    }
}

/// Where two verbs have a field of one meaning, it has one number.
#[test]
fn the_same_means_the_same_everywhere() {
    let znode = public().into_iter().find(|file| file.name().ends_with("/znode.proto")).unwrap();
    for message in znode.message_type.iter().filter(|m| m.name().ends_with("Request")) {
        for field in &message.field {
            let number = match field.name() {
                "path" => 1,
                "read" => 2,
                "version" | "aversion" => 3,
                "czxid" => 4,
                _ => continue,
            };
            // A request of many has its parts where a path would be.
            let many = message.name().starts_with("Multi");
            assert!(many || field.number() == number, "{}.{}", message.name(), field.name());
        }
    }
    for message in znode.message_type.iter().filter(|m| m.name().ends_with("Response")) {
        let as_of = message.field.iter().find(|field| field.name() == "as_of");
        assert!(as_of.is_none_or(|field| field.number() == 15), "{}", message.name());
    }
    let session = public().into_iter().find(|file| file.name().ends_with("/session.proto")).unwrap();
    let of = |name: &str| {
        let message = session.message_type.iter().find(|m| m.name() == name).unwrap();
        let fields = message.field.iter().filter(|field| field.oneof_index.is_some());
        fields.map(|field| (field.number(), field.name().to_owned())).collect::<BTreeSet<_>>()
    };
    let results = of("Response").into_iter().filter(|(_, name)| name != "error").collect::<BTreeSet<_>>();
    assert_eq!(of("Request"), results, "the result of operation n has number n");
}
