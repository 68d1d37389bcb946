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
#[derive(Default)]
pub(super) struct Page {
    task: Option<JoinHandle<()>>,
    tried: Option<Place>,
}

/// Where it was tried to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    AskedFor,
    UsualOf(Network),
}

impl Drop for Page {
    fn drop(&mut self) {
        self.close();
    }
}

impl Page {
    /// Serves, if it does not yet. What was asked for must be had; the usual port may be taken. It moves where it is at
    /// the usual port of another network, which was guessed.
    pub async fn open(
        &mut self,
        config: &Config,
        network: Network,
        monitor: &Monitor,
    ) -> Result<(), RunError> {
        let (at, place) = match &config.admin_listen {
            AdminListen::Off => return Ok(()),
            AdminListen::At(at) => (at.clone(), Place::AskedFor),
            AdminListen::Usual => (config.admin_usual(network), Place::UsualOf(network)),
        };
        if self.tried.replace(place) == Some(place) {
            return Ok(());
        }
        self.close();
        let is_asked_for = place == Place::AskedFor;
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
        self.task = Some(tokio::spawn(async move {
            if let Err(error) = status::serve(listener, monitor).await {
                tracing::error!("the status page has ended: {error}");
            }
        }));
        Ok(())
    }

    fn close(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
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

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::Invocation;

    fn config(options: &[&str]) -> Config {
        let argv = ["ambra"].iter().chain(options).map(OsString::from);
        let invocation = Invocation::from_sources(argv, [], None);
        invocation.expect("taken").config
    }

    #[tokio::test]
    async fn a_place_that_was_asked_for_must_be_free_and_the_usual_one_need_not() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = taken.local_addr().unwrap().to_string();
        let monitor = Monitor::new();
        let mut page = Page::default();
        let asked_for = config(&["--admin-listen", &at]);
        let refused = page.open(&asked_for, Network::Regtest, &monitor).await;
        assert!(refused.unwrap_err().0.contains("--admin-listen"));

        // Taken by this one, or by another of this machine already.
        let usual = config(&[]);
        let _taken = std::net::TcpListener::bind(usual.admin_usual(Network::Testnet4));
        page.open(&usual, Network::Testnet4, &monitor)
            .await
            .unwrap();
        assert!(page.task.is_none());
    }

    #[tokio::test]
    async fn the_page_moves_from_the_port_of_a_network_that_was_guessed() {
        let monitor = Monitor::new();
        let mut page = Page::default();
        let usual = config(&[]);
        let id = |page: &Page| page.task.as_ref().map(JoinHandle::id);
        page.open(&usual, Network::Testnet, &monitor).await.unwrap();
        let guessed = id(&page);
        page.open(&usual, Network::Signet, &monitor).await.unwrap();
        assert_eq!(page.tried, Some(Place::UsualOf(Network::Signet)));
        // Where another has the port, there is none: not the one of the wrong network.
        assert!(id(&page).is_none() || id(&page) != guessed);

        let asked_for = config(&["--admin-listen", "127.0.0.1:0"]);
        page = Page::default();
        page.open(&asked_for, Network::Testnet, &monitor)
            .await
            .unwrap();
        let first = id(&page);
        page.open(&asked_for, Network::Signet, &monitor)
            .await
            .unwrap();
        assert_eq!(id(&page), first);
        assert!(first.is_some());
    }
}
