//! Ambra: a personal Electrum server.
pub mod admin;
pub mod chain;
pub mod config;
pub mod daemon;
pub mod electrum;
pub mod index;
pub mod mempool;
pub mod server;
pub mod state;
pub mod sync;

use config::Config;
use tokio::sync::watch;

/// Why Ambra could not go on. The text is for the log, and says what mends it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunError(pub String);

/// Everything, until `shutdown` turns true or something that waiting cannot mend has failed.
pub async fn run(config: Config, mut shutdown: watch::Receiver<bool>) -> Result<(), RunError> {
    tracing::debug!("settings in force: {config:?}");
    // An error: the sender is gone, which is as good a reason to stop.
    let _ = shutdown.wait_for(|stop| *stop).await;
    Ok(())
}
