//! One connection to a server, and what comes from it, made alike.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
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
    /// The answer to a handshake, and whether it says who only reads.
    Opened {
        /// Not a new session.
        resumed: bool,
        read_only: Option<bool>,
    },
    /// The same for a session that is not there.
    Expired {
        read_only: Option<bool>,
    },
    Closed,
    /// Nothing for long.
    Silent,
}

pub(crate) struct Connection {
    stream: TcpStream,
    frames: Frames,
    pub(crate) session: i64,
    password: Option<Bytes>,
    /// The greatest zxid of a reply.
    zxid: i64,
    closed: bool,
}

/// How a client takes its session up again.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Hello {
    Usual,
    WrongPassword,
    ShortPassword,
    NoPassword,
    UnknownSession,
    /// As before ZooKeeper 3.4.
    WithoutReadOnly,
    ReadOnly,
    /// Of another version, with a byte behind it.
    Odd,
    /// It has seen what this server has not.
    Ahead,
    /// Not even a handshake.
    Short,
}

impl Connection {
    /// A new session.
    pub(crate) fn open(address: SocketAddr) -> Connection {
        let mut connection = Connection::connect(address);
        let fresh = ConnectRequest { session_id: 0, ..connection.usual() };
        assert!(matches!(connection.shake_hands(&fresh, &[]), Seen::Opened { .. }));
        connection
    }

    /// The session of this connection on another one, whether this one is open or not.
    pub(crate) fn resume(&self, address: SocketAddr, hello: Hello) -> (Connection, Seen) {
        let mut next = Connection::connect(address);
        (next.session, next.password, next.zxid) = (self.session, self.password.clone(), self.zxid);
        let usual = next.usual();
        let password = |bytes: &'static [u8]| Some(Bytes::from_static(bytes));
        let (request, behind) = match hello {
            Hello::Usual | Hello::Short => (usual, &[][..]),
            Hello::WrongPassword => (ConnectRequest { password: password(&[7; 16]), ..usual }, &[][..]),
            Hello::ShortPassword => (ConnectRequest { password: password(&[7; 3]), ..usual }, &[][..]),
            Hello::NoPassword => (ConnectRequest { password: None, ..usual }, &[][..]),
            Hello::UnknownSession => (ConnectRequest { session_id: 0x123, ..usual }, &[][..]),
            Hello::WithoutReadOnly => (ConnectRequest { read_only: None, ..usual }, &[][..]),
            Hello::ReadOnly => (ConnectRequest { read_only: Some(true), ..usual }, &[][..]),
            Hello::Odd => (ConnectRequest { protocol_version: 7, ..usual }, &[1][..]),
            // The gateway waits for a part of the time-out, in case that it is only behind.
            Hello::Ahead => {
                (ConnectRequest { last_zxid_seen: i64::MAX >> 8, timeout_ms: 4000, ..usual }, &[][..])
            }
        };
        let seen = match hello {
            Hello::Short => next.say_bytes(&[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            _ => next.shake_hands(&request, behind),
        };
        (next, seen)
    }

    fn connect(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut connection = Connection {
            stream,
            frames: Frames::new(16 << 20),
            session: 0,
            password: Some(Bytes::from_static(&[0; 16])),
            zxid: 0,
            closed: false,
        };
        connection.wait(PATIENCE);
        connection
    }

    fn usual(&self) -> ConnectRequest {
        ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.zxid,
            timeout_ms: 30_000,
            session_id: self.session,
            password: self.password.clone(),
            read_only: Some(false),
        }
    }

    fn shake_hands(&mut self, request: &ConnectRequest, behind: &[u8]) -> Seen {
        let mut out = BytesMut::new();
        request.encode(&mut out);
        out.extend_from_slice(behind);
        let length = i32::try_from(out.len() - 4).unwrap();
        out[..4].copy_from_slice(&length.to_be_bytes());
        self.say_bytes(&out)
    }

    fn say_bytes(&mut self, bytes: &[u8]) -> Seen {
        // An error: the server has hung up, which shows below.
        let _ = self.stream.write_all(bytes);
        let answer = match self.frame() {
            Ok(answer) => ConnectResponse::decode(answer).unwrap(),
            Err(end) => return end,
        };
        let read_only = answer.read_only;
        if answer.session_id == 0 {
            return Seen::Expired { read_only };
        }
        let resumed = self.session == answer.session_id;
        (self.session, self.password) = (answer.session_id, Some(Bytes::copy_from_slice(&answer.password)));
        Seen::Opened { resumed, read_only }
    }

    fn wait(&mut self, most: Duration) {
        self.stream.set_read_timeout(Some(most)).unwrap();
    }

    pub(crate) fn hang_up(&mut self) {
        // An error: the server has done so.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Waits for the end that the server makes.
    pub(crate) fn end(&mut self) -> Seen {
        loop {
            if let Err(end) = self.frame() {
                return end;
            }
        }
    }

    pub(crate) fn send(&mut self, burst: &[Frame]) {
        let mut bytes = Vec::new();
        for frame in burst {
            let start = bytes.len();
            bytes.extend_from_slice(&frame.bytes);
            if let Some(at) = frame.zxid_at {
                bytes[start + at..start + at + 8].copy_from_slice(&self.zxid.to_be_bytes());
            }
        }
        // An error: the server has hung up, which shows when it is read.
        let _ = self.stream.write_all(&bytes);
    }

    /// Takes what comes until each of these is answered, or the connection ends.
    pub(crate) fn receive(&mut self, burst: &[Frame], sessions: [i64; 2]) -> Vec<Seen> {
        let mut all = Vec::new();
        if self.closed {
            return all;
        }
        // ZooKeeper 3.8 does not answer a check.
        let silent = burst.iter().any(|frame| frame.name.contains("Check") || frame.name == "kind 13");
        self.wait(if silent { Duration::from_secs(2) } else { PATIENCE });
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
                    self.zxid = self.zxid.max(header.zxid);
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
                        all.push(self.end());
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
        Body::Children(names) if names.iter().any(|name| name == "zookeeper") => "root".to_owned(),
        Body::Children(names) => sorted(names),
        Body::ChildrenStat(_, s) if s.czxid == 0 => "root".to_owned(),
        Body::ChildrenStat(names, s) => format!("{} {}", sorted(names), stat(&s, sessions)),
        Body::Ephemerals(paths) => sorted(paths.iter().map(|path| unnumbered(path)).collect()),
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

/// A server that says nothing for longer does not answer.
const PATIENCE: Duration = Duration::from_secs(20);
