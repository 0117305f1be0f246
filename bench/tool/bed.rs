//! A hub and its fleet, ready to be measured: started, enrolled, connected and trusted.
//!
//! Owns what every scenario with a real hub does before it measures, and how a job is run and judged.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tessera_client::api::{IdempotencyKey, follow};
use tessera_protocol::api::{JobState, JobView};
use tessera_protocol::id::JobId;
use tessera_protocol::limits;
use tessera_protocol::spec::JobSpec;

use crate::fleet::{Answers, Carried, Fleet, Impairment, Settings};
use crate::hub::{BenchError, Checked, Hub, HubArgs, wait_until};
use crate::latency::Latency;
use crate::machine::{Usage, digest_of};
use crate::report::{Better, Report};

/// Within this all agents must have been welcomed.
const CONNECT_MAX: Duration = Duration::from_secs(120);
/// How long the fleet rests before its memory is looked at.
const REST: Duration = Duration::from_secs(2);
/// Shards of a job that agents earn their trust with, to each of them.
const TRUST_SHARDS: u64 = 100;

/// What the protocol lets an agent hold.
const IN_FLIGHT_MAX: i64 = limits::SLOTS_MAX as i64 * limits::CREDIT_PER_SLOT as i64;

/// The fleet of a scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct FleetArgs {
    /// Simulated agents
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) agents: u32,
    /// Shards that each agent may hold: two to each slot that it offers, 4096 at most
    #[arg(long, value_name = "W", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=IN_FLIGHT_MAX))]
    pub(crate) in_flight: u32,
    /// Most answers that an agent puts into a frame: with few agents that hold much, frames that hold all would make hub
    /// and agent wait for each other
    #[arg(long, value_name = "N", default_value_t = limits::BATCH_ITEMS_MAX as u32, value_parser = clap::value_parser!(u32).range(1..=limits::BATCH_ITEMS_MAX as i64))]
    pub(crate) answers_per_frame: u32,
    /// How long an agent takes for each shard that it holds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) think_ms: u64,
    /// About how long a result is; the shortest has about ten bytes
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(crate) result_bytes: usize,
    #[command(flatten)]
    pub(crate) network: Impairment,
    /// About how long results of jobs are that [`Bed::bulk_job`] makes; nothing where there are none.
    #[arg(skip)]
    pub(crate) bulk_bytes: usize,
    /// Measures at once, with agents that are checked on every shard until they have earned some trust
    #[arg(long)]
    pub(crate) cold: bool,
    /// Longest time in which agents earn their trust
    #[arg(long, value_name = "S", default_value_t = 120)]
    pub(crate) warm_up_s: u64,
}

/// A hub with its fleet.
pub(crate) struct Bed {
    // Dropped first: sessions end before their hub does.
    pub(crate) fleet: Fleet,
    pub(crate) hub: Hub,
    pub(crate) answers: Answers,
    /// To jobs with long results.
    pub(crate) bulk: Option<Answers>,
    pub(crate) agents: u64,
    seeds: u64,
}

/// A job that has ended.
pub(crate) struct Ran {
    pub(crate) id: JobId,
    /// When it was to be submitted.
    pub(crate) intended: Instant,
    /// When the hub had acknowledged it.
    pub(crate) accepted: Instant,
    /// When its client knew that its result is durable.
    pub(crate) ended: Instant,
    pub(crate) view: JobView,
}

/// A line on the screen that says what goes on.
pub(crate) fn line(total: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template(
        "{msg:<28} {wide_bar} {human_pos}/{human_len} {per_sec:>14} {elapsed:>4}",
    );
    bar.set_style(style.expect("the template is one"));
    bar.set_message(what.to_owned());
    bar
}

impl Bed {
    /// Starts a hub, enrols and connects the fleet, notes what that took, and lets agents earn their trust.
    pub(crate) fn make(hub: &HubArgs, fleet: &FleetArgs, report: &mut Report) -> Result<Bed, BenchError> {
        let mut bed = Bed::unconnected(hub, fleet, report)?;
        bed.connect(report)?;
        if !fleet.cold {
            bed.earn_trust(Duration::from_secs(fleet.warm_up_s), report)?;
        }
        Ok(bed)
    }

    /// Starts a hub and makes a fleet that has the tokens it needs.
    pub(crate) fn unconnected(
        args: &HubArgs,
        fleet: &FleetArgs,
        report: &mut Report,
    ) -> Result<Bed, BenchError> {
        let answers =
            Answers::of_size(fleet.result_bytes).map_err(|error| BenchError::Settings(error.into()))?;
        let bulk = (fleet.bulk_bytes > 0).then(|| Answers::of_size(fleet.bulk_bytes)).transpose();
        let bulk = bulk.map_err(|error| BenchError::Settings(error.into()))?;
        let hub = Hub::start(args)?;
        report.set("agents", fleet.agents);
        report.set("in_flight", fleet.in_flight);
        report.set("answers_per_frame", fleet.answers_per_frame);
        if !fleet.network.is_none() {
            let Impairment { loss, delay_ms, jitter_ms, network_seed } = fleet.network;
            report.set("loss_percent", loss);
            report.set("delay_ms", delay_ms);
            report.set("jitter_ms", jitter_ms);
            report.set("network_seed", network_seed);
        }
        report.set("think_ms", fleet.think_ms);
        report.set("result_bytes", answers.bytes());
        report.set("lanes", hub.lanes());
        report.set("anchors_one_in", args.anchors_one_in);
        let (hub_cores, load_cores) = hub.cores();
        report.set("hub_cores", format!("{:?}", hub.cores_allowed()));
        if hub.cores_allowed() != hub_cores {
            report.note(format!("The hub has other cores than {hub_cores:?}, which it was to have."));
        }
        report.set("load_cores", format!("{load_cores:?}"));
        let memory = ["tmpfs", "ramfs"].contains(&hub.file_system().as_str());
        report.set("commits", if memory { "synced to memory" } else { "synced before they count" });
        report.set("file_system", hub.file_system());
        report.set("hub_program", &digest_of(hub.program())[..16]);
        let bar = line(fleet.agents.into(), "enrolment tokens");
        let (members, hub_key) = hub.members(fleet.agents as usize, args.anchors_one_in)?;
        bar.finish_and_clear();
        let settings = Settings {
            hub: hub.quic,
            hub_key,
            members,
            in_flight: fleet.in_flight,
            answers_per_frame: fleet.answers_per_frame as usize,
            think: Duration::from_millis(fleet.think_ms),
            answers: answers.clone(),
            bulk: bulk.clone(),
            cores: load_cores.to_vec(),
            lanes: hub.lanes(),
            network: fleet.network,
        };
        Ok(Bed { fleet: Fleet::start(settings)?, hub, answers, bulk, agents: fleet.agents.into(), seeds: 0 })
    }

    /// Connects all agents and notes what a session costs the hub.
    pub(crate) fn connect(&mut self, report: &mut Report) -> Result<Duration, BenchError> {
        let before = self.hub.usage();
        let began = Instant::now();
        self.fleet.connect(false);
        let bar = line(self.agents, "agents");
        wait_until("not all agents were welcomed", CONNECT_MAX, || {
            bar.set_position(self.fleet.welcomed());
            Ok(self.fleet.welcomed() == self.agents)
        })?;
        let took = began.elapsed();
        bar.finish_and_clear();
        let counted = self.hub.metrics()?["tessera_agents_connected"];
        if counted != self.agents as f64 {
            return Err(BenchError::Wrong(format!(
                "{} agents were welcomed, the hub counts {counted}",
                self.agents
            )));
        }
        let measures = self.fleet.take();
        report.latency("handshake to welcome", &measures.welcome);
        let after = self.hub.usage();
        let us: u64 = after.ns_since(&before).values().sum();
        report.cpu("hub per enrolment and handshake", us as f64 / 1e3 / self.agents as f64);
        std::thread::sleep(REST);
        let resident = self.hub.usage().resident.saturating_sub(before.resident);
        report.memory("hub per idle agent", resident as f64 / self.agents as f64);
        report.memory("hub before agents", before.resident as f64);
        Ok(took)
    }

    /// Runs jobs until no agent is checked more than a trusted one is, or it takes too long.
    pub(crate) fn earn_trust(&mut self, patience: Duration, report: &mut Report) -> Result<(), BenchError> {
        let began = Instant::now();
        let bar = line(self.agents, "trusted agents");
        loop {
            let trusted = self.hub.metrics()?.get("tessera_agents_standing{standing=\"trusted\"}").copied();
            let trusted = trusted.unwrap_or_default();
            bar.set_position(trusted as u64);
            if trusted >= self.agents as f64 || began.elapsed() > patience {
                bar.finish_and_clear();
                report
                    .note(format!("{trusted} of {} agents were trusted when measuring began.", self.agents));
                return Ok(());
            }
            let spec = self.job("trust", self.agents * TRUST_SHARDS);
            self.run(&spec, Instant::now(), |_| {})?;
        }
    }

    /// A job that no other equals.
    pub(crate) fn job(&mut self, name: &str, shards: u64) -> JobSpec {
        self.seeds += 1;
        self.answers.job(name, shards, self.seeds)
    }

    /// A job with long results, in a fleet that has answers to such.
    pub(crate) fn bulk_job(&mut self, name: &str, shards: u64) -> Option<JobSpec> {
        self.seeds += 1;
        self.bulk.as_ref().map(|bulk| bulk.job(name, shards, self.seeds))
    }

    /// Submits a job and waits for its durable end. *Errors*: also where its result is not what it should be.
    pub(crate) fn run(
        &self,
        spec: &JobSpec,
        intended: Instant,
        tell: impl FnMut(&JobView),
    ) -> Result<Ran, BenchError> {
        run(&self.hub.api()?, &self.answers, spec, intended, tell)
    }

    /// Ends the fleet and the hub, as an operator would, and has the store checked.
    pub(crate) fn end_and_check(self) -> Result<Checked, BenchError> {
        let Bed { fleet, mut hub, .. } = self;
        drop(fleet);
        hub.stop_and_check()
    }

    /// What the hub has used and counted until now.
    pub(crate) fn look(&self) -> Result<Look, BenchError> {
        let carried = self.fleet.carried().map(Carried::so_far);
        Ok(Look { usage: self.hub.usage(), metrics: self.hub.metrics()?, carried, at: Instant::now() })
    }
}

/// Submits a job and waits for its durable end, on any thread.
pub(crate) fn run(
    api: &tessera_client::api::Hub,
    answers: &Answers,
    spec: &JobSpec,
    intended: Instant,
    mut tell: impl FnMut(&JobView),
) -> Result<Ran, BenchError> {
    let key = IdempotencyKey::random().map_err(|error| BenchError::Settings(Box::new(error)))?;
    let id = api.submit(spec, &key)?.id;
    let accepted = Instant::now();
    let view = follow(api, id, |news| {
        if let tessera_client::api::News::Job(view) = news {
            tell(view);
        }
    })?;
    let ended = Instant::now();
    judge(api, answers, &view)?;
    Ok(Ran { id, intended, accepted, ended, view })
}

/// Whether every shard was counted, and once.
pub(crate) fn judge(
    api: &tessera_client::api::Hub,
    answers: &Answers,
    view: &JobView,
) -> Result<(), BenchError> {
    if view.state != JobState::Done || view.shards_done != view.shards {
        let JobView { id, state, shards, shards_done, .. } = view;
        return Err(BenchError::Wrong(format!("{id} is {}, {shards_done} of {shards} shards", state.word())));
    }
    let Some(expected) = answers.inside(view.shards) else { return Ok(()) };
    let result: serde_json::Value = serde_json::from_slice(&api.result(view)?).unwrap_or_default();
    match result["inside"].as_u64() {
        Some(found) if found == expected => Ok(()),
        found => {
            Err(BenchError::Wrong(format!("the result of {} counts {found:?}, not {expected}", view.id)))
        }
    }
}

/// What a hub has used and counted so far.
pub(crate) struct Look {
    usage: Usage,
    pub(crate) metrics: BTreeMap<String, f64>,
    /// What the network took, lost, had no room for, and its time on a core.
    carried: Option<[u64; 4]>,
    at: Instant,
}

impl Look {
    /// Of a counter of the hub.
    pub(crate) fn counted_since(&self, earlier: &Look, name: &str) -> f64 {
        let at = |look: &Look| look.metrics.get(name).copied().unwrap_or_default();
        at(self) - at(earlier)
    }

    /// Of a histogram of the hub, all lanes together: each time counts as the upper bound of its bucket.
    pub(crate) fn timed_since(&self, earlier: &Look, name: &str) -> Latency {
        let up_to = |look: &Look| {
            let mut up_to: BTreeMap<u64, f64> = BTreeMap::new();
            let prefix = format!("{name}_bucket{{");
            for (labels, count) in
                look.metrics.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix))
            {
                let bound = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
                let Some(seconds) = bound.and_then(|bound| bound.parse::<f64>().ok()) else { continue };
                *up_to.entry((seconds * 1e9).round() as u64).or_default() += count;
            }
            up_to
        };
        let (before, mut latency, mut smaller) = (up_to(earlier), Latency::default(), 0.0);
        for (bound_ns, count) in up_to(self) {
            let since = count - before.get(&bound_ns).copied().unwrap_or_default();
            latency.record_ns(bound_ns, (since - smaller).max(0.0) as u64);
            smaller = since;
        }
        latency
    }

    /// Time on a core of the hub's threads of a name. *Units*: nanoseconds.
    pub(crate) fn ns_of_thread_since(&self, earlier: &Look, name: &str) -> f64 {
        self.usage.ns_since(&earlier.usage).get(name).copied().unwrap_or_default() as f64
    }

    /// Notes what the hub used for so many things of a kind.
    pub(crate) fn note_use(&self, earlier: &Look, count: f64, of: &str, report: &mut Report) {
        let threads = self.usage.ns_since(&earlier.usage);
        let total: u64 = threads.values().sum();
        for (name, ns) in &threads {
            let us = *ns as f64 / 1e3 / count;
            if *ns as f64 >= total as f64 / 1e3 {
                report.cpu(&format!("hub per {of}: {name}"), us);
            }
        }
        report.cpu(&format!("hub per {of}"), total as f64 / 1e3 / count);
        if let (Some(now), Some(before)) = (self.carried, earlier.carried) {
            let [taken, lost, overflowed, ns] = std::array::from_fn(|at| (now[at] - before[at]) as f64);
            report.metric("datagrams lost", "%", Better::Neither, 100.0 * lost / taken.max(1.0));
            report.metric("datagrams that the network had no room for", "", Better::Less, overflowed);
            report.cpu(&format!("network per {of}"), ns / 1e3 / count);
        }
        let seconds = (self.at - earlier.at).as_secs_f64();
        report.metric("hub busy", "% of a core", Better::Neither, total as f64 / 1e7 / seconds);
        report.memory("hub resident", self.usage.resident as f64);
        report.memory("hub resident at most", self.usage.resident_peak as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Percentiles;

    #[test]
    fn a_histogram_of_the_hub_is_what_came_into_its_buckets_in_between() {
        let look = |counts: [f64; 3]| {
            let bounds = ["0.000001", "0.002", "+Inf"].into_iter().zip(counts);
            let of = |lane: u16, (bound, count)| {
                (format!("t_seconds_bucket{{lane=\"{lane}\",le=\"{bound}\"}}"), count)
            };
            let metrics = bounds.flat_map(|at| [of(0, at), of(1, at)]).collect();
            Look { usage: Usage::default(), metrics, carried: None, at: Instant::now() }
        };
        let timed = look([1.0, 5.0, 6.0]).timed_since(&look([1.0, 3.0, 3.0]), "t_seconds");
        assert_eq!(timed.count(), 6, "three more in each of two lanes");
        let Percentiles { p50, max, .. } = timed.percentiles();
        assert!((p50 / 2_000.0 - 1.0).abs() < 0.01, "{p50}");
        let within = look([1.0, 5.0, 5.0]).timed_since(&look([1.0, 3.0, 3.0]), "t_seconds").percentiles();
        assert!(within.count == 4 && within.max < 3_000.0, "{within:?}");
        assert!(max > 1e9, "what is beyond the last bound is the longest that there is: {max}");
    }
}
