//! The command line: what may be written, and what `--help` says about it.

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use tessera_protocol::credits::ProviderName;
use tessera_protocol::id::{AgentId, Digest, JobId};
use tessera_protocol::limits::{PATHS_MAX, SHARD_PATHS_MAX, SLOTS_MAX};
use tessera_protocol::unit::UnixMillis;

/// Most agents that `run` starts: each is a process of this machine.
const AGENTS_MAX: i64 = 256;
/// Most lanes that `run` asks for: lane numbers travel in one byte of a connection id.
const LANES_MAX: i64 = 256;

const AFTER_HELP: &str = "\
Exit codes:
  0    it worked
  1    the job failed or was cancelled, or its result could not be written
  2    wrong usage or wrong input
  3    the hub cannot be reached, or refuses
  130  interrupted";

/// Bit-reproducible computation on many machines: describe a job in a file, get the same bytes every time.
#[derive(Debug, Parser)]
#[command(name = "tessera", version, after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// The command line of this process. Ends it when there is nothing to run: after help, or with what is
    /// wrong and exit code 2.
    pub(crate) fn read() -> Args {
        Args::try_parse().unwrap_or_else(|error| match misplaced(&error) {
            Some(flag) => Args::command()
                .error(
                    ErrorKind::UnknownArgument,
                    format!(
                        "{flag} belongs after a command that talks to a hub: submit, plan, job, hubs, agent, provider or audit export; `tessera run` \
                         starts a hub of its own"
                    ),
                )
                .exit(),
            None => error.exit(),
        })
    }
}

/// The flag about a hub that was given where no hub is talked to.
fn misplaced(error: &clap::Error) -> Option<&'static str> {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else { return None };
    let unknown = error.kind() == ErrorKind::UnknownArgument;
    CONNECTION_FLAGS.into_iter().find(|flag| unknown && flag == given)
}

/// The flags of [`Connection`].
const CONNECTION_FLAGS: [&str; 3] = ["--hub", "--api-key", "--api-key-file"];

/// Which hub, and with which key. `run` starts its own and takes none of these.
#[derive(Debug, clap::Args)]
pub(crate) struct Connection {
    /// URL of the hub, or of several on one store with commas between: the next is asked where one is not available
    /// [default: http://127.0.0.1:7840, or `hub` in the configuration file]
    #[arg(long, global = true, env = "TESSERA_HUB", value_name = "URL")]
    pub(crate) hub: Option<String>,
    /// API key [default: `api_key` in ~/.config/tessera/config.toml]
    #[arg(long, global = true, env = "TESSERA_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
    /// File whose first line is the API key
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "api_key")]
    pub(crate) api_key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a job on this machine: starts a hub and agents, prints the result, stops them
    Run(Run),
    /// Hand a job to a hub
    Submit(Submit),
    /// Say what a job would take, without running it
    Plan {
        #[command(flatten)]
        connection: Connection,
        /// Job file (.toml or .json)
        file: PathBuf,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Look at jobs and steer them
    Job {
        #[command(flatten)]
        connection: Connection,
        #[command(subcommand)]
        command: JobCommand,
    },
    /// Measure and prove the kernels of this machine; needs no hub
    Kernels {
        #[command(subcommand)]
        command: KernelsCommand,
    },
    /// List the hubs that serve from one store
    Hubs {
        #[command(flatten)]
        connection: Connection,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Look at agents and enrol them
    Agent {
        #[command(flatten)]
        connection: Connection,
        #[command(subcommand)]
        command: AgentCommand,
    },
    /// Look at providers, what they earned and what is due, and settle
    Provider {
        #[command(flatten)]
        connection: Connection,
        #[command(subcommand)]
        command: ProviderCommand,
    },
    /// Check what a hub signed; needs no hub
    Receipt {
        #[command(subcommand)]
        command: ReceiptCommand,
    },
    /// Fetch and check a hub's log of acts that concern security or money
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProviderCommand {
    /// List providers with their credits
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show what a provider earned, job by job; the last 40 payments wait
    Statement {
        /// The provider
        name: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Fetch what the hub signs for a provider, one file for each job that ended
    Receipts {
        /// The provider
        name: String,
        /// Folder for the files
        #[arg(long, short, value_name = "DIR")]
        output: PathBuf,
    },
    /// Pay what is due, once, and write the table to pay by; the next settlement starts there
    Settle(Settle),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Settle {
    /// Only jobs that ended before this day, UTC
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = super::accounts::day)]
    pub(crate) until: Option<UnixMillis>,
    /// Pay nothing: write the table of a settlement that was made before, by its number
    #[arg(long, value_name = "NUMBER", conflicts_with = "until")]
    pub(crate) again: Option<u64>,
    /// Where the table goes, or `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReceiptCommand {
    /// Check a receipt: its form, its sums, its shards and the hub's signature
    Verify {
        /// The receipt, or the proof of one shard
        file: PathBuf,
        /// The hub's key as 64 hex digits, as the hub prints it at its start [default: the one in the receipt]
        #[arg(long, value_name = "HEX")]
        hub_key: Option<Digest>,
        /// A work log of an agent: also check that the hub accepted the digests in it; may be repeated
        #[arg(long, value_name = "FILE")]
        work_log: Vec<PathBuf>,
    },
    /// Make the proof that the hub accepted and paid for one shard, to be shown instead of the whole receipt
    Prove {
        /// A provider's receipt
        file: PathBuf,
        /// The shard
        #[arg(long, value_name = "INDEX")]
        shard: u64,
        /// The work log of the agent that computed it; may be repeated
        #[arg(long, value_name = "FILE", required = true)]
        work_log: Vec<PathBuf>,
        /// Where the proof goes [default: standard output]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Fetch the whole log
    Export {
        #[command(flatten)]
        connection: Connection,
        /// Where it goes [default: standard output]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Check a log: the chain of its entries and the hub's signatures; needs no hub
    Verify {
        /// The log
        file: PathBuf,
        /// The hub's key as 64 hex digits, as the hub prints it at its start [default: the one in the log]
        #[arg(long, value_name = "HEX")]
        hub_key: Option<Digest>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KernelsCommand {
    /// Measure each kernel on each instruction set of this machine, and its share of the peak
    Bench {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Compute small jobs on every path, in every cut and order, and compare their bytes
    Matrix {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Job file (.toml or .json)
    pub(crate) file: PathBuf,
    /// Agents to start
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=AGENTS_MAX))]
    pub(crate) agents: u16,
    /// Lanes of the hub
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=LANES_MAX))]
    pub(crate) lanes: u16,
    /// Shards that each agent computes at once [default: the processors shared among the agents]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(SLOTS_MAX)))]
    pub(crate) slots: Option<u16>,
    /// Paths to a shard; never changes the result [default: the planner's choice]
    #[arg(long, value_name = "PATHS", value_parser = clap::value_parser!(u64).range(1..=SHARD_PATHS_MAX))]
    pub(crate) shard_size: Option<u64>,
    /// Folder that keeps the hub's and the agents' data [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Write the exact bytes of the result document to a file as well; of a matrix job, the matrix (.npy); of a
    /// job with several files, those, into this folder [default: JOB.outputs]
    #[arg(long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Submit {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Job file (.toml or .json)
    pub(crate) file: PathBuf,
    /// Wait for the result and print it
    #[arg(long)]
    pub(crate) wait: bool,
    /// Paths to a shard; never changes the result [default: the planner's choice]
    #[arg(long, value_name = "PATHS", value_parser = clap::value_parser!(u64).range(1..=SHARD_PATHS_MAX))]
    pub(crate) shard_size: Option<u64>,
    /// Name of this wish: the same key never makes a second job [default: a random one]
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// List jobs, newest first
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show one job
    Show {
        /// The job
        id: JobId,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Say why a job waits, where its shards went, and what each agent lacks for it
    Explain {
        /// The job
        id: JobId,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Follow a job to its end and print its result
    Watch {
        /// The job
        id: JobId,
        /// Print one JSON document at the end
        #[arg(long)]
        json: bool,
    },
    /// Stop a job
    Cancel {
        /// The job
        id: JobId,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Print the result of a finished job, after comparing it with its digest
    Result {
        /// The job
        id: JobId,
        /// Print the result document itself
        #[arg(long)]
        json: bool,
        /// Write the exact bytes of the result document to a file, or `-` for standard output; of a matrix job,
        /// the matrix (.npy); of a job with several files, those, into this folder
        #[arg(long, short, value_name = "PATH")]
        output: Option<PathBuf>,
    },
    /// Show what a job cost and who was paid
    Bill {
        /// The job
        id: JobId,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Fetch what the hub signs for the client of a job that ended
    Receipt {
        /// The job
        id: JobId,
        /// Where it goes [default: standard output]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Compute a finished job again on this machine, from its manifest alone, and compare the bytes
    Replay(Replay),
    /// Continue a finished job to more paths; only the new ones are computed
    Extend {
        /// The finished job
        id: JobId,
        /// All paths afterwards, those of the finished job included
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=PATHS_MAX))]
        paths: u64,
        /// Wait for the result and print it
        #[arg(long)]
        wait: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Replay {
    /// The job
    pub(crate) id: JobId,
    /// What to compute on: plain, avx2, avx512, or ptx in an interpreter [default: the fastest]
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// Check the result instead, for a small part of what it cost: matrices from 2048 on by random vectors, climate,
    /// catastrophe and video jobs by what must hold of any result; it sees no errors that rounding could explain
    #[arg(long, conflicts_with_all = ["path", "threads"])]
    pub(crate) quick: bool,
    /// Threads [default: the processors of this machine]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// List enrolled agents
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Say what a connected agent is thought of, what it lacks for waiting jobs and what it was considered for
    Explain {
        /// The agent
        id: AgentId,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Make a token that enrols one agent
    Token {
        /// Who owns the agent and earns its credits; its answers are checked until they have earned trust. Without
        /// it the agent is the hub operator's own: believed when others disagree, so never for a stranger's machine
        #[arg(long, value_name = "NAME")]
        provider: Option<ProviderName>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_refuses_numbers_out_of_range() {
        <Args as clap::CommandFactory>::command().debug_assert();
        let parses = |line: &str| Args::try_parse_from(line.split(' ')).is_ok();
        assert!(parses("tessera run job.toml --agents 7 --lanes 2 --shard-size 1000 --json"));
        assert!(parses(
            "tessera job extend job_000102030405060708090a0b0c0d0e0f --paths 10 --hub http://h:1"
        ));
        assert!(parses("tessera job --hub http://h:1 list"));
        assert!(parses("tessera hubs --hub http://h:1,http://g:1 --json"));
        assert!(parses("tessera provider settle --until 2026-11-30 --csv f --hub http://h:1"));
        assert!(parses("tessera agent token --provider acme"));
        assert!(parses("tessera audit export -o f --hub http://h:1"));
        assert!(parses("tessera submit job.toml --hub http://h:1 --api-key k"));
        assert!(parses("tessera plan job.toml --hub http://h:1 --api-key-file f"));
        for wrong in [
            "tessera run job.toml --hub http://h:1",
            "tessera run job.toml --api-key k",
            "tessera --api-key-file f run job.toml",
            "tessera run",
            "tessera agent token --provider operator",
            "tessera provider settle --until 2026-02-30 --csv f",
            "tessera receipt verify f --hub http://h:1",
            "tessera audit verify f --hub-key 12",
            "tessera run job.toml --agents 0",
            "tessera run job.toml --shard-size 0",
            "tessera job show 12",
            "tessera job extend job_000102030405060708090a0b0c0d0e0f",
        ] {
            assert!(!parses(wrong), "{wrong}");
        }
    }
}
