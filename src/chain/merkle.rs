//! Merkle branches, as the protocol wants them: deepest pairing first.

use sha2::{Digest, Sha256};

/// A 32-byte node of a merkle tree, in internal byte order.
pub type Node = [u8; 32];

/// A leaf's way to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MerkleProof {
    /// Position of the leaf in its row.
    pub position: u32,
    /// The hashes the leaf is paired with, deepest first; shown reversed, like txids.
    pub branch: Vec<Node>,
    pub root: Node,
}

/// The branch of the leaf at `position`, or `None` where there is no such leaf.
pub fn merkle_branch(leaves: &[Node], position: usize) -> Option<MerkleProof> {
    if position >= leaves.len() {
        return None;
    }
    let mut row = leaves.to_vec();
    let mut index = position;
    let mut branch = Vec::new();
    while row.len() > 1 {
        // An odd row pairs its last node with itself.
        branch.push(*row.get(index ^ 1).unwrap_or(&row[index]));
        row = row
            .chunks(2)
            .map(|pair| parent(&pair[0], pair.last().unwrap_or(&pair[0])))
            .collect();
        index /= 2;
    }
    Some(MerkleProof {
        position: u32::try_from(position).ok()?,
        branch,
        root: row[0],
    })
}

/// The root over the leaves; `None` of an empty row.
pub fn merkle_root(leaves: &[Node]) -> Option<Node> {
    merkle_branch(leaves, 0).map(|proof| proof.root)
}

/// SHA256d of two nodes side by side.
pub fn parent(left: &Node, right: &Node) -> Node {
    Sha256::digest(
        Sha256::new()
            .chain_update(left)
            .chain_update(right)
            .finalize(),
    )
    .into()
}
