//! Random frames: right ones, odd ones, and such as are none.

use std::fmt;

use api::chance::Chance;
use bytes::{Bytes, BytesMut};
use zk_jute::{Acl, Create, Id, Reconfig, Request, SetWatches, Shape, xid};

/// One frame, and what an answer to it looks like.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) xid: i32,
    pub(crate) shape: Shape,
    pub(crate) bytes: Vec<u8>,
    /// For messages.
    pub(crate) name: String,
    text: String,
    /// It may be one of several at once.
    together: bool,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.xid, self.text)
    }
}

pub(crate) struct Maker {
    base: String,
    xid: i32,
}

impl Maker {
    pub(crate) fn new(base: &str) -> Maker {
        Maker { base: base.to_owned(), xid: 0 }
    }

    /// The znode below which all happens.
    pub(crate) fn first(&mut self) -> Frame {
        let create = Create {
            path: self.base.clone(),
            data: None,
            acl: Some(vec![acl(31, "world", "anyone")]),
            flags: 0,
        };
        self.frame(Request::Create { create })
    }

    /// Changes nothing, and comes behind the events of what was before.
    pub(crate) fn barrier(&mut self) -> Frame {
        self.frame(Request::Exists { path: "/barrier".into(), watch: false })
    }

    pub(crate) fn burst(&mut self, chance: &mut Chance, count: usize) -> Vec<Frame> {
        let first = self.any(chance);
        let mut burst = vec![first];
        while burst.len() < count && burst.iter().all(|frame| frame.together) {
            let next = self.any(chance);
            if next.together {
                burst.push(next);
            }
        }
        burst
    }

    fn any(&mut self, chance: &mut Chance) -> Frame {
        match chance.below(100) {
            0..=89 => {
                let request = self.request(chance);
                self.frame(request)
            }
            90..=93 => {
                let request = self.request(chance);
                let mut frame = self.frame(request);
                damage(&mut frame, chance);
                frame
            }
            94..=95 => self.raw(chance),
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
        let mut bytes = BytesMut::new();
        request.encode(number, &mut bytes);
        let text = format!("{request:?}");
        let name = text.split([' ', '(']).next().unwrap_or_default().to_owned();
        let together = !matches!(request, Request::Ping | Request::Auth { .. } | Request::CloseSession);
        Frame { xid: number, shape: Shape::of(request.code()), bytes: bytes.to_vec(), name, text, together }
    }

    /// An operation that there is not, or that no client may ask for, with anything behind it.
    fn raw(&mut self, chance: &mut Chance) -> Frame {
        self.xid += 1;
        let kinds = [-11, -10, -1, 0, 10, 13, 20, 23, 50, 99, 108, 1000, i32::MAX];
        let kind = kinds[chance.index(kinds.len())];
        let mut bytes = Vec::new();
        let rest: Vec<u8> = (0..chance.below(12)).map(|_| chance.below(4) as u8).collect();
        bytes.extend_from_slice(&(8 + rest.len() as i32).to_be_bytes());
        bytes.extend_from_slice(&self.xid.to_be_bytes());
        bytes.extend_from_slice(&i32::to_be_bytes(kind));
        bytes.extend_from_slice(&rest);
        let (name, text) = (format!("kind {kind}"), format!("kind {kind} {rest:?}"));
        Frame { xid: self.xid, shape: Shape::Nothing, bytes, name, text, together: false }
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
            1 => match chance.below(6) {
                0 => format!("{base}none"),
                1 => format!("{base}none/a"),
                other => ["", "/", "none", "//"][other as usize - 2].to_owned(),
            },
            _ => format!("{base}{}", usual[chance.index(usual.len())]),
        }
    }

    fn version(chance: &mut Chance) -> i32 {
        [-1, -1, -1, 0, 0, 1, 2, -2, i32::MIN][chance.index(9)]
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
                let ttl = [0, 1, 1_000_000, -1, i64::MAX][chance.index(5)];
                let flags = if chance.below(2) == 0 { 5 } else { 6 };
                Request::CreateTtl { create: Create { flags, ..self.create(chance) }, ttl }
            }
            16..=21 => Request::Delete { path: self.path(chance), version: Self::version(chance) },
            22..=25 => Request::Exists { path: self.path(chance), watch },
            26..=30 => Request::GetData { path: self.path(chance), watch },
            31..=36 => Request::SetData {
                path: self.path(chance),
                data: Self::data(chance),
                version: Self::version(chance),
            },
            37..=38 => Request::GetAcl { path: self.path(chance) },
            39..=41 => Request::SetAcl {
                path: self.path(chance),
                acl: Self::acl(chance),
                version: Self::version(chance),
            },
            42..=43 => Request::GetChildren { path: self.listed(chance), watch },
            44..=45 => Request::GetChildren2 { path: self.listed(chance), watch },
            46 => Request::Sync { path: self.path(chance) },
            47 => Request::Ping,
            48..=52 => Request::Multi((0..chance.below(5)).map(|_| self.part(chance)).collect()),
            53 => {
                let read = |chance: &mut Chance| match chance.below(2) {
                    0 => Request::GetData { path: self.path(chance), watch: false },
                    _ => Request::GetChildren { path: self.listed(chance), watch: false },
                };
                Request::MultiRead((0..chance.below(4)).map(|_| read(chance)).collect())
            }
            54 => Request::GetEphemerals { prefix: Some(self.path(chance)) },
            55..=57 => {
                Request::AddWatch { path: self.path(chance), mode: [0, 1, 0, 1, 2, -1][chance.index(6)] }
            }
            58 => Request::CheckWatches { path: self.path(chance), kind: chance.below(7) as i32 },
            59 => Request::RemoveWatches { path: self.path(chance), kind: 1 + chance.below(5) as i32 },
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
            _ => Request::Check { path: self.path(chance), version: Self::version(chance) },
        }
    }

    /// The root has other children on each server.
    fn listed(&self, chance: &mut Chance) -> String {
        loop {
            let path = self.path(chance);
            if path != "/" && !path.is_empty() {
                return path;
            }
        }
    }

    fn part(&mut self, chance: &mut Chance) -> Request {
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
    frame.together = false;
}
