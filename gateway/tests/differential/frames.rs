//! Random frames: right ones, odd ones, and such as are none.

use std::fmt;

use api::chance::Chance;
use bytes::{Bytes, BytesMut};
use zk_jute::{Acl, Create, Id, Reconfig, Request, SetWatches, Shape, xid};

/// One frame, and the form of its answer.
#[derive(Clone)]
pub(crate) struct Frame {
    /// Of the answer.
    pub(crate) xid: i32,
    pub(crate) shape: Shape,
    pub(crate) bytes: Vec<u8>,
    /// For messages.
    pub(crate) name: String,
    pub(crate) text: String,
    /// `None` if it is no valid one.
    pub(crate) request: Option<Request>,
    /// It may be one of several at once.
    together: bool,
    /// The place in `bytes` of the greatest zxid that the client has seen, which differs between servers.
    pub(crate) zxid_at: Option<usize>,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.xid, self.text)
    }
}

/// Makes the frames of a session.
pub(crate) struct Maker {
    /// The znode of most requests.
    pub(crate) base: String,
    /// Whether frames may have watches that stay.
    staying: bool,
    xid: i32,
}

impl Maker {
    pub(crate) fn new(base: &str, staying: bool) -> Maker {
        Maker { base: base.to_owned(), staying, xid: 0 }
    }

    /// A znode for all to use.
    pub(crate) fn open(&mut self, path: &str) -> Frame {
        let acl = Some(vec![acl(31, "world", "anyone")]);
        self.frame(Request::Create { create: Create { path: path.to_owned(), data: None, acl, flags: 0 } })
    }

    /// Changes nothing, and comes behind the events of what was before; with several nodes, of what was before on
    /// each of them.
    pub(crate) fn barrier(&mut self, several: bool) -> Frame {
        let path = "/barrier".to_owned();
        self.frame(if several { Request::Sync { path } } else { Request::Exists { path, watch: false } })
    }

    /// Sets the watches of an earlier connection again.
    pub(crate) fn again(&mut self, request: Request) -> Frame {
        let mut frame = self.frame(request);
        // Behind the length and the header.
        frame.zxid_at = Some(12);
        frame
    }

    /// Up to `count` frames at once. Without `ends`, none of them may end the session.
    pub(crate) fn burst(&mut self, chance: &mut Chance, count: usize, ends: bool) -> Vec<Frame> {
        let mut burst = Vec::new();
        while burst.len() < count && burst.iter().all(|frame: &Frame| frame.together) {
            let next = self.any(chance);
            let sets = next.name.contains("AddWatch") || next.name.contains("SetWatches");
            let fits = burst.is_empty() || next.together;
            let goes_on = ends || !(next.name.contains("CloseSession") || next.name.starts_with("kind -1"));
            if fits && goes_on && (self.staying || !sets) {
                burst.push(next);
            }
        }
        burst
    }

    fn any(&mut self, chance: &mut Chance) -> Frame {
        match chance.below(200) {
            0..=181 => {
                let request = self.request(chance);
                self.frame(request)
            }
            182..=189 => {
                let request = self.request(chance);
                let mut frame = self.frame(request);
                damage(&mut frame, chance);
                frame
            }
            190..=191 => self.raw(chance),
            192 => self.broken(chance),
            193 => {
                let request = self.request(chance);
                self.numbered(request, chance)
            }
            _ => {
                let (scheme, secret) = [
                    ("digest", "ann:secret"),
                    ("digest", "bob:"),
                    ("digest", "noword"),
                    ("digest", ":word"),
                    ("digest", "super:test"),
                    ("ip", ""),
                    ("world", "anyone"),
                    ("kerberos", "x"),
                ][chance.index(8)];
                let auth = Some(Bytes::from_static(secret.as_bytes()));
                let mut frame = self.frame(Request::Auth { kind: 0, scheme: Some(scheme.into()), auth });
                frame.together = false;
                frame
            }
        }
    }

    fn frame(&mut self, request: Request) -> Frame {
        self.xid += 1;
        let number = match request {
            Request::Ping => xid::PING,
            Request::Auth { .. } => xid::AUTH,
            _ => self.xid,
        };
        self.frame_with(request, number)
    }

    /// With a number that clients do not use, or use otherwise; -1 would look like an event.
    fn numbered(&mut self, request: Request, chance: &mut Chance) -> Frame {
        let number = [0, -2, -3, -4, -8, i32::MAX, i32::MIN][chance.index(7)];
        let mut frame = self.frame_with(request, number);
        frame.together = false;
        if matches!(frame.request, Some(Request::Ping)) {
            frame.xid = xid::PING;
        }
        if matches!(frame.request, Some(Request::Auth { .. })) {
            frame.xid = xid::AUTH;
        }
        frame
    }

    fn frame_with(&mut self, request: Request, number: i32) -> Frame {
        let mut bytes = BytesMut::new();
        request.encode(number, &mut bytes);
        let text = format!("{request:?}");
        let name = text.split([' ', '(']).next().unwrap_or_default().to_owned();
        // ZooKeeper answers authentication at once, before requests that came earlier.
        let alone = matches!(
            request,
            Request::Ping | Request::Auth { .. } | Request::Sasl { .. } | Request::CloseSession
        );
        let together = !alone;
        let (shape, bytes) = (Shape::of(request.code()), bytes.to_vec());
        Frame { xid: number, shape, bytes, name, text, request: Some(request), together, zxid_at: None }
    }

    /// Bytes that are no frame, or no request.
    fn broken(&mut self, chance: &mut Chance) -> Frame {
        self.xid += 1;
        let bytes = match chance.below(6) {
            0 => (-1i32).to_be_bytes().to_vec(),
            1 => i32::MIN.to_be_bytes().to_vec(),
            2 => i32::MAX.to_be_bytes().to_vec(),
            3 => [&(64i32 << 20).to_be_bytes()[..], &[0; 20]].concat(),
            4 => vec![0; 4],
            _ => {
                let length = 1 + chance.index(7);
                [&i32::try_from(length).unwrap().to_be_bytes()[..], &vec![0; length]].concat()
            }
        };
        let text = format!("broken {bytes:?}");
        let (xid, name) = (self.xid, "broken".to_owned());
        Frame { xid, shape: Shape::Nothing, bytes, name, text, request: None, together: false, zxid_at: None }
    }

    /// An operation that there is not, or that no client may ask for, with anything behind it.
    fn raw(&mut self, chance: &mut Chance) -> Frame {
        self.xid += 1;
        let kinds = [-11, -1, 0, 10, 23, 50, 99, 108, 1000, i32::MAX, i32::MIN];
        // ZooKeeper 3.8 differs.
        let other = [-10, 13, 20];
        let kind = match chance.below(20) {
            0 => other[chance.index(other.len())],
            _ => kinds[chance.index(kinds.len())],
        };
        let mut bytes = Vec::new();
        let rest: Vec<u8> = (0..chance.below(12)).map(|_| chance.below(4) as u8).collect();
        bytes.extend_from_slice(&(8 + rest.len() as i32).to_be_bytes());
        bytes.extend_from_slice(&self.xid.to_be_bytes());
        bytes.extend_from_slice(&i32::to_be_bytes(kind));
        bytes.extend_from_slice(&rest);
        let (name, text) = (format!("kind {kind}"), format!("kind {kind} {rest:?}"));
        let (xid, shape) = (self.xid, Shape::Nothing);
        Frame { xid, shape, bytes, name, text, request: None, together: false, zxid_at: None }
    }

    fn path(&self, chance: &mut Chance) -> String {
        let base = &self.base;
        let usual = ["", "/a", "/b", "/a/x", "/a/y", "/a/x/p", "/b/x", "/c", "/e"];
        let odd = [
            "/",
            "//a",
            "/a/",
            "/../a",
            "/a/.",
            "/\u{1}",
            "/a/\u{fffe}",
            "/a\u{0}",
            "/é",
            "/a/\u{1f600}",
            "/\u{e000}",
        ];
        match chance.below(20) {
            0 => format!("{base}{}", odd[chance.index(odd.len())]),
            // Of this round alone, as what is made there stays.
            1 => match chance.below(4) {
                0 => format!("{base}none"),
                1 => format!("{base}none/a"),
                2 => "none".to_owned(),
                _ => "//".to_owned(),
            },
            _ => format!("{base}{}", usual[chance.index(usual.len())]),
        }
    }

    /// The root belongs to all rounds: only requests that neither change nor list it may have it.
    fn any_path(&self, chance: &mut Chance) -> String {
        match chance.below(100) {
            0 => String::new(),
            1 => "/".to_owned(),
            // Quorate has no such znodes.
            2 if chance.below(8) == 0 => ["/zookeeper", "/zookeeper/quota"][chance.index(2)].to_owned(),
            _ => self.path(chance),
        }
    }

    fn version(chance: &mut Chance) -> i32 {
        [-1, -1, -1, 0, 0, 1, 2, -2, i32::MIN][chance.index(9)]
    }

    /// Of watches; ZooKeeper 3.8 does not know 4 and 5.
    fn kind(chance: &mut Chance) -> i32 {
        match chance.below(30) {
            0 => 4 + chance.below(2) as i32,
            1 => [0, 6, -1][chance.index(3)],
            n => 1 + (n % 3) as i32,
        }
    }

    fn data(chance: &mut Chance) -> Option<Bytes> {
        [None, Some(&b""[..]), Some(b"x"), Some(b"longer than that")][chance.index(4)].map(Bytes::from_static)
    }

    fn acl(chance: &mut Chance) -> Option<Vec<Acl>> {
        let ann = api::proof::digest("ann:secret").unwrap();
        let open = acl(31, "world", "anyone");
        Some(match chance.below(40) {
            0 => return None,
            1 => vec![],
            2 => vec![acl(1, "world", "anyone")],
            3 => vec![acl(31, "digest", ann.id())],
            4 => vec![acl(31, "auth", "")],
            5 => vec![acl(31, "ip", "127.0.0.1")],
            6 => vec![acl(31, "ip", "10.0.0.0/8")],
            7 => vec![acl(31, "ip", "127.0.0.0/40")],
            8 => vec![acl(31, "nobody", "x")],
            9 => vec![acl(31, "digest", "nohash")],
            10 => vec![acl(31, "world", "some")],
            11 => vec![open.clone(), acl(3, "digest", ann.id()), open],
            12 => vec![acl(15, "world", "anyone")],
            13 => vec![acl(30, "world", "anyone"), acl(1, "auth", "")],
            14 => vec![acl(0, "world", "anyone"), acl(16, "ip", "127.0.0.1")],
            _ => vec![open],
        })
    }

    fn create(&self, chance: &mut Chance) -> Create {
        let flags = [0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, -1][chance.index(13)];
        Create { path: self.path(chance), data: Self::data(chance), acl: Self::acl(chance), flags }
    }

    fn request(&mut self, chance: &mut Chance) -> Request {
        let watch = chance.below(3) == 0;
        match chance.below(64) {
            0..=9 => Request::Create { create: self.create(chance) },
            10..=13 => Request::Create2 { create: self.create(chance) },
            14 => Request::CreateContainer { create: Create { flags: 4, ..self.create(chance) } },
            15 => {
                let ttl = [0, 600_000, 1_000_000, -1, i64::MAX][chance.index(5)];
                let flags = if chance.below(2) == 0 { 5 } else { 6 };
                Request::CreateTtl { create: Create { flags, ..self.create(chance) }, ttl }
            }
            16..=21 => Request::Delete { path: self.any_path(chance), version: Self::version(chance) },
            22..=25 => Request::Exists { path: self.any_path(chance), watch },
            26..=30 => Request::GetData { path: self.any_path(chance), watch },
            31..=36 => Request::SetData {
                path: self.path(chance),
                data: Self::data(chance),
                version: Self::version(chance),
            },
            37..=38 => Request::GetAcl { path: self.any_path(chance) },
            39..=41 => Request::SetAcl {
                path: self.path(chance),
                acl: Self::acl(chance),
                version: Self::version(chance),
            },
            42..=43 => Request::GetChildren { path: self.path(chance), watch },
            44..=45 => Request::GetChildren2 { path: self.path(chance), watch },
            46 => Request::Sync { path: self.any_path(chance) },
            47 => Request::Ping,
            48..=52 => Request::Multi((0..chance.below(5)).map(|_| self.part(chance)).collect()),
            53 => {
                let read = |chance: &mut Chance| match chance.below(2) {
                    0 => Request::GetData { path: self.path(chance), watch: false },
                    _ => Request::GetChildren { path: self.path(chance), watch: false },
                };
                Request::MultiRead((0..chance.below(4)).map(|_| read(chance)).collect())
            }
            54 => match chance.below(3) {
                0 => Request::GetEphemerals { prefix: Some(self.any_path(chance)) },
                1 => Request::GetEphemerals { prefix: None },
                _ => Request::GetAllChildrenNumber { path: self.path(chance) },
            },
            55..=57 => {
                Request::AddWatch { path: self.path(chance), mode: [0, 1, 0, 1, 2, -1][chance.index(6)] }
            }
            58 => Request::CheckWatches { path: self.any_path(chance), kind: Self::kind(chance) },
            59 => Request::RemoveWatches { path: self.path(chance), kind: Self::kind(chance) },
            60 => Request::WhoAmI,
            61 => {
                let watches = SetWatches {
                    // The two count otherwise.
                    relative_zxid: 0,
                    data: vec![self.path(chance)],
                    exist: vec![self.path(chance)],
                    child: vec![self.path(chance)],
                };
                match chance.below(2) {
                    0 => Request::SetWatches { watches },
                    _ => Request::SetWatches2 {
                        watches,
                        persistent: vec![self.path(chance)],
                        recursive: vec![self.path(chance)],
                    },
                }
            }
            62 if chance.below(4) == 0 => Request::CloseSession,
            62 => {
                let reconfig =
                    Reconfig { joining: None, leaving: Some("9".into()), members: None, version: -1 };
                Request::Reconfig { reconfig }
            }
            // ZooKeeper 3.8 does not answer the first of these.
            _ => match chance.below(32) {
                0 => Request::Check { path: self.path(chance), version: Self::version(chance) },
                1 => Request::Sasl { token: Self::data(chance) },
                _ => Request::Exists { path: self.path(chance), watch },
            },
        }
    }

    /// Seldom one that is invalid for every tree: those fail before the others.
    fn part(&mut self, chance: &mut Chance) -> Request {
        if chance.below(30) == 0 {
            return self.any_part(chance);
        }
        let usual = ["", "/a", "/b", "/a/x", "/a/y", "/b/x", "/c", "/e"];
        let path = format!("{}{}", self.base, usual[chance.index(usual.len())]);
        let acl = match chance.below(8) {
            0 => [acl(15, "world", "anyone"), acl(1, "world", "anyone"), acl(31, "ip", "10.0.0.0/8")]
                [chance.index(3)]
            .clone(),
            _ => acl(31, "world", "anyone"),
        };
        let (data, version) = (Self::data(chance), Self::version(chance));
        match chance.below(8) {
            kind @ 0..=3 => {
                let flags = [0, 0, 0, 1, 2, 3][chance.index(6)];
                let create = Create { path, data, acl: Some(vec![acl]), flags };
                if kind == 0 { Request::Create2 { create } } else { Request::Create { create } }
            }
            4 => Request::Delete { path, version },
            5..=6 => Request::SetData { path, data, version },
            _ => Request::Check { path, version },
        }
    }

    fn any_part(&mut self, chance: &mut Chance) -> Request {
        match chance.below(8) {
            0..=2 => Request::Create { create: self.create(chance) },
            3 => Request::Create2 { create: self.create(chance) },
            4 => Request::Delete { path: self.path(chance), version: Self::version(chance) },
            5..=6 => Request::SetData {
                path: self.path(chance),
                data: Self::data(chance),
                version: Self::version(chance),
            },
            _ => Request::Check { path: self.path(chance), version: Self::version(chance) },
        }
    }
}

fn acl(perms: i32, scheme: &str, id: &str) -> Acl {
    Acl { perms, id: Id { scheme: scheme.into(), id: id.into() } }
}

/// Cuts it off, lengthens it, or changes a byte behind its header.
fn damage(frame: &mut Frame, chance: &mut Chance) {
    let bytes = &mut frame.bytes;
    match chance.below(3) {
        _ if bytes.len() <= 13 => bytes.push(0),
        0 => bytes.truncate(12 + chance.index(bytes.len() - 12)),
        1 => bytes.extend_from_slice(&[0, 0, 0, 1, 7][..1 + chance.index(5)]),
        _ => {
            let place = 12 + chance.index(bytes.len() - 12);
            bytes[place] = [0, 1, 0x7f, 0xff][chance.index(4)];
        }
    }
    let length = i32::try_from(bytes.len() - 4).unwrap();
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    frame.text = format!("damaged {} {:?}", frame.text, Bytes::from(bytes[12..].to_vec()));
    frame.name = format!("damaged {}", frame.name);
    frame.request = None;
    frame.together = false;
}
