//! Requests that need several steps in the store. Later requests wait, so that all steps keep the position of the
//! request.

use std::time::Duration;

use api::{
    OpError, Page, Path, Read, ReadLevel, ReadOutcome, Stat, Zxid,
    budget::Charge,
    ports::Requests,
    session::{Op, Outcome, Response},
};
use bytes::Bytes;
use tokio::{io::AsyncRead, time::timeout};
use zk_jute::{Body, Code, MultiResult, Request};

use crate::{
    answers::{code_of, refused, stat_to_wire},
    reader::Reader,
    translate::read_path,
    watches::Kind,
};

/// The kinds of scripts.
#[derive(Debug)]
pub(crate) enum Script {
    /// A listing, page by page.
    Children {
        /// The znode.
        path: Path,
        /// Whether the reply contains the Stat.
        stat: bool,
        /// Whether it sets a watch.
        watch: bool,
    },
    /// Reads, each with its own result.
    MultiRead(Vec<Request>),
    /// A create with an invalid name, which ZooKeeper detects after the check of the parent.
    BadCreate {
        /// The parent to check.
        parent: Path,
    },
    /// The ephemerals of the session, page by page.
    Ephemerals {
        /// The prefix of their paths.
        prefix: String,
    },
    /// Checks whether the client has such watches, after all reads that may set some.
    Watches {
        /// The znode.
        path: Path,
        /// The kinds to look for.
        kinds: &'static [Kind],
        /// Whether to remove them.
        remove: bool,
    },
}

/// The result of a listing.
struct Listed {
    zxid: Zxid,
    result: Result<(Vec<String>, Stat), Code>,
    /// Held for the names.
    room: Vec<Charge>,
}

impl Listed {
    fn failed(zxid: Zxid, code: Code) -> Listed {
        Listed { zxid, result: Err(code), room: Vec::new() }
    }
}

/// The result of a script.
pub(crate) struct Played {
    pub(crate) zxid: i64,
    pub(crate) code: Code,
    pub(crate) body: Body,
    /// The watch that it sets.
    pub(crate) watch: Option<u32>,
    /// Held for the body until it is sent.
    pub(crate) room: Vec<Charge>,
}

impl<S: AsyncRead + Unpin, R: Requests> Reader<'_, S, R> {
    /// Runs the steps.
    pub(crate) async fn play(&mut self, script: Script) -> Result<Played, OpError> {
        let (mut watch, mut room) = (None, Vec::new());
        let (zxid, code, body) = match script {
            Script::Children { path, stat, watch: watched } => {
                if watched {
                    let (id, add) = self.ledger.watches.begin(Kind::Child, path.clone());
                    watch = Some(id);
                    let response = self.step(Op::AddWatches(add)).await?;
                    let ids: Vec<u32> = refused(&response).into_iter().map(|(id, _)| id).collect();
                    self.ledger.watches.refused(ids, Code::BAD_ARGUMENTS);
                }
                let Listed { zxid, result, room: held } = self.list(path).await?;
                room = held;
                match result {
                    Ok((names, of)) if stat => (zxid, Code::OK, Body::ChildrenStat(names, stat_to_wire(&of))),
                    Ok((names, _)) => (zxid, Code::OK, Body::Children(names)),
                    Err(code) => (zxid, code, Body::Nothing),
                }
            }
            Script::MultiRead(parts) => {
                let mut results = Vec::with_capacity(parts.len());
                // Keeps its position, also if no part reads from the store.
                let mut zxid = self.step(Op::Ping).await?.zxid;
                let (mut code, mut bytes) = (Code::OK, 0);
                for part in parts {
                    let (at, result) = self.read_part(part, &mut room).await?;
                    zxid = zxid.max(at);
                    bytes += size_of_result(&result);
                    if bytes > self.reply_max {
                        let limit = self.reply_max;
                        tracing::warn!(
                            "a multiRead is answered with more than {limit} bytes: the connection ends"
                        );
                        return Err(OpError::TooLarge { size: bytes as u64, limit: limit as u64 });
                    }
                    if result == MultiResult::Error(Code::THROTTLED_OP) {
                        // The rest has no room either.
                        code = Code::THROTTLED_OP;
                        break;
                    }
                    results.push(result);
                }
                if code != Code::OK {
                    room.clear();
                }
                (zxid, code, if code == Code::OK { Body::Multi(results) } else { Body::Nothing })
            }
            Script::BadCreate { parent } => {
                let response = self.read(Read::Exists { path: parent }).await?;
                let code = match response.result {
                    Ok(Outcome::Read(ReadOutcome::Exists { stat: None })) => Code::NO_NODE,
                    Ok(_) => Code::BAD_ARGUMENTS,
                    Err(e) => code_of(&e)?,
                };
                (response.zxid, code, Body::Nothing)
            }
            Script::Ephemerals { prefix } => self.ephemerals(prefix, &mut room).await?,
            Script::Watches { path, kinds, remove } => {
                let response = self.step(Op::Ping).await?;
                let has = self.ledger.watches.has(kinds, &path);
                if remove && has {
                    let ids = self.ledger.watches.remove(kinds, &path);
                    self.step(Op::CancelWatches(ids)).await?;
                }
                (response.zxid, if has { Code::OK } else { Code::NO_WATCHER }, Body::Nothing)
            }
        };
        Ok(Played { zxid: zxid.0.cast_signed(), code, body, watch, room })
    }

    async fn ephemerals(
        &mut self,
        prefix: String,
        room: &mut Vec<Charge>,
    ) -> Result<(Zxid, Code, Body), OpError> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let op = Op::Ephemerals { prefix: prefix.clone(), after, size: 0 };
            let Response { zxid, result, .. } = self.step(op).await?;
            let (paths, more) = match result {
                Ok(Outcome::Ephemerals { paths, more }) => (paths, more),
                Ok(_) => return Ok((zxid, Code::SYSTEM_ERROR, Body::Nothing)),
                Err(e) => return Ok((zxid, code_of(&e)?, Body::Nothing)),
            };
            match self.room(paths.iter().map(|path| path.as_str().len() + NAME).sum()).await {
                Ok(charge) => room.push(charge),
                Err(code) => return Ok((zxid, code, Body::Nothing)),
            }
            all.extend(paths.into_iter().map(|path| path.as_str().to_owned()));
            match all.last() {
                Some(last) if more => after = last.clone(),
                _ => return Ok((zxid, Code::OK, Body::Ephemerals(all))),
            }
        }
    }

    async fn read_part(
        &mut self,
        part: Request,
        room: &mut Vec<Charge>,
    ) -> Result<(Zxid, MultiResult), OpError> {
        let (zxid, result) = match part {
            Request::GetData { path, .. } => match read_path(&path) {
                Some(path) => {
                    let response = self.read(Read::Get { path }).await?;
                    let result = match response.result {
                        Ok(Outcome::Read(ReadOutcome::Data { data, stat })) => {
                            match self.room(data.as_ref().map_or(0, Bytes::len)).await {
                                Ok(charge) => {
                                    room.push(charge);
                                    Ok(MultiResult::GetData(data, stat_to_wire(&stat)))
                                }
                                Err(code) => Err(code),
                            }
                        }
                        Ok(_) => Err(Code::SYSTEM_ERROR),
                        Err(e) => Err(code_of(&e)?),
                    };
                    (response.zxid, result)
                }
                None => (Zxid::ZERO, Err(Code::NO_NODE)),
            },
            Request::GetChildren { path, .. } => match read_path(&path) {
                Some(path) => {
                    let Listed { zxid, result, room: held } = self.list(path).await?;
                    room.extend(held);
                    (zxid, result.map(|(names, _)| MultiResult::GetChildren(names)))
                }
                None => (Zxid::ZERO, Err(Code::NO_NODE)),
            },
            // The decoder accepts no others.
            _ => (Zxid::ZERO, Err(Code::UNIMPLEMENTED)),
        };
        Ok((zxid, result.unwrap_or_else(MultiResult::Error)))
    }

    /// All names as of one time: if children are created or deleted in the meantime, the listing starts again.
    async fn list(&mut self, path: Path) -> Result<Listed, OpError> {
        let mut attempts = 0;
        'again: loop {
            attempts += 1;
            let (mut all, mut page, mut first) = (Vec::new(), Page::default(), None);
            let mut room = Vec::new();
            loop {
                let response = self.read(Read::Children { path: path.clone(), page: page.clone() }).await?;
                let zxid = response.zxid;
                let (names, next, stat) = match response.result {
                    Ok(Outcome::Read(ReadOutcome::Children { names, next, stat })) => (names, next, stat),
                    Ok(_) => return Ok(Listed::failed(zxid, Code::SYSTEM_ERROR)),
                    Err(e) => return Ok(Listed::failed(zxid, code_of(&e)?)),
                };
                let began: &Stat = first.get_or_insert(stat);
                if began.pzxid != stat.pzxid && attempts < ATTEMPTS {
                    continue 'again;
                }
                match self.room(names.iter().map(|name| name.len() + NAME).sum()).await {
                    Ok(charge) => room.push(charge),
                    Err(code) => return Ok(Listed::failed(zxid, code)),
                }
                all.extend(names);
                if next.is_empty() {
                    return Ok(Listed { zxid, result: Ok((all, stat)), room });
                }
                page.after = next;
            }
        }
    }

    /// Room for a part of a reply. The earlier parts keep their room in the meantime, so this waits only briefly.
    async fn room(&mut self, bytes: usize) -> Result<Charge, Code> {
        timeout(ROOM_WITHIN, self.share.take(bytes)).await.map_err(|_| Code::THROTTLED_OP)
    }

    async fn read(&mut self, read: Read) -> Result<Response, OpError> {
        self.step(Op::Read(read, ReadLevel::Local)).await
    }
}

/// After this many restarts, a listing of many pages mixes several points in time, so that the client gets an answer.
const ATTEMPTS: u32 = 32;

/// Timeout of a part that waits for room; then the reply is an error.
const ROOM_WITHIN: Duration = Duration::from_millis(300);

/// Approximate size of a result in a reply, in bytes.
fn size_of_result(result: &MultiResult) -> usize {
    RESULT
        + match result {
            MultiResult::GetData(data, _) => data.as_ref().map_or(0, Bytes::len),
            MultiResult::GetChildren(names) => names.iter().map(|name| name.len() + 4).sum(),
            _ => 0,
        }
}

/// Size of the header of a result, and of a Stat.
const RESULT: usize = 96;

/// Size of a name besides its text.
const NAME: usize = std::mem::size_of::<String>();
