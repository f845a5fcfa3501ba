//! Watches: requests, and events.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    Level, OpError, Path, Read, ReadLevel, Stat, Zxid,
    session::{Item, Op, Outcome, Request, Response},
    watch::{
        AddWatches, Change, ChangeKind, ChangeKinds, StateRule, WatchEnded, WatchEvent, WatchGroup,
        WatchMark, WatchRefused, WatchScope, WatchSpec, WatchState, WatchedZnode,
    },
};

use super::{
    items::notice_to_wire,
    requests::{read_level, unknown},
};
use crate::{Malformed, v1};

// ---- requests ----

/// Off the wire. What is wrong with one watch is its own refusal.
pub(super) fn add(wire: v1::AddWatchesRequest) -> Op {
    let v1::AddWatchesRequest { watches, from_zxid } = wire;
    let mut add = AddWatches::default();
    for watch in watches {
        let id = watch.id;
        match spec(watch, from_zxid) {
            Ok(spec) => add.specs.push(spec),
            Err(error) => add.refused.push(WatchRefused { id, error }),
        }
    }
    Op::AddWatches(add)
}

fn spec(wire: v1::WatchSpec, from_all: Option<u64>) -> Result<WatchSpec, OpError> {
    let v1::WatchSpec { id, path, scope, once, changes, with_data, from_zxid, state } = wire;
    let scope = match v1::WatchScope::try_from(scope) {
        Ok(v1::WatchScope::Node) => WatchScope::Node,
        Ok(v1::WatchScope::Children) => WatchScope::Children,
        Ok(v1::WatchScope::Tree) => WatchScope::Tree,
        Ok(v1::WatchScope::Unspecified) | Err(_) => return Err(unknown("WatchSpec.scope")),
    };
    let state = match v1::StateRule::try_from(state) {
        Ok(v1::StateRule::Unspecified) => StateRule::Never,
        Ok(v1::StateRule::Always) => StateRule::Always,
        Ok(v1::StateRule::IfGone) => StateRule::IfGone,
        Err(_) => return Err(unknown("WatchSpec.state")),
    };
    let kind = |kind| match v1::ChangeKind::try_from(kind) {
        Ok(v1::ChangeKind::Created) => Ok(ChangeKind::Created),
        Ok(v1::ChangeKind::Deleted) => Ok(ChangeKind::Deleted),
        Ok(v1::ChangeKind::DataChanged) => Ok(ChangeKind::DataChanged),
        Ok(v1::ChangeKind::AclChanged) => Ok(ChangeKind::AclChanged),
        // Events of this kind come without a request for them.
        Ok(v1::ChangeKind::Hidden | v1::ChangeKind::Unspecified) | Err(_) => {
            Err(unknown("WatchSpec.changes"))
        }
    };
    let kinds = changes.into_iter().map(kind).collect::<Result<ChangeKinds, _>>()?;
    let from = from_zxid.or(from_all.filter(|_| state != StateRule::Always)).map(Zxid);
    Ok(WatchSpec { id, path: Path::new(&path)?, scope, once, kinds, with_data, from, state })
}

/// Onto the wire. What the edge has refused is left out.
pub(super) fn add_to_wire(add: AddWatches) -> v1::AddWatchesRequest {
    v1::AddWatchesRequest { watches: add.specs.into_iter().map(spec_to_wire).collect(), from_zxid: None }
}

fn spec_to_wire(spec: WatchSpec) -> v1::WatchSpec {
    let WatchSpec { id, path, scope, once, kinds, with_data, from, state } = spec;
    let scope = match scope {
        WatchScope::Node => v1::WatchScope::Node,
        WatchScope::Children => v1::WatchScope::Children,
        WatchScope::Tree => v1::WatchScope::Tree,
    };
    let state = match state {
        StateRule::Never => v1::StateRule::Unspecified,
        StateRule::Always => v1::StateRule::Always,
        StateRule::IfGone => v1::StateRule::IfGone,
    };
    v1::WatchSpec {
        id,
        path: path.as_str().to_owned(),
        scope: scope.into(),
        once,
        changes: kinds.iter().map(|kind| kind_to_wire(kind).into()).collect(),
        with_data,
        from_zxid: from.map(|zxid| zxid.0),
        state: state.into(),
    }
}

/// A call `Watch` as requests of a stream: a read that waits until the state is as fresh as the call asks for, and then the watches.
#[derive(Clone, PartialEq, Debug)]
pub struct WatchCall {
    /// In this order.
    pub requests: Vec<Request>,
    /// The ids of all watches, and whether each ends with its first group.
    pub ids: BTreeMap<u32, bool>,
}

impl WatchCall {
    /// The xid of the request that adds the watches.
    pub const XID: u64 = 2;

    /// Off the wire, for an ensemble of at least this level. What is wrong with one watch is its own refusal.
    ///
    /// # Errors
    /// No watch, two with one id, or a level of reading that is not known.
    pub fn new(wire: v1::WatchRequest, min_level: Level) -> Result<WatchCall, OpError> {
        let v1::WatchRequest { watches, read } = wire;
        let mut ids = BTreeMap::new();
        for spec in &watches {
            if ids.insert(spec.id, spec.once).is_some() {
                let why = format!("two watches have the id {}; give each one its own", spec.id);
                return Err(OpError::BadArguments(why));
            }
        }
        if ids.is_empty() {
            return Err(OpError::BadArguments(
                "WatchRequest.watches is empty; name what to watch".to_owned(),
            ));
        }
        let first = match read_level(read)? {
            ReadLevel::Stale | ReadLevel::Local => None,
            ReadLevel::Linearizable => Some(Op::Sync),
            level @ ReadLevel::AtLeast(_) => Some(Op::Read(Read::Exists { path: Path::root() }, level)),
        };
        let add = add(v1::AddWatchesRequest { watches, from_zxid: None });
        let request = |xid, op| Request { min_level, ..Request::new(xid, op) };
        let first = first.map(|op| request(1, op));
        Ok(WatchCall { requests: first.into_iter().chain([request(WatchCall::XID, add)]).collect(), ids })
    }
}

/// An item for a call `Watch`; `None` for those that it does not have.
///
/// # Errors
/// The one that ends the call.
pub fn watch_item_to_wire(item: Item) -> Result<Option<v1::WatchItem>, OpError> {
    use v1::watch_item::Item as Wire;
    let item = match item {
        Item::Response(Response { result: Err(error), .. }) => return Err(error),
        Item::Response(Response { zxid, result: Ok(Outcome::Watching(refused)), .. }) => {
            Wire::Started(v1::AddWatchesResponse { zxid: zxid.0, refused: refused_to_wire(refused) })
        }
        Item::Events(group) => Wire::Events(group_to_wire(group)),
        Item::State(state) => Wire::State(state_to_wire(state)),
        Item::Ended(ended) => Wire::Ended(ended_to_wire(ended)),
        Item::Mark(mark) => Wire::Mark(mark_to_wire(mark)),
        Item::Notice(notice) => Wire::Notice(notice_to_wire(notice)),
        Item::Opened(_) | Item::Response(_) | Item::Confirmed { .. } => return Ok(None),
    };
    Ok(Some(v1::WatchItem { item: Some(item) }))
}

// ---- answers ----

pub(crate) fn refused_to_wire(refused: Vec<WatchRefused>) -> Vec<v1::WatchRefused> {
    let wire = |WatchRefused { id, error }| v1::WatchRefused { id, error: Some(error.into()) };
    refused.into_iter().map(wire).collect()
}

pub(crate) fn refused(wire: Vec<v1::WatchRefused>) -> Result<Vec<WatchRefused>, Malformed> {
    let refused = |v1::WatchRefused { id, error }: v1::WatchRefused| {
        let error = error.ok_or_else(|| Malformed("WatchRefused.error is missing".to_owned()))?;
        Ok(WatchRefused { id, error: error.into() })
    };
    wire.into_iter().map(refused).collect()
}

// ---- items ----

pub(super) fn group_to_wire(group: WatchGroup) -> v1::WatchEvents {
    let event = |WatchEvent { ids, change, with_data }| v1::Event {
        ids,
        change: Some(v1::Change {
            kind: kind_to_wire(change.kind).into(),
            path: change.path.as_str().to_owned(),
            stat: Some(change.stat.into()),
            data: change.data.clone().filter(|_| with_data),
        }),
    };
    let events = group.events.into_iter().map(event).collect();
    v1::WatchEvents { zxid: group.zxid.0, events, more: group.more }
}

pub(super) fn state_to_wire(state: WatchState) -> v1::WatchState {
    let znode = |WatchedZnode { path, stat, data }| v1::Znode {
        path: path.as_str().to_owned(),
        stat: Some(stat.into()),
        data,
    };
    let znodes = state.znodes.into_iter().map(znode).collect();
    v1::WatchState { id: state.id, zxid: state.zxid.0, znodes, done: state.done }
}

pub(super) fn ended_to_wire(ended: WatchEnded) -> v1::WatchEnded {
    let WatchEnded { ids, error, last, oldest } = ended;
    v1::WatchEnded { ids, error: Some(error.into()), last_zxid: last.0, oldest_zxid: oldest.0 }
}

pub(super) fn mark_to_wire(mark: WatchMark) -> v1::Mark {
    v1::Mark { zxid: mark.zxid.0, leaderless: mark.leaderless }
}

pub(super) fn group(wire: v1::WatchEvents) -> Result<Item, Malformed> {
    let event = |v1::Event { ids, change }: v1::Event| {
        let change = change.ok_or_else(|| Malformed("Event.change is missing".to_owned()))?;
        let v1::Change { path, stat, data, .. } = change;
        let kind = match change.kind.try_into() {
            Ok(v1::ChangeKind::Created) => ChangeKind::Created,
            Ok(v1::ChangeKind::Deleted) => ChangeKind::Deleted,
            Ok(v1::ChangeKind::DataChanged) => ChangeKind::DataChanged,
            Ok(v1::ChangeKind::AclChanged) => ChangeKind::AclChanged,
            Ok(v1::ChangeKind::Hidden) => ChangeKind::Hidden,
            // Of a later version: something happened there.
            Ok(v1::ChangeKind::Unspecified) | Err(_) => ChangeKind::Touched,
        };
        let path = Path::new(&path).map_err(|e| Malformed(format!("Change.path: {e}")))?;
        let with_data = data.is_some();
        let change = Arc::new(Change {
            kind,
            path,
            stat: stat.map(Stat::from).unwrap_or_default(),
            data,
            acl: Default::default(),
            above: Default::default(),
        });
        Ok(WatchEvent { ids, change, with_data })
    };
    let events = wire.events.into_iter().map(event).collect::<Result<_, Malformed>>()?;
    Ok(Item::Events(WatchGroup { zxid: Zxid(wire.zxid), events, more: wire.more }))
}

pub(super) fn state(wire: v1::WatchState) -> Result<Item, Malformed> {
    let znode = |v1::Znode { path, stat, data }: v1::Znode| {
        let path = Path::new(&path).map_err(|e| Malformed(format!("Znode.path: {e}")))?;
        let stat = stat.ok_or_else(|| Malformed("Znode.stat is missing".to_owned()))?;
        Ok(WatchedZnode { path, stat: stat.into(), data })
    };
    let znodes = wire.znodes.into_iter().map(znode).collect::<Result<_, Malformed>>()?;
    Ok(Item::State(WatchState { id: wire.id, zxid: Zxid(wire.zxid), znodes, done: wire.done }))
}

pub(super) fn ended(wire: v1::WatchEnded) -> Result<Item, Malformed> {
    let v1::WatchEnded { ids, error, last_zxid, oldest_zxid } = wire;
    let error = error.ok_or_else(|| Malformed("WatchEnded.error is missing".to_owned()))?;
    let (last, oldest) = (Zxid(last_zxid), Zxid(oldest_zxid));
    Ok(Item::Ended(WatchEnded { ids, error: error.into(), last, oldest }))
}

pub(super) fn mark(wire: v1::Mark) -> Item {
    Item::Mark(WatchMark { zxid: Zxid(wire.zxid), leaderless: wire.leaderless })
}

fn kind_to_wire(kind: ChangeKind) -> v1::ChangeKind {
    match kind {
        ChangeKind::Touched => v1::ChangeKind::Unspecified,
        ChangeKind::Created => v1::ChangeKind::Created,
        ChangeKind::Deleted => v1::ChangeKind::Deleted,
        ChangeKind::DataChanged => v1::ChangeKind::DataChanged,
        ChangeKind::AclChanged => v1::ChangeKind::AclChanged,
        ChangeKind::Hidden => v1::ChangeKind::Hidden,
    }
}

#[cfg(test)]
mod tests {
    use api::session::{Outcome, Response};
    use prost::Message as _;

    use super::*;
    use crate::client::{item_to_wire, items, op, op_to_wire};

    fn path(p: &str) -> Path {
        Path::new(p).unwrap()
    }

    fn back(item: Item) -> Item {
        let wire = v1::SessionResponse { items: item_to_wire(item).into_iter().collect(), confirmed_xid: 0 };
        let wire = v1::SessionResponse::decode(wire.encode_to_vec().as_slice()).unwrap();
        items(wire).unwrap().pop().unwrap()
    }

    #[test]
    fn watches_survive_the_wire() {
        let kinds: ChangeKinds = [ChangeKind::Created, ChangeKind::AclChanged].into_iter().collect();
        let mut specs = Vec::new();
        for scope in [WatchScope::Node, WatchScope::Children, WatchScope::Tree] {
            for state in [StateRule::Never, StateRule::Always, StateRule::IfGone] {
                let from = (state != StateRule::Always).then_some(Zxid(9));
                let id = specs.len() as u32 + 1;
                specs.push(WatchSpec {
                    state,
                    from,
                    kinds,
                    with_data: true,
                    ..WatchSpec::new(id, path("/a"), scope)
                });
                specs.push(WatchSpec { once: true, ..WatchSpec::new(id + 1, path("/"), scope) });
            }
        }
        for sent in [Op::AddWatches(AddWatches { specs, refused: Vec::new() }), Op::CancelWatches(vec![1, 7])]
        {
            assert_eq!(op(op_to_wire(sent.clone()).unwrap()).unwrap(), sent);
        }
    }

    #[test]
    fn v25_what_this_version_does_not_know_of_a_watch_is_refused_and_the_others_stand() {
        let good = v1::WatchSpec {
            id: 1,
            path: "/a".into(),
            scope: v1::WatchScope::Tree.into(),
            ..Default::default()
        };
        let watches = vec![
            v1::WatchSpec { id: 2, changes: vec![99], ..good.clone() },
            good.clone(),
            v1::WatchSpec { id: 3, scope: 99, ..good.clone() },
            v1::WatchSpec { id: 4, state: 99, ..good.clone() },
            v1::WatchSpec { id: 5, path: "a".into(), ..good.clone() },
            v1::WatchSpec { id: 6, state: v1::StateRule::Always.into(), ..good },
        ];
        let Op::AddWatches(add) = add(v1::AddWatchesRequest { watches, from_zxid: Some(7) }) else {
            unreachable!()
        };
        let from: Vec<_> = add.specs.iter().map(|spec| (spec.id, spec.from)).collect();
        assert_eq!(
            from,
            [(1, Some(Zxid(7))), (6, None)],
            "one zxid for all that name none, and want no new state"
        );
        let codes: Vec<_> = add.refused.iter().map(|r| (r.id, r.error.code())).collect();
        use api::ErrorCode::{BadPath, Unsupported};
        assert_eq!(codes, [(2, Unsupported), (3, Unsupported), (4, Unsupported), (5, BadPath)]);
    }

    #[test]
    fn what_watches_are_told_survives_the_wire() {
        let stat = Stat { czxid: Zxid(3), num_children: 4, ..Stat::default() };
        let data = || Some(bytes::Bytes::from_static(b"v"));
        use ChangeKind::{AclChanged, Created, DataChanged, Deleted, Hidden, Touched};
        let event = |kind| {
            let with_data = matches!(kind, Created | DataChanged);
            let change = Change {
                kind,
                path: path("/a"),
                stat,
                data: data().filter(|_| with_data),
                acl: Default::default(),
                above: Default::default(),
            };
            WatchEvent { ids: vec![1, 2], change: Arc::new(change), with_data }
        };
        let events = [Touched, Created, Deleted, DataChanged, AclChanged, Hidden].map(event).into();
        let znodes = vec![WatchedZnode { path: path("/a"), stat, data: data() }];
        let gone = OpError::Gone { oldest: Zxid(5) };
        let refused = vec![WatchRefused { id: 3, error: gone.clone() }];
        let response = |outcome| {
            Item::Response(Response { xid: 1, zxid: Zxid(2), result: Ok(outcome), leaderless: false })
        };
        for item in [
            Item::Events(WatchGroup { zxid: Zxid(7), events, more: true }),
            Item::State(WatchState { id: 1, zxid: Zxid(7), znodes, done: true }),
            Item::Ended(WatchEnded { ids: vec![1], error: gone, last: Zxid(4), oldest: Zxid(5) }),
            Item::Mark(WatchMark { zxid: Zxid(8), leaderless: true }),
            response(Outcome::Watching(refused)),
            response(Outcome::Cancelled(vec![9])),
        ] {
            assert_eq!(back(item.clone()), item);
        }
    }

    #[test]
    fn a_value_leaves_only_for_those_who_want_it_and_no_item_outweighs_what_is_counted() {
        let data = Some(bytes::Bytes::from(vec![1; 1000]));
        let stat = Stat {
            mtime_ms: -1,
            ctime_ms: -1,
            pzxid: Zxid(u64::MAX),
            version: -1,
            cversion: -1,
            ..Stat::default()
        };
        let change = Arc::new(Change {
            kind: ChangeKind::Created,
            path: path("/a"),
            stat,
            data,
            acl: Default::default(),
            above: Default::default(),
        });
        for with_data in [true, false] {
            let event = WatchEvent { ids: vec![u32::MAX; 50], change: change.clone(), with_data };
            let group = WatchGroup { zxid: Zxid(u64::MAX), events: vec![event], more: true };
            let weight = group.weight();
            let wire = group_to_wire(group);
            assert_eq!(wire.events[0].change.as_ref().unwrap().data.is_some(), with_data);
            assert!(wire.encoded_len() <= weight, "{} {weight}", wire.encoded_len());
        }
    }
}
