use std::{fmt, sync::Arc};

/// Why a string is no path. The messages name the remedy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum PathError {
    /// The empty string.
    #[error("the path is empty; the root is written /")]
    Empty,
    /// Something before the first slash.
    #[error("the path does not start with /; write it from the root, as in /app/config")]
    NotAbsolute,
    /// `/a/`
    #[error("the path ends with /; leave the last slash out")]
    TrailingSlash,
    /// `//`
    #[error("the path has an empty element (//) at byte {0}; write one slash")]
    EmptyElement(usize),
    /// `.` or `..`
    #[error("the path has a relative element (. or ..) at byte {0}; write the full path")]
    RelativeElement(usize),
    /// A character that ZooKeeper forbids as well.
    #[error("the path has the character {ch:?} at byte {at}, which no znode name may have")]
    BadCharacter {
        /// The character.
        ch: char,
        /// Its byte offset.
        at: usize,
    },
    /// More elements than [`Path::MAX_ELEMENTS`].
    #[error("the path has {0} elements, more than the {max} allowed; use a flatter tree", max = Path::MAX_ELEMENTS)]
    TooDeep(usize),
    /// Longer than [`Path::MAX_BYTES`].
    #[error("the path has {0} bytes, more than the {max} allowed", max = Path::MAX_BYTES)]
    TooLong(usize),
}

/// The full name of a znode: `/`, or elements each preceded by a slash. Cheap to clone.
///
/// The rules are those of ZooKeeper's `PathUtils.validatePath`: absolute, no empty, `.` or `..` element, no trailing
/// slash, none of the characters U+0000 to U+001F, U+007F to U+009F, U+D800 to U+F8FF, U+FFF0 to U+FFFF, nor any
/// beyond the basic multilingual plane.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Arc<str>);

impl Path {
    /// Longest path in bytes. ZooKeeper has no limit of its own here but that of a request.
    pub const MAX_BYTES: usize = 8 * 1024;

    /// Most elements of a path. Each change of a znode is counted in all znodes above it. ZooKeeper has no such limit.
    pub const MAX_ELEMENTS: usize = 256;

    /// Checks and builds.
    ///
    /// # Errors
    /// The first rule that `s` breaks.
    pub fn new(s: &str) -> Result<Path, PathError> {
        check(s)?;
        Ok(Path(Arc::from(s)))
    }

    /// What a sequential create puts its number behind: a path, or one with a slash behind it for a znode whose name is the
    /// number alone. Not the name of a znode then, and of use only for that.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn prefix(s: &str) -> Result<Path, PathError> {
        match s.strip_suffix('/') {
            // Names like others, once there is a number behind them.
            None if s.ends_with("/.") || s.ends_with("/..") => {
                check(&format!("{s}0")).map(|()| Path(Arc::from(s)))
            }
            None | Some("") => Path::new(s),
            Some("/") => Err(PathError::EmptyElement(1)),
            Some(_) if s.len() > Path::MAX_BYTES => Err(PathError::TooLong(s.len())),
            Some(parent) => {
                check(parent)?;
                // The number is an element of its own.
                deep(elements(parent) + 1).map(|()| Path(Arc::from(s)))
            }
        }
    }

    /// `/`, which always exists.
    #[must_use]
    pub fn root() -> Path {
        Path(Arc::from("/"))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// The path above, `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Path> {
        Some(Path(Arc::from(self.parent_str()?)))
    }

    /// The text of the path above, `None` for the root.
    #[must_use]
    pub fn parent_str(&self) -> Option<&str> {
        if self.is_root() {
            return None;
        }
        match self.0.rfind('/') {
            Some(0) | None => Some("/"),
            Some(i) => Some(&self.0[..i]),
        }
    }

    /// Whether this is that path, or one below it.
    #[must_use]
    pub fn is_within(&self, top: &Path) -> bool {
        top.is_root()
            || self.0.strip_prefix(&*top.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The last element; empty for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rfind('/').map_or("", |i| &self.0[i + 1..])
    }

    /// The path of a child.
    ///
    /// # Errors
    /// If `name` breaks a rule, also if it contains a slash at its end or is empty.
    pub fn child(&self, name: &str) -> Result<Path, PathError> {
        let s = if self.is_root() { format!("/{name}") } else { format!("{}/{name}", self.0) };
        Path::new(&s)
    }

    /// This path with `suffix` behind it, as sequential creates need.
    ///
    /// # Errors
    /// If the result breaks a rule.
    pub fn with_suffix(&self, suffix: &str) -> Result<Path, PathError> {
        let s = format!("{}{suffix}", self.0);
        Path::new(&s)
    }
}

/// So that maps with paths as keys can be searched by text. Equality, order and hash are those of the text.
impl std::borrow::Borrow<str> for Path {
    fn borrow(&self) -> &str {
        &self.0
    }
}

fn check(s: &str) -> Result<(), PathError> {
    if s.is_empty() {
        return Err(PathError::Empty);
    }
    if s.len() > Path::MAX_BYTES {
        return Err(PathError::TooLong(s.len()));
    }
    if !s.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if s == "/" {
        return Ok(());
    }
    if s.ends_with('/') {
        return Err(PathError::TrailingSlash);
    }
    deep(elements(s))?;
    let mut at = 1;
    for element in s[1..].split('/') {
        match element {
            "" => return Err(PathError::EmptyElement(at)),
            "." | ".." => return Err(PathError::RelativeElement(at)),
            _ => {}
        }
        at += element.len() + 1;
    }
    // Most names are plain ASCII; one pass over the bytes settles those.
    if s.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Ok(());
    }
    match s.char_indices().find(|&(_, c)| forbidden(c)) {
        Some((at, ch)) => Err(PathError::BadCharacter { ch, at }),
        None => Ok(()),
    }
}

/// Of a path that is not the root.
fn elements(s: &str) -> usize {
    s.bytes().filter(|&b| b == b'/').count()
}

fn deep(elements: usize) -> Result<(), PathError> {
    if elements > Path::MAX_ELEMENTS { Err(PathError::TooDeep(elements)) } else { Ok(()) }
}

fn forbidden(c: char) -> bool {
    matches!(c, '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..)
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::str::FromStr for Path {
    type Err = PathError;
    fn from_str(s: &str) -> Result<Path, PathError> {
        Path::new(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_paths() {
        for s in ["/", "/a", "/a/b", "/a b", "/a.b", "/...", "/äö", "/a\u{2028}b"] {
            assert_eq!(Path::new(s).unwrap().as_str(), s);
        }
    }

    #[test]
    fn malformed_paths_are_refused_by_name() {
        for (s, e) in [
            ("", PathError::Empty),
            ("a", PathError::NotAbsolute),
            ("/a/", PathError::TrailingSlash),
            ("//a", PathError::EmptyElement(1)),
            ("/a//b", PathError::EmptyElement(3)),
            ("/./a", PathError::RelativeElement(1)),
            ("/a/..", PathError::RelativeElement(3)),
            ("/a\0", PathError::BadCharacter { ch: '\0', at: 2 }),
            ("/a\u{7f}", PathError::BadCharacter { ch: '\u{7f}', at: 2 }),
            ("/\u{e000}", PathError::BadCharacter { ch: '\u{e000}', at: 1 }),
            ("/\u{1f600}", PathError::BadCharacter { ch: '\u{1f600}', at: 1 }),
        ] {
            assert_eq!(Path::new(s), Err(e), "{s:?}");
        }
        let long = format!("/{}", "x".repeat(Path::MAX_BYTES));
        assert_eq!(Path::new(&long), Err(PathError::TooLong(Path::MAX_BYTES + 1)));
    }

    #[test]
    fn b08_a_path_has_a_bounded_number_of_elements() {
        let deep = "/a".repeat(Path::MAX_ELEMENTS);
        let path = Path::new(&deep).unwrap();
        let too_deep = Err(PathError::TooDeep(Path::MAX_ELEMENTS + 1));
        assert_eq!(path.child("b"), too_deep);
        assert_eq!(Path::prefix(&format!("{deep}/")), too_deep);
        assert!(path.with_suffix("b").is_ok() && Path::prefix(&deep).is_ok());
    }

    #[test]
    fn a_prefix_may_end_with_a_slash_and_with_no_other_fault() {
        for (s, parent, full) in [("/", "", "/7"), ("/q/", "/q", "/q/7"), ("/q/x-", "/q", "/q/x-7")] {
            let prefix = Path::prefix(s).unwrap();
            assert_eq!(prefix.parent_str().unwrap_or_default(), parent);
            assert_eq!(prefix.with_suffix("7").unwrap().as_str(), full);
        }
        assert_eq!(Path::prefix("/a//"), Err(PathError::TrailingSlash));
        assert_eq!(Path::prefix("//"), Err(PathError::EmptyElement(1)));
        assert_eq!(Path::prefix("a/"), Err(PathError::NotAbsolute));
        let long = format!("/{}/", "x".repeat(Path::MAX_BYTES - 1));
        assert_eq!(Path::prefix(&long), Err(PathError::TooLong(Path::MAX_BYTES + 1)));
    }

    #[test]
    fn up_and_down() {
        let p = Path::new("/a/b").unwrap();
        assert_eq!(p.name(), "b");
        assert_eq!(p.parent().unwrap().as_str(), "/a");
        assert_eq!(p.parent().unwrap().parent(), Some(Path::root()));
        assert_eq!(Path::root().parent(), None);
        assert_eq!(Path::root().child("x").unwrap().as_str(), "/x");
        assert!(p.child("").is_err() && p.child("c/").is_err());
    }
}
