//! One story on every transport: lines over TCP, TLS and a Unix socket, frames over WebSocket and
//! secure WebSocket.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    sync::Arc,
};

use serde_json::{Value, json};
use tokio_rustls::rustls::{
    self, ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::ServerName,
};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use crate::{
    ambra::Ambra,
    compare::CATCH_UP_PATIENCE,
    locks::{Kind, Lock},
    node::{Node, NodeOptions},
    oracle::script_hash,
    treasury::Treasury,
};

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Sends and takes messages.
enum Wire {
    Lines(BufReader<Box<dyn Stream>>),
    Frames(Box<WebSocket<Box<dyn Stream>>>),
}

impl Wire {
    fn lines(stream: impl Stream + 'static) -> Wire {
        Wire::Lines(BufReader::new(Box::new(stream)))
    }

    fn frames(url: &str, stream: impl Stream + 'static) -> Wire {
        let stream: Box<dyn Stream> = Box::new(stream);
        let (socket, _) = client(url, stream).expect("a WebSocket handshake");
        Wire::Frames(Box::new(socket))
    }

    fn send(&mut self, message: &Value) {
        let text = message.to_string();
        match self {
            Wire::Lines(stream) => {
                let stream = stream.get_mut();
                stream.write_all(format!("{text}\n").as_bytes()).unwrap();
                stream.flush().unwrap();
            }
            Wire::Frames(socket) => socket.send(Message::text(text)).unwrap(),
        }
    }

    fn take(&mut self) -> Value {
        let text = match self {
            Wire::Lines(stream) => {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                assert_eq!(line.pop(), Some('\n'), "a line ends");
                line
            }
            Wire::Frames(socket) => {
                let text = socket.read().unwrap().into_text().unwrap().to_string();
                assert!(!text.contains('\n'), "a frame has no newline");
                text
            }
        };
        serde_json::from_str(&text).expect("JSON")
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.send(&json!({"jsonrpc": "2.0", "id": method, "method": method, "params": params}));
        loop {
            let mut answer = self.take();
            if answer["id"] == method {
                assert_eq!(answer.get("error"), None, "{method}");
                return answer["result"].take();
            }
        }
    }
}

fn tcp(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(CATCH_UP_PATIENCE)).unwrap();
    stream
}

/// Trusts the server's own certificate, as a wallet that was shown it.
fn tls(address: &str, certificate: &Path) -> StreamOwned<ClientConnection, TcpStream> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
    roots.add(certificate).expect("a certificate to trust");
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, tcp(address))
}

#[test]
fn every_transport_tells_the_same() {
    let node = Node::start(NodeOptions::default());
    let mut treasury = Treasury::mine(&node);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("ambra.sock");
    let unix = format!("unix:{}", socket.display());
    let mut options = Vec::new();
    for url in [
        "tls://127.0.0.1:0",
        "ws://127.0.0.1:0",
        "wss://127.0.0.1:0",
        unix.as_str(),
    ] {
        options.extend(["--listen", url]);
    }
    let ambra = Ambra::start_with(&node, &options);
    let certificate = ambra.own_certificate();

    // 1. A wallet on each.
    let mut wallets = [
        Wire::lines(tcp(&ambra.address().to_string())),
        Wire::lines(tls(&ambra.listener("tls"), &certificate)),
        Wire::frames("ws://localhost/", tcp(&ambra.listener("ws"))),
        Wire::frames(
            "wss://localhost/",
            tls(&ambra.listener("wss"), &certificate),
        ),
        Wire::lines({
            let stream = UnixStream::connect(&socket).expect("the server accepts");
            stream.set_read_timeout(Some(CATCH_UP_PATIENCE)).unwrap();
            stream
        }),
    ];

    // 2. Each agrees on a version, subscribes, and gets a batch answered.
    let lock = Lock::new(Kind::P2wpkh, 1);
    let name = script_hash(&lock.script());
    for wallet in &mut wallets {
        let version = wallet.ask("server.version", json!(["transports", "1.6"]));
        assert_eq!(version[1], "1.6");
        let tip = wallet.ask("blockchain.headers.subscribe", json!([]));
        assert_eq!(tip["height"], node.height());
        let status = wallet.ask("blockchain.scripthash.subscribe", json!([name]));
        assert_eq!(status, Value::Null);
        wallet.send(&json!([
            {"id": 1, "method": "blockchain.block.header", "params": [1]},
            {"id": 2, "method": "server.ping"},
        ]));
        let answers = wallet.take();
        assert_eq!(answers.as_array().map(Vec::len), Some(2), "{answers}");
    }

    // 3. A payment and a block are pushed to all alike.
    node.send(&treasury.payment(&lock, 500_000)).unwrap();
    let pushes: Vec<Value> = wallets.iter_mut().map(Wire::take).collect();
    assert_eq!(pushes[0]["method"], "blockchain.scripthash.subscribe");
    assert_eq!(pushes[0]["params"][0], name);
    assert!(pushes.iter().all(|push| *push == pushes[0]), "{pushes:?}");
    node.mine(1, &Treasury::elsewhere());
    for wallet in &mut wallets {
        let mut methods = [wallet.take(), wallet.take()].map(|push| push["method"].to_string());
        methods.sort();
        assert!(methods[0].contains("headers") && methods[1].contains("scripthash"));
        let history = wallet.ask("blockchain.scripthash.get_history", json!([name]));
        assert_eq!(history[0]["height"], node.height());
    }

    // 4. A long answer comes whole.
    let answers: Vec<Value> = wallets
        .iter_mut()
        .map(|wallet| wallet.ask("blockchain.block.headers", json!([0, 2016])))
        .collect();
    assert_eq!(answers[0]["count"], node.height() + 1);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}
