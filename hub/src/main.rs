//! The `hub` binary: parses the command line and says what went wrong.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tessera_hub::config::{self, HubConfig, ServeArgs};
use tessera_hub::ops::source::Location;
use tessera_hub::ops::{backup, check, migrate};
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
    NewKey(Which),
    /// Check every digest, reference and balance in the store of a hub that is not running, and change nothing
    ///
    /// Exit code 0: nothing is wrong; 1: something is, and is listed; 2: it could not be checked
    Check {
        #[command(flatten)]
        place: Which,
        /// Print the report as one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Save one moment of the store in a file, while the hub runs or not
    ///
    /// The file holds the hub's key: only its owner may read it. It has its name once it is whole, and takes the place
    /// of an earlier backup of that name.
    Backup {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        place: Which,
    },
    /// Make a store of a backup, in a directory that is empty or not there
    Restore {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        place: Which,
    },
    /// Copy the store of a hub that is not running into another engine, and leave it as it is
    Migrate {
        /// An empty directory, or fdb:CLUSTER_FILE or fdb:CLUSTER_FILE?prefix=NAME
        #[arg(long, value_name = "TARGET")]
        to: Location,
        #[command(flatten)]
        place: Which,
    },
}

/// Which store a command is about.
#[derive(Args)]
struct Which {
    /// Directory of the store [default: $XDG_DATA_HOME/tessera-hub]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A FoundationDB cluster that it lies in instead, as for `hub serve`
    #[arg(long, value_name = "URL")]
    store: Option<Place>,
    /// Configuration file that names it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Which {
    fn resolve(self) -> Result<HubConfig, config::ConfigError> {
        let Which { data, store, config } = self;
        config::resolve(ServeArgs { data, store, config, ..ServeArgs::default() })
    }

    fn location(self) -> Result<Location, config::ConfigError> {
        Ok(Location::of(&self.resolve()?))
    }
}

/// Something could not be done, as another code than "something is wrong".
const CANNOT: u8 = 2;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => run(args),
        Command::NewKey(place) => new_key(place),
        Command::Check { place, json } => return check(place, json),
        Command::Backup { file, place } => save(&file, place),
        Command::Restore { file, place } => restore(&file, place),
        Command::Migrate { to, place } => move_store(&to, place),
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

fn new_key(place: Which) -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", serve::new_key(&place.resolve()?)?);
    Ok(())
}

fn check(place: Which, json: bool) -> ExitCode {
    let checked = || -> Result<check::Report, Box<dyn std::error::Error>> {
        let config = place.resolve()?;
        Ok(check::check_store(&Location::of(&config), &config.blobs)?)
    };
    match checked() {
        Ok(report) => {
            match json {
                true => println!("{}", serde_json::to_string(&report).expect("a report is JSON")),
                false => println!("{report}"),
            }
            if report.clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("hub: {error}");
            ExitCode::from(CANNOT)
        }
    }
}

fn save(file: &Path, place: Which) -> Result<(), Box<dyn std::error::Error>> {
    let backup::Summary { entries, bytes, digest } = backup::backup(&place.location()?, file)?;
    println!("{}: {entries} entries, {bytes} bytes, BLAKE3 {digest}", file.display());
    Ok(())
}

fn restore(file: &Path, place: Which) -> Result<(), Box<dyn std::error::Error>> {
    let to = place.location()?;
    let entries = backup::restore(file, &to)?.entries;
    println!(
        "{to}: {entries} entries; put a copy of the blobs beside them, then `hub check` before a hub starts"
    );
    Ok(())
}

fn move_store(to: &Location, place: Which) -> Result<(), Box<dyn std::error::Error>> {
    let migrate::Moved { entries, digest } = migrate::migrate(&place.location()?, to)?;
    println!(
        "{to}: {entries} entries, the same on both sides: BLAKE3 {digest}; the blobs stay where they are"
    );
    Ok(())
}
