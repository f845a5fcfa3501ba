//! Strings as ZooKeeper's Java library writes them.

/// UTF-8, and what Java makes of characters beyond the basic multilingual plane: two surrogates of three bytes each. What is neither
/// becomes U+FFFD, which no path may have.
pub(crate) fn decode(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => decode_odd(bytes),
    }
}

fn decode_odd(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    while !bytes.is_empty() {
        let valid = match std::str::from_utf8(bytes) {
            Ok(rest) => rest.len(),
            Err(e) => e.valid_up_to(),
        };
        let (good, rest) = bytes.split_at(valid);
        text.push_str(&String::from_utf8_lossy(good));
        bytes = rest;
        if let Some(c) = pair(bytes) {
            text.push(c);
            bytes = &bytes[6..];
        } else if let Some((_, rest)) = bytes.split_first() {
            text.push(char::REPLACEMENT_CHARACTER);
            bytes = rest;
        }
    }
    text
}

/// Two surrogates at the front.
fn pair(bytes: &[u8]) -> Option<char> {
    let &[0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d @ 0x80..=0xbf, ..] = bytes else {
        return None;
    };
    let ten_bits = |six: u8, low: u8| u32::from(six & 0x0f) << 6 | u32::from(low & 0x3f);
    char::from_u32(0x1_0000 + (ten_bits(a, b) << 10 | ten_bits(c, d)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_java_and_others_are_read_and_nonsense_becomes_a_replacement() {
        assert_eq!(decode("/ä\u{1f600}".as_bytes()), "/ä\u{1f600}");
        assert_eq!(decode(b"a\xed\xa0\xbd\xed\xb8\x80b"), "a\u{1f600}b", "as Java writes it");
        assert_eq!(decode(b"a\xed\xa0\xbdb"), "a\u{fffd}\u{fffd}\u{fffd}b", "half a pair");
        assert_eq!(decode(b"\xff/a\xc3"), "\u{fffd}/a\u{fffd}");
    }
}
