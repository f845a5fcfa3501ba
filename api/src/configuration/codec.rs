//! Rosters as bytes, the same on disks and on the wire. All numbers are little-endian.
//!
//! | bytes | |
//! |---|---|
//! | 8 | since |
//! | 1 | 0: one configuration follows, 1: two, the old one first |
//!
//! A configuration:
//!
//! | bytes | |
//! |---|---|
//! | 8 | version |
//! | 4 | number of removed ids; then 4 bytes each, ascending |
//! | 4 | number of members; then each, in order of ids |
//!
//! A member:
//!
//! | bytes | |
//! |---|---|
//! | 4 | id |
//! | 1 | 0: an observer, 1: a voter |
//! | 4, 4 | weight and group; 0 of an observer |
//! | 1 | length of the host; 0: no addresses follow |
//! | | host, in UTF-8 |
//! | 2, 2, 2 | ports of client API, quorum and election, if there is a host |

use std::collections::{BTreeMap, BTreeSet};

use crate::{Ensemble, Member, Membership, PeerId, Zxid};

use super::{Configuration, Contact, Roster};

/// Members of a configuration at most, and removed ids. [`Roster::decode`] refuses more.
pub const ROSTER_IDS_MAX: u32 = 1024;

/// No roster of this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no list of members that this version knows")]
pub struct BadRoster;

impl Roster {
    /// As bytes. A host of more than 255 bytes is left out with its ports. Not every roster can be read again: see
    /// [`Roster::can_be_read`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&self.since.0.to_le_bytes());
        out.push(u8::from(self.next.is_some()));
        self.configurations().for_each(|configuration| encode(configuration, &mut out));
        out
    }

    /// Whether its bytes give the same roster again. No log may get another one: no server could read it.
    #[must_use]
    pub fn can_be_read(&self) -> bool {
        Roster::decode(&self.encode()).as_ref() == Ok(self)
    }

    /// From bytes, all of which belong to it.
    ///
    /// # Errors
    /// They are no roster.
    pub fn decode(bytes: &[u8]) -> Result<Roster, BadRoster> {
        let mut from = From(bytes);
        let since = Zxid(from.u64()?);
        let two = from.bool()?;
        let current = from.configuration()?;
        let next = if two { Some(from.configuration()?) } else { None };
        if from.0.is_empty() { Ok(Roster { since, current, next }) } else { Err(BadRoster) }
    }
}

fn encode(configuration: &Configuration, out: &mut Vec<u8>) {
    let Configuration { version, ensemble, contacts, removed } = configuration;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    out.extend_from_slice(&version.0.to_le_bytes());
    out.extend_from_slice(&count(removed.len()));
    removed.iter().for_each(|id| out.extend_from_slice(&id.0.to_le_bytes()));
    out.extend_from_slice(&count(ensemble.members().count()));
    for (id, membership) in ensemble.members() {
        let (votes, weight, group) = match membership {
            Membership::Voter { weight, group } => (1, weight, group),
            Membership::Observer => (0, 0, 0),
        };
        out.extend_from_slice(&id.0.to_le_bytes());
        out.push(votes);
        out.extend_from_slice(&weight.to_le_bytes());
        out.extend_from_slice(&group.to_le_bytes());
        let contact = contacts.get(&id).and_then(|c| Some((u8::try_from(c.host.len()).ok()?, c)));
        match contact {
            Some((len @ 1.., contact)) => {
                out.push(len);
                out.extend_from_slice(contact.host.as_bytes());
                for port in [contact.client_port, contact.quorum_port, contact.election_port] {
                    out.extend_from_slice(&port.to_le_bytes());
                }
            }
            _ => out.push(0),
        }
    }
}

/// The bytes that are left.
struct From<'a>(&'a [u8]);

impl<'a> From<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], BadRoster> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(BadRoster)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadRoster> {
        self.take(N)?.try_into().map_err(|_| BadRoster)
    }

    fn u64(&mut self) -> Result<u64, BadRoster> {
        self.array().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, BadRoster> {
        self.array().map(u32::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, BadRoster> {
        self.array().map(u16::from_le_bytes)
    }

    fn bool(&mut self) -> Result<bool, BadRoster> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(BadRoster),
        }
    }

    fn count(&mut self) -> Result<u32, BadRoster> {
        self.u32().and_then(|count| if count > ROSTER_IDS_MAX { Err(BadRoster) } else { Ok(count) })
    }

    fn configuration(&mut self) -> Result<Configuration, BadRoster> {
        let version = Zxid(self.u64()?);
        let count = self.count()?;
        let removed: BTreeSet<PeerId> =
            (0..count).map(|_| self.u32().map(PeerId)).collect::<Result<_, _>>()?;
        let (mut members, mut contacts) = (Vec::new(), BTreeMap::new());
        for _ in 0..self.count()? {
            let id = PeerId(self.u32()?);
            let votes = self.bool()?;
            let (weight, group) = (self.u32()?, self.u32()?);
            let membership = match votes {
                true => Membership::Voter { weight, group },
                false => Membership::Observer,
            };
            members.push(Member { id, membership });
            let [len] = self.array()?;
            if len > 0 {
                let host = std::str::from_utf8(self.take(len.into())?).map_err(|_| BadRoster)?.to_owned();
                let (client_port, quorum_port, election_port) = (self.u16()?, self.u16()?, self.u16()?);
                contacts.insert(id, Contact { host, client_port, quorum_port, election_port });
            }
        }
        let ensemble = Ensemble::new(members).map_err(|_| BadRoster)?;
        Ok(Configuration { version, ensemble, contacts, removed })
    }
}
