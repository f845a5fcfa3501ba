//! The election of this node, in another process.

use std::sync::Arc;

use api::{
    Epoch, PeerId, Roster, Standing,
    ports::{Candidate, Election, PortClosed},
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::{Neighbour, NoLink};
use crate::{
    internal::{self, election_answer::Kind, election_port_client::ElectionPortClient},
    ports::ElectionCall,
};

/// The port [`Election`] to an election in another process. Without a link a requested election waits, and a
/// new link requests it again. After a restart of the election the client sends it this server's present
/// leader. It dials after the first call.
#[derive(Clone, Debug)]
pub struct RemoteElection {
    election: Arc<Neighbour>,
    calls: mpsc::Sender<Call>,
    linked: watch::Receiver<bool>,
}

#[derive(Debug)]
enum Call {
    Elect { candidate: Option<Candidate>, elected: oneshot::Sender<Result<PeerId, PortClosed>> },
    Settled { leader: PeerId, epoch: Epoch },
    Introduce(Standing, Arc<Roster>),
}

impl RemoteElection {
    /// Begins to dial, until every clone is dropped. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(election: Neighbour) -> RemoteElection {
        let (calls, queue) = mpsc::channel(CALLS);
        let (tell_linked, linked) = watch::channel(false);
        let election = Arc::new(election);
        tokio::spawn(run(election.clone(), queue, tell_linked));
        RemoteElection { election, calls, linked }
    }

    /// Whether the quorum is linked to its election.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        *self.linked.borrow()
    }

    async fn call(&self, call: Call) -> Result<(), PortClosed> {
        self.calls.send(call).await.map_err(|_| PortClosed("the link to the election has ended".into()))
    }
}

impl Election for RemoteElection {
    async fn elect(&self, candidate: Option<Candidate>) -> Result<PeerId, PortClosed> {
        let (elected, answer) = oneshot::channel();
        self.call(Call::Elect { candidate, elected }).await?;
        answer.await.unwrap_or_else(|_| Err(PortClosed("the link to the election has ended".into())))
    }

    async fn introduce(&self, standing: Standing, roster: Arc<Roster>) -> Result<(), PortClosed> {
        self.election.own.know(standing);
        self.call(Call::Introduce(standing, roster)).await
    }

    async fn settled(&self, leader: PeerId, epoch: Epoch) -> Result<(), PortClosed> {
        self.call(Call::Settled { leader, epoch }).await
    }
}

/// The last calls: the state that the election needs after each new link.
#[derive(Default)]
struct Requested {
    /// Who this server is; `None` before it has said so.
    introduced: Option<(Standing, Arc<Roster>)>,
    /// Of the last search.
    number: u64,
    kind: Option<Request>,
}

enum Request {
    Elect { candidate: Option<Candidate>, elected: oneshot::Sender<Result<PeerId, PortClosed>> },
    Settled { leader: PeerId, epoch: Epoch },
}

impl Requested {
    fn take(&mut self, call: Call) {
        let kind = match call {
            Call::Elect { candidate, elected } => {
                self.number += 1;
                Request::Elect { candidate, elected }
            }
            Call::Settled { leader, epoch } => Request::Settled { leader, epoch },
            Call::Introduce(standing, roster) => {
                self.introduced = Some((standing, roster));
                return;
            }
        };
        if let Some(Request::Elect { elected, .. }) = self.kind.replace(kind) {
            // The caller may be gone.
            let _ = elected.send(Err(PortClosed("a newer call replaces this election".into())));
        }
    }

    /// The messages for a new link, in their order.
    fn to_wire(&self) -> Vec<internal::ElectionCall> {
        let introduced = self.introduced.clone();
        let introduce = introduced.map(|(standing, roster)| ElectionCall::Introduce(standing, roster));
        let call = match &self.kind {
            None => return introduce.into_iter().map(Into::into).collect(),
            Some(Request::Elect { candidate, .. }) => {
                ElectionCall::Elect { number: self.number, candidate: *candidate }
            }
            &Some(Request::Settled { leader, epoch }) => ElectionCall::Settled { leader, epoch },
        };
        introduce.into_iter().chain([call]).map(Into::into).collect()
    }

    fn elected(&mut self, number: u64, leader: PeerId) {
        if number != self.number {
            return;
        }
        match self.kind.take() {
            // The caller may be gone.
            Some(Request::Elect { elected, .. }) => drop(elected.send(Ok(leader))),
            other => self.kind = other,
        }
    }
}

/// Runs until all callers are gone.
async fn run(election: Arc<Neighbour>, mut calls: mpsc::Receiver<Call>, linked: watch::Sender<bool>) {
    let mut requested = Requested::default();
    // A quorum first says who it is, and then the election can compare that.
    match calls.recv().await {
        Some(call) => requested.take(call),
        None => return,
    }
    loop {
        let gather = async {
            while let Some(call) = calls.recv().await {
                requested.take(call);
            }
        };
        let mut link = tokio::select! {
            link = election.keep_trying(|| Link::open(&election)) => link,
            () = gather => return,
        };
        linked.send_replace(true);
        let carried = link.carry(&mut requested, &mut calls).await;
        linked.send_replace(false);
        match carried {
            Carried::Broken(why) => tracing::warn!(reason = why, "link to the election service broke"),
            Carried::Over => return,
        }
    }
}

struct Link {
    to_election: mpsc::Sender<internal::ElectionCall>,
    answers: Streaming<internal::ElectionAnswer>,
}

enum Carried {
    /// There may be another one. With the reason.
    Broken(String),
    /// All callers are gone, or another quorum has taken this one's place.
    Over,
}

impl Link {
    async fn open(election: &Neighbour) -> Result<Link, NoLink> {
        let (to_election, requests) = mpsc::channel(CALLS);
        // The queue is empty, so there is room.
        let _ = to_election.try_send(ElectionCall::Hello(election.hello()).into());
        let mut client = ElectionPortClient::new(election.channel().await?);
        let mut answers = client.link(ReceiverStream::new(requests)).await?.into_inner();
        let first = answers.message().await?.and_then(|m| m.kind);
        election.check(if let Some(Kind::Hello(hello)) = first { Some(hello) } else { None })?;
        Ok(Link { to_election, answers })
    }

    async fn carry(&mut self, requested: &mut Requested, calls: &mut mpsc::Receiver<Call>) -> Carried {
        let mut say = requested.to_wire();
        loop {
            for call in say.drain(..) {
                if self.to_election.send(call).await.is_err() {
                    return Carried::Broken("it takes no more calls".into());
                }
            }
            tokio::select! {
                call = calls.recv() => match call {
                    Some(Call::Introduce(standing, roster)) => {
                        // A search under way continues.
                        requested.introduced = Some((standing, roster.clone()));
                        say.push(ElectionCall::Introduce(standing, roster).into());
                    }
                    Some(call) => {
                        requested.take(call);
                        say = requested.to_wire();
                    }
                    None => return Carried::Over,
                },
                answer = self.answers.message() => match answer {
                    Ok(Some(answer)) => {
                        if let Some(Kind::Elected(m)) = answer.kind {
                            requested.elected(m.number, PeerId(m.leader));
                        }
                    }
                    Ok(None) => return Carried::Broken("the election has stopped".into()),
                    Err(status) if status.code() == Code::Aborted => {
                        tracing::error!(reason = status.message(), "the election service ended the link");
                        return Carried::Over;
                    }
                    Err(status) => return Carried::Broken(status.message().to_owned()),
                },
            }
        }
    }
}

/// Calls that wait for the link's task; the stream holds the same number. When both are full, callers wait.
const CALLS: usize = 4;
