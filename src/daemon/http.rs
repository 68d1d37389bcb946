//! HTTP to the node, for RPC and REST: kept-alive connections, a deadline for each exchange, a bound on
//! each answer, and errors in words.
//!
//! # Security
//! Nothing but the node is ever spoken to: no proxy out of the environment, no redirect is followed.
//! No error text holds credentials or a URL's user part.

use std::{
    io,
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ureq::Agent;

use super::{error::RpcError, stats::Stats};

/// Exchanges at one time. bitcoind works on `rpcthreads` (4, newer releases 16) at once and lets
/// `rpcworkqueue` (16, newer releases 64) more wait: this leaves room for others who ask it.
const EXCHANGES_MAX: usize = 8;
/// A kept connection is left after this time unused; bitcoind closes it after `rpcservertimeout` (30 s).
const IDLE_MAX: Duration = Duration::from_secs(15);
/// For the TCP connection alone.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How often an exchange is tried: a node that is short of threads says 503, and is soon less so.
const BUSY_TRIES: u32 = 3;
/// Before the second try; four times as long before each later one.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// An answer's bound where its status is not 200, in bytes.
const REFUSAL_MAX: u64 = 1 << 20;
/// Of a node's own words in an error, in characters.
const WORDS_MAX: usize = 200;

/// What came back, whatever its status.
#[derive(Debug)]
pub(super) struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as a short line of printable text, for errors.
    pub fn words(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let line = text.lines().next().unwrap_or_default().trim();
        line.chars()
            .filter(|c| !c.is_control())
            .take(WORDS_MAX)
            .collect()
    }

    /// The error that a status other than 200 means, where the body says nothing better.
    pub fn refusal(&self) -> RpcError {
        let words = self.words();
        let text = match self.status {
            403 => "the node does not let this machine in (see its option rpcallowip)".into(),
            503 if words.to_ascii_lowercase().contains("queue") => {
                "the node is overloaded: its RPC work queue is full".into()
            }
            503 => format!("the node is not ready: {words}"),
            status if words.is_empty() => format!("the node answered with HTTP status {status}"),
            status => format!("the node answered with HTTP status {status}: {words}"),
        };
        RpcError::Unavailable(text)
    }
}

/// One exchange: what to send, how long it may take, how large the answer may be.
pub(super) struct Exchange<'a> {
    pub url: &'a str,
    /// The value of the header `Authorization`.
    pub authorization: Option<&'a str>,
    /// Posted where there is one.
    pub body: Option<&'a [u8]>,
    pub deadline: Duration,
    pub answer_max: u64,
}

/// A pool of connections to one node.
pub(super) struct Http {
    agent: Agent,
    running: Mutex<usize>,
    one_done: Condvar,
    pub stats: Stats,
}

impl Http {
    pub fn new() -> Http {
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_DEADLINE))
            .max_idle_age(IDLE_MAX)
            .max_idle_connections(EXCHANGES_MAX)
            .max_idle_connections_per_host(EXCHANGES_MAX)
            .user_agent("ambra")
            .build();
        Http {
            agent: config.into(),
            running: Mutex::new(0),
            one_done: Condvar::new(),
            stats: Stats::default(),
        }
    }

    /// Waits for its turn, then exchanges; tries again where the node was busy.
    pub fn exchange(&self, exchange: &Exchange<'_>) -> Result<Reply, RpcError> {
        let began = Instant::now();
        let result = self.exchange_in_turn(exchange, began + exchange.deadline);
        self.stats.count(began.elapsed(), result.is_ok());
        result
    }

    fn exchange_in_turn(&self, exchange: &Exchange<'_>, end: Instant) -> Result<Reply, RpcError> {
        let _turn = self.turn(end)?;
        let mut pause = BUSY_PAUSE;
        for _ in 1..BUSY_TRIES {
            let reply = self.exchange_at_once(exchange, end)?;
            if reply.status != 503 || Instant::now() + pause >= end {
                return Ok(reply);
            }
            std::thread::sleep(pause);
            pause *= 4;
        }
        self.exchange_at_once(exchange, end)
    }

    /// Without waiting for a turn: for the one call that is meant to take long.
    pub fn exchange_at_once(
        &self,
        exchange: &Exchange<'_>,
        end: Instant,
    ) -> Result<Reply, RpcError> {
        // A kept connection may have been closed by a restarted node: a new one is tried once. All
        // methods that Ambra calls may be called twice (a transaction too may be sent again).
        match self.try_exchange(exchange, end) {
            Err(ureq::Error::Io(error)) if is_closed_connection(&error) => {
                self.try_exchange(exchange, end)
            }
            result => result,
        }
        .map_err(|error| in_words(error, exchange))
    }

    fn try_exchange(&self, exchange: &Exchange<'_>, end: Instant) -> Result<Reply, ureq::Error> {
        let left = end.saturating_duration_since(Instant::now());
        let mut response = match exchange.body {
            Some(body) => {
                let mut request = self.agent.post(exchange.url);
                if let Some(value) = exchange.authorization {
                    request = request.header("Authorization", value);
                }
                request
                    .header("Content-Type", "application/json")
                    .config()
                    .timeout_global(Some(left))
                    .build()
                    .send(body)?
            }
            None => self
                .agent
                .get(exchange.url)
                .config()
                .timeout_global(Some(left))
                .build()
                .call()?,
        };
        let status = response.status().as_u16();
        let bytes_max = match status {
            200 => exchange.answer_max,
            _ => REFUSAL_MAX,
        };
        // ureq's limit must not be reached either, not even by the last byte.
        let body = response.body_mut().with_config();
        let body = body.limit(bytes_max.saturating_add(1)).read_to_vec()?;
        Ok(Reply { status, body })
    }

    fn turn(&self, end: Instant) -> Result<Turn<'_>, RpcError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while *running >= EXCHANGES_MAX {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(RpcError::Unavailable(format!(
                    "the node is slow: {EXCHANGES_MAX} calls wait for it already"
                )));
            }
            running = self
                .one_done
                .wait_timeout(running, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *running += 1;
        Ok(Turn(self))
    }
}

/// The right to exchange, given back when dropped.
struct Turn<'a>(&'a Http);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let running = self.0.running.lock();
        *running.unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.one_done.notify_one();
    }
}

fn is_closed_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof
    )
}

fn in_words(error: ureq::Error, exchange: &Exchange<'_>) -> RpcError {
    use io::ErrorKind;
    let node = node_name(exchange.url);
    let text = match error {
        ureq::Error::Timeout(_) => {
            let seconds = exchange.deadline.as_secs_f64();
            format!("no answer from {node} within {seconds:.0} seconds")
        }
        ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
            format!("nothing listens at {node}: is bitcoind running?")
        }
        ureq::Error::Io(error) if is_closed_connection(&error) => {
            format!("{node} closed the connection in the middle of an answer")
        }
        ureq::Error::Io(error) => format!("{node} cannot be reached: {error}"),
        ureq::Error::ConnectionFailed => {
            format!("nothing listens at {node}: is bitcoind running?")
        }
        ureq::Error::HostNotFound => format!("the host of {node} is not known"),
        ureq::Error::BodyExceedsLimit(bytes) => {
            format!("an answer from {node} is {bytes} bytes or more, which is too many")
        }
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            format!("{node} is no address of the form http://HOST:PORT")
        }
        ureq::Error::TlsRequired => format!("{node}: bitcoind speaks http, not https"),
        _ => format!("{node} does not answer like a bitcoind"),
    };
    RpcError::Unavailable(text)
}

/// The URL's scheme, host and port, for messages: no user, no path.
fn node_name(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}")
}

/// The URL without a user part: credentials are given apart from it.
pub(super) fn without_user(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::daemon::fake::{Answer, FakeNode};

    fn get(http: &Http, url: &str, deadline_ms: u64) -> Result<Reply, RpcError> {
        http.exchange(&Exchange {
            url,
            authorization: None,
            body: None,
            deadline: Duration::from_millis(deadline_ms),
            answer_max: 100,
        })
    }

    #[test]
    fn an_exchange_beyond_the_bound_waits_its_turn_and_gives_up_at_its_deadline() {
        let node = FakeNode::new(vec![Answer::Silence; EXCHANGES_MAX]);
        let (http, url) = (Http::new(), node.url());
        thread::scope(|scope| {
            for _ in 0..EXCHANGES_MAX {
                scope.spawn(|| get(&http, &url, 2_000).unwrap_err());
            }
            while node.asked().len() < EXCHANGES_MAX {
                thread::yield_now();
            }
            let words = get(&http, &url, 50).unwrap_err().to_string();
            assert_eq!(words, "the node is slow: 8 calls wait for it already");
        });
        assert_eq!(node.asked().len(), EXCHANGES_MAX);
        // All turns have been given back; the node, which has no answer left, hears of one more.
        get(&http, &url, 2_000).unwrap_err();
        assert!(node.asked().len() > EXCHANGES_MAX);
    }

    #[test]
    fn a_name_in_a_url_is_not_told() {
        for (url, name, clean) in [
            ("http://a:b@h:1/w", "http://h:1", "http://h:1/w"),
            ("http://h:1", "http://h:1", "http://h:1/"),
            ("h:1", "http://h:1", "http://h:1/"),
        ] {
            assert_eq!(
                (node_name(url), without_user(url)),
                (name.into(), clean.into())
            );
        }
    }
}
