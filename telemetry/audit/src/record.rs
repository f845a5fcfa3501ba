use std::{net::IpAddr, sync::Arc, time::SystemTime};

use api::{ErrorCode, Identities, Permissions, Scheme, SessionId, Zxid};
use serde::Serialize;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A session is open, new or taken up on another stream.
    SessionOpened,
    /// A session was not opened, or not given to the one who asked for it.
    SessionRefused,
    /// A client has closed its session.
    SessionClosed,
    /// A client has shown credentials on an open session.
    Authenticated,
    /// A request was carried out, or refused.
    Request,
    /// A connection was refused before its first request, such as one whose certificate is not good.
    ConnectionRefused,
    /// An operator has changed something of the node or the ensemble.
    Admin,
}

/// A client, as its edge knows it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Who {
    /// `scheme:id` of each; of a digest only the user, because whoever has the hash can try passwords.
    identities: Vec<String>,
    address: Option<IpAddr>,
    /// SHA-256 of its certificate, in hexadecimal.
    certificate: Option<Arc<str>>,
}

impl Who {
    /// With these identities, at this address, with a certificate of this fingerprint.
    #[must_use]
    pub fn new(identities: &Identities, address: Option<IpAddr>, certificate: Option<Arc<str>>) -> Who {
        let name = |identity: &api::Identity| match identity.scheme() {
            Scheme::Digest => {
                let user = identity.id().split_once(':').map_or("", |(user, _)| user);
                format!("digest:{user}")
            }
            scheme => format!("{scheme}:{}", identity.id()),
        };
        Who { identities: identities.as_slice().iter().map(name).collect(), address, certificate }
    }
}

/// One line of the log. What does not apply is left out.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// What happened.
    pub event: Event,
    /// By whom.
    pub who: &'a Who,
    /// In which session.
    pub session: Option<SessionId>,
    /// The kind of request, or the command of an operator.
    pub op: Option<&'a str>,
    /// What it was about.
    pub paths: &'a [String],
    /// The entry of the log that it became; of what changed nothing, how far the node had applied.
    pub zxid: Option<Zxid>,
    /// Why it failed.
    pub error: Option<ErrorCode>,
    /// The permission that was missing.
    pub missing: Option<Permissions>,
    /// Of a write: whether it expected a version or a creation, so that it was refused if it was outdated.
    pub conditional: Option<bool>,
    /// The trace that it is part of.
    pub trace: Option<[u8; 16]>,
    /// In words.
    pub detail: Option<String>,
}

impl<'a> Record<'a> {
    /// That this happened, and nothing else of it.
    #[must_use]
    pub fn new(event: Event, who: &'a Who) -> Record<'a> {
        Record {
            event,
            who,
            session: None,
            op: None,
            paths: &[],
            zxid: None,
            error: None,
            missing: None,
            conditional: None,
            trace: None,
            detail: None,
        }
    }

    /// As a line, without its end. Control characters are escaped, as JSON wants it.
    pub(crate) fn line(&self, node: u32, now: SystemTime) -> String {
        let line = Line {
            time: humantime::format_rfc3339_millis(now).to_string(),
            node,
            event: self.event,
            result: self.error.map_or("ok", ErrorCode::as_str),
            session: self.session.map(|session| session.to_string()),
            identities: &self.who.identities,
            address: self.who.address,
            certificate: self.who.certificate.as_deref(),
            op: self.op,
            paths: self.paths,
            zxid: self.zxid.map(|zxid| zxid.to_string()),
            missing: self.missing.map(|missing| missing.to_string()),
            conditional: self.conditional,
            trace: self.trace.map(|trace| format!("{:032x}", u128::from_be_bytes(trace))),
            detail: self.detail.as_deref(),
        };
        // Its parts are texts, numbers and lists of texts: none can fail.
        serde_json::to_string(&line).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    node: u32,
    event: Event,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    identities: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    paths: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    zxid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conditional: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use api::Identity;

    use super::*;

    #[test]
    fn a_line_has_what_is_known_and_no_secret() {
        let digest = Identity::new(Scheme::Digest, "ann:D/InIHSb7yEEbrWz8b9l71RjZJU=").unwrap();
        let subject = Identity::new(Scheme::X509, "CN=billing").unwrap();
        let address = "192.0.2.1".parse().ok();
        let who = Who::new(&Identities::new([digest, subject]).unwrap(), address, Some("ab12".into()));
        let record = Record {
            session: Some(SessionId(7)),
            op: Some("set_acl"),
            paths: &["/a\n{\"b\"".to_owned()],
            zxid: Some(Zxid(5)),
            error: Some(ErrorCode::NoAuth),
            missing: Some(Permissions::ADMIN),
            trace: Some([1; 16]),
            ..Record::new(Event::Request, &who)
        };
        let line = record.line(3, UNIX_EPOCH + Duration::from_millis(1500));
        assert!(!line.contains('\n') && !line.contains("D/In"), "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["time"], "1970-01-01T00:00:01.500Z");
        assert_eq!((&read["node"], &read["event"]), (&3.into(), &"request".into()));
        assert_eq!(read["identities"], serde_json::json!(["digest:ann", "x509:CN=billing"]));
        assert_eq!((&read["result"], &read["missing"]), (&"NO_AUTH".into(), &"ADMIN".into()));
        assert_eq!(read["paths"][0], "/a\n{\"b\"");
        assert_eq!((&read["address"], &read["certificate"]), (&"192.0.2.1".into(), &"ab12".into()));
        assert!(read.get("detail").is_none());
    }
}
