//! A tree of znodes in one file: what no file system can hold as files and directories, comes back from it as it was.
//!
//! Text, a JSON object on each line, in UTF-8. The first: `{"quorate":"archive","version":2}`. Then one for each znode, parents
//! before children: `path`, relative to the exported one, which is the empty text itself; `data`, the value in base64, left out if
//! there is none, which is another than an empty one. Left out where they are the default: `sequence`, the number of the next
//! sequential child; `kind`, `"container"` or `{"ttl_ms":1000}`; `acl`, the entries of the access list, as `quorate acl get` prints
//! them; `quota`, its `soft` and `hard` bounds. The last: `end`, how many znodes there are, and `crc32c` of all bytes before that
//! line, so that a part of an archive is not taken for the whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path as FilePath, PathBuf},
};

use api::{Acl, AclEntry, Identity, NodeKind, Path, Quota, data_len, quota::Bounds};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::Znode;
use crate::{
    acl::letters,
    args::from_letters,
    exit::{Doing as _, Failure},
};

/// One znode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// Below the root of the archive, with a slash before each element; empty for that itself.
    pub(crate) path: String,
    pub(crate) znode: Znode,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    quorate: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    sequence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<KindLine>,
    /// Empty for the open list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    acl: Vec<AclLine>,
    #[serde(default, skip_serializing_if = "QuotaLine::is_none")]
    quota: QuotaLine,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindLine {
    Container,
    TtlMs(u64),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AclLine {
    scheme: String,
    id: String,
    permissions: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuotaLine {
    #[serde(default)]
    soft: BoundsLine,
    #[serde(default)]
    hard: BoundsLine,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BoundsLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    znodes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

impl Line {
    fn new(Entry { path, znode }: &Entry) -> Line {
        let Znode { data, kind, acl, quota, sequence } = znode;
        let kind = match *kind {
            // No ephemeral is exported.
            NodeKind::Persistent | NodeKind::Ephemeral => None,
            NodeKind::Container => Some(KindLine::Container),
            NodeKind::Ttl { ms } => Some(KindLine::TtlMs(ms)),
        };
        let entry = |AclEntry { identity, permissions }: &AclEntry| AclLine {
            scheme: identity.scheme().to_string(),
            id: identity.id().to_owned(),
            permissions: letters(*permissions),
        };
        let bounds = |Bounds { znodes, bytes }| BoundsLine { znodes, bytes };
        Line {
            path: path.clone(),
            data: data.as_ref().map(|data| STANDARD.encode(data)),
            sequence: *sequence,
            kind,
            acl: if acl.is_open() { Vec::new() } else { acl.entries().iter().map(entry).collect() },
            quota: QuotaLine { soft: bounds(quota.soft), hard: bounds(quota.hard) },
        }
    }

    /// `None` if it makes no sense.
    fn entry(self) -> Option<Entry> {
        let Line { path, data, sequence, kind, acl, quota } = self;
        let kind = match kind {
            None => NodeKind::Persistent,
            Some(KindLine::Container) => NodeKind::Container,
            Some(KindLine::TtlMs(ms)) => NodeKind::Ttl { ms },
        };
        let entry = |AclLine { scheme, id, permissions }| {
            let identity = Identity::new(scheme.parse().ok()?, &id).ok()?;
            Some(AclEntry { identity, permissions: from_letters(&permissions)? })
        };
        let acl = match acl.is_empty() {
            true => Acl::default(),
            false => Acl::new(acl.into_iter().map(entry).collect::<Option<_>>()?).ok()?,
        };
        let data = data.map(|data| STANDARD.decode(data)).transpose().ok()?.map(Into::into);
        let quota = Quota { soft: quota.soft.bounds(), hard: quota.hard.bounds() };
        Some(Entry { path, znode: Znode { data, kind, acl, quota, sequence } })
    }
}

impl QuotaLine {
    fn is_none(&self) -> bool {
        Quota { soft: self.soft.bounds(), hard: self.hard.bounds() }.is_none()
    }
}

impl BoundsLine {
    fn bounds(&self) -> Bounds {
        Bounds { znodes: self.znodes, bytes: self.bytes }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    end: u64,
    crc32c: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

const KIND: &str = "archive";
const VERSION: u32 = 2;

/// Writes an archive; until it is finished it has another name.
pub(crate) struct Writer {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    crc: u32,
    pub(crate) znodes: u64,
    pub(crate) bytes: u64,
}

impl Writer {
    /// Begins the archive `path`, which must not exist.
    pub(crate) fn create(path: &FilePath) -> Result<Writer, Failure> {
        if path.symlink_metadata().is_ok() {
            return Err(Failure::usage(format!(
                "{} exists already; name a file that does not",
                path.display()
            )));
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".part");
        let temporary = PathBuf::from(temporary);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&temporary);
        let file = BufWriter::new(file.doing(format_args!("create {}", temporary.display()))?);
        let mut writer = Writer { path: path.to_owned(), temporary, file, crc: 0, znodes: 0, bytes: 0 };
        writer.line(&Head { quorate: KIND.to_owned(), version: VERSION })?;
        Ok(writer)
    }

    pub(crate) fn write(&mut self, entry: &Entry) -> Result<(), Failure> {
        self.znodes += 1;
        self.bytes += data_len(&entry.znode.data) as u64;
        self.line(&Line::new(entry))
    }

    /// Gives it its name, when all of it is on the disk.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.line(&End { end: self.znodes, crc32c: format!("{:08x}", self.crc) })?;
        let writing = format!("write {}", self.temporary.display());
        self.file.flush().doing(&writing)?;
        self.file.get_ref().sync_all().doing(&writing)?;
        fs::rename(&self.temporary, &self.path).doing(format_args!("write {}", self.path.display()))
    }

    /// Removes what is written of it. Returns where that was.
    pub(crate) fn undo(self) -> (PathBuf, io::Result<()>) {
        let removed = fs::remove_file(&self.temporary);
        (self.temporary, removed)
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), Failure> {
        let writing = || format!("write {}", self.temporary.display());
        let mut text = serde_json::to_vec(line).map_err(io::Error::other).doing(writing())?;
        text.push(b'\n');
        self.crc = crc32c::crc32c_append(self.crc, &text);
        self.file.write_all(&text).doing(writing())
    }
}

/// Reads an archive, and checks it to its end.
pub(crate) struct Reader {
    path: PathBuf,
    lines: BufReader<File>,
    crc: u32,
    znodes: u64,
    number: u64,
}

impl Reader {
    pub(crate) fn open(path: &FilePath) -> Result<Reader, Failure> {
        let file = File::open(path).doing(format_args!("open {}", path.display()))?;
        let lines = BufReader::new(file);
        let mut reader = Reader { path: path.to_owned(), lines, crc: 0, znodes: 0, number: 0 };
        let head = reader.next_line()?;
        match serde_json::from_slice::<Head>(&head) {
            Ok(Head { quorate, version: VERSION }) if quorate == KIND => Ok(reader),
            Ok(Head { quorate, version }) if quorate == KIND => Err(Failure::usage(format!(
                "{} is an archive of version {version}, and this build of Quorate reads only version {VERSION}: {}",
                path.display(),
                match version < VERSION {
                    true => "import it with the build that wrote it, and export it again with this one",
                    false => "use a newer build",
                }
            ))),
            _ => Err(Failure::usage(format!(
                "{} is neither a directory nor an archive of `quorate export --archive`; to store one file, use `quorate \
                 create ZNODE --file {}`",
                path.display(),
                path.display()
            ))),
        }
    }

    /// The next znode; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Failure> {
        let before = self.crc;
        let line = self.next_line()?;
        if let Ok(End { end, crc32c }) = serde_json::from_slice(&line) {
            let whole = end == self.znodes && crc32c == format!("{before:08x}");
            let nothing = self.lines.fill_buf().is_ok_and(<[u8]>::is_empty);
            return if whole && nothing { Ok(None) } else { Err(self.damaged()) };
        }
        let entry = serde_json::from_slice(&line).ok().and_then(Line::entry);
        self.znodes += 1;
        entry.map(Some).ok_or_else(|| self.damaged())
    }

    /// Without its line feed. A line is as long as a path and a value may be, and not longer, whatever the file is.
    fn next_line(&mut self) -> Result<Vec<u8>, Failure> {
        self.number += 1;
        let mut line = Vec::new();
        let mut limited = io::Read::take(&mut self.lines, LINE_MAX);
        limited.read_until(b'\n', &mut line).doing(format_args!("read {}", self.path.display()))?;
        self.crc = crc32c::crc32c_append(self.crc, &line);
        if line.pop() != Some(b'\n') {
            // Also where it ends too soon.
            return if self.number == 1 { Ok(line) } else { Err(self.damaged()) };
        }
        Ok(line)
    }

    fn damaged(&self) -> Failure {
        Failure::refused(format!(
            "the archive {} is damaged or incomplete, at line {}; do not use any part of it, take another copy",
            self.path.display(),
            self.number
        ))
    }
}

/// The path of an entry below `root`.
pub(crate) fn znode(root: &Path, below: &str) -> Option<Path> {
    match (root.is_root(), below) {
        (_, "") => Some(root.clone()),
        (true, below) => Path::new(below).ok(),
        (false, below) if below.starts_with('/') => Path::new(&format!("{root}{below}")).ok(),
        (false, _) => None,
    }
}

/// Far more than a value of [`api::DATA_MAX`] in base64, and a path of which each byte is escaped.
const LINE_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use api::{Permissions, Scheme};
    use bytes::Bytes;

    use super::*;

    fn entries() -> Vec<Entry> {
        let data = |data: &'static [u8]| Znode { data: Some(Bytes::from_static(data)), ..Znode::default() };
        let kind = |kind| Znode { kind, ..data(b"") };
        let entry = |scheme, id, permissions| AclEntry {
            identity: Identity::new(scheme, id).unwrap(),
            permissions: Permissions::from_bits(permissions).unwrap(),
        };
        let acl = vec![entry(Scheme::Digest, "a:b=", 31), entry(Scheme::Ip, "fd00::/16", 0)];
        let hard = Bounds { znodes: Some(0), bytes: None };
        let all = [
            ("", Znode::default()),
            ("/100%", Znode { sequence: 7, ..data(b"\0\xff") }),
            ("/%value", Znode { sequence: 9_999_999_999, ..data(b"") }),
            ("/\"\\ä", data(b"x")),
            ("/c", kind(NodeKind::Container)),
            ("/t", kind(NodeKind::Ttl { ms: NodeKind::TTL_MAX_MS })),
            ("/a", Znode { acl: Acl::new(acl).unwrap(), ..Znode::default() }),
            ("/q", Znode { quota: Quota { hard, ..Quota::default() }, ..data(b"") }),
        ];
        all.into_iter().map(|(path, znode)| Entry { path: path.to_owned(), znode }).collect()
    }

    fn read(path: &FilePath) -> Result<Vec<Entry>, Failure> {
        let mut reader = Reader::open(path)?;
        let mut all = Vec::new();
        while let Some(entry) = reader.next()? {
            all.push(entry);
        }
        Ok(all)
    }

    #[test]
    fn b21_what_is_written_is_read_and_a_part_or_a_change_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut writer = Writer::create(&path).unwrap();
        entries().iter().for_each(|entry| writer.write(entry).unwrap());
        assert!(!path.exists(), "not before it is whole");
        writer.finish().unwrap();
        assert_eq!(read(&path).unwrap(), entries());
        assert!(Writer::create(&path).is_err());
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(read(&path).is_err(), "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert!(read(&path).is_err(), "changed at {at}");
        }
        fs::write(&path, [&whole[..], b"\n"].concat()).unwrap();
        assert!(read(&path).is_err());
    }

    #[test]
    fn b21_an_archive_of_another_version_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for (version, words) in [(1, "the build that wrote it"), (3, "a newer build")] {
            fs::write(&path, format!("{{\"quorate\":\"archive\",\"version\":{version}}}\n")).unwrap();
            let said = read(&path).unwrap_err().to_string();
            assert!(said.contains(&format!("version {version}")) && said.contains(words), "{said}");
        }
    }

    #[test]
    fn paths_stay_below_the_root() {
        let root = Path::new("/r").unwrap();
        assert_eq!(znode(&root, "").unwrap(), root);
        assert_eq!(znode(&root, "/a").unwrap().as_str(), "/r/a");
        assert_eq!(znode(&Path::root(), "/a").unwrap().as_str(), "/a");
        for below in ["a", "x/a", "/../a", "/", "//a"] {
            assert_eq!(znode(&root, below), None, "{below}");
        }
    }
}
