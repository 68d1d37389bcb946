//! Load on a server: many requests in flight on some connections, and what came back.

use std::{
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use crate::client::{Client, Failure};

/// No measurement of a rate sends for longer than this; what came until then counts.
const LONGEST: Duration = Duration::from_secs(8);

/// A request without its id: method and parameters as JSON.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: &'static str,
    pub params: String,
}

impl Request {
    pub fn new(method: &'static str, params: String) -> Request {
        Request { method, params }
    }

    pub fn write(&self, id: usize, to: &mut Vec<u8>) {
        use std::io::Write;
        let _ = writeln!(
            to,
            r#"{{"id":{id},"method":"{}","params":{}}}"#,
            self.method, self.params
        );
    }
}

/// The answers to some requests, and the time it took.
pub struct Answers {
    pub elapsed: Duration,
    /// The index of the request, and the line.
    pub lines: Vec<(usize, Vec<u8>)>,
}

impl Answers {
    pub fn rate(&self) -> f64 {
        self.lines.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Hands each result to `check`; an answer that is an error, or missing, is a failure.
    pub fn check(&self, check: impl Fn(usize, &str) -> Result<(), Failure>) -> Result<(), Failure> {
        for (request, line) in &self.lines {
            let reply: crate::client::Reply = serde_json::from_slice(line)?;
            check(*request, reply.result()?)?;
        }
        Ok(())
    }
}

/// Sends the requests on so many connections, each with so many in flight.
pub fn rate(
    address: &str,
    connections: usize,
    in_flight: usize,
    requests: &[Request],
) -> Result<Answers, Failure> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::negotiated(address)?);
    }
    let started = Instant::now();
    let all = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let handles: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(first, client)| {
                let all = &all;
                scope.spawn(move || {
                    let mine: Vec<usize> = (first..requests.len()).step_by(connections).collect();
                    let lines = pipeline(client, requests, &mine, in_flight)?;
                    let mut all = all.lock().map_err(|_| "a thread failed")?;
                    all.extend(lines);
                    Ok::<_, Failure>(())
                })
            })
            .collect();
        handles
            .into_iter()
            .try_for_each(|handle| handle.join().map_err(|_| "a thread failed")?)
    })?;
    let elapsed = started.elapsed();
    let lines = all.into_inner().map_err(|_| "a thread failed")?;
    let lines = lines
        .into_iter()
        .map(|line| Ok((id_of(&line)?, line)))
        .collect::<Result<_, Failure>>()?;
    Ok(Answers { elapsed, lines })
}

/// Keeps `in_flight` requests on their way until all are answered; gives the answers as they came.
pub fn pipeline(
    client: &mut Client,
    requests: &[Request],
    which: &[usize],
    in_flight: usize,
) -> Result<Vec<Vec<u8>>, Failure> {
    let started = Instant::now();
    let mut lines = Vec::with_capacity(which.len());
    let mut to_send = which.iter();
    let mut waiting = 0;
    let mut out = Vec::new();
    loop {
        out.clear();
        while waiting < in_flight && started.elapsed() < LONGEST {
            let Some(&request) = to_send.next() else {
                break;
            };
            requests[request].write(request, &mut out);
            waiting += 1;
        }
        if !out.is_empty() {
            client.send(&out)?;
        }
        if waiting == 0 {
            return Ok(lines);
        }
        loop {
            let line = client.read_line()?;
            if !is_notification(line) {
                lines.push(line.to_vec());
                waiting -= 1;
            }
            if waiting == 0 || !client.has_buffered() {
                break;
            }
        }
    }
}

/// A notification has a method, which no answer has. Both stand in the first bytes of a line.
fn is_notification(line: &[u8]) -> bool {
    let head = &line[..line.len().min(120)];
    head.windows(8).any(|window| window == b"\"method\"")
}

fn id_of(line: &[u8]) -> Result<usize, Failure> {
    let reply: crate::client::Reply = serde_json::from_slice(line)?;
    Ok(reply.id.ok_or("an answer without id")? as usize)
}

/// One request after the other on one connection; gives how long each took.
pub fn one_by_one(
    client: &mut Client,
    requests: &mut dyn Iterator<Item = &Request>,
    until: &dyn Fn() -> bool,
) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    let mut out = Vec::new();
    for request in requests {
        if until() {
            break;
        }
        out.clear();
        request.write(0, &mut out);
        let started = Instant::now();
        client.send(&out)?;
        while is_notification(client.read_line()?) {}
        times.push(started.elapsed());
    }
    Ok(times)
}

/// The value below which so many of a hundred are.
pub fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default()
}
