//! Where a block's bytes lie.

/// A block in the node's files. `file` is [`BlockPlace::NOWHERE`] where the block came by REST or RPC;
/// its size is known all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlace {
    /// Number of `blkNNNNN.dat`, and of its `revNNNNN.dat`.
    pub file: u32,
    /// Of the block's first byte (its header) in the file.
    pub offset: u32,
    /// Of the block, in bytes.
    pub size: u32,
    /// Of the undo data's first byte in the rev file; 0 where unknown.
    pub undo_offset: u32,
    /// Of the undo data, in bytes, without their checksum; 0 where unknown.
    pub undo_size: u32,
}

impl BlockPlace {
    pub const NOWHERE: u32 = u32::MAX;
}
