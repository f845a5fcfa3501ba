use crate::{OpError, Path, Zxid};

/// What a conditional write expects of a znode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Expected {
    /// This version; at least 0.
    Version(i32),
    /// This creation of the znode, and no other: versions begin with 0 again when a znode is created again.
    Czxid(Zxid),
    /// Both.
    Both {
        /// The version.
        version: i32,
        /// The creation.
        czxid: Zxid,
    },
}

impl Expected {
    /// Of conditions that may be absent; `None` if both are.
    #[must_use]
    pub fn new(version: Option<i32>, czxid: Option<Zxid>) -> Option<Expected> {
        Some(match (version, czxid) {
            (Some(version), Some(czxid)) => Expected::Both { version, czxid },
            (Some(version), None) => Expected::Version(version),
            (None, Some(czxid)) => Expected::Czxid(czxid),
            (None, None) => return None,
        })
    }

    /// The version, if one is expected.
    #[must_use]
    pub fn version(self) -> Option<i32> {
        match self {
            Expected::Version(version) | Expected::Both { version, .. } => Some(version),
            Expected::Czxid(_) => None,
        }
    }

    /// The creation, if one is expected.
    #[must_use]
    pub fn czxid(self) -> Option<Zxid> {
        match self {
            Expected::Czxid(czxid) | Expected::Both { czxid, .. } => Some(czxid),
            Expected::Version(_) => None,
        }
    }

    /// Compares with a znode. The creation comes first: a version of another one says nothing.
    ///
    /// # Errors
    /// [`OpError::BadCzxid`], [`OpError::BadVersion`].
    pub fn check(self, path: &Path, version: i32, czxid: Zxid) -> Result<(), OpError> {
        if let Some(expected) = self.czxid().filter(|expected| *expected != czxid) {
            return Err(OpError::BadCzxid { path: path.clone(), expected, actual: czxid });
        }
        match self.version() {
            Some(expected) if expected != version => {
                Err(OpError::BadVersion { path: path.clone(), expected, actual: version })
            }
            _ => Ok(()),
        }
    }
}

impl From<i32> for Expected {
    fn from(version: i32) -> Expected {
        Expected::Version(version)
    }
}

impl From<Zxid> for Expected {
    fn from(czxid: Zxid) -> Expected {
        Expected::Czxid(czxid)
    }
}
