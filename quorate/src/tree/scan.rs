//! What is in a directory, before any of it is imported.

use std::{
    fs,
    path::{Path as FilePath, PathBuf},
};

use api::Path;

use super::{name, value};
use crate::exit::{Doing as _, Failure};

/// One file or directory, and the znode that it becomes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Item {
    pub(crate) znode: Path,
    pub(crate) source: PathBuf,
    pub(crate) is_directory: bool,
    /// Of a directory: the file that has the value of its znode.
    pub(crate) value: Option<PathBuf>,
}

impl Item {
    fn directory(znode: Path, source: PathBuf) -> Item {
        Item { znode, source, is_directory: true, value: None }
    }
}

/// What to leave out rather than refuse.
#[derive(Clone, Copy, Default)]
pub(crate) struct Skip {
    /// Symbolic links and special files.
    pub(crate) special: bool,
    /// Files above the limit.
    pub(crate) large: bool,
}

/// A directory tree that can be imported.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Scan {
    /// Parents before children; the directory itself first.
    pub(crate) items: Vec<Item>,
    /// What is left out on purpose, and why.
    pub(crate) left_out: Vec<String>,
    /// Symbolic links and special files.
    special: Vec<PathBuf>,
    /// Larger than the limit, with their sizes.
    too_large: Vec<(PathBuf, u64)>,
    /// Their znodes' paths would be too long.
    too_deep: Vec<PathBuf>,
}

impl Scan {
    /// Looks at everything in `directory`, which becomes `root`. Files are not opened. Links are not followed, apart
    /// from `directory` itself.
    pub(crate) fn of(directory: &FilePath, root: &Path, max_size: u64, skip: Skip) -> Result<Scan, Failure> {
        if !directory.is_dir() {
            return Err(Failure::usage(format!(
                "{} is not a directory; to store one file, use `quorate create {root} --file {}`",
                directory.display(),
                directory.display()
            )));
        }
        let mut scan = Scan::default();
        // And which item each of them is.
        let mut stack = vec![(directory.to_owned(), root.clone(), 0)];
        scan.items.push(Item::directory(root.clone(), directory.to_owned()));
        while let Some((source, znode, item)) = stack.pop() {
            let list = fs::read_dir(&source).doing(format_args!("list {}", source.display()))?;
            for entry in list {
                let entry = entry.doing(format_args!("list {}", source.display()))?;
                let kind = entry.file_type().doing(format_args!("look at {}", entry.path().display()))?;
                let source = entry.path();
                if !kind.is_dir() && !kind.is_file() {
                    if skip.special {
                        scan.left_out.push(format!("{}: neither a file nor a directory", source.display()));
                    } else {
                        scan.special.push(source);
                    }
                    continue;
                }
                let Ok(znode) = znode.child(&name::to_znode(&entry.file_name())) else {
                    scan.too_deep.push(source);
                    continue;
                };
                if kind.is_file() {
                    let size = entry.metadata().doing(format_args!("look at {}", source.display()))?.len();
                    if size > max_size && skip.large {
                        scan.left_out.push(format!("{}: {size} bytes", source.display()));
                        continue;
                    }
                    if size > max_size {
                        scan.too_large.push((source.clone(), size));
                    }
                    match scan.items.get_mut(item) {
                        Some(directory) if entry.file_name() == value::VALUE => {
                            directory.value = Some(source)
                        }
                        _ => scan.items.push(Item { znode, source, is_directory: false, value: None }),
                    }
                } else {
                    stack.push((source.clone(), znode.clone(), scan.items.len()));
                    scan.items.push(Item::directory(znode, source));
                }
            }
        }
        Ok(scan)
    }

    /// Why this tree cannot be imported, if so.
    pub(crate) fn check(&self, max_size: u64) -> Result<(), Failure> {
        let mut faults = Vec::new();
        let large =
            self.too_large.iter().map(|(path, size)| format!("{} ({size} bytes)", path.display())).collect();
        faults.extend(list(
            "larger than --max-size (--skip-large leaves them out; or raise it, and `limits.data` of all nodes)",
            large,
        ));
        faults.extend(list(
            "too deep: the znode's path would be longer than 8192 bytes, or have more than 256 elements",
            self.too_deep.iter().map(|p| p.display().to_string()).collect(),
        ));
        faults.extend(list(
            "neither files nor directories (--skip-special leaves them out)",
            self.special.iter().map(|p| p.display().to_string()).collect(),
        ));
        if faults.is_empty() {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "nothing was imported (--max-size is {max_size} bytes):\n{}",
            faults.join("\n")
        )))
    }
}

fn list(what: &str, paths: Vec<String>) -> Option<String> {
    const SHOWN: usize = 20;
    if paths.is_empty() {
        return None;
    }
    let more = match paths.len().saturating_sub(SHOWN) {
        0 => String::new(),
        n => format!("\n  and {n} more"),
    };
    let shown: Vec<String> = paths.into_iter().take(SHOWN).collect();
    Some(format!("{what}:\n  {}{more}", shown.join("\n  ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_names_parents_first_and_everything_that_cannot_be_imported() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("a/empty")).unwrap();
        fs::write(root.join("a/100%"), b"12345").unwrap();
        std::os::unix::fs::symlink("a", root.join("link")).unwrap();
        let target = Path::new("/t").unwrap();

        let scan = Scan::of(root, &target, 4, Skip::default()).unwrap();
        let mut znodes: Vec<&str> = scan.items.iter().map(|i| i.znode.as_str()).collect();
        assert_eq!(znodes[..2], ["/t", "/t/a"]);
        znodes.sort_unstable();
        assert_eq!(znodes, ["/t", "/t/a", "/t/a/100%25", "/t/a/empty"]);
        assert_eq!(scan.special, [root.join("link")]);
        let text = scan.check(4).unwrap_err().to_string();
        assert!(text.contains("100% (5 bytes)") && text.contains("link"), "{text}");

        let special = Skip { special: true, large: false };
        let scan = Scan::of(root, &target, 4, special).unwrap();
        assert!(!scan.check(4).unwrap_err().to_string().contains("link"));
        assert!(Scan::of(root, &target, 5, special).unwrap().check(5).is_ok());
        let scan = Scan::of(root, &target, 4, Skip { special: true, large: true }).unwrap();
        assert!(scan.check(4).is_ok());
        assert_eq!((scan.items.len(), scan.left_out.len()), (3, 2), "{scan:?}");

        let file = Scan::of(&root.join("a/100%"), &target, 5, special).unwrap_err().to_string();
        assert!(file.contains("not a directory"), "{file}");
    }

    #[test]
    fn long_lists_are_cut() {
        let paths = (0..25).map(|i| i.to_string()).collect();
        assert!(list("x", paths).unwrap().ends_with("19\n  and 5 more"));
    }
}
