//! How an envelope travels: over HTTP, with credentials, and back with an error that says what to do.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bitcoincore_rpc::jsonrpc::{self, Request, Response, Transport};
use serde::de::DeserializeOwned;

use super::{RpcError, credentials::Credentials};
use crate::daemon::http::{Exchange, Http, Reply};

/// An answer's bound, in bytes. The largest are those of `getblock` 3: 24,390 inputs (a megabyte without
/// witnesses, 41 bytes each), of each some 700 characters for an ordinary spent output, are 17 MB; this
/// leaves 20,000 characters for each, and so for spent scripts of thousands of bytes.
const ANSWER_MAX: u64 = 512 << 20;
/// Bitcoin Core's `RPC_IN_WARMUP`.
const IN_WARMUP: i32 = -28;

/// Carries the envelopes to the node and back.
#[derive(Clone)]
pub(super) struct NodeTransport {
    pub http: Arc<Http>,
    pub url: Arc<str>,
    pub credentials: Arc<Credentials>,
    pub deadline: Duration,
    /// False of the long poll, which would hold its turn for long.
    pub takes_turns: bool,
}

impl NodeTransport {
    fn post<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, RpcError> {
        let first = self.credentials.header()?;
        let mut reply = self.exchange(&first, body)?;
        if reply.status == 401 {
            // The cookie of a node that has been restarted since.
            let second = self.credentials.after(&first)?;
            reply = self.exchange(&second, body)?;
        }
        if reply.status == 401 {
            return Err(self.credentials.refused());
        }
        // Errors too come as JSON, whatever the status.
        match serde_json::from_slice(&reply.body) {
            Ok(answer) => Ok(answer),
            Err(_) if reply.status != 200 => Err(match lone_error(&reply.body) {
                Some(error) => error,
                None => reply.refusal(),
            }),
            Err(_) => Err(RpcError::Unavailable(
                "the node's answer is not what a bitcoind would say".into(),
            )),
        }
    }

    fn exchange(&self, authorization: &str, body: &[u8]) -> Result<Reply, RpcError> {
        let exchange = Exchange {
            url: &self.url,
            authorization: Some(authorization),
            body: Some(body),
            deadline: self.deadline,
            answer_max: ANSWER_MAX,
        };
        if self.takes_turns {
            self.http.exchange(&exchange)
        } else {
            let end = Instant::now() + self.deadline;
            self.http.exchange_at_once(&exchange, end)
        }
    }
}

/// The one error that answers a whole batch.
fn lone_error(body: &[u8]) -> Option<RpcError> {
    let response: Response = serde_json::from_slice(body).ok()?;
    let error = response.error?;
    Some(sorted(jsonrpc::Error::Rpc(error), "a batch"))
}

impl Transport for NodeTransport {
    fn send_request(&self, request: Request<'_>) -> Result<Response, jsonrpc::Error> {
        let answer = self.post(&serde_json::to_vec(&request)?);
        answer.map_err(|error| jsonrpc::Error::Transport(Box::new(error)))
    }

    fn send_batch(&self, requests: &[Request<'_>]) -> Result<Vec<Response>, jsonrpc::Error> {
        let answer = self.post(&serde_json::to_vec(requests)?);
        answer.map_err(|error| jsonrpc::Error::Transport(Box::new(error)))
    }

    fn fmt_target(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

/// What the caller can do about an error of the envelope's crate.
pub(super) fn sorted(error: jsonrpc::Error, method: &str) -> RpcError {
    match error {
        jsonrpc::Error::Transport(error) => match error.downcast::<RpcError>() {
            Ok(error) => *error,
            Err(_) => RpcError::garbage(method),
        },
        jsonrpc::Error::Rpc(error) if error.code == IN_WARMUP => RpcError::starting(&error.message),
        jsonrpc::Error::Rpc(error) => RpcError::Refused {
            code: error.code,
            message: error.message,
        },
        _ => RpcError::garbage(method),
    }
}
