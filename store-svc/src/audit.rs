//! What clients did, for the audit log: written once, by the node that answered, from the applied result.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use api::{
    DeleteTree, ErrorCode, MultiOp, OpError, Path, SessionId, Trace, Write, Zxid,
    ports::Caller,
    session::{Item, Op, Outcome, Request, Response, Verb},
};
use audit::{Event, Log, Record, Who};

/// What a stream does is recorded here, and by whom.
pub(crate) struct Stream {
    log: Log,
    caller: Caller,
    state: Mutex<State>,
}

struct State {
    who: Who,
    session: Option<SessionId>,
    /// Requests under way that are recorded with more than a refusal says of itself, in their order.
    asked: VecDeque<(u64, Asked)>,
}

/// What is to be recorded of a request, besides its answer.
pub(crate) struct Asked {
    verb: Verb,
    paths: Vec<String>,
    conditional: Option<bool>,
    trace: Option<[u8; 16]>,
    /// Whether it is recorded whatever comes of it; else only if it is refused.
    always: bool,
}

impl Asked {
    /// `None` if the answer alone says what is to be recorded.
    fn of(op: &Op, trace: &Trace, writes: bool) -> Option<Asked> {
        let always = match op {
            Op::Write(write) => writes || changes_rights(write),
            Op::Authenticate(_) | Op::Close => true,
            _ => false,
        };
        let trace = trace.as_ref().map(|trace| trace.trace_id());
        (always || trace.is_some()).then(|| {
            let (paths, conditional) = match op {
                Op::Write(write) if always => of_write(write),
                _ => (Vec::new(), None),
            };
            Asked { verb: op.verb(), paths, conditional, trace, always }
        })
    }
}

impl Stream {
    /// Of a caller; `None` if nothing is recorded.
    pub(crate) fn new(log: &Log, caller: &Caller) -> Option<Stream> {
        log.is_on().then(|| {
            // Neither bytes nor rooms: the record outlives them.
            let caller = Caller {
                identities: caller.identities.clone(),
                address: caller.address,
                certificate: caller.certificate.clone(),
                ..Caller::default()
            };
            let state = State { who: who(&caller), session: None, asked: VecDeque::new() };
            Stream { log: log.clone(), caller, state: Mutex::new(state) }
        })
    }

    /// The client asks this.
    pub(crate) fn asked(&self, requests: &[Request]) {
        let writes = self.log.has_writes();
        let asked = requests.iter().filter_map(|r| Some((r.xid, Asked::of(&r.op, &r.trace, writes)?)));
        let mut asked = asked.peekable();
        if asked.peek().is_some() {
            self.lock().asked.extend(asked);
        }
    }

    /// These items leave for the client, and after them perhaps the end of its stream.
    pub(crate) fn leaves<'a>(
        &self,
        items: impl Iterator<Item = &'a Item>,
        end: Option<&Result<(), OpError>>,
    ) {
        let mut state = self.lock();
        for item in items {
            match item {
                Item::Opened(opened) => {
                    state.session = Some(opened.session);
                    state.who = who(&Caller { identities: opened.identities.clone(), ..self.caller.clone() });
                    let detail = opened.resumed.then(|| "taken up on another stream".to_owned());
                    let zxid = Some(opened.zxid);
                    let session = state.session;
                    self.log.record(&Record {
                        session,
                        zxid,
                        detail,
                        ..Record::new(Event::SessionOpened, &state.who)
                    });
                }
                Item::Response(response) => self.answered(&mut state, response),
                _ => {}
            }
        }
        if let (Some(Err(error)), None) = (end, state.session)
            && !passes(error.code())
        {
            let (error, detail) = (Some(error.code()), Some(error.to_string()));
            self.log.record(&Record { error, detail, ..Record::new(Event::SessionRefused, &state.who) });
        }
    }

    fn answered(&self, state: &mut State, response: &Response) {
        // Answers come in the order of their requests.
        while state.asked.front().is_some_and(|(xid, _)| *xid < response.xid) {
            state.asked.pop_front();
        }
        let asked = state.asked.pop_front_if(|(xid, _)| *xid == response.xid).map(|(_, asked)| asked);
        if let Ok(Outcome::Authenticated(identities)) = &response.result {
            state.who = who(&Caller { identities: identities.clone(), ..self.caller.clone() });
        }
        record(&self.log, &state.who, state.session, asked.as_ref(), response);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be recorded of a call without a session; `None` if nothing is.
pub(crate) fn call(log: &Log, caller: &Caller, op: &Op, trace: &Trace) -> Option<(Who, Option<Asked>)> {
    log.is_on().then(|| (who(caller), Asked::of(op, trace, log.has_writes())))
}

/// Records the answer to a request, if it is worth that.
pub(crate) fn record(
    log: &Log,
    who: &Who,
    session: Option<SessionId>,
    asked: Option<&Asked>,
    response: &Response,
) {
    let verb = asked.map(|asked| asked.verb);
    let trace = asked.and_then(|asked| asked.trace);
    let base = |event| Record {
        session,
        zxid: Some(response.zxid).filter(|zxid| *zxid != Zxid(0)),
        trace,
        op: verb.map(Verb::as_str),
        ..Record::new(event, who)
    };
    match &response.result {
        Err(error) if error.code() == ErrorCode::NoAuth => refused(log, &base(Event::Request), error),
        Ok(Outcome::MultiRead(parts)) => {
            let parts = parts.iter().filter_map(|part| part.as_ref().err());
            let base = Record { op: Some(Verb::MultiRead.as_str()), ..base(Event::Request) };
            parts.filter(|e| e.code() == ErrorCode::NoAuth).for_each(|e| refused(log, &base, e));
        }
        Ok(Outcome::Watching(refusals)) => {
            let base = Record { op: Some(Verb::AddWatches.as_str()), ..base(Event::Request) };
            let errors = refusals.iter().map(|refusal| &refusal.error);
            errors.filter(|e| e.code() == ErrorCode::NoAuth).for_each(|e| refused(log, &base, e));
        }
        result => {
            let Some(asked) = asked.filter(|asked| asked.always) else { return };
            let event = match asked.verb {
                Verb::Close => Event::SessionClosed,
                Verb::Authenticate => Event::Authenticated,
                _ => Event::Request,
            };
            log.record(&Record {
                paths: &asked.paths,
                conditional: asked.conditional,
                error: result.as_ref().err().map(OpError::code),
                ..base(event)
            });
        }
    }
}

/// One refusal: path and permission are those of the error, whatever else the request asked for.
fn refused(log: &Log, base: &Record<'_>, error: &OpError) {
    let cause = match error {
        OpError::Multi { cause, .. } => cause,
        error => error,
    };
    let OpError::NoAuth { path, permission } = cause else { return };
    let paths = [path.as_str().to_owned()];
    log.record(&Record {
        paths: &paths,
        error: Some(ErrorCode::NoAuth),
        missing: Some(*permission),
        ..base.clone()
    });
}

fn who(caller: &Caller) -> Who {
    let certificate = caller.certificate.as_ref().map(|certificate| certificate.0.clone());
    Who::new(&caller.identities, caller.address.map(|address| address.to_canonical()), certificate)
}

/// What tells nothing of the caller: the node cannot serve anyone at the moment.
fn passes(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Unavailable | ErrorCode::Overloaded | ErrorCode::TimedOut)
}

/// Access lists and quotas: recorded whatever the level.
fn changes_rights(write: &Write) -> bool {
    match write {
        Write::SetAcl { .. } | Write::SetQuota { .. } => true,
        Write::Multi(parts) => parts.iter().any(|part| matches!(part, MultiOp::SetAcl { .. })),
        _ => false,
    }
}

/// Paths, and whether it expects a version or a creation.
fn of_write(write: &Write) -> (Vec<String>, Option<bool>) {
    let one = |path: &Path, conditional: Option<bool>| (vec![path.as_str().to_owned()], conditional);
    match write {
        Write::Create(create) => one(&create.path, None),
        Write::Set { path, version, .. } | Write::Delete { path, version } => {
            one(path, Some(version.is_some()))
        }
        Write::SetAcl { path, aversion, .. } => one(path, Some(aversion.is_some())),
        Write::DeleteTree(DeleteTree { path, .. }) | Write::SetQuota { path, .. } => one(path, None),
        Write::Multi(parts) => {
            let paths = parts.iter().take(PATHS).map(|part| path_of(part).as_str().to_owned());
            (paths.collect(), Some(parts.iter().any(is_condition)))
        }
    }
}

fn path_of(part: &MultiOp) -> &Path {
    match part {
        MultiOp::Create(create) => &create.path,
        MultiOp::Set { path, .. }
        | MultiOp::Delete { path, .. }
        | MultiOp::SetAcl { path, .. }
        | MultiOp::Check { path, .. }
        | MultiOp::CheckAbsent { path } => path,
    }
}

fn is_condition(part: &MultiOp) -> bool {
    match part {
        MultiOp::Create(_) => false,
        MultiOp::Check { .. } | MultiOp::CheckAbsent { .. } => true,
        MultiOp::Set { version, .. } | MultiOp::Delete { version, .. } => version.is_some(),
        MultiOp::SetAcl { aversion, .. } => aversion.is_some(),
    }
}

/// Paths of a multi that a record names.
const PATHS: usize = 64;
