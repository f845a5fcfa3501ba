//! Walks: a subtree as it is at one zxid.

use std::{collections::VecDeque, future::IntoFuture, pin::Pin};

use api::{
    ErrorCode, OpError, Path, ReadLevel, Zxid,
    walk::{Walk, WalkEnd, WalkId},
    watch::WatchedZnode,
};
use client_core::Failure;
use proto::{
    client::{MESSAGE_MAX, walk_part, walk_to_wire},
    v1::{self, coordination_client::CoordinationClient},
};
use tonic::Streaming;

use crate::{Client, ClientError, transport};

impl Client {
    /// Walks through a subtree as it is at one zxid, parents before children, siblings in order, however large it is.
    ///
    /// ```no_run
    /// # async fn example(client: client_sdk::Client) -> Result<(), client_sdk::ClientError> {
    /// let mut walked = client.walk("/app").with_data().await?;
    /// while let Some(znode) = walked.next().await? {
    ///     println!("{} {:?}", znode.path, znode.data);
    /// }
    /// println!("all of {} at {}", walked.end().unwrap().znodes, walked.zxid());
    /// # Ok(())
    /// # }
    /// ```
    pub fn walk(&self, path: &str) -> WalkBuilder<'_> {
        let walk = Path::new(path).map(|path| Walk { path, max_depth: 0, with_data: false });
        WalkBuilder { client: self, walk: walk.map_err(OpError::from), level: ReadLevel::Local }
    }
}

/// See [`Client::walk`]. Awaited, it gives [`Walked`].
///
/// # Errors
/// `NoNode`, `NoAuth` if the root cannot be read, `LimitExceeded` if the node has too many walks; else as
/// [`Client::get_with`]. A walk is a call of its own and no part of the session.
#[must_use = "nothing happens before it is awaited"]
#[derive(Debug)]
pub struct WalkBuilder<'a> {
    client: &'a Client,
    walk: Result<Walk, OpError>,
    level: ReadLevel,
}

impl WalkBuilder<'_> {
    /// With values.
    pub fn with_data(mut self) -> Self {
        if let Ok(walk) = &mut self.walk {
            walk.with_data = true;
        }
        self
    }

    /// No further below the root than this: 1 is the root and its children.
    pub fn max_depth(mut self, depth: u32) -> Self {
        if let Ok(walk) = &mut self.walk {
            walk.max_depth = depth;
        }
        self
    }

    /// How fresh it has to be.
    pub fn level(self, level: ReadLevel) -> Self {
        Self { level, ..self }
    }

    async fn run(self) -> Result<Walked, ClientError> {
        let request = walk_to_wire(&self.walk?, self.level);
        let mut lost = None;
        for endpoint in self.client.endpoints_from_here() {
            let begun = async {
                let channel = transport::connect(&endpoint).await?;
                let mut client = CoordinationClient::new(channel).max_decoding_message_size(MESSAGE_MAX);
                let stream = client.walk(request.clone()).await.map_err(|status| transport::lost(&status))?;
                let mut walked = Walked {
                    stream: stream.into_inner(),
                    next: VecDeque::new(),
                    zxid: Zxid::ZERO,
                    end: None,
                };
                walked.part().await.map(|()| walked)
            };
            match begun.await {
                Ok(walked) => return Ok(walked),
                // Another node may do.
                Err(error)
                    if matches!(
                        error.code(),
                        ErrorCode::Unavailable | ErrorCode::Overloaded | ErrorCode::LimitExceeded
                    ) =>
                {
                    lost = Some(error);
                }
                Err(error) => return Err(Failure::Refused(error).into()),
            }
        }
        Err(Failure::Refused(lost.unwrap_or_else(transport::ended)).into())
    }
}

impl<'a> IntoFuture for WalkBuilder<'a> {
    type Output = Result<Walked, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// A walk under way. One that is not asked for more within some seconds is over on its node.
#[derive(Debug)]
pub struct Walked {
    stream: Streaming<v1::WalkResponse>,
    next: VecDeque<WatchedZnode>,
    zxid: Zxid,
    end: Option<WalkEnd>,
}

impl Walked {
    /// The entry behind which it is the state.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// The next znode; `None` behind the last.
    ///
    /// # Errors
    /// The walk broke off; its znodes are incomplete. `Gone` if more was changed meanwhile than the node keeps for it.
    pub async fn next(&mut self) -> Result<Option<WatchedZnode>, ClientError> {
        while self.next.is_empty() && self.end.is_none() {
            self.part().await.map_err(Failure::Refused)?;
        }
        Ok(self.next.pop_front())
    }

    /// Its totals, once the last part has come.
    #[must_use]
    pub fn end(&self) -> Option<WalkEnd> {
        self.end
    }

    async fn part(&mut self) -> Result<(), OpError> {
        let message = self.stream.message().await.map_err(|status| transport::lost(&status))?;
        // A stream that ends without an end is not whole.
        let part = walk_part(WalkId(0), message.ok_or_else(transport::ended)?);
        let part = part.map_err(|malformed| OpError::Internal(malformed.to_string()))?;
        (self.zxid, self.end) = (part.zxid, part.end);
        self.next.extend(part.znodes);
        Ok(())
    }
}
