//! The node's own counts.

use std::sync::Mutex;

use super::{
    Fault, Faults, Report, Truth, VerifyError, blame, blocks::Made, chain::Chain, coins::CoinChange,
};
use crate::chain::Height;

/// Blocks above the index's tip that are made for the sake of comparing at the node's tip.
const BLOCKS_ABOVE_MAX: Height = 1000;

/// Two coinbases of mainnet (blocks 91,722 and 91,812) were overwritten by later ones with the same txid (91,880 and
/// 91,842) before BIP 30 forbade it: 50 BTC each went, unspent.
const OVERWRITTEN: [Height; 2] = [91_842, 91_880];
const OVERWRITTEN_SATOSHIS: i64 = 50 * 100_000_000;

pub fn check(
    truth: &dyn Truth,
    chain: &Chain,
    made: &Made,
    faults: &Mutex<Faults>,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let last = &chain.blocks[chain.blocks.len() - 1];
    match truth.tx_count(&last.hash).map_err(VerifyError::Node)? {
        Some(node) if node == u64::from(chain.next_tx.0) => {
            report.totals.push(format!("{node} transactions"));
        }
        Some(node) => {
            let (what, index) = ("transactions", chain.next_tx.0.into());
            blame(faults, Fault::Total { what, node, index });
        }
        None => report
            .notes
            .push("the node does not count transactions up to the index's tip".to_owned()),
    }
    let Some(changes) = &made.coins else {
        let note = "unspent outputs: compared with --blocks all only";
        report.notes.push(note.to_owned());
        return Ok(());
    };
    let Some(coins) = truth.coins().map_err(VerifyError::Node)? else {
        report
            .notes
            .push("the node does not count unspent outputs".to_owned());
        return Ok(());
    };
    let tip = chain.blocks.len() as Height - 1;
    let ours = match chain.blocks.get(coins.height as usize) {
        Some(block) if block.hash == coins.hash => sum(&changes[..=coins.height as usize]),
        None if coins.height - tip <= BLOCKS_ABOVE_MAX => {
            let above = truth
                .changes(tip + 1, coins.height, &last.hash)
                .map_err(VerifyError::Node)?;
            above.map(|above| add(sum(changes), sum(&above)))
        }
        _ => None,
    };
    let Some(mut ours) = ours else {
        let note = "unspent outputs: the node counted them on another branch or too far above";
        report.notes.push(note.to_owned());
        return Ok(());
    };
    if truth.is_mainnet() {
        for _ in OVERWRITTEN.iter().filter(|&&at| at <= coins.height) {
            ours.count -= 1;
            ours.satoshis -= OVERWRITTEN_SATOSHIS;
        }
    }
    let compared = [
        ("unspent outputs", coins.count, ours.count),
        ("satoshis", coins.satoshis, ours.satoshis),
    ];
    for (what, node, index) in compared {
        let index = u64::try_from(index).unwrap_or(0);
        if node == index {
            report.totals.push(format!("{node} {what}"));
        } else {
            blame(faults, Fault::Total { what, node, index });
        }
    }
    Ok(())
}

fn sum(changes: &[CoinChange]) -> Option<CoinChange> {
    Some(
        changes
            .iter()
            .fold(CoinChange::default(), |sum, change| CoinChange {
                count: sum.count + change.count,
                satoshis: sum.satoshis + change.satoshis,
            }),
    )
}

fn add(a: Option<CoinChange>, b: Option<CoinChange>) -> CoinChange {
    let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
    CoinChange {
        count: a.count + b.count,
        satoshis: a.satoshis + b.satoshis,
    }
}
