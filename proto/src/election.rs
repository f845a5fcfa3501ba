//! Messages of the election: `api::vote` <-> `quorate.peer.v1`.

use api::{
    Epoch, PeerId, Standing, Zxid,
    ports::{Candidate, Role},
    vote::{Notification, Round, Vote},
};

use crate::quorum::{standing, standing_to_wire};
use crate::{Malformed, peer};

/// What a stream of the election carries.
#[derive(Clone, PartialEq, Debug)]
pub enum ElectionFrame {
    /// First. Later ones say no more than that the sender is still there.
    Hello(peer::Hello),
    /// For the core, and to which ensemble the sender belongs now. The same one again says no more than that the sender is still
    /// there.
    Notification(Notification, Standing),
}

impl From<ElectionFrame> for peer::ElectionMessage {
    fn from(frame: ElectionFrame) -> peer::ElectionMessage {
        use peer::election_message::Kind;
        let kind = match frame {
            ElectionFrame::Hello(hello) => Kind::Hello(hello),
            ElectionFrame::Notification(notification, standing) => {
                let standing = Some(standing_to_wire(standing));
                Kind::Notification(peer::Notification { standing, ..notification.into() })
            }
        };
        peer::ElectionMessage { kind: Some(kind) }
    }
}

impl TryFrom<peer::ElectionMessage> for ElectionFrame {
    type Error = Malformed;
    fn try_from(message: peer::ElectionMessage) -> Result<ElectionFrame, Malformed> {
        use peer::election_message::Kind;
        match message.kind {
            Some(Kind::Hello(hello)) => Ok(ElectionFrame::Hello(hello)),
            Some(Kind::Notification(mut notification)) => {
                let standing = standing(notification.standing.take().unwrap_or_default())?;
                Ok(ElectionFrame::Notification(notification.try_into()?, standing))
            }
            None => Err(Malformed("an ElectionMessage without content".into())),
        }
    }
}

impl From<Notification> for peer::Notification {
    fn from(notification: Notification) -> peer::Notification {
        let state = match notification.state {
            Role::Looking => peer::ServerState::Looking,
            Role::Following => peer::ServerState::Following,
            Role::Leading => peer::ServerState::Leading,
            Role::Observing => peer::ServerState::Observing,
        };
        let (leader, candidate) = match notification.vote {
            Some(vote) => (vote.leader.0, vote.candidate),
            None => (NO_LEADER, Candidate::default()),
        };
        peer::Notification {
            state: state.into(),
            leader,
            zxid: candidate.zxid.0,
            epoch: candidate.epoch.0,
            round: notification.round.0,
            members: notification.members.0,
            standing: None,
        }
    }
}

impl TryFrom<peer::Notification> for Notification {
    type Error = Malformed;
    fn try_from(notification: peer::Notification) -> Result<Notification, Malformed> {
        let state = match notification.state() {
            peer::ServerState::Looking => Role::Looking,
            peer::ServerState::Following => Role::Following,
            peer::ServerState::Leading => Role::Leading,
            peer::ServerState::Observing => Role::Observing,
            peer::ServerState::Unspecified => {
                return Err(Malformed(format!("no such server state: {}", notification.state)));
            }
        };
        let candidate = Candidate { epoch: Epoch(notification.epoch), zxid: Zxid(notification.zxid) };
        let vote = (notification.leader != NO_LEADER)
            .then_some(Vote { candidate, leader: PeerId(notification.leader) });
        if vote.is_none() && state != Role::Looking {
            return Err(Malformed(format!("a server that is {state:?} has a leader")));
        }
        let (round, members) = (Round(notification.round), Zxid(notification.members));
        Ok(Notification { state, vote, round, members })
    }
}

/// The vote of a server without a vote; no server has this id.
const NO_LEADER: u32 = 0;

#[cfg(test)]
mod tests {
    use api::{EnsembleId, Level};

    use super::*;

    #[test]
    fn every_frame_survives_the_wire() {
        let vote =
            Vote { candidate: Candidate { epoch: Epoch(3), zxid: Zxid(0x3_0000_0007) }, leader: PeerId(2) };
        let said = |state, vote| {
            let standing = Standing {
                ensemble: Some(EnsembleId(3)),
                epoch: Epoch(3),
                bound: true,
                level: Some(Level(2)),
            };
            let members = Zxid(0x3_0000_0001);
            let notification = Notification { state, vote, round: Round(u64::MAX), members };
            ElectionFrame::Notification(notification, standing)
        };
        for frame in [
            ElectionFrame::Hello(crate::quorum::Hello::to_wire(
                "e",
                api::PeerId(1),
                api::Standing::default(),
            )),
            said(Role::Looking, None),
            said(Role::Looking, Some(vote)),
            said(Role::Following, Some(vote)),
            said(Role::Leading, Some(vote)),
            said(Role::Observing, Some(vote)),
        ] {
            assert_eq!(peer::ElectionMessage::from(frame.clone()).try_into(), Ok(frame));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let notification = |state, leader| {
            let kind =
                peer::Notification { state, leader, zxid: 1, epoch: 1, round: 1, members: 0, standing: None };
            ElectionFrame::try_from(peer::ElectionMessage {
                kind: Some(peer::election_message::Kind::Notification(kind)),
            })
        };
        assert!(notification(peer::ServerState::Looking.into(), 0).is_ok());
        for (state, leader) in [(0, 1), (-1, 1), (99, 1), (2, 0), (3, 0), (4, 0)] {
            assert!(notification(state, leader).is_err(), "state {state}, leader {leader}");
        }
        assert!(ElectionFrame::try_from(peer::ElectionMessage { kind: None }).is_err());
    }
}
