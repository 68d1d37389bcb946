//! What stands between the server and its node, and spoils what the node says: over RPC, and over ZMQ.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use zeromq::{PubSocket, Socket, SocketRecv, SocketSend, SubSocket, ZmqMessage};

use crate::node::Node;

/// A node that says nothing is silent for so long before it hangs up.
const SILENCE: Duration = Duration::from_millis(1500);

/// Between the server and its node's RPC: passes on what is said, but for what it spoils.
pub struct Spoiler {
    address: SocketAddr,
    inside: Arc<Inside>,
}

struct Inside {
    random: Mutex<StdRng>,
    /// Of a hundred exchanges so many are spoilt.
    percent: AtomicU32,
    spoilt: AtomicUsize,
    upstream: Mutex<Upstream>,
    /// What is put in the place of what in all answers.
    replace: Option<(String, String)>,
}

/// Who answers.
#[derive(Clone)]
struct Upstream {
    address: String,
    /// The login of another node than the one that the server believes to speak with.
    login: Option<String>,
}

impl Spoiler {
    pub fn between(node: &Node, seed: u64) -> Spoiler {
        Spoiler::new(node, seed, None)
    }

    /// The node's ZMQ messages are said to come from the relay.
    pub fn that_leads_to(relay: &Relay, node: &Node, seed: u64) -> Spoiler {
        let replace = (node.zmq_address(), relay.address.clone());
        Spoiler::new(node, seed, Some(replace))
    }

    fn new(node: &Node, seed: u64, replace: Option<(String, String)>) -> Spoiler {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let inside = Arc::new(Inside {
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            percent: AtomicU32::new(0),
            spoilt: AtomicUsize::new(0),
            upstream: Mutex::new(Upstream {
                address: address_of(node),
                login: None,
            }),
            replace,
        });
        let spoiler = Spoiler {
            address: listener.local_addr().expect("an address"),
            inside: Arc::clone(&inside),
        };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let inside = Arc::clone(&inside);
                thread::spawn(move || inside.pass_on(stream));
            }
        });
        spoiler
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Of a hundred exchanges so many are spoilt from now on.
    pub fn spoil(&self, percent: u32) {
        self.inside.percent.store(percent, Ordering::Relaxed);
    }

    pub fn spoilt(&self) -> usize {
        self.inside.spoilt.load(Ordering::Relaxed)
    }

    /// From now on this node answers.
    pub fn answer_as(&self, node: &Node) {
        *self.inside.upstream.lock().expect("the upstream") = Upstream {
            address: address_of(node),
            login: Some(node.authorization()),
        };
    }
}

fn address_of(node: &Node) -> String {
    node.rpc_url().trim_start_matches("http://").to_owned()
}

impl Inside {
    /// Exchanges of one connection, until one is cut off.
    fn pass_on(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        loop {
            let request = Message::read(&mut reader)?;
            let (dice, cut) = {
                let mut random = self.random.lock().expect("the dice");
                (random.random_range(0..100), random.random_range(0..200))
            };
            if dice >= self.percent.load(Ordering::Relaxed) {
                client.write_all(&self.ask(&request)?)?;
                continue;
            }
            // One fault of each kind after the other: seven of them are all there are.
            let (status, body) = match self.spoilt.fetch_add(1, Ordering::Relaxed) % 7 {
                // As Bitcoin Core says it.
                0 => ("503 Service Unavailable", "Work queue depth exceeded"),
                1 => ("200 OK", "<html>this is no node</html>"),
                2 => (
                    "200 OK",
                    r#"{"result":null,"error":{"code":-28,"message":"Loading block index…"},"id":0}"#,
                ),
                3 => ("401 Unauthorized", ""),
                // As if it had been killed.
                4 => return Ok(()),
                5 => {
                    thread::sleep(SILENCE);
                    return Ok(());
                }
                // Half an answer.
                _ => {
                    let answer = self.ask(&request)?;
                    return client.write_all(&answer[..answer.len().min(cut)]);
                }
            };
            let length = body.len();
            write!(
                client,
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}"
            )?;
        }
    }

    /// The node's answer, as bytes.
    fn ask(&self, request: &Message) -> std::io::Result<Vec<u8>> {
        let upstream = self.upstream.lock().expect("the upstream").clone();
        let mut node = TcpStream::connect(&upstream.address)?;
        node.write_all(&request.with_login(upstream.login.as_deref()))?;
        let mut answer = Message::read(&mut BufReader::new(node))?;
        if let Some((what, by)) = &self.replace {
            let text = String::from_utf8_lossy(&answer.body);
            if text.contains(what) {
                answer.body = text.replace(what, by).into_bytes();
            }
        }
        Ok(answer.with_login(None))
    }
}

/// An HTTP message.
struct Message {
    /// The first line and the headers, but for `Content-Length`.
    head: Vec<String>,
    body: Vec<u8>,
}

impl Message {
    fn read(reader: &mut impl BufRead) -> std::io::Result<Message> {
        let mut head = Vec::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line == "\r\n" {
                break;
            }
            match line.to_ascii_lowercase().strip_prefix("content-length:") {
                Some(value) => length = value.trim().parse().map_err(std::io::Error::other)?,
                None => head.push(line),
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(Message { head, body })
    }

    /// Its bytes, perhaps with another login.
    fn with_login(&self, login: Option<&str>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in &self.head {
            match login {
                Some(login) if line.to_ascii_lowercase().starts_with("authorization:") => {
                    bytes.extend_from_slice(format!("Authorization: {login}\r\n").as_bytes());
                }
                _ => bytes.extend_from_slice(line.as_bytes()),
            }
        }
        bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", self.body.len()).as_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Hears a node's ZMQ messages and publishes them again: some never, some twice, some late.
pub struct Relay {
    address: String,
    inside: Arc<RelayInside>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct RelayInside {
    /// Of a hundred messages so many are spoilt.
    percent: AtomicU32,
    /// 1: messages get new numbers, as if nothing had been lost.
    hides: AtomicU32,
    spoilt: AtomicUsize,
}

impl Relay {
    pub fn of(node: &Node, seed: u64) -> Relay {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let inside = Arc::<RelayInside>::default();
        let (mut node_end, mut end) = (SubSocket::new(), PubSocket::new());
        let address = runtime.block_on(async {
            node_end.connect(&node.zmq_address()).await.expect("ZMQ");
            node_end.subscribe("").await.expect("ZMQ");
            end.bind("tcp://127.0.0.1:0").await.expect("a port")
        });
        runtime.spawn(Arc::clone(&inside).pass_on(node_end, end, StdRng::seed_from_u64(seed)));
        Relay {
            address: address.to_string(),
            inside,
            _runtime: runtime,
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Of a hundred messages so many are lost, doubled, or held back until others have passed. `hides`: with numbers that
    /// tell nothing of it.
    pub fn spoil(&self, percent: u32, hides: bool) {
        self.inside.percent.store(percent, Ordering::Relaxed);
        self.inside.hides.store(hides.into(), Ordering::Relaxed);
    }

    pub fn spoilt(&self) -> usize {
        self.inside.spoilt.load(Ordering::Relaxed)
    }
}

impl RelayInside {
    async fn pass_on(self: Arc<Self>, mut from: SubSocket, mut to: PubSocket, mut random: StdRng) {
        let mut held = Vec::new();
        let mut numbers = [0u32; 2];
        loop {
            let message = tokio::select! {
                message = from.recv() => match message {
                    Ok(message) => message,
                    Err(_) => return,
                },
                // What is late is late by so much at most.
                () = tokio::time::sleep(Duration::from_millis(300)), if !held.is_empty() => {
                    for message in held.drain(..) {
                        let _ = to.send(self.numbered(message, &mut numbers)).await;
                    }
                    continue;
                }
            };
            let mut now = Vec::new();
            if random.random_range(0..100) < self.percent.load(Ordering::Relaxed) {
                // In turn, so that each of them happens.
                match self.spoilt.fetch_add(1, Ordering::Relaxed) % 3 {
                    0 => {}
                    1 => now = vec![message.clone(), message],
                    _ => held.push(message),
                }
            } else {
                now.push(message);
                if random.random_range(0..2) == 0 {
                    now.append(&mut held);
                }
            }
            for message in now {
                let _ = to.send(self.numbered(message, &mut numbers)).await;
            }
        }
    }

    /// A message is its topic, its body, and its number.
    fn numbered(&self, message: ZmqMessage, numbers: &mut [u32; 2]) -> ZmqMessage {
        if self.hides.load(Ordering::Relaxed) == 0 {
            return message;
        }
        let mut frames = message.into_vec();
        let number = &mut numbers[usize::from(&frames[0][..] == b"sequence")];
        frames[2] = number.to_le_bytes().to_vec().into();
        *number = number.wrapping_add(1);
        ZmqMessage::try_from(frames).expect("frames")
    }
}
