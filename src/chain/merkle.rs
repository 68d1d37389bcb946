//! Merkle branches, as the protocol wants them: deepest pairing first.

use sha2::{Digest, Sha256};

use super::sha256d::merkle_row_above;

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

/// The root over the leaves; `None` of an empty row. Works in place.
pub fn merkle_root(mut row: Vec<Node>) -> Option<Node> {
    while row.len() > 1 {
        merkle_row_above(&mut row);
    }
    row.first().copied()
}

/// The row that stands over groups of 2^`bits` leaves: that many rows up, or the root where the tree is not so high. Works
/// in place.
pub fn merkle_row_over_groups(mut row: Vec<Node>, bits: u32) -> Vec<Node> {
    for _ in 0..bits {
        if row.len() > 1 {
            merkle_row_above(&mut row);
        }
    }
    row
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_branch_leads_to_the_root(leaves in prop::collection::vec(any::<[u8; 32]>(), 1..70)) {
            let root = merkle_root(leaves.clone()).unwrap();
            for (position, leaf) in leaves.iter().enumerate() {
                let proof = merkle_branch(&leaves, position).unwrap();
                let mut node = *leaf;
                for (depth, other) in proof.branch.iter().enumerate() {
                    let is_right = position >> depth & 1 == 1;
                    node = if is_right { parent(other, &node) } else { parent(&node, other) };
                }
                prop_assert_eq!(node, root);
                prop_assert_eq!(proof.root, root);
            }
            prop_assert_eq!(merkle_branch(&leaves, leaves.len()), None);
        }
    }

    #[test]
    fn the_root_of_a_real_block_is_its_headers() {
        // Block 100,000 of mainnet: four transactions.
        let txids = [
            "8c14f0db3df150123e6f3dbbf30f8b955a8249b62ac1d1ff16284aefa3d06d87",
            "fff2525b8931402dd09222c50775608f75787bd2b87e56995a7bdd30f79702c4",
            "6359f0868171b1d194cbee1af2f16ea598ae8fad666d9b012c8ed2b79a236ec4",
            "e9a66845e05d5abc0ad04ec80f774a7e585c6e8db975962d069a522137b80c1d",
        ];
        let node = |shown: &str| {
            let mut node: [u8; 32] = bitcoin::hex::FromHex::from_hex(shown).unwrap();
            node.reverse();
            node
        };
        let root = merkle_root(txids.iter().map(|txid| node(txid)).collect()).unwrap();
        assert_eq!(
            root,
            node("f3e94742aca4b5ef85488dc37c06c3282295ffec960994b2c0d5ac2a25a95766")
        );
    }
}
