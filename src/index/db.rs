//! The database: the only place that knows RocksDB.
//!
//! # Correctness
//! A block's rows and the new tip go in one atomic batch, so the index is at every moment that of one
//! block. Rows at or above the tip's next TxNum are never shown. All column families are flushed
//! together (`atomic_flush`): a torn write-ahead log can take back the newest blocks, never a part of one.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bitcoin::{BlockHash, blockdata::constants::genesis_block, hashes::Hash};
use rocksdb::{Cache, ColumnFamily, ColumnFamilyDescriptor, DB, FlushOptions, WriteBatch};

use super::{
    BlockRow, IndexError,
    error::open_error,
    families::{
        FAMILIES, FOLDER, Family, META, META_FORMAT, META_GENESIS, META_PACKED_END,
        META_POSITION_SUMS, META_PREFIXES, META_TIP,
    },
    flat::{FlatFile, MERKLE, POSITIONS, Section, position_at},
    folder::{has_database, is_of_this_version, is_whole, of_format},
    open_count::Counted,
    options::{BLOCK_CACHE_BYTES, PACKED_BLOCK_BYTES, database_options, durably, family_options},
    schema::{DamagedRow, FORMAT, SCRIPT_PREFIX_LEN, TXID_PREFIX_LEN, TipRow},
    walk::KeptIterators,
};
use crate::chain::{Height, TxNum};

/// The index: which transactions touch a script, where a transaction lies, what the chain is.
pub struct Index {
    /// Before `db`, which stays open as long as one of them is there.
    pub(super) iterators: KeptIterators,
    pub(super) db: Arc<DB>,
    pub(super) cache: Cache,
    pub(super) positions: FlatFile,
    pub(super) merkle: FlatFile,
    path: PathBuf,
    /// `meta`'s row of that name.
    pub(super) packed_end: AtomicU32,
    /// Behind `db`, so that it goes after it.
    _counted: Counted,
}

impl Index {
    /// Opens the database in the folder `path`, or makes it, for the chain that starts with `genesis`.
    pub fn open(path: &Path, genesis: &BlockHash) -> Result<Index, IndexError> {
        std::fs::create_dir_all(path).map_err(|cause| IndexError::File {
            action: "cannot make the folder",
            path: path.to_owned(),
            cause,
        })?;
        is_whole(path)?;
        is_of_this_version(path)?;
        let counted = Counted::new();
        // Without a lock that threads could wait for.
        let cache = Cache::new_hyper_clock_cache(BLOCK_CACHE_BYTES, PACKED_BLOCK_BYTES);
        let families = FAMILIES
            .map(|name| ColumnFamilyDescriptor::new(name, family_options(name, Some(&cache))));
        let db = DB::open_cf_descriptors(&database_options(), path.join(FOLDER), families)
            .map_err(|error| open_error(error, path))?;
        let index = Index {
            iterators: KeptIterators::default(),
            db: Arc::new(db),
            cache,
            positions: FlatFile::in_folder(&path.join(FOLDER), POSITIONS),
            merkle: FlatFile::in_folder(&path.join(FOLDER), MERKLE),
            path: path.to_owned(),
            packed_end: AtomicU32::new(0),
            _counted: counted,
        };
        index.check_identity(genesis)?;
        index.read_packed_end()?;
        index.check_tip()?;
        Ok(index)
    }

    /// Opens an index to read what it holds at this moment, be there a server that writes it or not.
    /// `scratch` is a folder for RocksDB's own log; nothing is written to the index.
    pub(super) fn open_beside(
        path: &Path,
        scratch: &Path,
        genesis: &BlockHash,
    ) -> Result<Index, IndexError> {
        let folder = path.join(FOLDER);
        if !has_database(path)? {
            return Err(IndexError::None {
                path: path.to_owned(),
            });
        }
        is_whole(path)?;
        is_of_this_version(path)?;
        let mut options = database_options();
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        // So the files that the server deletes meanwhile stay readable.
        options.set_max_open_files(-1);
        let counted = Counted::new();
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let families = FAMILIES
            .map(|name| ColumnFamilyDescriptor::new(name, family_options(name, Some(&cache))));
        let db =
            DB::open_cf_descriptors_as_secondary(&options, folder.as_path(), scratch, families)?;
        let index = Index {
            iterators: KeptIterators::default(),
            db: Arc::new(db),
            cache,
            positions: FlatFile::in_folder(&folder, POSITIONS),
            merkle: FlatFile::in_folder(&folder, MERKLE),
            path: path.to_owned(),
            packed_end: AtomicU32::new(0),
            _counted: counted,
        };
        if index.db.get_cf(index.family(META), META_FORMAT)?.is_none() {
            return Err(IndexError::None {
                path: path.to_owned(),
            });
        }
        index.check_identity(genesis)?;
        index.read_packed_end()?;
        Ok(index)
    }

    fn read_packed_end(&self) -> Result<(), IndexError> {
        if let Some(end) = self.meta(META_PACKED_END)? {
            let end = end.try_into().map(u32::from_le_bytes);
            let damaged = |_| DamagedRow { family: META };
            self.packed_end
                .store(end.map_err(damaged)?, Ordering::Release);
        }
        Ok(())
    }

    /// The tip is the highest block's. A batch that is lost in the middle of the write-ahead log (a file that a
    /// copy left out) would show here.
    fn check_tip(&self) -> Result<(), IndexError> {
        let Some(tip) = self.tip()? else {
            return Ok(());
        };
        let mut highest = self.db.raw_iterator_cf(self.family(BlockRow::FAMILY));
        highest.seek_to_last();
        let Some((key, value)) = highest.item() else {
            highest.status()?;
            return Err(IndexError::Corrupt("it has a tip and no block".to_owned()));
        };
        let (height, row) = (BlockRow::decode_key(key)?, BlockRow::decode_value(value)?);
        if (height, row.hash) != (tip.height, tip.hash) {
            return Err(IndexError::Corrupt(format!(
                "its tip is block {}, its highest row block {height}",
                tip.height
            )));
        }
        self.check_block_is_there(&tip)?;
        self.open_flat(self.packed_end())?;
        let last = TxNum(tip.next_tx.0.wrapping_sub(1));
        // The first sync's file reaches so far.
        let has_place = self.is_flat(last) || self.tx_places().get_in(last, &row.txs())?.is_some();
        if !has_place {
            return Err(lost_rows(tip.height));
        }
        // It was taken in last: where it is there, so are the others.
        if self.packed_end() > TxNum::ZERO && self.is_empty(Family::Txid) {
            return Err(IndexError::Corrupt(
                "the rows of its first sync are missing".to_owned(),
            ));
        }
        Ok(())
    }

    /// The row of the block that ends here is there. Files that the database took in are named in its MANIFEST, a
    /// mark or tip that counts on them is in its log: where the end of the first is lost, the second must not count.
    pub(super) fn check_block_is_there(&self, end: &TipRow) -> Result<(), IndexError> {
        let row = self.block(end.height)?;
        let next_tx = row.and_then(|row| row.first_tx.checked_add(row.tx_count));
        let is_block = row.is_some_and(|row| row.hash == end.hash) && next_tx == Some(end.next_tx);
        match is_block {
            true => Ok(()),
            false => Err(lost_rows(end.height)),
        }
    }

    /// The places of all transactions below `end` are in their file, and the newest of them as they were written: a power
    /// cut can harm no others.
    pub(super) fn check_flat(&self, end: TxNum) -> Result<(), IndexError> {
        self.positions.check_reaches(position_at(end))?;
        let sections = self.flat_sections()?;
        let last = sections.last().filter(|section| section.end == end);
        let is_whole = match last {
            Some(last) => {
                let go_on = &mut |_| ControlFlow::Continue(());
                last.is_whole(&self.positions, go_on)? == Some(true)
            }
            None => false,
        };
        match is_whole {
            true => Ok(()),
            false => Err(IndexError::Corrupt(format!(
                "its file {POSITIONS} is not as it was written"
            ))),
        }
    }

    /// The first sync's files are there, up to this transaction, and open from now on.
    pub(super) fn open_flat(&self, end: TxNum) -> Result<(), IndexError> {
        self.positions.check_reaches(position_at(end))?;
        if end > TxNum::ZERO
            && let Err(error) = self.merkle.check_reaches(1)
        {
            tracing::warn!("{error} (until then proofs take longer)");
        }
        Ok(())
    }

    pub(super) fn flat_sections(&self) -> Result<Vec<Section>, IndexError> {
        let value = self.meta(META_POSITION_SUMS)?.unwrap_or_default();
        Ok(Section::decode_all(&value)?)
    }

    /// The folder it lies in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check_identity(&self, genesis: &BlockHash) -> Result<(), IndexError> {
        let meta = self.family(META);
        let prefixes = [SCRIPT_PREFIX_LEN as u8, TXID_PREFIX_LEN as u8];
        let foreign = |found: String, wanted: String| IndexError::Foreign {
            path: self.path.clone(),
            found,
            wanted,
        };
        let Some(format) = self.db.get_cf(meta, META_FORMAT)? else {
            let mut batch = WriteBatch::default();
            batch.put_cf(meta, META_FORMAT, FORMAT.to_le_bytes());
            batch.put_cf(meta, META_PREFIXES, prefixes);
            batch.put_cf(meta, META_GENESIS, genesis.as_byte_array());
            return Ok(self.db.write_opt(batch, &durably())?);
        };
        if format != FORMAT.to_le_bytes() {
            let wanted = format!("one of format {FORMAT}");
            return Err(foreign(of_format(&format), wanted));
        }
        if self.db.get_cf(meta, META_PREFIXES)?.as_deref() != Some(&prefixes) {
            return Err(foreign(
                "a test build's index".to_owned(),
                "a release's".to_owned(),
            ));
        }
        let stored = self.db.get_cf(meta, META_GENESIS)?.unwrap_or_default();
        if stored != genesis.as_byte_array() {
            let found = BlockHash::from_slice(&stored)
                .map_or("no chain's index".to_owned(), |hash| {
                    format!("the index of {}", named(&hash))
                });
            return Err(foreign(
                found,
                format!("that of {}, which the node follows", named(genesis)),
            ));
        }
        Ok(())
    }

    /// How far the index goes; `None` before the first block.
    pub fn tip(&self) -> Result<Option<TipRow>, IndexError> {
        let value = self.db.get_pinned_cf(self.family(META), META_TIP)?;
        value.map(|value| Ok(TipRow::decode(&value)?)).transpose()
    }

    pub fn block(&self, height: Height) -> Result<Option<BlockRow>, IndexError> {
        let value = self
            .db
            .get_pinned_cf(self.family(BlockRow::FAMILY), BlockRow::key(height))?;
        value
            .map(|value| Ok(BlockRow::decode_value(&value)?))
            .transpose()
    }

    /// The rows of the heights from `start` on, ascending.
    pub fn blocks_from(
        &self,
        start: Height,
    ) -> impl Iterator<Item = Result<(Height, BlockRow), IndexError>> + '_ {
        let mut rows = self.walk(BlockRow::FAMILY);
        rows.seek(BlockRow::key(start));
        std::iter::from_fn(move || {
            let Some((key, value)) = rows.item() else {
                return rows.status().err().map(|error| Err(error.into()));
            };
            let row = BlockRow::decode_key(key)
                .and_then(|height| Ok((height, BlockRow::decode_value(value)?)));
            rows.next();
            Some(row.map_err(IndexError::from))
        })
        .fuse()
    }

    /// Writes what is in memory to disk; for an orderly stop.
    pub fn flush(&self) -> Result<(), IndexError> {
        Ok(self.db.flush_wal(true)?)
    }

    /// Bytes of its files.
    pub fn size(&self) -> u64 {
        let size = |name: &str| {
            let property = self
                .db
                .property_int_value_cf(self.family(name), "rocksdb.total-sst-files-size");
            property.ok().flatten().unwrap_or(0)
        };
        let flat = [&self.positions, &self.merkle].map(|file| file.bytes().unwrap_or(0));
        FAMILIES.iter().map(|name| size(name)).sum::<u64>() + flat.iter().sum::<u64>()
    }

    /// Rewrites all files without what has been taken away.
    pub fn compact(&self) -> Result<(), IndexError> {
        let failures = || {
            let count = self.db.property_int_value("rocksdb.background-errors");
            count.ok().flatten().unwrap_or(0)
        };
        let failures_before = failures();
        let families = FAMILIES.map(|name| self.family(name));
        self.db.flush_cfs_opt(&families, &FlushOptions::default())?;
        for name in FAMILIES {
            self.db
                .compact_range_cf(self.family(name), None::<&[u8]>, None::<&[u8]>);
        }
        self.iterators.forget();
        if failures() > failures_before {
            // The compaction itself does not say that it failed. An error that stops the writing is the next write's too.
            self.db.write(WriteBatch::default())?;
            return Err(IndexError::Database(
                "its files could not be rewritten; the end of its own LOG says why".to_owned(),
            ));
        }
        Ok(())
    }

    /// A small value of `meta`, by its name.
    pub(super) fn meta(&self, name: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.db.get_cf(self.family(META), name)?)
    }

    /// Sets (or takes away) small values of `meta`, durably and all at once.
    pub(super) fn set_meta(&self, values: &[(&[u8], Option<&[u8]>)]) -> Result<(), IndexError> {
        let mut batch = WriteBatch::default();
        for (name, value) in values {
            match value {
                Some(value) => batch.put_cf(self.family(META), name, value),
                None => batch.delete_cf(self.family(META), name),
            }
        }
        Ok(self.db.write_opt(batch, &durably())?)
    }

    pub(super) fn family(&self, name: &str) -> &ColumnFamily {
        self.db
            .cf_handle(name)
            .expect("all column families are opened with the database")
    }
}

fn lost_rows(height: Height) -> IndexError {
    IndexError::Corrupt(format!("the rows of block {height} are missing"))
}

/// A chain by its first block, with its network's name where it is one that people know.
fn named(genesis: &BlockHash) -> String {
    use bitcoin::Network::{Bitcoin, Regtest, Signet, Testnet, Testnet4};
    let known = [Bitcoin, Testnet, Testnet4, Signet, Regtest];
    match known
        .into_iter()
        .find(|network| genesis_block(network).block_hash() == *genesis)
    {
        Some(network) => format!("{} (chain {genesis})", network.to_core_arg()),
        None => format!("chain {genesis}"),
    }
}
