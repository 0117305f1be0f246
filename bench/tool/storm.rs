//! Everybody connects at once: to a hub that knows nobody yet, and to one that was killed and has started again.

use std::time::{Duration, Instant};

use clap::Args;

use crate::bed::{Bed, FleetArgs, line};
use crate::hub::{BenchError, HubArgs, wait_until};
use crate::report::{Better, Report};

/// Within this the last agent must be back.
const BACK_MAX: Duration = Duration::from_secs(120);

/// Flags of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct Storm {
    #[command(flatten)]
    hub: HubArgs,
    #[command(flatten)]
    fleet: FleetArgs,
    /// How often the hub is killed and all come back; medians count
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

impl Storm {
    pub(crate) fn measure(&self) -> Result<Report, BenchError> {
        let mut report = Report::new("handshake-storm");
        let mut bed = Bed::unconnected(&self.hub, &self.fleet, &mut report)?;
        let took = bed.connect(&mut report)?;
        report.metric("first connection of all", "us", Better::Less, took.as_secs_f64() * 1e6);
        for round in 1..=self.rounds {
            self.round(&mut bed, round, &mut report)?;
        }
        report.note("All agents are connected as the hub's own count says too; \"after a restart\" counts from when the new process was started.".to_owned());
        Ok(report.close())
    }

    fn round(&self, bed: &mut Bed, round: u32, report: &mut Report) -> Result<(), BenchError> {
        bed.hub.kill()?;
        bed.fleet.vanish();
        bed.fleet.take();
        let began = Instant::now();
        bed.hub.start_again()?;
        let listening = began.elapsed();
        let before = bed.look()?;
        bed.fleet.connect(true);
        let bar = line(bed.agents, &format!("restart {round} of {}", self.rounds));
        wait_until("not all agents came back", BACK_MAX, || {
            bar.set_position(bed.fleet.welcomed());
            Ok(bed.fleet.welcomed() == bed.agents)
        })?;
        bar.finish_and_clear();
        let took = began.elapsed();
        let after = bed.look()?;
        bed.fleet.again(false);
        let counted = after.metrics["tessera_agents_connected"];
        if counted != bed.agents as f64 {
            return Err(BenchError::Wrong(format!(
                "{} agents are back, the hub counts {counted}",
                bed.agents
            )));
        }
        let measures = bed.fleet.take();
        report.metric("after a restart: hub listens", "us", Better::Less, listening.as_secs_f64() * 1e6);
        report.metric("after a restart: all agents welcomed", "us", Better::Less, took.as_secs_f64() * 1e6);
        report.metric(
            "sessions that had to be begun again",
            "",
            Better::Less,
            measures.lost_sessions() as f64,
        );
        report.latency("storm: wish to welcome", &measures.welcome);
        after.note_use(&before, bed.agents as f64, "returning agent", report);
        report.cpu("load per returning agent", measures.computed_ns as f64 / 1e3 / bed.agents as f64);
        Ok(())
    }
}
