//! What clients get.

use api::{
    BadAccess, Child, DeleteTree, Identities, Identity, Level, Listing, MultiOutcome, NodeKind, OpError,
    Path, PeerId, QuotaAt, ReadOutcome, Scheme, SessionId, SessionToken, Stat, Usage, WriteNumber,
    WriteOutcome, Zxid,
    session::{Item, Limits, Notice, Opened, Outcome, Response},
};
use bytes::Bytes;

use super::{MESSAGE_MAX, requests, watch};
use crate::{
    Malformed,
    quorum::{ensemble, ensemble_to_wire},
    v1,
};

// ---- onto the wire ----

/// `None` for [`Item::Confirmed`], which is a field of the message.
#[must_use]
pub fn item_to_wire(item: Item) -> Option<v1::Item> {
    use v1::item::Item as Wire;
    let item = match item {
        Item::Opened(opened) => Wire::Opened(opened_to_wire(&opened)),
        Item::Response(response) => Wire::Response(response_to_wire(response)),
        Item::Notice(notice) => Wire::Notice(notice_to_wire(notice)),
        Item::Events(group) => Wire::Events(watch::group_to_wire(group)),
        Item::State(state) => Wire::State(watch::state_to_wire(state)),
        Item::Ended(ended) => Wire::Ended(watch::ended_to_wire(ended)),
        Item::Mark(mark) => Wire::Mark(watch::mark_to_wire(mark)),
        Item::Confirmed { .. } => return None,
    };
    Some(v1::Item { item: Some(item) })
}

pub(super) fn notice_to_wire(notice: Notice) -> v1::Notice {
    let Notice::Leader { lost } = notice;
    let leader = v1::LeaderNotice { lost, ..v1::LeaderNotice::default() };
    v1::Notice { notice: Some(v1::notice::Notice::Leader(leader)) }
}

fn opened_to_wire(opened: &Opened) -> v1::SessionOpened {
    let token = Bytes::copy_from_slice(&opened.token.0);
    let session = (!opened.read_only).then(|| v1::SessionRef { session_id: opened.session.0, token });
    v1::SessionOpened {
        session,
        read_only: opened.read_only,
        timeout_ms: opened.timeout_ms,
        node_id: opened.node.0,
        leaderless: opened.leaderless,
        resumed: opened.resumed,
        zxid: opened.zxid.0,
        last_write: opened.last_write.0,
        level: opened.level.0,
        limits: Some(v1::Limits {
            requests: opened.limits.requests,
            request_bytes: opened.limits.request_bytes,
            message_bytes: MESSAGE_MAX as u32,
            data_bytes: opened.limits.data_bytes,
            multi_parts: opened.limits.multi_parts,
            watches: opened.limits.watches,
            tree_znodes: DeleteTree::ZNODES_MAX,
            unacked_writes: opened.limits.unacked_writes,
        }),
        identities: identities_to_wire(&opened.identities),
        ensemble_id: ensemble_to_wire(opened.ensemble),
        ..v1::SessionOpened::default()
    }
}

pub(crate) fn identities_to_wire<'a>(
    identities: impl IntoIterator<Item = &'a Identity>,
) -> Vec<v1::Identity> {
    let wire = |identity: &Identity| v1::Identity {
        scheme: identity.scheme().as_str().to_owned(),
        id: identity.id().to_owned(),
    };
    identities.into_iter().map(wire).collect()
}

fn who_am_i(all: &Identities) -> v1::WhoAmIResponse {
    let address = all.as_slice().iter().find(|identity| identity.scheme() == Scheme::Ip);
    let address = address.map(|identity| identity.id().to_owned()).unwrap_or_default();
    v1::WhoAmIResponse { identities: identities_to_wire(all), address }
}

pub(crate) fn response_to_wire(r: Response) -> v1::Response {
    let mut result = r.result.map_or_else(|error| v1::response::Result::Error(error.into()), Into::into);
    if let v1::response::Result::AddWatches(added) = &mut result {
        added.zxid = r.zxid.0;
    }
    v1::Response { xid: r.xid, zxid: r.zxid.0, result: Some(result), leaderless: r.leaderless }
}

/// `tracing` and panics print messages, and the token is a secret.
impl std::fmt::Debug for v1::SessionRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionRef").field("session_id", &self.session_id).finish_non_exhaustive()
    }
}

impl From<Outcome> for v1::response::Result {
    fn from(outcome: Outcome) -> v1::response::Result {
        use v1::response::Result as Wire;
        match outcome {
            Outcome::Write(WriteOutcome::Created { path, stat }) => Wire::Create(created(&path, stat)),
            Outcome::Write(WriteOutcome::Set { stat }) => Wire::Set(set(stat)),
            Outcome::Write(WriteOutcome::AclSet { stat }) => Wire::SetAcl(acl_set(stat)),
            Outcome::Write(WriteOutcome::TreeDeleted { znodes }) => {
                Wire::DeleteTree(v1::DeleteTreeResponse { deleted: znodes, as_of: None })
            }
            Outcome::Write(WriteOutcome::QuotaSet(at)) => {
                let quota = Some(requests::quota_to_wire(&at.path, &at.quota, at.used));
                Wire::SetQuota(v1::SetQuotaResponse { quota, as_of: None })
            }
            Outcome::Write(WriteOutcome::Deleted) => Wire::Delete(v1::DeleteResponse::default()),
            Outcome::Write(WriteOutcome::Multi(outcomes)) => Wire::Multi(v1::MultiResponse {
                results: outcomes.into_iter().map(part_to_wire).collect(),
                as_of: None,
            }),
            // Items of their own tell that a session is open; checks are the stores' own.
            Outcome::Write(
                WriteOutcome::SessionOpened | WriteOutcome::SessionResumed | WriteOutcome::Checked,
            ) => Wire::Error(OpError::Internal("an outcome that answers no request".to_owned()).into()),
            Outcome::Read(read) => read_to_wire(read),
            Outcome::MultiRead(results) => Wire::MultiRead(v1::MultiReadResponse {
                results: results.into_iter().map(read_result_to_wire).collect(),
                as_of: None,
            }),
            Outcome::Walked(_) => {
                Wire::Error(OpError::Internal("a walk is no request of a session".to_owned()).into())
            }
            Outcome::Ephemerals { paths, more } => {
                let paths: Vec<String> = paths.into_iter().map(|path| path.as_str().to_owned()).collect();
                let next_page_token = paths.last().filter(|_| more).cloned().unwrap_or_default();
                Wire::ListEphemerals(v1::ListEphemeralsResponse { paths, next_page_token })
            }
            Outcome::Sync => Wire::Sync(v1::SyncResponse { as_of: None }),
            Outcome::Watching(refused) => {
                // The zxid is that of the response, which has it.
                Wire::AddWatches(v1::AddWatchesResponse { zxid: 0, refused: watch::refused_to_wire(refused) })
            }
            Outcome::Cancelled(unknown) => Wire::CancelWatches(v1::CancelWatchesResponse { unknown }),
            Outcome::Authenticated(all) => {
                Wire::Authenticate(v1::AuthenticateResponse { identities: identities_to_wire(&all) })
            }
            Outcome::WhoAmI(all) => Wire::WhoAmI(who_am_i(&all)),
            Outcome::Ping => Wire::Ping(v1::PingResponse {}),
            Outcome::Close | Outcome::Write(WriteOutcome::SessionClosed { .. }) => {
                Wire::Close(v1::CloseSessionResponse {})
            }
        }
    }
}

fn read_to_wire(read: ReadOutcome) -> v1::response::Result {
    use v1::response::Result as Wire;
    match read {
        ReadOutcome::Data { data, stat } => {
            Wire::Get(v1::GetResponse { data, stat: Some(stat.into()), as_of: None })
        }
        ReadOutcome::Exists { stat } => {
            Wire::Exists(v1::ExistsResponse { stat: stat.map(v1::Stat::from), as_of: None })
        }
        ReadOutcome::Acl { acl, stat } => {
            let acl = Some(requests::acl_to_wire(&acl));
            Wire::GetAcl(v1::GetAclResponse { acl, stat: Some(stat.into()), as_of: None })
        }
        ReadOutcome::Children { names, next, stat } => {
            let child = |name| v1::Child { name, stat: None, data: None };
            Wire::Children(children(names.into_iter().map(child).collect(), next, stat))
        }
        ReadOutcome::Listed(listing) => {
            let Listing { children: listed, next, stat } = *listing;
            let child = |Child { name, stat, data }| v1::Child { name, stat: stat.map(v1::Stat::from), data };
            Wire::Children(children(listed.into_iter().map(child).collect(), next, stat))
        }
        ReadOutcome::Counted(Usage { znodes, bytes }) => {
            Wire::CountTree(v1::CountTreeResponse { znodes, bytes, as_of: None })
        }
        ReadOutcome::Quotas { quotas, next } => {
            let quota = |at: QuotaAt| requests::quota_to_wire(&at.path, &at.quota, at.used);
            let quotas = quotas.into_iter().map(quota).collect();
            Wire::ListQuotas(v1::ListQuotasResponse { quotas, next_page_token: next, as_of: None })
        }
    }
}

fn children(children: Vec<v1::Child>, next_page_token: String, stat: Stat) -> v1::ChildrenResponse {
    v1::ChildrenResponse { children, next_page_token, stat: Some(stat.into()), as_of: None }
}

fn read_result_to_wire(result: Result<ReadOutcome, OpError>) -> v1::ReadResult {
    use v1::{read_result::Result as Wire, response::Result as Of};
    let result = match result.map(read_to_wire) {
        Ok(Of::Get(get)) => Wire::Get(get),
        Ok(Of::Exists(exists)) => Wire::Exists(exists),
        Ok(Of::Children(children)) => Wire::Children(children),
        Ok(_) => Wire::Error(OpError::Internal("an answer that fits no part of a read".to_owned()).into()),
        Err(error) => Wire::Error(error.into()),
    };
    v1::ReadResult { result: Some(result) }
}

impl From<Stat> for v1::Stat {
    fn from(s: Stat) -> v1::Stat {
        let (kind, ttl_ms) = match s.kind {
            NodeKind::Persistent => (v1::NodeKind::Persistent, 0),
            NodeKind::Ephemeral => (v1::NodeKind::Ephemeral, 0),
            NodeKind::Container => (v1::NodeKind::Container, 0),
            NodeKind::Ttl { ms } => (v1::NodeKind::Ttl, ms),
        };
        v1::Stat {
            czxid: s.czxid.0,
            mzxid: s.mzxid.0,
            pzxid: s.pzxid.0,
            ctime_ms: s.ctime_ms,
            mtime_ms: s.mtime_ms,
            version: s.version,
            cversion: s.cversion,
            aversion: s.aversion,
            ephemeral_owner: s.ephemeral_owner.map_or(0, |id| id.0),
            data_length: s.data_length,
            num_children: s.num_children,
            kind: kind.into(),
            ttl_ms,
        }
    }
}

fn created(path: &Path, stat: Stat) -> v1::CreateResponse {
    v1::CreateResponse {
        path: path.as_str().to_owned(),
        stat: Some(stat.into()),
        ..v1::CreateResponse::default()
    }
}

fn set(stat: Stat) -> v1::SetResponse {
    v1::SetResponse { stat: Some(stat.into()), as_of: None }
}

fn acl_set(stat: Stat) -> v1::SetAclResponse {
    v1::SetAclResponse { stat: Some(stat.into()), as_of: None }
}

fn part_to_wire(outcome: MultiOutcome) -> v1::MultiResult {
    use v1::multi_result::Result as Wire;
    let result = match outcome {
        MultiOutcome::Created { path, stat } => Wire::Create(created(&path, stat)),
        MultiOutcome::Set { stat } => Wire::Set(set(stat)),
        MultiOutcome::AclSet { stat } => Wire::SetAcl(acl_set(stat)),
        MultiOutcome::Deleted => Wire::Delete(v1::DeleteResponse::default()),
        MultiOutcome::Checked => Wire::Check(v1::CheckResponse {}),
    };
    v1::MultiResult { result: Some(result) }
}

impl TryFrom<(Outcome, v1::AsOf)> for v1::WhoAmIResponse {
    type Error = OpError;

    fn try_from((outcome, _): (Outcome, v1::AsOf)) -> Result<v1::WhoAmIResponse, OpError> {
        match outcome {
            Outcome::WhoAmI(all) => Ok(who_am_i(&all)),
            other => Err(OpError::Internal(format!("an answer of another kind: {other:?}"))),
        }
    }
}

/// The answer to a call without a session: the one message that fits the call, with the state that it is of.
macro_rules! call_responses {
    ($($response:ident => $variant:ident,)+) => {
        $(impl TryFrom<(Outcome, v1::AsOf)> for v1::$response {
            type Error = OpError;

            fn try_from((outcome, as_of): (Outcome, v1::AsOf)) -> Result<v1::$response, OpError> {
                match outcome.into() {
                    v1::response::Result::$variant(mut response) => {
                        response.as_of = Some(as_of);
                        Ok(response)
                    }
                    other => Err(OpError::Internal(format!("an answer of another kind: {other:?}"))),
                }
            }
        })+
    };
}

call_responses! {
    CreateResponse => Create,
    SetResponse => Set,
    DeleteResponse => Delete,
    MultiResponse => Multi,
    GetResponse => Get,
    ExistsResponse => Exists,
    ChildrenResponse => Children,
    SyncResponse => Sync,
    DeleteTreeResponse => DeleteTree,
    SetAclResponse => SetAcl,
    GetAclResponse => GetAcl,
    CountTreeResponse => CountTree,
    MultiReadResponse => MultiRead,
    SetQuotaResponse => SetQuota,
    ListQuotasResponse => ListQuotas,
}

// ---- off the wire ----

/// What a message of a session stream brings, in its order; the confirmation, if there is one, comes last. Items of kinds that this
/// version does not know are left out: it asked for nothing that brings them.
///
/// # Errors
/// If an item lacks what its kind needs.
pub fn items(message: v1::SessionResponse) -> Result<Vec<Item>, Malformed> {
    let mut items = Vec::with_capacity(message.items.len() + 1);
    for wire in message.items {
        items.extend(item(wire)?);
    }
    if message.confirmed_xid != 0 {
        items.push(Item::Confirmed { xid: message.confirmed_xid });
    }
    Ok(items)
}

/// The answer to a read.
///
/// # Errors
/// If it lacks what it needs, or is no answer to a read.
pub fn read_outcome(result: v1::response::Result) -> Result<ReadOutcome, Malformed> {
    match outcome(result)? {
        Outcome::Read(outcome) => Ok(outcome),
        other => Err(Malformed(format!("an answer of another kind: {other:?}"))),
    }
}

/// `None` for a kind that this version does not know, or has no use for.
fn item(wire: v1::Item) -> Result<Option<Item>, Malformed> {
    use v1::item::Item as Wire;
    Ok(match wire.item {
        Some(Wire::Opened(opened)) => Some(Item::Opened(opened_off_wire(opened)?)),
        Some(Wire::Response(response)) => Some(Item::Response(self::response(response)?)),
        Some(Wire::Events(events)) => Some(watch::group(events)?),
        Some(Wire::State(state)) => Some(watch::state(state)?),
        Some(Wire::Ended(ended)) => Some(watch::ended(ended)?),
        Some(Wire::Mark(mark)) => Some(watch::mark(mark)),
        Some(Wire::Notice(v1::Notice { notice: Some(v1::notice::Notice::Leader(leader)) })) => {
            Some(Item::Notice(Notice::Leader { lost: leader.lost }))
        }
        _ => None,
    })
}

fn opened_off_wire(o: v1::SessionOpened) -> Result<Opened, Malformed> {
    let malformed = |what: &str| Malformed(format!("SessionOpened.{what}"));
    let (session_id, token) = match o.session.filter(|s| s.session_id != 0) {
        Some(session) => {
            let token = <[u8; 16]>::try_from(&session.token[..]);
            (session.session_id, token.map_err(|_| malformed("session.token does not have 16 bytes"))?)
        }
        None if o.read_only => (0, [0; 16]),
        None => return Err(malformed("session is missing")),
    };
    let limits = o.limits.unwrap_or_default();
    Ok(Opened {
        session: SessionId(session_id),
        token: SessionToken(token),
        timeout_ms: o.timeout_ms,
        node: PeerId(o.node_id),
        leaderless: o.leaderless,
        resumed: o.resumed,
        zxid: Zxid(o.zxid),
        last_write: WriteNumber(o.last_write),
        level: Level(o.level),
        limits: Limits {
            requests: limits.requests,
            request_bytes: limits.request_bytes,
            data_bytes: limits.data_bytes,
            multi_parts: limits.multi_parts,
            watches: limits.watches,
            unacked_writes: limits.unacked_writes,
        },
        identities: identities_off_wire(o.identities)?,
        ensemble: ensemble(&o.ensemble_id)?,
        read_only: o.read_only,
    })
}

pub(crate) fn identities_off_wire(wire: Vec<v1::Identity>) -> Result<Identities, Malformed> {
    let identity = |wire: v1::Identity| Identity::new(wire.scheme.parse()?, &wire.id);
    (wire.into_iter().map(identity).collect::<Result<Vec<_>, BadAccess>>())
        .and_then(Identities::new)
        .map_err(|e| Malformed(e.to_string()))
}

pub(crate) fn response(r: v1::Response) -> Result<Response, Malformed> {
    let result = match r.result {
        Some(v1::response::Result::Error(e)) => Err(e.into()),
        Some(result) => Ok(outcome(result)?),
        None => return Err(Malformed("Response.result is missing, or newer than this client".to_owned())),
    };
    Ok(Response { xid: r.xid, zxid: Zxid(r.zxid), result, leaderless: r.leaderless })
}

fn outcome(result: v1::response::Result) -> Result<Outcome, Malformed> {
    use v1::response::Result as Wire;
    Ok(match result {
        Wire::Create(c) => {
            let (path, stat) = created_off_wire(c)?;
            Outcome::Write(WriteOutcome::Created { path, stat })
        }
        Wire::Set(s) => Outcome::Write(WriteOutcome::Set { stat: stat(s.stat)? }),
        Wire::Delete(_) => Outcome::Write(WriteOutcome::Deleted),
        Wire::SetAcl(s) => Outcome::Write(WriteOutcome::AclSet { stat: stat(s.stat)? }),
        Wire::GetAcl(g) => {
            let missing = || Malformed("GetAclResponse.acl is missing".to_owned());
            let acl = requests::acl(g.acl.ok_or_else(missing)?).map_err(|e| Malformed(e.to_string()))?;
            Outcome::Read(ReadOutcome::Acl { acl, stat: stat(g.stat)? })
        }
        Wire::Multi(m) => {
            let outcomes = m.results.into_iter().map(part).collect::<Result<_, _>>()?;
            Outcome::Write(WriteOutcome::Multi(outcomes))
        }
        Wire::Get(g) => get(g)?,
        Wire::Exists(e) => Outcome::Read(ReadOutcome::Exists { stat: e.stat.map(Stat::from) }),
        Wire::Children(c) => Outcome::Read(children_off_wire(c)?),
        Wire::DeleteTree(d) => Outcome::Write(WriteOutcome::TreeDeleted { znodes: d.deleted }),
        Wire::SetQuota(s) => {
            let missing = || Malformed("SetQuotaResponse.quota is missing".to_owned());
            Outcome::Write(WriteOutcome::QuotaSet(quota_off_wire(s.quota.ok_or_else(missing)?)?))
        }
        Wire::CountTree(c) => Outcome::Read(ReadOutcome::Counted(Usage { znodes: c.znodes, bytes: c.bytes })),
        Wire::ListQuotas(l) => {
            let quotas = l.quotas.into_iter().map(quota_off_wire).collect::<Result<_, _>>()?;
            Outcome::Read(ReadOutcome::Quotas { quotas, next: l.next_page_token })
        }
        Wire::MultiRead(m) => {
            Outcome::MultiRead(m.results.into_iter().map(read_result).collect::<Result<_, _>>()?)
        }
        Wire::ListEphemerals(l) => {
            let path = |path: String| {
                Path::new(&path).map_err(|e| Malformed(format!("ListEphemeralsResponse.paths: {e}")))
            };
            let more = !l.next_page_token.is_empty();
            let paths = l.paths.into_iter().map(path).collect::<Result<_, _>>()?;
            Outcome::Ephemerals { paths, more }
        }
        Wire::Sync(_) => Outcome::Sync,
        Wire::AddWatches(added) => Outcome::Watching(watch::refused(added.refused)?),
        Wire::CancelWatches(cancelled) => Outcome::Cancelled(cancelled.unknown),
        Wire::Authenticate(a) => Outcome::Authenticated(identities_off_wire(a.identities)?),
        Wire::WhoAmI(w) => Outcome::WhoAmI(identities_off_wire(w.identities)?),
        Wire::Ping(_) => Outcome::Ping,
        Wire::Close(_) => Outcome::Close,
        other => return Err(Malformed(format!("an answer without a request: {other:?}"))),
    })
}

/// A listing in which no child has a Stat is one of names: the caller asked for more and may read none of them.
fn children_off_wire(c: v1::ChildrenResponse) -> Result<ReadOutcome, Malformed> {
    let (next, parent) = (c.next_page_token, stat(c.stat)?);
    if c.children.iter().all(|child| child.stat.is_none()) {
        let names = c.children.into_iter().map(|child| child.name).collect();
        return Ok(ReadOutcome::Children { names, next, stat: parent });
    }
    let child = |v1::Child { name, stat, data }| Child { name, stat: stat.map(Stat::from), data };
    let children = c.children.into_iter().map(child).collect();
    Ok(ReadOutcome::Listed(Box::new(Listing { children, next, stat: parent })))
}

fn quota_off_wire(wire: v1::Quota) -> Result<QuotaAt, Malformed> {
    let path = Path::new(&wire.path).map_err(|e| Malformed(format!("Quota.path: {e}")))?;
    let used = Usage { znodes: wire.used_znodes, bytes: wire.used_bytes };
    Ok(QuotaAt { path, quota: requests::quota(&wire), used })
}

fn read_result(wire: v1::ReadResult) -> Result<Result<ReadOutcome, OpError>, Malformed> {
    use v1::{read_result::Result as Wire, response::Result as Of};
    let of = match wire.result {
        Some(Wire::Error(error)) => return Ok(Err(error.into())),
        Some(Wire::Get(get)) => Of::Get(get),
        Some(Wire::Exists(exists)) => Of::Exists(exists),
        Some(Wire::Children(children)) => Of::Children(children),
        None => return Err(Malformed("ReadResult.result is missing, or newer than this client".to_owned())),
    };
    read_outcome(of).map(Ok)
}

fn get(response: v1::GetResponse) -> Result<Outcome, Malformed> {
    Ok(Outcome::Read(ReadOutcome::Data { data: response.data, stat: stat(response.stat)? }))
}

fn part(r: v1::MultiResult) -> Result<MultiOutcome, Malformed> {
    use v1::multi_result::Result as Wire;
    Ok(match r.result {
        Some(Wire::Create(c)) => {
            let (path, stat) = created_off_wire(c)?;
            MultiOutcome::Created { path, stat }
        }
        Some(Wire::Set(s)) => MultiOutcome::Set { stat: stat(s.stat)? },
        Some(Wire::Delete(_)) => MultiOutcome::Deleted,
        Some(Wire::Check(_)) => MultiOutcome::Checked,
        Some(Wire::SetAcl(s)) => MultiOutcome::AclSet { stat: stat(s.stat)? },
        None => {
            return Err(Malformed("MultiResult.result is missing, or newer than this client".to_owned()));
        }
    })
}

impl From<v1::Stat> for Stat {
    /// A kind that this version does not know counts as persistent.
    fn from(s: v1::Stat) -> Stat {
        let kind = match s.kind() {
            v1::NodeKind::Ephemeral => NodeKind::Ephemeral,
            v1::NodeKind::Container => NodeKind::Container,
            v1::NodeKind::Ttl => NodeKind::Ttl { ms: s.ttl_ms },
            v1::NodeKind::Persistent | v1::NodeKind::Unspecified => NodeKind::Persistent,
        };
        Stat {
            kind,
            czxid: Zxid(s.czxid),
            mzxid: Zxid(s.mzxid),
            pzxid: Zxid(s.pzxid),
            ctime_ms: s.ctime_ms,
            mtime_ms: s.mtime_ms,
            version: s.version,
            cversion: s.cversion,
            aversion: s.aversion,
            ephemeral_owner: (s.ephemeral_owner != 0).then_some(SessionId(s.ephemeral_owner)),
            data_length: s.data_length,
            num_children: s.num_children,
        }
    }
}

fn created_off_wire(c: v1::CreateResponse) -> Result<(Path, Stat), Malformed> {
    let path = Path::new(&c.path).map_err(|e| Malformed(format!("CreateResponse.path: {e}")))?;
    Ok((path, stat(c.stat)?))
}

fn stat(stat: Option<v1::Stat>) -> Result<Stat, Malformed> {
    stat.map(Stat::from).ok_or_else(|| Malformed("a response without its Stat".to_owned()))
}
