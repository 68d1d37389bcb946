//! Block bytes and spent outputs, from files, REST or RPC: the same bytes from each.

use std::{
    collections::HashSet,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bitcoin::BlockHash;

use super::{files::BlockFiles, rest::Rest, rpc::Rpc};
use crate::chain::{BlockPlace, BlockView, HeaderBytes, SpentOutputs};

/// Memory for whole blocks that REST or RPC gave, in bytes: about 60 of mainnet's.
const BLOCK_CACHE_BYTES: u64 = 96 << 20;

/// Up to this part of a block, REST is asked for no more than the part.
const LARGEST_PART: u32 = 4;

/// Why a block cannot be had now.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// Where blocks come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    Files,
    Rest,
    Rpc,
}

impl SourceKind {
    pub fn name(self) -> &'static str {
        match self {
            SourceKind::Files => "files",
            SourceKind::Rest => "REST",
            SourceKind::Rpc => "RPC",
        }
    }
}

#[derive(Clone)]
struct BlockBytes;

impl quick_cache::Weighter<BlockHash, Arc<Vec<u8>>> for BlockBytes {
    fn weight(&self, _: &BlockHash, block: &Arc<Vec<u8>>) -> u64 {
        block.len() as u64 + 64
    }
}

/// Reads blocks; shared by all threads.
pub struct BlockSource {
    files: Option<BlockFiles>,
    rest: Option<Rest>,
    rpc: Rpc,
    blocks: quick_cache::sync::Cache<BlockHash, Arc<Vec<u8>>, BlockBytes>,
    /// The node has no `/rest/blockpart` (Bitcoin Core has it from 31 on).
    has_no_parts: AtomicBool,
    /// Blocks whose bytes in the files, or in parts, are not what was indexed. At most those of the chain.
    distrusted: RwLock<HashSet<BlockHash>>,
    /// Spares questions the lock: nearly always there is none.
    has_distrusted: AtomicBool,
}

impl BlockSource {
    /// The best of what is given: files, else REST, else RPC. What fails is asked of the next.
    pub fn new(files: Option<BlockFiles>, rest: Option<Rest>, rpc: Rpc) -> BlockSource {
        let blocks = quick_cache::sync::Cache::with_weighter(256, BLOCK_CACHE_BYTES, BlockBytes);
        BlockSource {
            files,
            rest,
            rpc,
            blocks,
            has_no_parts: AtomicBool::new(false),
            distrusted: RwLock::default(),
            has_distrusted: AtomicBool::new(false),
        }
    }

    pub fn kind(&self) -> SourceKind {
        match (&self.files, &self.rest) {
            (Some(_), _) => SourceKind::Files,
            (None, Some(_)) => SourceKind::Rest,
            (None, None) => SourceKind::Rpc,
        }
    }

    pub fn rest(&self) -> Option<&Rest> {
        self.rest.as_ref()
    }

    pub fn files(&self) -> Option<&BlockFiles> {
        self.files.as_ref()
    }

    /// Fills `out` with the bytes from `offset` on in a block. Files: one positioned read. Else from a
    /// bounded cache of whole blocks, each fetched once for all who wait; small parts of a block that is not
    /// there by themselves, where the node gives parts.
    pub fn read_part(
        &self,
        hash: &dyn Fn() -> Result<BlockHash, SourceError>,
        place: &BlockPlace,
        offset: u32,
        out: &mut [u8],
    ) -> Result<(), SourceError> {
        let is_distrusted =
            self.has_distrusted.load(Ordering::Acquire) && self.is_distrusted(&hash()?);
        let files = self.files.as_ref();
        if let Some(files) = files.filter(|_| place.is_in_file() && !is_distrusted) {
            match files.part(place, offset, out) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::debug!("{error}; asking the node"),
            }
        }
        let hash = hash()?;
        // No block has so many bytes that this could be cut short.
        let size = u32::try_from(out.len()).unwrap_or(u32::MAX);
        let block = match self.blocks.get(&hash) {
            Some(block) => block,
            None => {
                if !is_distrusted
                    && size <= place.size / LARGEST_PART
                    && let Some(part) = self.fetch_part(&hash, offset, size)
                {
                    out.copy_from_slice(&part);
                    return Ok(());
                }
                self.blocks
                    .get_or_insert_with(&hash, || self.fetch_checked(&hash).map(Arc::new))?
            }
        };
        let part = block
            .get(offset as usize..)
            .and_then(|rest| rest.get(..out.len()))
            .ok_or_else(|| SourceError(format!("block {hash} is shorter than the index says")))?;
        out.copy_from_slice(part);
        Ok(())
    }

    fn is_distrusted(&self, hash: &BlockHash) -> bool {
        let distrusted = self.distrusted.read();
        distrusted
            .unwrap_or_else(PoisonError::into_inner)
            .contains(hash)
    }

    /// What was read of this block is not what was indexed: from now on it is read whole from the node, and held against
    /// its merkle root. An error where the node's bytes are no better, or these are not the cause.
    pub fn distrust(&self, hash: &BlockHash, place: &BlockPlace) -> Result<(), SourceError> {
        let in_files = self.files.as_ref().filter(|_| place.is_in_file());
        let is_well = in_files.is_some_and(|files| {
            let mut bytes = Vec::new();
            let read = files.block(place, &mut bytes).is_ok();
            read && BlockView::parse(&bytes).is_ok_and(|block| block.check(hash).is_ok())
        });
        if is_well || self.is_distrusted(hash) {
            return Err(SourceError(format!(
                "the index does not fit block {hash}, which is well: `ambra verify` tells more, and a start with --rebuild \
                 mends it"
            )));
        }
        if in_files.is_some() {
            tracing::warn!(
                "block {hash} ({place}) is damaged in the node's files; asking the node for it"
            );
        }
        let block = self.fetch_checked(hash)?;
        self.blocks.insert(*hash, Arc::new(block));
        let distrusted = self.distrusted.write();
        distrusted
            .unwrap_or_else(PoisonError::into_inner)
            .insert(*hash);
        self.has_distrusted.store(true, Ordering::Release);
        Ok(())
    }

    /// A whole block from the node, which hands out what its disk has without a look at the merkle root.
    fn fetch_checked(&self, hash: &BlockHash) -> Result<Vec<u8>, SourceError> {
        let bytes = self.fetch(hash)?;
        let checked = BlockView::parse(&bytes).and_then(|block| block.check(hash));
        checked.map_err(|error| {
            SourceError(format!(
                "the node's own copy of block {hash} is damaged ({error}): start bitcoind once with -reindex, and look \
                 after its disk"
            ))
        })?;
        Ok(bytes)
    }

    /// Part of a block; `None` where the whole block is to be asked for.
    fn fetch_part(&self, hash: &BlockHash, offset: u32, size: u32) -> Option<Vec<u8>> {
        let rest = self.rest.as_ref()?;
        if self.has_no_parts.load(Ordering::Relaxed) {
            return None;
        }
        match rest.block_part(hash, offset, size) {
            Ok(Some(part)) => Some(part),
            Ok(None) => {
                tracing::debug!("REST gives no parts of blocks; whole ones are asked for");
                self.has_no_parts.store(true, Ordering::Relaxed);
                None
            }
            Err(error) => {
                tracing::debug!("REST: {error}; asking for the whole of block {hash}");
                None
            }
        }
    }

    /// A whole block.
    pub fn block(&self, hash: &BlockHash, place: &BlockPlace) -> Result<Vec<u8>, SourceError> {
        if let Some(files) = self.files.as_ref().filter(|_| place.is_in_file()) {
            let mut out = Vec::new();
            match files.block(place, &mut out) {
                Ok(()) => return Ok(out),
                Err(error) => tracing::warn!("{error}; asking the node for block {hash}"),
            }
        }
        self.fetch(hash)
    }

    /// The outputs that a block spends.
    pub fn spent(
        &self,
        hash: &BlockHash,
        header: &HeaderBytes,
        tx_count: u32,
        place: &BlockPlace,
    ) -> Result<(SpentOutputs, BlockPlace), SourceError> {
        if tx_count == 1 {
            return Ok((SpentOutputs::none(), *place));
        }
        if let Some(files) = self
            .files
            .as_ref()
            .filter(|_| place.is_in_file() && !place.is_undo_unsure())
        {
            let mut out = Vec::new();
            match files.undo(place, header, tx_count, None, &mut out) {
                Ok(place) => return Ok((SpentOutputs::Undo(out), place)),
                Err(error) => tracing::warn!("{error}; asking the node for block {hash}"),
            }
        }
        Ok((self.fetch_spent(hash)?, *place))
    }

    /// Where a block is to be read again that the node had to be asked for: in the files if just these bytes lie there (so
    /// it was the undo data that failed), else nowhere: what is damaged is not read twice.
    pub fn place_again(&self, place: BlockPlace, block: &[u8]) -> BlockPlace {
        let mut found = Vec::new();
        let holds = self.files.as_ref().is_some_and(|files| {
            place.is_in_file() && files.block(&place, &mut found).is_ok() && found == block
        });
        if holds {
            return place.with_unsure_undo();
        }
        // The largest block has 4 MB.
        BlockPlace::in_no_file(block.len() as u32)
    }

    /// A whole block from the node, not from files.
    pub fn fetch(&self, hash: &BlockHash) -> Result<Vec<u8>, SourceError> {
        if let Some(rest) = &self.rest {
            match rest.block(hash) {
                Ok(block) => return Ok(block),
                Err(error) => tracing::debug!("REST: {error}; asking RPC for block {hash}"),
            }
        }
        self.rpc
            .block(hash)
            .map_err(|error| SourceError(error.to_string()))
    }

    /// Spent outputs from the node, not from files.
    pub fn fetch_spent(&self, hash: &BlockHash) -> Result<SpentOutputs, SourceError> {
        if let Some(rest) = &self.rest {
            match rest.spent(hash) {
                Ok(Some(spent)) => return Ok(spent),
                Ok(None) => {
                    tracing::debug!("REST has no spent outputs; asking RPC for block {hash}")
                }
                Err(error) => tracing::debug!("REST: {error}; asking RPC for block {hash}"),
            }
        }
        self.rpc
            .spent(hash)
            .map_err(|error| SourceError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{Network, consensus::encode::serialize, constants::genesis_block};

    use super::*;
    use crate::daemon::{
        fake::{Answer, FakeNode},
        rpc::{RpcAuth, RpcConfig},
    };

    /// By REST alone, of a node that answers so.
    fn by_rest(node: &FakeNode) -> BlockSource {
        let rpc = Rpc::new(RpcConfig {
            url: node.url(),
            auth: RpcAuth::UserPass("user".into(), "password".into()),
            timeout: RpcConfig::TIMEOUT,
        });
        BlockSource::new(None, Some(Rest::new(&node.url())), rpc)
    }

    fn block(network: Network) -> (BlockHash, Vec<u8>, BlockPlace) {
        let block = genesis_block(network);
        let bytes = serialize(&block);
        let place = BlockPlace::in_no_file(bytes.len() as u32);
        (block.block_hash(), bytes, place)
    }

    fn part(
        source: &BlockSource,
        (hash, _, place): &(BlockHash, Vec<u8>, BlockPlace),
        offset: u32,
        size: u32,
    ) -> Vec<u8> {
        let mut out = vec![0; size as usize];
        let hash = || Ok(*hash);
        source.read_part(&hash, place, offset, &mut out).unwrap();
        out
    }

    fn asked(node: &FakeNode) -> Vec<String> {
        let line = |line: String| line.split(['/', '?']).skip(2).take(1).collect();
        node.asked()
            .into_iter()
            .map(|asked| line(asked.line))
            .collect()
    }

    #[test]
    fn a_small_part_is_asked_for_by_itself_and_a_large_one_brings_the_block() {
        let known = block(Network::Regtest);
        let bytes = &known.1;
        let node = FakeNode::new([
            Answer::Http(200, bytes[80..100].to_vec()),
            Answer::Http(200, bytes.clone()),
        ]);
        let source = by_rest(&node);
        assert_eq!(part(&source, &known, 80, 20), bytes[80..100]);
        assert_eq!(part(&source, &known, 80, 200), bytes[80..280]);
        assert_eq!(part(&source, &known, 90, 20), bytes[90..110]);
        assert_eq!(asked(&node), ["blockpart", "block"]);
    }

    #[test]
    fn a_node_without_parts_is_asked_for_whole_blocks_and_each_once() {
        let (first, second) = (block(Network::Regtest), block(Network::Signet));
        let node = FakeNode::new([
            Answer::Http(404, Vec::new()),
            Answer::Http(200, first.1.clone()),
            Answer::Http(200, second.1.clone()),
        ]);
        let source = by_rest(&node);
        for _ in 0..3 {
            assert_eq!(part(&source, &first, 80, 20), first.1[80..100]);
            assert_eq!(part(&source, &second, 4, 32), second.1[4..36]);
        }
        assert_eq!(asked(&node), ["blockpart", "block", "block"]);
    }

    #[test]
    fn many_who_want_a_block_at_once_cost_one_exchange() {
        let known = block(Network::Regtest);
        let node = FakeNode::new([Answer::Http(200, known.1.clone())]);
        let source = by_rest(&node);
        let all = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    all.wait();
                    assert_eq!(part(&source, &known, 0, 285), known.1);
                });
            }
        });
        assert_eq!(asked(&node), ["block"]);
    }

    #[test]
    fn a_block_that_is_distrusted_is_asked_for_whole_and_checked() {
        let known = block(Network::Regtest);
        let (hash, bytes, place) = &known;
        let mut damaged = bytes.clone();
        damaged[100] ^= 1;
        let node = FakeNode::new([
            Answer::Http(200, damaged[90..110].to_vec()),
            Answer::Http(200, bytes.clone()),
        ]);
        let source = by_rest(&node);
        // 1. A part is not checked here.
        assert_eq!(part(&source, &known, 90, 20), damaged[90..110]);
        // 2. Who finds it wrong says so. From then on parts come from what was checked.
        source.distrust(hash, place).unwrap();
        assert_eq!(part(&source, &known, 90, 20), bytes[90..110]);
        assert_eq!(asked(&node), ["blockpart", "block"]);
        // 3. Wrong all the same: not for the bytes.
        let error = source.distrust(hash, place).unwrap_err();
        assert!(error.0.contains("the index does not fit"), "{error}");
    }

    #[test]
    fn a_block_that_the_node_hands_out_damaged_is_an_error_that_says_what_mends_it() {
        let (hash, bytes, place) = block(Network::Regtest);
        let mut damaged = bytes;
        damaged[100] ^= 1;
        let answer = || Answer::Http(200, damaged.clone());
        let node = FakeNode::new([answer(), answer()]);
        let source = by_rest(&node);
        let error = source.distrust(&hash, &place).unwrap_err();
        assert!(error.0.contains("-reindex"), "{error}");
        let read = source.read_part(&|| Ok(hash), &place, 0, &mut [0; 285]);
        assert!(read.unwrap_err().0.contains("-reindex"));
    }

    #[test]
    fn a_part_beyond_the_blocks_end_is_an_error() {
        let (hash, bytes, place) = block(Network::Regtest);
        let node = FakeNode::new([Answer::Http(200, bytes)]);
        let read = by_rest(&node).read_part(&|| Ok(hash), &place, 200, &mut [0; 100]);
        assert!(read.is_err());
    }
}
