//! The only place that joins the rooms, by what the command line asks for.

mod control;
mod doctor;
mod listen;
mod node;
mod open;
mod serve;
mod status;
mod sync;
mod verbs;
mod verify;
mod welcome;

use tokio::sync::watch;

use crate::config::{self, Command, Config, Invocation, Report, Snapshot};

/// Why Ambra could not go on. The text is for the log, and says what mends it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunError(pub String);

impl RunError {
    fn of(error: impl std::fmt::Display) -> RunError {
        RunError(error.to_string())
    }
}

/// How a command ended that could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Well,
    /// It looked for faults, and told of some.
    Faults,
}

/// Does what the command line asked for, until it is done, `shutdown` turns true, or something that waiting cannot
/// mend has failed.
pub async fn run(
    invocation: Invocation,
    mut shutdown: watch::Receiver<bool>,
) -> Result<Outcome, RunError> {
    let Invocation {
        command,
        config,
        report,
    } = invocation;
    match command {
        Command::Serve => return serve::run(&config, shutdown).await.map(|()| Outcome::Well),
        Command::Sync => return sync::run(&config, shutdown).await.map(|()| Outcome::Well),
        Command::Verify(verify) => return verify::run(&config, &verify, shutdown).await,
        _ => {}
    }
    // What these leave unfinished does no harm.
    tokio::select! {
        result = ask(&command, &config, &report) => result,
        _ = shutdown.wait_for(|stop| *stop) => Err(RunError("stopped before it was done".to_owned())),
    }
}

/// What tells or does one thing, and ends.
async fn ask(command: &Command, config: &Config, report: &Report) -> Result<Outcome, RunError> {
    match command {
        Command::Config { json: false } => print(&report.toml()),
        Command::Config { json: true } => print(&format!("{:#}\n", report.json())),
        Command::Address { address, json } => verbs::address(config, address, *json).await,
        Command::Doctor { json } => doctor::run(config, *json).await,
        Command::Compact => verbs::compact(config).await,
        Command::Snapshot(Snapshot::Export { folder }) => verbs::export(config, folder).await,
        Command::Snapshot(Snapshot::Import { folder }) => verbs::import(config, folder).await,
        Command::Completions { shell } => print(&config::completions(*shell)),
        Command::Man => print(&config::man_page()),
        // Those that run longer: see [`run`].
        Command::Serve | Command::Sync | Command::Verify(_) => Ok(Outcome::Well),
    }
}

/// To stdout, for what a command was asked to tell. A reader that has gone (`ambra man | head`) is no error.
fn print(text: &str) -> Result<Outcome, RunError> {
    use std::io::{ErrorKind, Write};
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(Outcome::Well),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Outcome::Well),
        Err(error) => Err(RunError(format!("cannot write to stdout: {error}"))),
    }
}
