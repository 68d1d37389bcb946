//! Sessions, spoken to as a client speaks, over a small world.

mod batches;
mod cells;
mod document;
mod negotiation;
mod nonsense;
mod pushes;

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Job, Lane, Outbox, Peer, Ran, Session, Settings,
    fake::Fake,
    version::{Speaks, Version},
};

/// A session, its world, and jobs that were not yet run.
struct Client {
    fake: Fake,
    session: Session,
    jobs: Vec<Job>,
    id: u64,
}

fn settings() -> Settings {
    Settings {
        server_name: "Ambra/test".to_owned(),
        protocol_max: Version::V1_7,
        network: bitcoin::Network::Regtest,
        ..Settings::default()
    }
}

impl Client {
    fn new() -> Client {
        Client::with(settings(), Peer::Local)
    }

    fn with(settings: Settings, peer: Peer) -> Client {
        let fake = Fake::new();
        let session = Session::new(fake.backend(), Arc::new(settings), peer);
        Client {
            fake,
            session,
            jobs: Vec::new(),
            id: 0,
        }
    }

    /// A session that agreed on a version.
    fn at(version: Version) -> Client {
        let mut client = Client::new();
        client.ask("server.version", json!(["test", version.to_string()]));
        client
    }

    fn speaking(speaks: Speaks) -> Client {
        match speaks {
            Speaks::Anything => Client::new(),
            Speaks::Agreed(version) => Client::at(version),
        }
    }

    /// Sends a line; what it takes to answer it stays to be done.
    fn send(&mut self, line: &str) -> Vec<Value> {
        let mut out = Outbox::default();
        self.session
            .handle(line.as_bytes(), &mut out, &mut self.jobs);
        lines(out)
    }

    /// Does what is to be done, and what follows from it.
    fn run(&mut self) -> Vec<Value> {
        let mut said = Vec::new();
        while !self.jobs.is_empty() {
            let job = self.jobs.remove(0);
            said.extend(self.run_one(job));
        }
        said
    }

    fn run_one(&mut self, job: Job) -> Vec<Value> {
        let mut out = Outbox::default();
        match job.run() {
            Ran::Done(done) => self.session.finish(done, &mut out, &mut self.jobs),
            Ran::Longer(job) => {
                assert_eq!(job.lane(), Lane::Long);
                self.jobs.push(job);
            }
        }
        lines(out)
    }

    /// Sends a line and gives all that is said.
    fn say(&mut self, line: &str) -> Vec<Value> {
        let mut said = self.send(line);
        said.extend(self.run());
        said
    }

    /// Sends a request and gives its reply.
    fn reply(&mut self, method: &str, params: Value) -> Value {
        self.id += 1;
        let request =
            json!({ "jsonrpc": "2.0", "id": self.id, "method": method, "params": params });
        let mut said = self.say(&request.to_string());
        assert_eq!(said.len(), 1, "{method}: {said:?}");
        let reply = said.remove(0);
        assert_eq!(reply["id"], self.id);
        assert_eq!(reply["jsonrpc"], "2.0");
        reply
    }

    /// Sends a request and gives its result.
    fn ask(&mut self, method: &str, params: Value) -> Value {
        let mut reply = self.reply(method, params);
        assert!(reply.get("error").is_none(), "{method}: {reply}");
        reply["result"].take()
    }

    /// Sends a request and gives its error's code.
    fn code(&mut self, method: &str, params: Value) -> i64 {
        let reply = self.reply(method, params);
        assert!(reply.get("result").is_none(), "{method}: {reply}");
        assert!(!reply["error"]["message"].as_str().unwrap().is_empty());
        reply["error"]["code"].as_i64().unwrap()
    }

    /// Hears of changes as a connection does, and gives the notifications.
    fn hear(&mut self) -> Vec<Value> {
        let listener = self.session.listener();
        let mut said = Vec::new();
        loop {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            let std::task::Poll::Ready(changed) = listener.changed().as_mut().poll(&mut cx) else {
                return said;
            };
            let mut out = Outbox::default();
            self.session.on_change(changed, &mut out, &mut self.jobs);
            said.extend(lines(out));
            said.extend(self.run());
        }
    }
}

fn lines(mut out: Outbox) -> Vec<Value> {
    let mut bytes = Vec::new();
    while !out.is_empty() {
        bytes.extend_from_slice(out.next());
        out.advance(out.next().len());
    }
    if bytes.is_empty() {
        return Vec::new();
    }
    assert_eq!(bytes.pop(), Some(b'\n'));
    bytes
        .split(|byte| *byte == b'\n')
        .map(|line| {
            serde_json::from_slice(line)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)))
        })
        .collect()
}

/// All that a session can speak.
fn all_speaks() -> impl Iterator<Item = Speaks> {
    let agreed = Version::DEFINED.into_iter().map(Speaks::Agreed);
    agreed.chain([Speaks::Anything])
}
