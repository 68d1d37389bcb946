//! Where a transaction stands in its block, and the proof of it.
//!
//! Of a block that was asked for, the rows of its merkle tree from 8 transactions up are kept (8 bytes a
//! transaction). A proof reads and hashes the 8 transactions around the one that it is about.

use std::{ops::ControlFlow, sync::Arc};

use bitcoin::{Txid, hashes::Hash};
use quick_cache::{Weighter, sync::Cache};

use super::{
    QueryError,
    archive::Archive,
    checked::checked,
    query::Scratch,
    table::{BlockTable, TableBlock},
};
use crate::chain::{
    BlockView, HEADER_LEN, Height, MerkleProof, Node, ParseError, Sha256Many, TxNum,
    merkle_row_above,
};

/// The lowest row that is kept stands over 2^3 transactions.
const GROUP_BITS: u32 = 3;
/// Transactions under a node of the lowest row.
const GROUP: u32 = 1 << GROUP_BITS;

/// Bytes that a kept tree takes besides its nodes.
const TREE_BYTES: usize = 128;

/// Folds a group of nodes that stands on a row with others `levels` rows up, to one node. Pushes what
/// the node at `index` is paired with to `branch`. An odd row, even of one node, pairs its last node with
/// itself: only the last group of a row is not full.
pub(super) fn fold_group(
    group: &mut Vec<Node>,
    index: &mut usize,
    branch: &mut Vec<Node>,
    levels: u32,
) -> Node {
    for _ in 0..levels {
        branch.push(group[(*index ^ 1).min(group.len() - 1)]);
        merkle_row_above(group);
        *index /= 2;
    }
    group[0]
}

/// The rows of a block's merkle tree, from the row over groups to the root, one after the other. A block
/// of one group has only its root.
struct BlockTree {
    nodes: Vec<Node>,
}

impl BlockTree {
    /// From a block's bytes, which must be those that its header commits to.
    fn of_block(bytes: &[u8]) -> Result<BlockTree, ParseError> {
        let block = BlockView::parse(bytes)?;
        let mut txids = Sha256Many::double();
        block.for_each_tx(|_, tx| {
            tx.push_to(&mut txids);
            Ok::<_, ParseError>(())
        })?;
        let mut row = txids.finish();
        for _ in 0..GROUP_BITS {
            if row.len() > 1 {
                merkle_row_above(&mut row);
            }
        }
        let mut nodes = row.clone();
        while row.len() > 1 {
            merkle_row_above(&mut row);
            nodes.extend_from_slice(&row);
        }
        const MERKLE_ROOT: std::ops::Range<usize> = 36..68;
        if nodes.last().map(|root| &root[..]) != Some(&bytes[..HEADER_LEN][MERKLE_ROOT]) {
            return Err(ParseError::Mismatch {
                what: "the transactions are not those of the header",
            });
        }
        Ok(BlockTree { nodes })
    }

    /// The proof of the transaction at `index` of its group, whose txids are `group`.
    fn proof(
        &self,
        block: &TableBlock,
        position: u32,
        mut group: Vec<Node>,
    ) -> Result<MerkleProof, QueryError> {
        let gap = || QueryError::Unavailable("a block's tree has a gap".to_owned());
        let mut branch = Vec::new();
        let mut index = (position % GROUP) as usize;
        let mut len = block.tx_count() as usize;
        for _ in 0..GROUP_BITS {
            if len > 1 {
                fold_group(&mut group, &mut index, &mut branch, 1);
                len = len.div_ceil(2);
            }
        }
        // The group was read by itself.
        if group.first() != self.nodes.get((position / GROUP) as usize) {
            return Err(QueryError::Damaged(block.height));
        }
        let mut rows = &self.nodes[..];
        index = (position / GROUP) as usize;
        while len > 1 {
            let (row, above) = rows.split_at_checked(len).ok_or_else(gap)?;
            branch.push(row[(index ^ 1).min(len - 1)]);
            rows = above;
            index /= 2;
            len = len.div_ceil(2);
        }
        Ok(MerkleProof {
            position,
            branch,
            root: *rows.first().ok_or_else(gap)?,
        })
    }
}

#[derive(Clone)]
struct TreeBytes;

impl Weighter<(u64, Height), Arc<BlockTree>> for TreeBytes {
    fn weight(&self, _: &(u64, Height), tree: &Arc<BlockTree>) -> u64 {
        (TREE_BYTES + tree.nodes.len() * size_of::<Node>()) as u64
    }
}

/// Trees of blocks that were asked for. The key has the number of reorgs before the View (see
/// [`super::View`]), so that no tree of a stale block is ever found.
pub(super) struct BlockTrees {
    trees: Cache<(u64, Height), Arc<BlockTree>, TreeBytes>,
}

impl BlockTrees {
    pub fn new(bytes_max: u64) -> BlockTrees {
        /// What a tree of a block of 3,000 transactions takes, for the cache's first estimate.
        const USUAL_TREE_BYTES: u64 = 24 << 10;
        let trees = (bytes_max / USUAL_TREE_BYTES) as usize;
        BlockTrees {
            trees: Cache::with_weighter(trees, bytes_max, TreeBytes),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.trees.weight()
    }
}

/// A View's blocks, as proofs need them.
pub(super) struct Blocks<'a> {
    pub archive: &'a dyn Archive,
    pub table: &'a BlockTable,
    pub reorgs: u64,
    pub trees: &'a BlockTrees,
}

impl Blocks<'_> {
    /// The number of a confirmed transaction, and its bytes.
    pub fn find(&self, txid: &Txid) -> Result<Option<(TxNum, Vec<u8>)>, QueryError> {
        let mut bytes = Vec::new();
        let mut found = None;
        let mut places = self.archive.places();
        // Nearly always the first is the one: further rows are looked for only where it is not.
        self.archive
            .numbered(txid, self.table.next_tx(), &mut |n| {
                let Some(block) = self.table.block_of(n) else {
                    return Ok(ControlFlow::Continue(()));
                };
                let place = places(&block, n)?;
                bytes.resize(place.size as usize, 0);
                self.archive.read(&block, place.offset, &mut bytes)?;
                let (_, found_txid) = checked(&block, &place, &bytes)?;
                if found_txid != *txid {
                    return Ok(ControlFlow::Continue(()));
                }
                found = Some(n);
                Ok(ControlFlow::Break(()))
            })?;
        Ok(found.map(|n| (n, bytes)))
    }

    /// The proof of a transaction in the block at `height`.
    pub fn proof_of(&self, txid: &Txid, height: Height) -> Result<Option<MerkleProof>, QueryError> {
        let Some(block) = self.table.block(height) else {
            return Ok(None);
        };
        let mut proof = None;
        self.archive.numbered(txid, block.end_tx, &mut |n| {
            if !block.contains(n) {
                return Ok(ControlFlow::Continue(()));
            }
            let position = block.position(n);
            let group = self.group(&block, position)?;
            if group.get((position % GROUP) as usize) != Some(txid.as_byte_array()) {
                return Ok(ControlFlow::Continue(()));
            }
            proof = Some(self.prove(&block, position, group)?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(proof)
    }

    /// The transaction at a position of a block, with its proof.
    pub fn at(
        &self,
        height: Height,
        position: u32,
    ) -> Result<Option<(Txid, MerkleProof)>, QueryError> {
        let Some(block) = self.table.block(height) else {
            return Ok(None);
        };
        if position >= block.tx_count() {
            return Ok(None);
        }
        let group = self.group(&block, position)?;
        let txid = Txid::from_byte_array(group[(position % GROUP) as usize]);
        Ok(Some((txid, self.prove(&block, position, group)?)))
    }

    fn prove(
        &self,
        block: &TableBlock,
        position: u32,
        group: Vec<Node>,
    ) -> Result<MerkleProof, QueryError> {
        let key = (self.reorgs, block.height);
        let tree = self.trees.trees.get_or_insert_with(&key, || {
            let mut scratch = Scratch::take();
            let bytes = scratch.room(block.place.size as usize);
            self.archive.read(block, 0, bytes)?;
            let tree = BlockTree::of_block(bytes);
            let tree = tree.map_err(|_| QueryError::Damaged(block.height))?;
            Ok::<_, QueryError>(Arc::new(tree))
        })?;
        tree.proof(block, position, group)
    }

    /// The txids of the group in which a position lies.
    fn group(&self, block: &TableBlock, position: u32) -> Result<Vec<Node>, QueryError> {
        let first = block.first_tx.0 + position / GROUP * GROUP;
        let end = block.end_tx.0.min(first.saturating_add(GROUP));
        let mut places = self.archive.places();
        let places = (first..end)
            .map(|n| places(block, TxNum(n)))
            .collect::<Result<Vec<_>, _>>()?;
        let start = places.first().map_or(0, |place| place.offset);
        let size = places
            .iter()
            .fold(0u32, |size, place| size.saturating_add(place.size));
        let mut scratch = Scratch::take();
        let bytes = scratch.room(size as usize);
        self.archive.read(block, start, bytes)?;
        let mut rest = &bytes[..];
        places
            .iter()
            .map(|place| {
                let (tx, after) = rest
                    .split_at_checked(place.size as usize)
                    .ok_or(QueryError::Damaged(block.height))?;
                rest = after;
                let (_, txid) = checked(block, place, tx)?;
                Ok(txid.to_byte_array())
            })
            .collect()
    }
}
