//! A simulated agent: the real machine of the agent around toy kernels, honest or not.

use std::collections::{BTreeMap, BTreeSet};

use tessera_agent_core::{Event, Hubs, Identity, InputFile, Machine, Outcome, ShardWork, Task};
use tessera_hub_core::Account;
use tessera_protocol::id::{AgentId, Digest, JobId, ProviderId};
use tessera_protocol::monte_carlo::Model;
use tessera_protocol::wire::{Hello, ShardFailure};
use tessera_protocol::{matrix, monte_carlo, staged};

use super::toy;

/// Half of it holds the files of the largest job, and of no other besides: an agent has as much of the disk.
/// *Units*: bytes.
const MEMORY_BYTES_MIN: u64 = 84_000;

/// How an agent answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Honest,
    /// Wrongly, always, and for each shard the same.
    Liar,
    /// Wrongly, one time in twenty.
    RareLiar,
    /// Wrongly, once it has answered well for a while.
    Sleeper,
    /// Wrongly, once it has answered well for a while, a few times a job, and so that anyone sees it who looks.
    Showy,
    /// Wrongly, always, and just as its coalition does.
    Colluder,
    /// With what another agent answered, where it knows it.
    Copier,
    /// With bytes that are no partial, one time in three.
    Garbler,
    /// That it failed, one time in three.
    Failer,
    /// Not at all, one time in ten: the shard crashes it.
    Crasher,
    /// After the faults, one time in four: until then the shard keeps its slot, and no heartbeat says so.
    Staller,
}

/// What a coalition's lies have in common.
const COALITION: u8 = 0x80;
/// Shards that a sleeper answers well first.
const SLEEPS_FOR: u64 = 22;
/// Lies about a job that a hub looks after, in whichever batches they come.
pub(super) const PLAIN_LIES_MAX: u64 = 4;

/// What agents answered in this run: what copiers know.
pub(super) type Answers = BTreeMap<(JobId, u64), Vec<u8>>;

/// What becomes of a shard that an agent starts.
#[derive(Debug)]
pub(super) enum Computed {
    Ends(Outcome),
    Stalls(Outcome),
    Crashes,
}

/// One agent over all its sessions and processes.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) id: AgentId,
    pub(super) machine: Machine,
    /// Counts its processes; what belongs to an earlier one is dropped.
    pub(super) life: u64,
    pub(super) lane: u16,
    pub(super) session: Option<u64>,
    kind: Kind,
    /// Whom it belongs to.
    pub(super) account: Account,
    /// Its lies differ from those of others by this.
    salt: u8,
    /// Shards it computed in all its lives.
    computed: u64,
    /// The jobs about which it lied.
    pub(super) lied: BTreeSet<JobId>,
    /// How many of its lies about a job anyone sees who looks, and how many not.
    pub(super) lies: BTreeMap<JobId, Lied>,
    /// When it is looked at next.
    pub(super) armed: u64,
    /// What it could not take in while it was stopped; `None` while it runs.
    pub(super) frozen: Option<Vec<Event>>,
    /// *Units*: milliseconds to a shard.
    pub(super) pace_ms: u64,
    slots: u16,
    /// Where it says it is; empty where it does not.
    pub(super) region: &'static str,
    /// What it offers: agents of an earlier version have fewer kernels.
    kernels: &'static [&'static str],
    /// What it holds of each input.
    inputs: BTreeMap<InputFile, Vec<u8>>,
}

impl Agent {
    /// An agent of a provider, or one of the operator's own.
    pub(super) fn new(number: u8, kind: Kind, provider: Option<u64>, pace_ms: u64, is_old: bool) -> Agent {
        let of_number = |number| Account::of_provider(ProviderId::of_name(&format!("provider {number}")));
        let (id, slots) = (AgentId::of_key(&[number; 32]), 1 + u16::from(number % 3));
        Agent {
            id,
            machine: machine(id, slots),
            life: 0,
            lane: 0,
            session: None,
            kind,
            account: provider.map_or_else(Account::operator, of_number),
            salt: number,
            computed: 0,
            lied: BTreeSet::new(),
            lies: BTreeMap::new(),
            armed: u64::MAX,
            frozen: None,
            pace_ms,
            slots,
            region: "",
            kernels: if is_old { &["monte_carlo"] } else { &["monte_carlo", "gemm", "syrk", "catastrophe"] },
            inputs: BTreeMap::new(),
        }
    }

    /// The process dies; the next one knows nothing.
    pub(super) fn restart(&mut self) {
        self.life += 1;
        self.machine = machine(self.id, self.slots);
        self.session = None;
        self.armed = u64::MAX;
        self.frozen = None;
        self.inputs.clear();
    }

    /// Takes a piece of an input. *Order*: ascending, from the start.
    pub(super) fn store(&mut self, input: InputFile, offset: u64, piece: &[u8]) {
        let held = self.inputs.entry(input).or_default();
        if offset == 0 {
            held.clear();
        }
        assert_eq!(held.len() as u64, offset, "a piece is missing");
        held.extend(piece);
    }

    pub(super) fn drop_input(&mut self, input: InputFile) {
        self.inputs.remove(&input);
    }

    /// Whether it sends no heartbeats while there are faults.
    pub(super) fn is_mute(&self) -> bool {
        self.kind == Kind::Staller
    }

    pub(super) fn hello(&self) -> Hello {
        let kernels = self.kernels.iter().map(|name| (*name).to_owned()).collect();
        Hello { kernels, region: self.region.to_owned(), ..hello(self.slots) }
    }

    pub(super) fn compute(&mut self, work: &ShardWork, answers: &mut Answers) -> Computed {
        let luck = work.first ^ work.attempt.epoch.0;
        self.computed += 1;
        match self.kind {
            Kind::Failer if luck.is_multiple_of(3) => {
                return Computed::Ends(Outcome::Failed(ShardFailure::KernelFailed));
            }
            Kind::Crasher if luck.is_multiple_of(10) => return Computed::Crashes,
            _ => {}
        }
        let partial = self.partial(work, answers);
        let outcome = Outcome::Done { digest: Digest::of(&partial), partial, kernel_us: 1 };
        match self.kind {
            Kind::Staller if luck.is_multiple_of(4) => Computed::Stalls(outcome),
            _ => Computed::Ends(outcome),
        }
    }

    fn partial(&mut self, work: &ShardWork, answers: &mut Answers) -> Vec<u8> {
        let place = (work.attempt.job, work.attempt.index.0);
        if let (Kind::Copier, Some(copy)) = (self.kind, answers.get(&place)) {
            return copy.clone();
        }
        let lies = match self.kind {
            Kind::Liar => true,
            Kind::RareLiar => (work.first ^ u64::from(self.salt)).is_multiple_of(20),
            Kind::Sleeper => self.computed > SLEEPS_FOR,
            // One of the operator's own needs no time to be trusted.
            Kind::Showy => (self.account.anchor || self.computed > SLEEPS_FOR) && self.can_show(work),
            _ => false,
        };
        let lie = match self.kind {
            Kind::Colluder => Some(COALITION),
            _ => lies.then_some(1 + self.salt),
        };
        if lie.is_some() {
            self.lied.insert(work.attempt.job);
        }
        let (mut partial, seen) = match &*work.task {
            Task::Matrix(task) => self.block(task, work.first, lie),
            Task::MonteCarlo(task) => tally(task, work, lie),
            Task::Staged(task) => (self.product(task, work, lie), false),
        };
        if lie.is_some() {
            let lies = self.lies.entry(work.attempt.job).or_default();
            *(if seen { &mut lies.plain } else { &mut lies.hidden }) += 1;
        }
        let epoch = work.attempt.epoch.0;
        if self.kind == Kind::Garbler && (work.first ^ epoch).is_multiple_of(3) {
            match epoch % 4 {
                0 => partial = vec![1, 2, 3],
                1 => partial.push(0),
                2 => _ = partial.pop(),
                _ => partial.fill(0xff),
            }
        } else {
            answers.insert(place, partial.clone());
        }
        partial
    }

    fn input(&self, input: InputFile) -> &[u8] {
        let held = self.inputs.get(&input).filter(|held| held.len() as u64 == input.bytes);
        held.expect("a shard starts once its inputs are there")
    }

    fn product(&self, task: &staged::Task, work: &ShardWork, lie: Option<u8>) -> Vec<u8> {
        let input = |(blake3, bytes)| self.input(InputFile { blake3, bytes });
        let inputs: Vec<&[u8]> = task.inputs().into_iter().map(input).collect();
        toy::product(task, work.first, work.count, &inputs, lie)
    }

    /// Its answer, and whether anyone sees that it is a lie.
    fn block(&self, task: &matrix::Task, index: u64, lie: Option<u8>) -> (Vec<u8>, bool) {
        for (blake3, bytes) in task.inputs() {
            self.input(InputFile { blake3: Digest(blake3), bytes });
        }
        let mut block = toy::block(task, index);
        let Some(lie) = lie else { return (block, false) };
        block[0] ^= lie;
        let shows = self.kind == Kind::Showy;
        if shows {
            // Its first element, many orders of magnitude larger: more than numbers up to one add up to.
            block[task.element_bytes() as usize - 1] ^= 0x40;
        }
        (block, shows)
    }

    /// Whether a lie about this shard can be seen, and it is time for one.
    fn can_show(&self, work: &ShardWork) -> bool {
        let told = self.lies.get(&work.attempt.job).map_or(0, |lies| lies.plain);
        let seen = match &*work.task {
            Task::Matrix(task) => task.inputs().is_empty(),
            Task::MonteCarlo(task) => matches!(task.model, Model::Gbm(_)) && work.pass.is_empty(),
            Task::Staged(_) => false,
        };
        seen && told < PLAIN_LIES_MAX && work.attempt.index.0.is_multiple_of(3)
    }
}

/// Lies of one agent about one job.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lied {
    pub(super) plain: u64,
    pub(super) hidden: u64,
}

/// A lie has the shape of an answer. The sum of a contract that is not the book's is seen by anyone who looks.
fn tally(task: &monte_carlo::Task, work: &ShardWork, lie: Option<u8>) -> (Vec<u8>, bool) {
    let mut tally = toy::tally(task, &work.pass, work.first, work.count);
    let seen = lie.is_some() && tally.counts.len() > 1;
    if let Some(lie) = lie {
        match (tally.counts.as_mut_slice(), tally.sums.as_mut_slice()) {
            ([inside], _) => {
                let off = 1 + (u64::from(lie) - 1) % tally.samples;
                *inside = (*inside + off) % (tally.samples + 1);
            }
            (_, [sum, ..]) => sum.add(f64::from(lie)).expect("a little more is finite"),
            _ => _ = tally.bins.pop(),
        }
    }
    (tally.encode(), seen)
}

fn machine(id: AgentId, slots: u16) -> Machine {
    let hub = "hub:1".parse().expect("an address");
    let hubs = Hubs::new(vec![hub], Vec::new()).expect("a hub");
    let hello = hello(slots);
    let cache_bytes_max = hello.memory_bytes / 2;
    Machine::new(Identity { agent: id, hello, gpus: Vec::new(), cache_bytes_max, hubs }, Vec::new())
}

fn hello(slots: u16) -> Hello {
    Hello {
        token: None,
        name: "simulated".to_owned(),
        version: "0".to_owned(),
        slots,
        isa: "plain".to_owned(),
        arch: "none".to_owned(),
        memory_bytes: MEMORY_BYTES_MIN * (2 + u64::from(slots)) / 2,
        kernels: Vec::new(),
        region: String::new(),
    }
}
