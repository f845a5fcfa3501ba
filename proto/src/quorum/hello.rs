//! The first message of a stream, and what servers say of themselves.

use std::sync::Arc;

use api::{
    Build, EnsembleId, Epoch, Greeting, Level, Levels, PeerId, Roster, Standing,
    peer::{Acquaintance, Damage, Incarnation},
};
use bytes::Bytes;

use super::parts::{damage, damage_to_wire};
use crate::{Malformed, PEER_PROTOCOL, peer};

/// The first message of each side, on every stream between servers and between services of one node.
pub struct Hello;

impl Hello {
    /// Between services of one node, which have no more to say.
    #[must_use]
    pub fn to_wire(ensemble: &str, id: PeerId, standing: Standing) -> peer::Hello {
        peer::Hello {
            ensemble: ensemble.to_owned(),
            id: id.0,
            protocol: PEER_PROTOCOL,
            standing: Some(standing_to_wire(standing)),
            ..peer::Hello::default()
        }
    }

    /// Between servers.
    #[must_use]
    pub fn to_peer(greeting: &Greeting) -> peer::Hello {
        let setting =
            |(key, value): (&String, &String)| peer::Setting { key: key.clone(), value: value.clone() };
        peer::Hello {
            members: greeting.roster.encode().into(),
            settings: greeting.settings.iter().map(setting).collect(),
            build: Some(build_to_wire(&greeting.build)),
            ..Hello::to_wire(&greeting.name, greeting.id, greeting.standing)
        }
    }

    /// Between quorums.
    #[must_use]
    pub fn to_quorum(greeting: &Greeting, said: Acquaintance, damage: Damage) -> peer::Hello {
        let wire = |Incarnation { number, run }| peer::Incarnation { number, run };
        peer::Hello {
            incarnation: said.own.map(wire),
            met: said.met.map(wire),
            confirmed: said.confirmed.map(wire),
            damage: damage_to_wire(damage).into(),
            ..Hello::to_peer(greeting)
        }
    }

    /// What a quorum says of incarnations.
    #[must_use]
    pub fn acquaintance(hello: &peer::Hello) -> Acquaintance {
        let known = |wire: Option<peer::Incarnation>| {
            wire.map(|peer::Incarnation { number, run }| Incarnation { number, run })
        };
        let [own, met, confirmed] = [hello.incarnation, hello.met, hello.confirmed].map(known);
        Acquaintance { own, met, confirmed }
    }

    /// What a quorum says that it has lost.
    #[must_use]
    pub fn damage(hello: &peer::Hello) -> Damage {
        damage(hello.damage())
    }

    /// What is wrong with a server that introduces itself so to this one; `expected`: whom this one dialled. The text names the
    /// remedy.
    ///
    /// # Errors
    /// As [`Greeting::check`]; another protocol; or it says what makes no sense.
    pub fn check(
        hello: peer::Hello,
        this: &Greeting,
        expected: Option<PeerId>,
    ) -> Result<Greeting, Malformed> {
        let id = PeerId(hello.id);
        if hello.protocol != PEER_PROTOCOL {
            return Err(Malformed(format!(
                "server {id} speaks peer protocol {} and this one {PEER_PROTOCOL}: run versions of Quorate that are at \
                 most one release apart",
                hello.protocol
            )));
        }
        let roster = roster(&hello.members)
            .map_err(|e| Malformed(format!("the members of server {id} are no ensemble: {e}")))?;
        let theirs = Greeting {
            name: hello.ensemble,
            id,
            roster,
            standing: standing(hello.standing.unwrap_or_default())?,
            build: build(hello.build.unwrap_or_default())?,
            settings: hello.settings.into_iter().map(|peer::Setting { key, value }| (key, value)).collect(),
        };
        this.check(&theirs, expected).map_err(Malformed)?;
        Ok(theirs)
    }
}

/// Bytes of a version at most.
const VERSION_MAX: usize = 64;

/// The members in a message.
///
/// # Errors
/// This version does not know such members.
pub fn roster(bytes: &[u8]) -> Result<Arc<Roster>, Malformed> {
    Roster::decode(bytes).map(Arc::new).map_err(|bad| Malformed(bad.to_string()))
}

pub(crate) fn build_to_wire(build: &Build) -> peer::Build {
    let Build { version, levels } = build;
    peer::Build { version: version.clone(), min_level: levels.min().0, max_level: levels.max().0 }
}

pub(crate) fn build(build: peer::Build) -> Result<Build, Malformed> {
    let peer::Build { mut version, min_level, max_level } = build;
    // For people, who need no more.
    version.truncate(version.floor_char_boundary(VERSION_MAX));
    Ok(Build { version, levels: levels(min_level, max_level)? })
}

pub(super) fn levels(min: u32, max: u32) -> Result<Levels, Malformed> {
    let levels = Levels::new(Level(min), Level(max));
    levels.ok_or_else(|| Malformed(format!("feature levels from {min} to {max}")))
}

/// From the wire.
///
/// # Errors
/// 0 is none.
pub fn level(number: u32) -> Result<Level, Malformed> {
    Level::known(number).ok_or_else(|| Malformed("0 is no feature level; they count from 1".into()))
}

/// For the wire.
#[must_use]
pub fn standing_to_wire(standing: Standing) -> peer::Standing {
    let Standing { ensemble, epoch, bound, level } = standing;
    let (ensemble, level) = (ensemble_to_wire(ensemble), Level::number(level));
    peer::Standing { ensemble, epoch: epoch.0, bound, level }
}

/// From the wire.
///
/// # Errors
/// An id that is none.
pub fn standing(standing: peer::Standing) -> Result<Standing, Malformed> {
    let peer::Standing { ensemble: id, epoch, bound, level } = standing;
    Ok(Standing { ensemble: ensemble(&id)?, epoch: Epoch(epoch), bound, level: Level::known(level) })
}

pub(crate) fn ensemble_to_wire(ensemble: Option<EnsembleId>) -> Bytes {
    ensemble.map_or(Bytes::new(), |id| Bytes::copy_from_slice(&id.0.to_be_bytes()))
}

pub(crate) fn ensemble(bytes: &[u8]) -> Result<Option<EnsembleId>, Malformed> {
    match bytes.try_into() {
        _ if bytes.is_empty() => Ok(None),
        Ok(bytes) => Ok(Some(EnsembleId(u128::from_be_bytes(bytes)))),
        Err(_) => Err(Malformed(format!("the id of an ensemble has 16 bytes, not {}", bytes.len()))),
    }
}
