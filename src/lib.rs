//! Ambra: a personal Electrum server.
//!
//! The rooms, from the ground up; each may import those below it, and none beside it:
//!
//! ```text
//! server admin     sockets, limits; status page
//! electrum sync    the protocol without sockets; the one writer
//! state            Views: what may be answered at one moment
//! index mempool daemon   rows on disk; unconfirmed transactions; the node
//! chain            numbers, hashes, parsers: pure
//! ```
//!
//! This file is the only joiner: [`run`] finds the node, opens the index, and starts writer and server.

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

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bitcoin::Network;
use config::{BlockSourceChoice, Config};
use daemon::{
    discover::{self, NodeLocation},
    files::BlockFiles,
    rest::Rest,
    rpc::{Rpc, RpcConfig, RpcError},
    source::{BlockSource, SourceKind},
    zmq::ZmqFeed,
};
use index::Index;
use server::{ListenUrl, Listener};
use state::{State, StateLimits};
use sync::{
    Stop, SyncError,
    start::FirstSync,
    tip::{self, Wake, Waker, Wakes, Writer},
};
use tokio::sync::{oneshot, watch};

/// Between two looks for a node that is away.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How long the writer has to end when Ambra stops; what it was doing is done again next time.
const WRITER_STOP: Duration = Duration::from_millis(1500);

/// How often it is looked whether ZMQ still tells of the mempool.
const ZMQ_LOOK: Duration = Duration::from_secs(1);

/// Why Ambra could not go on. The text is for the log, and says what mends it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunError(pub String);

impl RunError {
    fn of(error: impl std::fmt::Display) -> RunError {
        RunError(error.to_string())
    }
}

/// Everything, until `shutdown` turns true or something that waiting cannot mend has failed.
pub async fn run(config: Config, mut shutdown: watch::Receiver<bool>) -> Result<(), RunError> {
    let joined = tokio::select! {
        joined = join(&config) => joined?,
        // An error: the sender is gone, which is as good a reason to stop.
        _ = shutdown.wait_for(|stop| *stop) => return Ok(()),
    };
    serve(joined, shutdown).await
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
    rpc: Rpc,
    index: Arc<Index>,
    stop: Stop,
}

async fn join(config: &Config) -> Result<Joined, RunError> {
    let node = find_node(config).await?;
    let rpc = Rpc::new(RpcConfig {
        url: node.rpc_url.clone(),
        auth: node.auth.clone(),
        timeout: RpcConfig::TIMEOUT,
    });
    let genesis = {
        let rpc = rpc.clone();
        ask(move || rpc.block_hash(0).and_then(|hash| rpc.block_header(&hash))).await?
    };
    let network = node.network;
    let db_dir = config.db_dir(network);
    let (source_choice, blocks_dir, url) = (
        config.block_source,
        node.blocks_dir.clone(),
        node.rpc_url.clone(),
    );
    let limits = StateLimits {
        cache_bytes: config.cache_memory_bytes,
        ..StateLimits::default()
    };
    let opened_rpc = rpc.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let index = Index::open(&db_dir, &chain::block_hash(&genesis)).map_err(RunError::of)?;
        let source = block_source(source_choice, blocks_dir.as_deref(), &url, opened_rpc)?;
        let (index, source) = (Arc::new(index), Arc::new(source));
        let state =
            State::new(index.clone(), source.clone(), genesis, limits).map_err(RunError::of)?;
        Ok((index, source, state))
    });
    let (index, source, state) = opening.await.map_err(RunError::of)??;
    if index.tip().map_err(RunError::of)?.is_none() {
        state.set_progress(Some("indexing: about to begin".to_owned()));
    } else {
        state.set_progress(Some("indexing: catching up with the node".to_owned()));
    }
    let listeners = listen(config, network, index.path()).await?;
    let backend = electrum::Live {
        state: state.clone(),
        rpc: rpc.clone(),
        stats: Arc::default(),
    };
    let shared = server::Shared {
        backend: Arc::new(backend),
        settings: Arc::new(settings(config, network, services(&listeners))?),
        limits: server::Limits::default(),
        stats: Arc::default(),
    };
    let stop = Stop::default();
    let stats = Arc::<sync::Stats>::default();
    let (waker, wakes) = tip::wakes();
    let notifications = {
        let rpc = rpc.clone();
        ask(move || rpc.zmq_notifications()).await?
    };
    let zmq = ZmqFeed::start(&notifications, host_of(rpc.url()));
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
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            stop: stop.clone(),
            stats: stats.clone(),
        },
        writer: Writer::new(
            index.clone(),
            source,
            rpc.clone(),
            state,
            stop.clone(),
            stats,
        ),
        waker,
        wakes,
        zmq,
        rpc,
        index,
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
        rpc,
        index,
        stop,
    } = joined;
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
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        Some(event) => {
                            hears_mempool.store(feed.hears_mempool(), Ordering::Relaxed);
                            waker.wake(Wake::Zmq(event));
                        }
                        None => return,
                    },
                    _ = look.tick() => hears_mempool.store(feed.hears_mempool(), Ordering::Relaxed),
                }
            }
        })
    });
    if !hears_blocks {
        let (waker, stop) = (waker.clone(), stop.clone());
        let polling = move || tip::long_poll(&rpc, &waker, &stop);
        let spawned = std::thread::Builder::new()
            .name("long-poll".to_owned())
            .spawn(polling);
        spawned.map_err(|error| RunError(format!("cannot start a thread: {error}")))?;
    }
    let (stop_server, server_stop) = watch::channel(false);
    let serving = server::run(listeners, shared, server_stop);
    tokio::pin!(serving);
    let result = tokio::select! {
        served = &mut serving => return served.map_err(RunError::of),
        end = &mut writer_end => match end {
            Ok(Ok(()) | Err(SyncError::Stopped)) => Ok(()),
            Ok(Err(error)) => Err(RunError::of(error)),
            Err(_) => Err(RunError("the writer panicked".to_owned())),
        },
        _ = shutdown.wait_for(|stop| *stop) => Ok(()),
    };
    stop.set();
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
    index.flush().map_err(RunError::of)?;
    served.map_err(RunError::of)?;
    result
}

/// Looks for the node until it answers.
async fn find_node(config: &Config) -> Result<NodeLocation, RunError> {
    let wanted = discover::Wanted {
        network: config.network,
        daemon_dir: config.daemon_dir.clone(),
        rpc_url: config.daemon_rpc_url.clone(),
        cookie_file: config.cookie_file.clone(),
        user_password: config
            .rpc_login
            .clone()
            .map(|login| (login.user, login.password)),
        blocks_dir: config.blocks_dir.clone(),
    };
    let mut told = String::new();
    loop {
        let wanted = wanted.clone();
        let found = tokio::task::spawn_blocking(move || discover::discover(&wanted)).await;
        match found.map_err(RunError::of)? {
            Ok(node) => {
                tracing::info!(
                    "the node at {} is on {}",
                    node.rpc_url,
                    config::network_name(node.network)
                );
                return Ok(node);
            }
            Err(error) if error.is_passing() => {
                let text = error.to_string();
                if text != told {
                    tracing::warn!("{text}; waiting for it");
                    told = text;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(error) => return Err(RunError::of(error)),
        }
    }
}

/// Asks the node until it answers; a refusal is an error.
async fn ask<T: Send + 'static>(
    question: impl Fn() -> Result<T, RpcError> + Clone + Send + 'static,
) -> Result<T, RunError> {
    let mut told = String::new();
    loop {
        let question = question.clone();
        match tokio::task::spawn_blocking(question)
            .await
            .map_err(RunError::of)?
        {
            Ok(answer) => return Ok(answer),
            Err(RpcError::Unavailable(text)) => {
                if text != told {
                    tracing::warn!("{text}; waiting for the node");
                    told = text;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(error) => return Err(RunError::of(error)),
        }
    }
}

/// The best source that works, or the one that was asked for.
fn block_source(
    choice: BlockSourceChoice,
    blocks_dir: Option<&Path>,
    rpc_url: &str,
    rpc: Rpc,
) -> Result<BlockSource, RunError> {
    let files = || {
        let folder = blocks_dir.ok_or_else(|| {
            RunError(
                "the node's block files are not on this machine (or say where with --blocks-dir)"
                    .into(),
            )
        })?;
        let files = BlockFiles::open(folder).map_err(RunError::of)?;
        belong_to(&files, &rpc)?;
        Ok(files)
    };
    let rest = || {
        let rest = Rest::new(rpc_url);
        match rest.available() {
            Ok(true) => Ok(rest),
            Ok(false) => Err(RunError(
                "the node has no REST service that tells what blocks spend: put rest=1 into bitcoin.conf \
                 (Bitcoin Core 30 or newer)"
                    .into(),
            )),
            Err(error) => Err(RunError::of(error)),
        }
    };
    let source = match choice {
        BlockSourceChoice::Files => BlockSource::new(Some(files()?), rest().ok(), rpc.clone()),
        BlockSourceChoice::Rest => BlockSource::new(None, Some(rest()?), rpc),
        BlockSourceChoice::Rpc => BlockSource::new(None, None, rpc),
        BlockSourceChoice::Auto => {
            let files = files()
                .inspect_err(|why| tracing::info!("not by block files: {why}"))
                .ok();
            let rest = rest()
                .inspect_err(|why| match files {
                    Some(_) => tracing::debug!("not by REST: {why}"),
                    None => tracing::info!("not by REST: {why}"),
                })
                .ok();
            BlockSource::new(files, rest, rpc.clone())
        }
    };
    let detail = match (source.kind(), source.files()) {
        (SourceKind::Files, Some(files)) => format!(
            " ({}{})",
            files.folder().display(),
            if files.is_xored() { ", XORed" } else { "" }
        ),
        _ => String::new(),
    };
    tracing::info!("blocks come by {}{detail}", source.kind().name());
    Ok(source)
}

/// The files are this node's: it knows a block that lies in them.
fn belong_to(files: &BlockFiles, rpc: &Rpc) -> Result<(), RunError> {
    let number = files
        .numbers()
        .map_err(RunError::of)?
        .first()
        .copied()
        .unwrap_or(0);
    let (blocks, _) = files.scan(number, 0).map_err(RunError::of)?;
    let known = blocks
        .first()
        .map(|block| rpc.block_header_info(&block.hash));
    match known {
        Some(Ok(_)) => Ok(()),
        Some(Err(RpcError::Unavailable(text))) => Err(RunError(text)),
        Some(Err(_)) | None => Err(RunError(format!(
            "{} holds another node's blocks",
            files.folder().display()
        ))),
    }
}

async fn listen(
    config: &Config,
    network: Network,
    folder: &Path,
) -> Result<Vec<Listener>, RunError> {
    let urls = config.listen_urls(network);
    let urls: Vec<ListenUrl> = urls
        .iter()
        .map(|url| url.parse().map_err(RunError::of))
        .collect::<Result<_, _>>()?;
    let tls = if urls.iter().any(ListenUrl::needs_tls) {
        let files = match &config.tls {
            Some(files) => server::TlsFiles {
                certificate: files.cert.clone(),
                key: files.key.clone(),
            },
            None => {
                let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
                server::TlsFiles::own(folder, &names).map_err(RunError::of)?
            }
        };
        tracing::info!(
            "TLS certificate {}, SHA-256 {}",
            files.certificate.display(),
            files.fingerprint().map_err(RunError::of)?
        );
        Some(server::TlsAcceptor::new(files).map_err(RunError::of)?)
    } else {
        None
    };
    let mut listeners = Vec::new();
    for url in &urls {
        let listener = Listener::bind(url, tls.as_ref())
            .await
            .map_err(RunError::of)?;
        tracing::info!("listening on {}", listener.url());
        listeners.push(listener);
    }
    Ok(listeners)
}

/// What wallets are told of other ways to connect.
fn services(listeners: &[Listener]) -> Vec<electrum::Service> {
    let service = |listener: &Listener| {
        let (kind, at) = match listener.url().parse().ok()? {
            ListenUrl::Tcp(at) => (electrum::ServiceKind::Tcp, at),
            ListenUrl::Tls(at) => (electrum::ServiceKind::Tls, at),
            ListenUrl::Ws(at) => (electrum::ServiceKind::Ws, at),
            ListenUrl::Wss(at) => (electrum::ServiceKind::Wss, at),
            ListenUrl::Unix(_) => return None,
        };
        // "All addresses" is none that a wallet could use.
        let is_all = at
            .host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|host| host.is_unspecified());
        (!is_all).then_some(electrum::Service {
            kind,
            host: at.host,
            port: at.port,
        })
    };
    listeners.iter().filter_map(service).collect()
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
    Ok(settings)
}

/// The host of `http://HOST:PORT`.
fn host_of(url: &str) -> &str {
    let host = url.strip_prefix("http://").unwrap_or(url);
    let host = host.split('/').next().unwrap_or(host);
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_version_that_may_be_set_is_one_that_is_spoken() {
        let settable = config::PROTOCOL_VERSIONS.map(|text| text.parse().ok());
        assert_eq!(settable, electrum::Version::DEFINED.map(Some));
    }

    #[test]
    fn the_host_is_what_stands_before_the_port() {
        assert_eq!(host_of("http://127.0.0.1:8332"), "127.0.0.1");
        assert_eq!(host_of("http://[::1]:8332/"), "[::1]");
        assert_eq!(host_of("http://node"), "node");
    }
}
