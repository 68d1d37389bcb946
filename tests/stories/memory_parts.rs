//! What the server's memory is made of: the parts that it counts and bounds; and that it goes flat where they are full.

use std::time::Instant;

use bitcoin::{Amount, ScriptBuf, Transaction, TxOut};
use serde_json::json;

use crate::{
    ambra::Ambra,
    client::Client,
    http::get,
    locks::{Coin, pay},
    long::report,
    node::{Node, NodeOptions},
    oracle::script_hash,
    status_page::ON_ANY_PORT,
    treasury::{FEE, Treasury, coins_to},
};

/// The stated bounds (`docs/operating.md`), in bytes.
const UNWRITTEN_MAX: u64 = 64 << 20;
const BLOCKS_MAX: u64 = 64 << 20;
const PROOFS_MAX: u64 = 64 << 20;
/// Of `--cache-memory`.
const TRANSACTIONS_PART: u64 = 8;

/// In bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts {
    /// Pages of the program's file and of its libraries, as far as they were used.
    pub program: u64,
    /// The database's rows that are in no table yet, its tables' indexes, and its block cache.
    pub unwritten: u64,
    pub tables: u64,
    pub blocks: u64,
    /// What is known of scripts, of blocks' merkle trees, and of large transactions.
    pub scripts: u64,
    pub proofs: u64,
    pub transactions: u64,
}

impl Parts {
    /// The server must have a status page.
    pub fn of(ambra: &Ambra) -> Parts {
        let page = get(ambra.status_page(), "/metrics").body;
        let metric = |sample: &str| {
            let told = page
                .lines()
                .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
            let value = told.and_then(|value| value.parse::<f64>().ok());
            value.unwrap_or_else(|| panic!("no {sample} in {page}")) as u64
        };
        let database =
            |part: &str| metric(&format!("ambra_database_memory_bytes{{part=\"{part}\"}}"));
        Parts {
            program: ambra.memory_of_files(),
            unwritten: database("unwritten"),
            tables: database("tables"),
            blocks: database("cache"),
            scripts: metric("ambra_cache_bytes"),
            proofs: metric("ambra_proof_cache_bytes"),
            transactions: metric("ambra_transaction_cache_bytes"),
        }
    }

    pub fn sum(&self) -> u64 {
        let database = self.unwritten + self.tables + self.blocks;
        self.program + database + self.scripts + self.proofs + self.transactions
    }

    /// `cache_mib`: what was given as `--cache-memory`.
    #[track_caller]
    pub fn assert_in_bounds(&self, cache_mib: &str) {
        let cache_max = cache_mib.parse::<u64>().expect("a number") << 20;
        assert!(self.unwritten <= UNWRITTEN_MAX, "{self:?}");
        assert!(self.blocks <= BLOCKS_MAX, "{self:?}");
        assert!(self.proofs <= PROOFS_MAX, "{self:?}");
        assert!(
            self.transactions <= cache_max / TRANSACTIONS_PART,
            "{self:?}"
        );
        // Who asks has what was asked for before room is made.
        assert!(self.scripts <= cache_max + cache_max / 16, "{self:?}");
    }
}

pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Scripts of one block. Their rows take a megabyte of the database's memory.
const SCRIPTS: u32 = 20_000;
/// Of each payment.
const OUTPUTS: u32 = 500;
/// Of a block's so many are asked for.
const ASKED: usize = 2_000;
const BATCH: usize = 250;
/// How often the database must have written what it had in memory. With the fifth table it compacts, which fills the block cache;
/// from then on memory must be flat.
const FLUSHES: usize = 8;
const FLUSHES_TO_FULL: usize = 4;
const FLUSHES_EARLY: usize = 2;
/// What the peak between two flushes may still grow by: the chain's growth, and the allocator's room.
const PEAK_GROWTH_MAX: u64 = 4 << 20;
const CACHE_MIB: &str = "8";

/// What no one can take for another's: a number is pushed and dropped.
fn script(number: u32) -> ScriptBuf {
    let [a, b, c, d] = number.to_be_bytes();
    ScriptBuf::from_bytes(vec![0x04, a, b, c, d, 0x75, 0x51])
}

/// A block with payments to many scripts, each from the change of the one before; the change, for the next.
fn mine_many_scripts(node: &Node, mut coin: Coin, first: u32) -> Coin {
    let to = |script_pubkey: ScriptBuf, sats: u64| TxOut {
        value: Amount::from_sat(sats),
        script_pubkey,
    };
    let mut payments = Vec::new();
    for first in (first..first + SCRIPTS).step_by(OUTPUTS as usize) {
        let mut outputs: Vec<TxOut> = (first..first + OUTPUTS)
            .map(|number| to(script(number), 1))
            .collect();
        let left = coin.value.to_sat() - u64::from(OUTPUTS) - FEE;
        outputs.push(to(coin.lock.script(), left));
        let payment = pay(std::slice::from_ref(&coin), outputs);
        coin = coins_to(&payment, &coin.lock).remove(0);
        payments.push(payment);
    }
    let payments: Vec<&Transaction> = payments.iter().collect();
    node.mine_exactly(&Treasury::elsewhere(), &payments);
    coin
}

fn ask_balances(client: &mut Client, scripts: &[ScriptBuf]) {
    for some in scripts.chunks(BATCH) {
        let method = "blockchain.scripthash.get_balance";
        let requests: Vec<_> = some
            .iter()
            .map(|script| (method, json!([script_hash(script)])))
            .collect();
        for answer in client.batch(&requests) {
            assert_eq!(answer.expect("a balance")["confirmed"], 1);
        }
    }
}

#[test]
#[ignore = "minutes long; contrib/torture.sh runs it"]
fn memory_is_flat_once_its_parts_are_at_their_bounds() {
    let node = Node::start(NodeOptions::default());
    let mut coin = Treasury::mine(&node).coin();
    let mut options = vec!["--cache-memory", CACHE_MIB];
    options.extend(ON_ANY_PORT);
    let mut ambra = Ambra::start_with(&node, &options);
    let began = Instant::now();
    let before = ambra.memory();

    // 1. Blocks come and scripts are asked for, until the database has written its rows often enough.
    let (mut peaks, mut unwritten_before, mut first) = (vec![0], 0, 0);
    while peaks.len() <= FLUSHES {
        coin = mine_many_scripts(&node, coin, first);
        ambra.wait_until_at_tip(&node);
        let scripts: Vec<ScriptBuf> = (first..first + SCRIPTS).map(script).collect();
        ask_balances(&mut ambra.client(), &scripts[..ASKED]);
        first += SCRIPTS;
        let parts = Parts::of(&ambra);
        parts.assert_in_bounds(CACHE_MIB);
        if parts.unwritten < unwritten_before {
            println!(
                "a flush after {first} scripts, at most {:.1} MiB; {parts:?}",
                mib(peaks[peaks.len() - 1])
            );
            peaks.push(0);
        }
        unwritten_before = parts.unwritten;
        let peak = peaks.last_mut().expect("one");
        *peak = ambra.memory().max(*peak);
        assert!(ambra.is_running());
    }
    peaks.pop();

    // 2. The last peaks are no higher than the first ones with everything full.
    let most = |peaks: &[u64]| peaks.iter().copied().max().unwrap_or(0);
    let (early, late) = peaks[FLUSHES_TO_FULL..].split_at(FLUSHES_EARLY);
    let (early, late) = (most(early), most(late));
    let scripts_full = Parts::of(&ambra).scripts;
    report(
        "memory at its bounds",
        &json!({
            "flushes": FLUSHES, "scripts": first, "seconds": began.elapsed().as_secs(), "before": before,
            "peaks": peaks, "early": early, "late": late, "growth_max": PEAK_GROWTH_MAX, "cache": scripts_full,
        }),
    );
    assert!(
        scripts_full > 7 << 20,
        "the cache was not full: {scripts_full}"
    );
    assert!(
        late <= early + PEAK_GROWTH_MAX,
        "the peaks between flushes grow: {peaks:?}"
    );
}
