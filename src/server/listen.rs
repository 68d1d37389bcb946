//! Where to listen: `tcp://HOST:PORT`, `tls://`, `ws://`, `wss://`, `unix:PATH`.

use std::{
    fmt, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
};

use tokio::net::{TcpListener, UnixListener, lookup_host};

use super::tls::TlsAcceptor;

/// A listener as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenUrl {
    Tcp(HostPort),
    Tls(HostPort),
    Ws(HostPort),
    Wss(HostPort),
    Unix(PathBuf),
}

/// `localhost:50001`, `127.0.0.1:50001`, `[::1]:50001`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenUrlError {
    #[error("{0:?} should begin with tcp://, tls://, ws://, wss:// or unix:")]
    Scheme(String),
    #[error("{0:?} should end with :PORT, like tcp://127.0.0.1:50001")]
    NoPort(String),
    #[error("{0:?} should have a port of 0 to 65535")]
    Port(String),
    #[error("{0:?} has no host; 127.0.0.1 listens to this machine, 0.0.0.0 to all")]
    NoHost(String),
    #[error("{0:?}: put an IPv6 address in brackets, like tcp://[::1]:50001")]
    Brackets(String),
    #[error("{0:?} should have nothing behind the port")]
    Rest(String),
    #[error("unix: should be followed by a path")]
    NoPath,
}

impl FromStr for ListenUrl {
    type Err = ListenUrlError;

    fn from_str(text: &str) -> Result<ListenUrl, ListenUrlError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err(ListenUrlError::NoPath),
                path => Ok(ListenUrl::Unix(path.into())),
            };
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(ListenUrlError::Scheme(text.to_owned()));
        };
        let make = match scheme {
            "tcp" => ListenUrl::Tcp,
            "tls" | "ssl" => ListenUrl::Tls,
            "ws" => ListenUrl::Ws,
            "wss" => ListenUrl::Wss,
            _ => return Err(ListenUrlError::Scheme(text.to_owned())),
        };
        host_port(rest, text).map(make)
    }
}

fn host_port(rest: &str, url: &str) -> Result<HostPort, ListenUrlError> {
    let url = || url.to_owned();
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '@']) {
        return Err(ListenUrlError::Rest(url()));
    }
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest
                .split_once(']')
                .ok_or_else(|| ListenUrlError::Brackets(url()))?;
            let port = rest
                .strip_prefix(':')
                .ok_or_else(|| ListenUrlError::NoPort(url()))?;
            (host, port)
        }
        None => rest
            .rsplit_once(':')
            .ok_or_else(|| ListenUrlError::NoPort(url()))?,
    };
    if host.is_empty() {
        return Err(ListenUrlError::NoHost(url()));
    }
    if host.contains(':') && !rest.starts_with('[') {
        return Err(ListenUrlError::Brackets(url()));
    }
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = is_number
        .then(|| port.parse().ok())
        .flatten()
        .ok_or_else(|| ListenUrlError::Port(url()))?;
    Ok(HostPort {
        host: host.to_owned(),
        port,
    })
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenUrl::Tcp(at) => write!(f, "tcp://{at}"),
            ListenUrl::Tls(at) => write!(f, "tls://{at}"),
            ListenUrl::Ws(at) => write!(f, "ws://{at}"),
            ListenUrl::Wss(at) => write!(f, "wss://{at}"),
            ListenUrl::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostPort { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

impl ListenUrl {
    pub fn needs_tls(&self) -> bool {
        matches!(self, ListenUrl::Tls(_) | ListenUrl::Wss(_))
    }
}

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on {url}: {source}; {}", mend(source))]
    Io { url: String, source: io::Error },
    #[error(
        "cannot listen on {url}: another process listens there; choose another place with --listen"
    )]
    SocketInUse { url: String },
    #[error("cannot listen on {url}: there is a file that is no socket")]
    NotASocket { url: String },
    #[error("cannot listen on {url} without a certificate")]
    NoTls { url: String },
}

/// What a person can do.
fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "choose another port with --listen; `ambra doctor` says how to find out whose it is"
        }
        io::ErrorKind::PermissionDenied => {
            "choose with --listen a port above 1023, or a folder that this user may write to"
        }
        io::ErrorKind::NotFound => "the folder of a Unix socket must be there",
        _ => "name with --listen an address of this machine",
    }
}

/// A bound listener.
pub struct Listener {
    pub(super) socket: Socket,
    pub(super) is_websocket: bool,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) url: ListenUrl,
}

pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds. Port 0 takes any free port: see [`Listener::local_addr`].
    pub async fn bind(url: &ListenUrl, tls: Option<&TlsAcceptor>) -> Result<Listener, BindError> {
        let io = |source| BindError::Io {
            url: url.to_string(),
            source,
        };
        let socket = match url {
            ListenUrl::Tcp(at) | ListenUrl::Tls(at) | ListenUrl::Ws(at) | ListenUrl::Wss(at) => {
                let addresses: Vec<SocketAddr> = lookup_host((at.host.as_str(), at.port))
                    .await
                    .map_err(io)?
                    .collect();
                Socket::Tcp(TcpListener::bind(&addresses[..]).await.map_err(io)?)
            }
            ListenUrl::Unix(path) => Socket::Unix(bind_unix(url, path)?),
        };
        let tls = match (url.needs_tls(), tls) {
            (false, _) => None,
            (true, Some(tls)) => Some(tls.clone()),
            (true, None) => {
                return Err(BindError::NoTls {
                    url: url.to_string(),
                });
            }
        };
        Ok(Listener {
            socket,
            is_websocket: matches!(url, ListenUrl::Ws(_) | ListenUrl::Wss(_)),
            tls,
            url: url.clone(),
        })
    }

    /// The address, with the port that was taken; none for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// As a client would name it, with the port that was taken.
    pub fn url(&self) -> String {
        let port = self.local_addr().map(|address| address.port());
        let mut url = self.url.clone();
        if let (
            ListenUrl::Tcp(at) | ListenUrl::Tls(at) | ListenUrl::Ws(at) | ListenUrl::Wss(at),
            Some(port),
        ) = (&mut url, port)
        {
            at.port = port;
        }
        url.to_string()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let ListenUrl::Unix(path) = &self.url {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A socket file that a dead process left behind is removed; one that is in use is not.
fn bind_unix(url: &ListenUrl, path: &Path) -> Result<UnixListener, BindError> {
    let name = || url.to_string();
    let io = |source| BindError::Io {
        url: name(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket { url: name() });
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(BindError::SocketInUse { url: name() }),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(io)?;
            }
            Err(error) => return Err(io(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    let listener = UnixListener::bind(path).map_err(io)?;
    // # Security
    // Whoever may open the socket sees what its owner's wallets ask.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(io)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written() {
        for url in [
            "tcp://127.0.0.1:50001",
            "tls://0.0.0.0:50002",
            "ws://localhost:50003",
            "wss://[::1]:50004",
            "unix:/run/ambra.sock",
            "tcp://[::]:0",
        ] {
            assert_eq!(url.parse::<ListenUrl>().unwrap().to_string(), url);
        }
        assert_eq!("unix:///a/b".parse(), Ok(ListenUrl::Unix("/a/b".into())));
        assert_eq!(
            "ssl://a:1".parse::<ListenUrl>().unwrap().to_string(),
            "tls://a:1"
        );
        assert_eq!(
            "tcp://a:1/".parse::<ListenUrl>().unwrap().to_string(),
            "tcp://a:1"
        );
    }

    #[test]
    fn a_wrong_url_is_told_what_is_wrong_with_it() {
        use ListenUrlError as E;
        let error = |text: &str| text.parse::<ListenUrl>().unwrap_err();
        assert!(matches!(error("127.0.0.1:50001"), E::Scheme(_)));
        assert!(matches!(error("http://a:1"), E::Scheme(_)));
        assert!(matches!(error(""), E::Scheme(_)));
        assert!(matches!(error("tcp://a"), E::NoPort(_)));
        assert!(matches!(error("tcp://[::1]"), E::NoPort(_)));
        assert!(matches!(error("tcp://a:"), E::Port(_)));
        assert!(matches!(error("tcp://a:65536"), E::Port(_)));
        assert!(matches!(error("tcp://a:+1"), E::Port(_)));
        assert!(matches!(error("tcp://:1"), E::NoHost(_)));
        assert!(matches!(error("tcp://::1:50001"), E::Brackets(_)));
        assert!(matches!(error("tcp://[::1:50001"), E::Brackets(_)));
        assert!(matches!(error("tcp://a:1/path"), E::Rest(_)));
        assert!(matches!(error("unix:"), E::NoPath));
    }

    #[tokio::test]
    async fn a_stale_socket_file_is_replaced_and_a_used_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let url = ListenUrl::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a dead process leaves its file");
        let listener = Listener::bind(&url, None).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(
            Listener::bind(&url, None).await,
            Err(BindError::SocketInUse { .. })
        ));
        drop(listener);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(
            Listener::bind(&url, None).await,
            Err(BindError::NotASocket { .. })
        ));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
