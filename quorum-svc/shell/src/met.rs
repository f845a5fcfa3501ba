use std::sync::{Arc, Mutex, PoisonError};

use api::PeerId;
use api::peer::{Acquaintance, Incarnation};
use quorum_log::{IncarnationError, Incarnations};

/// Which incarnations of others this node has met, and its own. Held while the file is written. Cheap to clone.
#[derive(Clone)]
pub struct Met(Arc<Mutex<Incarnations>>);

impl Met {
    /// Of this directory.
    #[must_use]
    pub fn new(incarnations: Incarnations) -> Met {
        Met(Arc::new(Mutex::new(incarnations)))
    }

    fn with<T>(&self, f: impl FnOnce(&mut Incarnations) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What to say to `peer`, which has said this. May block.
    #[must_use]
    pub fn acquaintance(&self, peer: PeerId, said: Acquaintance) -> Acquaintance {
        self.with(|incarnations| incarnations.acquaintance(peer, said))
    }

    /// Takes in what `peer`, which was checked, says. In which incarnation it has met this node, if this directory does not know
    /// that: then the directory is an older copy, and the [shell](crate::Shell::rolled_back) is to hear of it before anything else
    /// that comes over the connection. Blocks on the disk.
    ///
    /// # Errors
    /// The disk, which ends the node.
    pub fn take_in(&self, peer: PeerId, said: Acquaintance) -> Result<Option<Incarnation>, IncarnationError> {
        self.with(|incarnations| {
            incarnations.meet(peer, said)?;
            Ok(said.met.filter(|&met| !incarnations.knows(met)))
        })
    }

    /// A new incarnation begins. Blocks on the disk.
    ///
    /// # Errors
    /// The disk, which ends the node.
    pub fn grow(&self) -> Result<(), IncarnationError> {
        self.with(Incarnations::grow)
    }

    pub(crate) fn outlive(&self, met: Incarnation) -> Result<(), IncarnationError> {
        self.with(|incarnations| incarnations.outlive(met))
    }
}
