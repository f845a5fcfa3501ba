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
