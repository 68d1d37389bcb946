//! What the system allows.

use super::Check;
use crate::config::Config;

/// Fewer, and RocksDB with a full index or many wallets run out of them.
const OPEN_FILES_LOW: u64 = 4096;

pub(super) fn look(config: &Config, checks: &mut Vec<Check>) {
    // main has raised it by now as far as the system allows.
    let allowed = rlimit::Resource::NOFILE.get_soft().unwrap_or(0);
    checks.push(match allowed < OPEN_FILES_LOW {
        true => Check::warn(
            "open files",
            format!("only {allowed} may be open at a time"),
            format!(
                "ulimit -n {OPEN_FILES_LOW}, or LimitNOFILE={OPEN_FILES_LOW} in the systemd unit"
            ),
        ),
        false => Check::ok("open files", format!("{allowed} may be open at a time")),
    });
    if let Some(free) = available_memory() {
        let wants = config.sync_memory_bytes as u64 + config.cache_memory_bytes as u64;
        let megabytes = |bytes: u64| bytes >> 20;
        let says = format!(
            "{} MiB available; the first sync and the cache may take {} MiB",
            megabytes(free),
            megabytes(wants)
        );
        checks.push(match free < wants {
            true => Check::warn(
                "memory",
                says,
                format!("ambra --sync-memory {}", (megabytes(free) / 2).max(64)),
            ),
            false => Check::ok("memory", says),
        });
    }
}

/// In bytes, where the system says (Linux).
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes << 10)
}
