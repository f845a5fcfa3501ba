//! The faults, their times and durations.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use api::{PeerId, chance::Chance};
use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::{
    clients::LARGE,
    ensemble::{Death, Ensemble, Part},
    lookout::Window,
    rude::Rude,
};

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    /// kill -9, and started again.
    Kill,
    /// The same to the leader.
    KillLeader,
    /// kill -9 to all at once, as when the power goes.
    KillAll,
    /// SIGTERM, and started again.
    Terminate,
    /// SIGSTOP, SIGCONT.
    Pause,
    /// The same to the leader, mostly for longer than it takes to elect another one.
    PauseLeader,
    /// Cut off from all others.
    Isolate,
    /// The same to the leader.
    IsolateLeader,
    /// Two nodes cannot reach each other; all others can.
    Bridge,
    /// One node cannot connect to another, which can connect to it.
    OneWay,
    /// Nothing that the others say reaches it.
    Deaf,
    /// Nothing that it says reaches the others, mostly the leader.
    Mute,
    /// Bytes of both directions stall, without an error.
    BlackHole,
    /// All its links are slow.
    SlowLinks,
    /// Every sync of its disk is slow.
    SlowDisk,
    /// A foreign file takes nearly all space of the disk with the log, checkpoint and snapshots of a node.
    FullDisk,
    /// kill -9 of one service of a node, and started again.
    KillService,
    /// The same to this service of all nodes at once.
    KillServices,
    /// SIGTERM to one service of a node, and started again.
    TerminateService,
    /// SIGSTOP, SIGCONT to one service of a node.
    PauseService,
    /// The link between two services of a node breaks, and none comes about.
    UnlinkService,
    /// Two services of a node receive nothing from each other, without an error.
    MuteService,
    /// Clients of one node, alone: nothing else is wrong meanwhile, so that others must not notice.
    Clients(Rude),
}

impl Fault {
    /// Of nodes.
    pub(crate) const ALL: [Fault; 15] = [
        Fault::Kill,
        Fault::KillLeader,
        Fault::KillAll,
        Fault::Terminate,
        Fault::Pause,
        Fault::PauseLeader,
        Fault::Isolate,
        Fault::IsolateLeader,
        Fault::Bridge,
        Fault::OneWay,
        Fault::Deaf,
        Fault::Mute,
        Fault::BlackHole,
        Fault::SlowLinks,
        Fault::SlowDisk,
    ];

    /// Of services that are processes of their own.
    pub(crate) const OF_SERVICES: [Fault; 6] = [
        Fault::KillService,
        Fault::KillServices,
        Fault::TerminateService,
        Fault::PauseService,
        Fault::UnlinkService,
        Fault::MuteService,
    ];

    fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::KillLeader => "kill-leader",
            Fault::KillAll => "kill-all",
            Fault::Terminate => "terminate",
            Fault::Pause => "pause",
            Fault::PauseLeader => "pause-leader",
            Fault::Isolate => "isolate",
            Fault::IsolateLeader => "isolate-leader",
            Fault::Bridge => "bridge",
            Fault::OneWay => "one-way",
            Fault::Deaf => "deaf",
            Fault::Mute => "mute",
            Fault::BlackHole => "black-hole",
            Fault::SlowLinks => "slow-links",
            Fault::SlowDisk => "slow-disk",
            Fault::FullDisk => "full-disk",
            Fault::KillService => "kill-service",
            Fault::KillServices => "kill-services",
            Fault::TerminateService => "terminate-service",
            Fault::PauseService => "pause-service",
            Fault::UnlinkService => "unlink-service",
            Fault::MuteService => "mute-service",
            Fault::Clients(rude) => rude.name(),
        }
    }

    /// Those of these names; if none are given, all but those of clients. Where services are processes of their own (`split`), every other fault
    /// is one of theirs.
    pub(crate) fn named(names: Option<&[String]>, split: bool) -> Result<Vec<Fault>> {
        let Some(names) = names else {
            let mut faults = Fault::ALL.to_vec();
            if split {
                // As often as the others together.
                faults.extend(Fault::OF_SERVICES.iter().cycle().take(Fault::ALL.len()));
            }
            return Ok(faults);
        };
        let mut faults = Vec::new();
        for name in names.iter().filter(|name| *name != "none") {
            if name == RUDE {
                faults.extend(Rude::ALL.map(Fault::Clients));
                continue;
            }
            let clients = Rude::ALL.map(Fault::Clients);
            let mut all =
                Fault::ALL.into_iter().chain([Fault::FullDisk]).chain(Fault::OF_SERVICES).chain(clients);
            match all.find(|f| f.name() == name) {
                Some(fault) if Fault::OF_SERVICES.contains(&fault) && !split => {
                    bail!("{fault} needs services that are processes of their own: add --split");
                }
                Some(fault) => faults.push(fault),
                None => {
                    let name_all =
                        |faults: &[Fault]| faults.iter().map(|f| f.name()).collect::<Vec<_>>().join(", ");
                    bail!(
                        "there is no fault {name:?}; there are {}, full-disk, those of clients ({RUDE}): {}, with --split also {}, and none",
                        name_all(&Fault::ALL),
                        name_all(&Rude::ALL.map(Fault::Clients)),
                        name_all(&Fault::OF_SERVICES)
                    );
                }
            }
        }
        Ok(faults)
    }

    /// Which processes of a node it befalls. Of the links between services, by the one that is called.
    fn parts(self, of_node: &'static [Part], chance: &mut Chance) -> Vec<Part> {
        match self {
            Fault::KillService | Fault::KillServices | Fault::TerminateService | Fault::PauseService => {
                chance.pick(of_node).into_iter().collect()
            }
            Fault::UnlinkService | Fault::MuteService => {
                chance.pick(&[Part::Election, Part::Quorum]).into_iter().collect()
            }
            _ => of_node.to_vec(),
        }
    }

    fn wants_leader(self, chance: &mut Chance) -> bool {
        match self {
            Fault::KillLeader | Fault::PauseLeader | Fault::IsolateLeader => true,
            Fault::Mute
            | Fault::Deaf
            | Fault::BlackHole
            | Fault::SlowDisk
            | Fault::FullDisk
            | Fault::SlowLinks => chance.percent(60),
            Fault::KillService
            | Fault::TerminateService
            | Fault::PauseService
            | Fault::UnlinkService
            | Fault::MuteService
            | Fault::Clients(_) => chance.percent(50),
            _ => false,
        }
    }

    fn duration(self, chance: &mut Chance) -> Duration {
        match self {
            Fault::Kill | Fault::KillLeader | Fault::KillAll | Fault::Terminate => chance.millis(50..2500),
            Fault::KillService | Fault::KillServices | Fault::TerminateService => chance.millis(50..5000),
            Fault::Pause => chance.millis(200..6000),
            Fault::PauseLeader => chance.millis(1500..7000),
            Fault::Clients(_) => chance.millis(3000..6000),
            Fault::FullDisk => chance.millis(1000..12_000),
            _ => chance.millis(500..6000),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fault that lasts.
struct Active {
    fault: Fault,
    nodes: Vec<u32>,
    /// Of each of them.
    parts: Vec<Part>,
    /// Milliseconds, where the fault is about time; KiB that are left, where it is about space.
    amount: u64,
    until: Instant,
    began: Instant,
    /// The rude clients of this fault, if any. They end with it.
    clients: JoinSet<()>,
}

impl fmt::Display for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> = self.nodes.iter().map(u32::to_string).collect();
        write!(f, "{} {}", self.fault, nodes.join("-"))?;
        if let ([part], true) = (self.parts.as_slice(), Fault::OF_SERVICES.contains(&self.fault)) {
            write!(f, " {part}")?;
        }
        match self.fault {
            Fault::SlowDisk | Fault::SlowLinks => write!(f, " ({} ms)", self.amount)?,
            Fault::FullDisk => write!(f, " ({} KiB left)", self.amount)?,
            _ => {}
        }
        Ok(())
    }
}

/// Brings faults over an ensemble.
pub(crate) struct Tormentor {
    chance: Chance,
    faults: Vec<Fault>,
    active: Vec<Active>,
    next: Instant,
    /// One that wants to be alone.
    waiting: Option<Fault>,
    /// Since when nothing lasts.
    calm_since: Option<Instant>,
    /// When nothing lasted, from when to when.
    pub(crate) calms: Vec<Window>,
    /// When nothing lasted but what clients do.
    pub(crate) rude: Vec<Window>,
    /// How many there were of each kind.
    pub(crate) counts: BTreeMap<Fault, usize>,
    /// The times and faults of the run, for people.
    pub(crate) diary: Vec<(Instant, String)>,
    /// Processes that ended by themselves.
    pub(crate) deaths: Vec<Death>,
    /// The most memory that each process has had, by its name, in bytes.
    pub(crate) memory: BTreeMap<String, u64>,
}

impl Tormentor {
    pub(crate) fn new(faults: Vec<Fault>, chance: Chance) -> Tormentor {
        let next = Instant::now() + FIRST;
        Tormentor {
            chance,
            faults,
            active: Vec::new(),
            next,
            waiting: None,
            calm_since: None,
            calms: Vec::new(),
            rude: Vec::new(),
            counts: BTreeMap::new(),
            diary: Vec::new(),
            deaths: Vec::new(),
            memory: BTreeMap::new(),
        }
    }

    /// Takes note of what memory each process has had.
    pub(crate) fn look_at_memory(&mut self, ensemble: &Ensemble) {
        for (who, bytes) in ensemble.memory() {
            let most = self.memory.entry(who).or_default();
            *most = bytes.max(*most);
        }
    }

    /// The present faults.
    pub(crate) fn describe(&self) -> String {
        let active: Vec<String> = self.active.iter().map(Active::to_string).collect();
        if active.is_empty() { "-".to_owned() } else { active.join(", ") }
    }

    /// Does what is due. To be called often, on the main thread.
    pub(crate) async fn turn(&mut self, ensemble: &mut Ensemble) -> Result<()> {
        self.deaths.extend(ensemble.deaths());
        let now = Instant::now();
        while let Some(over) = self.active.iter().position(|a| a.until <= now) {
            let over = self.active.swap_remove(over);
            self.end(ensemble, &over)?;
        }
        let alone = self.active.iter().any(|a| matches!(a.fault, Fault::Clients(_)));
        if now < self.next || alone || self.active.len() >= AT_ONCE {
            return Ok(());
        }
        self.next = now + self.chance.millis(100..2500);
        match self.waiting.take().or_else(|| self.chance.pick(&self.faults)) {
            Some(fault @ Fault::Clients(_)) if !self.is_calm(ensemble, now).await => {
                self.waiting = Some(fault);
                self.next = now + LOOK_AGAIN;
            }
            Some(fault) => self.begin(ensemble, fault).await?,
            None => {}
        }
        Ok(())
    }

    /// Whether all faults are over for a while and all nodes serve.
    async fn is_calm(&self, ensemble: &Ensemble, now: Instant) -> bool {
        let over = self.active.is_empty() && self.calm_since.is_none_or(|since| now - since >= CALM);
        over && ensemble.status().await.iter().all(|s| s.as_ref().is_some_and(|s| s.serving))
    }

    /// The end of the time in which nothing is wrong.
    pub(crate) fn end_calm(&mut self) {
        if let Some(from) = self.calm_since.take() {
            self.calms.push(Window { from, to: Instant::now() });
        }
    }

    /// Ends everything that lasts, and starts every node that is down.
    pub(crate) fn relent(&mut self, ensemble: &mut Ensemble) -> Result<()> {
        for over in std::mem::take(&mut self.active) {
            self.end(ensemble, &over)?;
        }
        ensemble.network.heal_all();
        ensemble.start_all()
    }

    async fn begin(&mut self, ensemble: &mut Ensemble, fault: Fault) -> Result<()> {
        let Some(nodes) = self.choose(ensemble, fault).await else { return Ok(()) };
        let amount = match fault {
            Fault::SlowDisk => self.chance.between(5, 1199),
            // From nothing at all to more than what nodes keep back.
            Fault::FullDisk => self.chance.scale(1, 96 << 10),
            _ => self.chance.between(5, 499),
        };
        let until = Instant::now() + fault.duration(&mut self.chance);
        let parts = fault.parts(ensemble.parts(), &mut self.chance);
        let began = Instant::now();
        let mut begun = Active { fault, nodes, parts, amount, until, began, clients: JoinSet::new() };
        if !matches!(fault, Fault::Clients(_)) {
            self.end_calm();
        }
        *self.counts.entry(fault).or_default() += 1;
        self.diary.push((Instant::now(), format!("{begun} begins")));
        let others =
            |id: u32| ensemble.ids().into_iter().filter(move |&other| other != id).collect::<Vec<_>>();
        let (network, parts) = (&ensemble.network, begun.parts.as_slice());
        match (fault, begun.nodes.as_slice()) {
            (Fault::Kill | Fault::KillLeader | Fault::KillService, &[id]) => ensemble.kill(id, parts).await,
            (Fault::KillAll | Fault::KillServices, ids) => {
                ids.iter().for_each(|&id| ensemble.signal(id, parts, Signal::KILL));
                for &id in ids {
                    ensemble.kill(id, parts).await;
                }
            }
            (Fault::Terminate | Fault::TerminateService, &[id]) => {
                if !ensemble.stop(id, parts, TERMINATION_LIMIT).await {
                    let who = format!("{begun}");
                    let report =
                        format!("it was not at its end {TERMINATION_LIMIT:?} after SIGTERM, or failed");
                    self.deaths.push(Death { who, report });
                }
            }
            (Fault::Pause | Fault::PauseLeader | Fault::PauseService, &[id]) => {
                ensemble.signal(id, parts, Signal::STOP);
            }
            (Fault::UnlinkService | Fault::MuteService, &[id]) => {
                parts.iter().for_each(|&called| ensemble.unlink(id, called, fault == Fault::MuteService));
            }
            (Fault::Isolate | Fault::IsolateLeader, &[id]) => {
                network.partition(&[BTreeSet::from([id]), others(id).into_iter().collect()]);
            }
            (Fault::Bridge, &[a, b]) => network.partition(&[BTreeSet::from([a]), BTreeSet::from([b])]),
            (Fault::OneWay, &[a, b]) => network.cut(a, b),
            (Fault::Deaf, &[id]) => others(id).into_iter().for_each(|other| network.stall(other, id)),
            (Fault::Mute, &[id]) => others(id).into_iter().for_each(|other| network.stall(id, other)),
            (Fault::BlackHole, &[id]) => {
                for other in others(id) {
                    network.stall(id, other);
                    network.stall(other, id);
                }
            }
            (Fault::SlowLinks, &[id]) => {
                for other in others(id) {
                    network.delay(id, other, Duration::from_millis(amount));
                    network.delay(other, id, Duration::from_millis(amount));
                }
            }
            (Fault::SlowDisk, &[id]) => ensemble.slow_down(id, amount)?,
            (Fault::FullDisk, &[id]) => ensemble.fill(id, amount << 10)?,
            (Fault::Clients(rude), &[id]) => begun.clients = rude.begin(ensemble.client_port(id), LARGE),
            (fault, nodes) => bail!("{fault} is not for the nodes {nodes:?}"),
        }
        self.active.push(begun);
        Ok(())
    }

    fn end(&mut self, ensemble: &mut Ensemble, over: &Active) -> Result<()> {
        let now = Instant::now();
        self.diary.push((now, format!("{over} is over")));
        if self.active.is_empty() {
            self.calm_since.get_or_insert(now);
        }
        for &id in &over.nodes {
            match over.fault {
                Fault::Kill
                | Fault::KillLeader
                | Fault::KillAll
                | Fault::Terminate
                | Fault::KillService
                | Fault::KillServices
                | Fault::TerminateService => ensemble.start(id, &over.parts)?,
                Fault::Pause | Fault::PauseLeader | Fault::PauseService => {
                    ensemble.signal(id, &over.parts, Signal::CONT);
                }
                Fault::UnlinkService | Fault::MuteService => {
                    over.parts.iter().for_each(|&called| ensemble.relink(id, called));
                }
                Fault::SlowDisk => ensemble.speed_up(id),
                Fault::FullDisk => ensemble.empty(id),
                Fault::Clients(_) => self.rude.push(Window { from: over.began, to: now }),
                _ => {
                    for other in ensemble.ids() {
                        ensemble.network.heal(id, other);
                        ensemble.network.heal(other, id);
                    }
                }
            }
        }
        Ok(())
    }

    /// The nodes that it befalls, `None` if there are none to be had. No node suffers two faults at once, so that each
    /// can end without the other.
    async fn choose(&mut self, ensemble: &Ensemble, fault: Fault) -> Option<Vec<u32>> {
        let busy: BTreeSet<u32> = self.active.iter().flat_map(|a| a.nodes.iter().copied()).collect();
        let free: Vec<u32> = ensemble.ids().into_iter().filter(|id| !busy.contains(id)).collect();
        if matches!(fault, Fault::KillAll | Fault::KillServices) {
            return busy.is_empty().then_some(free);
        }
        let first = if fault.wants_leader(&mut self.chance) {
            leader(ensemble).await.filter(|leader| free.contains(leader))?
        } else {
            self.chance.pick(&free)?
        };
        if !matches!(fault, Fault::Bridge | Fault::OneWay) {
            return Some(vec![first]);
        }
        let rest: Vec<u32> = free.into_iter().filter(|&id| id != first).collect();
        Some(vec![first, self.chance.pick(&rest)?])
    }
}

/// The node that says that it leads, in the greatest epoch.
pub(crate) async fn leader(ensemble: &Ensemble) -> Option<u32> {
    let status = ensemble.status().await;
    let leads = status.into_iter().flatten().filter(|s| s.serving && s.leader == Some(s.id));
    leads.max_by_key(|s| s.epoch).map(|s| s.id).map(|PeerId(id)| id)
}

/// All of [`Rude`].
const RUDE: &str = "rude-clients";

/// Time without any fault before clients are rude.
const CALM: Duration = Duration::from_secs(2);

/// Whether that is so.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Quiet at the beginning.
const FIRST: Duration = Duration::from_secs(1);

/// Faults at the same time.
const AT_ONCE: usize = 2;

/// A stopping node takes at most the drain time and a little.
const TERMINATION_LIMIT: Duration = Duration::from_secs(12);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_chosen_by_name_and_a_wrong_name_gets_the_list() {
        let named = |names: &[&str]| {
            Fault::named(Some(&names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>()), false)
        };
        let all: Vec<Fault> =
            Fault::ALL.into_iter().chain([Fault::FullDisk]).chain(Rude::ALL.map(Fault::Clients)).collect();
        assert_eq!(Fault::named(None, false).unwrap(), Fault::ALL);
        assert_eq!(named(&["rude-clients"]).unwrap(), Rude::ALL.map(Fault::Clients));
        assert_eq!(named(&["kill", "slow-disk"]).unwrap(), [Fault::Kill, Fault::SlowDisk]);
        assert_eq!(named(&["none"]).unwrap(), []);
        let error = named(&["kil"]).unwrap_err().to_string();
        assert!(error.contains("\"kil\"") && error.contains("kill, kill-leader"), "{error}");
        let error = named(&["kill-service"]).unwrap_err().to_string();
        assert!(error.contains("add --split"), "{error}");
        let split = Fault::named(None, true).unwrap();
        let of_services = split.iter().filter(|f| Fault::OF_SERVICES.contains(f)).count();
        assert_eq!((split.len(), of_services), (2 * Fault::ALL.len(), Fault::ALL.len()));
        let names: BTreeSet<&str> = all.iter().chain(&Fault::OF_SERVICES).map(|f| f.name()).collect();
        assert_eq!(names.len(), all.len() + Fault::OF_SERVICES.len());
    }
}
