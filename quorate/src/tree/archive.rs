//! A tree of znodes in one file: what no file system can hold as files and directories, comes back from it as it was.
//!
//! Text, a JSON object on each line, in UTF-8. The first: `{"quorate":"archive","version":1}`. Then one for each znode, parents
//! before children: `path`, relative to the exported one, which is the empty text itself; `data`, the value in base64, left out if
//! it is empty; `sequence`, the number of the next sequential child, left out if it is 0. The last: `end`, how many znodes there
//! are, and `crc32c` of all bytes before that line, so that a part of an archive is not taken for the whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path as FilePath, PathBuf},
};

use api::Path;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::exit::{Doing as _, Failure};

/// One znode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// Below the root of the archive, with a slash before each element; empty for that itself.
    pub(crate) path: String,
    pub(crate) data: Bytes,
    /// The number of the next sequential child.
    pub(crate) sequence: u64,
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
    #[serde(default, skip_serializing_if = "String::is_empty")]
    data: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    sequence: u64,
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
const VERSION: u32 = 1;

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
        let Entry { path, data, sequence } = entry;
        self.znodes += 1;
        self.bytes += data.len() as u64;
        self.line(&Line { path: path.clone(), data: STANDARD.encode(data), sequence: *sequence })
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
                "{} is an archive of version {version}, and this program knows only version {VERSION}: use the version that \
                 wrote it, or a newer one",
                path.display()
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
        let Ok(Line { path, data, sequence }) = serde_json::from_slice(&line) else {
            return Err(self.damaged());
        };
        let data = STANDARD.decode(data).map_err(|_| self.damaged())?.into();
        self.znodes += 1;
        Ok(Some(Entry { path, data, sequence }))
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
    use super::*;

    fn entries() -> Vec<Entry> {
        let entry = |path: &str, data: &'static [u8], sequence| Entry {
            path: path.to_owned(),
            data: Bytes::from_static(data),
            sequence,
        };
        vec![
            entry("", b"", 0),
            entry("/100%", b"\0\xff", 7),
            entry("/%value", b"", 9_999_999_999),
            entry("/\"\\ä", b"x", 0),
        ]
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
