//! The clients: some ask one thing at a time, some pipeline.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use api::{Create, MultiOp, Path, PeerId, Write, chance::Chance};
use client_sdk::{Client, Options};
use history::{History, Outcome};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    beliefs::Beliefs,
    operations::{Board, Choice, Chooser, TOP},
    recorder::Recorder,
    wire::{self, Wire},
};

/// All clients of a run.
pub(crate) struct Clients {
    recorders: Vec<Recorder>,
    /// Of the clients that speak ZooKeeper's protocol.
    wires: Vec<wire::Operations>,
    /// By endpoint.
    nodes: Arc<BTreeMap<String, PeerId>>,
    /// Where their clock starts.
    pub(crate) start: Instant,
    tasks: JoinSet<Result<()>>,
    stop: watch::Sender<bool>,
    answered: Arc<AtomicU64>,
    /// The clients' beliefs about their sessions.
    pub(crate) beliefs: Beliefs,
    watching: JoinSet<()>,
    /// At each node one that keeps to it, and only holds its session.
    holders: Vec<Client>,
}

/// The clients of a run that speak ZooKeeper's protocol.
pub(crate) struct ZooKeeper {
    /// How many.
    pub(crate) clients: u32,
    /// Where the nodes listen for them.
    pub(crate) nodes: Vec<(u16, PeerId)>,
}

/// The clients' records.
pub(crate) struct Seen {
    pub(crate) history: History,
    /// Clients with unfinished calls at the end of [`PATIENCE`].
    pub(crate) hanging: usize,
    /// Clients that broke down.
    pub(crate) broken: Vec<String>,
    pub(crate) beliefs: Beliefs,
}

impl Clients {
    /// Connects the clients, and one more that makes the folders and, on request, the large znode for rude
    /// clients; starts them.
    pub(crate) async fn start(
        endpoints: &[String],
        count: u32,
        zookeeper: &ZooKeeper,
        large: bool,
        chance: &mut Chance,
        start: Instant,
    ) -> Result<Clients> {
        let nodes: Arc<BTreeMap<String, PeerId>> =
            Arc::new(endpoints.iter().cloned().zip((1..).map(PeerId)).collect());
        let (stop, stopped) = watch::channel(false);
        let answered = Arc::new(AtomicU64::new(0));
        let board = Arc::new(Board::default());
        let (recorders, tasks) = (Vec::new(), JoinSet::new());
        let mut clients = Clients {
            recorders,
            wires: Vec::new(),
            nodes,
            start,
            tasks,
            stop,
            answered,
            beliefs: Beliefs::default(),
            watching: JoinSet::new(),
            holders: Vec::new(),
        };
        for endpoint in endpoints {
            let holder = Client::connect([endpoint], holder()).await.context("cannot connect a client")?;
            clients.watching.spawn(clients.beliefs.watch(&holder));
            clients.holders.push(holder);
        }
        for number in 0..=count {
            let client =
                Client::connect(endpoints, options(number)).await.context("cannot connect a client")?;
            let recorder = clients.record(number, client);
            let (board, stopped) = (Arc::clone(&board), stopped.clone());
            if number == 0 {
                if large {
                    make_large(&recorder).await?;
                }
                make_folder(&recorder, Path::new(TOP)?).await;
                make_folder(&recorder, Board::folder(0)?).await;
                clients.tasks.spawn(make_folders(recorder, board, stopped));
                continue;
            }
            let chooser = Chooser::new(number, chance.fork());
            let answered = Arc::clone(&clients.answered);
            let worker = Worker { recorder, chooser, board, stopped, answered };
            if number % 2 == 0 {
                clients.tasks.spawn(worker.pipeline());
            } else {
                clients.tasks.spawn(worker.one_by_one());
            }
        }
        for _ in 0..zookeeper.clients {
            clients.speak(zookeeper, &board, &stopped, chance.fork());
        }
        Ok(clients)
    }

    /// One more client that speaks ZooKeeper's protocol.
    fn speak(
        &mut self,
        zookeeper: &ZooKeeper,
        board: &Arc<Board>,
        stopped: &watch::Receiver<bool>,
        chance: Chance,
    ) {
        let operations = wire::Operations::default();
        let number = ZOOKEEPER_FROM + u32::try_from(self.wires.len()).unwrap_or(0);
        self.wires.push(Arc::clone(&operations));
        let wire = Wire {
            number,
            nodes: zookeeper.nodes.clone(),
            start: self.start,
            operations,
            chooser: Chooser::new(number, chance),
            board: Arc::clone(board),
            stopped: stopped.clone(),
            answered: Arc::clone(&self.answered),
        };
        self.tasks.spawn(wire.run());
    }

    fn record(&mut self, number: u32, client: Client) -> Recorder {
        self.watching.spawn(self.beliefs.watch(&client));
        let recorder = Recorder::new(number, client, Arc::clone(&self.nodes), self.start);
        self.recorders.push(recorder.clone());
        recorder
    }

    /// How long it takes until one more client, which knows all nodes, has written something.
    ///
    /// # Errors
    /// Not within [`SERVES_WITHIN`]: a sentence for people.
    pub(crate) async fn probe(&mut self, endpoints: &[String]) -> Result<Duration, String> {
        let start = Instant::now();
        let late =
            |why: &str| format!("{SERVES_WITHIN:?} after the last fault a client is not served: {why}");
        let number = u32::try_from(self.recorders.len()).unwrap_or(u32::MAX);
        let connecting = timeout(SERVES_WITHIN, Client::connect(endpoints, options(number))).await;
        let client = connecting.map_err(|_| late("no session"))?.map_err(|e| late(&e.to_string()))?;
        let recorder = self.record(number, client);
        // It exists already, but the answer costs a write all the same.
        let top = Path::new(TOP).map_err(|e| e.to_string())?;
        match timeout(SERVES_WITHIN.saturating_sub(start.elapsed()), make_folder(&recorder, top)).await {
            Ok(Outcome::Written { .. }) => Ok(start.elapsed()),
            Ok(Outcome::Refused(error)) => Err(late(&error.to_string())),
            Ok(_) | Err(_) => Err(late("no answer to a write")),
        }
    }

    /// Writes a large value through this node alone, from the address that the rude clients had: what they held is given back.
    ///
    /// # Errors
    /// Not within [`SERVES_WITHIN`]: a sentence for people.
    pub(crate) async fn write_large(&mut self, endpoint: &str) -> Result<(), String> {
        let late = |why: &str| {
            format!("{SERVES_WITHIN:?} after all others the node at {endpoint} takes no large write: {why}")
        };
        let number = u32::try_from(self.recorders.len()).unwrap_or(u32::MAX);
        let connecting = timeout(SERVES_WITHIN, Client::connect([endpoint], options(number))).await;
        let client = connecting.map_err(|_| late("no session"))?.map_err(|e| late(&e.to_string()))?;
        let recorder = self.record(number, client);
        let path = Path::new(TOP).map_err(|e| e.to_string())?;
        let mut value = format!("{number}-").into_bytes();
        value.resize(1_000_000, b'l');
        let set = Write::Set { path, data: Some(value.into()), version: None };
        match timeout(SERVES_WITHIN, recorder.write(set)).await {
            Ok(Outcome::Written { result: Ok(_), .. }) => Ok(()),
            Ok(Outcome::Refused(error)) => Err(late(&error.to_string())),
            Ok(other) => Err(late(&format!("{other:?}"))),
            Err(_) => Err(late("no answer")),
        }
    }

    /// Answers so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Ends them at once, and returns what they have seen until now.
    pub(crate) fn abandon(mut self) -> History {
        self.tasks.abort_all();
        self.history()
    }

    fn history(&self) -> History {
        let native = self.recorders.iter().flat_map(Recorder::take);
        History { operations: native.chain(self.wires.iter().flat_map(wire::take)).collect() }
    }

    /// Lets them ask no more, and waits until all that was asked has ended, for at most [`PATIENCE`].
    pub(crate) async fn finish(mut self) -> Seen {
        self.stop.send_replace(true);
        let mut broken = Vec::new();
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => broken.push(format!("{e:#}")),
                    Err(e) => broken.push(e.to_string()),
                }
            }
        };
        let _ = timeout(PATIENCE, all).await;
        let hanging = self.tasks.len();
        self.tasks.abort_all();
        self.beliefs.end_all();
        let mut closing: JoinSet<()> = JoinSet::new();
        let history = self.history();
        for holder in self.holders {
            closing.spawn(async move { drop(holder.close().await) });
        }
        for recorder in self.recorders {
            closing.spawn(async move { recorder.close().await });
        }
        while closing.join_next().await.is_some() {}
        Seen { history, hanging, broken, beliefs: self.beliefs }
    }
}

/// Of one that only holds its session, at one node.
fn holder() -> Options {
    Options { session_timeout: Duration::from_secs(2), connect_timeout: PATIENCE, ..Options::default() }
}

/// Half of the writes wait without a limit; the others give up and leave their outcome unknown.
fn options(number: u32) -> Options {
    Options {
        session_timeout: Duration::from_secs(4),
        connect_timeout: PATIENCE,
        attempt_timeout: Duration::from_secs(2),
        op_timeout: Some(Duration::from_secs(5)),
        write_timeout: (number % 4 >= 2).then_some(Duration::from_secs(2)),
        ..Options::default()
    }
}

/// The large znode that rude clients request.
async fn make_large(recorder: &Recorder) -> Result<()> {
    let made = async |write| match recorder.write(write).await {
        Outcome::Written { result: Ok(_), .. } => Ok(()),
        other => Err(anyhow!("cannot make a large znode: {other:?}")),
    };
    made(Write::Create(Create::new(Path::new(LARGE)?, vec![b'l'; 64 << 10]))).await?;
    for hundreds in 0..20 {
        let name = |n| format!("{LARGE}/{n:0>60}");
        let create = |path: Path| Create::new(path, "");
        let names = (hundreds * 100..(hundreds + 1) * 100).filter_map(|n: u32| Path::new(&name(n)).ok());
        made(Write::Multi(names.map(|path| MultiOp::Create(create(path))).collect())).await?;
    }
    Ok(())
}

async fn make_folder(recorder: &Recorder, path: Path) -> Outcome {
    recorder.write(Write::Create(Create::new(path, ""))).await
}

/// Makes a new folder whenever the present one has seen enough.
async fn make_folders(recorder: Recorder, board: Arc<Board>, stopped: watch::Receiver<bool>) -> Result<()> {
    let mut skipped = 0;
    while !*stopped.borrow() {
        match board.due() {
            None => sleep(Duration::from_millis(5)).await,
            // One of unknown outcome is not tried again: whether it is made once must not be in doubt.
            Some(era) => match make_folder(&recorder, Board::folder(era + skipped)?).await {
                Outcome::Written { result: Ok(_), .. } => {
                    board.begin(era + skipped);
                    skipped = 0;
                }
                _ => skipped += 1,
            },
        }
    }
    Ok(())
}

struct Worker {
    recorder: Recorder,
    chooser: Chooser,
    board: Arc<Board>,
    stopped: watch::Receiver<bool>,
    answered: Arc<AtomicU64>,
}

impl Worker {
    async fn one_by_one(mut self) -> Result<()> {
        while !*self.stopped.borrow() {
            let Choice { calls, key } = self.chooser.next(&self.board)?;
            for call in calls {
                let outcome = self.recorder.call(call).await;
                self.board.note(key, &outcome);
                self.answered.fetch_add(1, Relaxed);
            }
            let pause = self.chooser.chance().millis(0..10);
            sleep(pause).await;
        }
        Ok(())
    }

    async fn pipeline(mut self) -> Result<()> {
        let (asked, mut answers) = mpsc::channel(WINDOW);
        let (recorder, board, answered) = (self.recorder.clone(), Arc::clone(&self.board), self.answered);
        let answering = tokio::spawn(async move {
            while let Some((key, asked)) = answers.recv().await {
                let outcome = recorder.answer(asked).await;
                board.note(key, &outcome);
                answered.fetch_add(1, Relaxed);
            }
        });
        while !*self.stopped.borrow() {
            // Bursts, so that the window is sometimes full and sometimes empty.
            for _ in 0..self.chooser.chance().between(1, 2 * WINDOW as u64 - 1) {
                let Choice { calls, key } = self.chooser.next(&self.board)?;
                for call in calls {
                    asked
                        .send((key, self.recorder.ask(call).await))
                        .await
                        .context("the answers are not taken")?;
                }
            }
            let pause = self.chooser.chance().millis(0..120);
            sleep(pause).await;
        }
        drop(asked);
        answering.await.context("the answers are not taken")
    }
}

/// The numbers of the clients that speak ZooKeeper's protocol: behind those of all others.
const ZOOKEEPER_FROM: u32 = 10_000;

/// Has many children, with long names, and data.
pub(crate) const LARGE: &str = "/torture-large";

/// Calls of one client under way.
const WINDOW: usize = 16;

/// So soon after the last fault a client has to be served.
const SERVES_WITHIN: Duration = Duration::from_secs(10);

/// Longer than the longest time-out of any call.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
