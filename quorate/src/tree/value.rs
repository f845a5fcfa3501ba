//! Files and directories as values of znodes.
//!
//! The value of a file's znode is the file's bytes. The value of a directory's znode is [`DIRECTORY`], so that an empty
//! directory is not an empty file. Should a file begin as that does, [`FILE`] is put before it. So any tree comes back
//! as it was, and anybody may read a file by `quorate get`.

use bytes::Bytes;

/// The value of a directory. NUL, because hardly any file begins with one.
pub(crate) const DIRECTORY: &[u8] = b"\0quorate:directory";

/// What a znode stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A directory.
    Directory,
    /// A file with these bytes.
    File(Bytes),
}

/// The value of the znode of a file.
pub(crate) fn of_file(content: Vec<u8>) -> Bytes {
    if content.starts_with(MARK) { [FILE, &content].concat().into() } else { content.into() }
}

/// What the znode with this value stands for.
pub(crate) fn kind(value: Bytes) -> Kind {
    if value == DIRECTORY {
        Kind::Directory
    } else if value.starts_with(FILE) {
        Kind::File(value.slice(FILE.len()..))
    } else {
        Kind::File(value)
    }
}

/// What is put before a file that begins with [`MARK`].
const FILE: &[u8] = b"\0quorate:file:";
/// How both of the above begin.
const MARK: &[u8] = b"\0quorate:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_content_comes_back_and_is_no_directory() {
        let nested = of_file(of_file(DIRECTORY.to_vec()).to_vec()).to_vec();
        for content in [b"".to_vec(), b"x".to_vec(), MARK.to_vec(), DIRECTORY.to_vec(), FILE.to_vec(), nested]
        {
            assert_eq!(kind(of_file(content.clone())), Kind::File(content.into()));
        }
        assert_eq!(kind(Bytes::from_static(DIRECTORY)), Kind::Directory);
        assert_eq!(of_file(b"plain".to_vec()), "plain");
    }
}
