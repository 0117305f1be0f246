//! The `hub` binary: parses the command line and says what went wrong.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tessera_hub::config::{self, ServeArgs};
use tessera_hub::serve;
use tessera_storage::foundationdb::Place;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The Tessera hub: plans, dispatches, verifies and reduces jobs that agents compute
#[derive(Parser)]
#[command(name = "hub", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a hub until SIGTERM or SIGINT
    Serve(ServeArgs),
    /// Make a further API key for a hub that is not running, and print it once
    NewKey {
        /// Directory of the store [default: $XDG_DATA_HOME/tessera-hub]
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// A FoundationDB cluster that the store lies in instead, as for `hub serve`
        #[arg(long, value_name = "URL")]
        store: Option<Place>,
        /// Configuration file that names it
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => run(args),
        Command::NewKey { data, store, config } => new_key(data, store, config),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hub: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: ServeArgs) -> Result<(), Box<dyn std::error::Error>> {
    let config = config::resolve(args)?;
    let filter = EnvFilter::try_new(&config.log)?;
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(terminal).with_writer(std::io::stderr).init();
    Ok(serve::serve(&config)?)
}

fn new_key(
    data: Option<PathBuf>,
    store: Option<Place>,
    config: Option<PathBuf>,
) -> Result<(), Box<dyn std::error::Error>> {
    let config = config::resolve(ServeArgs { data, store, config, ..ServeArgs::default() })?;
    println!("{}", serve::new_key(&config)?);
    Ok(())
}
