//! Small text files for people and programs: a line with kind and version, lines with a key and a
//! value, and a checksum.
//!
//! ```text
//! quorate epochs 3
//! accepted 7
//! current 6
//! crc32c 1a2b3c4d
//! ```
//!
//! The checksum is the CRC-32C of all lines before it, in hex.

/// The reason why such a file is unreadable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum BadText {
    /// Another version.
    Version(String),
    /// Its content does not match its checksum or its form.
    Damaged,
}

/// The file `kind` with these keys and values, which contain no line breaks.
pub(crate) fn encode(kind: &str, values: &[(&str, &str)]) -> String {
    let mut text = format!("quorate {kind} {VERSION}\n");
    for (word, value) in values {
        text.push_str(&format!("{word} {value}\n"));
    }
    let crc = crc32c::crc32c(text.as_bytes());
    text.push_str(&format!("{CRC}{crc:08x}\n"));
    text
}

/// The values of exactly these keys, in this order.
pub(crate) fn decode<const N: usize>(
    kind: &str,
    words: [&str; N],
    contents: &[u8],
) -> Result<[String; N], BadText> {
    let text = std::str::from_utf8(contents).map_err(|_| BadText::Damaged)?;
    let (body, crc) = text.rsplit_once(CRC).ok_or(BadText::Damaged)?;
    if crc != format!("{:08x}\n", crc32c::crc32c(body.as_bytes())) {
        return Err(BadText::Damaged);
    }
    let mut lines = body.lines();
    let head = lines.next().and_then(|line| line.strip_prefix(&format!("quorate {kind} ")));
    match head.ok_or(BadText::Damaged)? {
        VERSION => {}
        other => return Err(BadText::Version(other.to_owned())),
    }
    let mut values = [const { String::new() }; N];
    for (value, word) in values.iter_mut().zip(words) {
        let line = lines.next().and_then(|line| line.strip_prefix(word)?.strip_prefix(' '));
        line.ok_or(BadText::Damaged)?.clone_into(value);
    }
    if lines.next().is_some() { Err(BadText::Damaged) } else { Ok(values) }
}

/// The version of all these files.
pub(crate) const VERSION: &str = "3";
/// The beginning of the last line.
const CRC: &str = "crc32c ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_any_flipped_bit_is_found() {
        let text = encode("thing", &[("a", "1"), ("b", "two words")]);
        assert_eq!(text, "quorate thing 3\na 1\nb two words\ncrc32c bc1feb5e\n");
        assert_eq!(
            decode("thing", ["a", "b"], text.as_bytes()),
            Ok(["1".to_owned(), "two words".to_owned()])
        );
        assert_eq!(decode("other", ["a", "b"], text.as_bytes()), Err(BadText::Damaged));
        assert_eq!(decode("thing", ["a"], text.as_bytes()), Err(BadText::Damaged));
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone().into_bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode("thing", ["a", "b"], &flipped), Err(BadText::Damaged), "bit {bit}");
        }
        for cut in 0..text.len() {
            assert_eq!(decode("thing", ["a", "b"], &text.as_bytes()[..cut]), Err(BadText::Damaged));
        }
    }

    #[test]
    fn another_version_is_no_damage() {
        for other in ["2", "4"] {
            let body = format!("quorate thing {other}\nnew stuff\n");
            let text = format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()));
            assert_eq!(decode("thing", ["a"], text.as_bytes()), Err(BadText::Version(other.to_owned())));
        }
    }
}
