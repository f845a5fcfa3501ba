//! The calls and answers of one client.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use api::{OpError, PeerId, ReadOutcome, SessionId, Write, WriteOutcome, Zxid};
use client_sdk::{Client, ClientError, Fate, Pending};
use history::{Call, Operation, Outcome};

/// A client and the record of all that it did. Clones are the same client.
#[derive(Clone)]
pub(crate) struct Recorder {
    number: u32,
    client: Client,
    /// Node by endpoint, for display.
    nodes: Arc<BTreeMap<String, PeerId>>,
    /// Where the clock of all clients starts.
    start: Instant,
    operations: Arc<Mutex<Vec<Operation>>>,
}

/// A call that is under way.
pub(crate) struct Asked {
    index: usize,
    session: Option<SessionId>,
    answer: Answer,
}

enum Answer {
    Write(Pending<WriteOutcome>),
    Read(Pending<ReadOutcome>),
    Sync(Pending<()>),
}

impl Recorder {
    pub(crate) fn new(
        number: u32,
        client: Client,
        nodes: Arc<BTreeMap<String, PeerId>>,
        start: Instant,
    ) -> Recorder {
        Recorder { number, client, nodes, start, operations: Arc::default() }
    }

    /// Asks, and does not wait for the answer.
    pub(crate) async fn ask(&self, call: Call) -> Asked {
        let session = self.client.session();
        let operation = Operation {
            client: self.number,
            session,
            unary: false,
            node: None,
            called: self.now(),
            returned: None,
            call: call.clone(),
            outcome: Outcome::Unknown,
        };
        let index = {
            let mut operations = self.operations();
            operations.push(operation);
            operations.len() - 1
        };
        let answer = match call {
            Call::Write(write) => Answer::Write(self.client.submit(write).await),
            Call::Read(read, level) => Answer::Read(self.client.read_with(read, level).await),
            Call::Sync => Answer::Sync(self.client.submit_sync().await),
        };
        Asked { index, session, answer }
    }

    /// Waits for the answer and writes it down.
    pub(crate) async fn answer(&self, asked: Asked) -> Outcome {
        let outcome = match asked.answer {
            Answer::Write(pending) => written(pending.with_zxid().await),
            Answer::Read(pending) => read(pending.with_zxid().await),
            Answer::Sync(pending) => match pending.with_zxid().await {
                (Some(zxid), Ok(())) => Outcome::Synced { zxid },
                (_, result) => Outcome::Refused(not_answered(&result.err())),
            },
        };
        let (returned, node) = (self.now(), self.client.endpoint().and_then(|e| self.nodes.get(e)).copied());
        // Sessions do not come back: if it is the same now, it was all the time.
        let session = asked.session.filter(|_| self.client.session() == asked.session);
        if let Some(operation) = self.operations().get_mut(asked.index) {
            *operation = Operation {
                returned: Some(returned),
                node,
                session,
                outcome: outcome.clone(),
                ..operation.clone()
            };
        }
        outcome
    }

    /// Asks, and waits.
    pub(crate) async fn call(&self, call: Call) -> Outcome {
        let asked = self.ask(call).await;
        self.answer(asked).await
    }

    pub(crate) async fn write(&self, write: Write) -> Outcome {
        self.call(Call::Write(write)).await
    }

    /// All operations so far. Unfinished ones have an unknown outcome.
    pub(crate) fn take(&self) -> Vec<Operation> {
        let mut operations = std::mem::take(&mut *self.operations());
        for operation in operations.iter_mut().filter(|o| o.returned.is_none()) {
            // Whether it stays in this session is not known.
            operation.session = None;
        }
        operations
    }

    pub(crate) async fn close(&self) {
        // The session ends by its own time-out otherwise.
        let _ = self.client.close().await;
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn operations(&self) -> MutexGuard<'_, Vec<Operation>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn written((zxid, result): (Option<Zxid>, Result<WriteOutcome, ClientError>)) -> Outcome {
    match (zxid, result) {
        (Some(zxid), Ok(outcome)) => Outcome::Written { zxid, result: Ok(outcome) },
        (Some(zxid), Err(error)) => match error.refusal() {
            // The node has decided this, not the tree.
            Some(full @ OpError::DiskFull) => Outcome::Refused(full.clone()),
            Some(refusal) => Outcome::Written { zxid, result: Err(refusal.clone()) },
            None => Outcome::Unknown,
        },
        (None, Err(error)) if error.fate() == Fate::NotDone => Outcome::Refused(not_answered(&Some(error))),
        (None, _) => Outcome::Unknown,
    }
}

fn read((zxid, result): (Option<Zxid>, Result<ReadOutcome, ClientError>)) -> Outcome {
    match (zxid, result) {
        (Some(zxid), Ok(outcome)) => Outcome::Read { zxid, result: Ok(outcome) },
        (Some(zxid), Err(error)) => match error.refusal() {
            Some(no_node @ OpError::NoNode(_)) => Outcome::Read { zxid, result: Err(no_node.clone()) },
            _ => Outcome::Refused(not_answered(&Some(error))),
        },
        (None, result) => Outcome::Refused(not_answered(&result.err())),
    }
}

fn not_answered(error: &Option<ClientError>) -> OpError {
    match error {
        Some(error) => error.refusal().cloned().unwrap_or_else(|| OpError::Unavailable(error.to_string())),
        None => OpError::Internal("an answer without a zxid".to_owned()),
    }
}
