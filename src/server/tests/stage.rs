//! What the tests stand on: a server over a fake backend, and its clients.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpStream, UnixStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    chain::{Confirmed, History, ScriptHash},
    electrum::{
        Version,
        fake::{Fake, txid},
    },
    server::*,
};

/// No step of a test takes as long.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct TestServer {
    pub fake: Fake,
    pub stats: Arc<Stats>,
    pub urls: Vec<String>,
    pub stop: watch::Sender<bool>,
    pub running: JoinHandle<std::io::Result<()>>,
    pub dir: tempfile::TempDir,
}

impl TestServer {
    pub async fn start(limits: Limits, kinds: &[&str]) -> TestServer {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles::own(dir.path(), &["localhost".to_owned()]).unwrap();
        let tls = TlsAcceptor::new(files).unwrap();
        let mut listeners = Vec::new();
        for kind in kinds {
            let url = match *kind {
                "unix" => format!("unix:{}", dir.path().join("socket").display()),
                kind => format!("{kind}://127.0.0.1:0"),
            };
            let url: ListenUrl = url.parse().unwrap();
            listeners.push(Listener::bind(&url, Some(&tls)).await.unwrap());
        }
        let urls = listeners.iter().map(Listener::url).collect();
        let fake = Fake::new();
        let stats = Arc::<Stats>::default();
        let shared = Shared {
            stats: stats.clone(),
            backend: fake.backend(),
            settings: Arc::new(Settings {
                protocol_max: Version::V1_7,
                network: bitcoin::Network::Regtest,
                ..Settings::default()
            }),
            limits,
        };
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(run(listeners, shared, stopped));
        TestServer {
            fake,
            stats,
            urls,
            stop,
            running,
            dir,
        }
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.urls[0]).await
    }

    /// Whoever asks for this script waits until the gate is opened.
    pub fn hold(&self, script: ScriptHash) {
        self.slow(script);
        self.fake.shut_gate();
    }

    /// What is asked of this script comes from a disk.
    pub fn slow(&self, script: ScriptHash) {
        self.fake.change(|world| _ = world.on_disk.insert(script));
    }

    /// 5,000 entries.
    pub fn has_long_history(&self, script: ScriptHash) {
        let entry = Confirmed {
            txid: txid(1),
            height: 3,
        };
        let history = History {
            confirmed: Arc::new(vec![entry; 5000]),
            ..History::default()
        };
        self.fake
            .change(|world| _ = world.histories.insert(script, history));
    }

    pub async fn stop(self) {
        let started = Instant::now();
        self.stop.send(true).unwrap();
        self.running.await.unwrap().unwrap();
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}

pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Bytes for S {}

pub enum Client {
    Lines(BufReader<Box<dyn Bytes>>),
    Frames(Box<tokio_tungstenite::WebSocketStream<Box<dyn Bytes>>>),
}

impl Client {
    pub async fn connect(url: &str) -> Client {
        let (scheme, rest) = url.split_once(':').unwrap();
        let stream: Box<dyn Bytes> = match scheme {
            "unix" => Box::new(UnixStream::connect(PathBuf::from(rest)).await.unwrap()),
            _ => {
                let stream = TcpStream::connect(rest.trim_start_matches("//"))
                    .await
                    .unwrap();
                match scheme {
                    "tls" | "wss" => {
                        let name = "localhost".try_into().unwrap();
                        let connector = tokio_rustls::TlsConnector::from(Arc::new(trusting()));
                        Box::new(connector.connect(name, stream).await.unwrap())
                    }
                    _ => Box::new(stream),
                }
            }
        };
        match scheme {
            "ws" | "wss" => {
                let (stream, _) = tokio_tungstenite::client_async("ws://localhost/", stream)
                    .await
                    .unwrap();
                Client::Frames(Box::new(stream))
            }
            _ => Client::Lines(BufReader::new(stream)),
        }
    }

    pub async fn send(&mut self, text: &str) {
        self.try_send(text).await.unwrap();
    }

    /// An error where the server has closed the connection already.
    pub async fn try_send(&mut self, text: &str) -> io::Result<()> {
        match self {
            Client::Lines(stream) => {
                stream.write_all(text.as_bytes()).await?;
                stream.write_all(b"\n").await?;
                stream.flush().await
            }
            Client::Frames(stream) => stream
                .send(Message::text(text))
                .await
                .map_err(io::Error::other),
        }
    }

    /// The next message; none at the end.
    pub async fn next(&mut self) -> Option<Value> {
        let text = match self {
            Client::Lines(stream) => {
                let mut line = String::new();
                match timeout(PATIENCE, stream.read_line(&mut line))
                    .await
                    .unwrap()
                {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => line,
                }
            }
            Client::Frames(stream) => match timeout(PATIENCE, stream.next()).await.unwrap() {
                Some(Ok(Message::Text(text))) => {
                    assert!(!text.contains('\n'));
                    text.to_string()
                }
                _ => return None,
            },
        };
        Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    pub async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.send(&json!({ "id": method, "method": method, "params": params }).to_string())
            .await;
        let reply = self.next().await.unwrap();
        assert_eq!(reply["id"], method);
        reply["result"].clone()
    }

    /// It is served.
    pub async fn ping(&mut self) {
        assert_eq!(self.ask("server.ping", json!([])).await, json!(null));
    }
}

/// A connection on which bytes are sent as they are.
pub async fn raw(url: &str) -> TcpStream {
    let at = url.split_once("//").unwrap().1;
    TcpStream::connect(at).await.unwrap()
}

/// Sooner or later one more client is served there.
pub async fn has_room(url: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = Client::connect(url).await;
        let sent = client.try_send(r#"{"id":1,"method":"server.ping"}"#).await;
        if sent.is_ok() && client.next().await.is_some() {
            return;
        }
        assert!(Instant::now() < deadline);
    }
}

/// Trusts any certificate, as wallets do on first use.
fn trusting() -> ClientConfig {
    #[derive(Debug)]
    struct Any;
    impl ServerCertVerifier for Any {
        fn verify_server_cert(
            &self,
            _: &rustls_pki_types::CertificateDer<'_>,
            _: &[rustls_pki_types::CertificateDer<'_>],
            _: &rustls_pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls_pki_types::UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls_pki_types::CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls_pki_types::CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            rustls::crypto::ring::default_provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    }
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any))
        .with_no_client_auth()
}

pub fn status(fake: &Fake, script: &ScriptHash) -> Value {
    json!(fake.status(script).map(|status| status.to_string()))
}
