//! Parsers of values. Each error says what it expects.

use std::time::Duration;

use api::Zxid;
use clap::builder::TypedValueParser;
use host::config::{Setting as _, Size, behind_scheme};

/// With or without `http://` or `https://`; the second one stays.
pub(super) fn endpoint(text: &str) -> Result<String, String> {
    let secured = behind_scheme(text, "https://");
    let text = secured.or_else(|| behind_scheme(text, "http://")).unwrap_or(text);
    let text = text.strip_suffix('/').unwrap_or(text);
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parts {
        Some((host, port)) if port != 0 && !host.is_empty() && !host.contains(['/', '@']) => {
            Ok(if secured.is_some() { format!("https://{text}") } else { text.to_owned() })
        }
        _ => Err(EXPECTED_ENDPOINT.to_owned()),
    }
}

pub(super) const EXPECTED_ENDPOINT: &str = "expected host:port, as in 127.0.0.1:2188";

/// The maximum of a wait; zero makes no sense.
pub(super) fn limit(text: &str) -> Result<Duration, String> {
    let limit = Duration::parse(text).filter(|limit| !limit.is_zero());
    limit.ok_or_else(|| format!("expected {}, above 0", Duration::EXPECTED))
}

pub(super) fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "expected a number from 0 to 1, as in 0.01".to_owned())
}

pub(super) fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, as in timing.tick=100ms")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

pub(super) fn size(text: &str) -> Result<Size, String> {
    Size::parse(text).ok_or_else(|| format!("expected {}", Size::EXPECTED))
}

pub(super) fn zxid(text: &str) -> Result<Zxid, String> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    let hex = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    hex.map(Zxid).ok_or_else(|| "expected a zxid as `quorate stat` prints it, as in 0x100000007".to_owned())
}

pub(super) fn version() -> impl TypedValueParser<Value = i32> {
    clap::value_parser!(i32).range(0..)
}

pub(super) fn in_flight() -> impl TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(1..=16_384)
}
