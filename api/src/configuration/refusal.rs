use crate::{PeerId, Zxid};

/// Why the members are not changed; with the remedy.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum ReconfigRefusal {
    /// There is no leader with a quorum, or it was lost meanwhile. Whether the change happens is then unknown.
    #[error("{0}")]
    Unavailable(String),
    /// A change is under way.
    #[error(
        "a change of the members, version {version}, is under way and waits for {}: see `quorate member list`, start what is \
         missing, and ask again",
        list(waits_for)
    )]
    InProgress {
        /// Version of that configuration.
        version: Zxid,
        /// Voters that have not acknowledged it.
        waits_for: Vec<PeerId>,
    },
    /// Another change came first.
    #[error(
        "the configuration is at version {actual}, not {expected}: look at the members again, and ask with that version"
    )]
    VersionMoved {
        /// As in the request.
        expected: Zxid,
        /// The present one.
        actual: Zxid,
    },
    /// New voters do not have the log yet.
    #[error(
        "{}: add each new voter as an observer first, start it, and promote it once it is in sync (`quorate member list`)",
        behind_list(members)
    )]
    NotSynced {
        /// Each such member, and how many entries it is behind; `None`: it is not connected.
        members: Vec<(PeerId, Option<u64>)>,
    },
    /// The members that are there and in sync would be no quorum of the new configuration.
    #[error(
        "of the {of} voters of the new configuration only {} are here and in sync, and they are no quorum of it: start the \
         others, or ask with --force",
        list(live)
    )]
    WouldLoseQuorum {
        /// Voters of the new configuration that are in sync.
        live: Vec<PeerId>,
        /// Number of all its voters.
        of: usize,
    },
    /// Ids of former members.
    #[error(
        "{} was a member before, and its id is not used again, because an old directory could come back with it: choose another id",
        list(ids)
    )]
    IdReused {
        /// Those ids.
        ids: Vec<PeerId>,
    },
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl ReconfigRefusal {
    /// Whether it is unknown if the members change.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, ReconfigRefusal::Unavailable(_))
    }
}

fn list(ids: &[PeerId]) -> String {
    match ids {
        [] => "none".to_owned(),
        [id] => format!("member {id}"),
        _ => format!("members {}", ids.iter().map(PeerId::to_string).collect::<Vec<_>>().join(", ")),
    }
}

fn behind_list(members: &[(PeerId, Option<u64>)]) -> String {
    let one = |(id, behind): &(PeerId, Option<u64>)| match behind {
        Some(entries) => format!("member {id} is {entries} entries behind"),
        None => format!("member {id} is not connected to the leader"),
    };
    members.iter().map(one).collect::<Vec<_>>().join(", ")
}
