//! A port whose protocol is none of this crate's. Its connections have places and budgets like those of others.

use std::{
    convert::Infallible,
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use api::budget::Share;
use telemetry::{Closed, Port};
use tls::Trust;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Bounds, CHECK, Connection, Listener, closed, end_connections, handshake_failed, places::Place};

/// What a connection of [`serve_visitors`] may have.
pub struct Visitor {
    /// Bytes of its requests under way.
    pub held: Share,
    /// Bytes that are being received and sent.
    pub traffic: Share,
    place: Arc<Place>,
    spoke: Arc<AtomicBool>,
}

impl Visitor {
    /// It has said what it wants. Until then it gives way to others, and to the end of the process.
    pub fn spoke(&self) {
        self.spoke.store(true, SeqCst);
        self.place.spoke();
    }
}

/// Serves each connection by `serve`, which says why it closed one if that is to be counted, until `shutdown` is cancelled. Then the
/// port is closed at once, and connections have `drain` to end.
///
/// # Errors
/// Never: faults of single connections end with them.
pub async fn serve_visitors<F>(
    listener: Listener,
    bounds: Bounds,
    shutdown: CancellationToken,
    drain: Duration,
    serve: impl Fn(Connection, Visitor) -> F + Clone + Send + Sync + 'static,
) -> Result<(), Infallible>
where
    F: Future<Output = Option<Closed>> + Send + 'static,
{
    let (address, port) = (listener.address, Port::named(listener.what));
    let audit = listener.audit.clone();
    let mut incoming = listener.incoming(bounds.places());
    let (connections, cut_off) = (TaskTracker::new(), CancellationToken::new());
    loop {
        let (connection, place) = tokio::select! {
            accepted = incoming.next() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (place, spoke) = (Arc::new(place), Arc::new(AtomicBool::new(false)));
        let peer = connection.peer();
        let (held, traffic) = (bounds.share(&bounds.held, peer), bounds.share(&bounds.budget, peer));
        let visitor = Visitor { held, traffic, place: place.clone(), spoke: spoke.clone() };
        let (shutdown, cut_off, serve) = (shutdown.clone(), cut_off.clone(), serve.clone());
        let audit = audit.clone();
        connections.spawn(async move {
            let one = async {
                let connection = match connection.secured().await {
                    Ok(connection) => connection,
                    Err(why) => return Some(handshake_failed(port, peer, &why, &audit)),
                };
                let mut trust = connection.trust();
                tokio::select! {
                    why = serve(connection, visitor) => why,
                    () = distrusted(&mut trust) => Some(Closed::Untrusted),
                }
            };
            let never_spoke = async {
                shutdown.cancelled().await;
                if spoke.load(SeqCst) {
                    pending::<()>().await;
                }
            };
            let why = tokio::select! {
                why = one => why,
                () = place.taken_away() => None,
                () = never_spoke => None,
                () = cut_off.cancelled() => None,
            };
            if let Some(why) = why {
                closed(port, why);
            }
        });
    }
    drop(incoming);
    end_connections(address, &connections, &shutdown, &cut_off, drain).await;
    Ok(())
}

/// Until the certificate of the other end is good no more.
pub(crate) async fn distrusted(trust: &mut Option<Trust>) {
    let Some(trust) = trust else { return pending().await };
    let mut check = tokio::time::interval(CHECK);
    while trust.holds() {
        check.tick().await;
    }
}
