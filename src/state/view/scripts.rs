//! Questions about a script: what is confirmed and what is in the mempool, put together.

use std::collections::HashSet;

use bitcoin::Txid;

use super::{OVERLAP_BLOCKS, View};
use crate::{
    chain::{Balance, History, MempoolEntry, ScriptHash, Status, Unspent},
    state::{
        Ask, QueryError, Stop,
        query::{Found, OutPoints},
        table::TableBlock,
    },
};

impl View {
    /// True if questions about this script are answered from memory, without disk (run them inline); else run them on the pool.
    pub fn is_in_memory(&self, script: &ScriptHash) -> bool {
        self.progress.is_some() || self.core.cache.is_known(script, &self.moment())
    }

    pub fn status(&self, script: &ScriptHash, ask: &Ask) -> Result<Option<Status>, QueryError> {
        self.ask_script(script, ask, |view, found| {
            let mut hasher = found.hasher.clone();
            for entry in view.unconfirmed(script, found, ask)? {
                hasher.mempool(&entry);
            }
            Ok(hasher.finish())
        })
    }

    pub fn history(&self, script: &ScriptHash, ask: &Ask) -> Result<History, QueryError> {
        self.ask_script(script, ask, |view, found| {
            Ok(History {
                confirmed: found.confirmed.clone(),
                mempool: view.unconfirmed(script, found, ask)?,
            })
        })
    }

    pub fn mempool(&self, script: &ScriptHash, ask: &Ask) -> Result<Vec<MempoolEntry>, QueryError> {
        self.check_synced()?;
        let entries = self.mempool.history(script);
        if entries.is_empty() {
            return Ok(entries);
        }
        self.ask_script(script, ask, |view, found| {
            view.unconfirmed(script, found, ask)
        })
    }

    pub fn balance(&self, script: &ScriptHash, ask: &Ask) -> Result<Balance, QueryError> {
        self.ask_script(script, ask, |view, found| {
            let overlap = view.overlap(&view.mempool.history(script), found);
            let unconfirmed = if overlap.is_empty() {
                view.mempool.balance_change(script)
            } else {
                view.balance_change_without(script, &overlap)
            };
            Ok(Balance {
                confirmed: found.balance,
                unconfirmed,
            })
        })
    }

    pub fn unspent(&self, script: &ScriptHash, ask: &Ask) -> Result<Vec<Unspent>, QueryError> {
        self.ask_script(script, ask, |view, found| {
            let overlap = view.overlap(&view.mempool.history(script), found);
            let spent: OutPoints<()> = view
                .mempool
                .spends(script)
                .into_iter()
                .map(|spend| (spend.outpoint, ()))
                .collect();
            let mut unspent = Vec::with_capacity(found.coins.len());
            let mut block = None;
            for coin in &found.coins {
                if !spent.is_empty() && spent.contains_key(&coin.outpoint()) {
                    continue;
                }
                let height = match block {
                    Some(TableBlock { height, .. })
                        if block.is_some_and(|block| block.contains(coin.tx)) =>
                    {
                        height
                    }
                    _ => {
                        block = view.table.block_of(coin.tx);
                        block.map_or(0, |block| block.height)
                    }
                };
                unspent.push(Unspent {
                    txid: coin.txid,
                    vout: coin.vout,
                    value: coin.value,
                    height,
                });
            }
            let unconfirmed = view.mempool.unspent(script).into_iter();
            unspent.extend(unconfirmed.filter(|coin| !overlap.contains(&coin.txid)));
            Ok(unspent)
        })
    }

    // What the questions have in common.

    fn ask_script<T>(
        &self,
        script: &ScriptHash,
        ask: &Ask,
        answer: impl Fn(&View, &Found) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        self.newest_if_overtaken(|view| {
            view.check_synced()?;
            view.with_found(script, ask, |found| answer(view, found))
        })
    }

    pub(super) fn with_found<T>(
        &self,
        script: &ScriptHash,
        ask: &Ask,
        answer: impl Fn(&Found) -> Result<T, QueryError>,
    ) -> Result<T, Stop> {
        self.core.cache.with_found(
            script,
            &self.moment(),
            ask,
            &|script| self.core.subscriptions.is_subscribed(script),
            &|from, known| self.unless_overtaken(self.reader(ask).read(script, from, known)),
            &mut |found| {
                check_size(found.confirmed.len(), ask)?;
                answer(found)
            },
        )
    }

    /// The script's unconfirmed entries: what is confirmed already is not told twice.
    fn unconfirmed(
        &self,
        script: &ScriptHash,
        found: &Found,
        ask: &Ask,
    ) -> Result<Vec<MempoolEntry>, QueryError> {
        let mut entries = self.mempool.history(script);
        let overlap = self.overlap(&entries, found);
        if !overlap.is_empty() {
            entries.retain(|entry| !overlap.contains(&entry.txid));
        }
        check_size(found.confirmed.len() + entries.len(), ask)?;
        Ok(entries)
    }

    /// Which of the unconfirmed entries are confirmed too.
    fn overlap(&self, entries: &[MempoolEntry], found: &Found) -> HashSet<Txid> {
        if entries.is_empty() {
            return HashSet::new();
        }
        let unconfirmed: HashSet<Txid> = entries.iter().map(|entry| entry.txid).collect();
        let oldest = self.tip.height.saturating_sub(OVERLAP_BLOCKS);
        let recent = found
            .confirmed
            .partition_point(|entry| entry.height < oldest);
        found.confirmed[recent..]
            .iter()
            .filter(|entry| unconfirmed.contains(&entry.txid))
            .map(|entry| entry.txid)
            .collect()
    }

    /// As [`Mempool::balance_change`](crate::mempool::Mempool::balance_change), of the transactions that are not in `overlap`.
    fn balance_change_without(&self, script: &ScriptHash, overlap: &HashSet<Txid>) -> i64 {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let mut change = 0i64;
        for coin in self.mempool.unspent(script) {
            if !overlap.contains(&coin.txid) {
                change = change.saturating_add(signed(coin.value));
            }
        }
        for spend in self.mempool.spends(script) {
            let funder = spend.outpoint.txid;
            if self.mempool.contains(&funder) && !overlap.contains(&funder) {
                change = change.saturating_add(signed(spend.value));
            }
            if !overlap.contains(&spend.spender) {
                change = change.saturating_sub(signed(spend.value));
            }
        }
        change
    }
}

fn check_size(entries: usize, ask: &Ask) -> Result<(), QueryError> {
    match ask.max_history {
        Some(limit) if entries > limit => Err(QueryError::TooLarge { limit }),
        _ if ask.list_max.is_some_and(|max| entries > max) => Err(QueryError::Long),
        _ => Ok(()),
    }
}
