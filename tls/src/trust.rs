//! Whether the certificate of an open connection is still good.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::pki_types::{CertificateDer, ServerName};

use crate::Keeper;

/// Which side of a connection the other one is.
#[derive(Clone, Debug)]
pub(crate) enum Side {
    /// It has dialled this node.
    Client,
    /// This node has dialled it by this name.
    Server(ServerName<'static>),
}

/// Whether a connection's certificate is still good: it may have expired or been revoked, or its authority may have been replaced.
#[derive(Debug)]
pub struct Trust {
    of: Option<(Arc<Keeper>, Arc<[CertificateDer<'static>]>, Side)>,
    /// With which certificates of ours it was checked, and when.
    checked: (u64, Instant),
}

impl Trust {
    /// `generation`: that of our certificates before the connection began.
    pub(crate) fn new(
        keeper: &Arc<Keeper>,
        chain: Option<Arc<[CertificateDer<'static>]>>,
        side: Side,
        generation: u64,
    ) -> Trust {
        let of = chain.map(|chain| (keeper.clone(), chain, side));
        Trust { of, checked: (generation, Instant::now()) }
    }

    /// Looks closely if our files have changed, and otherwise once a minute.
    pub fn holds(&mut self) -> bool {
        let Some((keeper, chain, side)) = &self.of else { return true };
        let (generation, now) = (keeper.generation(), Instant::now());
        if generation == self.checked.0 && now.duration_since(self.checked.1) < LOOK_AGAIN {
            return true;
        }
        self.checked = (generation, now);
        keeper.trusts(chain, side)
    }
}

/// Between two checks whether a certificate has expired.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
