//! What a run is made of: fault rates drawn from its seed, and what its settings leave out.

use tessera_hub_core::Planted;

use super::agent::Kind;
use super::random::Random;

/// A kind of fault that a run can be rid of, to see whether it fails all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Agents that lose what they were told, or half of their answers.
    Sloppy,
    /// Agents that answer twice.
    Duplicate,
    /// Links that take seconds.
    Delay,
    /// Packets that are sent again.
    Loss,
    /// Agents that are cut off for a while, in one direction or both.
    Partition,
    /// Links, lanes and disks that stand still for some seconds.
    Clog,
    /// Agents that die.
    AgentCrash,
    /// Agents that are stopped.
    Freeze,
    /// A hub that dies.
    HubCrash,
    /// Of what was on its way to the disk when the hub died, some is there.
    Torn,
    /// A sync that fails: nobody knows what was written, and the hub stops.
    SyncFails,
    /// A disk that takes seconds.
    SlowDisk,
    /// Writes and reads that fail.
    CommitFails,
    /// A disk that is full for a while.
    FullDisk,
    /// Clocks that jump.
    ClockJump,
    /// Agents that answer wrongly.
    Liar,
    /// Agents that answer with garbage, fail, crash on shards or stall.
    Clumsy,
    /// Agents that copy.
    Copier,
    /// Agents that have few kernels.
    Old,
    /// Clients that submit twice, cancel and extend.
    Fickle,
    /// A shard that kills or fails everywhere, or an agent that never finishes.
    Trouble,
}

impl Fault {
    /// All of them, and their names.
    pub const ALL: [(Fault, &'static str); 21] = [
        (Fault::Sloppy, "sloppy"),
        (Fault::Duplicate, "duplicate"),
        (Fault::Delay, "delay"),
        (Fault::Loss, "loss"),
        (Fault::Partition, "partition"),
        (Fault::Clog, "clog"),
        (Fault::AgentCrash, "agent-crash"),
        (Fault::Freeze, "freeze"),
        (Fault::HubCrash, "hub-crash"),
        (Fault::Torn, "torn"),
        (Fault::SyncFails, "sync-fails"),
        (Fault::SlowDisk, "slow-disk"),
        (Fault::CommitFails, "commit-fails"),
        (Fault::FullDisk, "full-disk"),
        (Fault::ClockJump, "clock-jump"),
        (Fault::Liar, "liar"),
        (Fault::Clumsy, "clumsy"),
        (Fault::Copier, "copier"),
        (Fault::Old, "old"),
        (Fault::Fickle, "fickle"),
        (Fault::Trouble, "trouble"),
    ];
}

/// What a run is made of besides its seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A bug to plant in the hub, which the checkers must find.
    pub planted: Option<Planted>,
    /// Whether it is told line by line.
    pub aloud: bool,
    /// Fault kinds that are left out, a bit each.
    pub without: u32,
    /// The most agents.
    pub agents_max: u8,
    /// The most jobs that clients submit.
    pub jobs_max: u64,
    /// The longest phase of faults. *Units*: simulated milliseconds.
    pub faults_ms_max: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        let (agents_max, jobs_max, faults_ms_max) = (u8::MAX, u64::MAX, u64::MAX);
        Settings { planted: None, aloud: false, without: 0, agents_max, jobs_max, faults_ms_max }
    }
}

impl Settings {
    /// The same with a bug.
    pub fn planting(self, bug: Planted) -> Settings {
        Settings { planted: Some(bug), ..self }
    }

    /// The same without a kind of fault.
    pub fn without(self, fault: Fault) -> Settings {
        Settings { without: self.without | 1 << fault as u32, ..self }
    }

    /// Whether a kind of fault is left out.
    pub fn lacks(self, fault: Fault) -> bool {
        self.without & 1 << fault as u32 != 0
    }
}

/// Fault rates of one seed, each drawn on its own so that runs differ in kind and not only in luck.
/// Rates are per mille: of messages, of commits, or of seconds.
#[derive(Clone, Debug)]
pub(super) struct Swarm {
    pub(super) lanes: u16,
    pub(super) agents: u8,
    pub(super) liar: Option<Kind>,
    /// Whether jobs among liars are checked whole.
    pub(super) careful: bool,
    /// Whether another agent tells the liar's lies.
    pub(super) coalition: bool,
    /// Whether the liar is one of the operator's own agents: a machine with a defect.
    pub(super) flawed: bool,
    pub(super) clumsy: Option<Kind>,
    pub(super) copier: bool,
    /// Whether some agents know no matrices.
    pub(super) old: bool,
    /// Providers that the strangers' agents belong to.
    pub(super) providers: u8,
    pub(super) sloppy: u64,
    pub(super) duplicate: u64,
    pub(super) delay_ms: u64,
    pub(super) loss: u64,
    pub(super) partition: u64,
    pub(super) clog: u64,
    pub(super) agent_crash: u64,
    pub(super) freeze: u64,
    pub(super) hub_crash: u64,
    pub(super) torn: bool,
    pub(super) sync_fails: u64,
    pub(super) commit_fails: u64,
    pub(super) full_disk: u64,
    pub(super) disk_ms: u64,
    pub(super) jump: u64,
    pub(super) fickle: bool,
    /// When faults stop and the world heals. *Units*: simulated milliseconds.
    pub(super) faults_ms: u64,
}

impl Swarm {
    /// Draws everything, so that what is left out changes nothing of the rest.
    pub(super) fn draw(random: &mut Random, settings: &Settings) -> Swarm {
        let rate = |random: &mut Random, most: u64| if random.chance(500) { random.below(most) } else { 0 };
        let liars = [Kind::Liar, Kind::Liar, Kind::RareLiar, Kind::Sleeper, Kind::Showy];
        let clumsy = [Kind::Garbler, Kind::Failer, Kind::Crasher, Kind::Staller];
        let has = |fault: Fault| !settings.lacks(fault);
        let only = |fault: Fault, rate: u64| if has(fault) { rate } else { 0 };
        let drawn = Swarm {
            lanes: 1 + random.below(3) as u16,
            agents: 1 + random.below(6) as u8,
            liar: random.chance(300).then(|| liars[random.below(5) as usize]),
            careful: random.chance(500),
            coalition: random.chance(300),
            flawed: random.chance(300),
            clumsy: random.chance(500).then(|| clumsy[random.below(4) as usize]),
            copier: random.chance(200),
            old: random.chance(300),
            providers: 1 + random.below(4) as u8,
            sloppy: rate(random, 100),
            duplicate: rate(random, 200),
            delay_ms: 1 + rate(random, 3000),
            loss: rate(random, 300),
            partition: rate(random, 100),
            clog: rate(random, 150),
            agent_crash: rate(random, 300),
            freeze: rate(random, 100),
            hub_crash: rate(random, 200),
            torn: random.chance(700),
            sync_fails: rate(random, 60),
            commit_fails: rate(random, 300),
            full_disk: rate(random, 60),
            disk_ms: 1 + rate(random, 2000),
            jump: rate(random, 60),
            fickle: true,
            faults_ms: 15_000 + random.below(45_000),
        };
        // Lies that anyone sees are looked for where not everything is checked, by one who is trusted at once.
        let showy = drawn.liar == Some(Kind::Showy);
        let drawn = Swarm { careful: drawn.careful && !showy, flawed: drawn.flawed || showy, ..drawn };
        Swarm {
            // A copy of a lie is a second witness for it.
            copier: drawn.copier && drawn.liar.is_none() && has(Fault::Copier),
            liar: drawn.liar.filter(|_| has(Fault::Liar)),
            coalition: drawn.coalition && drawn.liar.is_some() && !drawn.flawed && has(Fault::Liar),
            clumsy: drawn.clumsy.filter(|_| has(Fault::Clumsy)),
            old: drawn.old && has(Fault::Old),
            sloppy: only(Fault::Sloppy, drawn.sloppy),
            duplicate: only(Fault::Duplicate, drawn.duplicate),
            delay_ms: only(Fault::Delay, drawn.delay_ms).max(1),
            loss: only(Fault::Loss, drawn.loss),
            partition: only(Fault::Partition, drawn.partition),
            clog: only(Fault::Clog, drawn.clog),
            agent_crash: only(Fault::AgentCrash, drawn.agent_crash),
            freeze: only(Fault::Freeze, drawn.freeze),
            hub_crash: only(Fault::HubCrash, drawn.hub_crash),
            torn: drawn.torn && has(Fault::Torn),
            sync_fails: only(Fault::SyncFails, drawn.sync_fails),
            commit_fails: only(Fault::CommitFails, drawn.commit_fails),
            full_disk: only(Fault::FullDisk, drawn.full_disk),
            disk_ms: only(Fault::SlowDisk, drawn.disk_ms).max(1),
            jump: only(Fault::ClockJump, drawn.jump),
            fickle: has(Fault::Fickle),
            agents: drawn.agents.min(settings.agents_max),
            faults_ms: drawn.faults_ms.min(settings.faults_ms_max),
            ..drawn
        }
    }
}
