//! Checks that only one kind of damage meets: each was skipped once, and a test here saw it.

use super::*;

/// A row of positions as it lies there, spoiled.
fn spoil_position(story: &Story, height: usize, change: impl FnOnce(&mut TxPositionRow)) {
    let (last, value) = &story.rows[height].tx_position[0];
    let key = TxPositionRow::key(*last);
    let mut row = TxPositionRow::decode(&key, value).unwrap();
    change(&mut row);
    let value = TxPositionRow::encode_value(row.first_offset, &row.sizes, &row.checks);
    story.index.spoil("tx_position", &key, Some(&value));
}

#[track_caller]
fn assert_has(faults: &[String], words: &str) {
    let is_there = faults.iter().any(|fault| fault.contains(words));
    assert!(is_there, "no '{words}' in {faults:?}");
}

#[test]
fn a_row_of_places_that_reaches_into_the_block_below_is_seen_twice() {
    let story = Story::new();
    spoil_position(&story, 20, |row| {
        row.sizes.insert(0, 1);
        row.checks.insert(0, 0);
    });
    let report = story.verify(Blocks::Sample(1));
    let faults: Vec<String> = report.faults.iter().map(Fault::to_string).collect();
    let first = story.rows[20].block.first_tx.0 - 1;
    assert_has(
        &faults,
        &format!("transactions {first} to {first} have two places"),
    );
    let last = story.rows[20].tx_position[0].0.0;
    assert_has(
        &faults,
        &format!("transactions {first} to {last} are in one row, and in two blocks"),
    );
}

#[test]
fn places_with_a_gap_before_them_are_seen_without_the_block_itself() {
    let story = Story::new();
    spoil_position(&story, 20, |row| row.first_offset += 1);
    let report = story.verify(Blocks::Sample(1));
    let faults: Vec<String> = report.faults.iter().map(Fault::to_string).collect();
    assert_has(&faults, "do not lie behind those before them");
}

#[test]
fn a_block_without_transactions_or_with_its_neighbours_is_seen() {
    let story = Story::new();
    // 1. None.
    block_row(&story, 9, |row| row.tx_count = 0);
    let report = story.verify(Blocks::Sample(1));
    let faults: Vec<String> = report.faults.iter().map(Fault::to_string).collect();
    assert_has(&faults, "block 9: it has no transactions");

    // 2. One that is the next block's: the numbers run on.
    block_row(&story, 9, |row| row.tx_count += 1);
    block_row(&story, 10, |row| {
        row.first_tx.0 += 1;
        row.tx_count -= 1;
    });
    let report = story.verify(Blocks::All);
    let faults: Vec<String> = report.faults.iter().map(Fault::to_string).collect();
    for height in [9, 10] {
        let words = format!("block {height}: the node's block has another number of transactions");
        assert_has(&faults, &words);
    }
}

#[test]
fn of_many_wrong_blocks_some_are_told_in_detail_and_none_is_left_out() {
    const WRONG: usize = 60;
    let story = Story::of(WRONG + 1);
    let mut key = [0; 16];
    for rows in &story.rows[1..] {
        let row = rows.txid[0];
        story.index.spoil("txid", row.encode(&mut key), None);
    }
    let report = story.verify(Blocks::All);
    let faults: Vec<String> = report.faults.iter().map(Fault::to_string).collect();
    let count = |words: &str| faults.iter().filter(|fault| fault.contains(words)).count();
    // The number of its rows is wrong too, for each; the first hundred faults are told, the others counted.
    assert_eq!(report.fault_count, 2 * WRONG as u64);
    assert_eq!(report.faults.len(), 100);
    assert_eq!(count("transactions, and"), WRONG);
    assert_eq!(count("1 rows are missing and 0 are too many"), 40);

    // Without those, that blocks are told of without detail shows.
    for rows in &story.rows[1..] {
        let row = rows.txid[0];
        story.index.spoil("txid", row.encode(&mut key), Some(b""));
        let other = HistoryRow::of_script(&ScriptHash::new(b"stranger"), rows.block.first_tx);
        story
            .index
            .spoil("history", other.encode(&mut key), Some(b""));
    }
    let faults = story.faults();
    assert_eq!(faults.len(), WRONG, "{faults:?}");
    let count = |words: &str| faults.iter().filter(|fault| fault.contains(words)).count();
    assert_eq!(count("0 rows are missing and 1 are too many"), 50);
    assert_eq!(count("the node's block has other rows than the index"), 10);
}

#[test]
fn a_bit_that_flips_in_a_table_is_a_fault_of_its_column_family() {
    let story = Story::new();
    story.index.compact().unwrap();
    let folder = story.index.path().to_owned();
    let genesis = story.chain.blocks[0].block_hash();
    let Story {
        chain,
        index,
        rows,
        _folder,
    } = story;
    drop(index);
    let files = std::fs::read_dir(folder.join("rocksdb")).unwrap();
    let tables = files.map(|file| file.unwrap().path());
    let tables: Vec<_> = tables
        .filter(|path| path.extension().is_some_and(|name| name == "sst"))
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    for table in &tables {
        let good = std::fs::read(table).unwrap();
        let mut bad = good.clone();
        // In the first data block.
        bad[10] ^= 1;
        std::fs::write(table, bad).unwrap();
        // Where the rows that a start looks at are damaged, the start refuses.
        if let Ok(index) = Index::open(&folder, &genesis) {
            let options = Options {
                blocks: Blocks::All,
                seed: 1,
                threads: 2,
            };
            let report = verify(&index, &chain, &options, &Silent).unwrap();
            let of = report.faults.iter().filter_map(|fault| match fault {
                Fault::Unreadable { family, .. } => Some(*family),
                _ => None,
            });
            seen.extend(of);
            assert!(!report.is_well(), "{table:?}: {report}");
        }
        std::fs::write(table, good).unwrap();
    }
    let seen: Vec<_> = seen.into_iter().collect();
    // A start itself looks at rows of the other families.
    assert_eq!(seen, ["history", "txid"], "of {} tables", tables.len());
    drop((rows, _folder));
}

/// The node, with files that lie.
struct LyingFiles(FakeChain);

/// These are complained of, hold another block, and have another block's spent outputs.
const COMPLAINED: Height = 9;
const OTHER_BLOCK: Height = 13;
const OTHER_UNDO: Height = 20;

impl Truth for LyingFiles {
    fn tip(&self) -> Result<(Height, BlockHash), String> {
        self.0.tip()
    }

    fn hashes(&self, start: Height, count: u32) -> Result<Vec<BlockHash>, String> {
        Truth::hashes(&self.0, start, count)
    }

    fn block(&self, listed: &Listed) -> Result<Fetched, String> {
        let hash_at = |height: Height| self.0.blocks[height as usize].block_hash();
        let is = |height: Height| listed.hash == hash_at(height);
        let fetch = |hash| {
            let Fetched::Node { bytes, spent } = self.0.fetch(&Listed { hash, ..*listed })? else {
                return Err("no such block".to_owned());
            };
            Ok((bytes, spent))
        };
        let (mut bytes, mut spent) = fetch(listed.hash)?;
        if is(OTHER_BLOCK) {
            (bytes, _) = fetch(hash_at(OTHER_BLOCK - 1))?;
        }
        if is(OTHER_UNDO) {
            (_, spent) = fetch(hash_at(OTHER_UNDO - 1))?;
        }
        Ok(Fetched::Files {
            bytes,
            spent,
            complaint: is(COMPLAINED).then(|| "its undo data lie elsewhere".to_owned()),
        })
    }

    fn fetch(&self, listed: &Listed) -> Result<Fetched, String> {
        self.0.fetch(listed)
    }

    fn tx_count(&self, hash: &BlockHash) -> Result<Option<u64>, String> {
        self.0.tx_count(hash)
    }

    fn coins(&self) -> Result<Option<Coins>, String> {
        self.0.coins()
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

#[test]
fn files_that_lie_are_faults_and_the_node_is_asked() {
    let story = Story::new();
    let options = Options {
        blocks: Blocks::All,
        seed: 1,
        threads: 2,
    };
    let truth = LyingFiles(story.chain.clone());
    let report = verify(&story.index, &truth, &options, &Silent).unwrap();
    let faults: Vec<String> = report.faults.iter().map(Fault::to_string).collect();
    for height in [COMPLAINED, OTHER_BLOCK, OTHER_UNDO] {
        assert_has(
            &faults,
            &format!("block {height}: it cannot be read where the index says that it lies"),
        );
    }
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert_eq!(report.blocks, BLOCKS as u64);
}
