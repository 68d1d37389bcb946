//! What RocksDB keeps in memory.

use rocksdb::perf::get_memory_usage_stats;

use super::{Index, IndexError};

/// In bytes, as RocksDB counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatabaseMemory {
    /// Rows that are in no table yet, only in the log.
    pub unwritten: u64,
    /// Indexes of tables, where the block cache does not hold them.
    pub tables: u64,
    /// Of the block cache.
    pub cache: u64,
}

impl Index {
    pub fn memory(&self) -> Result<DatabaseMemory, IndexError> {
        let stats = get_memory_usage_stats(Some(&[&self.db]), Some(&[&self.cache]))?;
        Ok(DatabaseMemory {
            unwritten: stats.mem_table_total,
            tables: stats.mem_table_readers_total,
            cache: stats.cache_total,
        })
    }
}
