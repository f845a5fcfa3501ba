//! What several commands need for a znode: its path, its parents, and the failure if it does not exist.

use api::{ErrorCode, OpError, Path};
use bytes::Bytes;
use client_sdk::{Client, ClientError, CreateMode};

use crate::exit::Failure;

/// A path from the command line.
pub(crate) fn parse(text: &str) -> Result<Path, Failure> {
    Path::new(text).map_err(|e| Failure::usage(format!("{text:?}: {e}")))
}

/// Creates the missing ancestors of `path`, with empty values.
pub(crate) async fn create_parents(client: &Client, path: &Path) -> Result<(), Failure> {
    let ancestors: Vec<Path> =
        std::iter::successors(path.parent(), Path::parent).filter(|p| !p.is_root()).collect();
    for path in ancestors.iter().rev() {
        match client.create(path.as_str(), Bytes::new(), CreateMode::default()).await {
            Err(e) if e.code() != ErrorCode::NodeExists => return Err(e.into()),
            _ => {}
        }
    }
    Ok(())
}

/// The failure of a command on a znode that does not exist.
pub(crate) fn no_node(path: &Path) -> Failure {
    ClientError::from(OpError::NoNode(path.clone())).into()
}
