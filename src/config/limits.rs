//! What clients may take: the options. Their defaults, their reasons and their arithmetic are in `server::Limits`,
//! `electrum::Settings` and `docs/operating.md`.

/// Absent: the room's own default.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Connections of all listeners; each takes a file descriptor [default: 10000]
    #[arg(long, value_name = "N", value_parser = between::<1, 1_000_000>)]
    pub max_connections: Option<usize>,

    /// Connections of one listener [default: 8000]
    #[arg(long, value_name = "N", value_parser = between::<1, 1_000_000>)]
    pub max_listener_connections: Option<usize>,

    /// Connections of one address (IPv6: of one /64) of another machine [default: 1000]
    #[arg(long, value_name = "N", value_parser = between::<1, 1_000_000>)]
    pub max_address_connections: Option<usize>,

    /// Memory for what comes from and goes to all clients, in MiB [default: 512]
    #[arg(long, value_name = "MIB", value_parser = between::<16, 1_048_576>)]
    pub max_client_memory: Option<usize>,

    /// Longest request, in bytes; a transaction is twice its bytes [default: 10000000]
    #[arg(long, value_name = "BYTES", value_parser = between::<1_000, 100_000_000>)]
    pub max_line_bytes: Option<usize>,

    /// Answers that wait for one client, in bytes, before no more is begun for it [default: 1000000]
    #[arg(long, value_name = "BYTES", value_parser = between::<1_000, 1_000_000_000>)]
    pub max_output_bytes: Option<usize>,

    /// Questions of one connection that are worked on at the same time [default: 64]
    #[arg(long, value_name = "N", value_parser = between::<1, 10_000>)]
    pub max_jobs: Option<usize>,

    /// Requests of one batch [default: 20000]
    #[arg(long, value_name = "N", value_parser = between::<1, 1_000_000>)]
    pub max_batch_requests: Option<usize>,

    /// Bytes of the replies to one batch [default: 64000000]
    #[arg(long, value_name = "BYTES", value_parser = between::<1_000, 1_000_000_000>)]
    pub max_batch_bytes: Option<usize>,

    /// Subscriptions of one session [default: 500000]
    #[arg(long, value_name = "N", value_parser = between::<1, 100_000_000>)]
    pub max_subscriptions: Option<usize>,

    /// Subscriptions of all sessions together [default: 2000000]
    #[arg(long, value_name = "N", value_parser = between::<1, 100_000_000>)]
    pub max_all_subscriptions: Option<usize>,

    /// Entries of a history for clients of other machines; 0: no limit; this machine's have none [default: 1000000]
    #[arg(long, value_name = "N", value_parser = between::<0, 4_000_000_000>)]
    pub max_history: Option<usize>,

    /// Seconds after which a client that takes nothing of what waits for it is closed [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = between::<1, 86_400>)]
    pub write_timeout: Option<usize>,

    /// Seconds after which a client that asks nothing is closed [default: 900]
    #[arg(long, value_name = "SECONDS", value_parser = between::<1, 86_400>)]
    pub idle_timeout: Option<usize>,

    /// Seconds for the handshakes of TLS and WebSocket [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = between::<1, 86_400>)]
    pub handshake_timeout: Option<usize>,
}

fn between<const MIN: u64, const MAX: u64>(text: &str) -> Result<usize, String> {
    text.parse::<usize>()
        .ok()
        .filter(|number| (MIN..=MAX).contains(&(*number as u64)))
        .ok_or_else(|| format!("give a number between {MIN} and {MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_outside_its_bounds_is_refused_with_the_bounds() {
        assert_eq!(between::<1, 10>("10"), Ok(10));
        for text in ["0", "11", "-1", "1e3", "", "18446744073709551616"] {
            let error = between::<1, 10>(text).unwrap_err();
            assert_eq!(error, "give a number between 1 and 10", "{text}");
        }
    }
}
