//! Pieces put together in chain order: which transactions touch the script, and what is left of its coins.

use bitcoin::OutPoint;

use super::{
    Piece, ReadTx, Reader,
    found::{Addition, Coin, Found, OutPoints},
};
use crate::{
    chain::{Confirmed, TxNum},
    state::{
        QueryError,
        table::{BlockTable, TableBlock},
    },
};

/// Pieces put together in chain order.
pub struct Merge<'a> {
    table: &'a BlockTable,
    history_max: Option<usize>,
    known: &'a Found,
    /// The block of the transaction that was added last.
    block: Option<TableBlock>,
    /// Outputs that pay the script and are not spent yet: all new ones, and those old ones that the
    /// transactions of the piece at hand spend (or all, for long additions).
    funded: OutPoints<(TxNum, u64)>,
    has_all_old: bool,
    addition: Addition,
}

impl<'a> Merge<'a> {
    pub fn new(reader: &Reader<'a>, known: &'a Found) -> Merge<'a> {
        Merge {
            table: reader.table,
            history_max: reader.ask.max_history,
            known,
            block: None,
            funded: OutPoints::default(),
            has_all_old: known.coins.is_empty(),
            addition: Addition {
                balance: known.balance,
                hasher: known.hasher.clone(),
                last: known.last,
                ..Addition::default()
            },
        }
    }

    /// Many transactions come: look old coins up instead of passing over all of them for each piece.
    pub fn expect_many(&mut self) {
        if !self.has_all_old {
            let old = self.known.coins.iter();
            self.funded
                .extend(old.map(|coin| (coin.outpoint(), (coin.tx, coin.value))));
            self.has_all_old = true;
        }
    }

    pub fn add(&mut self, piece: &Piece) -> Result<(), QueryError> {
        if !self.has_all_old && !piece.inputs.is_empty() {
            let inputs: OutPoints<()> = piece.inputs.iter().map(|input| (*input, ())).collect();
            for coin in &self.known.coins {
                let outpoint = coin.outpoint();
                if inputs.contains_key(&outpoint) && !self.addition.spent.contains_key(&outpoint) {
                    self.funded.insert(outpoint, (coin.tx, coin.value));
                }
            }
        }
        let (mut inputs_start, mut outputs_start) = (0, 0);
        for tx in &piece.txs {
            let inputs = &piece.inputs[inputs_start..tx.inputs_end];
            let outputs = &piece.outputs[outputs_start..tx.outputs_end];
            (inputs_start, outputs_start) = (tx.inputs_end, tx.outputs_end);
            let mut touches = !outputs.is_empty();
            for input in inputs {
                if let Some((funder, value)) = self.funded.remove(input) {
                    touches = true;
                    self.addition.balance = self.addition.balance.saturating_sub(value);
                    if self.known.last >= Some(funder) {
                        self.addition.spent.insert(*input, ());
                    }
                }
            }
            for &(vout, value) in outputs {
                let outpoint = OutPoint {
                    txid: tx.txid,
                    vout,
                };
                // Before BIP 30 two coinbases came twice; their first outputs are lost.
                if let Some((_, lost)) = self.funded.insert(outpoint, (tx.n, value)) {
                    self.addition.balance = self.addition.balance.saturating_sub(lost);
                }
                self.addition.balance = self.addition.balance.saturating_add(value);
            }
            if touches {
                self.add_entry(tx)?;
            }
        }
        Ok(())
    }

    fn add_entry(&mut self, tx: &ReadTx) -> Result<(), QueryError> {
        let block = match self.block {
            Some(block) if block.contains(tx.n) => block,
            _ => self.table.block_of(tx.n).ok_or_else(|| {
                QueryError::Unavailable(format!("no block has transaction {}", tx.n))
            })?,
        };
        self.block = Some(block);
        let entries = self.known.confirmed.len() + self.addition.confirmed.len();
        if let Some(limit) = self.history_max.filter(|&limit| entries >= limit) {
            return Err(QueryError::TooLarge { limit });
        }
        let entry = Confirmed {
            txid: tx.txid,
            height: block.height,
        };
        self.addition.hasher.confirmed(&entry);
        self.addition.confirmed.push(entry);
        self.addition.last = Some(tx.n);
        Ok(())
    }

    pub fn finish(mut self, script: Option<Box<[u8]>>) -> Addition {
        let is_new = |tx: TxNum| self.known.last < Some(tx);
        self.addition.coins = self
            .funded
            .iter()
            .filter(|(_, (tx, _))| is_new(*tx))
            .map(|(outpoint, &(tx, value))| Coin {
                txid: outpoint.txid,
                vout: outpoint.vout,
                tx,
                value,
            })
            .collect();
        self.addition
            .coins
            .sort_unstable_by_key(|coin| (coin.tx, coin.vout));
        self.addition.confirmed.shrink_to_fit();
        self.addition.script = script;
        self.addition
    }
}
