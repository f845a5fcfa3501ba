//! Translates ZooKeeper's requests for the store, and applies ZooKeeper's checks where their order differs from the
//! store's.

use api::{
    Create, Expected, Identities, Identity, MultiOp, NodeKind, Path, Read, ReadLevel, Scheme, Write,
    proof::{Credential, Prover},
    session::{Limits, Op},
    watch::AddWatches,
};
use zk_jute::{Bad, Body, ClientInfo, Code, OpCode, Request};

use crate::{
    acl,
    answers::failed_multi,
    ledger::{Fixed, Wants},
    script::Script,
    watches::{Kind, Watches},
};

/// The plan for a request.
#[derive(Debug)]
pub(crate) enum Plan {
    /// One request to the store.
    Ask(Op, Wants),
    /// A read, after setting the watch with this number.
    Watched(AddWatches, u32, Op, Wants),
    /// Several requests to the store, one after the other.
    Script(Script),
}

impl Plan {
    /// A reply without the store.
    fn fixed(fixed: Fixed) -> Plan {
        Plan::Ask(Op::Ping, Wants::Fixed(fixed))
    }

    fn error(code: Code) -> Plan {
        Plan::fixed(Fixed::error(code))
    }
}

/// The plan for an invalid request.
pub(crate) fn bad(bad: Bad) -> Plan {
    match bad {
        // As in ZooKeeper 3.9.
        Bad::Unknown(_) => Plan::fixed(Fixed { zxid: Some(-1), ..Fixed::last(Code::UNIMPLEMENTED) }),
        Bad::Malformed(..) => Plan::error(Code::MARSHALLING_ERROR),
        // As the store answers it.
        Bad::TooMany(_) => Plan::error(Code::BAD_ARGUMENTS),
    }
}

/// The client of a connection.
pub(crate) struct Who {
    pub(crate) prover: Prover,
    /// Its proven identities, including its address.
    pub(crate) identities: Identities,
}

impl Who {
    fn infos(&self) -> Vec<ClientInfo> {
        let info = |identity: &Identity| {
            let (scheme, id) = (identity.scheme().as_str(), identity.id());
            let (scheme, user) = match identity.scheme() {
                // ZooKeeper's name for it.
                Scheme::Role => (id, ""),
                Scheme::Digest => (scheme, id.split(':').next().unwrap_or_default()),
                _ => (scheme, id),
            };
            ClientInfo { scheme: scheme.to_owned(), user: user.to_owned() }
        };
        self.identities.as_slice().iter().map(info).collect()
    }

    /// ZooKeeper's rules: a digest always succeeds, an address is proven already, and any other scheme ends the
    /// connection.
    fn prove(&mut self, scheme: Option<&str>, secret: Option<&[u8]>) -> Plan {
        let proven = match (scheme, secret) {
            (Some("digest"), Some(secret)) => {
                let secret = Credential::Digest(String::from_utf8_lossy(secret).into_owned());
                self.prover.prove(&secret).ok()
            }
            (Some("ip"), _) => Some(Identities::NONE),
            _ => None,
        };
        let all = proven.and_then(|proven| Some((self.identities.with(&proven).ok()?, proven)));
        let Some((all, proven)) = all else {
            return Plan::fixed(Fixed { zxid: Some(0), ..Fixed::last(Code::AUTH_FAILED) });
        };
        self.identities = all;
        Plan::Ask(Op::Authenticate(proven), Wants::Fixed(Fixed { zxid: Some(0), ..Fixed::error(Code::OK) }))
    }
}

pub(crate) fn plan(request: Request, who: &mut Who, watches: &Watches, limits: Limits) -> Plan {
    match request {
        Request::Create { .. }
        | Request::Create2 { .. }
        | Request::CreateContainer { .. }
        | Request::CreateTtl { .. } => plan_create(request, &who.identities),
        Request::Delete { path, version } => match delete(&path, version) {
            Ok((path, version)) => Plan::Ask(Op::Write(Write::Delete { path, version }), Wants::Deleted),
            Err(code) => Plan::error(code),
        },
        Request::SetData { path, data, version } => match Path::new(&path) {
            Ok(path) => {
                Plan::Ask(Op::Write(Write::Set { path, data, version: expected(version) }), Wants::Set)
            }
            Err(_) => Plan::error(Code::BAD_ARGUMENTS),
        },
        // Of all reads, ZooKeeper checks only this one for it.
        Request::Exists { path, .. } if path.contains('\0') => Plan::error(Code::BAD_ARGUMENTS),
        Request::Exists { path, watch } => {
            read(&path, |path| Read::Exists { path }, Wants::Exists, watches, watch)
        }
        Request::GetData { path, watch } => {
            read(&path, |path| Read::Get { path }, Wants::Data, watches, watch)
        }
        Request::GetChildren { path, watch } => listing(&path, false, watch),
        Request::GetChildren2 { path, watch } => listing(&path, true, watch),
        Request::SetWatches { watches: sets } => {
            set_again(watches.set_again(&sets, &[], &[], limits.watches as usize))
        }
        Request::SetWatches2 { watches: sets, persistent, recursive } => {
            set_again(watches.set_again(&sets, &persistent, &recursive, limits.watches as usize))
        }
        Request::AddWatch { path, mode } => add_watch(&path, mode, watches),
        Request::CheckWatches { path, kind } => watches_of(&path, kind, false),
        Request::RemoveWatches { path, kind } => watches_of(&path, kind, true),
        Request::Sync { path } => Plan::Ask(Op::Sync, Wants::Sync(path)),
        Request::Ping => Plan::Ask(Op::Ping, Wants::Ping),
        Request::Multi(parts) => multi(parts, &who.identities),
        Request::MultiRead(parts) => Plan::Script(Script::MultiRead(parts)),
        Request::CloseSession => Plan::Ask(Op::Close, Wants::Close),
        // Only valid within a multi.
        Request::Check { .. } => Plan::fixed(Fixed { zxid: Some(-1), ..Fixed::last(Code::UNIMPLEMENTED) }),
        Request::Reconfig { .. } => Plan::error(Code::RECONFIG_DISABLED),
        // No scheme proves anything here. ZooKeeper answers this and closes the connection.
        Request::Sasl { .. } => Plan::fixed(Fixed::last(Code::AUTH_FAILED)),
        Request::Auth { scheme, auth, .. } => who.prove(scheme.as_deref(), auth.as_deref()),
        Request::WhoAmI => Plan::fixed(Fixed { body: Body::Infos(who.infos()), ..Fixed::error(Code::OK) }),
        Request::GetAcl { path } => read(&path, |path| Read::Acl { path }, Wants::Acl, watches, false),
        Request::SetAcl { path, acl, version } => {
            match (Path::new(&path), acl::read(acl.as_deref(), &who.identities)) {
                (Ok(path), Ok(acl)) => Plan::Ask(
                    Op::Write(Write::SetAcl { path, acl, aversion: expected(version) }),
                    Wants::AclSet,
                ),
                (Err(_), _) => Plan::error(Code::BAD_ARGUMENTS),
                (_, Err(code)) => Plan::error(code),
            }
        }
        Request::GetEphemerals { prefix } => {
            // ZooKeeper compares the text of the path.
            let prefix = prefix.filter(|prefix| !matches!(prefix.trim(), "" | "/")).unwrap_or_default();
            Plan::Script(Script::Ephemerals { prefix })
        }
        Request::GetAllChildrenNumber { path } => {
            read(&path, |path| Read::Count { path }, Wants::Count, watches, false)
        }
    }
}

fn plan_create(request: Request, own: &Identities) -> Plan {
    let stat = request.code() != OpCode::CREATE;
    match create(request, own) {
        Ok(create) => Plan::Ask(Op::Write(Write::Create(create)), Wants::Created { stat }),
        Err(BadCreate::Code(code)) => Plan::error(code),
        // ZooKeeper looks for the parent first.
        Err(BadCreate::Name { parent: Some(parent) }) => Plan::Script(Script::BadCreate { parent }),
        Err(BadCreate::Name { parent: None }) => Plan::error(Code::NO_NODE),
    }
}

/// Why a create is invalid.
enum BadCreate {
    Code(Code),
    /// The path is invalid; `parent` is `None` if the invalid part is before the last slash, so that the parent cannot
    /// exist.
    Name {
        parent: Option<Path>,
    },
}

impl BadCreate {
    fn code(&self) -> Code {
        match self {
            BadCreate::Code(code) => *code,
            BadCreate::Name { parent: Some(_) } => Code::BAD_ARGUMENTS,
            BadCreate::Name { parent: None } => Code::NO_NODE,
        }
    }
}

/// ZooKeeper's order of checks: flags and TTL, a slash and no NUL, the access list, and, after the parent, the rest of
/// the path.
fn create(request: Request, own: &Identities) -> Result<Create, BadCreate> {
    let op = request.code();
    let (create, ttl) = match request {
        Request::Create { create } | Request::Create2 { create } | Request::CreateContainer { create } => {
            (create, 0)
        }
        Request::CreateTtl { create, ttl } => (create, ttl),
        _ => return Err(BadCreate::Code(Code::UNIMPLEMENTED)),
    };
    let zk_jute::Create { path, data, acl, flags } = create;
    let bad = BadCreate::Code(Code::BAD_ARGUMENTS);
    let ttl_kind = || match u64::try_from(ttl) {
        Ok(ms) => Ok(NodeKind::Ttl { ms }),
        Err(_) => Err(BadCreate::Code(Code::BAD_ARGUMENTS)),
    };
    let (kind, sequential) = match flags {
        0 => (NodeKind::Persistent, false),
        1 => (NodeKind::Ephemeral, false),
        2 => (NodeKind::Persistent, true),
        3 => (NodeKind::Ephemeral, true),
        // The operation determines the kind; this flag alone means a plain znode.
        4 => (NodeKind::Persistent, false),
        5 => (ttl_kind()?, false),
        6 => (ttl_kind()?, true),
        _ => return Err(bad),
    };
    let kind = if op == OpCode::CREATE_CONTAINER { NodeKind::Container } else { kind };
    if kind.check().is_err() {
        return Err(bad);
    }
    let Some((parent, _)) = path.rsplit_once('/').filter(|_| !path.contains('\0')) else { return Err(bad) };
    let acl = acl::read(acl.as_deref(), own).map_err(BadCreate::Code)?;
    let parsed = if sequential { Path::prefix(&path) } else { Path::new(&path) };
    let path = parsed.map_err(|_| match parent {
        "" => BadCreate::Code(Code::BAD_ARGUMENTS),
        parent => BadCreate::Name { parent: Path::new(parent).ok() },
    })?;
    Ok(Create { path, data, kind, sequential, acl })
}

/// ZooKeeper only checks whether a path can be split; any other invalid path is a znode that does not exist.
fn delete(path: &str, version: i32) -> Result<(Path, Option<Expected>), Code> {
    if path == "/" || !path.contains('/') || path.contains('\0') {
        return Err(Code::BAD_ARGUMENTS);
    }
    Ok((Path::new(path).map_err(|_| Code::NO_NODE)?, expected(version)))
}

/// -1 matches any version; other negative numbers match none.
fn expected(version: i32) -> Option<Expected> {
    match version {
        -1 => None,
        0.. => Some(version.into()),
        _ => Some(i32::MAX.into()),
    }
}

/// The path of a read. ZooKeeper does not check the syntax there: an invalid path does not exist, and the empty path is
/// the root.
pub(crate) fn read_path(path: &str) -> Option<Path> {
    if path.is_empty() { Some(Path::root()) } else { Path::new(path).ok() }
}

fn read(path: &str, read: impl FnOnce(Path) -> Read, wants: Wants, watches: &Watches, watch: bool) -> Plan {
    let Some(path) = read_path(path) else { return Plan::error(Code::NO_NODE) };
    if watch {
        let (id, add) = watches.begin(Kind::Data, path.clone());
        return Plan::Watched(add, id, Op::Read(read(path), ReadLevel::Local), wants);
    }
    Plan::Ask(Op::Read(read(path), ReadLevel::Local), wants)
}

fn listing(path: &str, stat: bool, watch: bool) -> Plan {
    match read_path(path) {
        Some(path) => Plan::Script(Script::Children { path, stat, watch }),
        None => Plan::error(Code::NO_NODE),
    }
}

fn set_again(again: Option<AddWatches>) -> Plan {
    match again {
        Some(again) => Plan::Ask(Op::AddWatches(again), Wants::SetAgain),
        None => Plan::error(Code::BAD_ARGUMENTS),
    }
}

fn add_watch(path: &str, mode: i32, watches: &Watches) -> Plan {
    let (Some(kinds), true) = (Kind::named(mode.saturating_add(4)), (0..=1).contains(&mode)) else {
        return Plan::error(Code::MARSHALLING_ERROR);
    };
    let Some(path) = read_path(path) else {
        // As in ZooKeeper: there will be no events.
        return Plan::fixed(Fixed { body: Body::Number(0), ..Fixed::error(Code::OK) });
    };
    let specs = watches.add(kinds, &path, None);
    Plan::Ask(Op::AddWatches(AddWatches { specs, refused: Vec::new() }), Wants::Added)
}

fn watches_of(path: &str, kind: i32, remove: bool) -> Plan {
    let Some(kinds) = Kind::named(kind) else { return Plan::error(Code::MARSHALLING_ERROR) };
    match Path::new(path) {
        Ok(path) => Plan::Script(Script::Watches { path, kinds, remove }),
        Err(_) => Plan::error(Code::NO_WATCHER),
    }
}

fn multi(parts: Vec<Request>, own: &Identities) -> Plan {
    let codes: Vec<OpCode> = parts.iter().map(Request::code).collect();
    let ops = (0..).zip(parts).map(|(index, part)| multi_op(part, own).map_err(|code| (index, code)));
    match ops.collect::<Result<Vec<MultiOp>, (u32, Code)>>() {
        Ok(ops) => Plan::Ask(Op::Write(Write::Multi(ops)), Wants::Multi(codes)),
        // The result of a part that ZooKeeper cannot decode.
        Err((_, Code::MARSHALLING_ERROR)) => Plan::error(Code::MARSHALLING_ERROR),
        Err((index, code)) => {
            let body = failed_multi(codes.len(), index, code);
            Plan::fixed(Fixed { body, ..Fixed::error(Code::OK) })
        }
    }
}

fn multi_op(part: Request, own: &Identities) -> Result<MultiOp, Code> {
    let checked = |path: &str| Path::new(path).map_err(|_| Code::BAD_ARGUMENTS);
    Ok(match part {
        Request::Delete { path, version } => {
            let (path, version) = delete(&path, version)?;
            MultiOp::Delete { path, version }
        }
        Request::SetData { path, data, version } => {
            MultiOp::Set { path: checked(&path)?, data, version: expected(version) }
        }
        Request::Check { path, version } => {
            MultiOp::Check { path: checked(&path)?, version: expected(version) }
        }
        // A TTL requires its own operation.
        Request::Create { create } | Request::Create2 { create } if matches!(create.flags, 5 | 6) => {
            return Err(Code::MARSHALLING_ERROR);
        }
        other => MultiOp::Create(create(other, own).map_err(|e| e.code())?),
    })
}
