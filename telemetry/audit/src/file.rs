use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// A file that is renamed when it is full: `audit.log` to `audit.log.1`, that to `audit.log.2`, and so on. The oldest goes.
pub struct File {
    path: PathBuf,
    /// Bytes of one file; a single batch may exceed it.
    max: u64,
    /// How many full ones stay; at least 1.
    keep: u32,
    /// `None` after an error: it is opened again.
    open: Option<(fs::File, u64)>,
    /// Whether the last write was cut short, so that the file ends within a line.
    torn: bool,
}

/// The file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the audit log {}: {cause}; correct `audit.file`, or leave it out for no audit log", path.display())]
pub struct OpenError {
    /// Which file.
    pub path: PathBuf,
    /// The system's error.
    pub cause: io::Error,
}

impl File {
    /// Opens the file and continues it. Only its owner may read it.
    ///
    /// # Errors
    /// If it cannot be opened for writing.
    pub fn open(path: &Path, max: u64, keep: u32) -> Result<File, OpenError> {
        let mut file = File { path: path.to_owned(), max, keep: keep.max(1), open: None, torn: false };
        file.current().map_err(|cause| OpenError { path: path.to_owned(), cause })?;
        Ok(file)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes whole lines.
    ///
    /// # Errors
    /// Some of them may be in the file all the same. The next call opens the file again.
    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let written = self.try_write(lines);
        if written.is_err() {
            self.open = None;
            self.torn = true;
        }
        written
    }

    fn try_write(&mut self, lines: &[u8]) -> io::Result<()> {
        let (max, torn) = (self.max, self.torn);
        let (_, size) = self.current()?;
        if *size > 0 && *size + lines.len() as u64 > max {
            self.rotate()?;
        } else if torn {
            self.current()?.0.write_all(b"\n")?;
        }
        self.torn = false;
        let (file, size) = self.current()?;
        file.write_all(lines)?;
        *size += lines.len() as u64;
        Ok(())
    }

    fn current(&mut self) -> io::Result<&mut (fs::File, u64)> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
                let size = file.metadata()?.len();
                (file, size)
            }
        };
        Ok(self.open.insert(open))
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        for number in (1..self.keep).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_full_file_is_renamed_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut file = File::open(&path, 10, 2).unwrap();
        for line in ["first\n", "second\n", "third\n", "fourth\n"] {
            file.write(line.as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!((read("audit.log").as_str(), read("audit.log.1").as_str()), ("fourth\n", "third\n"));
        assert_eq!(read("audit.log.2"), "second\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // One that is opened again continues.
        drop(file);
        File::open(&path, 100, 2).unwrap().write(b"fifth\n").unwrap();
        assert_eq!(read("audit.log"), "fourth\nfifth\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_names_the_setting() {
        let refused = File::open(Path::new("/nonexistent/audit.log"), 10, 1).err().unwrap().to_string();
        assert!(refused.contains("/nonexistent/audit.log") && refused.contains("`audit.file`"), "{refused}");
    }
}
