//! Builds a state from a snapshot.

use api::Zxid;
use proto::store::RecordDecoder;
use store_core::{Loader, State};

use crate::Fault;

/// A snapshot that is being received.
#[derive(Debug)]
pub struct Incoming {
    zxid: Zxid,
    seed: u64,
    decoder: RecordDecoder,
    loader: Loader,
    bytes: u64,
}

impl Incoming {
    /// Begins to receive the state at `zxid`, which gets this [seed](State::seeded).
    #[must_use]
    pub fn new(zxid: Zxid, seed: u64) -> Incoming {
        tracing::info!(%zxid, "the state comes as a snapshot");
        Incoming { zxid, seed, decoder: RecordDecoder::default(), loader: Loader::seeded(seed), bytes: 0 }
    }

    /// Adds the next piece.
    ///
    /// # Errors
    /// The piece is not part of a state.
    pub fn piece(&mut self, piece: &[u8]) -> Result<(), Fault> {
        self.decoder.push(piece);
        self.bytes += piece.len() as u64;
        while let Some(record) = self.decoder.next_record().map_err(|e| damaged(self.zxid, &e))? {
            self.loader.take(record).map_err(|e| damaged(self.zxid, &e))?;
        }
        Ok(())
    }

    /// Completes the snapshot: returns the state, which is not in the checkpoint yet, and the size of
    /// the snapshot in bytes. No pieces at all make the empty state before the first entry.
    ///
    /// # Errors
    /// The state is incomplete, or is not at that zxid.
    pub fn finish(self) -> Result<(State, u64), Fault> {
        let Incoming { zxid, seed, decoder, loader, bytes } = self;
        let mut state = State::seeded(seed);
        if zxid != Zxid::ZERO || bytes > 0 {
            decoder.finish().map_err(|e| damaged(zxid, &e))?;
            state = loader.finish().map_err(|e| damaged(zxid, &e))?;
        }
        if state.applied() != zxid {
            return Err(damaged(zxid, &format!("it is the state at {}", state.applied())));
        }
        state.forget_checkpoint();
        Ok((state, bytes))
    }
}

fn damaged(zxid: Zxid, why: &dyn std::fmt::Display) -> Fault {
    Fault(format!("the snapshot at {zxid} is damaged: {why}"))
}
