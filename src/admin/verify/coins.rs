//! What a block does to the set of unspent outputs, by its bytes and what it spends.

use crate::chain::{BlockView, Height, ParseError, SpentOutputs, is_unspendable};

/// Longest script that can be spent (Bitcoin Core `MAX_SCRIPT_SIZE`): outputs with longer ones are not in the
/// node's set either.
const SCRIPT_BYTES_MAX: usize = 10_000;

/// What a block does to the set of unspent outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoinChange {
    /// Made less spent.
    pub count: i64,
    pub satoshis: i64,
}

/// The genesis block's outputs are in no set.
pub fn coin_change(
    height: Height,
    block: &BlockView,
    spent: &SpentOutputs,
) -> Result<CoinChange, ParseError> {
    let mut change = CoinChange::default();
    if height == 0 {
        return Ok(change);
    }
    let mut reader = spent.reader()?;
    let mut is_coinbase = true;
    block.for_each_tx(|_, tx| {
        if !is_coinbase {
            for _ in 0..reader.next_tx()? {
                let (value, _script) = reader.next_output()?;
                change.count -= 1;
                change.satoshis -= value as i64;
            }
        }
        is_coinbase = false;
        let spendable = tx.outputs().filter(|output| {
            !is_unspendable(output.script) && output.script.len() <= SCRIPT_BYTES_MAX
        });
        for output in spendable {
            change.count += 1;
            change.satoshis += output.value as i64;
        }
        Ok::<(), ParseError>(())
    })?;
    Ok(change)
}
