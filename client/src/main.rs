//! `tessera`: the client's program. Reads arguments, runs one command, turns its outcome into an exit code.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    let args = cli::Args::read();
    match cli::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tessera: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
