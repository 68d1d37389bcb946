//! A small blocking Electrum client: it shows what came, and hides nothing.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, ErrorKind, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// No answer takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A push: method and parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    pub method: String,
    pub params: Value,
}

pub struct Client {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    /// The start of a line whose end has not come yet.
    partial: Vec<u8>,
    next_id: u64,
    notifications: VecDeque<Notification>,
}

impl Client {
    /// Connected, and at protocol 1.4.2.
    pub fn connect(address: SocketAddr) -> Client {
        let mut client = Client::connect_silently(address);
        let version = client.ask("server.version", json!(["stories", "1.4.2"]));
        assert_eq!(version[1], "1.4.2", "the agreed version");
        client
    }

    /// Connected; nothing said.
    pub fn connect_silently(address: SocketAddr) -> Client {
        let writer = TcpStream::connect(address).expect("the server accepts");
        writer.set_nodelay(true).expect("no delay");
        writer.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let reader = BufReader::new(writer.try_clone().expect("a second handle"));
        Client {
            reader,
            writer,
            partial: Vec::new(),
            next_id: 0,
            notifications: VecDeque::new(),
        }
    }

    /// The result of a call that must succeed.
    #[track_caller]
    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        match self.call(method, params) {
            Ok(result) => result,
            Err(error) => panic!("{method}: {error}"),
        }
    }

    /// Result or error object.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.try_call(method, params)
            .expect("the server answers and stays connected")
    }

    /// Like [`Client::call`], `None` if the connection ended: for servers that get killed.
    pub fn try_call(&mut self, method: &str, params: Value) -> Option<Result<Value, Value>> {
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.try_send(&request.to_string())?;
        let reply = self.reply_with(|message| message["id"] == id)?;
        Some(result_of(reply))
    }

    /// One JSON array with all requests; the replies in the order of the requests.
    pub fn batch(&mut self, requests: &[(&str, Value)]) -> Vec<Result<Value, Value>> {
        let first = self.next_id;
        self.next_id += requests.len() as u64;
        let lines: Vec<Value> = (first..)
            .zip(requests)
            .map(|(id, (method, params))| {
                json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
            })
            .collect();
        self.send(&Value::Array(lines).to_string());
        let replies = self
            .reply_with(|message| message.is_array())
            .expect("the server answers and stays connected");
        let Value::Array(mut replies) = replies else {
            panic!("a batch is answered by an array")
        };
        replies.sort_by_key(|reply| reply["id"].as_u64());
        let ids: Vec<u64> = replies
            .iter()
            .filter_map(|reply| reply["id"].as_u64())
            .collect();
        assert!(
            ids.iter().copied().eq(first..self.next_id),
            "each request of a batch is answered once: {ids:?}"
        );
        replies.into_iter().map(result_of).collect()
    }

    /// The next push that came or comes before the deadline.
    pub fn take_notification(&mut self, deadline: Instant) -> Option<Notification> {
        if self.notifications.is_empty() {
            let message = self.next_message(deadline)?;
            assert!(
                message.get("id").is_none(),
                "an answer nobody asked for: {message}"
            );
            self.keep(message);
        }
        self.notifications.pop_front()
    }

    /// All pushes that came so far. A call before it makes sure that those sent earlier are here.
    pub fn take_notifications(&mut self) -> Vec<Notification> {
        self.notifications.drain(..).collect()
    }

    /// The next push of this method; others that come before it stay for later.
    #[track_caller]
    pub fn wait_for_push(&mut self, method: &str, patience: Duration) -> Value {
        let deadline = Instant::now() + patience;
        let mut others = VecDeque::new();
        loop {
            let Some(push) = self.take_notification(deadline) else {
                panic!("no {method} came in {patience:?}; but {others:?}");
            };
            if push.method == method {
                others.append(&mut self.notifications);
                self.notifications = others;
                return push.params;
            }
            others.push_back(push);
        }
    }

    /// Sends a line as it is.
    pub fn send(&mut self, line: &str) {
        self.try_send(line).expect("the server reads");
    }

    /// Sends a line; `None` if the server does not want it.
    pub fn try_send(&mut self, line: &str) -> Option<()> {
        let mut bytes = line.as_bytes().to_vec();
        bytes.push(b'\n');
        self.writer.write_all(&bytes).ok()
    }

    /// Sends the start of a line whose end never comes.
    pub fn send_without_end(&mut self, text: &str) {
        self.writer
            .write_all(text.as_bytes())
            .expect("the server reads");
    }

    /// The next line as it is, `None` at the connection's end.
    pub fn read_line(&mut self) -> Option<String> {
        let line = self.next_line(Instant::now() + PATIENCE)?;
        Some(String::from_utf8(line).expect("UTF-8"))
    }

    fn reply_with(&mut self, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.next_message(deadline)?;
            if wanted(&message) {
                return Some(message);
            }
            assert!(
                message.get("id").is_none(),
                "an answer nobody asked for: {message}"
            );
            self.keep(message);
        }
    }

    fn keep(&mut self, mut message: Value) {
        let method = message["method"].as_str().expect("a method").to_owned();
        let params = message["params"].take();
        self.notifications
            .push_back(Notification { method, params });
    }

    fn next_message(&mut self, deadline: Instant) -> Option<Value> {
        let line = self.next_line(deadline)?;
        match serde_json::from_slice(&line) {
            Ok(message) => Some(message),
            Err(error) => panic!(
                "not JSON ({error}): {}",
                String::from_utf8_lossy(&line[..line.len().min(500)])
            ),
        }
    }

    /// `None`: the deadline passed, or the connection ended.
    fn next_line(&mut self, deadline: Instant) -> Option<Vec<u8>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Zero would mean "for ever".
            let timeout = left.max(Duration::from_millis(1));
            self.reader
                .get_ref()
                .set_read_timeout(Some(timeout))
                .expect("a timeout");
            match self.reader.read_until(b'\n', &mut self.partial) {
                Ok(_) if self.partial.last() == Some(&b'\n') => {
                    let mut line = std::mem::take(&mut self.partial);
                    line.pop();
                    return Some(line);
                }
                Ok(_) => return None,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if Instant::now() >= deadline {
                        return None;
                    }
                }
                Err(_) => return None,
            }
        }
    }
}

fn result_of(mut reply: Value) -> Result<Value, Value> {
    match reply.get_mut("error") {
        None => Ok(reply["result"].take()),
        Some(error) => Err(error.take()),
    }
}
