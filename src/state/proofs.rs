//! Where a transaction stands in its block, and the proof of it.
//!
//! Of a block that was asked for, the upper rows of its merkle tree are kept. A proof reads and hashes the group of transactions around the
//! one that it is about. Of the first sync's blocks the index has the row over groups of 64 transactions (then half a byte a transaction is kept); of newer
//! blocks the whole block is read once, and what stands over groups of 8 is kept (8 bytes a transaction).

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
use crate::{
    chain::{
        BlockView, HeaderBytes, Height, MERKLE_ROOT_AT, MerkleProof, Node, ParseError, Sha256Many,
        TxNum, TxView, merkle_row_above, merkle_row_over_groups,
    },
    index::MERKLE_GROUP_BITS,
};

/// The lowest row that is kept of a block that was read stands over 2^3 transactions.
const GROUP_BITS: u32 = 3;

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
    /// A group has 2^`group_bits` transactions.
    group_bits: u32,
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
        let row = merkle_row_over_groups(txids.finish(), GROUP_BITS);
        BlockTree::of_row(GROUP_BITS, row, block.header).ok_or(ParseError::Mismatch {
            what: "the transactions are not those of the header",
        })
    }

    /// From the row over groups; `None` where it does not lead to the root in the header.
    fn of_row(group_bits: u32, mut row: Vec<Node>, header: &HeaderBytes) -> Option<BlockTree> {
        let mut nodes = row.clone();
        while row.len() > 1 {
            merkle_row_above(&mut row);
            nodes.extend_from_slice(&row);
        }
        let root = nodes.last()?;
        (root[..] == header[MERKLE_ROOT_AT]).then_some(BlockTree { group_bits, nodes })
    }

    /// Transactions of a group.
    fn group(&self) -> u32 {
        1 << self.group_bits
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
        let mut index = (position % self.group()) as usize;
        let mut len = block.tx_count() as usize;
        for _ in 0..self.group_bits {
            if len > 1 {
                fold_group(&mut group, &mut index, &mut branch, 1);
                len = len.div_ceil(2);
            }
        }
        // The group was read by itself.
        if group.first() != self.nodes.get((position / self.group()) as usize) {
            return Err(QueryError::Damaged(block.height));
        }
        let mut rows = &self.nodes[..];
        index = (position / self.group()) as usize;
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
            let tree = self.tree(&block)?;
            let (found, its_proof) = self.prove(&block, position, &tree)?;
            if found != *txid {
                return Ok(ControlFlow::Continue(()));
            }
            proof = Some(its_proof);
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
        let tree = self.tree(&block)?;
        Ok(Some(self.prove(&block, position, &tree)?))
    }

    /// The transaction at a position that the block has, and its proof: exact, for its group is held against the tree.
    fn prove(
        &self,
        block: &TableBlock,
        position: u32,
        tree: &BlockTree,
    ) -> Result<(Txid, MerkleProof), QueryError> {
        let group = self.group(block, position, tree.group())?;
        let txid = group.get((position % tree.group()) as usize).copied();
        let txid = txid.ok_or(QueryError::Damaged(block.height))?;
        let proof = tree.proof(block, position, group)?;
        Ok((Txid::from_byte_array(txid), proof))
    }

    fn tree(&self, block: &TableBlock) -> Result<Arc<BlockTree>, QueryError> {
        let key = (self.reorgs, block.height);
        self.trees.trees.get_or_insert_with(&key, || {
            if let Some(tree) = self.stored_tree(block)? {
                return Ok(Arc::new(tree));
            }
            let mut scratch = Scratch::take();
            let bytes = scratch.room(block.place.size as usize);
            self.archive.read(block, 0, bytes)?;
            let tree = BlockTree::of_block(bytes);
            let tree = tree.map_err(|_| QueryError::Damaged(block.height))?;
            Ok::<_, QueryError>(Arc::new(tree))
        })
    }

    /// By what the index has of it, if that is well.
    fn stored_tree(&self, block: &TableBlock) -> Result<Option<BlockTree>, QueryError> {
        let Some(row) = self.archive.merkle_row(block) else {
            return Ok(None);
        };
        let header = self.archive.block_row(block.height)?.map(|row| row.header);
        Ok(header.and_then(|header| BlockTree::of_row(MERKLE_GROUP_BITS, row, &header)))
    }

    /// The txids of the group of so many in which a position lies.
    fn group(
        &self,
        block: &TableBlock,
        position: u32,
        group: u32,
    ) -> Result<Vec<Node>, QueryError> {
        let first = block.first_tx.0 + position / group * group;
        let end = block.end_tx.0.min(first.saturating_add(group));
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
        let mut txids = Sha256Many::double();
        for place in &places {
            let damaged = QueryError::Damaged(block.height);
            let Some((tx, after)) = rest.split_at_checked(place.size as usize) else {
                return Err(damaged);
            };
            rest = after;
            // Its own check is not looked at: the tree's is as good as there is.
            match TxView::parse(tx) {
                Ok(tx) => tx.push_to(&mut txids),
                Err(_) => return Err(damaged),
            }
        }
        Ok(txids.finish())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chain::{BlockPlace, merkle_branch};

    proptest! {
        #[test]
        fn a_proof_is_the_same_whatever_row_it_is_made_from(
            txids in prop::collection::vec(any::<Node>(), 1..300), bits in 0u32..8, position: prop::sample::Index,
        ) {
            let position = position.index(txids.len());
            let expected = merkle_branch(&txids, position).unwrap();
            let mut header = [0; 80];
            header[MERKLE_ROOT_AT].copy_from_slice(&expected.root);
            let block = TableBlock {
                height: 7,
                first_tx: TxNum(1000),
                end_tx: TxNum(1000 + txids.len() as u32),
                place: BlockPlace::in_no_file(0),
            };
            let row = merkle_row_over_groups(txids.clone(), bits);
            let tree = BlockTree::of_row(bits, row.clone(), &header).unwrap();
            let group = txids.chunks(1 << bits).nth(position >> bits).unwrap().to_vec();
            let found = tree.proof(&block, position as u32, group.clone()).unwrap();
            prop_assert_eq!(found, expected);

            // Anything that is another: the row, and a transaction of the group.
            let mut other = row.clone();
            other[position >> bits][3] ^= 1;
            prop_assert!(BlockTree::of_row(bits, other, &header).is_none());
            let mut other = group;
            other[0][31] ^= 0x80;
            prop_assert!(matches!(tree.proof(&block, position as u32, other), Err(QueryError::Damaged(7))));
        }
    }
}
