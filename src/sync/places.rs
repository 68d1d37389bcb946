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
    /// With their parents.
    seen: HashMap<BlockHash, (BlockPlace, BlockHash)>,
    /// How many blocks were seen on top of each: 40 bytes a block, 3 MB a year.
    children: HashMap<BlockHash, u32>,
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
            children: HashMap::new(),
        }
    }

    /// The place of a block, or `None` where no file has it.
    ///
    /// # Correctness
    /// A rev file that holds the undo data of two children of one parent does not tell which are whose.
    /// Undo data are written after the block, and the files are scanned up to their ends here: so where a
    /// second child's undo data can be met, that child has been seen.
    pub fn find(
        &mut self,
        files: &BlockFiles,
        hash: &BlockHash,
    ) -> Result<Option<BlockPlace>, FilesError> {
        files.close_deleted();
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
            for block in blocks {
                let parent = block.previous();
                self.seen.insert(block.hash, (block.place, parent));
                *self.children.entry(parent).or_default() += 1;
            }
        }
        Ok(self
            .seen
            .get(hash)
            .map(|(place, parent)| match self.children.get(parent) {
                Some(1) => *place,
                _ => place.with_unsure_undo(),
            }))
    }
}
