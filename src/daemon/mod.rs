//! The node: RPC, REST, block files, ZMQ.
mod bitcoin_conf;
pub mod discover;
mod error;
#[cfg(test)]
pub(crate) mod fake;
pub mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod http;
pub mod rest;
pub mod rpc;
pub mod running;
pub mod source;
mod stats;
pub mod zmq;

pub use stats::Stats;
