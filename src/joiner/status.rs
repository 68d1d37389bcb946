//! The status page: where it listens, and what it is told.

use std::sync::{Arc, atomic::AtomicBool};

use bitcoin::Network;
use tokio::task::JoinHandle;

use super::RunError;
use crate::{
    admin::status::{self, AdminListener, Connections, Monitor, ServerFigures},
    config::{AdminListen, Config},
    electrum::{Lane, Way},
    server,
};

/// The page while it is served; dropping it ends that.
pub(super) struct Page(Option<JoinHandle<()>>);

impl Drop for Page {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Page {
    /// Not yet: the network is not known, and with it the port.
    pub fn not_yet() -> Page {
        Page(None)
    }

    /// Serves, if it does not yet and is known where. What was asked for must be had; the usual port may be taken.
    pub async fn open(
        &mut self,
        config: &Config,
        network: Option<Network>,
        monitor: &Monitor,
    ) -> Result<(), RunError> {
        if self.0.is_some() {
            return Ok(());
        }
        let (at, is_asked_for) = match (&config.admin_listen, network) {
            (AdminListen::Off, _) | (AdminListen::Usual, None) => return Ok(()),
            (AdminListen::At(at), _) => (at.clone(), true),
            (AdminListen::Usual, Some(network)) => (config.admin_usual(network), false),
        };
        let listener = match AdminListener::bind(&at, &config.admin_host).await {
            Ok(listener) => listener,
            Err(error) if is_asked_for => return Err(RunError::of(error)),
            Err(error) => {
                tracing::warn!("{error}");
                return Ok(());
            }
        };
        tracing::info!("status page at {}", listener.url());
        let monitor = monitor.clone();
        self.0 = Some(tokio::spawn(async move {
            if let Err(error) = status::serve(listener, monitor).await {
                tracing::error!("the status page has ended: {error}");
            }
        }));
        Ok(())
    }
}

/// The server's counters, as the page is told them.
pub(super) fn server_figures(stats: Arc<server::Stats>) -> ServerFigures {
    Box::new(move || status::Server {
        connections: stats
            .connections()
            .map(|of| Connections {
                kind: of.kind,
                open: of.open,
                taken: of.taken,
            })
            .to_vec(),
        refused: stats.refused(),
        waiting: [Lane::Short, Lane::Long, Lane::Node]
            .map(|lane| (Way::from(lane).name(), stats.waiting(lane)))
            .to_vec(),
        short: (stats.waiting(Lane::Short), stats.begun(Lane::Short)),
    })
}

/// Says whether ZMQ is connected, between those who know and those who show it.
pub(super) type ZmqSign = Option<Arc<AtomicBool>>;
