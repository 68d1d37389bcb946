//! How RocksDB is told to keep our rows.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options, WriteOptions};

use super::{
    hash_rows::{HISTORY, TXID},
    schema::TxPositionRow,
};

/// RocksDB's cache of uncompressed index and data blocks, in bytes. The operating system caches the
/// files besides.
pub const BLOCK_CACHE_BYTES: usize = 64 << 20;

/// What may wait in memory for all column families together, in bytes, before it is
/// flushed.
const WRITE_BUFFER_BYTES: usize = 64 << 20;

/// Bytes of a block in an SST file, uncompressed: a look-up reads and decompresses one.
const SST_BLOCK_BYTES: usize = 16 << 10;

/// Keys that share one start: fewer starts, smaller blocks.
const SST_RESTART_INTERVAL: i32 = 32;

/// The same of packed rows, of which a look-up reads one group of half a kilobyte, and of positions. Smaller blocks would need more
/// memory for their index (mainnet: 5 million blocks of 8 KiB, 80 MB).
pub const PACKED_BLOCK_BYTES: usize = 8 << 10;
const PACKED_RESTART_INTERVAL: i32 = 4;

/// Of zstd. `docs/decisions/0002-compression.md` has the figures.
const ZSTD_LEVEL: i32 = 5;

/// Of RocksDB's own log: the next one is begun then, and two are kept.
const LOG_BYTES: usize = 4 << 20;

/// Memory for unwritten rows is taken in pieces of so many bytes. RocksDB's own choice, 1 MiB for each column family, is counted
/// long before it is used.
const ARENA_BYTES: usize = 64 << 10;

pub fn durably() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

pub fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_atomic_flush(true);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // A log file that a copy left out is missed, instead of making a hole.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_db_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_total_wal_size(WRITE_BUFFER_BYTES as u64);
    options.set_max_background_jobs(2);
    options.set_max_open_files(open_files());
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(LOG_BYTES);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

/// A quarter of what the process may open: the rest is for block files and connections.
fn open_files() -> i32 {
    let allowed = rlimit::Resource::NOFILE.get_soft().unwrap_or(1024);
    i32::try_from(allowed / 4)
        .unwrap_or(i32::MAX)
        .clamp(32, 4096)
}

/// Options of one column family; `cache` is for a database, none for files made outside.
pub fn family_options(name: &str, cache: Option<&Cache>) -> Options {
    let mut table = BlockBasedOptions::default();
    match cache {
        Some(cache) => table.set_block_cache(cache),
        None => table.disable_cache(),
    }
    table.set_format_version(6);
    if [TxPositionRow::FAMILY, HISTORY.packed, TXID.packed].contains(&name) {
        table.set_block_size(PACKED_BLOCK_BYTES);
        table.set_block_restart_interval(PACKED_RESTART_INTERVAL);
    } else {
        table.set_block_size(SST_BLOCK_BYTES);
        table.set_block_restart_interval(SST_RESTART_INTERVAL);
    }
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(16 << 20);
    options.set_arena_block_size(ARENA_BYTES);
    options.set_level_compaction_dynamic_level_bytes(true);
    // What is packed already is not worth a decompression.
    if [TxPositionRow::FAMILY, HISTORY.packed, TXID.packed].contains(&name) {
        options.set_compression_type(DBCompressionType::None);
    } else {
        options.set_compression_type(DBCompressionType::Zstd);
        // RocksDB's default window and strategy, no dictionary.
        options.set_compression_options(-14, ZSTD_LEVEL, 0, 0);
    }
    options
}
