//! The only place that joins the rooms, by what the command line asks for.

mod listen;
mod node;
mod serve;
mod status;
mod verify;

use tokio::sync::watch;

use crate::config::{self, Command, Config, Invocation};

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
    shutdown: watch::Receiver<bool>,
) -> Result<Outcome, RunError> {
    let Invocation { command, config } = invocation;
    match command {
        Command::Serve => serve::run(&config, shutdown).await.map(|()| Outcome::Well),
        Command::Verify(verify) => verify::run(&config, &verify, shutdown).await,
        Command::Completions { shell } => print(&config::completions(shell)),
        Command::Man => print(&config::man_page()),
        command => Err(not_yet(&command, &config)),
    }
}

fn not_yet(command: &Command, _config: &Config) -> RunError {
    RunError(format!("not yet: {command:?}"))
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
