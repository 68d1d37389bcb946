//! Where new blocks lie in the node's files: found by scanning what was written since the last look.

use std::collections::{BTreeMap, HashMap};

use bitcoin::BlockHash;

use crate::{
    chain::BlockPlace,
    daemon::files::{BlockFiles, FilesError},
};

/// Blocks that were seen and not yet asked for: stale ones, and those that are still to come.
const SEEN_MAX: usize = 100_000;

/// Remembers how far each file has been scanned.
pub struct Places {
    first_file: u32,
    scanned: BTreeMap<u32, u64>,
    seen: HashMap<BlockHash, BlockPlace>,
}

impl Places {
    /// Looks from the file `first_file` on: that of the tip.
    pub fn new(first_file: u32) -> Places {
        // A block may lie in the file before that of its parent: downloads come out of order.
        let first_file = first_file.saturating_sub(1);
        Places {
            first_file,
            scanned: BTreeMap::new(),
            seen: HashMap::new(),
        }
    }

    /// The place of a block, or `None` where no file has it.
    pub fn find(
        &mut self,
        files: &BlockFiles,
        hash: &BlockHash,
    ) -> Result<Option<BlockPlace>, FilesError> {
        if let Some(place) = self.seen.get(hash) {
            return Ok(Some(*place));
        }
        let numbers = files.numbers()?;
        for number in numbers
            .into_iter()
            .filter(|&number| number >= self.first_file)
        {
            let offset = self.scanned.get(&number).copied().unwrap_or(0);
            let (blocks, end) = files.scan(number, offset)?;
            self.scanned.insert(number, end);
            if self.seen.len() + blocks.len() > SEEN_MAX {
                self.seen.clear();
            }
            self.seen
                .extend(blocks.into_iter().map(|block| (block.hash, block.place)));
        }
        Ok(self.seen.get(hash).copied())
    }
}
