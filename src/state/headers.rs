//! The tree over all header hashes, for proofs up to any checkpoint (`cp_height`).
//!
//! A node over 2^k headers that are all there never changes but in a reorg, whatever the checkpoint. The
//! rows from 32 headers up are kept (2 MB for a million headers); a proof hashes the two groups of 32
//! headers where the header and the checkpoint lie, and one node a row for the unfinished right edge.

use super::{QueryError, proofs::fold_group, table::Chunked};
use crate::chain::{Height, MerkleProof, Node, merkle_parent};

/// The lowest row that is kept stands over 2^5 headers.
const GROUP_BITS: u32 = 5;
/// Headers under a node of the lowest row.
const GROUP: u32 = 1 << GROUP_BITS;

/// Finished nodes over the headers 0..`len`.
#[derive(Clone, Debug, Default)]
pub(super) struct HeaderTree {
    len: u32,
    /// Hashes of the unfinished group.
    tail: Vec<Node>,
    /// `rows[k]` has the nodes over 2^(GROUP_BITS + k) headers.
    rows: Vec<Chunked<Node>>,
}

/// Gives the hashes of headers side by side: from, to (not included).
pub(super) type ReadHashes<'a> = dyn Fn(Height, Height) -> Result<Vec<Node>, QueryError> + 'a;

impl HeaderTree {
    #[cfg(test)]
    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn push(&mut self, hash: Node) {
        self.len += 1;
        self.tail.push(hash);
        if self.tail.len() < GROUP as usize {
            return;
        }
        let mut node = fold_group(&mut self.tail, &mut 0, &mut Vec::new(), GROUP_BITS);
        self.tail.clear();
        for level in 0.. {
            if level == self.rows.len() {
                self.rows.push(Chunked::default());
            }
            let row = &mut self.rows[level];
            row.push(node);
            let nodes = row.len();
            if nodes % 2 == 1 {
                return;
            }
            let left = row.get(nodes - 2).expect("an even row of nodes has two");
            node = merkle_parent(left, &node);
        }
    }

    /// Keeps the first `len` headers.
    pub fn truncate(&mut self, len: u32, read: &ReadHashes<'_>) -> Result<(), QueryError> {
        if len >= self.len {
            return Ok(());
        }
        let tail_start = len / GROUP * GROUP;
        self.tail = read_all(read, tail_start, len)?;
        for (level, row) in self.rows.iter_mut().enumerate() {
            row.truncate((len >> (GROUP_BITS as usize + level)) as usize);
        }
        self.len = len;
        Ok(())
    }

    /// The branch of the header at `height` in the tree over the headers 0..=`cp_height`. Both must be
    /// in the tree, `height` not above `cp_height`.
    pub fn proof(
        &self,
        height: Height,
        cp_height: Height,
        read: &ReadHashes<'_>,
    ) -> Result<MerkleProof, QueryError> {
        if height > cp_height || cp_height >= self.len {
            return Err(QueryError::Unavailable(format!(
                "no proof of header {height} below {cp_height} of {} headers",
                self.len
            )));
        }
        let count = cp_height + 1;
        let mut branch = Vec::new();
        let mut index = height as usize;
        let group_start = height / GROUP * GROUP;
        if count <= GROUP {
            // Fewer rows than a group has: the ordinary way.
            let hashes = read_all(read, 0, count)?;
            return crate::chain::merkle_branch(&hashes, index).ok_or_else(|| {
                QueryError::Unavailable("a header is missing in its own tree".to_owned())
            });
        }
        let mut group = read_all(read, group_start, count.min(group_start + GROUP))?;
        let mut index_in_group = (height - group_start) as usize;
        fold_group(&mut group, &mut index_in_group, &mut branch, GROUP_BITS);
        // The last node of a row, where it stands over fewer headers than it could.
        let edge_start = count / GROUP * GROUP;
        let mut edge = match edge_start {
            _ if edge_start == count => None,
            _ => {
                let mut hashes = read_all(read, edge_start, count)?;
                Some(fold_group(&mut hashes, &mut 0, &mut Vec::new(), GROUP_BITS))
            }
        };
        index >>= GROUP_BITS;
        let mut level = 0;
        loop {
            let finished = (count >> (GROUP_BITS as usize + level)) as usize;
            let len = finished + usize::from(edge.is_some());
            let node = |at: usize| -> Result<Node, QueryError> {
                match edge {
                    Some(edge) if at == finished => Ok(edge),
                    _ => self
                        .rows
                        .get(level)
                        .and_then(|row| row.get(at))
                        .copied()
                        .ok_or_else(|| {
                            QueryError::Unavailable("the tree of headers has a gap".to_owned())
                        }),
                }
            };
            if len == 1 {
                return Ok(MerkleProof {
                    position: height,
                    branch,
                    root: node(0)?,
                });
            }
            // An odd row pairs its last node with itself.
            branch.push(node((index ^ 1).min(len - 1))?);
            edge = match (len % 2 == 1, edge) {
                (true, _) => {
                    let last = node(len - 1)?;
                    Some(merkle_parent(&last, &last))
                }
                (false, Some(edge)) => Some(merkle_parent(&node(len - 2)?, &edge)),
                (false, None) => None,
            };
            index /= 2;
            level += 1;
        }
    }
}

/// Reads, and refuses fewer hashes than asked for.
fn read_all(read: &ReadHashes<'_>, from: Height, to: Height) -> Result<Vec<Node>, QueryError> {
    let hashes = read(from, to)?;
    if hashes.len() != (to - from) as usize {
        return Err(QueryError::Unavailable(format!(
            "the headers {from} to {to} cannot be read"
        )));
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::merkle_branch;

    fn hash(n: u32, branch: u8) -> Node {
        let mut node = [branch; 32];
        node[..4].copy_from_slice(&n.to_le_bytes());
        node
    }

    #[test]
    fn proofs_are_brute_forces_for_every_header_and_checkpoint_before_and_after_reorgs() {
        let mut hashes: Vec<Node> = Vec::new();
        let mut tree = HeaderTree::default();
        for (keep, grow_to, branch) in [
            (0, 130, 0),
            (129, 131, 1),
            (96, 140, 2),
            (65, 64, 3),
            (31, 200, 4),
            (1, 33, 5),
        ] {
            let read = |from: u32, to: u32| Ok(hashes[from as usize..to as usize].to_vec());
            tree.truncate(keep, &read).unwrap();
            hashes.truncate(keep as usize);
            for n in hashes.len() as u32..grow_to {
                hashes.push(hash(n, branch));
                tree.push(hash(n, branch));
            }
            assert_eq!(tree.len() as usize, hashes.len());
            let read = |from: u32, to: u32| Ok(hashes[from as usize..to as usize].to_vec());
            for cp_height in 0..tree.len() {
                let below = &hashes[..=cp_height as usize];
                for height in 0..=cp_height {
                    assert_eq!(
                        tree.proof(height, cp_height, &read).unwrap(),
                        merkle_branch(below, height as usize).unwrap(),
                        "{height} below {cp_height}"
                    );
                }
            }
            assert!(tree.proof(0, tree.len(), &read).is_err());
        }
    }

    #[test]
    fn proofs_over_many_rows_are_brute_forces() {
        let hashes: Vec<Node> = (0..5000).map(|n| hash(n, 9)).collect();
        let mut tree = HeaderTree::default();
        hashes.iter().for_each(|&hash| tree.push(hash));
        let read = |from: u32, to: u32| Ok(hashes[from as usize..to as usize].to_vec());
        for (height, cp_height) in [
            (0, 4999),
            (4999, 4999),
            (4095, 4096),
            (17, 4097),
            (4096, 4999),
        ] {
            assert_eq!(
                tree.proof(height, cp_height, &read).unwrap(),
                merkle_branch(&hashes[..=cp_height as usize], height as usize).unwrap()
            );
        }
    }

    #[test]
    fn a_missing_header_is_an_error() {
        let mut tree = HeaderTree::default();
        (0..100).for_each(|n| tree.push(hash(n, 0)));
        assert!(tree.proof(70, 99, &|_, _| Ok(Vec::new())).is_err());
        assert!(tree.truncate(40, &|_, _| Ok(Vec::new())).is_err());
    }
}
