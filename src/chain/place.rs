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
    /// Of the undo data's first byte in the rev file; 0 where unknown, or
    /// [`BlockPlace::UNDO_UNSURE`].
    pub undo_offset: u32,
    /// Of the undo data, in bytes, without their checksum; 0 where unknown.
    pub undo_size: u32,
}

/// As a log names it, for a person to find.
impl std::fmt::Display for BlockPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.file {
            BlockPlace::NOWHERE => f.write_str("in no file"),
            file => write!(f, "blk{file:05}.dat, offset {}", self.offset),
        }
    }
}

impl BlockPlace {
    pub const NOWHERE: u32 = u32::MAX;

    /// A block of so many bytes that the node gives, or 0 where that is not known yet.
    pub const fn in_no_file(size: u32) -> BlockPlace {
        BlockPlace {
            file: BlockPlace::NOWHERE,
            offset: 0,
            size,
            undo_offset: 0,
            undo_size: 0,
        }
    }

    /// True if a file has it.
    pub fn is_in_file(&self) -> bool {
        self.file != BlockPlace::NOWHERE
    }

    /// The value of `undo_offset` where the rev file may hold the undo data of two blocks with the same
    /// parent. Their checksums cover the parent's hash and the data, but nothing of the block itself: they
    /// do not tell which of the two is meant, so the node is asked for what the block spends.
    pub const UNDO_UNSURE: u32 = u32::MAX;

    /// True if the files do not tell which undo data are this block's.
    pub fn is_undo_unsure(&self) -> bool {
        self.undo_size == 0 && self.undo_offset == BlockPlace::UNDO_UNSURE
    }

    /// The same place, with undo data that must not be looked for in the files.
    pub fn with_unsure_undo(self) -> BlockPlace {
        BlockPlace {
            undo_offset: BlockPlace::UNDO_UNSURE,
            undo_size: 0,
            ..self
        }
    }
}
