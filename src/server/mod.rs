//! Sockets: listeners, connections, threads, and their bounds.

mod addresses;
mod connection;
mod expiry;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod inbox;
mod limits;
mod link;
mod listen;
mod memory;
mod origin;
mod pool;
mod stats;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};

use crate::electrum::{Backend, Peer, Settings};

use addresses::Addresses;
use link::{Lines, Link};
use listen::Socket;
use memory::Memory;
use pool::{Client, Pool};

pub use expiry::{Expiry, Validity};
pub use limits::Limits;
pub use listen::{BindError, HostPort, ListenUrl, ListenUrlError, Listener};
pub use stats::{Connections, Stats};
pub use tls::{TlsAcceptor, TlsError, TlsFiles};

/// What all connections share.
pub struct Shared {
    pub backend: Arc<dyn Backend>,
    pub settings: Arc<Settings>,
    pub limits: Limits,
    pub stats: Arc<Stats>,
}

/// A silent peer is asked after so long whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// After an error of `accept` (no descriptors left), so long nobody is taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// That a bound turns clients away is told this often at most.
const REFUSAL_LOG_PAUSE: Duration = Duration::from_secs(60);

/// How long the connections have to end when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(1500);

/// Serves on listeners that are bound already, until `stop` becomes true or its sender is gone.
pub async fn run(
    listeners: Vec<Listener>,
    shared: Shared,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let pool = Pool::start(&shared.limits, &shared.stats)?;
    let connections_max = shared.limits.connections_max.min(within_open_files());
    let connections_max = u32::try_from(connections_max).unwrap_or(u32::MAX >> 4);
    let server = Arc::new(Server {
        all: Arc::new(Semaphore::new(connections_max as usize)),
        addresses: Arc::default(),
        memory: Arc::new(Memory::new(shared.limits.client_memory_max)),
        clients: AtomicU64::new(0),
        pool: pool.clone(),
        shared,
        stop: stop.clone(),
    });
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| tokio::spawn(server.clone().accept(listener)))
        .collect();
    let _ = stop.wait_for(|stop| *stop).await;
    for task in accepting {
        task.abort();
        let _ = task.await;
    }
    pool.close();
    if timeout(STOP_TIMEOUT, server.all.acquire_many(connections_max))
        .await
        .is_err()
    {
        tracing::debug!("some connections were cut off");
    }
    Ok(())
}

/// Connections that leave the other half of what the process may open to index and block files: where those run out,
/// the index cannot be written any more.
fn within_open_files() -> usize {
    let allowed = rlimit::Resource::NOFILE.get_soft().unwrap_or(1024);
    usize::try_from(allowed / 2).unwrap_or(usize::MAX)
}

struct Server {
    shared: Shared,
    pool: Pool,
    /// A permit is a connection.
    all: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    memory: Arc<Memory>,
    clients: AtomicU64,
    stop: watch::Receiver<bool>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Server {
    async fn accept(self: Arc<Self>, listener: Listener) {
        let listener = Arc::new(listener);
        let limits = &self.shared.limits;
        let here = Arc::new(Semaphore::new(limits.listener_connections_max));
        let mut told: Option<Instant> = None;
        loop {
            let accepted = match &listener.socket {
                Socket::Tcp(socket) => socket
                    .accept()
                    .await
                    .map(|(stream, address)| (Stream::Tcp(stream), remote_ip(address.ip()))),
                Socket::Unix(socket) => socket
                    .accept()
                    .await
                    .map(|(stream, _)| (Stream::Unix(stream), None)),
            };
            let (stream, remote_ip) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("{}: no client can be taken: {error}", listener.url());
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (Ok(one), Ok(other), Some(counted)) = (
                here.clone().try_acquire_owned(),
                self.all.clone().try_acquire_owned(),
                self.addresses
                    .count(remote_ip, limits.address_connections_max),
            ) else {
                self.shared.stats.refuse();
                if told.is_none_or(|told| told.elapsed() > REFUSAL_LOG_PAUSE) {
                    told = Some(Instant::now());
                    tracing::warn!(
                        "{}: clients are turned away: at most {} connections a listener, {} an address of another \
                         machine, and {} in all are served",
                        listener.url(),
                        limits.listener_connections_max,
                        limits.address_connections_max,
                        limits.connections_max
                    );
                }
                continue;
            };
            // Clients of this machine have no limits that others have.
            let peer = match remote_ip {
                None => Peer::Local,
                Some(_) => Peer::Remote,
            };
            let server = self.clone();
            let listener = listener.clone();
            let open = stats::Open::new(&self.shared.stats, &listener.url);
            tokio::spawn(async move {
                if let Err(error) = server.connection(&listener, stream, peer).await {
                    tracing::debug!("{}: a connection ended: {error}", listener.url());
                }
                drop((open, counted));
                drop::<(OwnedSemaphorePermit, OwnedSemaphorePermit)>((one, other));
            });
        }
    }

    async fn connection(&self, listener: &Listener, stream: Stream, peer: Peer) -> io::Result<()> {
        // Boxed, for the handshakes' state is larger than a connection's, and is needed but once.
        let handshake = Box::pin(timeout(
            self.shared.limits.handshake_timeout,
            self.link(listener, stream),
        ));
        let mut stop = self.stop.clone();
        let link = tokio::select! {
            link = handshake => link??,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        let client = Client {
            number: self.clients.fetch_add(1, Ordering::Relaxed),
            mailbox: Default::default(),
        };
        let memory = self.memory.share();
        connection::serve(link, peer, &self.shared, &self.pool, client, memory, stop).await
    }

    async fn link(&self, listener: &Listener, stream: Stream) -> io::Result<Box<dyn Link>> {
        match stream {
            Stream::Unix(stream) => Ok(Box::new(Lines::new(stream))),
            Stream::Tcp(stream) => {
                stream.set_nodelay(true)?;
                SockRef::from(&stream).set_tcp_keepalive(
                    &TcpKeepalive::new()
                        .with_time(KEEPALIVE)
                        .with_interval(KEEPALIVE / 4),
                )?;
                match &listener.tls {
                    Some(tls) => {
                        let stream = tls.current().accept(stream).await?;
                        self.framed(listener, stream).await
                    }
                    None => self.framed(listener, stream).await,
                }
            }
        }
    }

    async fn framed<S>(&self, listener: &Listener, stream: S) -> io::Result<Box<dyn Link>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if !listener.is_websocket {
            return Ok(Box::new(Lines::new(stream)));
        }
        let limits = &self.shared.limits;
        let link = link::frames(stream, limits.line_bytes_max, &limits.allowed_origins);
        Ok(Box::new(link.await?))
    }
}

/// The address of another machine; none of this one.
fn remote_ip(ip: IpAddr) -> Option<IpAddr> {
    let ip = ip.to_canonical();
    (!ip.is_loopback()).then_some(ip)
}
