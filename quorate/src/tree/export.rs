//! `quorate export`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path as FilePath, PathBuf},
    time::{Duration, Instant},
};

use api::{Path, ReadLevel, Stat};
use bytes::Bytes;
use indicatif::{HumanBytes, ProgressBar};

use super::{
    import::style,
    name,
    value::{self, Kind},
    walk::{Depth, Look, walk},
};
use crate::{
    args::Export,
    exit::{Doing as _, Failure},
    output, session,
    verbs::parse,
};

pub(crate) async fn run(args: &Export) -> Result<(), Failure> {
    let root = parse(&args.path)?;
    must_be_free(&args.directory)?;
    let started = Instant::now();
    let bar = ProgressBar::no_length().with_style(style("{spinner} {pos} znodes {per_sec}"));
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut target =
        Target { root: root.clone(), directory: args.directory.clone(), files: 0, directories: 0, bytes: 0 };
    session::with(&args.connection, async |client| {
        client.sync().await?;
        walk(client, &root, ReadLevel::Local, Look::Value, Depth::All, args.in_flight, |path, data, stat| {
            bar.inc(1);
            target.write(path, data, &stat)
        })
        .await
    })
    .await?;
    bar.finish_and_clear();
    output::print(&format!(
        "exported {} files and {} directories, {}, in {:.1} s",
        target.files,
        target.directories,
        HumanBytes(target.bytes),
        started.elapsed().as_secs_f64()
    ))
}

/// Where the tree is written, and how much of it is.
struct Target {
    root: Path,
    directory: PathBuf,
    files: u64,
    directories: u64,
    bytes: u64,
}

impl Target {
    /// Writes one znode. Its parent has been written before.
    fn write(&mut self, znode: &Path, data: Bytes, stat: &Stat) -> Result<(), Failure> {
        let path = self.place(znode);
        match (value::kind(data), stat.num_children) {
            (Kind::File(_), 0) if *znode == self.root && !znode.is_root() => Err(Failure::usage(format!(
                "{znode} has no children and is no imported directory; `quorate get {znode}` prints its value"
            ))),
            (Kind::File(content), 0) if !znode.is_root() => self.file(&path, znode, &content),
            (Kind::File(content), _) if !content.is_empty() => {
                self.make_directory(&path, znode)?;
                self.file(&path.join(VALUE), znode, &content)
            }
            _ => self.make_directory(&path, znode),
        }
    }

    fn place(&self, znode: &Path) -> PathBuf {
        let below = znode.as_str().strip_prefix(self.root.as_str()).unwrap_or_default();
        let names = below.split('/').filter(|name| !name.is_empty()).map(name::to_file);
        let mut path = self.directory.clone();
        path.extend(names);
        path
    }

    fn file(&mut self, path: &FilePath, znode: &Path, content: &[u8]) -> Result<(), Failure> {
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(path).map_err(|e| fault(e, path, znode))?;
        file.write_all(content).doing(format_args!("write {}", path.display()))?;
        self.files += 1;
        self.bytes += content.len() as u64;
        Ok(())
    }

    fn make_directory(&mut self, path: &FilePath, znode: &Path) -> Result<(), Failure> {
        let made = if *znode == self.root { fs::create_dir_all(path) } else { fs::create_dir(path) };
        made.map_err(|e| fault(e, path, znode))?;
        self.directories += 1;
        Ok(())
    }
}

fn must_be_free(directory: &FilePath) -> Result<(), Failure> {
    match fs::read_dir(directory).map(|mut list| list.next().is_some()) {
        Ok(true) => Err(Failure::usage(format!(
            "the directory {} is not empty; name one that is, or that does not exist yet",
            directory.display()
        ))),
        Ok(false) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).doing(format_args!("use {}", directory.display())),
    }
}

fn fault(e: io::Error, path: &FilePath, znode: &Path) -> Failure {
    if e.kind() == io::ErrorKind::AlreadyExists {
        return Failure::refused(format!(
            "the znode {znode} would be the file {}, as another znode already is; rename one of them",
            path.display()
        ));
    }
    Failure::refused(format!("cannot write {}, for {znode}: {e}", path.display()))
}

/// In a directory, the value of its znode where that is not what import puts there.
const VALUE: &str = "%value";

#[cfg(test)]
mod tests {
    use super::*;

    fn target(directory: &FilePath, root: &str) -> Target {
        let root = Path::new(root).unwrap();
        Target { root, directory: directory.to_owned(), files: 0, directories: 0, bytes: 0 }
    }

    fn write(
        target: &mut Target,
        znode: &str,
        data: &'static [u8],
        num_children: u32,
    ) -> Result<(), Failure> {
        let stat = Stat { num_children, ..Stat::default() };
        target.write(&Path::new(znode).unwrap(), Bytes::from_static(data), &stat)
    }

    #[test]
    fn znodes_become_files_and_directories() {
        let dir = tempfile::tempdir().unwrap();
        let mut t = target(&dir.path().join("out"), "/r");
        write(&mut t, "/r", value::DIRECTORY, 3).unwrap();
        write(&mut t, "/r/100%25", b"x", 0).unwrap();
        write(&mut t, "/r/empty-file", b"", 0).unwrap();
        write(&mut t, "/r/empty-dir", value::DIRECTORY, 0).unwrap();
        write(&mut t, "/r/both", b"v", 1).unwrap();
        write(&mut t, "/r/both/child", b"c", 0).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join("out").join(name)).unwrap();
        assert_eq!(
            [read("100%"), read("empty-file"), read("both/%value"), read("both/child")],
            ["x", "", "v", "c"]
        );
        assert!(dir.path().join("out/empty-dir").is_dir());
        assert_eq!((t.files, t.directories, t.bytes), (4, 3, 3));

        let twice = write(&mut t, "/r/100%", b"x", 0).unwrap_err().to_string();
        assert!(twice.contains("as another znode already is"), "{twice}");
    }

    #[test]
    fn names_never_lead_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut t = target(&dir.path().join("out"), "/");
        write(&mut t, "/", b"", 1).unwrap();
        write(&mut t, "/%2E%2E", b"x", 0).unwrap();
        write(&mut t, "/..%2Fx", b"x", 0).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 2);
    }

    #[test]
    fn only_free_directories_and_trees_are_exported() {
        let dir = tempfile::tempdir().unwrap();
        assert!(must_be_free(dir.path()).is_ok() && must_be_free(&dir.path().join("new")).is_ok());
        fs::write(dir.path().join("x"), "").unwrap();
        assert!(must_be_free(dir.path()).is_err() && must_be_free(&dir.path().join("x")).is_err());
        let leaf = write(&mut target(&dir.path().join("leaf"), "/f"), "/f", b"x", 0).unwrap_err().to_string();
        assert!(leaf.contains("quorate get /f"), "{leaf}");
    }
}
