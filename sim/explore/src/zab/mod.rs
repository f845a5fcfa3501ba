//! ZAB over an abstract election: the election may give a looking server any outcome, and the protocol must
//! be safe all the same.

mod bounds;
mod disk;
mod fault;
mod judge;
mod moves;
mod net;
mod server;
mod start;
mod text;

use std::rc::Rc;
use std::time::Duration;

use api::ports::Role;
use api::{Ensemble, EnsembleId, Entry, Levels, Member, Membership, Ticket, Zxid};
use bytes::Bytes;
use invariants::{Ledger, Quorums, same};
use quorum_core::{Config, Conn};

pub use bounds::Bounds;
pub use fault::Fault;

use self::bounds::Left;
use self::disk::Stored;
use self::net::{Net, peer};
use self::server::{COMMIT_WAITS, Effect, Event, LIMIT, Messages, PATIENCE, Server, Turn};
use crate::engine::Model;
use crate::hash::FastMap;
use crate::pool::Pool;

/// Servers that fit into a state.
const SERVERS_MAX: usize = 4;
const NET: usize = SERVERS_MAX;
const GHOST: usize = NET + 1;
const LEFT: usize = GHOST + 1;

/// The numbers of the servers, of the connections, of the ghost; and the budgets.
pub type State = [u32; SERVERS_MAX + 3];

/// Where the servers stand at first.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Start {
    /// All disks are empty.
    #[default]
    Fresh,
    /// All have the marker of epoch 1 and one write, committed.
    Written,
    /// As `written`, but server 3 lacks a second write, as after a pause.
    Behind,
    /// As `behind`, and the others have both writes in a snapshot only, so that server 3 needs it.
    Purged,
    /// As `written`, but server 3 has the marker only.
    Blank,
}

/// The setup of an exploration.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Voters of equal weight, 1 to 4 together with the observers.
    pub voters: usize,
    /// Observers after them.
    pub observers: usize,
    /// Where they stand at first.
    pub start: Start,
    /// The budgets of events.
    pub bounds: Bounds,
    /// Commits wait for a proposal to go along with, up to a time that may be over at any moment. Otherwise each leaves at once.
    pub late_commits: bool,
    /// A planted bug.
    pub fault: Fault,
}

impl Setup {
    /// Voters with empty disks, to which nothing happens.
    #[must_use]
    pub const fn of_voters(voters: usize) -> Setup {
        Setup {
            voters,
            observers: 0,
            start: Start::Fresh,
            bounds: Bounds::NONE,
            late_commits: false,
            fault: Fault::None,
        }
    }
}

/// Something that can happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The election makes a server the leader.
    Lead(usize),
    /// The election makes the first a follower of the second, and it connects.
    Follow(usize, usize),
    /// The oldest message of this connection arrives at the leader.
    Up(Conn),
    /// ... at the learner.
    Down(Conn),
    /// The leader notices that this connection has ended.
    UpEnds(Conn),
    /// The learner does.
    DownEnds(Conn),
    /// The next operation of a server's disk becomes durable.
    Disk(usize),
    /// A server crashes with this many entries of the append under way on disk, and starts again.
    Crash(usize, usize),
    /// A server crashes and loses its disk.
    Wipe(usize),
    /// A server starts again and finds its log damaged after this number of entries.
    Damage(usize, usize),
    /// A server starts again from an older copy of its disk with this number of entries.
    PutBack(usize, usize),
    /// A leader is about to stop and hands over.
    Leave(usize),
    /// A server loses patience.
    GiveUp(usize),
    /// A leader sends a commit that has waited for a proposal.
    CommitDue(usize),
    /// The store of a server submits a write.
    Submit(usize),
    /// The store of a server requests a barrier.
    Barrier(usize),
    /// The store of a server saves a snapshot.
    SaveSnapshot(usize),
    /// A connection breaks.
    Cut(Conn),
}

/// A step of one server, computed once.
struct Step {
    after: u32,
    effects: Vec<Effect>,
    broken: Option<String>,
}

/// Facts about a server that the checks need repeatedly.
struct Facts {
    /// The number of what is on its disk.
    stored: u32,
    /// The number of its log.
    log: u32,
    base: Zxid,
    view: Vec<Entry>,
    committed: Zxid,
    role: Role,
    serving: bool,
    commit_waits: bool,
    torn: usize,
}

impl Facts {
    fn has(&self, entry: &Entry) -> bool {
        entry.zxid <= self.base || self.view.iter().any(|e| same(e, entry))
    }
}

/// The model.
pub struct Zab {
    setup: Setup,
    /// Those of the true ensemble; a planted bug may make the cores believe in others.
    quorums: Quorums,
    configs: Vec<Config>,
    servers: Pool<Server>,
    facts: Vec<Rc<Facts>>,
    stored: Pool<Stored>,
    /// Where it starts, and its entries.
    logs: Pool<(Zxid, Vec<Entry>)>,
    messages: Messages,
    nets: Pool<Net>,
    ghosts: Pool<Ledger>,
    steps: FastMap<(u8, u32, Event), Rc<Step>>,
}

fn ensemble(voters: usize, observers: usize) -> Result<Ensemble, String> {
    let members = (0..voters + observers).map(|i| {
        let membership = if i < voters { Membership::VOTER } else { Membership::Observer };
        Member { id: peer(i), membership }
    });
    Ensemble::new(members).map_err(|e| e.to_string())
}

impl Zab {
    /// Prepares an exploration.
    ///
    /// # Errors
    /// The model does not cover the setup.
    pub fn new(setup: Setup) -> Result<Zab, String> {
        let Setup { voters, observers, .. } = setup;
        if voters == 0 || voters + observers > SERVERS_MAX {
            return Err(format!("1 to {SERVERS_MAX} servers, at least one of them a voter"));
        }
        let believed = match setup.fault {
            Fault::ObserverCounts => ensemble(voters + observers, 0)?,
            _ => ensemble(voters, observers)?,
        };
        let config = |i| Config {
            me: peer(i),
            ensemble: believed.clone(),
            draw: EnsembleId(u128::from(peer(i).0)),
            init_limit: LIMIT,
            sync_limit: LIMIT,
            ping_interval: LIMIT,
            commit_delay: if setup.late_commits { COMMIT_WAITS } else { Duration::ZERO },
            park_limit: PATIENCE,
            requests_max: 16,
            request_bytes_max: 1024,
            counter_max: u32::MAX,
            levels: Levels::BUILD,
        };
        Ok(Zab {
            setup,
            quorums: Quorums::of(&ensemble(voters, observers)?),
            configs: (0..voters + observers).map(config).collect(),
            servers: Pool::new(),
            facts: Vec::new(),
            stored: Pool::new(),
            logs: Pool::new(),
            messages: Messages { up: Pool::new(), down: Pool::new() },
            nets: Pool::new(),
            ghosts: Pool::new(),
            steps: FastMap::default(),
        })
    }

    fn count(&self) -> usize {
        self.configs.len()
    }

    fn facts(&self, state: &State, i: usize) -> &Rc<Facts> {
        &self.facts[state[i] as usize]
    }

    fn server(&self, state: &State, i: usize) -> &Rc<Server> {
        self.servers.get(state[i])
    }

    fn number(&mut self, server: Server) -> u32 {
        let number = self.servers.number(server);
        if number as usize == self.facts.len() {
            let server = self.servers.get(number);
            let (base, view) = server.disk.view();
            let status = server.core.status();
            let stored = self.stored.number(server.disk.stored.clone());
            self.facts.push(Rc::new(Facts {
                stored,
                log: self.logs.number((base, view.clone())),
                base,
                view,
                committed: status.committed,
                role: status.role,
                serving: status.serving,
                commit_waits: server.commit_waits(),
                torn: server.disk.torn(),
            }));
        }
        number
    }

    /// The step of one server, from the table if it was made before.
    fn step(&mut self, i: usize, server: u32, event: Event) -> Rc<Step> {
        let key = (i as u8, server, event);
        if let Some(step) = self.steps.get(&key) {
            return step.clone();
        }
        let before = self.servers.get(server).as_ref().clone();
        let mut turn = Turn::new(&self.configs[i], self.setup.fault, &mut self.messages, before);
        let broken = turn.take(&event).err();
        let Turn { server, effects, .. } = turn;
        let step = Rc::new(Step { after: self.number(server), effects, broken });
        self.steps.insert(key, step.clone());
        step
    }

    /// One server takes an event; its messages go into the connections, and its actions are checked.
    fn happen(&mut self, world: &mut World, i: usize, event: Event) -> Result<(), String> {
        let wiped = matches!(event, Event::Wipe | Event::Damage(_) | Event::PutBack(_));
        let before = world.state[i];
        let step = self.step(i, before, event);
        if let Some(why) = &step.broken {
            return Err(format!("server {}: {why}", peer(i)));
        }
        world.state[i] = step.after;
        for effect in &step.effects {
            self.apply(world, i, effect)?;
        }
        self.judge(world, i, before, wiped)
    }

    fn apply(&mut self, world: &mut World, i: usize, effect: &Effect) -> Result<(), String> {
        let me = peer(i);
        match effect {
            Effect::Up(conn, message) => world.net.send_up(*conn, *message),
            Effect::Down(conn, down) => world.net.send_down(*conn, *down),
            Effect::Close(conn) => world.net.close(*conn, i),
            Effect::Break(conn) => world.net.cut(*conn),
            Effect::Opened(epoch) => world.ghost_mut().opens(*epoch, me)?,
            Effect::Settled(leader, epoch) => {
                world.ghost.serves_under(*leader, *epoch)?;
                if *leader == me {
                    let facts = self.facts(&world.state, i).clone();
                    world.ghost_mut().established(me, *epoch, |e| facts.has(e))?;
                }
            }
            Effect::Answer(ticket, answer) => {
                // The server's present state decides which entries it reports as committed.
                self.extend_committed(world, i)?;
                world.ghost_mut().answers_to(me, *ticket, *answer)?;
            }
            Effect::BarrierTold(ticket, applied) => world.ghost_mut().barrier_told(me, *ticket, *applied)?,
            Effect::Died => {
                world.net.died(i);
                world.ghost_mut().died(me);
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, world: &mut World, action: Action) -> Result<(), String> {
        match action {
            Action::Lead(i) => {
                world.left.of.elections -= 1;
                world.left.led = true;
                self.happen(world, i, Event::Lead)
            }
            Action::Follow(i, l) => {
                world.left.followed |= i == 1;
                let conn = world.net.connect(i, l);
                self.happen(world, l, Event::Accept(conn, peer(i)))?;
                self.happen(world, i, Event::Follow(peer(l), conn))
            }
            Action::Up(conn) => {
                let Some(link) = world.net.link(conn) else { return Ok(()) };
                let leader = link.leader;
                let message = link.up.remove(0);
                self.happen(world, leader, Event::FromLearner(conn, message))
            }
            Action::Down(conn) => {
                let Some(link) = world.net.link(conn) else { return Ok(()) };
                let learner = link.learner;
                let down = link.down.remove(0);
                self.happen(world, learner, Event::FromLeader(conn, down))
            }
            Action::UpEnds(conn) => self.end(world, conn, |l| l.leader),
            Action::DownEnds(conn) => self.end(world, conn, |l| l.learner),
            Action::Disk(i) => self.happen(world, i, Event::Disk),
            Action::Crash(i, entries) => {
                world.left.of.crashes -= 1;
                self.happen(world, i, Event::Crash(entries))
            }
            Action::Wipe(i) => {
                world.left.of.wipes -= 1;
                world.left.wiped |= 1 << i;
                self.happen(world, i, Event::Wipe)
            }
            Action::Damage(i, kept) => {
                world.left.of.damages -= 1;
                world.left.wiped |= 1 << i;
                self.happen(world, i, Event::Damage(kept))
            }
            Action::PutBack(i, kept) => {
                world.left.of.damages -= 1;
                world.left.wiped |= 1 << i;
                self.happen(world, i, Event::PutBack(kept))
            }
            Action::Leave(i) => {
                world.left.of.timeouts -= 1;
                self.happen(world, i, Event::Leave)
            }
            Action::GiveUp(i) => {
                world.left.of.timeouts -= 1;
                self.happen(world, i, Event::GiveUp)
            }
            Action::CommitDue(i) => self.happen(world, i, Event::CommitDue),
            Action::Submit(i) => {
                world.left.of.writes -= 1;
                let ticket = Ticket(world.ghost.submissions() as u64 + 1);
                world.ghost_mut().submits(peer(i), ticket, Bytes::new());
                self.happen(world, i, Event::Submit(ticket))
            }
            Action::Barrier(i) => {
                // Barriers have numbers of their own here: writes count from 1.
                let ticket = Ticket(1000 + u64::from(world.left.of.barriers));
                world.left.of.barriers -= 1;
                world.ghost_mut().asks_barrier(peer(i), ticket);
                self.happen(world, i, Event::Barrier(ticket))
            }
            Action::SaveSnapshot(i) => {
                world.left.of.snapshots -= 1;
                self.happen(world, i, Event::SaveSnapshot)
            }
            Action::Cut(conn) => {
                world.left.of.cuts -= 1;
                world.net.cut(conn);
                Ok(())
            }
        }
    }

    fn end(
        &mut self,
        world: &mut World,
        conn: Conn,
        which: impl Fn(&net::Link) -> usize,
    ) -> Result<(), String> {
        let Some(who) = world.net.link(conn).map(|l| which(l)) else { return Ok(()) };
        world.net.close(conn, who);
        self.happen(world, who, Event::Closed(conn))
    }
}

/// A state, unfolded to be changed.
struct World {
    state: State,
    net: Net,
    /// Copied when it changes, which is seldom.
    ghost: Rc<Ledger>,
    left: Left,
}

impl World {
    fn ghost_mut(&mut self) -> &mut Ledger {
        Rc::make_mut(&mut self.ghost)
    }
}

impl Model for Zab {
    type State = State;
    type Action = Action;

    fn start(&mut self) -> State {
        let (disks, ghost) = self.first_disks();
        let mut state = [0; SERVERS_MAX + 3];
        for (i, stored) in disks.into_iter().enumerate() {
            let server = Server::new(self.configs[i].clone(), stored, self.setup.fault);
            let mut turn = match server {
                Ok(server) => Turn::new(&self.configs[i], self.setup.fault, &mut self.messages, server),
                Err(why) => panic!("the first state is no state: {why}"),
            };
            if let Err(why) = turn.outputs() {
                panic!("the first state is no state: {why}");
            }
            let server = turn.server;
            state[i] = self.number(server);
        }
        state[NET] = self.nets.number(Net::default());
        state[GHOST] = self.ghosts.number(ghost);
        state[LEFT] = Left { of: self.setup.bounds, wiped: 0, led: false, followed: false }.pack();
        state
    }

    fn actions(&mut self, state: &State, into: &mut Vec<Action>) {
        let left = Left::unpack(state[LEFT]);
        self.deliveries(state, into);
        self.elections(state, &left, into);
        self.requests(state, &left, into);
        self.faults(state, &left, into);
    }

    fn next(&mut self, state: &State, action: Action) -> Result<State, String> {
        let mut world = World {
            state: *state,
            net: self.nets.get(state[NET]).as_ref().clone(),
            ghost: self.ghosts.get(state[GHOST]).clone(),
            left: Left::unpack(state[LEFT]),
        };
        self.carry_out(&mut world, action)?;
        world.state[NET] = self.nets.number(world.net);
        if !Rc::ptr_eq(&world.ghost, self.ghosts.get(state[GHOST])) {
            world.state[GHOST] = self.ghosts.number(Rc::unwrap_or_clone(world.ghost));
        }
        let same = world.state[..LEFT] == state[..LEFT];
        // A fault without consequences only wastes its budget.
        world.state[LEFT] = if same { state[LEFT] } else { world.left.pack() };
        Ok(world.state)
    }

    fn at_rest(&mut self, _state: &State) -> Result<(), String> {
        // Without an election that ends, nothing is due.
        Ok(())
    }

    fn tell(&mut self, state: &State, action: Action) -> String {
        let net = self.nets.get(state[NET]).clone();
        let left = Left::unpack(state[LEFT]);
        let servers: Vec<Rc<Server>> = (0..self.count()).map(|i| self.server(state, i).clone()).collect();
        text::event(action, &net, &servers, &self.messages, &left)
    }

    fn tables(&self) -> String {
        format!(
            "{} servers, {} sets of connections, {} ghosts, {} steps of servers",
            self.servers.len(),
            self.nets.len(),
            self.ghosts.len(),
            self.steps.len()
        )
    }
}
