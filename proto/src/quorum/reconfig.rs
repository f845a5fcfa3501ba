//! Changes of the members.

use api::{Configuration, PeerId, Reconfig, ReconfigRefusal, Roster, Ticket, Zxid};

use super::{empty, roster};
use crate::{Malformed, peer};

use peer::reconfig_refused::Reason;

/// For the wire.
#[must_use]
pub fn reconfig_to_wire(reconfig: Reconfig) -> peer::Reconfig {
    let Reconfig { expected, ensemble, contacts, force } = reconfig;
    let configuration = Configuration { version: expected, contacts, ..Configuration::initial(ensemble) };
    peer::Reconfig { members: Roster::settled(Zxid::ZERO, configuration).encode().into(), force }
}

/// From the wire.
///
/// # Errors
/// The members are none that this version knows.
pub fn reconfig(reconfig: peer::Reconfig) -> Result<Reconfig, Malformed> {
    let Configuration { version: expected, ensemble, contacts, .. } =
        roster(&reconfig.members)?.current().clone();
    Ok(Reconfig { expected, ensemble, contacts, force: reconfig.force })
}

/// For the wire.
#[must_use]
pub fn reconfigured_to_wire(ticket: Ticket, result: Result<Zxid, ReconfigRefusal>) -> peer::Reconfigured {
    use peer::reconfigured::Result as Wire;
    let result = match result {
        Ok(version) => Wire::Version(version.0),
        Err(refusal) => Wire::Refused(refusal_to_wire(refusal)),
    };
    peer::Reconfigured { ticket: ticket.0, result: Some(result) }
}

/// From the wire.
///
/// # Errors
/// If it says nothing that this version knows.
pub fn reconfigured(
    answer: peer::Reconfigured,
) -> Result<(Ticket, Result<Zxid, ReconfigRefusal>), Malformed> {
    use peer::reconfigured::Result as Wire;
    let result = match answer.result.ok_or_else(|| empty("Reconfigured"))? {
        Wire::Version(version) => Ok(Zxid(version)),
        Wire::Refused(refused) => Err(refusal(refused)?),
    };
    Ok((Ticket(answer.ticket), result))
}

fn refusal_to_wire(refusal: ReconfigRefusal) -> peer::ReconfigRefused {
    let ids = |ids: Vec<PeerId>| ids.into_iter().map(|id| id.0).collect();
    let of = |reason: Reason| peer::ReconfigRefused { reason: reason.into(), ..Default::default() };
    match refusal {
        ReconfigRefusal::Unavailable(text) => peer::ReconfigRefused { text, ..of(Reason::Unavailable) },
        ReconfigRefusal::Invalid(text) => peer::ReconfigRefused { text, ..of(Reason::Invalid) },
        ReconfigRefusal::InProgress { version, waits_for } => {
            peer::ReconfigRefused { version: version.0, ids: ids(waits_for), ..of(Reason::InProgress) }
        }
        ReconfigRefusal::VersionMoved { expected, actual } => {
            peer::ReconfigRefused { version: actual.0, expected: expected.0, ..of(Reason::VersionMoved) }
        }
        ReconfigRefusal::NotSynced { members } => {
            let behind = members.iter().map(|(_, behind)| behind.map_or(0, |b| b.saturating_add(1)));
            peer::ReconfigRefused {
                behind: behind.collect(),
                ids: members.iter().map(|(id, _)| id.0).collect(),
                ..of(Reason::NotSynced)
            }
        }
        ReconfigRefusal::WouldLoseQuorum { live, of: all } => peer::ReconfigRefused {
            ids: ids(live),
            of: u32::try_from(all).unwrap_or(u32::MAX),
            ..of(Reason::WouldLoseQuorum)
        },
        ReconfigRefusal::IdReused { ids: reused } => {
            peer::ReconfigRefused { ids: ids(reused), ..of(Reason::IdReused) }
        }
    }
}

fn refusal(refused: peer::ReconfigRefused) -> Result<ReconfigRefusal, Malformed> {
    let reason = refused.reason();
    let peer::ReconfigRefused { text, version, expected, ids, behind, of, .. } = refused;
    let ids: Vec<PeerId> = ids.into_iter().map(PeerId).collect();
    Ok(match reason {
        Reason::Unspecified => return Err(empty("ReconfigRefused.reason")),
        Reason::Unavailable => ReconfigRefusal::Unavailable(text),
        Reason::Invalid => ReconfigRefusal::Invalid(text),
        Reason::InProgress => ReconfigRefusal::InProgress { version: Zxid(version), waits_for: ids },
        Reason::VersionMoved => {
            ReconfigRefusal::VersionMoved { expected: Zxid(expected), actual: Zxid(version) }
        }
        Reason::NotSynced => {
            let behind = behind.into_iter().chain(std::iter::repeat(0)).map(|b| b.checked_sub(1));
            ReconfigRefusal::NotSynced { members: ids.into_iter().zip(behind).collect() }
        }
        Reason::WouldLoseQuorum => {
            ReconfigRefusal::WouldLoseQuorum { live: ids, of: usize::try_from(of).unwrap_or(usize::MAX) }
        }
        Reason::IdReused => ReconfigRefusal::IdReused { ids },
    })
}
