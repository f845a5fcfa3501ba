//! How the commands use the client: connecting as the command line says, and many writes under way at once.

use std::collections::VecDeque;

use api::{ErrorCode, Path, Write, WriteOutcome};
use client_sdk::{Client, ClientError, Fate, Options, Pending};
use host::traces::Traces;

use crate::{
    args::Connection,
    exit::{Doing as _, Exit, Failure},
};

/// Does `work` with a session, and closes it however that ends.
pub(crate) async fn with<T>(
    connection: &Connection,
    work: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    traced(connection, false, work).await
}

/// The same for what needs no particular session: where one is lost, another is opened.
pub(crate) async fn lasting<T>(
    connection: &Connection,
    work: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    traced(connection, true, work).await
}

async fn traced<T>(
    connection: &Connection,
    reopen: bool,
    work: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let spans = spans(connection)?;
    let done = with_client(connection, reopen, work).await;
    if let Some(spans) = spans {
        spans.end().await;
    }
    done
}

async fn with_client<T>(
    connection: &Connection,
    reopen: bool,
    work: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let client = connect(connection, reopen).await?;
    let done = work(&client).await;
    // If no node answers, closing would only wait longer.
    let lost = matches!(&done, Err(Failure { exit: Exit::Unavailable | Exit::Unknown, .. }));
    if !lost && let Err(e) = client.close().await {
        tracing::warn!(error = %e, "cannot close the session; it will expire");
    }
    done
}

/// Begins to push spans, if the command line says where to.
fn spans(connection: &Connection) -> Result<Option<Traces>, Failure> {
    let resource = [
        ("service_name", "quorate-cli".to_owned()),
        ("service_instance_id", std::process::id().to_string()),
        ("service_version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let start = |endpoint: &String| Traces::start(endpoint, &resource, false);
    connection.trace_to.as_ref().map(start).transpose().or_usage()
}

pub(crate) async fn connect(connection: &Connection, reopen: bool) -> Result<Client, Failure> {
    let defaults = Options::default();
    let options = Options {
        connect_timeout: connection.timeout,
        attempt_timeout: connection.timeout.min(defaults.attempt_timeout),
        op_timeout: Some(connection.timeout),
        write_timeout: Some(connection.timeout),
        close_timeout: connection.timeout.min(defaults.close_timeout),
        // Mostly not: a fresh session would not have the ephemerals of the old one, nor know the result of its writes.
        reopen,
        credentials: connection.auth.credentials()?,
        trace_ratio: if connection.trace_to.is_some() { connection.trace_ratio } else { 0.0 },
        tls: connection.tls.read()?,
        ..defaults
    };
    Ok(Client::connect(connection.endpoints.addresses(), options).await?)
}

/// Writes under way, up to a bound. Answers come in the order of the writes, so it is enough to wait for the oldest.
pub(crate) struct Pipeline<'a> {
    client: &'a Client,
    in_flight: usize,
    under_way: VecDeque<Pending<WriteOutcome>>,
    created: Created,
}

/// The znodes that writes have made, as far as their answers have come.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Created {
    /// How many.
    pub(crate) znodes: u64,
    /// The first of them.
    pub(crate) first: Option<Path>,
    /// The last of them.
    pub(crate) last: Option<Path>,
}

impl Created {
    pub(crate) fn add(&mut self, path: Path) {
        self.znodes += 1;
        self.first.get_or_insert_with(|| path.clone());
        self.last = Some(path);
    }
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(client: &'a Client, in_flight: u32) -> Pipeline<'a> {
        Pipeline {
            client,
            in_flight: in_flight as usize,
            under_way: VecDeque::new(),
            created: Created::default(),
        }
    }

    /// Enqueues a write, once there is room. An error is that of an earlier write; writes in flight then continue, and their results
    /// are lost.
    pub(crate) async fn write(&mut self, write: Write) -> Result<(), ClientError> {
        while self.under_way.len() >= self.in_flight
            && let Some(oldest) = self.under_way.pop_front()
        {
            self.answered(oldest).await?;
        }
        self.under_way.push_back(self.client.submit(write).await);
        Ok(())
    }

    /// Waits for all that is under way. An error is that of the first that failed; those behind it are still under way.
    pub(crate) async fn finish(&mut self) -> Result<(), ClientError> {
        while let Some(oldest) = self.under_way.pop_front() {
            self.answered(oldest).await?;
        }
        Ok(())
    }

    /// Waits for all that is under way, whatever comes of it, and says what was made.
    pub(crate) async fn created(mut self) -> Created {
        // One error for each write that failed.
        while self.finish().await.is_err() {}
        self.created
    }

    async fn answered(&mut self, write: Pending<WriteOutcome>) -> Result<(), ClientError> {
        if let WriteOutcome::Created { path, .. } = write.await? {
            self.created.add(path);
        }
        Ok(())
    }
}

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Failure {
        let exit = match (e.code(), e.fate()) {
            (_, Fate::Unknown) | (ErrorCode::Unknown, _) => Exit::Unknown,
            (
                ErrorCode::BadPath
                | ErrorCode::BadArguments
                | ErrorCode::BadAcl
                | ErrorCode::Unsupported
                | ErrorCode::TooLarge,
                _,
            ) => Exit::Usage,
            (
                ErrorCode::Unavailable
                | ErrorCode::Overloaded
                | ErrorCode::SessionExpired
                | ErrorCode::TimedOut
                | ErrorCode::SessionMoved,
                _,
            ) => Exit::Unavailable,
            (
                ErrorCode::NoNode
                | ErrorCode::NodeExists
                | ErrorCode::NotEmpty
                | ErrorCode::BadVersion
                | ErrorCode::BadCzxid
                | ErrorCode::Present
                | ErrorCode::QuotaExceeded
                | ErrorCode::AnswerTooLarge
                | ErrorCode::ReadOnly
                | ErrorCode::NoChildrenForEphemerals
                | ErrorCode::NoAuth
                | ErrorCode::OutOfOrder
                | ErrorCode::NumberReused
                | ErrorCode::ResultForgotten
                | ErrorCode::NoSequenceNumber
                | ErrorCode::DiskFull
                | ErrorCode::Level
                | ErrorCode::WrongEnsemble
                | ErrorCode::LimitExceeded
                | ErrorCode::Gone
                | ErrorCode::Internal
                | ErrorCode::Other,
                _,
            ) => Exit::Refused,
        };
        Failure::new(exit, e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use api::OpError;
    use client_sdk::Failure as Ended;

    use super::*;

    #[test]
    fn exit_codes_tell_what_a_script_has_to_do_next() {
        let exit = |e: ClientError| Failure::from(e).exit;
        assert_eq!(exit(OpError::NoNode(Path::root()).into()), Exit::Refused);
        assert_eq!(exit(OpError::TooLarge { size: 2, limit: 1 }.into()), Exit::Usage);
        assert_eq!(exit(OpError::Unavailable(String::new()).into()), Exit::Unavailable);
        assert_eq!(exit(Ended::TimedOut { fate: Fate::NotDone }.into()), Exit::Unavailable);
        assert_eq!(exit(Ended::TimedOut { fate: Fate::Unknown }.into()), Exit::Unknown);
        assert_eq!(
            exit(ClientError::NotConnected { waited: Default::default(), tried: vec![] }),
            Exit::Unavailable
        );
    }
}
