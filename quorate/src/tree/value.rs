//! Files and directories as values of znodes.
//!
//! The value of a file's znode is the file's bytes. The value of a directory's znode is [`DIRECTORY`], so that an empty
//! directory is not an empty file. Should a file begin as that does, [`FILE`] is put before it. So any tree comes back
//! as it was, and anybody may read a file by `quorate get`.
//!
//! A directory that has a file called [`VALUE`] has that file's bytes as the value of its znode instead, as they are: so any value
//! comes back, also of a znode with children.

use bytes::Bytes;

/// The value of a directory. NUL, because hardly any file begins with one.
pub(crate) const DIRECTORY: &[u8] = b"\0quorate:directory";

/// In a directory, the value of its znode.
pub(crate) const VALUE: &str = "%value";

/// The value of the znode of a file.
pub(crate) fn of_file(content: Vec<u8>) -> Bytes {
    if content.starts_with(MARK) { [FILE, &content].concat().into() } else { content.into() }
}

/// The content of the file that [`of_file`] makes into this value, if there is one.
pub(crate) fn to_file(value: &Bytes) -> Option<Bytes> {
    if !value.starts_with(MARK) {
        return Some(value.clone());
    }
    value.starts_with(FILE).then(|| value.slice(FILE.len()..)).filter(|content| content.starts_with(MARK))
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
            assert_eq!(to_file(&of_file(content.clone())), Some(content.into()));
        }
        for value in [DIRECTORY, MARK, FILE, b"\0quorate:file:plain"] {
            assert_eq!(to_file(&Bytes::from_static(value)), None, "no file has this value");
        }
        assert_eq!(of_file(b"plain".to_vec()), "plain");
    }
}
