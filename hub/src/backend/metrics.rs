//! The hub's own metrics in the Prometheus text format. Reads counters; changes nothing.

use std::fmt::Write as _;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use tessera_hub_core::Counts;
use tessera_protocol::api::{AgentState, Standing};

use super::Hub;
use crate::journal::StoreState;
use crate::lane::{Histogram, LaneCounters, LaneTimes};
use crate::quic;

type ReadCounter = fn(&LaneCounters) -> &AtomicU64;
type ReadCount = fn(&Counts) -> u64;
type ReadPackets = fn(&quic::Counters) -> u64;
type ReadTimes = fn(&LaneTimes) -> &Histogram;

/// From the least trusted.
const STANDINGS: [Standing; 5] =
    [Standing::Removed, Standing::Sandboxed, Standing::Quarantine, Standing::Probation, Standing::Trusted];

/// Each line ended.
pub(super) fn of(hub: &Hub) -> String {
    let mut text = String::new();
    let counters: [(&str, &str, &str, ReadCounter); 5] = [
        ("tessera_lane_steps_total", "counter", "Steps of the lane's machine", |c| &c.steps),
        ("tessera_shards_assigned_total", "counter", "Attempts handed to agents", |c| &c.assigned),
        ("tessera_result_frames_total", "counter", "Work frames received from agents", |c| &c.results),
        ("tessera_agents_refused_total", "counter", "Sessions turned away", |c| &c.refused),
        ("tessera_agents_connected", "gauge", "Agents with a live session", |c| &c.agents),
    ];
    for (name, kind, help, read) in counters {
        head(&mut text, name, kind, help);
        for (lane, of) in hub.counters.iter().enumerate() {
            let _ = writeln!(text, "{name}{{lane=\"{lane}\"}} {}", read(of).load(Ordering::Relaxed));
        }
    }
    packets(&mut text, hub);
    attempts(&mut text, hub);
    times(&mut text, hub);
    head(&mut text, "tessera_jobs", "gauge", "Open jobs, and those that ended and are kept in memory");
    for (state, jobs) in hub.views.counts() {
        let _ = writeln!(text, "tessera_jobs{{state=\"{state}\"}} {jobs}");
    }
    let (commits, groups) = hub.journal.counts();
    let enrolled = hub.views.agents();
    let away = enrolled.iter().filter(|agent| agent.state == AgentState::Away).count();
    let (pieces_read, results_read) = hub.reader.counts();
    let kept_by = hub.keeper.gauges();
    let kept = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
    let plain = [
        ("tessera_uploads", "gauge", "Input files being uploaded", hub.uploads.count() as u64),
        (
            "tessera_upload_bytes_total",
            "counter",
            "Bytes of input files stored",
            hub.uploaded_bytes.load(Ordering::Relaxed),
        ),
        ("tessera_input_pieces_read_total", "counter", "Pieces of input files read for agents", pieces_read),
        (
            "tessera_blob_pieces_damaged_total",
            "counter",
            "Times that a piece of a blob was read with other bytes than were put there",
            hub.blobs.damaged(),
        ),
        ("tessera_results_assembled_total", "counter", "Results read whole for their digest", results_read),
        ("tessera_store_commits_total", "counter", "Batches made durable", commits),
        ("tessera_store_groups_total", "counter", "Waits for the disk", groups),
        (
            "tessera_store_failing",
            "gauge",
            "1 while the store refuses writes",
            u64::from(hub.journal.store_state() != StoreState::Ok),
        ),
        (
            "tessera_vmem_kept_bytes",
            "gauge",
            "Sums of unfinished tiles, in memory and in files",
            kept(&kept_by.kept),
        ),
        ("tessera_vmem_resident_bytes", "gauge", "Of them in memory", kept(&kept_by.resident)),
        ("tessera_vmem_resident_peak_bytes", "gauge", "Most of them that was in memory", kept(&kept_by.peak)),
        (
            "tessera_vmem_checkpoints_total",
            "counter",
            "Times that sums of unfinished tiles were made durable",
            kept(&kept_by.checkpoints),
        ),
        (
            "tessera_agent_mismatches",
            "gauge",
            "Shards on which a connected agent was contradicted and not believed",
            enrolled.iter().map(|agent| agent.mismatches).sum(),
        ),
        ("tessera_agents_away", "gauge", "Enrolled agents without a session", away as u64),
        (
            "tessera_agents_resting",
            "gauge",
            "Connected agents that get no work for a while",
            enrolled.iter().filter(|agent| agent.rest.is_some()).count() as u64,
        ),
    ];
    for (name, kind, help, value) in plain {
        head(&mut text, name, kind, help);
        let _ = writeln!(text, "{name} {value}");
    }
    if let Some(bytes) = hub.store.stored_bytes() {
        let name = "tessera_store_bytes";
        head(&mut text, name, "gauge", "What the store takes of the disk");
        let _ = writeln!(text, "{name} {bytes}");
    }
    let name = "tessera_store_state";
    head(&mut text, name, "gauge", "1 at how the store takes writes");
    for state in StoreState::ALL {
        let is = u64::from(hub.journal.store_state() == state);
        let _ = writeln!(text, "{name}{{state=\"{}\"}} {is}", state.word());
    }
    let name = "tessera_project_blob_bytes";
    head(&mut text, name, "gauge", "Bytes of input files that count towards a project");
    for (project, bytes) in hub.quotas.used() {
        let _ = writeln!(text, "{name}{{project=\"{project}\"}} {bytes}");
    }
    let name = "tessera_agents_standing";
    head(&mut text, name, "gauge", "Enrolled agents by how far they are trusted");
    for standing in STANDINGS {
        let count = enrolled.iter().filter(|agent| agent.standing == Some(standing)).count();
        let _ = writeln!(text, "{name}{{standing=\"{}\"}} {count}", standing.word());
    }
    text
}

/// What stands before a metric's values.
fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}");
}

/// How long things take, by lane.
fn times(text: &mut String, hub: &Hub) {
    let histograms: [(&str, &str, ReadTimes); 7] = [
        ("tessera_turn_seconds", "Turns of a lane in which something happened", |t| &t.turn),
        (
            "tessera_dispatch_seconds",
            "From the turn in which answers came until the shards assigned in it were given to the socket",
            |t| &t.dispatch,
        ),
        ("tessera_commit_seconds", "From when a lane wrote a batch until it was durable", |t| &t.commit),
        (
            "tessera_verify_seconds",
            "From a shard's answer, or the first of its batch, until the verifier let it pass, in whole milliseconds",
            |t| &t.verify,
        ),
        (
            "tessera_keep_seconds",
            "From then until a durable record says that the shard is done, of sums, in whole milliseconds",
            |t| &t.keep,
        ),
        (
            "tessera_queue_seconds",
            "From a job's submission until an agent of its home lane was told of it",
            |t| &t.queue,
        ),
        ("tessera_job_seconds", "From a job's submission until its end was durable", |t| &t.job),
    ];
    for (name, help, read) in histograms {
        head(text, name, "histogram", help);
        for (lane, of) in hub.counters.iter().enumerate() {
            let (bounds, all, seconds) = read(&of.times).up_to();
            for (bound, count) in bounds {
                let _ = writeln!(text, "{name}_bucket{{lane=\"{lane}\",le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(text, "{name}_bucket{{lane=\"{lane}\",le=\"+Inf\"}} {all}");
            let _ = writeln!(text, "{name}_sum{{lane=\"{lane}\"}} {seconds}");
            let _ = writeln!(text, "{name}_count{{lane=\"{lane}\"}} {all}");
        }
    }
}

fn by_lane<T, R: Fn(&T) -> u64>(
    text: &mut String,
    lanes: &[T],
    counts: impl IntoIterator<Item = (&'static str, &'static str, R)>,
) {
    for (name, help, read) in counts {
        head(text, name, "counter", help);
        for (lane, of) in lanes.iter().enumerate() {
            let _ = writeln!(text, "{name}{{lane=\"{lane}\"}} {}", read(of));
        }
    }
}

/// What agents' packets came to, by lane.
fn packets(text: &mut String, hub: &Hub) {
    let lanes = hub.counters.iter().map(|of| *of.packets.lock().unwrap_or_else(PoisonError::into_inner));
    let counts: [(&str, &str, ReadPackets); 6] = [
        ("tessera_datagrams_received_total", "Datagrams taken from the socket", |c| c.datagrams_received),
        ("tessera_turns_behind_total", "Turns that took as many datagrams as a turn takes", |c| {
            c.turns_behind
        }),
        ("tessera_sends_blocked_total", "Times the socket's send buffer was full", |c| c.sends_blocked),
        ("tessera_handshakes_begun_total", "Handshakes begun", |c| c.handshakes_begun),
        ("tessera_handshakes_retried_total", "Clients told to prove their address", |c| c.handshakes_retried),
        ("tessera_handshakes_turned_away_total", "Clients ignored or refused because of a limit", |c| {
            c.handshakes_turned_away
        }),
    ];
    by_lane(text, &lanes.collect::<Vec<_>>(), counts);
}

/// What became of attempts and answers, by lane.
fn attempts(text: &mut String, hub: &Hub) {
    let lanes = hub.counters.iter().map(|of| *of.counts.lock().unwrap_or_else(PoisonError::into_inner));
    let lanes: Vec<Counts> = lanes.collect();
    let counts: [(&str, &str, ReadCount); 10] = [
        ("tessera_retries_total", "Shards handed on to be tried again", |c| c.retries),
        ("tessera_attempts_failed_total", "Attempts that gave no partial", |c| c.failed),
        ("tessera_spares_total", "Second attempts beside slow ones", |c| c.spares),
        ("tessera_spares_won_total", "Second attempts that answered first", |c| c.spares_won),
        ("tessera_rests_total", "Times that an agent was made to rest", |c| c.rests),
        ("tessera_checks_total", "Shards on which two agents agreed", |c| c.checks),
        ("tessera_checks_skipped_total", "Shards accepted unchecked since nobody could check", |c| {
            c.checks_skipped
        }),
        ("tessera_mismatches_total", "Times that answers to a shard differed", |c| c.mismatches),
        ("tessera_shards_recalled_total", "Answers taken back before they counted", |c| c.recalled),
        ("tessera_shards_tainted_total", "Shards in results on the word of an agent proven wrong", |c| {
            c.tainted
        }),
    ];
    by_lane(text, &lanes, counts);
    let name = "tessera_attempts_lost_total";
    let kinds: [(&str, ReadCount); 3] =
        [("gone", |c| c.lost_gone), ("silent", |c| c.lost_silent), ("overran", |c| c.lost_overran)];
    head(text, name, "counter", "Attempts lost with their agent");
    for (lane, counts) in lanes.iter().enumerate() {
        for (kind, read) in kinds {
            let _ = writeln!(text, "{name}{{lane=\"{lane}\",kind=\"{kind}\"}} {}", read(counts));
        }
    }
}
