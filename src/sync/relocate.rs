//! Where the blocks of a whole index lie in the node's files: found anew, where the index came from another machine,
//! or the node downloaded its chain again.
//!
//! # Correctness
//! Two nodes with the same chain have it in other places of their files. An index that is read with another node's
//! places would read other bytes than it means, and find nothing in them.

use crate::{
    chain::{BlockPlace, HEADER_LEN, Height, block_hash},
    daemon::{
        files::{BlockFiles, previous},
        rpc::{Rpc, RpcError},
        source::BlockSource,
    },
    index::{BlockRow, Index, IndexError, schema::DamagedRow},
};

use super::{Stop, SyncError, plan::plan, step::find_fork};

/// Blocks that are looked at to tell whether the places are right. A node that downloads anew gets blocks in another
/// order from the first thousands on, and from there on every place differs.
const SAMPLES: Height = 64;

/// True if the places are those of these files.
pub fn fits(index: &Index, files: &BlockFiles) -> Result<bool, IndexError> {
    let Some(tip) = index.tip()? else {
        return Ok(true);
    };
    let mut header = [0; HEADER_LEN];
    let (mut is_any_known, mut is_any_right) = (false, false);
    for sample in 0..=SAMPLES {
        let height = u64::from(tip.height) * u64::from(sample) / u64::from(SAMPLES);
        let height = Height::try_from(height).unwrap_or(tip.height);
        let Some(row) = index.block(height)? else {
            return Err(damaged());
        };
        if !row.place.is_in_file() {
            continue;
        }
        is_any_known = true;
        match files.part(&row.place, 0, &mut header) {
            Ok(()) if header == row.header => is_any_right = true,
            Ok(()) | Err(_) => return Ok(false),
        }
    }
    // Where no place is known, there were no files when the index was made: now there are.
    Ok(is_any_known == is_any_right && is_any_known)
}

/// The highest block of the index that the node has too. The index's headers are checked on the way: each has the hash
/// that its row says, and follows on the one before.
pub fn check_headers(index: &Index, rpc: &Rpc) -> Result<Height, SyncError> {
    let tip = index.tip()?.ok_or_else(damaged)?;
    let mut last = None;
    for row in index.blocks_from(0) {
        let (height, row) = row?;
        let follows = match last {
            None => height == 0,
            Some((below, hash)) => height == below + 1 && previous(&row.header) == hash,
        };
        if !follows || block_hash(&row.header) != row.hash {
            return Err(damaged().into());
        }
        last = Some((height, row.hash));
    }
    if last != Some((tip.height, tip.hash)) {
        return Err(damaged().into());
    }
    let best = rpc.blockchain_info()?.blocks;
    find_fork(tip.height.min(best), |height| {
        let theirs = match rpc.block_hash(height) {
            Ok(hash) => Some(hash),
            // Shorter by now.
            Err(RpcError::Refused { .. }) => None,
            Err(error) => return Err(SyncError::from(error)),
        };
        Ok(theirs.is_some() && index.block(height)?.map(|row| row.hash) == theirs)
    })
}

/// Finds all blocks up to `fork` in the node's files and sets their places; those that no file has, and those above,
/// are asked of the node from now on.
pub fn place_blocks(
    index: &Index,
    source: &BlockSource,
    rpc: &Rpc,
    fork: Height,
    threads: usize,
    stop: &Stop,
) -> Result<(), SyncError> {
    let plan = match source.files() {
        Some(_) => plan(source, rpc, fork, threads, stop)?.0,
        None => Vec::new(),
    };
    let mut rows = Vec::new();
    for row in index.blocks_from(0) {
        let (height, mut row) = row?;
        let planned = plan.get(height as usize);
        if let Some(planned) = planned {
            let same = planned.hash == row.hash
                && planned.tx_count == row.tx_count
                && planned.first_tx == row.first_tx;
            if !same {
                return Err(damaged().into());
            }
        }
        row.place = match planned {
            Some(planned) if planned.place.is_in_file() => planned.place,
            // Its size stays known.
            Some(_) | None => BlockPlace::in_no_file(row.place.size),
        };
        rows.push((height, row));
    }
    Ok(index.set_places(rows)?)
}

fn damaged() -> IndexError {
    DamagedRow {
        family: BlockRow::FAMILY,
    }
    .into()
}
