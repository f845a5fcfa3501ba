//! The election alone: servers start, say what the production core has them say, decide, crash, lose their links.

mod judge;
mod moves;
mod node;
mod wires;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use api::ports::{Candidate, Role};
use api::{Ensemble, Epoch, Member, Membership, PeerId, Zxid};
use election_core::{Config, Notification, Vote};
use invariants::{Quorums, Votes};

use self::node::{Event, FINALIZE_WAIT, Node, Said, Turn};
use self::wires::{Message, Wires};
use crate::engine::Model;
use crate::hash::FastMap;
use crate::pool::Pool;

/// Servers that fit into a state.
const SERVERS_MAX: usize = 4;
const WIRES: usize = SERVERS_MAX;
const GHOST: usize = WIRES + 1;
const LEFT: usize = GHOST + 1;

/// The numbers of the servers, of the wires, of the ghost; and the budgets.
pub type State = [u32; SERVERS_MAX + 3];

/// A planted bug.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Fault {
    /// None.
    #[default]
    None,
    /// The cores take the observer for a voter.
    ObserverVotes,
    /// Every notification of a looking server arrives as if it were of the receiver's round.
    AnyRoundCounts,
}

/// The setup of an exploration.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Voters of equal weight.
    pub voters: usize,
    /// Observers after them; at most four servers in all.
    pub observers: usize,
    /// The zxid with which each voter stands, in their order; 0 by default.
    pub zxids: Vec<u64>,
    /// Servers are linked as soon as both are up, and messages take less than half of the waiting time: no
    /// server decides while a message is under way.
    pub timely: bool,
    /// Crashes, each followed by a restart at any later time.
    pub crashes: u8,
    /// Links that break, each restored at any later time.
    pub cuts: u8,
    /// Servers that have no reign in spite of their decision look again up to this round.
    pub rounds: u64,
    /// Messages under way in one direction; the newest replaces the one before it when there are more.
    pub queue: usize,
    /// A planted bug.
    pub fault: Fault,
}

impl Setup {
    /// Voters with equal logs on a network that is not timely, to which nothing happens.
    #[must_use]
    pub const fn of_voters(voters: usize) -> Setup {
        Setup {
            voters,
            observers: 0,
            zxids: Vec::new(),
            timely: false,
            crashes: 0,
            cuts: 0,
            rounds: 3,
            queue: 2,
            fault: Fault::None,
        }
    }
}

/// Something that can happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// A server comes up and looks for a leader.
    Start(usize),
    /// These two are linked.
    Connect(usize, usize),
    /// The oldest message from the first arrives at the second.
    Deliver(usize, usize),
    /// The first notices that its link to the second is gone.
    Notice(usize, usize),
    /// The waiting time of a server is over.
    Decide(usize),
    /// A server that follows or leads without a reign looks again.
    Relook(usize),
    /// A server crashes.
    Crash(usize),
    /// The link between these two breaks.
    Cut(usize, usize),
}

struct Step {
    after: u32,
    said: Vec<Said>,
    broken: Option<String>,
}

/// The model.
pub struct Election {
    setup: Setup,
    ensemble: Ensemble,
    quorums: Quorums,
    configs: Vec<Config>,
    nodes: Pool<Node>,
    notifications: Pool<Notification>,
    wires: Pool<Wires>,
    ghosts: Pool<Votes<Vote>>,
    steps: FastMap<(u8, u32, Event), Rc<Step>>,
}

/// Server number `i` of a model is this member.
fn peer(i: usize) -> PeerId {
    PeerId(i as u32 + 1)
}

fn place(peer: PeerId) -> usize {
    peer.0 as usize - 1
}

fn ensemble(voters: usize, observers: usize) -> Result<Ensemble, String> {
    let members = (0..voters + observers).map(|i| {
        let membership = if i < voters { Membership::VOTER } else { Membership::Observer };
        Member { id: peer(i), membership }
    });
    Ensemble::new(members).map_err(|e| e.to_string())
}

/// A state, unfolded to be changed.
struct World {
    state: State,
    wires: Wires,
    ghost: Votes<Vote>,
    left: Left,
}

#[derive(Clone, Copy)]
struct Left {
    crashes: u8,
    cuts: u8,
}

impl Left {
    fn pack(self) -> u32 {
        u32::from(self.crashes) << 8 | u32::from(self.cuts)
    }

    fn unpack(word: u32) -> Left {
        Left { crashes: (word >> 8) as u8, cuts: word as u8 }
    }
}

impl Election {
    /// Prepares an exploration.
    ///
    /// # Errors
    /// The model does not cover the setup.
    pub fn new(setup: Setup) -> Result<Election, String> {
        let count = setup.voters + setup.observers;
        if setup.voters == 0 || count > SERVERS_MAX || setup.queue == 0 {
            return Err(format!(
                "1 to {SERVERS_MAX} servers, at least one of them a voter; queues of at least 1"
            ));
        }
        let believed = match setup.fault {
            Fault::ObserverVotes => ensemble(count, 0)?,
            _ => ensemble(setup.voters, setup.observers)?,
        };
        let config = |i| Config {
            finalize_wait: FINALIZE_WAIT,
            // Nothing is lost on a link that stands, so nothing has to be repeated.
            resend_min: Duration::from_secs(3600),
            resend_max: Duration::from_secs(3600),
            ..Config::new(peer(i), believed.clone())
        };
        let ensemble = ensemble(setup.voters, setup.observers)?;
        Ok(Election {
            quorums: Quorums::of(&ensemble),
            ensemble,
            configs: (0..count).map(config).collect(),
            setup,
            nodes: Pool::new(),
            notifications: Pool::new(),
            wires: Pool::new(),
            ghosts: Pool::new(),
            steps: FastMap::default(),
        })
    }

    fn count(&self) -> usize {
        self.configs.len()
    }

    fn candidate(&self, i: usize) -> Candidate {
        Candidate { epoch: Epoch(0), zxid: Zxid(self.setup.zxids.get(i).copied().unwrap_or(0)) }
    }

    fn node(&self, state: &State, i: usize) -> &Rc<Node> {
        self.nodes.get(state[i])
    }

    fn says(&self, state: &State, i: usize) -> Option<Notification> {
        self.node(state, i).says()
    }

    fn step(&mut self, i: usize, before: u32, event: Event) -> Rc<Step> {
        let key = (i as u8, before, event);
        if let Some(step) = self.steps.get(&key) {
            return step.clone();
        }
        let node = self.nodes.get(before).as_ref().clone();
        let mut turn = Turn::new(node);
        let broken = turn.take(event).err();
        let Turn { node, said } = turn;
        let step = Rc::new(Step { after: self.nodes.number(node), said, broken });
        self.steps.insert(key, step.clone());
        step
    }

    fn happen(&mut self, world: &mut World, i: usize, event: Event) -> Result<(), String> {
        let step = self.step(i, world.state[i], event);
        if let Some(why) = &step.broken {
            return Err(format!("server {}: {why}", peer(i)));
        }
        world.state[i] = step.after;
        if let Some(notification) = self.says(&world.state, i) {
            self.judge_vote(world, i, &notification)?;
        }
        for said in &step.said {
            match *said {
                Said::To(to, notification) => {
                    // A sent vote counts, even if its voter has changed it in the same step.
                    self.judge_vote(world, i, &notification)?;
                    let message = Message(self.notifications.number(notification));
                    world.wires.send(i, place(to), message, self.setup.queue);
                }
                Said::Elected(leader) => self.judge_elected(world, i, leader)?,
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, world: &mut World, action: Action) -> Result<(), String> {
        match action {
            Action::Start(i) | Action::Relook(i) => {
                if matches!(action, Action::Relook(_)) {
                    self.judge_in_vain(i)?;
                }
                let starts = !self.node(&world.state, i).up();
                // Its quorum service knows whether it has a vote, and may be as wrong as its election.
                let votes = self.configs[i].ensemble.weight(peer(i)) > 0;
                self.happen(world, i, Event::Elect(votes.then_some(self.candidate(i))))?;
                if starts && self.setup.timely {
                    for j in (0..self.count()).filter(|&j| j != i) {
                        if self.node(&world.state, j).up() && self.talk(i, j) {
                            self.connect(world, i, j)?;
                        }
                    }
                }
                Ok(())
            }
            Action::Connect(i, j) => self.connect(world, i, j),
            Action::Deliver(from, to) => {
                let Some(message) = world.wires.take(from, to) else { return Ok(()) };
                let mut notification = *self.notifications.get(message.0).as_ref();
                if self.setup.fault == Fault::AnyRoundCounts
                    && notification.state == Role::Looking
                    && let Some(mine) = self.says(&world.state, to)
                {
                    notification.round = mine.round;
                }
                self.happen(world, to, Event::Received(peer(from), notification))
            }
            Action::Notice(i, j) => {
                world.wires.notice(i, j);
                self.happen(world, i, Event::Disconnected(peer(j)))
            }
            Action::Decide(i) => self.happen(world, i, Event::Decide),
            Action::Crash(i) => {
                world.left.crashes -= 1;
                world.wires.died(i);
                world.state[i] = self.nodes.number(Node::down(&self.configs[i]));
                Ok(())
            }
            Action::Cut(i, j) => {
                world.left.cuts -= 1;
                world.wires.cut(i, j);
                Ok(())
            }
        }
    }

    fn connect(&mut self, world: &mut World, i: usize, j: usize) -> Result<(), String> {
        world.wires.connect(i, j);
        self.happen(world, i, Event::Connected(peer(j)))?;
        self.happen(world, j, Event::Connected(peer(i)))
    }

    /// Observers have nothing to say to each other.
    fn talk(&self, i: usize, j: usize) -> bool {
        self.ensemble.is_voter(peer(i)) || self.ensemble.is_voter(peer(j))
    }
}

impl Model for Election {
    type State = State;
    type Action = Action;

    fn start(&mut self) -> State {
        let mut state = [0; SERVERS_MAX + 3];
        for (number, config) in state.iter_mut().zip(&self.configs) {
            *number = self.nodes.number(Node::down(config));
        }
        state[WIRES] = self.wires.number(Wires::new(self.count()));
        state[GHOST] = self.ghosts.number(Votes::default());
        state[LEFT] = Left { crashes: self.setup.crashes, cuts: self.setup.cuts }.pack();
        state
    }

    fn actions(&mut self, state: &State, into: &mut Vec<Action>) {
        self.progress(state, into);
        let left = Left::unpack(state[LEFT]);
        if left.crashes > 0 {
            into.extend((0..self.count()).filter(|&i| self.node(state, i).up()).map(Action::Crash));
        }
        if left.cuts > 0 {
            let wires = self.wires.get(state[WIRES]);
            let pairs = (0..self.count()).flat_map(|i| (0..i).map(move |j| (j, i)));
            into.extend(pairs.filter(|&(j, i)| wires.linked(j, i)).map(|(j, i)| Action::Cut(j, i)));
        }
    }

    fn next(&mut self, state: &State, action: Action) -> Result<State, String> {
        let mut world = World {
            state: *state,
            wires: self.wires.get(state[WIRES]).as_ref().clone(),
            ghost: self.ghosts.get(state[GHOST]).as_ref().clone(),
            left: Left::unpack(state[LEFT]),
        };
        self.carry_out(&mut world, action)?;
        world.state[WIRES] = self.wires.number(world.wires);
        world.state[GHOST] = self.ghosts.number(world.ghost);
        world.state[LEFT] = world.left.pack();
        Ok(world.state)
    }

    /// When all servers are up, linked, and have received everything, all have one leader, which leads.
    fn at_rest(&mut self, state: &State) -> Result<(), String> {
        let mut progress = Vec::new();
        self.progress(state, &mut progress);
        if !progress.is_empty() {
            return Ok(());
        }
        let says: Vec<Option<Notification>> = (0..self.count()).map(|i| self.says(state, i)).collect();
        // Where the bound on rounds keeps a server from looking again, nothing is due.
        if says.iter().flatten().any(|n| n.round.0 >= self.setup.rounds) {
            return Ok(());
        }
        let leaders: BTreeSet<Option<PeerId>> = says
            .iter()
            .map(|n| n.filter(|n| n.state != Role::Looking).and_then(|n| n.vote).map(|v| v.leader))
            .collect();
        let leads = |p: PeerId| says[place(p)].is_some_and(|n| n.state == Role::Leading);
        match leaders.first() {
            Some(&Some(leader)) if leaders.len() == 1 && leads(leader) => Ok(()),
            _ => Err(format!("nothing can happen any more, and there is no agreement: {says:?}")),
        }
    }

    fn tell(&mut self, state: &State, action: Action) -> String {
        match action {
            Action::Start(i) => format!("{} starts, and looks with zxid {}", peer(i), self.candidate(i).zxid),
            Action::Connect(i, j) => format!("{} and {} are linked", peer(i), peer(j)),
            Action::Deliver(i, j) => match self.wires.get(state[WIRES]).next(i, j) {
                Some(n) => {
                    let notification = self.notifications.get(n.0);
                    format!("{} -> {}: {}", peer(i), peer(j), node::text(notification))
                }
                None => "nothing".into(),
            },
            Action::Notice(i, j) => format!("{} notices that its link to {} is gone", peer(i), peer(j)),
            Action::Decide(i) => format!("{} has waited long enough", peer(i)),
            Action::Relook(i) => format!("{} looks anew, because its decision came to nothing", peer(i)),
            Action::Crash(i) => format!("{} crashes", peer(i)),
            Action::Cut(i, j) => format!("the link between {} and {} breaks", peer(i), peer(j)),
        }
    }

    fn tables(&self) -> String {
        format!(
            "{} servers, {} sets of wires, {} ghosts, {} steps of servers",
            self.nodes.len(),
            self.wires.len(),
            self.ghosts.len(),
            self.steps.len()
        )
    }
}
