//! `quorate multi`: several writes in one step, from lines of text.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path as FilePath,
};

use api::{
    Create, DATA_MAX, Expected, Identities, MultiOp, MultiOutcome, NodeKind, OpError, Path, Write,
    WriteOutcome,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use clap::Parser as _;
use serde_json::{Map, Value, json};

use crate::{
    acl,
    args::{CreatePart, Entry, Line, MultiArgs, Part, PartValue},
    exit::{Doing as _, Failure},
    output, session,
    znode::parse,
};

/// Maximum size of the input: a value in Base64 or in quotes takes more room than in a request.
const INPUT_MAX: u64 = 16 << 20;

/// An operation, and the number of its line, from 1.
#[derive(Debug)]
struct Numbered {
    line: usize,
    part: Part,
}

pub(crate) async fn run(args: &MultiArgs) -> Result<(), Failure> {
    let (name, text) = read(&args.file)?;
    let parts = read_lines(&name, &text)?;
    session::with(&args.connection, async |client| {
        let own = match parts.iter().any(|part| names_itself(&part.part)) {
            true => client.who_am_i().await?,
            false => Identities::NONE,
        };
        let read = |Numbered { line, part }: &Numbered| {
            operation(part, &own).map_err(|e| Failure::new(e.exit, format!("{name}:{line}: {e}")))
        };
        let ops = parts.iter().map(read).collect::<Result<Vec<MultiOp>, Failure>>()?;
        let (zxid, answer) = client.submit(Write::Multi(ops.clone())).await.with_zxid().await;
        let outcomes = match answer {
            Ok(WriteOutcome::Multi(outcomes)) => outcomes,
            Ok(other) => {
                return Err(Failure::refused(format!("the node answered something else: {other:?}")));
            }
            Err(e) => {
                let failed = match e.refusal() {
                    Some(OpError::Multi { index, cause }) => {
                        let line = parts.get(*index as usize).map(|part| part.line);
                        line.map(|line| format!("{name}:{line}: {cause}; nothing was changed"))
                    }
                    _ => None,
                };
                let whole = Failure::from(e);
                return Err(failed.map_or(whole.clone(), |text| Failure::new(whole.exit, text)));
            }
        };
        let done = || ops.iter().zip(&outcomes);
        args.output.print(
            || done().map(|(op, outcome)| outcome_text(op, outcome)).collect::<Vec<_>>().join("\n"),
            || {
                let results: Vec<Value> = done().map(|(op, outcome)| outcome_json(op, outcome)).collect();
                json!({"zxid": zxid.map(|zxid| zxid.to_string()), "results": results})
            },
        )
    })
    .await
}

/// The input, and its name in errors.
fn read(file: &FilePath) -> Result<(String, String), Failure> {
    let (name, bytes) = match file.to_str() {
        Some("-") => ("standard input".to_owned(), bounded(io::stdin().lock(), INPUT_MAX, "standard input")?),
        _ => {
            let name = file.display().to_string();
            let bytes = bounded(File::open(file).doing(format_args!("open {name}"))?, INPUT_MAX, &name)?;
            (name, bytes)
        }
    };
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::usage(format!("{name} is not UTF-8; give such values with --base64 or --file"))
    })?;
    Ok((name, text))
}

fn bounded(from: impl io::Read, most: u64, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes).doing(format_args!("read {name}"))?;
    if bytes.len() as u64 > most {
        return Err(Failure::usage(format!(
            "{name} has more than the maximum of {most} bytes; do less in one step"
        )));
    }
    Ok(bytes)
}

/// The operations of a text. An error names the line and the remedy.
fn read_lines(name: &str, text: &str) -> Result<Vec<Numbered>, Failure> {
    let mut parts = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let wrong = |why: String| Failure::usage(format!("{name}:{line}: {why}"));
        let words = shlex::split(content).ok_or_else(|| {
            wrong("a quote or a backslash at the end is not closed; an operation is one line".to_owned())
        })?;
        if words.is_empty() {
            continue;
        }
        let parsed = Line::try_parse_from(words).map_err(|e| wrong(in_one_line(&e)))?;
        parts.push(Numbered { line, part: parsed.part });
    }
    if parts.is_empty() {
        return Err(Failure::usage(format!(
            "{name} has no operation; write one in each line, as in `set /app/config 'x = 1'` (`quorate multi --help` lists them)"
        )));
    }
    Ok(parts)
}

/// The message of clap without its layout.
pub(crate) fn in_one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let lines: Vec<&str> =
        lines.map(|line| line.trim_start_matches("error: ").trim_start_matches("tip: ")).collect();
    lines.join("; ")
}

fn names_itself(part: &Part) -> bool {
    matches!(part, Part::Acl(acl) if acl.entries.iter().any(|entry| matches!(entry, Entry::Own(_))))
}

/// An operation for the ensemble. `own` are the identities that `auth` stands for.
fn operation(part: &Part, own: &Identities) -> Result<MultiOp, Failure> {
    Ok(match part {
        Part::Create(part) => create(part)?,
        Part::Set(part) => {
            let data = value(&part.value)?.ok_or_else(|| {
                Failure::usage("no value: write it behind the path, or give --file or --base64")
            })?;
            MultiOp::Set { path: parse(&part.path)?, data: Some(data), version: part.only_if.expected() }
        }
        Part::Delete(part) => MultiOp::Delete { path: parse(&part.path)?, version: part.only_if.expected() },
        Part::Check(part) if part.absent => MultiOp::CheckAbsent { path: parse(&part.path)? },
        Part::Check(part) => MultiOp::Check { path: parse(&part.path)?, version: part.only_if.expected() },
        Part::Acl(part) => MultiOp::SetAcl {
            path: parse(&part.path)?,
            acl: acl::list(&part.entries, own)?,
            aversion: part.version.map(Expected::from),
        },
    })
}

fn create(part: &CreatePart) -> Result<MultiOp, Failure> {
    let path = match part.sequential {
        true => Path::prefix(&part.path).map_err(|e| Failure::usage(format!("{:?}: {e}", part.path)))?,
        false => parse(&part.path)?,
    };
    let kind = match (part.container, part.ttl) {
        (true, _) => NodeKind::Container,
        (false, Some(ttl)) => NodeKind::Ttl { ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX) },
        (false, None) => NodeKind::Persistent,
    };
    let data = value(&part.value)?.unwrap_or_default();
    Ok(MultiOp::Create(Create { kind, sequential: part.sequential, ..Create::new(path, data) }))
}

fn value(value: &PartValue) -> Result<Option<Bytes>, Failure> {
    let PartValue { value, file, base64 } = value;
    if let Some(file) = file {
        let name = file.display().to_string();
        return bounded(File::open(file).doing(format_args!("open {name}"))?, DATA_MAX, &name)
            .map(|data| Some(data.into()));
    }
    if let Some(text) = base64 {
        let bytes = BASE64_STANDARD.decode(text);
        let bytes = bytes.map_err(|e| Failure::usage(format!("the value of --base64 is no Base64: {e}")))?;
        return Ok(Some(bytes.into()));
    }
    Ok(value.clone().map(Bytes::from))
}

fn outcome_text(op: &MultiOp, outcome: &MultiOutcome) -> String {
    match outcome {
        MultiOutcome::Created { path, .. } => format!("created {path}"),
        MultiOutcome::Set { stat } => format!("set {} version {}", path_of(op), stat.version),
        MultiOutcome::Deleted => format!("deleted {}", path_of(op)),
        MultiOutcome::AclSet { stat } => format!("acl {} aversion {}", path_of(op), stat.aversion),
        MultiOutcome::Checked => format!("checked {}", path_of(op)),
    }
}

fn outcome_json(op: &MultiOp, outcome: &MultiOutcome) -> Value {
    let (word, path, stat) = match outcome {
        MultiOutcome::Created { path, stat } => ("create", path, Some(stat)),
        MultiOutcome::Set { stat } => ("set", path_of(op), Some(stat)),
        MultiOutcome::Deleted => ("delete", path_of(op), None),
        MultiOutcome::AclSet { stat } => ("acl", path_of(op), Some(stat)),
        MultiOutcome::Checked => ("check", path_of(op), None),
    };
    let mut object = Map::new();
    object.insert("op".to_owned(), word.into());
    object.insert("path".to_owned(), path.as_str().into());
    if let Some(stat) = stat {
        object.insert("stat".to_owned(), output::stat_json(stat));
    }
    object.into()
}

fn path_of(op: &MultiOp) -> &Path {
    match op {
        MultiOp::Create(create) => &create.path,
        MultiOp::Set { path, .. }
        | MultiOp::Delete { path, .. }
        | MultiOp::SetAcl { path, .. }
        | MultiOp::Check { path, .. }
        | MultiOp::CheckAbsent { path } => path,
    }
}

#[cfg(test)]
mod tests {
    use api::{AclEntry, Permissions, Scheme, Zxid};

    use super::*;

    fn ops(text: &str) -> Vec<MultiOp> {
        let parts = read_lines("input", text).unwrap();
        parts.iter().map(|part| operation(&part.part, &Identities::NONE).unwrap()).collect()
    }

    fn refused(text: &str) -> String {
        let parts = match read_lines("input", text) {
            Ok(parts) => parts,
            Err(e) => return e.to_string(),
        };
        parts.iter().find_map(|part| operation(&part.part, &Identities::NONE).err()).unwrap().to_string()
    }

    #[test]
    fn each_operation_is_read_with_its_conditions() {
        let path = |text: &str| Path::new(text).unwrap();
        let text = "\n# a comment\ncreate '/a b' \"it's\"   # another\ncreate /q/ --sequential --ttl 10s\ncreate /c --container --base64 /wA=\n\
                    set /a --version 3 --czxid 0x100000007 -- -x\ndelete /b\ncheck /c --version 0\ncheck /d --absent\n\
                    acl /a world:anyone:r --version 2\n";
        let create = |path: &str, data: &'static [u8]| Create::new(Path::prefix(path).unwrap(), data);
        let anyone = api::Identity::new(Scheme::World, "anyone").unwrap();
        let acl = api::Acl::new(vec![AclEntry { identity: anyone, permissions: Permissions::READ }]).unwrap();
        let expected = [
            MultiOp::Create(create("/a b", b"it's")),
            MultiOp::Create(Create {
                kind: NodeKind::Ttl { ms: 10_000 },
                sequential: true,
                ..create("/q/", b"")
            }),
            MultiOp::Create(Create { kind: NodeKind::Container, ..create("/c", b"\xff\0") }),
            MultiOp::Set {
                path: path("/a"),
                data: Some("-x".into()),
                version: Some(Expected::Both { version: 3, czxid: Zxid(0x1_0000_0007) }),
            },
            MultiOp::Delete { path: path("/b"), version: None },
            MultiOp::Check { path: path("/c"), version: Some(Expected::Version(0)) },
            MultiOp::CheckAbsent { path: path("/d") },
            MultiOp::SetAcl { path: path("/a"), acl, aversion: Some(Expected::Version(2)) },
        ];
        assert_eq!(ops(text), expected);
    }

    #[test]
    fn errors_name_the_line_and_the_remedy() {
        for (text, words) in [
            ("", "input has no operation; write one in each line"),
            ("# nothing\n\n", "has no operation"),
            ("set /a 'x\n", "input:1: a quote or a backslash at the end is not closed"),
            ("set /a x\n\nremove /b", "input:3: unrecognized subcommand 'remove'"),
            ("set /a x --vresion 3", "input:1: unexpected argument '--vresion' found"),
            ("set /a x --version -1", "-1"),
            ("check /a --absent --version 1", "cannot be used with"),
            ("create /a x --file y", "cannot be used with"),
            ("create /a --ephemeral", "unexpected argument '--ephemeral'"),
            ("acl /a", "required"),
            ("set /a", "no value: write it behind the path"),
            ("set a x", "does not start with /"),
            ("set /a --base64 ?", "no Base64"),
            ("acl /a auth::rw", "give --auth"),
        ] {
            let said = refused(text);
            assert!(said.contains(words), "{text:?}: {said}");
            assert!(!said.contains('\n'), "{said}");
        }
    }
}
