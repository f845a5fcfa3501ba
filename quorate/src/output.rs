//! How results are printed: tables for people, JSON for programs. The shapes of the JSON are stable.

use std::{
    fmt::Display,
    io::{self, Write as _},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use api::{NodeKind, Stat};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::exit::{Doing as _, Failure};

/// A table without lines, for people and for `awk` alike. Columns in `right` are aligned to the right.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, right: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.to_vec());
    table.add_rows(rows);
    for index in 0..header.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if right.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.trim_fmt()
}

/// Prints one line, or several, on standard output. A reader that went away (`| head`) is no failure of ours, but the
/// end.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    ended(writeln!(out, "{text}").and_then(|()| out.flush()))
}

/// Writes exactly these bytes to standard output.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    ended(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Prints a line on standard error. A closed standard error is no failure, because there is no place to report it.
pub(crate) fn say(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints a value as JSON, indented, on standard output.
pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value:#}"))
}

fn ended(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.doing("write to standard output"),
    }
}

/// The members of a Stat.
pub(crate) fn stat_json(stat: &Stat) -> Value {
    json!({
        "czxid": stat.czxid.to_string(),
        "mzxid": stat.mzxid.to_string(),
        "pzxid": stat.pzxid.to_string(),
        "ctime": time(stat.ctime_ms),
        "mtime": time(stat.mtime_ms),
        "version": stat.version,
        "cversion": stat.cversion,
        "aversion": stat.aversion,
        "kind": kind_name(stat.kind),
        "ttl_ms": if let NodeKind::Ttl { ms } = stat.kind { Some(ms) } else { None },
        "ephemeral_owner": stat.ephemeral_owner.map(|s| s.to_string()),
        "data_length": stat.data_length,
        "num_children": stat.num_children,
    })
}

/// The same, one in a line.
pub(crate) fn stat_text(stat: &Stat) -> String {
    let rows = [
        ("created by", stat.czxid.to_string()),
        ("created at", time(stat.ctime_ms)),
        ("changed by", stat.mzxid.to_string()),
        ("changed at", time(stat.mtime_ms)),
        ("version", stat.version.to_string()),
        ("bytes", stat.data_length.to_string()),
        ("children", stat.num_children.to_string()),
        ("children changed by", stat.pzxid.to_string()),
        ("children version", stat.cversion.to_string()),
        ("kind", kind(stat.kind)),
        ("ephemeral of", stat.ephemeral_owner.map_or_else(|| "-".to_owned(), |s| s.to_string())),
    ];
    let lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<21}{value}")).collect();
    lines.join("\n")
}

fn kind_name(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Persistent => "persistent",
        NodeKind::Ephemeral => "ephemeral",
        NodeKind::Container => "container",
        NodeKind::Ttl { .. } => "ttl",
    }
}

/// A kind for people, with the TTL if it has one.
pub(crate) fn kind(kind: NodeKind) -> String {
    match kind {
        NodeKind::Ttl { ms } => format!("ttl {}", humantime::format_duration(Duration::from_millis(ms))),
        other => kind_name(other).to_owned(),
    }
}

/// A value: `value` if it is a text, else `value_base64`.
pub(crate) fn value_json(object: &mut serde_json::Map<String, Value>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert("value".to_owned(), text.into()),
        Err(_) => object.insert("value_base64".to_owned(), BASE64_STANDARD.encode(bytes).into()),
    };
}

/// Milliseconds since the Unix epoch as a date, or as the number where there is no such date.
pub(crate) fn time(ms: i64) -> String {
    let date = u64::try_from(ms).ok().and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    // humantime cannot write years beyond 9999.
    let last = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    match date {
        Some(date) if date <= last => humantime::format_rfc3339_millis(date).to_string(),
        _ => ms.to_string(),
    }
}

/// The time of day, for lines that tell when something happened.
pub(crate) fn clock() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    now.get(11..19).unwrap_or(&now).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_where_there_is_one() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(-1), "-1");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
    }

    #[test]
    fn values_that_are_no_text_are_base64() {
        let json = |bytes: &[u8]| {
            let mut object = serde_json::Map::new();
            value_json(&mut object, bytes);
            Value::from(object)
        };
        assert_eq!(json(b"a\0b"), json!({"value": "a\0b"}));
        assert_eq!(json(b"\xff\x00"), json!({"value_base64": "/wA="}));
    }

    #[test]
    fn tables_are_aligned_and_have_no_trailing_blanks() {
        let text =
            table(&["ID", "NAME"], [vec!["1".into(), "a".into()], vec!["10".into(), "bb".into()]], &[0]);
        assert_eq!(text, "ID  NAME\n 1  a\n10  bb");
    }
}
