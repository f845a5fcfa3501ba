//! File names as znode names and back.
//!
//! A znode name is text without control characters and a few others (`api::Path`); a file name is any bytes but NUL
//! and the slash. Names are the same wherever that is possible. What no znode name may have, and the percent sign, is
//! written as `%XX`, one for each byte, with capital digits. No two file names become the same znode name, and not every znode
//! name comes from a file name.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
};

use api::Path;

/// The znode name of a file name.
pub(crate) fn to_znode(name: &OsStr) -> String {
    let mut out = String::with_capacity(name.len());
    for chunk in name.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c != '%' && is_allowed(c) {
                out.push(c);
            } else {
                escape(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        escape(&mut out, chunk.invalid());
    }
    out
}

/// The file name that [`to_znode`] makes into this znode name; `None` if there is none, because the name has a percent sign that
/// does not encode another character. So nothing that a znode can be called leads out of the directory.
pub(crate) fn to_file(name: &str) -> Option<OsString> {
    let file = OsString::from_vec(unescape(name).filter(|bytes| !bytes.contains(&0))?);
    (to_znode(&file) == name).then_some(file)
}

/// Whether a znode name may have this character, by the rule of `api::Path` and no second one.
fn is_allowed(c: char) -> bool {
    // Plain characters without asking; the dot only counts when it stands alone, which no file name does.
    c.is_ascii_alphanumeric()
        || c == '.'
        || Path::root().child(c.encode_utf8(&mut [0; 4])).is_ok()
        || c == '/'
}

fn escape(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for b in bytes {
        out.push('%');
        for nibble in [b >> 4, b & 15] {
            out.push(char::from(DIGITS[usize::from(nibble)]));
        }
    }
}

fn unescape(name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        if b != b'%' {
            out.push(b);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        rest = tail;
        out.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn znode(name: &[u8]) -> String {
        to_znode(OsStr::from_bytes(name))
    }

    #[test]
    fn plain_names_are_kept_and_others_escaped() {
        assert_eq!(znode(b"Cargo.toml"), "Cargo.toml");
        assert_eq!(znode("grün und blau".as_bytes()), "grün und blau");
        assert_eq!(znode(b"100%"), "100%25");
        assert_eq!(znode(b"a\nb"), "a%0Ab");
        assert_eq!(znode(b"\xff\xfe"), "%FF%FE");
        assert_eq!(znode("😀".as_bytes()), "%F0%9F%98%80", "ZooKeeper's rules stop at U+FFFF");
    }

    #[test]
    fn no_znode_name_leads_out_of_the_directory() {
        for name in ["%2F", "%2E%2E", "%2E", "%00", "%2e%2e%2fetc", "100%", "%zz", "%4", "%+1", "%41"] {
            assert_eq!(to_file(name), None, "{name} is not from an import");
        }
    }

    proptest! {
        #[test]
        fn every_file_name_is_a_valid_znode_name_and_comes_back(
            name in proptest::collection::vec(any::<u8>().prop_filter("not in a file name", |b| ![0, b'/'].contains(b)), 1..40)
        ) {
            prop_assume!(name != b"." && name != b"..");
            let znode = znode(&name);
            prop_assert!(Path::root().child(&znode).is_ok(), "{znode}");
            prop_assert_eq!(to_file(&znode).unwrap().into_vec(), name);
        }

        #[test]
        fn every_text_comes_back_and_never_has_a_slash(name in "[^/\u{0}]{1,20}") {
            prop_assume!(name != "." && name != "..");
            prop_assert_eq!(to_file(&to_znode(OsStr::new(&name))), Some(OsString::from(&name)));
            prop_assert!(to_file(&name).is_none_or(|file| !file.as_bytes().contains(&b'/')));
        }
    }
}
