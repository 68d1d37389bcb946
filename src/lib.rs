//! Ambra: a personal Electrum server.
//!
//! The rooms, from the ground up; each may import those below it, and none beside it:
//!
//! ```text
//! server admin     sockets, limits; status page
//! electrum sync    the protocol without sockets; the one writer
//! state            Views: what may be answered at one moment
//! index mempool daemon   rows on disk; unconfirmed transactions; the node
//! chain            numbers, hashes, parsers: pure
//! ```
//!
//! Outside of the ladder stand `config`, which is told to nobody but the joiner, and the joiner itself: [`run`]
//! does what the command line asks for.

#![forbid(unsafe_code)]

pub mod admin;
pub mod chain;
pub mod config;
pub mod daemon;
pub mod electrum;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod index;
mod joiner;
pub mod mempool;
pub mod server;
pub mod state;
pub mod sync;

pub use joiner::{Outcome, RunError, run};
