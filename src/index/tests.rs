//! The index over chains of real blocks: what goes in comes out again, by whichever way it went in.

use bitcoin::{Block, consensus::encode::serialize, hashes::Hash};
use proptest::prelude::*;

use super::{
    schema::{SCRIPT_PREFIX_LEN, leading_bits},
    *,
};
use crate::chain::{
    BlockPlace, BlockView, Height, ScriptHash, SpentReader, TxView,
    fake::{FakeChain, compress_amount, write_compressed, write_varint},
};

fn place(height: Height, bytes: &[u8]) -> BlockPlace {
    let (offset, undo_offset) = (height * 1000, height * 100);
    BlockPlace {
        file: 0,
        offset,
        size: bytes.len() as u32,
        undo_offset,
        undo_size: 7,
    }
}

/// The rows of each block, in order.
fn all_rows(chain: &FakeChain) -> Vec<BlockRows> {
    let mut next = TxNum::ZERO;
    let rows = |(height, block): (Height, &Block)| {
        let bytes = serialize(block);
        let spent = chain.spent_by_rest(height);
        let view = BlockView::parse(&bytes).unwrap();
        let place = place(height, &bytes);
        let rows = BlockRows::of(height, next, place, &view, spent.reader().unwrap()).unwrap();
        next = rows.next_tx();
        rows
    };
    (0..).zip(&chain.blocks).map(rows).collect()
}

fn random_chain(seed: u64, blocks: usize) -> FakeChain {
    let mut chain = FakeChain::new(seed, 12);
    (0..blocks).for_each(|number| chain.grow(number % 7));
    chain
}

fn open(folder: &tempfile::TempDir, chain: &FakeChain) -> Index {
    Index::open(folder.path(), &chain.blocks[0].block_hash()).unwrap()
}

fn connected(chain: &FakeChain) -> (tempfile::TempDir, Index, Vec<BlockRows>) {
    let folder = tempfile::tempdir().unwrap();
    let index = open(&folder, chain);
    let rows = all_rows(chain);
    for rows in &rows {
        index.apply(&[], std::slice::from_ref(rows)).unwrap();
    }
    (folder, index, rows)
}

/// Gathers the blocks in chunks of `chunk`, by several gatherers in turn; `stop_after` chunks, if given.
fn load(index: &Index, chain: &FakeChain, chunk: usize, stop_after: Option<usize>) -> Option<()> {
    let rows = all_rows(chain);
    let mut bulk = Bulk::resume(index).unwrap().unwrap();
    let mut gatherers = [
        Gatherer::default(),
        Gatherer::default(),
        Gatherer::default(),
    ];
    let mut chunks = 0;
    loop {
        let start = bulk.mark().map_or(0, |mark| mark.height as usize + 1);
        let end = (start + chunk).min(rows.len());
        if start == end {
            break;
        }
        // The last block first: order within a chunk does not matter.
        for height in (start..end).rev() {
            let bytes = serialize(&chain.blocks[height]);
            let (undo, _) = chain.undo(height as Height);
            let view = BlockView::parse(&bytes).unwrap();
            gatherers[height % 3]
                .add(
                    height as Height,
                    bulk.next_tx(),
                    rows[height].block.first_tx,
                    place(height as Height, &bytes),
                    &view,
                    SpentReader::undo(&undo).unwrap(),
                )
                .unwrap();
        }
        let last = &rows[end - 1];
        let tip = TipRow {
            height: last.height,
            hash: last.block.hash,
            next_tx: last.next_tx(),
        };
        bulk.finish_chunk(&mut gatherers, tip, 2).unwrap();
        chunks += 1;
        if Some(chunks) == stop_after {
            return None;
        }
    }
    let finish = bulk.finish(2, 1 << 20, &|| false, &|_| ()).unwrap();
    assert_eq!(finish, Finish::Complete);
    Some(())
}

/// The same chain, whose first blocks a first sync has indexed.
fn begun_by_a_first_sync(
    chain: &FakeChain,
    rows: &[BlockRows],
    bulk_blocks: usize,
) -> (tempfile::TempDir, Index) {
    let mut short = chain.clone();
    short.blocks.truncate(bulk_blocks);
    let folder = tempfile::tempdir().unwrap();
    let index = open(&folder, chain);
    load(&index, &short, 4, None).unwrap();
    index.apply(&[], &rows[bulk_blocks..]).unwrap();
    (folder, index)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn the_first_sync_gives_the_rows_that_block_by_block_gives(seed: u64, chunk in 1usize..20) {
        let chain = random_chain(seed, 30);
        let (_folder, one_by_one, rows) = connected(&chain);
        let folder = tempfile::tempdir().unwrap();
        let bulk = open(&folder, &chain);
        load(&bulk, &chain, chunk, None).unwrap();
        prop_assert_eq!(bulk.fingerprint().unwrap(), one_by_one.fingerprint().unwrap());
        prop_assert_eq!(bulk.tip().unwrap(), one_by_one.tip().unwrap());
        prop_assert_eq!(bulk.tip().unwrap().unwrap().hash, rows.last().unwrap().block.hash);
        prop_assert!(!folder.path().join("sync").exists());
    }

    #[test]
    fn a_first_sync_that_ended_early_goes_on_at_its_mark(seed: u64, chunk in 1usize..9) {
        let chain = random_chain(seed, 30);
        let (_folder, one_by_one, _) = connected(&chain);
        let folder = tempfile::tempdir().unwrap();
        for stop_after in [1, 2] {
            load(&open(&folder, &chain), &chain, chunk, Some(stop_after));
            // What a chunk that was not completed leaves.
            std::fs::write(folder.path().join("sync/unfinished"), b"half").unwrap();
            std::fs::write(folder.path().join("sync/blocks.sst"), b"half").unwrap();
        }
        let bulk = open(&folder, &chain);
        prop_assert_eq!(bulk.tip().unwrap(), None);
        load(&bulk, &chain, chunk, None).unwrap();
        prop_assert_eq!(bulk.fingerprint().unwrap(), one_by_one.fingerprint().unwrap());
        for rows in all_rows(&chain) {
            let found = bulk.merkle_row(rows.height, &rows.block.txs());
            prop_assert_eq!(found, Some(rows.merkle_row()));
            prop_assert_eq!(one_by_one.merkle_row(rows.height, &rows.block.txs()), None);
        }
    }

    #[test]
    fn what_is_disconnected_leaves_nothing(seed: u64, keep in 1usize..30) {
        let chain = random_chain(seed, 30);
        let (_folder, index, rows) = connected(&chain);
        let mut short = chain.clone();
        short.blocks.truncate(keep);
        let (_short_folder, expected, _) = connected(&short);
        let stale: Vec<BlockRows> = rows[keep..].iter().rev().cloned().collect();
        index.apply(&stale, &[]).unwrap();
        prop_assert_eq!(index.fingerprint().unwrap(), expected.fingerprint().unwrap());
        prop_assert_eq!(index.tip().unwrap(), expected.tip().unwrap());
    }

    #[test]
    fn a_scan_takes_away_what_block_by_block_takes_away(seed: u64, keep in 1usize..30) {
        let chain = random_chain(seed, 30);
        let (_folder, index, _) = connected(&chain);
        let mut short = chain.clone();
        short.blocks.truncate(keep);
        let (_short_folder, expected, _) = connected(&short);
        let found = index.find_above(keep as Height).unwrap();
        index.truncate(found).unwrap();
        prop_assert_eq!(index.fingerprint().unwrap(), expected.fingerprint().unwrap());
        prop_assert_eq!(index.tip().unwrap(), expected.tip().unwrap());
    }

    #[test]
    fn a_branch_is_left_for_another_in_one_batch(seed: u64, keep in 1usize..20, other: u64) {
        let chain = random_chain(seed, 20);
        let (_folder, index, rows) = connected(&chain);
        let mut branch = chain.clone();
        branch.blocks.truncate(keep);
        branch.reseed(other);
        (0..25).for_each(|number| branch.grow(number % 5));
        let (_branch_folder, expected, branch_rows) = connected(&branch);
        let stale: Vec<BlockRows> = rows[keep..].iter().rev().cloned().collect();
        index.apply(&stale, &branch_rows[keep..]).unwrap();
        prop_assert_eq!(index.fingerprint().unwrap(), expected.fingerprint().unwrap());
        prop_assert_eq!(index.tip().unwrap(), expected.tip().unwrap());
    }

    #[test]
    fn a_reorganization_below_the_first_syncs_end_leaves_nothing_of_the_stale_branch(
        seed: u64, keep in 1usize..20, other: u64, is_scan: bool, chunk in 3usize..20, is_split: bool,
    ) {
        let chain = random_chain(seed, 20);
        let folder = tempfile::tempdir().unwrap();
        let mut index = open(&folder, &chain);
        load(&index, &chain, chunk, None).unwrap();
        let rows = all_rows(&chain);
        let mut branch = chain.clone();
        branch.blocks.truncate(keep);
        branch.reseed(other);
        (0..25).for_each(|number| branch.grow(number % 5));
        let (_branch_folder, expected, branch_rows) = connected(&branch);
        if is_scan {
            let found = index.find_above(keep as Height).unwrap();
            index.truncate(found).unwrap();
        } else if is_split {
            let stale: Vec<BlockRows> = rows[keep..].iter().rev().cloned().collect();
            index.apply(&stale, &[]).unwrap();
        }
        if is_scan || is_split {
            // What does not count must not come back with a restart.
            drop(index);
            index = open(&folder, &chain);
            index.apply(&[], &branch_rows[keep..]).unwrap();
        } else {
            let stale: Vec<BlockRows> = rows[keep..].iter().rev().cloned().collect();
            index.apply(&stale, &branch_rows[keep..]).unwrap();
        }
        prop_assert_eq!(index.fingerprint().unwrap(), expected.fingerprint().unwrap());
        let end = expected.tip().unwrap().unwrap().next_tx;
        let scripts = rows.iter().chain(&branch_rows).flat_map(|rows| &rows.scripts);
        for script in scripts {
            let found: Vec<_> = index.touching(script, TxNum(3), end).map(Result::unwrap).collect();
            let wanted: Vec<_> = expected.touching(script, TxNum(3), end).map(Result::unwrap).collect();
            prop_assert_eq!(found, wanted);
        }
        drop(index);
        prop_assert_eq!(open(&folder, &chain).fingerprint().unwrap(), expected.fingerprint().unwrap());
    }

    #[test]
    fn packed_rows_and_rows_of_their_own_answer_alike(seed: u64, bulk_blocks in 1usize..30, from: u32, below: u32) {
        let chain = random_chain(seed, 30);
        let (_folder, one_by_one, rows) = connected(&chain);
        let (_other_folder, index) = begun_by_a_first_sync(&chain, &rows, bulk_blocks);
        let end = one_by_one.tip().unwrap().unwrap().next_tx;
        let (from, below) = (TxNum(from % end.0), TxNum(below % (end.0 + 1)));
        for script in rows.iter().flat_map(|rows| &rows.scripts) {
            let found: Vec<_> = index.touching(script, from, below).map(Result::unwrap).collect();
            let wanted: Vec<_> = one_by_one.touching(script, from, below).map(Result::unwrap).collect();
            prop_assert_eq!(found, wanted);
        }
        for txid in rows.iter().flat_map(|rows| &rows.txids) {
            let found: Vec<_> = index.numbered(txid, below).map(Result::unwrap).collect();
            let wanted: Vec<_> = one_by_one.numbered(txid, below).map(Result::unwrap).collect();
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn places_in_the_file_and_in_rows_answer_alike(
        seed: u64, bulk_blocks in 1usize..30, steps in prop::collection::vec((0u32..20, any::<bool>()), 1..80),
    ) {
        let chain = random_chain(seed, 30);
        let (_folder, one_by_one, rows) = connected(&chain);
        let (_other_folder, index) = begun_by_a_first_sync(&chain, &rows, bulk_blocks);
        let end = one_by_one.tip().unwrap().unwrap().next_tx.0;
        let (mut some, mut others) = (index.tx_places(), one_by_one.tx_places());
        let mut n = 0u32;
        for (step, is_back) in steps {
            n = if is_back { n.saturating_sub(10 * step) } else { (n + step) % end };
            let block = rows.iter().map(|rows| rows.block.txs()).find(|txs| txs.contains(TxNum(n)));
            let block = block.unwrap();
            let found = some.get_in(TxNum(n), &block).unwrap();
            prop_assert!(found.is_some());
            prop_assert_eq!(found, others.get_in(TxNum(n), &block).unwrap());
            let below = BlockTxs { first: TxNum(block.end.0), ..block };
            prop_assert_eq!(some.get_in(TxNum(n), &below).unwrap(), None);
        }
    }

    #[test]
    fn whoever_asks_after_a_block_was_written_or_taken_away_finds_what_is_there(seed: u64) {
        let chain = random_chain(seed, 20);
        let folder = tempfile::tempdir().unwrap();
        let index = open(&folder, &chain);
        let (rows, scripts) = (all_rows(&chain), chain.hashes());
        let check = |there: &[BlockRows]| {
            for script in &scripts {
                let prefix = leading_bits::<SCRIPT_PREFIX_LEN>(&script.0);
                let mut expected: Vec<TxNum> = there
                    .iter()
                    .flat_map(|rows| &rows.history)
                    .filter(|row| row.prefix == prefix)
                    .map(|row| row.tx)
                    .collect();
                expected.sort_unstable();
                let all = TxNum(u32::MAX);
                let found: Vec<_> = index.touching(script, TxNum::ZERO, all).map(Result::unwrap).collect();
                assert_eq!(found, expected);
            }
        };
        for count in 1..=rows.len() {
            index.apply(&[], &rows[count - 1..count]).unwrap();
            check(&rows[..count]);
        }
        for count in (5..rows.len()).rev() {
            index.apply(&rows[count..count + 1], &[]).unwrap();
            check(&rows[..count]);
        }
        let found = index.find_above(3).unwrap();
        check(&rows[..5]);
        index.truncate(found).unwrap();
        check(&rows[..3]);
    }

    #[test]
    fn each_transaction_is_found_by_txid_by_script_and_by_place(seed: u64) {
        let chain = random_chain(seed, 20);
        let (_folder, index, rows) = connected(&chain);
        let end = index.tip().unwrap().unwrap().next_tx;
        for (rows, block) in rows.iter().zip(&chain.blocks) {
            let bytes = serialize(block);
            let txs = rows.block.txs();
            let places = index.places_of(&txs).unwrap();
            for ((tx, n), place) in block.txdata.iter().zip(rows.block.first_tx.0..).zip(places) {
                let n = TxNum(n);
                prop_assert_eq!(index.tx_places().get_in(n, &txs).unwrap(), Some(place));
                let part = &bytes[place.offset as usize..][..place.size as usize];
                prop_assert_eq!(TxView::parse(part).unwrap().txid(), tx.compute_txid());
                let mut numbered = index.numbered(&tx.compute_txid(), end);
                prop_assert!(numbered.any(|found| found.unwrap() == n));
                for output in tx.output.iter().filter(|output| !output.script_pubkey.is_op_return()) {
                    let script = ScriptHash::new(output.script_pubkey.as_bytes());
                    let found = index.touching(&script, n, TxNum(n.0 + 1)).count();
                    prop_assert_eq!(found, usize::from(rows.height > 0));
                }
            }
            prop_assert_eq!(index.block(rows.height).unwrap(), Some(rows.block));
        }
        let last = rows.last().unwrap().block.txs();
        prop_assert_eq!(index.tx_places().get_in(end, &last).unwrap(), None);
    }

    #[test]
    fn undo_data_and_rest_tell_the_same_of_any_script(
        scripts in prop::collection::vec((0u8..6, prop::collection::vec(any::<u8>(), 0..90), 0u64..21_000_000 * 100_000_000), 1..20),
    ) {
        use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
        let key = |bytes: &[u8]| {
            let mut secret = [1; 32];
            secret.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            secret[0] = 1;
            PublicKey::from_secret_key(&Secp256k1::new(), &SecretKey::from_slice(&secret).unwrap())
        };
        let mut undo = vec![1];
        let mut outputs = Vec::new();
        write_size(&mut undo, scripts.len());
        for (kind, bytes, value) in &scripts {
            let hash = |len| bytes.iter().copied().chain(std::iter::repeat(9)).take(len).collect::<Vec<u8>>();
            let script = match kind {
                0 => [&[0x76, 0xa9, 20][..], &hash(20), &[0x88, 0xac]].concat(),
                1 => [&[0xa9, 20][..], &hash(20), &[0x87]].concat(),
                2 => [&[33][..], &key(bytes).serialize(), &[0xac]].concat(),
                3 => [&[65][..], &key(bytes).serialize_uncompressed(), &[0xac]].concat(),
                _ => bytes.clone(),
            };
            write_varint(&mut undo, 5);
            undo.push(0);
            write_varint(&mut undo, compress_amount(*value));
            write_compressed(&mut undo, &script);
            outputs.push((*value, script));
        }
        let mut reader = SpentReader::undo(&undo).unwrap();
        prop_assert_eq!(reader.next_tx().unwrap(), outputs.len());
        for (value, script) in &outputs {
            let (read_value, read_script) = reader.next_output().unwrap();
            prop_assert_eq!((read_value, read_script), (*value, script.as_slice()));
        }
        prop_assert_eq!(reader.finish(), Ok(()));
    }
}

fn write_size(out: &mut Vec<u8>, size: usize) {
    out.extend(serialize(&bitcoin::VarInt(size as u64)));
}

#[test]
fn a_flipped_bit_anywhere_in_what_rows_are_made_of_is_found() {
    let chain = random_chain(3, 12);
    let (height, block) = (0..)
        .zip(&chain.blocks)
        .max_by_key(|(_, block)| block.txdata.len())
        .unwrap();
    let bytes = serialize(block);
    let (undo, _) = chain.undo(height);
    let rows = |bytes: &[u8]| {
        let view = BlockView::parse(bytes)?;
        BlockRows::of(
            height,
            TxNum(5),
            place(height, bytes),
            &view,
            SpentReader::undo(&undo)?,
        )
    };
    let good = rows(&bytes).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // Only the header (whose hash the caller knows) and witnesses (which no row is made of) may differ.
        if let Ok(found) = rows(&flipped) {
            assert_eq!(found.history, good.history, "bit {bit}");
            assert_eq!(found.txid, good.txid, "bit {bit}");
        }
    }
}

#[test]
fn another_chains_index_and_one_in_use_are_refused_in_words_that_help() {
    let chain = random_chain(1, 2);
    let folder = tempfile::tempdir().unwrap();
    let index = open(&folder, &chain);
    let again = Index::open(folder.path(), &chain.blocks[0].block_hash());
    assert!(matches!(again, Err(IndexError::InUse { .. })));
    drop(index);
    let other = bitcoin::BlockHash::from_byte_array([7; 32]);
    let error = Index::open(folder.path(), &other)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("choose another --db-dir"), "{error}");
    assert!(error.contains(&other.to_string()), "{error}");
}

#[test]
fn a_run_that_was_cut_or_changed_is_refused() {
    let chain = random_chain(4, 12);
    let folder = tempfile::tempdir().unwrap();
    load(&open(&folder, &chain), &chain, 6, Some(1));
    let run = folder.path().join("sync/run-0000000000");
    let good = std::fs::read(&run).unwrap();
    let resume = |bytes: &[u8]| {
        std::fs::write(&run, bytes).unwrap();
        let index = open(&folder, &chain);
        let bulk = Bulk::resume(&index)?.unwrap();
        bulk.finish(1, 0, &|| true, &|_| ()).map(|_| ())
    };
    assert!(matches!(
        resume(&good[..good.len() - 1]),
        Err(IndexError::DamagedRun { .. })
    ));
    let mut flipped = good.clone();
    flipped[3] ^= 1;
    assert!(matches!(
        resume(&flipped),
        Err(IndexError::DamagedRun { .. })
    ));
    std::fs::remove_file(&run).unwrap();
    let index = open(&folder, &chain);
    assert!(matches!(
        Bulk::resume(&index),
        Err(IndexError::DamagedRun { .. })
    ));
}

/// The first sync's file of places.
fn flat_file(folder: &tempfile::TempDir) -> std::path::PathBuf {
    folder.path().join("rocksdb/tx_position.flat")
}

#[test]
fn a_file_of_places_that_is_missing_or_ends_early_is_refused() {
    let chain = random_chain(9, 12);
    let genesis = chain.blocks[0].block_hash();
    // In the first sync, and after it.
    for stop_after in [Some(2), None] {
        let folder = tempfile::tempdir().unwrap();
        let index = open(&folder, &chain);
        load(&index, &chain, 4, stop_after);
        drop(index);
        let file = flat_file(&folder);
        let whole = std::fs::read(&file).unwrap();
        let refused = || {
            let index = Index::open(folder.path(), &genesis)?;
            Bulk::resume(&index).map(|_| ())
        };
        refused().unwrap();
        std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        let error = refused().unwrap_err();
        assert!(matches!(error, IndexError::Corrupt(_)), "{error}");
        assert!(error.to_string().contains("--rebuild"), "{error}");
        assert!(error.to_string().contains("ends early"), "{error}");
        std::fs::remove_file(&file).unwrap();
        let error = refused().unwrap_err();
        assert!(error.to_string().contains("is missing"), "{error}");
        assert!(error.to_string().contains("--rebuild"), "{error}");
    }
}

#[test]
fn a_newest_chunk_of_places_that_is_not_as_it_was_written_is_refused() {
    let chain = random_chain(9, 12);
    let folder = tempfile::tempdir().unwrap();
    load(&open(&folder, &chain), &chain, 4, Some(2));
    let file = flat_file(&folder);
    let whole = std::fs::read(&file).unwrap();
    let resumed = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        Bulk::resume(&open(&folder, &chain)).map(|_| ())
    };
    let mut torn = whole.clone();
    *torn.last_mut().unwrap() ^= 0x40;
    let error = resumed(&torn).unwrap_err();
    assert!(
        error.to_string().contains("not as it was written"),
        "{error}"
    );
    // What a chunk that was not completed left.
    let longer = [&whole[..], &[7; 100]].concat();
    resumed(&longer).unwrap();
    let index = open(&folder, &chain);
    load(&index, &chain, 4, None).unwrap();
    let (_expected_folder, expected, _) = connected(&chain);
    assert_eq!(
        index.fingerprint().unwrap(),
        expected.fingerprint().unwrap()
    );
}

#[test]
fn a_place_that_cannot_be_is_refused_and_a_copy_has_the_file_too() {
    let chain = random_chain(9, 12);
    let folder = tempfile::tempdir().unwrap();
    let index = open(&folder, &chain);
    load(&index, &chain, 4, None).unwrap();
    let rows = all_rows(&chain);
    let copy = tempfile::tempdir().unwrap();
    index.checkpoint(&copy.path().join("rocksdb")).unwrap();
    let block = rows[8].block.txs();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(flat_file(&folder));
    let file = file.unwrap();
    let last = TxNum(block.end.0 - 1);
    for wrong in [0u32, block.bytes, 80, 0x00ff_ffff] {
        use std::os::unix::fs::FileExt;
        file.write_all_at(&wrong.to_le_bytes(), u64::from(last.0) * 4)
            .unwrap();
        let found = index.tx_places().get_in(last, &block);
        assert!(
            matches!(found, Err(IndexError::Damaged(_))),
            "{wrong}: {found:?}"
        );
    }
    drop(index);
    // A link on the same disk: the copy stands still as long as nobody spoils the file itself.
    let copied = open(&copy, &chain);
    assert!(
        copied
            .tx_places()
            .get_in(TxNum(0), &rows[0].block.txs())
            .unwrap()
            .is_some()
    );
}

/// A database with a table, closed.
fn closed(seed: u64) -> (tempfile::TempDir, FakeChain) {
    let chain = random_chain(seed, 10);
    let (folder, index, _) = connected(&chain);
    drop(index);
    // Opening makes a table of what the log had.
    drop(open(&folder, &chain));
    (folder, chain)
}

#[test]
fn a_database_without_the_file_that_names_the_others_is_refused_and_nothing_is_deleted() {
    let (folder, chain) = closed(3);
    let rocksdb = folder.path().join("rocksdb");
    std::fs::remove_file(rocksdb.join("CURRENT")).unwrap();
    let files = || std::fs::read_dir(&rocksdb).unwrap().count();
    let before = files();
    let genesis = chain.blocks[0].block_hash();
    let error = Index::open(folder.path(), &genesis).err().unwrap();
    assert!(matches!(error, IndexError::Incomplete { .. }), "{error}");
    assert!(error.to_string().contains("--rebuild"), "{error}");
    assert_eq!(files(), before);
}

#[test]
fn a_tip_that_no_block_row_stands_for_is_refused() {
    let chain = random_chain(4, 10);
    let (folder, index, rows) = connected(&chain);
    let genesis = chain.blocks[0].block_hash();
    let reopened = |index: Index| {
        drop(index);
        Index::open(folder.path(), &genesis)
    };
    // 1. A block that the tip does not know.
    let key = BlockRow::key(10);
    let last = rows[10].block.encode_value();
    index.spoil("block", &BlockRow::key(11), Some(&last));
    let error = reopened(index).err().unwrap();
    assert!(matches!(error, IndexError::Corrupt(_)), "{error}");
    assert!(error.to_string().contains("--rebuild"), "{error}");

    // 2. A tip whose block is not there.
    Index::destroy(folder.path()).unwrap();
    let index = open(&folder, &chain);
    for rows in &rows {
        index.apply(&[], std::slice::from_ref(rows)).unwrap();
    }
    index.spoil("block", &key, None);
    assert!(matches!(reopened(index), Err(IndexError::Corrupt(_))));
}

#[test]
fn what_is_destroyed_is_the_index_alone() {
    let (folder, chain) = closed(5);
    std::fs::write(folder.path().join("tls.key"), b"a key").unwrap();
    std::fs::create_dir(folder.path().join("sync")).unwrap();

    // 1. Not while it is in use.
    let index = open(&folder, &chain);
    let error = Index::destroy(folder.path()).err().unwrap();
    assert!(matches!(error, IndexError::InUse { .. }), "{error}");
    assert!(index.tip().unwrap().is_some());
    drop(index);

    // 2. Also where nothing of it can be read.
    std::fs::write(folder.path().join("rocksdb/CURRENT"), b"").unwrap();
    Index::destroy(folder.path()).unwrap();
    assert_eq!(open(&folder, &chain).tip().unwrap(), None);
    assert!(folder.path().join("tls.key").exists());
    assert!(!folder.path().join("sync").exists());

    // 3. And where there is none.
    Index::destroy(&folder.path().join("nothing")).unwrap();
}

#[test]
fn another_versions_index_is_refused_before_anything_in_it_changes() {
    let chain = random_chain(6, 3);
    let genesis = chain.blocks[0].block_hash();
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // Format 1 had these; a later one may have more than we.
    let old = ["history", "txid", "tx_position", "block", "meta"];
    let new = [&old[..], &["history_packed", "txid_packed", "more"]].concat();
    let theirs = ["theirs"];
    for (families, format) in [
        (&old[..], Some(1u32)),
        (&new[..], Some(99)),
        (&theirs[..], None),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rocksdb");
        let db = rocksdb::DB::open_cf(&options, &path, families).unwrap();
        if let Some(format) = format {
            let meta = db.cf_handle("meta").unwrap();
            db.put_cf(meta, "format", format.to_le_bytes()).unwrap();
        }
        drop(db);
        let error = Index::open(folder.path(), &genesis).err().unwrap();
        assert!(matches!(error, IndexError::Foreign { .. }), "{error}");
        let words = format.map_or("another program's".to_owned(), |number| {
            format!("format {number}")
        });
        assert!(error.to_string().contains(&words), "{error}");
        let left = rocksdb::DB::list_cf(&options, &path).unwrap();
        assert_eq!(left.len(), families.len() + 1);
    }

    // A kill while the database was made: a part of the families, and no format.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rocksdb");
    drop(rocksdb::DB::open_cf(&options, &path, ["history", "meta"]).unwrap());
    assert_eq!(open(&folder, &chain).tip().unwrap(), None);
}

/// The newest MANIFEST without its last `count` records' worth of bytes.
fn cut_manifest(folder: &tempfile::TempDir, keep: usize) {
    let rocksdb = folder.path().join("rocksdb");
    let current = std::fs::read_to_string(rocksdb.join("CURRENT")).unwrap();
    let manifest = rocksdb.join(current.trim());
    let bytes = std::fs::read(&manifest).unwrap();
    std::fs::write(manifest, &bytes[..keep.min(bytes.len())]).unwrap();
}

#[test]
fn a_manifest_whose_end_is_lost_never_leaves_a_tip_or_a_mark_without_its_rows() {
    let chain = random_chain(8, 20);
    let genesis = chain.blocks[0].block_hash();
    let (_expected_folder, expected, _) = connected(&chain);
    let len = |folder: &tempfile::TempDir| {
        let rocksdb = folder.path().join("rocksdb");
        let current = std::fs::read_to_string(rocksdb.join("CURRENT")).unwrap();
        std::fs::read(rocksdb.join(current.trim())).unwrap().len()
    };
    // In the first sync, and after it.
    for stop_after in [Some(2), None] {
        let (mut refused, mut whole) = (0, 0);
        let mut cut = 1;
        loop {
            let folder = tempfile::tempdir().unwrap();
            load(&open(&folder, &chain), &chain, 7, stop_after);
            let all = len(&folder);
            if cut >= all {
                break;
            }
            cut_manifest(&folder, all - cut);
            cut += 97;
            let Ok(index) = Index::open(folder.path(), &genesis) else {
                refused += 1;
                continue;
            };
            let is_complete = index.tip().unwrap().is_some();
            let resumed = is_complete || Bulk::resume(&index).is_ok();
            if !resumed {
                refused += 1;
                continue;
            }
            if !is_complete {
                load(&index, &chain, 7, None);
            }
            assert_eq!(
                index.fingerprint().unwrap(),
                expected.fingerprint().unwrap(),
                "{cut} bytes less"
            );
            whole += 1;
        }
        assert!(refused > 0 && whole > 0, "{refused} refused, {whole} whole");
    }
}

#[test]
fn a_bit_that_flips_in_a_run_is_refused_wherever_it_is_and_never_a_panic() {
    let chain = random_chain(4, 12);
    let folder = tempfile::tempdir().unwrap();
    load(&open(&folder, &chain), &chain, 4, Some(2));
    let run = folder.path().join("sync/run-0000000000");
    let good = std::fs::read(&run).unwrap();
    // The sections lie before the directory, of 512 entries of 32 bytes and a trailer of 44.
    let sections = good.len() - 512 * 32 - 44;
    let of_sections = (0..sections).step_by((sections / 40).max(1));
    // Some of all kinds: offsets, lengths, counts, checksums, the end, the digest, the magic.
    let of_directory = (sections..good.len() - 44).step_by(411);
    for at in of_sections
        .chain(of_directory)
        .chain(good.len() - 44..good.len())
    {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&run, &flipped).unwrap();
        let index = open(&folder, &chain);
        let end = match Bulk::resume(&index) {
            Ok(bulk) => bulk.unwrap().finish(2, 0, &|| false, &|_| ()).map(|_| ()),
            Err(error) => Err(error),
        };
        assert!(
            matches!(end, Err(IndexError::DamagedRun { .. })),
            "{at}: {end:?}"
        );
    }
}
