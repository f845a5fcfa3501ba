use std::sync::Arc;

use api::ports::{Candidate, Election, PortClosed};
use api::{Epoch, PeerId, Roster, Standing};
use tokio::sync::{mpsc, oneshot};

/// Calls the election of this process.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

/// A request of a handle to the driver.
#[derive(Debug)]
pub(crate) enum Command {
    Elect { candidate: Option<Candidate>, elected: oneshot::Sender<Result<PeerId, PortClosed>> },
    Settled { leader: PeerId, epoch: Epoch },
    Introduce(Standing, Arc<Roster>),
    Withdraw,
}

impl Handle {
    pub(crate) fn new(commands: mpsc::Sender<Command>) -> Handle {
        Handle { commands }
    }

    /// All earlier callers are gone: see [`election_core::Input::Withdraw`].
    pub(crate) async fn withdraw(&self) -> Result<(), PortClosed> {
        self.send(Command::Withdraw).await
    }

    async fn send(&self, command: Command) -> Result<(), PortClosed> {
        self.commands.send(command).await.map_err(|_| stopped())
    }
}

impl Election for Handle {
    async fn elect(&self, candidate: Option<Candidate>) -> Result<PeerId, PortClosed> {
        let (elected, answer) = oneshot::channel();
        self.send(Command::Elect { candidate, elected }).await?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    async fn introduce(&self, standing: Standing, roster: Arc<Roster>) -> Result<(), PortClosed> {
        self.send(Command::Introduce(standing, roster)).await
    }

    async fn settled(&self, leader: PeerId, epoch: Epoch) -> Result<(), PortClosed> {
        self.send(Command::Settled { leader, epoch }).await
    }
}

fn stopped() -> PortClosed {
    PortClosed("the election service has stopped".into())
}
