//! What is fuzzed of this room: a session that gets any lines at all, and parameters of any kind.

use std::{collections::VecDeque, sync::Arc};

use bitcoin::Network;
use serde_json::value::RawValue;

use super::{
    Job, Outbox, Peer, Ran, Session, Settings, Version,
    fake::Fake,
    message::{self, Message, Request},
    methods::METHODS,
    params::Args,
};

/// Small, so that bounds are met.
fn settings() -> Settings {
    Settings {
        protocol_max: Version::V1_7,
        network: Network::Regtest,
        batch_requests_max: 8,
        subscriptions_max: 4,
        remote_history_max: Some(3),
        ..Settings::default()
    }
}

/// A session's lines. All that it says must be lines of JSON, and each request that wants a reply gets one.
pub fn session(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let peer = match first & 1 {
        0 => Peer::Local,
        _ => Peer::Remote,
    };
    let mut session = Session::new(Fake::new().backend(), Arc::new(settings()), peer);
    for line in bytes.split(|byte| *byte == b'\n') {
        if session.is_closing() {
            break;
        }
        let mut out = Outbox::default();
        let mut jobs = Vec::new();
        session.handle(line, &mut out, &mut jobs);
        let mut waiting: VecDeque<Job> = jobs.into();
        while let Some(job) = waiting.pop_front() {
            match job.run() {
                Ran::Done(done) => {
                    let mut jobs = Vec::new();
                    session.finish(done, &mut out, &mut jobs);
                    waiting.extend(jobs);
                }
                Ran::Longer(job) => waiting.push_back(job),
            }
        }
        let replies = replies(out);
        if !session.is_closing() {
            assert_eq!(replies, wanted(line), "{}", String::from_utf8_lossy(line));
        }
    }
}

/// How many lines that are no notifications were said.
fn replies(mut out: Outbox) -> usize {
    let mut bytes = Vec::new();
    while !out.is_empty() {
        bytes.extend_from_slice(out.next());
        out.advance(out.next().len());
    }
    assert!(bytes.is_empty() || bytes.ends_with(b"\n"));
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines
        .filter(|line| {
            // Not as a value: an id comes back as it came, be it a number beyond all ranges.
            let said: &RawValue = serde_json::from_slice(line).expect("JSON");
            let begins = |with: &str| said.get().starts_with(with);
            !begins(r#"{"id":null,"method":"#) && !begins(r#"{"jsonrpc":"2.0","method":"#)
        })
        .count()
}

/// How many lines of replies the line asks for.
fn wanted(line: &[u8]) -> usize {
    let is_notification =
        |raw: &&RawValue| matches!(Request::parse(raw), Ok(request) if request.id.is_none());
    match message::parse(line, settings().batch_requests_max) {
        Ok(Message::One(raw)) => usize::from(!is_notification(&raw)),
        Ok(Message::Batch(members)) => usize::from(!members.iter().all(is_notification)),
        Err(_) => 1,
    }
}

/// The first byte names a row of the method table; the rest are its parameters.
pub fn params(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else {
        return;
    };
    let method = &METHODS[usize::from(*which) % METHODS.len()];
    if let Ok(raw) = serde_json::from_slice::<&RawValue>(bytes) {
        let network = Network::Regtest;
        if let Ok(args) = Args::bind(method.params, method.is_tolerant, Some(raw), network) {
            let _ = (args.script(0), args.first_script());
            let _ = method.cost.of(&args);
        }
    }
}
