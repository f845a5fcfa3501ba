//! The settings of the audit log.

use ::audit::{Full, Settings};

use super::{Layers, Setting, Size};

impl Setting for Full {
    const EXPECTED: &'static str = "\"count\" or \"block\"";

    fn parse(text: &str) -> Option<Full> {
        match text {
            "count" => Some(Full::Count),
            "block" => Some(Full::Block),
            _ => None,
        }
    }

    fn to_toml(&self) -> String {
        match self {
            Full::Count => "\"count\"".to_owned(),
            Full::Block => "\"block\"".to_owned(),
        }
    }
}

/// `None` if there is no file for it.
pub(super) fn read(r: &mut Layers, node: u32) -> Option<Settings> {
    const MAX_SIZE: &str = "audit.max_size";
    const KEEP: &str = "audit.keep";
    let file = r.path("audit.file", "audit log: who did what, as JSON lines; empty for none");
    let max =
        r.get(MAX_SIZE, "bytes of one file of the audit log; a full one is renamed to FILE.1", Size::mib(64));
    let keep = r.get(KEEP, "full files of the audit log that stay", 8);
    let writes = r.get(
        "audit.writes",
        "whether all writes are recorded, or only changes of access lists and quotas, sessions and refusals",
        false,
    );
    let full = r.get(
        "audit.full",
        "if the disk is too slow for the audit log, or gives errors: count (the records lost) or block (the clients)",
        Full::Count,
    );
    if max < Size(64 << 10) {
        r.refuse(MAX_SIZE, "at least 64KiB");
    }
    if keep == 0 {
        r.refuse(KEEP, "at least 1");
    }
    file.map(|file| Settings { file, max: max.0, keep, writes, full, node })
}
