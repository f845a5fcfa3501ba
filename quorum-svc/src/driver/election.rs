//! What the driver wants of the election, in a task of its own.

use api::ports::{Candidate, Election};
use api::{Epoch, PeerId, Standing};
use quorum_core::Input;
use tokio::sync::mpsc;

use super::{Event, Links};

/// What the task that talks to the election is asked.
pub(super) enum Ask {
    Elect(Option<Candidate>),
    Settled { leader: PeerId, epoch: Epoch },
    Introduce(Standing),
}

/// Asks the election one thing at a time; a newer question takes the place of an unanswered one.
pub(super) async fn ask_election<E: Election>(
    election: E,
    mut asks: mpsc::UnboundedReceiver<Ask>,
    links: Links,
) {
    let mut next = asks.recv().await;
    while let Some(ask) = next.take() {
        match ask {
            Ask::Elect(candidate) => {
                let mut answer = std::pin::pin!(election.elect(candidate));
                loop {
                    tokio::select! {
                        answer = &mut answer => {
                            if let Ok(leader) = answer {
                                links.send(Event::Core(Input::Elected { leader })).await;
                            }
                            next = asks.recv().await;
                            break;
                        }
                        newer = asks.recv() => match newer {
                            // The search goes on.
                            Some(Ask::Introduce(standing)) => drop(election.introduce(standing).await),
                            newer => {
                                next = newer;
                                break;
                            }
                        },
                    }
                }
            }
            // Errors mean that the election service is shutting down, and so is this one.
            Ask::Settled { leader, epoch } => {
                let _ = election.settled(leader, epoch).await;
                next = asks.recv().await;
            }
            Ask::Introduce(standing) => {
                let _ = election.introduce(standing).await;
                next = asks.recv().await;
            }
        }
    }
}
