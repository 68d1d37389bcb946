//! The server: all rooms joined, and run until they are told to stop.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bitcoin::Network;
use tokio::sync::{oneshot, watch};

use super::{
    RunError,
    control::{self, Control},
    listen::{listen, services},
    node::{ask, find_node, host_of, wanted},
    open::{Opened, open},
    status::{Page, ZmqSign, server_figures},
    welcome,
};
use crate::{
    admin::status::{Monitor, NODE_PATIENCE, Sources, systemd},
    config::{self, Config},
    daemon,
    daemon::{
        discover::likely_network,
        rpc::{Rpc, RpcConfig},
        zmq::ZmqFeed,
    },
    electrum,
    index::Index,
    server::{self, Listener},
    state::State,
    sync::{
        Stats, Stop, SyncError,
        start::FirstSync,
        tip::Writer,
        wake::{self, Wake, Waker, Wakes},
    },
};

/// How long the writer has to end when Ambra stops; what it was doing is done again next time.
const WRITER_STOP: Duration = Duration::from_millis(1500);

/// How often it is looked whether ZMQ still tells of the mempool.
const ZMQ_LOOK: Duration = Duration::from_secs(1);

/// So long a wallet that is back at once after a restart waits for an index that was in step before: what is missing
/// comes in a moment, and some clients end themselves when a subscription is refused. Short enough for those who
/// give a server 5 s to answer.
const CATCH_UP_WAIT: Duration = Duration::from_secs(3);

/// Serves until `shutdown` turns true or something that waiting cannot mend has failed.
pub(super) async fn run(
    config: &Config,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let monitor = Monitor::new();
    let telling = tokio::spawn(systemd::run(monitor.clone(), shutdown.clone()));
    let mut page = Page::default();
    let joined = tokio::select! {
        joined = join(config, &monitor, &mut page) => joined?,
        // An error: the sender is gone, which is as good a reason to stop.
        _ = shutdown.wait_for(|stop| *stop) => return Ok(()),
    };
    let asked_to_stop = shutdown.clone();
    let result = serve(joined, shutdown).await;
    if *asked_to_stop.borrow() {
        let _ = telling.await;
    } else {
        telling.abort();
    }
    result
}

/// All parts, joined but not yet at work.
struct Joined {
    listeners: Vec<Listener>,
    shared: server::Shared,
    first_sync: FirstSync,
    writer: Writer,
    waker: Waker,
    wakes: Wakes,
    zmq: Option<(ZmqFeed, tokio::sync::mpsc::Receiver<daemon::zmq::ZmqEvent>)>,
    zmq_sign: ZmqSign,
    monitor: Monitor,
    rpc: Rpc,
    index: Arc<Index>,
    state: State,
    stop: StopInTheEnd,
}

/// However it comes to the end: the threads that hold the index let go of it.
struct StopInTheEnd(Stop);

impl Drop for StopInTheEnd {
    fn drop(&mut self) {
        self.0.set();
    }
}

async fn join(config: &Config, monitor: &Monitor, page: &mut Page) -> Result<Joined, RunError> {
    // From the first moment, so that it tells what is waited for: at the port of the network that is likely meant.
    let likely = likely_network(&wanted(config));
    page.open(config, likely, monitor).await?;
    let node = find_node(config, monitor).await?;
    page.open(config, node.network, monitor).await?;
    let Opened {
        node,
        rpc,
        index,
        source,
        state,
    } = open(config, node, monitor).await?;
    let network = node.network;
    if index.tip().map_err(RunError::of)?.is_none() {
        state.set_progress(Some("indexing: about to begin".to_owned()));
    } else {
        state.set_progress(Some("indexing: catching up with the node".to_owned()));
    }
    let (listeners, fingerprint) = listen(config, network, index.path()).await?;
    welcome::tell(&listeners, config.log_format);
    let electrum_stats = Arc::<electrum::Stats>::default();
    let server_stats = Arc::<server::Stats>::default();
    let backend = electrum::Live {
        state: state.clone(),
        rpc: rpc.clone(),
        stats: electrum_stats.clone(),
    };
    let shared = server::Shared {
        backend: Arc::new(backend),
        settings: Arc::new(settings(config, network, services(&listeners))?),
        limits: client_limits(config),
        stats: server_stats.clone(),
    };
    let stop = StopInTheEnd(Stop::default());
    let stats = Arc::<Stats>::default();
    let (waker, wakes) = wake::wakes();
    let notifications = {
        let rpc = rpc.clone();
        ask(monitor, move || rpc.zmq_notifications()).await?
    };
    let zmq = ZmqFeed::start(&notifications, host_of(rpc.url()));
    let zmq_sign: ZmqSign = zmq.is_some().then(Arc::default);
    let sources = Sources {
        network: config::network_name(network),
        state: state.clone(),
        index: index.clone(),
        source: source.clone(),
        rpc: rpc.clone(),
        node: Rpc::new(RpcConfig {
            url: node.rpc_url,
            auth: node.auth,
            timeout: NODE_PATIENCE,
        }),
        sync: stats.clone(),
        electrum: electrum_stats,
        server: server_figures(server_stats),
        zmq: zmq_sign.clone(),
        listeners: listeners.iter().map(Listener::url).collect(),
        fingerprint,
    };
    let watching = monitor.joined(sources, stop.0.clone());
    watching.map_err(|error| RunError(format!("cannot start a thread: {error}")))?;
    Ok(Joined {
        listeners,
        shared,
        first_sync: FirstSync {
            index: index.clone(),
            source: source.clone(),
            rpc: rpc.clone(),
            state: state.clone(),
            network,
            memory: config.sync_memory_bytes,
            threads: config.threads,
            stop: stop.0.clone(),
            stats: stats.clone(),
        },
        writer: Writer::new(
            index.clone(),
            source,
            rpc.clone(),
            state.clone(),
            stop.0.clone(),
            stats,
        ),
        waker,
        wakes,
        zmq,
        zmq_sign,
        monitor: monitor.clone(),
        rpc,
        index,
        state,
        stop,
    })
}

/// Writer and server, until one of them ends or all are told to stop.
async fn serve(joined: Joined, mut shutdown: watch::Receiver<bool>) -> Result<(), RunError> {
    let Joined {
        listeners,
        shared,
        first_sync,
        mut writer,
        waker,
        wakes,
        zmq,
        zmq_sign,
        monitor,
        rpc,
        index,
        state,
        stop,
    } = joined;
    let was_indexed = index.tip().map_err(RunError::of)?.is_some();
    let in_step = was_indexed.then(|| state.in_step());
    let hears_mempool = wakes.hears_mempool.clone();
    let (ended, mut writer_end) = oneshot::channel();
    let spawned = std::thread::Builder::new()
        .name("writer".to_owned())
        .spawn(move || {
            let result = first_sync.run().and_then(|()| writer.run(&wakes));
            // Nobody listens any more where Ambra stops.
            let _ = ended.send(result);
        });
    spawned.map_err(|error| RunError(format!("cannot start a thread: {error}")))?;
    let hears_blocks = zmq.is_some();
    let forwarding = zmq.map(|(feed, mut events)| {
        let waker = waker.clone();
        tokio::spawn(async move {
            let mut look = tokio::time::interval(ZMQ_LOOK);
            let see = || {
                hears_mempool.store(feed.hears_mempool(), Ordering::Relaxed);
                if let Some(sign) = &zmq_sign {
                    sign.store(feed.is_connected(), Ordering::Relaxed);
                }
            };
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        Some(event) => {
                            see();
                            waker.wake(Wake::Zmq(event));
                        }
                        None => return,
                    },
                    _ = look.tick() => see(),
                }
            }
        })
    });
    if !hears_blocks {
        let (waker, stop) = (waker.clone(), stop.0.clone());
        let polling = move || wake::long_poll(&rpc, &waker, &stop);
        let spawned = std::thread::Builder::new()
            .name("long-poll".to_owned())
            .spawn(polling);
        spawned.map_err(|error| RunError(format!("cannot start a thread: {error}")))?;
    }
    let door = control::open(Control {
        index: index.clone(),
        state,
        listeners: listeners.iter().map(Listener::url).collect(),
    });
    let (stop_server, mut server_stop) = watch::channel(false);
    let serving = async move {
        // The listeners are bound: who connects meanwhile waits in their queues.
        if let Some(mut in_step) = in_step {
            tokio::select! {
                _ = tokio::time::timeout(CATCH_UP_WAIT, in_step.wait_for(|in_step| *in_step)) => {}
                _ = server_stop.wait_for(|stop| *stop) => {}
            }
        }
        server::run(listeners, shared, server_stop).await
    };
    tokio::pin!(serving);
    monitor.listening();
    let result = tokio::select! {
        served = &mut serving => return served.map_err(RunError::of),
        end = &mut writer_end => match end {
            Ok(Ok(()) | Err(SyncError::Stopped)) => Ok(()),
            Ok(Err(error)) => Err(RunError::of(error)),
            Err(_) => Err(RunError("the writer panicked".to_owned())),
        },
        _ = shutdown.wait_for(|stop| *stop) => Ok(()),
    };
    stop.0.set();
    waker.wake(Wake::Stop);
    // The server gets the sign too; it may be gone already.
    let _ = stop_server.send(true);
    let writer_ended = async {
        if !writer_end.is_terminated() {
            let _ = tokio::time::timeout(WRITER_STOP, &mut writer_end).await;
        }
    };
    let (served, ()) = tokio::join!(serving, writer_ended);
    if let Some(task) = forwarding {
        task.abort();
    }
    drop(door);
    // What ended it first says more than what then failed too.
    let flushed = index.flush().map_err(RunError::of);
    result.and(flushed).and(served.map_err(RunError::of))
}

fn settings(
    config: &Config,
    network: Network,
    services: Vec<electrum::Service>,
) -> Result<electrum::Settings, RunError> {
    let mut settings = electrum::Settings {
        network,
        services,
        ..electrum::Settings::default()
    };
    if let Some(name) = &config.server_name {
        settings.server_name = name.clone();
    }
    if let Some(banner) = &config.banner {
        settings.banner = banner.clone();
    }
    if let Some(version) = &config.protocol_max {
        settings.protocol_max = version.parse().map_err(|_| {
            RunError(format!(
                "--protocol-max {version}: no protocol version, like 1.6"
            ))
        })?;
    }
    let limits = &config.limits;
    let set = |to: &mut usize, wanted: Option<usize>| *to = wanted.unwrap_or(*to);
    set(&mut settings.batch_requests_max, limits.max_batch_requests);
    set(&mut settings.batch_reply_bytes_max, limits.max_batch_bytes);
    set(&mut settings.subscriptions_max, limits.max_subscriptions);
    set(
        &mut settings.all_subscriptions_max,
        limits.max_all_subscriptions,
    );
    if let Some(max) = limits.max_history {
        settings.remote_history_max = (max > 0).then_some(max);
    }
    Ok(settings)
}

fn client_limits(config: &Config) -> server::Limits {
    let mut limits = server::Limits {
        allowed_origins: config.allow_origin.clone(),
        ..server::Limits::default()
    };
    let wanted = &config.limits;
    let set = |to: &mut usize, wanted: Option<usize>| *to = wanted.unwrap_or(*to);
    set(&mut limits.connections_max, wanted.max_connections);
    set(
        &mut limits.listener_connections_max,
        wanted.max_listener_connections,
    );
    set(
        &mut limits.address_connections_max,
        wanted.max_address_connections,
    );
    let memory = wanted.max_client_memory.map(|mib| mib << 20);
    set(&mut limits.client_memory_max, memory);
    set(&mut limits.line_bytes_max, wanted.max_line_bytes);
    set(&mut limits.output_bytes_max, wanted.max_output_bytes);
    set(&mut limits.jobs_in_flight_max, wanted.max_jobs);
    let set = |to: &mut Duration, wanted: Option<usize>| {
        *to = wanted.map_or(*to, |seconds| Duration::from_secs(seconds as u64));
    };
    set(&mut limits.write_timeout, wanted.write_timeout);
    set(&mut limits.idle_timeout, wanted.idle_timeout);
    set(&mut limits.handshake_timeout, wanted.handshake_timeout);
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(options: &[&str]) -> Config {
        let argv = ["ambra", "--db-dir", "x"]
            .into_iter()
            .chain(options.iter().copied());
        let invocation = config::Invocation::from_sources(argv, std::iter::empty(), None);
        invocation.unwrap().config
    }

    /// Each option of a limit, with what it sets.
    fn limits_of(config: &Config) -> Vec<(&'static str, u64)> {
        let limits = client_limits(config);
        let settings = settings(config, Network::Regtest, Vec::new()).unwrap();
        let number = |number: usize| number as u64;
        vec![
            ("max-connections", number(limits.connections_max)),
            (
                "max-listener-connections",
                number(limits.listener_connections_max),
            ),
            (
                "max-address-connections",
                number(limits.address_connections_max),
            ),
            ("max-client-memory", number(limits.client_memory_max >> 20)),
            ("max-line-bytes", number(limits.line_bytes_max)),
            ("max-output-bytes", number(limits.output_bytes_max)),
            ("max-jobs", number(limits.jobs_in_flight_max)),
            ("max-batch-requests", number(settings.batch_requests_max)),
            ("max-batch-bytes", number(settings.batch_reply_bytes_max)),
            ("max-subscriptions", number(settings.subscriptions_max)),
            (
                "max-all-subscriptions",
                number(settings.all_subscriptions_max),
            ),
            (
                "max-history",
                number(settings.remote_history_max.unwrap_or(0)),
            ),
            ("write-timeout", limits.write_timeout.as_secs()),
            ("idle-timeout", limits.idle_timeout.as_secs()),
            ("handshake-timeout", limits.handshake_timeout.as_secs()),
        ]
    }

    #[test]
    fn each_limit_is_what_its_option_says_and_its_default_is_what_the_page_says() {
        let page = include_str!("../../docs/operating.md");
        let defaults = limits_of(&config(&[]));
        for (place, (name, default)) in defaults.iter().enumerate() {
            let row = format!("| `--{name}` | {default} |");
            assert!(page.contains(&row), "docs/operating.md lacks {row}");
            let option = format!("--{name}=1234");
            let set = limits_of(&config(&[&option]));
            assert_eq!(set[place].1, 1234, "{option}");
            let differ = |(one, other): &(&(&str, u64), &(&str, u64))| one != other;
            let others = defaults.iter().zip(&set).filter(differ);
            assert_eq!(others.count(), 1, "{option}");
        }
        let rows = page.lines().filter(|line| line.starts_with("| `--"));
        assert_eq!(rows.count(), defaults.len());
        assert_eq!(client_limits(&config(&[])), server::Limits::default());
    }

    #[test]
    fn no_limit_on_histories_is_a_zero_and_origins_are_passed_on() {
        let config = config(&["--max-history", "0", "--allow-origin", "https://a,http://b"]);
        let settings = settings(&config, Network::Regtest, Vec::new()).unwrap();
        assert_eq!(settings.remote_history_max, None);
        let origins = ["https://a", "http://b"].map(str::to_owned);
        assert_eq!(client_limits(&config).allowed_origins, origins);
    }

    #[test]
    fn each_protocol_version_that_may_be_set_is_one_that_is_spoken() {
        let settable = config::PROTOCOL_VERSIONS.map(|text| text.parse().ok());
        assert_eq!(settable, electrum::Version::DEFINED.map(Some));
    }
}
