//! The edge for gRPC: serves `quorate.v1` on any [`Coordination`](api::ports::Coordination).

mod cluster;
mod coordination;
mod node;
mod port;
mod session;
mod watch;

use api::{
    Identities, OpError,
    ports::Caller,
    proof::{self, Credential, Prover},
};
use proto::{
    client::{Who, credential_to_wire},
    v1,
};

pub use cluster::ClusterService;
pub use coordination::{CoordinationService, Sessions, Watches};
pub use node::NodeService;
pub use port::{PortService, PortSessions};
pub use session::Answers;
pub use watch::Watching;

/// The caller of this request. The listener puts the bounds of its connection into the extensions, and
/// the header `authorization` proves identities: `digest user:password`.
///
/// # Errors
/// The header is not valid. The error does not contain any part of it.
fn caller<R>(request: &tonic::Request<R>, prover: &Prover) -> Result<(Caller, Who), OpError> {
    let extensions = request.extensions();
    let address = request.remote_addr().map(|address| address.ip());
    let place = Identities::new(address.map(proof::address)).unwrap_or_default();
    let certified = extensions.get().unwrap_or(&Identities::NONE);
    let place = place.with(certified).map_err(|e| OpError::BadArguments(e.to_string()))?;
    let mut who = Who::new(prover.clone(), place);
    let shown = request.metadata().get_all("authorization").iter();
    who.prove(shown.map(|value| credential(value.to_str().ok())).collect::<Result<_, _>>()?)?;
    let caller = Caller {
        identities: who.identities().clone(),
        address,
        certificate: extensions.get().cloned(),
        share: extensions.get().cloned(),
        message: extensions.get().cloned().unwrap_or_default(),
    };
    Ok((caller, who))
}

fn credential(header: Option<&str>) -> Result<v1::Credential, OpError> {
    let digest = header
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("digest"));
    let (_, secret) = digest.ok_or_else(|| {
        OpError::Unsupported(
            "the header `authorization` has another form; send `digest USER:PASSWORD` in ASCII, or leave it out".to_owned(),
        )
    })?;
    Ok(credential_to_wire(&Credential::Digest(secret.trim().to_owned())))
}
