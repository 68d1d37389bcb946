//! What most stories begin with: a node with mature coins, Ambra in step with it, a wallet, two locks.

use crate::{
    ambra::Ambra,
    client::Client,
    locks::{Kind, Lock},
    node::{Node, NodeOptions},
    treasury::Treasury,
};

/// Taken apart with the node first, so that it is the last to go.
pub struct Stage {
    pub node: Node,
    pub treasury: Treasury,
    pub ambra: Ambra,
    pub client: Client,
    /// Of the wallet that looks on, and of another.
    pub mine: Lock,
    pub yours: Lock,
}

impl Stage {
    pub fn set(options: NodeOptions) -> Stage {
        let node = Node::start(options);
        let treasury = Treasury::mine(&node);
        let ambra = Ambra::start(&node);
        Stage {
            treasury,
            client: ambra.client(),
            ambra,
            node,
            mine: Lock::new(Kind::P2wpkh, 1),
            yours: Lock::new(Kind::P2wpkh, 2),
        }
    }

    /// One with a node that tells of what happens (ZMQ), then one with a node that has to be asked.
    pub fn told_and_untold() -> impl Iterator<Item = Stage> {
        [true, false].into_iter().map(|zmq| {
            Stage::set(NodeOptions {
                zmq,
                ..NodeOptions::default()
            })
        })
    }
}
