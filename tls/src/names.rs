//! The names that certificates carry.

use std::collections::BTreeSet;

use api::PeerId;
use rustls::pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, prelude::FromDer, prelude::X509Certificate};

/// The DNS name in a member's certificate: `member-1.orders.quorate` for member 1 of the ensemble `orders`. No such host need exist.
#[must_use]
pub fn member_name(ensemble: &str, id: PeerId) -> String {
    format!("member-{id}.{ensemble}.quorate", id = id.0)
}

/// The DNS name in a gateway's certificate, with which it opens the internal ports of stores: `gateway.orders.quorate`.
#[must_use]
pub fn gateway_name(ensemble: &str) -> String {
    format!("gateway.{ensemble}.quorate")
}

/// Whether this is one of the DNS names of a certificate: the whole name, not a wildcard.
pub(crate) fn carries(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    let is =
        |own: &GeneralName<'_>| matches!(own, GeneralName::DNSName(own) if own.eq_ignore_ascii_case(name));
    names.value.general_names.iter().any(is)
}

/// The members of the ensemble that a certificate speaks for, by its alternative names (never its common name).
pub(crate) fn members_named(certificate: &CertificateDer<'_>, ensemble: &str) -> BTreeSet<PeerId> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return BTreeSet::new() };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return BTreeSet::new() };
    let suffix = format!(".{ensemble}.quorate").to_lowercase();
    let member = |name: &GeneralName<'_>| {
        let GeneralName::DNSName(name) = name else { return None };
        let name = name.to_lowercase();
        let id = name.strip_suffix(&suffix)?.strip_prefix("member-")?.parse().ok().map(PeerId)?;
        // One way to write it: no sign, no leading zero.
        (name == member_name(ensemble, id).to_lowercase()).then_some(id)
    };
    names.value.general_names.iter().filter_map(member).collect()
}

/// The subject of a certificate as RFC 2253 writes it, the last part first: `CN=billing,O=Example`. ZooKeeper's lists name clients
/// so. `None` for an empty one, or one that is no text.
pub(crate) fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut parts: Vec<String> = Vec::new();
    for set in parsed.subject().iter_rdn() {
        let mut attributes = Vec::new();
        for attribute in set.iter() {
            let oid = attribute.attr_type();
            let name = KEYWORDS.iter().find(|(id, _)| *id == oid.to_id_string()).map(|(_, name)| *name);
            let name = name.map_or_else(|| oid.to_id_string(), str::to_owned);
            attributes.push(format!("{name}={}", escaped(attribute.as_str().ok()?)));
        }
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    Some(parts.join(",")).filter(|subject| !subject.is_empty())
}

/// SHA-256 of a certificate, in hexadecimal.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 2253, section 2.4.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let special = |(i, c): (usize, char)| {
        let escape = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (i == 0 && matches!(c, '#' | ' '))
            || (i == last && c == ' ');
        [escape.then_some('\\'), Some(c)].into_iter().flatten()
    };
    value.chars().enumerate().flat_map(special).collect()
}

/// RFC 2253, section 2.3.
const KEYWORDS: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// From when until when a certificate is good, in seconds since 1970.
#[derive(Clone, Copy)]
pub(crate) struct Validity {
    pub(crate) from: i64,
    pub(crate) until: i64,
}

/// All zero if it cannot be read.
pub(crate) fn validity(certificate: &CertificateDer<'_>) -> Validity {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Validity { from: 0, until: 0 };
    };
    let validity = parsed.validity();
    Validity { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() }
}
