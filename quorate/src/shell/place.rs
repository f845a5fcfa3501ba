//! Paths in the shell: relative to the current znode.

use api::Path;

use crate::exit::Failure;

/// The path that `text` names for someone at `here`. `.` and `..` stand for a znode and its parent, `..` of the root is the
/// root, and a slash at the end counts for nothing.
pub(super) fn resolve(here: &Path, text: &str) -> Result<Path, Failure> {
    let path = joined(here, text);
    Path::new(&path).map_err(|e| Failure::usage(format!("{text:?}: {e}")))
}

/// The same for what stands before the digits of a sequential znode, where a slash at the end counts.
pub(super) fn resolve_prefix(here: &Path, text: &str) -> Result<Path, Failure> {
    let mut path = joined(here, text);
    if text.ends_with('/') && path != "/" {
        path.push('/');
    }
    Path::prefix(&path).map_err(|e| Failure::usage(format!("{text:?}: {e}")))
}

fn joined(here: &Path, text: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    let from = if text.starts_with('/') { "" } else { here.as_str() };
    for name in from.split('/').chain(text.split('/')) {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_those_of_a_shell() {
        let here = Path::new("/app/config").unwrap();
        for (text, expected) in [
            ("", "/app/config"),
            (".", "/app/config"),
            ("..", "/app"),
            ("../..", "/"),
            ("../../../..", "/"),
            ("/", "/"),
            ("/b/", "/b"),
            ("a", "/app/config/a"),
            ("./a/../b/", "/app/config/b"),
            ("/x//y", "/x/y"),
        ] {
            assert_eq!(resolve(&here, text).unwrap().as_str(), expected, "{text:?}");
        }
        assert!(resolve(&here, "a\0b").unwrap_err().to_string().contains("a\\0b"));
        assert_eq!(resolve_prefix(&here, "n-").unwrap().as_str(), "/app/config/n-");
        assert_eq!(resolve_prefix(&here, "../").unwrap().as_str(), "/app/");
        assert_eq!(resolve_prefix(&here, "/").unwrap().as_str(), "/");
    }
}
