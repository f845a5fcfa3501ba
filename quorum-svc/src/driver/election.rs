//! The requests of the driver to the election, in a separate task.

use std::sync::Arc;

use api::ports::{Candidate, Election};
use api::{Epoch, PeerId, Roster, Standing};
use quorum_core::Input;
use tokio::sync::mpsc;

use super::{Event, Links};

/// A request to the task that talks to the election.
pub(super) enum Ask {
    Elect(Option<Candidate>),
    Settled { leader: PeerId, epoch: Epoch },
    Introduce(Standing, Arc<Roster>),
}

/// Sends one request at a time to the election; a newer request replaces an unanswered one.
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
                            // The search continues.
                            Some(Ask::Introduce(standing, roster)) => {
                                drop(election.introduce(standing, roster).await);
                            }
                            newer => {
                                next = newer;
                                break;
                            }
                        },
                    }
                }
            }
            // An error means that the election service is stopping, and so is this one.
            Ask::Settled { leader, epoch } => {
                let _ = election.settled(leader, epoch).await;
                next = asks.recv().await;
            }
            Ask::Introduce(standing, roster) => {
                let _ = election.introduce(standing, roster).await;
                next = asks.recv().await;
            }
        }
    }
}
