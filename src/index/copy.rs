//! Copies of the database that stand still, and rows that differ from machine to machine.

use std::{fs, path::Path};

use rocksdb::{WriteBatch, checkpoint};

use super::{
    BlockRow, Index, IndexError,
    error::file_error,
    flat::{MERKLE, POSITIONS},
    schema::{FORMAT, SCRIPT_PREFIX_LEN, TXID_PREFIX_LEN},
};
use crate::chain::Height;

/// Rows that are written at a time.
const BATCH_ROWS: usize = 10_000;

impl Index {
    /// The format of the rows, and the lengths of their prefixes: an index of others cannot be read.
    pub const SHAPE: (u32, [u8; 2]) = (FORMAT, [SCRIPT_PREFIX_LEN as u8, TXID_PREFIX_LEN as u8]);

    /// A copy of the database as it is now, in a folder that must not be there yet. On the same file system its files
    /// are links: it takes no time and no room.
    pub fn checkpoint(&self, folder: &Path) -> Result<(), IndexError> {
        checkpoint::Checkpoint::new(&self.db)?.create_checkpoint(folder)?;
        // After the first sync they never change.
        for (file, name) in [(&self.positions, POSITIONS), (&self.merkle, MERKLE)] {
            if file.bytes()? > 0 {
                let (from, to) = (file.path(), folder.join(name));
                let copied =
                    fs::hard_link(from, &to).or_else(|_| fs::copy(from, &to).map(|_bytes| ()));
                copied.map_err(|cause| file_error("cannot copy to", &to, cause))?;
            }
        }
        Ok(())
    }

    /// Sets anew where blocks lie in the node's files; nothing else of the rows may differ.
    pub fn set_places(
        &self,
        rows: impl IntoIterator<Item = (Height, BlockRow)>,
    ) -> Result<(), IndexError> {
        let family = self.family(BlockRow::FAMILY);
        let mut batch = WriteBatch::default();
        for (height, row) in rows {
            batch.put_cf(family, BlockRow::key(height), row.encode_value());
            if batch.len() == BATCH_ROWS {
                self.db.write(std::mem::take(&mut batch))?;
            }
        }
        self.db.write(batch)?;
        self.iterators.forget();
        self.flush()
    }
}
