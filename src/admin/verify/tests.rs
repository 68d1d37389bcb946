//! Each column family spoiled on purpose, and each seen.

mod each_check;
mod packed;

use bitcoin::{BlockHash, consensus::encode::serialize, hashes::Hash};

use super::{
    chain::Listed,
    coins::{CoinChange, coin_change},
    *,
};
use crate::{
    chain::{BlockPlace, BlockView, ScriptHash, TxNum, fake::FakeChain},
    index::{
        BlockRow, BlockRows, Index,
        schema::{HistoryRow, TxPositionRow, TxidRow},
    },
};

const BLOCKS: usize = 40;

impl Truth for FakeChain {
    fn tip(&self) -> Result<(Height, BlockHash), String> {
        let last = self.blocks.last().unwrap();
        Ok((self.blocks.len() as Height - 1, last.block_hash()))
    }

    fn hashes(&self, start: Height, count: u32) -> Result<Vec<BlockHash>, String> {
        let blocks = self.blocks.iter().skip(start as usize);
        Ok(blocks
            .take(count as usize)
            .map(|block| block.block_hash())
            .collect())
    }

    fn block(&self, listed: &Listed) -> Result<Fetched, String> {
        self.fetch(listed)
    }

    fn fetch(&self, listed: &Listed) -> Result<Fetched, String> {
        let mut blocks = (0..).zip(&self.blocks);
        let found = blocks.find(|(_, block)| block.block_hash() == listed.hash);
        Ok(match found {
            Some((height, block)) => Fetched::Node {
                bytes: serialize(block),
                spent: self.spent_by_rest(height),
            },
            None => Fetched::Nowhere {
                cause: "no such block".to_owned(),
            },
        })
    }

    fn tx_count(&self, hash: &BlockHash) -> Result<Option<u64>, String> {
        let mut count = 0;
        for block in &self.blocks {
            count += block.txdata.len() as u64;
            if block.block_hash() == *hash {
                return Ok(Some(count));
            }
        }
        Ok(None)
    }

    fn coins(&self) -> Result<Option<Coins>, String> {
        let unspent = self.unspent();
        let (height, hash) = self.tip()?;
        Ok(Some(Coins {
            height,
            hash,
            count: unspent.len() as u64,
            satoshis: unspent
                .iter()
                .map(|(_, output)| output.value.to_sat())
                .sum(),
        }))
    }

    fn changes(
        &self,
        from: Height,
        to: Height,
        parent: &BlockHash,
    ) -> Result<Option<Vec<CoinChange>>, String> {
        if self.blocks[from as usize].header.prev_blockhash != *parent {
            return Ok(None);
        }
        let change = |height| {
            let bytes = serialize(&self.blocks[height as usize]);
            let block = BlockView::parse(&bytes).unwrap();
            coin_change(height, &block, &self.spent_by_rest(height)).unwrap()
        };
        Ok(Some((from..=to).map(change).collect()))
    }

    fn is_mainnet(&self) -> bool {
        false
    }
}

/// Never stops, says nothing.
struct Silent;

impl Watch for Silent {
    fn phase(&self, _: &str) {}
    fn done(&self, _: u64, _: u64) {}
    fn is_stopped(&self) -> bool {
        false
    }
}

struct Story {
    chain: FakeChain,
    index: Index,
    rows: Vec<BlockRows>,
    _folder: tempfile::TempDir,
}

impl Story {
    fn new() -> Story {
        Story::of(BLOCKS)
    }

    fn of(blocks: usize) -> Story {
        let mut chain = FakeChain::new(7, 12);
        (1..blocks).for_each(|number| chain.grow(number % 7));
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(folder.path(), &chain.blocks[0].block_hash()).unwrap();
        let mut rows = Vec::new();
        let mut next = TxNum::ZERO;
        for (height, block) in (0..).zip(&chain.blocks) {
            let bytes = serialize(block);
            let view = BlockView::parse(&bytes).unwrap();
            let place = BlockPlace::in_no_file(bytes.len() as u32);
            let spent = chain.spent_by_rest(height);
            let block = BlockRows::of(height, next, place, &view, spent.reader().unwrap()).unwrap();
            next = block.next_tx();
            index.apply(&[], std::slice::from_ref(&block)).unwrap();
            rows.push(block);
        }
        Story {
            chain,
            index,
            rows,
            _folder: folder,
        }
    }

    fn verify(&self, blocks: Blocks) -> Report {
        let options = Options {
            blocks,
            seed: 5,
            threads: 2,
        };
        verify(&self.index, &self.chain, &options, &Silent).unwrap()
    }

    /// Faults of a check of all blocks, in words.
    fn faults(&self) -> Vec<String> {
        let report = self.verify(Blocks::All);
        assert_eq!(report.faults.len() as u64, report.fault_count, "{report}");
        assert_eq!(report.is_well(), report.fault_count == 0);
        report.faults.iter().map(Fault::to_string).collect()
    }
}

fn block_row(story: &Story, height: Height, change: impl FnOnce(&mut BlockRow)) {
    let mut row = story.rows[height as usize].block;
    change(&mut row);
    let value = row.encode_value();
    story
        .index
        .spoil("block", &BlockRow::key(height), Some(&value));
}

#[test]
fn an_index_that_is_well_is_called_well() {
    let story = Story::new();
    let report = story.verify(Blocks::All);
    assert_eq!(story.faults(), [""; 0]);
    assert_eq!(report.blocks, BLOCKS as u64);
    assert_eq!(report.totals.len(), 3, "{report}");
    assert!(report.to_string().ends_with("No faults."), "{report}");

    // A sample: so many blocks, and the same ones for the same seed.
    let report = story.verify(Blocks::Sample(9));
    assert!(report.is_well(), "{report}");
    assert_eq!(report.blocks, 9);
    assert_eq!(report.totals.len(), 1, "{report}");
}

#[test]
fn the_sample_holds_the_tip_and_each_block_once() {
    let story = Story::new();
    let listed = |row: &BlockRows| Listed {
        hash: row.block.hash,
        first_tx: row.block.first_tx,
        tx_count: row.block.tx_count,
        place: row.block.place,
    };
    let chain = chain::Chain {
        blocks: story.rows.iter().map(listed).collect(),
        next_tx: story.rows[BLOCKS - 1].next_tx(),
    };
    let chosen = |seed| {
        let options = Options {
            blocks: Blocks::Sample(10),
            seed,
            threads: 1,
        };
        chosen(&chain, &options)
    };
    assert_eq!(chosen(1).len(), 10);
    assert_eq!(chosen(1).last(), Some(&(BLOCKS as Height - 1)));
    assert_eq!(chosen(1), chosen(1));
    assert_ne!(chosen(1), chosen(2));
}

#[test]
fn a_row_of_history_that_is_missing_too_many_or_damaged_is_seen() {
    let story = Story::new();
    let mut key = [0; 16];
    // 1. Missing.
    let row = story.rows[20].history[0];
    story.index.spoil("history", row.encode(&mut key), None);
    assert_eq!(
        story.faults(),
        ["history: of block 20, 1 rows are missing and 0 are too many"]
    );
    story
        .index
        .spoil("history", row.encode(&mut key), Some(b""));
    assert_eq!(story.faults(), [""; 0]);

    // 2. Too many: a script that has nothing to do with the transaction.
    let tx = story.rows[13].block.first_tx;
    let stranger = HistoryRow::of_script(&ScriptHash::new(b"stranger"), tx);
    story
        .index
        .spoil("history", stranger.encode(&mut key), Some(b""));
    assert_eq!(
        story.faults(),
        ["history: of block 13, 0 rows are missing and 1 are too many"]
    );
    story
        .index
        .spoil("history", stranger.encode(&mut key), None);

    // 3. Above the tip.
    let above = HistoryRow::of_script(&ScriptHash::new(b"x"), story.rows[BLOCKS - 1].next_tx());
    story
        .index
        .spoil("history", above.encode(&mut key), Some(b""));
    assert_eq!(
        story.faults(),
        ["history: 1 rows of transactions above the tip"]
    );
    story.index.spoil("history", above.encode(&mut key), None);

    // 4. No row at all: a key of another length, and the least of all keys; a value where none belongs.
    for (key, value) in [(&b"abc"[..], &b""[..]), (b"", b"")] {
        story.index.spoil("history", key, Some(value));
        let faults = story.faults();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with("history: a row is damaged"));
        story.index.spoil("history", key, None);
    }
    let row = story.rows[5].history[0];
    story
        .index
        .spoil("history", row.encode(&mut key), Some(b"value"));
    let faults = story.faults();
    assert!(
        faults[0].starts_with("history: a row is damaged"),
        "{faults:?}"
    );
}

#[test]
fn a_row_of_txid_that_is_missing_or_changed_is_seen() {
    let story = Story::new();
    let mut key = [0; 16];
    // 1. Missing: seen even where the block is not in the sample.
    let row = story.rows[31].txid[0];
    story.index.spoil("txid", row.encode(&mut key), None);
    let one = story.verify(Blocks::Sample(1));
    assert_eq!(one.fault_count, 1, "{one}");
    let count = story.rows[31].block.tx_count;
    assert_eq!(
        story.faults(),
        [
            format!(
                "txid: block 31 has {count} transactions, and {} rows",
                count - 1
            ),
            "txid: of block 31, 1 rows are missing and 0 are too many".to_owned(),
        ]
    );

    // 2. Another one in its place.
    let other = TxidRow {
        prefix: row.prefix ^ 1,
        tx: row.tx,
    };
    story.index.spoil("txid", other.encode(&mut key), Some(b""));
    assert_eq!(
        story.faults(),
        ["txid: of block 31, 1 rows are missing and 1 are too many"]
    );
}

#[test]
fn a_place_that_is_missing_or_wrong_is_seen() {
    let story = Story::new();
    let (last, value) = &story.rows[20].tx_position[0];
    let key = TxPositionRow::key(*last);
    let first = story.rows[20].block.first_tx.0;

    // 1. Missing.
    story.index.spoil("tx_position", &key, None);
    let faults = story.faults();
    assert_eq!(
        faults[0],
        format!(
            "tx_position: transactions {first} to {} have no place",
            last.0
        )
    );

    // 2. A size that is wrong by one.
    let row = TxPositionRow::decode(&key, value).unwrap();
    let mut sizes = row.sizes.clone();
    sizes[0] += 1;
    let wrong = TxPositionRow::encode_value(row.first_offset, &sizes, &row.checks);
    story.index.spoil("tx_position", &key, Some(&wrong));
    let sample = story.verify(Blocks::Sample(1));
    assert!(!sample.is_well(), "seen without the block itself: {sample}");

    // 3. A check that is wrong.
    let mut checks = row.checks.clone();
    checks[0] ^= 1;
    let wrong = TxPositionRow::encode_value(row.first_offset, &row.sizes, &checks);
    story.index.spoil("tx_position", &key, Some(&wrong));
    assert_eq!(
        story.faults(),
        [format!(
            "tx_position: transactions {first} to {} have other places than in the node's block",
            last.0
        )]
    );

    // 4. No row at all.
    story.index.spoil("tx_position", &key, Some(&[0xff]));
    let faults = story.faults();
    assert!(
        faults[0].starts_with("tx_position: a row is damaged"),
        "{faults:?}"
    );
    story.index.spoil("tx_position", &key, Some(value));
    assert_eq!(story.faults(), [""; 0]);

    // 5. Above the tip.
    let above = TxPositionRow::key(TxNum(story.rows[BLOCKS - 1].next_tx().0 + 3));
    let value = TxPositionRow::encode_value(81, &[100], &[0]);
    story.index.spoil("tx_position", &above, Some(&value));
    let faults = story.faults();
    assert!(faults[0].contains("lie above the tip"), "{faults:?}");
}

#[test]
fn a_header_or_a_block_row_that_is_wrong_is_seen() {
    let story = Story::new();
    // 1. One bit of a header.
    block_row(&story, 9, |row| row.header[70] ^= 1);
    assert_eq!(
        story.faults(),
        ["block 9: its header does not hash to the hash beside it"]
    );

    // 2. A header that does not follow on the one below, but hashes to what stands beside it.
    block_row(&story, 9, |row| {
        row.header[4] ^= 1;
        row.hash = crate::chain::block_hash(&row.header);
    });
    let faults = story.faults();
    let expected = [
        "block 9: its header does not follow on the block below",
        "block 10: its header does not follow on the block below",
        "block 9: the node's block has another hash",
    ];
    assert_eq!(faults[..3], expected);

    // 3. Numbers.
    block_row(&story, 9, |row| row.first_tx.0 += 1);
    let first = story.rows[9].block.first_tx.0;
    assert_eq!(
        story.faults(),
        [format!(
            "block 9: its first transaction has the number {}, not {first}",
            first + 1
        )]
    );
    block_row(&story, 9, |row| row.tx_count += 1);
    assert!(!story.verify(Blocks::All).is_well());
    block_row(&story, 9, |row| row.place.size += 1);
    let faults = story.faults();
    assert!(faults[0].contains("do not end where"), "{faults:?}");

    // 4. A row that is damaged, and one that is not there: nothing else can be told apart then.
    for value in [Some(&b"short"[..]), None] {
        story.index.spoil("block", &BlockRow::key(9), value);
        let report = story.verify(Blocks::All);
        assert!(report.is_cut_short);
        assert_eq!(report.fault_count, 1, "{report}");
    }
    block_row(&story, 9, |_| ());
    assert_eq!(story.faults(), [""; 0]);
}

#[test]
fn a_tip_that_is_not_the_last_block_is_seen() {
    let story = Story::new();
    let mut tip = story.index.tip().unwrap().unwrap();
    tip.height -= 1;
    story.index.spoil("meta", b"tip", Some(&tip.encode()));
    let report = story.verify(Blocks::All);
    assert!(report.faults.iter().any(|fault| matches!(
        fault,
        Fault::Tip { tip, last } if *last == tip + 1
    )));

    // None: the first sync has not ended.
    story.index.spoil("meta", b"tip", None);
    let options = Options {
        blocks: Blocks::All,
        seed: 1,
        threads: 1,
    };
    let error = verify(&story.index, &story.chain, &options, &Silent).unwrap_err();
    assert!(matches!(error, VerifyError::NoTip));
}

#[test]
fn a_node_that_is_ahead_behind_or_on_another_branch_is_no_fault() {
    let mut story = Story::new();
    // 1. Ahead: the totals are compared at its tip.
    story.chain.grow(3);
    let report = story.verify(Blocks::All);
    assert!(report.is_well(), "{report}");
    assert_eq!(report.node_height, BLOCKS as Height);
    assert_eq!(report.totals.len(), 3, "{report}");

    // 2. Behind.
    story.chain.blocks.truncate(BLOCKS - 2);
    let report = story.verify(Blocks::Sample(1));
    assert_eq!(report.fork, Some(BLOCKS as Height - 3));

    // 3. On another branch.
    story.chain.reseed(99);
    (0..4).for_each(|_| story.chain.grow(2));
    let report = story.verify(Blocks::Sample(1));
    assert_eq!(report.fork, Some(BLOCKS as Height - 3));
}

#[test]
fn the_nodes_totals_are_held_against_the_index() {
    struct Liar(FakeChain);
    impl Truth for Liar {
        fn tip(&self) -> Result<(Height, BlockHash), String> {
            self.0.tip()
        }
        fn hashes(&self, start: Height, count: u32) -> Result<Vec<BlockHash>, String> {
            Truth::hashes(&self.0, start, count)
        }
        fn block(&self, listed: &Listed) -> Result<Fetched, String> {
            self.0.block(listed)
        }
        fn fetch(&self, listed: &Listed) -> Result<Fetched, String> {
            self.0.fetch(listed)
        }
        fn tx_count(&self, hash: &BlockHash) -> Result<Option<u64>, String> {
            Ok(self.0.tx_count(hash)?.map(|count| count + 1))
        }
        fn coins(&self) -> Result<Option<Coins>, String> {
            let coins = self.0.coins()?;
            Ok(coins.map(|coins| Coins {
                count: coins.count + 1,
                satoshis: coins.satoshis - 1,
                ..coins
            }))
        }
        fn changes(
            &self,
            from: Height,
            to: Height,
            parent: &BlockHash,
        ) -> Result<Option<Vec<CoinChange>>, String> {
            self.0.changes(from, to, parent)
        }
        fn is_mainnet(&self) -> bool {
            false
        }
    }
    let story = Story::new();
    let options = Options {
        blocks: Blocks::All,
        seed: 1,
        threads: 2,
    };
    let liar = Liar(story.chain.clone());
    let report = verify(&story.index, &liar, &options, &Silent).unwrap();
    assert_eq!(report.fault_count, 3, "{report}");
    let of = |what| {
        report
            .faults
            .iter()
            .any(|fault| matches!(fault, Fault::Total { what: of, .. } if *of == what))
    };
    assert!(of("transactions") && of("unspent outputs") && of("satoshis"));
}

#[test]
fn an_index_is_read_beside_the_one_who_writes_it() {
    let story = Story::new();
    let folder = story.index.path().to_owned();
    let genesis = story.chain.blocks[0].block_hash();
    // 1. Read beside the one that has it open.
    let beside = crate::index::Beside::open(&folder, &genesis).unwrap();
    assert_eq!(beside.tip().unwrap(), story.index.tip().unwrap());
    assert_eq!(
        beside.fingerprint().unwrap(),
        story.index.fingerprint().unwrap()
    );

    // 2. Another chain's, and none.
    let other = BlockHash::all_zeros();
    assert!(matches!(
        crate::index::Beside::open(&folder, &other),
        Err(IndexError::Foreign { .. })
    ));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(
        crate::index::Beside::open(empty.path(), &genesis),
        Err(IndexError::None { .. })
    ));
}
