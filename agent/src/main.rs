//! The `agent` program: reads its arguments, says where it works, and runs until it is told to stop.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use tessera_agent::{Agent, AgentError, Config, GpuChoice, HubAddress, host_name, slots_available};
use tessera_kernels::isa::Isa;
use tessera_protocol::limits;
use tessera_protocol::spec::Region;
use tessera_protocol::token::EnrolmentToken;
use tracing_subscriber::EnvFilter;

const EXIT_CODES: &str = "\
Exit codes: 0 left in good order, 1 cannot work here, 2 wrong usage, 3 the hub refused this agent,
4 the hub has another key than the token or the first contact said, 130 stopped at once";

/// Computes shards for a Tessera hub.
#[derive(Parser)]
#[command(name = "agent", version, after_help = EXIT_CODES)]
struct Arguments {
    /// The hub to work for; of hubs that serve side by side any, or several with commas between: the next is tried where
    /// one does not answer, and so is each that a hub told of
    #[arg(long, env = "TESSERA_AGENT_HUB", value_name = "HOST:PORT", value_delimiter = ',', required = true)]
    hub: Vec<HubAddress>,
    /// Enrolment token; needed once, until the hub knows this agent
    #[arg(long, env = "TESSERA_AGENT_TOKEN", hide_env_values = true, conflicts_with = "token_file")]
    token: Option<EnrolmentToken>,
    /// File that holds the enrolment token, so that it does not show in the list of processes
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where the identity is kept; one agent a directory [default: ~/.local/share/tessera-agent]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Most bytes of input files to keep in the data directory for later jobs; those used longest ago go first
    /// [default: as much as half of the memory]
    #[arg(long, env = "TESSERA_AGENT_CACHE_BYTES", value_name = "BYTES")]
    cache_bytes: Option<u64>,
    /// Bytes of this machine's memory that the agent may count on: half of them are for matrices and tables [default: all,
    /// or what its control group allows]
    #[arg(long, env = "TESSERA_AGENT_MEMORY_BYTES", value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    memory_bytes: Option<u64>,
    /// How many shards to compute at once on processors [default: as many as there are]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(limits::SLOTS_MAX)))]
    slots: Option<u16>,
    /// GPUs to use besides: all, none, or their numbers as in 0,1; the results do not depend on it
    #[arg(long, default_value = "all", value_name = "WHICH")]
    gpus: GpuChoice,
    /// A name for people [default: this machine's]
    #[arg(long)]
    name: Option<String>,
    /// Where this machine is, as in eu-north: jobs may ask for agents of some regions
    #[arg(long, env = "TESSERA_AGENT_REGION", value_name = "NAME")]
    region: Option<Region>,
    /// Instruction set of the kernels: auto, plain, avx2 or avx512; the results do not depend on it
    #[arg(long, default_value = "auto", value_parser = isa)]
    isa: Isa,
    /// Add a line to this file for each shard that is computed: with it, `tessera receipt prove` shows later that the
    /// hub accepted the very bytes
    #[arg(long, env = "TESSERA_AGENT_WORK_LOG", value_name = "FILE")]
    work_log: Option<PathBuf>,
    /// What to log to standard error, as in `debug` or `tessera_agent=debug,quinn=info`
    #[arg(
        long,
        env = "TESSERA_AGENT_LOG",
        default_value = "info,quinn=warn,quinn_proto=warn",
        value_name = "FILTER"
    )]
    log: EnvFilter,
}

fn isa(name: &str) -> Result<Isa, String> {
    let available = Isa::available();
    match name {
        "auto" => Ok(Isa::detect()),
        name => available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
            let names: Vec<&str> = available.iter().map(|isa| isa.name()).collect();
            format!("this machine has auto, {}", names.join(", "))
        }),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match config(arguments) {
        Ok(config) => config,
        Err(error) => error.exit(),
    };
    match work(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// The configuration that the arguments mean; starts logging.
fn config(arguments: Arguments) -> Result<Config, clap::Error> {
    tracing_subscriber::fmt()
        .with_env_filter(arguments.log)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let wrong = |text: String| clap::Error::raw(ErrorKind::ValueValidation, text + "\n");
    let token = match (arguments.token, arguments.token_file) {
        (Some(token), _) => Some(token),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| wrong(format!("cannot read the token file {}: {error}", path.display())))?;
            let token = text.trim().parse().map_err(|error| wrong(format!("{}: {error}", path.display())))?;
            Some(token)
        }
        (None, None) => None,
    };
    let data = arguments.data.or_else(data_directory).ok_or_else(|| {
        wrong("no place for the agent's identity: HOME is not set, so give --data DIR".to_owned())
    })?;
    Ok(Config {
        hubs: arguments.hub,
        token,
        data,
        cache_bytes_max: arguments.cache_bytes,
        memory_bytes: arguments.memory_bytes,
        slots: arguments.slots.unwrap_or_else(slots_available),
        gpus: arguments.gpus,
        name: arguments.name.unwrap_or_else(host_name),
        region: arguments.region,
        isa: arguments.isa,
        work_log: arguments.work_log,
    })
}

/// Where the XDG base directory specification puts data of programs.
fn data_directory() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")))?;
    Some(base.join("tessera-agent"))
}

fn work(config: Config) -> Result<(), AgentError> {
    let agent = Agent::open(config)?;
    let config = agent.config();
    let hubs: Vec<String> = config.hubs.iter().map(ToString::to_string).collect();
    // A closed standard output is no reason not to work.
    let _ = writeln!(
        std::io::stdout(),
        "{} connects to {} (hub key {}): slots {}, isa {}, data in {}",
        agent.id(),
        hubs.join(" or "),
        agent.hub_key(),
        config.slots,
        config.isa,
        config.data.display()
    );
    agent.run(stop_signal())
}

/// Ready at the first signal to stop; the second one ends the program at once.
async fn stop_signal() {
    next_signal().await;
    tokio::spawn(async {
        next_signal().await;
        eprintln!("stopped at once");
        // What a shell reports of a program that an interrupt ended.
        std::process::exit(130);
    });
}

#[cfg(unix)]
async fn next_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("the operating system tells this program no signals: end it by force");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(not(unix))]
async fn next_signal() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}
