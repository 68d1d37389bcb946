//! Sorted files that are made outside the database and taken in whole: how the first sync writes.

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use rocksdb::{IngestExternalFileOptions, Options};

use super::{
    Index, IndexError,
    families::{Family, META_PACKED_END, META_TIP},
    options::family_options,
    schema::TipRow,
};

impl Index {
    /// The first sync is complete: its rows count, and `tip` is the index's. `done` are rows of `meta` that are
    /// to go.
    pub(super) fn complete(&self, tip: &TipRow, done: &[&[u8]]) -> Result<(), IndexError> {
        self.open_flat(tip.next_tx)?;
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
        self.db
            .ingest_external_file_cf_opts(handle, &options, files)?;
        self.iterators.forget();
        Ok(())
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
        self.iterators.forget();
        Ok(())
    }
}

/// A sorted file in the making, outside the database, to be taken in by [`Index::ingest`].
pub struct SortedFile<'a> {
    writer: rocksdb::SstFileWriter<'a>,
}

impl SortedFile<'_> {
    /// Options of such a file; they must outlive it.
    pub fn options(family: Family) -> Options {
        family_options(family.name(), None)
    }

    pub fn create<'a>(options: &'a Options, path: &Path) -> Result<SortedFile<'a>, IndexError> {
        let writer = rocksdb::SstFileWriter::create(options);
        writer.open(path)?;
        Ok(SortedFile { writer })
    }

    /// Keys must ascend.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), IndexError> {
        Ok(self.writer.put(key, value)?)
    }

    /// The file is complete, and on disk. Without any row there is no file.
    pub fn finish(mut self) -> Result<(), IndexError> {
        Ok(self.writer.finish()?)
    }
}
