//! `quorate export`.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path as FilePath, PathBuf},
    time::{Duration, Instant},
};

use api::{Acl, NodeKind, Path, Quota, ReadLevel, Scheme};
use bytes::Bytes;
use indicatif::{HumanBytes, ProgressBar};

use super::{
    Znode,
    archive::{Entry, Writer},
    creates,
    import::style,
    name, value,
    walk::{Found, Look, walk},
};
use crate::{
    args::Export,
    exit::{Doing as _, Failure},
    output, session,
    znode::parse,
};

pub(crate) async fn run(args: &Export) -> Result<(), Failure> {
    let root = parse(&args.path)?;
    let mut target = match args.archive {
        true => Target::archive(root.clone(), &args.directory)?,
        false => Target::directory(root.clone(), &args.directory)?,
    };
    let started = Instant::now();
    let bar = ProgressBar::no_length().with_style(style("{spinner} {pos} znodes {per_sec}"));
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut ephemerals = 0;
    let walked = session::with(&args.connection, async |client| {
        client.sync().await?;
        let quotas = client.quotas(root.as_str(), ReadLevel::Local).await?;
        let quotas: HashMap<Path, Quota> = quotas.into_iter().map(|at| (at.path, at.quota)).collect();
        walk(client, &root, ReadLevel::Local, Look::Whole, args.in_flight, |path, found| {
            bar.inc(1);
            let Found { stat, data, acl } = found;
            if stat.ephemeral_owner.is_some() {
                ephemerals += 1;
                return Ok(());
            }
            must_be_whole(path, &acl)?;
            let quota = quotas.get(path).copied().unwrap_or_default();
            let znode = Znode { data, kind: stat.kind, acl, quota, sequence: creates(&stat) };
            target.write(path, znode, stat.num_children > 0)
        })
        .await
    })
    .await;
    bar.finish_and_clear();
    if let Err(failure) = walked {
        return Err(target.undo(&failure));
    }
    if ephemerals > 0 {
        output::say(format_args!(
            "left out {ephemerals} ephemerals: they belong to sessions, and their owners make them anew"
        ));
    }
    let (what, bytes) = target.finish()?;
    let (bytes, seconds) = (HumanBytes(bytes), started.elapsed().as_secs_f64());
    output::print(&format!("exported {what}, {bytes}, in {seconds:.1} s"))
}

/// Where the tree is written.
pub(super) enum Target {
    Directory(Directory),
    Archive(Path, Writer),
}

impl Target {
    pub(super) fn archive(root: Path, path: &FilePath) -> Result<Target, Failure> {
        Ok(Target::Archive(root, Writer::create(path)?))
    }

    pub(super) fn directory(root: Path, path: &FilePath) -> Result<Target, Failure> {
        must_be_free(path)?;
        Ok(Target::Directory(Directory::new(root, path.to_owned())))
    }

    /// Writes one znode. Its parent has been written before.
    pub(super) fn write(&mut self, path: &Path, znode: Znode, has_children: bool) -> Result<(), Failure> {
        match self {
            Target::Directory(directory) => directory.write(path, &znode, has_children),
            Target::Archive(root, writer) => {
                writer.write(&Entry { path: below(root, path).to_owned(), znode })
            }
        }
    }

    /// Removes the written files, so that the next try finds the directory as this one did. The failure mentions that.
    pub(super) fn undo(self, failure: &Failure) -> Failure {
        let (place, removed) = match self {
            Target::Directory(Directory { made, .. }) if made.is_empty() => return failure.clone(),
            Target::Directory(Directory { directory, made, .. }) => (directory, remove(&made)),
            Target::Archive(_, writer) => writer.undo(),
        };
        let place = place.display();
        let state = match removed {
            Ok(()) => format!("what was written of it to {place} is removed"),
            Err(e) => format!(
                "a part of it is in {place} and cannot be removed ({e}): remove it before the next try"
            ),
        };
        Failure::new(failure.exit, format!("{failure}\n{state}"))
    }

    /// What was written, in words, and the bytes of it.
    pub(super) fn finish(self) -> Result<(String, u64), Failure> {
        match self {
            Target::Directory(Directory { files, directories, bytes, .. }) => {
                Ok((format!("{files} files and {directories} directories"), bytes))
            }
            Target::Archive(_, writer) => {
                let (znodes, bytes) = (writer.znodes, writer.bytes);
                writer.finish()?;
                Ok((format!("{znodes} znodes"), bytes))
            }
        }
    }
}

/// The rest after `root` of the path of a znode below it: the empty text or a path.
fn below<'a>(root: &Path, znode: &'a Path) -> &'a str {
    match root.is_root() {
        true if znode.is_root() => "",
        true => znode.as_str(),
        false => znode.as_str().strip_prefix(root.as_str()).unwrap_or_default(),
    }
}

/// Files and directories, and how much of it is written.
pub(super) struct Directory {
    root: Path,
    directory: PathBuf,
    files: u64,
    directories: u64,
    bytes: u64,
    /// All that was not there before, parents before children.
    made: Vec<PathBuf>,
}

impl Directory {
    fn new(root: Path, directory: PathBuf) -> Directory {
        Directory { root, directory, files: 0, directories: 0, bytes: 0, made: Vec::new() }
    }

    fn write(&mut self, znode: &Path, what: &Znode, has_children: bool) -> Result<(), Failure> {
        let data = plain(what).map_err(|lost| no_file(znode, &format!("{lost} would be lost")))?;
        let path = self.place(znode)?;
        let is_leaf = !has_children && *znode != self.root;
        match value::to_file(data).filter(|_| is_leaf) {
            Some(content) => self.file(&path, znode, &content),
            None => {
                self.make_directory(&path, znode)?;
                // The root has no value unless it was given one, and what import makes of a directory needs none.
                let plain = data == value::DIRECTORY || (znode.is_root() && data.is_empty());
                if plain { Ok(()) } else { self.file(&path.join(value::VALUE), znode, data) }
            }
        }
    }

    fn place(&self, znode: &Path) -> Result<PathBuf, Failure> {
        let mut path = self.directory.clone();
        for element in below(&self.root, znode).split('/').filter(|name| !name.is_empty()) {
            match name::to_file(element) {
                Some(name) if name != value::VALUE => path.push(name),
                Some(_) => return Err(no_file(znode, "import would take it for the value of its parent")),
                None => {
                    return Err(no_file(znode, "import would give another name to a file that is called so"));
                }
            }
        }
        Ok(path)
    }

    fn file(&mut self, path: &FilePath, znode: &Path, content: &[u8]) -> Result<(), Failure> {
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(path).map_err(|e| fault(e, path, znode))?;
        self.made.push(path.to_owned());
        file.write_all(content).doing(format_args!("write {}", path.display()))?;
        self.files += 1;
        self.bytes += content.len() as u64;
        Ok(())
    }

    fn make_directory(&mut self, path: &FilePath, znode: &Path) -> Result<(), Failure> {
        let missing: Vec<&FilePath> = match *znode == self.root {
            true => path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect(),
            false => vec![path],
        };
        for dir in missing.into_iter().rev() {
            fs::create_dir(dir).map_err(|e| fault(e, dir, znode))?;
            self.made.push(dir.to_owned());
        }
        self.directories += 1;
        Ok(())
    }
}

/// The value of a znode that has nothing else to lose; or what it would lose.
fn plain(znode: &Znode) -> Result<&Bytes, &'static str> {
    let Znode { data, kind, acl, quota, sequence: _ } = znode;
    match (kind, data) {
        (NodeKind::Container, _) => Err("its kind, container,"),
        (NodeKind::Ttl { .. }, _) => Err("its TTL"),
        _ if !acl.is_open() => Err("its access list"),
        _ if !quota.is_none() => Err("its quota"),
        (_, None) => Err("that it has no value, which is another than an empty one,"),
        (NodeKind::Persistent | NodeKind::Ephemeral, Some(data)) => Ok(data),
    }
}

/// A caller that may not change an access list gets it without the hashes of digests; so it would not come back.
fn must_be_whole(znode: &Path, acl: &Acl) -> Result<(), Failure> {
    let masked = acl.entries().iter().map(|entry| &entry.identity);
    if masked.filter(|i| i.scheme() == Scheme::Digest).all(|i| !i.id().ends_with(":x")) {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "the access list of {znode} has digests whose hashes you may not read: export with the permission admin on it, or as the \
         superuser (--auth)"
    )))
}

/// Files and empty directories, the last first. Files of others beside them stay.
fn remove(made: &[PathBuf]) -> io::Result<()> {
    made.iter().rev().try_for_each(|path| match path.symlink_metadata()?.is_dir() {
        true => fs::remove_dir(path),
        false => fs::remove_file(path),
    })
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
    match e.kind() {
        io::ErrorKind::AlreadyExists => no_file(znode, "another znode is that file already"),
        io::ErrorKind::InvalidFilename => no_file(znode, "the name or the path is too long for it"),
        _ => Failure::refused(format!("cannot write {}, for {znode}: {e}", path.display())),
    }
}

fn no_file(znode: &Path, why: &str) -> Failure {
    Failure::refused(format!(
        "the file system cannot hold the znode {znode}: {why}; `quorate export --archive ZNODE FILE` writes any tree into one file"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(directory: &FilePath, root: &str) -> Directory {
        Directory::new(Path::new(root).unwrap(), directory.to_owned())
    }

    fn write(
        target: &mut Directory,
        znode: &str,
        data: &'static [u8],
        num_children: u32,
    ) -> Result<(), Failure> {
        let what = Znode { data: Some(Bytes::from_static(data)), ..Znode::default() };
        target.write(&Path::new(znode).unwrap(), &what, num_children > 0)
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

        for (what, why) in [
            ("/r/100%25", "another znode"),
            ("/r/100%", "another name"),
            ("/r/%value", "another name"),
            (&format!("/r/{}", "x".repeat(256)), "too long"),
            (&format!("/r{}", format!("/{}", "b".repeat(200)).repeat(25)), "too long"),
        ] {
            let error = write(&mut t, what, b"x", 0).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("--archive"), "{error}");
        }
    }

    #[test]
    fn b21_a_refused_export_removes_what_it_made_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a/b/out");
        let failed = |others: bool| {
            let mut t = target(&out, "/r");
            write(&mut t, "/r", b"v", 3).unwrap();
            write(&mut t, "/r/x", b"", 1).unwrap();
            write(&mut t, "/r/x/y", b"1", 0).unwrap();
            let refused = write(&mut t, "/r/%value", b"1", 0).unwrap_err();
            if others {
                fs::write(out.join("x/theirs"), "").unwrap();
            }
            Target::Directory(t).undo(&refused).to_string()
        };
        let said = failed(false);
        assert!(said.contains("--archive") && said.contains("is removed"), "{said}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nor the directories above it");
        fs::create_dir_all(&out).unwrap();
        failed(false);
        assert!(must_be_free(&out).is_ok() && out.exists(), "what was there stays");
        let said = failed(true);
        assert!(said.contains("cannot be removed") && said.contains("before the next try"), "{said}");
        assert!(out.join("x/theirs").exists() && !out.join("x/y").exists());
    }

    #[test]
    fn names_never_lead_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut t = target(&dir.path().join("out"), "/");
        write(&mut t, "/", b"", 1).unwrap();
        write(&mut t, "/%2E%2E", b"x", 0).unwrap_err();
        write(&mut t, "/..%2Fx", b"x", 0).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 0);
    }

    #[test]
    fn only_free_directories_are_used() {
        let dir = tempfile::tempdir().unwrap();
        assert!(must_be_free(dir.path()).is_ok() && must_be_free(&dir.path().join("new")).is_ok());
        fs::write(dir.path().join("x"), "").unwrap();
        assert!(must_be_free(dir.path()).is_err() && must_be_free(&dir.path().join("x")).is_err());
    }
}
