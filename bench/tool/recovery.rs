//! A hub is killed in the middle of a job of many shards and started again: how long it is away, and what is computed
//! twice.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use tessera_client::api::{IdempotencyKey, follow};

use crate::bed::{Bed, FleetArgs, judge, line};
use crate::hub::{BenchError, HubArgs, wait_until};
use crate::report::{Better, Report};

/// Within this the hub must be back at work.
const BACK_MAX: Duration = Duration::from_secs(120);
/// Of a hundred shards so many are done when the hub is killed.
const KILLED_AT: u64 = 30;

/// Flags of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct Recovery {
    #[command(flatten)]
    hub: HubArgs,
    #[command(flatten)]
    fleet: FleetArgs,
    /// Shards of the job that is open when the hub is killed, one round for each number
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1_000_000, 4_000_000])]
    open_shards: Vec<u64>,
    /// How often all is measured; medians count
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

impl Recovery {
    pub(crate) fn measure(&self) -> Result<Report, BenchError> {
        let mut report = Report::new("recovery");
        let mut bed = Bed::make(&self.hub, &self.fleet, &mut report)?;
        bed.fleet.again(true);
        for _ in 0..self.rounds {
            for shards in &self.open_shards {
                killed(&mut bed, *shards, &mut report)?;
            }
        }
        report.note("Each job's result counted every shard once, across the kill.".to_owned());
        Ok(report.close())
    }
}

fn killed(bed: &mut Bed, shards: u64, report: &mut Report) -> Result<(), BenchError> {
    let spec = bed.job("recovery", shards);
    let api = bed.hub.api()?.with_patience(BACK_MAX);
    let key = IdempotencyKey::random().map_err(|error| BenchError::Settings(Box::new(error)))?;
    let id = api.submit(&spec, &key)?.id;
    let bar = line(shards, &format!("{shards} open shards"));
    wait_until("the job gets nowhere", BACK_MAX, || {
        let done = api.job(id)?.shards_done;
        bar.set_position(done);
        Ok(done * 100 >= shards * KILLED_AT)
    })?;
    bed.hub.kill()?;
    bed.fleet.take();
    let stored = bed.hub.stored_bytes();
    let began = Instant::now();
    bed.hub.start_again()?;
    let listening = began.elapsed();
    let after = api.job(id)?;
    if !after.state.is_open() {
        return Err(BenchError::Wrong(format!(
            "the job of {shards} shards had ended before the hub was killed: ask for more with --open-shards, or give agents time with --think-ms"
        )));
    }
    let known = after.shards_done;
    let resident = bed.hub.usage().resident;
    wait_until("no agent answers", BACK_MAX, || Ok(bed.fleet.board.answered.load(Ordering::Relaxed) > 0))?;
    let answering = began.elapsed();
    // An agent that has not yet noticed still believes itself welcome: the hub's own count tells.
    wait_until("not all agents came back", BACK_MAX, || {
        Ok(bed.hub.metrics()?["tessera_agents_connected"] == bed.agents as f64)
    })?;
    let whole = began.elapsed();
    let view = follow(&api, id, |_| {})?;
    judge(&api, &bed.answers, &view)?;
    bar.finish_and_clear();
    let lost: Vec<String> =
        bed.fleet.take().lost.iter().map(|(reason, count)| format!("{count} by \"{reason}\"")).collect();
    report.note(format!("{shards} open shards: sessions ended {}.", lost.join(", ")));
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let mut metric = |what: &str, unit: &str, value| {
        report.metric(&format!("{shards} open shards: {what}"), unit, Better::Less, value);
    };
    metric("start to listening", "us", us(listening));
    metric("start to first answer", "us", us(answering));
    metric("start to all agents back", "us", us(whole));
    metric("known after the kill", "%", 100.0 * known as f64 / shards as f64);
    metric("store", "B", stored as f64);
    report.memory(&format!("hub after its start, {shards} open shards"), resident as f64);
    Ok(())
}
