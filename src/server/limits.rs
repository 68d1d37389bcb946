//! Bounds of the server: each with its unit, its default, and the reason for it.

use std::time::Duration;

/// What one client, and all of them together, may take.
///
/// # Arithmetic
/// A connection that sends and asks the most holds a line in the making (`line_bytes_max`), answers that wait to go
/// out (`output_bytes_max`, and one answer more for each thread that made one meanwhile), and the replies to a batch
/// (`electrum::Settings::batch_reply_bytes_max`). An idle one holds some kilobytes and about 150 bytes a
/// subscription. All of them together hold `client_memory_max` in lines, answers and batches: whoever wants more than
/// `SMALL` while that is used up is closed. So memory for clients is at most `client_memory_max`, and
/// `connections_max` times `SMALL` and the state of a connection, and 300 bytes for each of
/// `electrum::Settings::all_subscriptions_max`. `docs/operating.md` has the sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest request. A block's worth of transaction is 8 MB of digits.
    pub line_bytes_max: usize,
    /// While more than this waits to go out, nothing more is read or begun.
    pub output_bytes_max: usize,
    /// Bytes of all connections' lines, answers and batches.
    pub client_memory_max: usize,
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
    /// Connections of one listener: fewer than of all, so that a flood at one leaves room at the others.
    pub listener_connections_max: usize,
    /// Connections of one address of another machine.
    pub address_connections_max: usize,
    /// Connections of all listeners. Each takes a file descriptor.
    pub connections_max: usize,
    /// Origins of web pages that may use WebSocket listeners, in small letters; `*`: all.
    pub allowed_origins: Vec<String>,
    /// Threads for questions that read some disk.
    pub short_threads: usize,
    /// Threads for long histories.
    pub long_threads: usize,
    /// Threads for questions to the node, which wait more than they work.
    pub node_threads: usize,
}

/// Bytes that a connection may hold even while the memory for all of them is used up: who asks small things is
/// served whatever others do.
pub const SMALL: usize = 64 * 1024;

impl Default for Limits {
    fn default() -> Limits {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Limits {
            line_bytes_max: 10_000_000,
            output_bytes_max: 1_000_000,
            client_memory_max: 512 << 20,
            jobs_in_flight_max: 64,
            write_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(15 * 60),
            handshake_timeout: Duration::from_secs(10),
            half_closed_timeout: Duration::from_secs(5),
            listener_connections_max: 8_000,
            address_connections_max: 1_000,
            connections_max: 10_000,
            allowed_origins: Vec::new(),
            short_threads: cores.max(2),
            long_threads: (cores / 2).max(1),
            node_threads: 4,
        }
    }
}
