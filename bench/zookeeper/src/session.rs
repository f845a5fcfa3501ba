//! One session with a server, over a blocking socket.

use std::{
    collections::VecDeque,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::{Bytes, BytesMut};
use zk_jute::{ConnectRequest, ConnectResponse, Frames, PASSWORD, ReplyHeader, Request};

/// Requests of [`Session::all`] under way.
const WINDOW: usize = 64;

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Session {
    stream: TcpStream,
    frames: Frames,
    /// Encoded, and not sent yet.
    out: BytesMut,
    xid: i32,
    /// The requests without an answer: number and time.
    asked: VecDeque<(i32, Instant)>,
    piece: Box<[u8]>,
}

impl Session {
    pub(crate) fn open(host: &str) -> Result<Session> {
        let stream = TcpStream::connect(host).with_context(|| format!("cannot connect to {host}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (frames, piece) = (Frames::new(16 << 20), vec![0; 64 << 10].into_boxed_slice());
        let mut session =
            Session { stream, frames, out: BytesMut::new(), xid: 0, asked: VecDeque::new(), piece };
        let hello = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms: 30_000,
            session_id: 0,
            password: Some(Bytes::from_static(&[0; PASSWORD])),
            read_only: Some(false),
        };
        hello.encode(&mut session.out);
        session.flush()?;
        loop {
            session.receive()?;
            if let Some(frame) = session.frames.next_frame()? {
                let opened = ConnectResponse::decode(frame)?;
                return match opened.session_id {
                    0 => Err(anyhow!("{host} gives no session")),
                    _ => Ok(session),
                };
            }
        }
    }

    /// Encodes a request; [`Session::flush`] sends it.
    pub(crate) fn ask(&mut self, request: &Request) {
        self.xid = self.xid.wrapping_add(1) & i32::MAX;
        request.encode(self.xid, &mut self.out);
        self.asked.push_back((self.xid, Instant::now()));
    }

    /// Requests without an answer.
    pub(crate) fn under_way(&self) -> usize {
        self.asked.len()
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Waits for something, and returns when it came.
    pub(crate) fn receive(&mut self) -> Result<Instant> {
        let n = self.stream.read(&mut self.piece).context("the server does not answer")?;
        if n == 0 {
            bail!("the server has closed the connection");
        }
        self.frames.buffer().extend_from_slice(&self.piece[..n]);
        Ok(Instant::now())
    }

    /// The next answer that is there: when its request was made, and the code of its result.
    pub(crate) fn answer(&mut self) -> Result<Option<(Instant, i32)>> {
        let Some(frame) = self.frames.next_frame()? else { return Ok(None) };
        let (header, _) = ReplyHeader::decode(frame)?;
        match self.asked.pop_front() {
            Some((xid, asked)) if xid == header.xid => Ok(Some((asked, header.err))),
            expected => bail!("an answer to {} where {expected:?} is next", header.xid),
        }
    }

    /// Makes these requests, all of which have to succeed.
    pub(crate) fn all(&mut self, requests: impl IntoIterator<Item = Request>) -> Result<()> {
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() || self.under_way() > 0 {
            while self.under_way() < WINDOW
                && let Some(request) = requests.next()
            {
                self.ask(&request);
            }
            self.flush()?;
            self.receive()?;
            while let Some((_, code)) = self.answer()? {
                if code != 0 {
                    bail!("a request fails with {code}");
                }
            }
        }
        Ok(())
    }

    pub(crate) fn close(mut self) -> Result<()> {
        self.all([Request::CloseSession])
    }
}

/// The same hosts, and the leader last: its own clients save it a hop.
pub(crate) fn followers_first(hosts: &[String]) -> Vec<String> {
    let mut hosts = hosts.to_vec();
    hosts.sort_by_key(|host| leads(host));
    hosts
}

fn leads(host: &str) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"srvr")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text.contains("Mode: leader"))
    };
    ask().unwrap_or(false)
}
