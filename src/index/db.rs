//! The database: the only place that knows RocksDB.
//!
//! # Correctness
//! A block's rows and the new tip go in one atomic batch, so the index is at every moment that of one
//! block. Rows at or above the tip's next TxNum are never shown. All column families are flushed
//! together (`atomic_flush`): a torn write-ahead log can take back the newest blocks, never a part of one.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use bitcoin::{BlockHash, hashes::Hash};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, IngestExternalFileOptions, Options, WriteBatch, WriteOptions,
};
use sha2::{Digest, Sha256};

use super::{
    BlockRow, IndexError, TxPlace,
    error::open_error,
    folder::{FOLDER, is_of_this_version, is_whole, of_format},
    hash_rows::{HISTORY, TXID},
    rows::BlockRows,
    schema::{
        DamagedRow, FORMAT, HistoryRow, POSITIONS_PER_ROW, SCRIPT_PREFIX_LEN, TXID_PREFIX_LEN,
        TipRow, TxPositionRow, TxidRow,
    },
};
use crate::chain::{Height, TxNum};

/// RocksDB's cache of uncompressed index and data blocks, in bytes. The operating system caches the
/// files besides.
const BLOCK_CACHE_BYTES: usize = 64 << 20;

/// What may wait in memory for all column families together, in bytes, before it is
/// flushed.
const WRITE_BUFFER_BYTES: usize = 64 << 20;

/// Bytes of a block in an SST file, uncompressed: a look-up reads and decompresses one.
const SST_BLOCK_BYTES: usize = 16 << 10;

/// Keys that share one start: fewer starts, smaller blocks.
const SST_RESTART_INTERVAL: i32 = 32;

/// The same of packed rows, of which a look-up reads one group of half a kilobyte, and of positions. Smaller blocks would need more
/// memory for their index (mainnet: 5 million blocks of 8 KiB, 80 MB).
const PACKED_BLOCK_BYTES: usize = 8 << 10;
const PACKED_RESTART_INTERVAL: i32 = 4;

/// Of zstd. `docs/decisions/0002-compression.md` has the figures.
const ZSTD_LEVEL: i32 = 5;

pub(super) const META: &str = "meta";
pub(super) const FAMILIES: [&str; 7] = [
    HISTORY.single,
    HISTORY.packed,
    TXID.single,
    TXID.packed,
    TxPositionRow::FAMILY,
    BlockRow::FAMILY,
    META,
];

pub(super) const META_FORMAT: &[u8] = b"format";
const META_PREFIXES: &[u8] = b"prefixes";
const META_GENESIS: &[u8] = b"genesis";
const META_TIP: &[u8] = b"tip";
const META_PACKED_END: &[u8] = b"packed_end";

/// The index: which transactions touch a script, where a transaction lies, what the chain is.
pub struct Index {
    pub(super) db: DB,
    path: PathBuf,
    /// `meta`'s row of that name.
    pub(super) packed_end: AtomicU32,
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
        // Without a lock that threads could wait for.
        let cache = Cache::new_hyper_clock_cache(BLOCK_CACHE_BYTES, PACKED_BLOCK_BYTES);
        let families = FAMILIES
            .map(|name| ColumnFamilyDescriptor::new(name, family_options(name, Some(&cache))));
        let db = DB::open_cf_descriptors(&database_options(), path.join(FOLDER), families)
            .map_err(|error| open_error(error, path))?;
        let index = Index {
            db,
            path: path.to_owned(),
            packed_end: AtomicU32::new(0),
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
        if !folder.is_dir() {
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
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let families = FAMILIES
            .map(|name| ColumnFamilyDescriptor::new(name, family_options(name, Some(&cache))));
        let db =
            DB::open_cf_descriptors_as_secondary(&options, folder.as_path(), scratch, families)?;
        let index = Index {
            db,
            path: path.to_owned(),
            packed_end: AtomicU32::new(0),
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
        self.check_rows_reach(&tip)?;
        // It was taken in last: where it is there, so are the others.
        if self.packed_end() > TxNum::ZERO && self.is_empty(Family::Txid) {
            return Err(IndexError::Corrupt(
                "the rows of its first sync are missing".to_owned(),
            ));
        }
        Ok(())
    }

    /// The rows of the block that ends here are there. Files that the database took in are named in its MANIFEST, a
    /// mark or tip that counts on them is in its log: where the end of the first is lost, the second must not count.
    pub(super) fn check_rows_reach(&self, end: &TipRow) -> Result<(), IndexError> {
        let row = self.block(end.height)?;
        let next_tx = row.and_then(|row| row.first_tx.checked_add(row.tx_count));
        let is_block = row.is_some_and(|row| row.hash == end.hash) && next_tx == Some(end.next_tx);
        let last = TxNum(end.next_tx.0.wrapping_sub(1));
        if is_block && self.tx_place(last)?.is_some() {
            return Ok(());
        }
        Err(IndexError::Corrupt(format!(
            "the rows of block {} are missing",
            end.height
        )))
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
                    format!("the index of chain {hash}")
                });
            return Err(foreign(
                found,
                format!("that of chain {genesis}, which the node follows"),
            ));
        }
        Ok(())
    }

    /// How far the index goes; `None` before the first block.
    pub fn tip(&self) -> Result<Option<TipRow>, IndexError> {
        let value = self.db.get_pinned_cf(self.family(META), META_TIP)?;
        value.map(|value| Ok(TipRow::decode(&value)?)).transpose()
    }

    /// Where transaction `n` lies in its block. For many ascending numbers use one cursor
    /// ([`Index::tx_places`]).
    pub fn tx_place(&self, n: TxNum) -> Result<Option<TxPlace>, IndexError> {
        self.tx_places().get(n)
    }

    /// A cursor that remembers the row it is in: cheap for ascending numbers.
    pub fn tx_places(&self) -> TxPlaces<'_> {
        let rows = self.db.raw_iterator_cf(self.family(TxPositionRow::FAMILY));
        TxPlaces {
            rows,
            current: None,
        }
    }

    /// The places of `count` transactions from `first` on (a block's).
    pub fn tx_places_of(&self, first: TxNum, count: u32) -> Result<Vec<TxPlace>, IndexError> {
        let mut cursor = self.tx_places();
        let numbers = first.0..first.0.saturating_add(count);
        numbers
            .map(|n| {
                cursor.get(TxNum(n))?.ok_or(
                    DamagedRow {
                        family: TxPositionRow::FAMILY,
                    }
                    .into(),
                )
            })
            .collect()
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
        let mut rows = self.db.raw_iterator_cf(self.family(BlockRow::FAMILY));
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

    /// Takes blocks away from the tip, the highest first, then adds blocks on top of what is left, in
    /// chain order: all in one atomic batch, so that a kill in a reorg leaves the old branch or the new
    /// one. The same code makes what goes and what comes.
    pub fn apply(&self, disconnect: &[BlockRows], connect: &[BlockRows]) -> Result<(), IndexError> {
        let mut batch = WriteBatch::default();
        for rows in disconnect {
            self.each_row(rows, |family, key, _value| batch.delete_cf(family, key));
        }
        for rows in connect {
            self.each_row(rows, |family, key, value| batch.put_cf(family, key, value));
        }
        match (connect.last(), disconnect.last()) {
            (Some(rows), _) => {
                let tip = TipRow {
                    height: rows.height,
                    hash: rows.block.hash,
                    next_tx: rows.next_tx(),
                };
                batch.put_cf(self.family(META), META_TIP, tip.encode());
            }
            (None, Some(rows)) => self.put_tip_below(&mut batch, rows.height)?,
            (None, None) => return Ok(()),
        }
        let lowest = disconnect.last().map(|rows| rows.block.first_tx);
        if let Some(first) = lowest {
            self.lower_packed_end(&mut batch, first);
        }
        self.db.write(batch)?;
        if let Some(first) = lowest {
            self.packed_end.fetch_min(first.0, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Finds all rows of the block at `height` and of all above it without their bytes: one scan over all rows.
    /// For a reorg whose stale blocks the node no longer has. Nothing is written, so that questions are answered
    /// while it lasts; [`Index::truncate`] then is short.
    pub fn find_above(&self, height: Height) -> Result<Truncation, IndexError> {
        let mut batch = WriteBatch::default();
        let Some(block) = self.block(height)? else {
            return Ok(Truncation {
                batch,
                first: TxNum(u32::MAX),
            });
        };
        self.truncate_hashes(block.first_tx, &mut batch)?;
        for (name, first) in [
            (TxPositionRow::FAMILY, TxPositionRow::key(block.first_tx)),
            (BlockRow::FAMILY, BlockRow::key(height)),
        ] {
            let mut rows = self.db.raw_iterator_cf(self.family(name));
            rows.seek(first);
            while let Some(key) = rows.key() {
                batch.delete_cf(self.family(name), key);
                rows.next();
            }
            rows.status()?;
        }
        self.put_tip_below(&mut batch, height)?;
        self.lower_packed_end(&mut batch, block.first_tx);
        Ok(Truncation {
            batch,
            first: block.first_tx,
        })
    }

    /// Takes away what [`Index::find_above`] found. Nothing may have been written in between.
    pub fn truncate(&self, found: Truncation) -> Result<(), IndexError> {
        self.db.write_opt(found.batch, &durably())?;
        self.packed_end.fetch_min(found.first.0, Ordering::AcqRel);
        Ok(())
    }

    /// Packed rows from `first` on do not count any more.
    fn lower_packed_end(&self, batch: &mut WriteBatch, first: TxNum) {
        if first < self.packed_end() {
            batch.put_cf(self.family(META), META_PACKED_END, first.0.to_le_bytes());
        }
    }

    fn put_tip_below(&self, batch: &mut WriteBatch, height: Height) -> Result<(), IndexError> {
        let meta = self.family(META);
        match height
            .checked_sub(1)
            .map(|below| self.block(below))
            .transpose()?
            .flatten()
        {
            Some(block) => {
                let next_tx = TxNum(block.first_tx.0 + block.tx_count);
                let tip = TipRow {
                    height: height - 1,
                    hash: block.hash,
                    next_tx,
                };
                batch.put_cf(meta, META_TIP, tip.encode());
            }
            None => batch.delete_cf(meta, META_TIP),
        }
        Ok(())
    }

    /// Hands each row's family, key and value to `f`: put and delete cannot differ.
    fn each_row<'a>(&'a self, rows: &BlockRows, mut f: impl FnMut(&'a ColumnFamily, &[u8], &[u8])) {
        let mut key = [0; 16];
        let history = self.family(HISTORY.single);
        rows.history
            .iter()
            .for_each(|row: &HistoryRow| f(history, row.encode(&mut key), &[]));
        let txid = self.family(TXID.single);
        rows.txid
            .iter()
            .for_each(|row: &TxidRow| f(txid, row.encode(&mut key), &[]));
        let positions = self.family(TxPositionRow::FAMILY);
        for (last, value) in &rows.tx_position {
            f(positions, &TxPositionRow::key(*last), value);
        }
        let value = rows.block.encode_value();
        f(
            self.family(BlockRow::FAMILY),
            &BlockRow::key(rows.height),
            &value,
        );
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
        FAMILIES.iter().map(|name| size(name)).sum()
    }

    /// Rewrites all files without what has been taken away.
    pub fn compact(&self) {
        for name in FAMILIES {
            self.db
                .compact_range_cf(self.family(name), None::<&[u8]>, None::<&[u8]>);
        }
    }

    /// Of every kind of rows but `meta`'s, for comparing two indexes: hash rows count the same in either form.
    pub fn fingerprint(&self) -> Result<Vec<FamilyFingerprint>, IndexError> {
        let mut key = [0; 16];
        let mut history = Fingerprint::of(HISTORY.single);
        self.scan_history(&mut |row| {
            history.add(row.encode(&mut key), &[]);
            ControlFlow::Continue(())
        })?;
        let mut txid = Fingerprint::of(TXID.single);
        self.scan_txids(&mut |row| {
            txid.add(row.encode(&mut key), &[]);
            ControlFlow::Continue(())
        })?;
        let mut all = vec![history.finish(), txid.finish()];
        for name in [TxPositionRow::FAMILY, BlockRow::FAMILY] {
            let mut fingerprint = Fingerprint::of(name);
            let mut rows = self.db.raw_iterator_cf(self.family(name));
            rows.seek_to_first();
            while let Some((key, value)) = rows.item() {
                fingerprint.add(key, value);
                rows.next();
            }
            rows.status()?;
            all.push(fingerprint.finish());
        }
        Ok(all)
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

    /// The first sync is complete: its rows count, and `tip` is the index's. `done` are rows of `meta` that are
    /// to go.
    pub(super) fn complete(&self, tip: &TipRow, done: &[&[u8]]) -> Result<(), IndexError> {
        let (end, value) = (tip.next_tx.0.to_le_bytes(), tip.encode());
        let mut values: Vec<(&[u8], Option<&[u8]>)> =
            done.iter().map(|&name| (name, None)).collect();
        values.extend([
            (META_TIP, Some(&value[..])),
            (META_PACKED_END, Some(&end[..])),
        ]);
        self.set_meta(&values)?;
        self.packed_end.store(tip.next_tx.0, Ordering::Release);
        Ok(())
    }

    /// Takes ready, sorted files into a column family: all or none. They are moved, not copied.
    pub(super) fn ingest(&self, family: Family, files: Vec<PathBuf>) -> Result<(), IndexError> {
        if files.is_empty() {
            return Ok(());
        }
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        let handle = self.family(family.name());
        Ok(self
            .db
            .ingest_external_file_cf_opts(handle, &options, files)?)
    }

    pub(super) fn is_empty(&self, family: Family) -> bool {
        let mut rows = self.db.raw_iterator_cf(self.family(family.name()));
        rows.seek_to_first();
        !rows.valid()
    }

    /// Empties a column family.
    pub(super) fn clear(&self, family: Family) -> Result<(), IndexError> {
        let handle = self.family(family.name());
        self.db
            .delete_range_cf(handle, [0u8; 0].as_slice(), [0xff; 17].as_slice())?;
        self.db
            .compact_range_cf(handle, None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    pub(super) fn family(&self, name: &str) -> &ColumnFamily {
        self.db
            .cf_handle(name)
            .expect("all column families are opened with the database")
    }
}

/// Rows that are to go, and the tip that is then left: for [`Index::truncate`].
pub struct Truncation {
    batch: WriteBatch,
    /// The first transaction that goes.
    first: TxNum,
}

/// All rows of a column family in one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyFingerprint {
    pub name: &'static str,
    pub rows: u64,
    /// Over all keys and values, each with its length before it.
    pub sha256: [u8; 32],
}

/// Sums up rows for [`FamilyFingerprint`].
struct Fingerprint {
    name: &'static str,
    rows: u64,
    hash: Sha256,
}

impl Fingerprint {
    fn of(name: &'static str) -> Fingerprint {
        Fingerprint {
            name,
            rows: 0,
            hash: Sha256::new(),
        }
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows += 1;
        for part in [key, value] {
            self.hash.update((part.len() as u32).to_le_bytes());
            self.hash.update(part);
        }
    }

    fn finish(self) -> FamilyFingerprint {
        FamilyFingerprint {
            name: self.name,
            rows: self.rows,
            sha256: self.hash.finalize().into(),
        }
    }
}

/// The column families that ready files can be made for; of hash rows the packed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    History,
    Txid,
    TxPosition,
    Block,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Family::History => HISTORY.packed,
            Family::Txid => TXID.packed,
            Family::TxPosition => TxPositionRow::FAMILY,
            Family::Block => BlockRow::FAMILY,
        }
    }
}

/// A sorted file in the making, outside the database, to be taken in by [`Index::ingest`].
pub(super) struct SortedFile<'a> {
    writer: rocksdb::SstFileWriter<'a>,
}

impl SortedFile<'_> {
    /// Options of such a file; they must outlive it.
    pub(super) fn options(family: Family) -> Options {
        family_options(family.name(), None)
    }

    pub(super) fn create<'a>(
        options: &'a Options,
        path: &Path,
    ) -> Result<SortedFile<'a>, IndexError> {
        let writer = rocksdb::SstFileWriter::create(options);
        writer.open(path)?;
        Ok(SortedFile { writer })
    }

    /// Keys must ascend.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), IndexError> {
        Ok(self.writer.put(key, value)?)
    }

    /// The file is complete, and on disk. Without any row there is no file.
    pub(super) fn finish(mut self) -> Result<(), IndexError> {
        Ok(self.writer.finish()?)
    }
}

/// Looks up places of ascending transaction numbers.
pub struct TxPlaces<'a> {
    rows: rocksdb::DBRawIterator<'a>,
    current: Option<TxPositionRow>,
}

impl TxPlaces<'_> {
    pub fn get(&mut self, n: TxNum) -> Result<Option<TxPlace>, IndexError> {
        if let Some(place) = self.current.as_ref().and_then(|row| row.get(n)) {
            return Ok(Some(place));
        }
        if !self.steps_to(n) {
            self.rows.seek(TxPositionRow::key(n));
        }
        self.rows.status()?;
        self.current = match self.rows.item() {
            Some((key, value)) => Some(TxPositionRow::decode(key, value)?),
            None => None,
        };
        Ok(self.current.as_ref().and_then(|row| row.get(n)))
    }

    /// Goes to the row of a transaction that lies little further on: a step costs a fraction of a seek. Where
    /// it gives up, `false`.
    fn steps_to(&mut self, n: TxNum) -> bool {
        const STEPS_MAX: u32 = 3;
        const REACH: u32 = STEPS_MAX * POSITIONS_PER_ROW as u32;
        let Some(row) = &self.current else {
            return false;
        };
        if n <= row.last || n.0 - row.last.0 > REACH {
            return false;
        }
        let key = TxPositionRow::key(n);
        for _ in 0..STEPS_MAX {
            self.rows.next();
            if self.rows.key().is_none_or(|at| at >= &key[..]) {
                return true;
            }
        }
        false
    }
}

fn durably() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

fn database_options() -> Options {
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
fn family_options(name: &str, cache: Option<&Cache>) -> Options {
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
