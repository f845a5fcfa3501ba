//! One connection to a server, and what comes from it, made alike.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use zk_jute::{
    Body, Code, ConnectRequest, ConnectResponse, Frames, MultiResult, ReplyHeader, Shape, Stat, WatcherEvent,
    xid,
};

use crate::frames::Frame;

/// What came, without what has to differ.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Seen {
    Reply {
        xid: i32,
        zxid: i64,
        err: i32,
        body: String,
    },
    Event {
        kind: i32,
        state: i32,
        path: String,
    },
    Closed,
    /// Nothing within some seconds.
    Silent,
}

pub(crate) struct Connection {
    stream: TcpStream,
    frames: Frames,
    pub(crate) session: i64,
    closed: bool,
}

impl Connection {
    pub(crate) fn open(port: u16) -> Connection {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut out = BytesMut::new();
        let password = Some(Bytes::from_static(&[0; 16]));
        ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms: 30_000,
            session_id: 0,
            password,
            read_only: Some(false),
        }
        .encode(&mut out);
        stream.write_all(&out).unwrap();
        let mut connection = Connection { stream, frames: Frames::new(16 << 20), session: 0, closed: false };
        let first = connection.frame().unwrap();
        connection.session = ConnectResponse::decode(first).unwrap().session_id;
        connection
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Sends frames, and takes what comes until each is answered or the connection ends.
    pub(crate) fn say(&mut self, burst: &[Frame], sessions: [i64; 2]) -> Vec<Seen> {
        let mut all = Vec::new();
        if self.closed {
            return all;
        }
        let bytes: Vec<u8> = burst.iter().flat_map(|frame| frame.bytes.clone()).collect();
        // An error: the server has hung up, which shows below.
        let _ = self.stream.write_all(&bytes);
        let mut open: Vec<&Frame> = burst.iter().collect();
        while !open.is_empty() {
            match self.frame() {
                Ok(frame) => {
                    let (header, from) = ReplyHeader::decode(frame).unwrap();
                    if header.xid == xid::EVENT {
                        let mut from = from;
                        let event: WatcherEvent = from.take().unwrap();
                        all.push(Seen::Event { kind: event.kind, state: event.state, path: event.path });
                        continue;
                    }
                    let place = open.iter().position(|frame| frame.xid == header.xid);
                    let shape = place.map_or(Shape::Nothing, |place| open.remove(place).shape);
                    let body =
                        header.body(shape, from).map_or_else(|e| format!("{e:?}"), |b| alike(b, sessions));
                    all.push(Seen::Reply {
                        xid: header.xid,
                        zxid: header.zxid.signum(),
                        err: header.err,
                        body,
                    });
                    // ZooKeeper may answer some more before it hangs up.
                    if (header.zxid, header.err) == (-1, Code::UNIMPLEMENTED.0) {
                        all.push(loop {
                            if let Err(end) = self.frame() {
                                break end;
                            }
                        });
                        return all;
                    }
                }
                Err(end) => {
                    all.push(end);
                    return all;
                }
            }
        }
        all
    }

    fn frame(&mut self) -> Result<Bytes, Seen> {
        loop {
            if let Some(frame) = self.frames.next_frame().unwrap() {
                return Ok(frame);
            }
            let mut bytes = [0; 16 << 10];
            match self.stream.read(&mut bytes) {
                Ok(n @ 1..) => self.frames.buffer().extend_from_slice(&bytes[..n]),
                Err(e)
                    if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
                {
                    self.closed = true;
                    return Err(Seen::Silent);
                }
                Ok(0) | Err(_) => {
                    self.closed = true;
                    return Err(Seen::Closed);
                }
            }
        }
    }
}

/// The root has another past on each server.
fn stat(stat: &Stat, sessions: [i64; 2]) -> String {
    let owner = match sessions.iter().position(|id| *id == stat.ephemeral_owner) {
        Some(place) => format!("session {place}"),
        None => stat.ephemeral_owner.signum().to_string(),
    };
    if stat.czxid == 0 {
        return "root".to_owned();
    }
    let Stat { czxid, mzxid, pzxid, version, cversion, aversion, data_length, num_children, .. } = stat;
    format!(
        "v{version} c{cversion} a{aversion} owner {owner} length {data_length} children {num_children} \
         made==set {} made==listed {} set==listed {}",
        czxid == mzxid,
        czxid == pzxid,
        mzxid == pzxid
    )
}

/// The root has had another number of children on each server.
fn unnumbered(path: &str) -> String {
    match path.len().checked_sub(10).and_then(|cut| path.split_at_checked(cut)) {
        Some((name, number)) if path.rfind('/') == Some(0) && number.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{name}#")
        }
        _ => path.to_owned(),
    }
}

fn alike(body: Body, sessions: [i64; 2]) -> String {
    let text = |data: &Option<Bytes>| format!("{data:?}");
    let sorted = |mut names: Vec<String>| {
        names.sort_unstable();
        format!("{names:?}")
    };
    match body {
        Body::Stat(s) => stat(&s, sessions),
        Body::Path(path) => unnumbered(&path),
        Body::PathStat(path, s) => format!("{} {}", unnumbered(&path), stat(&s, sessions)),
        Body::Data(_, s) if s.czxid == 0 => "root".to_owned(),
        Body::Data(data, s) => format!("{} {}", text(&data), stat(&s, sessions)),
        Body::Children(names) if names.iter().any(|name| name == "r1") => "root".to_owned(),
        Body::Children(names) => sorted(names),
        Body::ChildrenStat(_, s) if s.czxid == 0 => "root".to_owned(),
        Body::ChildrenStat(names, s) => format!("{} {}", sorted(names), stat(&s, sessions)),
        Body::Ephemerals(paths) => sorted(paths),
        Body::Acl(mut acl, s) => {
            acl.sort_by_key(|acl| format!("{acl:?}"));
            format!("{acl:?} {}", stat(&s, sessions))
        }
        Body::Infos(infos) => {
            sorted(infos.iter().map(|info| format!("{}:{}", info.scheme, info.user)).collect())
        }
        Body::Multi(results) => {
            let result = |result: &MultiResult| match result {
                MultiResult::Create(path) => unnumbered(path),
                MultiResult::Create2(path, s) => format!("{} {}", unnumbered(path), stat(s, sessions)),
                MultiResult::SetData(s) => stat(s, sessions),
                MultiResult::GetData(data, s) => format!("{} {}", text(data), stat(s, sessions)),
                MultiResult::GetChildren(names) => sorted(names.clone()),
                MultiResult::Error(Code(code)) => format!("error {code}"),
                other => format!("{other:?}"),
            };
            format!("{:?}", results.iter().map(result).collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    }
}
