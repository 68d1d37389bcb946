//! The Electrum protocol, without sockets: messages, the method table, sessions.
//!
//! A line comes in ([`Session::handle`]); what can be answered from memory is answered at once into
//! the [`Outbox`], the rest becomes [`Job`]s for other threads, whose results come back by
//! [`Session::finish`]. Changes come in by [`Session::on_change`] and leave as notifications.

mod answers;
mod backend;
mod batch;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) mod fake;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod job;
mod json;
mod message;
mod methods;
mod outbox;
mod params;
mod refusal;
mod session;
mod settings;
mod stats;
mod subscribed;
#[cfg(test)]
mod tests;
mod version;

pub use backend::{Answers, Backend, Change, Listener, Live, Node};
pub use job::{Done, Job, Lane, Ran};
pub use outbox::Outbox;
pub use refusal::Refusal;
pub use session::{Peer, Session};
pub use settings::{Service, ServiceKind, Settings};
pub use stats::{BUCKETS_NS, Stats, Times, Told, Way};
pub use version::{NotAVersion, Version};
