//! Where the page listens, who may be there, and under which names it is known.
//!
//! # Security
//! A page of another site may make a browser ask this server, if that site's name was made to lead to this address
//! (DNS rebinding); what it could read is what a visitor of the page reads. So a request must name this server by
//! an address, by a name that no site can have, or by one that its owner allowed.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

/// Connections at one time: some browsers with six each, and who scrapes metrics. More wait.
const CONNECTIONS_MAX: usize = 64;

/// A connection on which nothing moves for so long is closed: one that asks nothing, or a page that does not take
/// what it is sent. Open pages are sent something each second.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// After an error of `accept` (no descriptors left), so long nobody is taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The page cannot listen there.
#[derive(Debug, thiserror::Error)]
#[error(
    "the status page cannot listen on {at}: {source}; choose another place with --admin-listen, or none with --admin-listen off"
)]
pub struct AdminListenError {
    at: String,
    source: io::Error,
}

/// A bound listener for the page.
#[derive(Debug)]
pub struct AdminListener {
    socket: TcpListener,
    room: Arc<Semaphore>,
    pub(super) names: NamedHosts,
}

impl AdminListener {
    /// Binds to `HOST:PORT`; port 0 takes any free one. `more_names`: under which it is known besides.
    pub async fn bind(at: &str, more_names: &[String]) -> Result<AdminListener, AdminListenError> {
        let socket = TcpListener::bind(at)
            .await
            .map_err(|source| AdminListenError {
                at: at.to_owned(),
                source,
            })?;
        let is_local = socket
            .local_addr()
            .is_ok_and(|address| address.ip().is_loopback());
        let own_name = at.rsplit_once(':').map_or(at, |(host, _)| host);
        Ok(AdminListener {
            socket,
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            names: NamedHosts::new(
                is_local,
                more_names.iter().map(String::as_str).chain([own_name]),
            ),
        })
    }

    /// As a browser would be told, with the port that was taken.
    pub fn url(&self) -> String {
        match self.socket.local_addr() {
            Ok(address) => format!("http://{address}/"),
            Err(_) => "http://?/".to_owned(),
        }
    }
}

/// By which names a request may call this server.
#[derive(Clone, Debug)]
pub struct NamedHosts {
    is_local: bool,
    /// In lower case.
    names: Vec<String>,
}

impl NamedHosts {
    pub fn new<'a>(is_local: bool, names: impl Iterator<Item = &'a str>) -> NamedHosts {
        NamedHosts {
            is_local,
            names: names.map(str::to_ascii_lowercase).collect(),
        }
    }

    /// The value of the header `Host`, with or without a port.
    pub fn allow(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.to_ascii_lowercase();
        if name == "localhost" || self.names.contains(&name) {
            return true;
        }
        let address = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        match address.unwrap_or(&name).parse::<IpAddr>() {
            // Who names an address was led by no name.
            Ok(ip) => !self.is_local || ip.to_canonical().is_loopback(),
            // No site has a name without a dot; containers and home networks use them.
            Err(_) => {
                let is_plain =
                    |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
                !self.is_local && !name.is_empty() && name.bytes().all(is_plain)
            }
        }
    }
}

impl axum::serve::Listener for AdminListener {
    type Io = Watched<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let Ok(permit) = self.room.clone().acquire_owned().await else {
                // The room is never closed.
                return std::future::pending().await;
            };
            match self.socket.accept().await {
                Ok((stream, address)) => {
                    let _ = stream.set_nodelay(true);
                    return (Watched::new(stream, SILENCE_MAX, Some(permit)), address);
                }
                Err(error) => {
                    tracing::debug!("the status page takes no connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A stream that fails when nothing has moved on it for too long.
pub struct Watched<S> {
    stream: S,
    silence_max: Duration,
    deadline: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<S> Watched<S> {
    fn new(stream: S, silence_max: Duration, permit: Option<OwnedSemaphorePermit>) -> Watched<S> {
        Watched {
            stream,
            silence_max,
            deadline: Box::pin(sleep(silence_max)),
            _permit: permit,
        }
    }

    /// What came of a read or a write: something that moved, or perhaps too long a silence.
    fn moved<T>(
        &mut self,
        cx: &mut Context<'_>,
        moved: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match moved {
            Poll::Ready(result) => {
                let deadline = Instant::now() + self.silence_max;
                self.deadline.as_mut().reset(deadline);
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(self.deadline.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.moved(cx, read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.moved(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn on_loopback_only_this_machines_names_are_let_in() {
        let hosts = NamedHosts::new(true, ["127.0.0.1", "Node.Example"].into_iter());
        for host in [
            "localhost",
            "localhost:50009",
            "LOCALHOST:1",
            "127.0.0.1:50009",
            "127.8.9.1",
            "[::1]:50009",
            "node.example:443",
        ] {
            assert!(hosts.allow(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:50009",
            "localhost.evil.example",
            "ambra",
            "192.168.1.7",
            "127.0.0.1.evil.example",
            "[::1",
            "evil@localhost",
        ] {
            assert!(!hosts.allow(host), "{host}");
        }
    }

    #[test]
    fn elsewhere_addresses_and_names_without_a_dot_are_let_in() {
        let hosts = NamedHosts::new(false, ["0.0.0.0"].into_iter());
        for host in [
            "ambra:50009",
            "umbrel",
            "192.168.1.7:50009",
            "[fd00::7]:50009",
        ] {
            assert!(hosts.allow(host), "{host}");
        }
        for host in [
            "evil.example",
            "umbrel.local:50009",
            "evil.",
            "",
            ":80",
            "a b",
        ] {
            assert!(!hosts.allow(host), "{host}");
        }
    }

    #[tokio::test]
    async fn who_takes_nothing_is_dropped() {
        let silence_max = Duration::from_millis(50);
        // Room for four bytes on the way, and nobody reads them.
        let (near, far) = tokio::io::duplex(4);
        let mut near = Watched::new(near, silence_max, None);
        let error = near.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(far);
    }

    #[tokio::test]
    async fn what_moves_in_one_direction_keeps_both_open() {
        let silence_max = Duration::from_millis(400);
        let (near, mut far) = tokio::io::duplex(4);
        let mut near = Watched::new(near, silence_max, None);
        let began = Instant::now();
        let reader = tokio::spawn(async move {
            let mut bytes = [0; 1];
            let mut count = 0;
            while count < 20 && far.read_exact(&mut bytes).await.is_ok() {
                count += 1;
            }
            count
        });
        for _ in 0..20 {
            // As a page is sent something now and then, and says nothing.
            let _ = tokio::time::timeout(Duration::from_millis(30), near.read_u8()).await;
            near.write_all(&[1]).await.unwrap();
        }
        assert_eq!(reader.await.unwrap(), 20);
        assert!(began.elapsed() > silence_max, "the silence was long enough");
    }
}
