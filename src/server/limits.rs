//! Bounds of the server: each with its unit, its default, and the reason for it.

use std::time::Duration;

/// What one client, and all of them together, may take.
///
/// # Arithmetic
/// A connection that sends and asks the most holds one line in the making (`line_bytes_max`), answers waiting
/// to go out (`output_bytes_max` and one answer more), and `jobs_in_flight_max` short answers of at most 110 KB
/// each (see `SHORT_HISTORY` in `electrum/job.rs`); long answers are made one at a time. An idle one holds some
/// kilobytes and about 150 bytes a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest request. A block's worth of transaction is 8 MB of digits.
    pub line_bytes_max: usize,
    /// While more than this waits to go out, nothing more is read or begun.
    pub output_bytes_max: usize,
    /// Questions of one connection that other threads answer at the same time.
    pub jobs_in_flight_max: usize,
    /// A client that takes nothing of what waits for it for so long is gone.
    pub write_timeout: Duration,
    /// A client that asks nothing for so long is gone. The protocol says "roughly 10 minutes".
    pub idle_timeout: Duration,
    /// For the handshakes of TLS and WebSocket.
    pub handshake_timeout: Duration,
    /// How long a client that closed its sending side is still answered.
    pub half_closed_timeout: Duration,
    /// Connections of one listener.
    pub listener_connections_max: usize,
    /// Connections of all listeners. Each takes a file descriptor.
    pub connections_max: usize,
    /// Threads for questions that read some disk.
    pub short_threads: usize,
    /// Threads for long histories.
    pub long_threads: usize,
    /// Threads for questions to the node, which wait more than they work.
    pub node_threads: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Limits {
            line_bytes_max: 10_000_000,
            output_bytes_max: 1_000_000,
            jobs_in_flight_max: 64,
            write_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(15 * 60),
            handshake_timeout: Duration::from_secs(10),
            half_closed_timeout: Duration::from_secs(5),
            listener_connections_max: 10_000,
            connections_max: 10_000,
            short_threads: cores.max(2),
            long_threads: (cores / 2).max(1),
            node_threads: 4,
        }
    }
}
