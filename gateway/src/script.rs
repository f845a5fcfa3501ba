//! Requests that take the store several steps. What comes behind one waits, so that all steps have its place in the order.

use api::{
    OpError, Page, Path, Read, ReadLevel, ReadOutcome, Stat, Zxid,
    ports::Requests,
    session::{Op, Outcome, Response},
};
use tokio::io::AsyncRead;
use zk_jute::{Body, Code, MultiResult, Request};

use crate::{
    answers::{code_of, refused, stat_to_wire},
    reader::Reader,
    translate::read_path,
    watches::Kind,
};

/// What the steps are.
#[derive(Debug)]
pub(crate) enum Script {
    /// A listing, page by page.
    Children {
        /// Of which znode.
        path: Path,
        /// Whether the reply has the Stat.
        stat: bool,
        /// Whether it leaves a watch.
        watch: bool,
    },
    /// Reads, each with its own result.
    MultiRead(Vec<Request>),
    /// A create whose name is wrong, which ZooKeeper finds out behind the parent.
    BadCreate {
        /// It is looked for.
        parent: Path,
    },
    /// Whether the client has such watches, behind all reads that may leave some.
    Watches {
        /// On which znode.
        path: Path,
        /// One of these.
        kinds: &'static [Kind],
        /// They are taken away.
        remove: bool,
    },
}

/// What came of a listing.
struct Listed {
    zxid: Zxid,
    result: Result<(Vec<String>, Stat), Code>,
}

impl<S: AsyncRead + Unpin, R: Requests> Reader<'_, S, R> {
    /// Goes through the steps. The reply's zxid, code and body, and the watch that it leaves.
    pub(crate) async fn play(&mut self, script: Script) -> Result<(i64, Code, Body, Option<u32>), OpError> {
        let mut watch = None;
        let (zxid, code, body) = match script {
            Script::Children { path, stat, watch: watched } => {
                if watched {
                    let (id, add) = self.ledger.watches.begin(Kind::Child, path.clone());
                    watch = Some(id);
                    let response = self.step(Op::AddWatches(add)).await?;
                    let ids: Vec<u32> = refused(&response).into_iter().map(|(id, _)| id).collect();
                    self.ledger.watches.refused(ids, Code::BAD_ARGUMENTS);
                }
                let Listed { zxid, result } = self.list(path).await?;
                match result {
                    Ok((names, of)) if stat => (zxid, Code::OK, Body::ChildrenStat(names, stat_to_wire(&of))),
                    Ok((names, _)) => (zxid, Code::OK, Body::Children(names)),
                    Err(code) => (zxid, code, Body::Nothing),
                }
            }
            Script::MultiRead(parts) => {
                let mut results = Vec::with_capacity(parts.len());
                let mut zxid = Zxid::ZERO;
                for part in parts {
                    let (at, result) = self.read_part(part).await?;
                    zxid = zxid.max(at);
                    results.push(result);
                }
                (zxid, Code::OK, Body::Multi(results))
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
        Ok((zxid.0.cast_signed(), code, body, watch))
    }

    async fn read_part(&mut self, part: Request) -> Result<(Zxid, MultiResult), OpError> {
        let (zxid, result) = match part {
            Request::GetData { path, .. } => match read_path(&path) {
                Some(path) => {
                    let response = self.read(Read::Get { path }).await?;
                    let result = match response.result {
                        Ok(Outcome::Read(ReadOutcome::Data { data, stat })) => {
                            Ok(MultiResult::GetData(data, stat_to_wire(&stat)))
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
                    let Listed { zxid, result } = self.list(path).await?;
                    (zxid, result.map(|(names, _)| MultiResult::GetChildren(names)))
                }
                None => (Zxid::ZERO, Err(Code::NO_NODE)),
            },
            // The codec lets no other in.
            _ => (Zxid::ZERO, Err(Code::UNIMPLEMENTED)),
        };
        Ok((zxid, result.unwrap_or_else(MultiResult::Error)))
    }

    /// All names, as they were at one time: if children come or go meanwhile, it begins again.
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
                    Ok(_) => return Ok(Listed { zxid, result: Err(Code::SYSTEM_ERROR) }),
                    Err(e) => return Ok(Listed { zxid, result: Err(code_of(&e)?) }),
                };
                let began: &Stat = first.get_or_insert(stat);
                if began.pzxid != stat.pzxid && attempts < ATTEMPTS {
                    continue 'again;
                }
                if !next.is_empty() {
                    let bytes = names.iter().map(|name| name.len() + NAME).sum();
                    room.push(self.traffic().take(bytes).await);
                }
                all.extend(names);
                if next.is_empty() {
                    return Ok(Listed { zxid, result: Ok((all, stat)) });
                }
                page.after = next;
            }
        }
    }

    async fn read(&mut self, read: Read) -> Result<Response, OpError> {
        self.step(Op::Read(read, ReadLevel::Local)).await
    }
}

/// A listing of many pages that changes so often is answered with names of several times: better than never.
const ATTEMPTS: u32 = 32;

/// What a name takes besides its text.
const NAME: usize = std::mem::size_of::<String>();
