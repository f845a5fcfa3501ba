use std::sync::{Arc, Mutex, PoisonError};

use api::PeerId;
use api::peer::{Acquaintance, Incarnation};
use quorum_log::{IncarnationError, Incarnations};

/// The incarnations of this node, and those of other nodes that it has met. The lock is held during
/// writes of the file. Cheap to clone.
#[derive(Clone)]
pub struct Met(Arc<Mutex<Incarnations>>);

impl Met {
    /// Wraps the incarnations of this directory.
    #[must_use]
    pub fn new(incarnations: Incarnations) -> Met {
        Met(Arc::new(Mutex::new(incarnations)))
    }

    fn with<T>(&self, f: impl FnOnce(&mut Incarnations) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The acquaintance to send to `peer` in answer to `said`. May block.
    #[must_use]
    pub fn acquaintance(&self, peer: PeerId, said: Acquaintance) -> Acquaintance {
        self.with(|incarnations| incarnations.acquaintance(peer, said))
    }

    /// Stores the incarnation of a checked `peer`. Returns the incarnation of this node that the peer
    /// has met, if this directory does not know it. Then the directory is an older copy, and the
    /// [shell](crate::Shell::rolled_back) has to learn that before anything else from the connection.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// A failure of the disk, which stops the node.
    pub fn take_in(&self, peer: PeerId, said: Acquaintance) -> Result<Option<Incarnation>, IncarnationError> {
        self.with(|incarnations| {
            incarnations.meet(peer, said)?;
            Ok(said.met.filter(|&met| !incarnations.knows(met)))
        })
    }

    /// Begins a new incarnation. Blocks on the disk.
    ///
    /// # Errors
    /// A failure of the disk, which stops the node.
    pub fn grow(&self) -> Result<(), IncarnationError> {
        self.with(Incarnations::grow)
    }

    pub(crate) fn outlive(&self, met: Incarnation) -> Result<(), IncarnationError> {
        self.with(|incarnations| incarnations.outlive(met))
    }
}
