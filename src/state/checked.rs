//! Transactions as they are read back from blocks, held against what the index knows of them.

use bitcoin::Txid;

use super::{QueryError, table::TableBlock};
use crate::{chain::TxView, index::TxPlace};

/// The transaction at this place of the block, and its txid; [`QueryError::Damaged`] where it is not the one that was
/// indexed.
pub(super) fn checked<'a>(
    block: &TableBlock,
    place: &TxPlace,
    bytes: &'a [u8],
) -> Result<(TxView<'a>, Txid), QueryError> {
    let damaged = QueryError::Damaged(block.height);
    let Ok(tx) = TxView::parse(bytes) else {
        return Err(damaged);
    };
    let txid = tx.txid();
    match place.fits(&tx, &txid) {
        true => Ok((tx, txid)),
        false => Err(damaged),
    }
}
