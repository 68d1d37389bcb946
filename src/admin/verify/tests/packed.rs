//! Packed rows, as the first sync writes them, spoiled group by group.

use sha2::{Digest, Sha256};

use super::*;
use crate::index::{Beside, Bulk, Finish, Gatherer, IndexError, TipRow};

/// The same chain, indexed by a first sync.
fn by_first_sync() -> Story {
    let mut story = Story::new();
    let folder = tempfile::tempdir().unwrap();
    let index = Index::open(folder.path(), &story.chain.blocks[0].block_hash()).unwrap();
    let mut bulk = Bulk::resume(&index).unwrap().unwrap();
    let mut gatherers = [Gatherer::default()];
    for (rows, block) in story.rows.iter().zip(&story.chain.blocks) {
        let bytes = serialize(block);
        let view = BlockView::parse(&bytes).unwrap();
        let spent = story.chain.spent_by_rest(rows.height);
        let (height, first, place) = (rows.height, rows.block.first_tx, rows.block.place);
        gatherers[0]
            .add(
                height,
                TxNum::ZERO,
                first,
                place,
                &view,
                spent.reader().unwrap(),
            )
            .unwrap();
    }
    let tip = TipRow {
        height: BLOCKS as Height - 1,
        hash: story.rows[BLOCKS - 1].block.hash,
        next_tx: story.rows[BLOCKS - 1].next_tx(),
    };
    bulk.finish_chunk(&mut gatherers, tip, 1).unwrap();
    let finish = bulk.finish(1, 1 << 20, &|| false, &|_| ()).unwrap();
    assert_eq!(finish, Finish::Complete);
    story.index = index;
    story._folder = folder;
    story
}

#[test]
fn a_packed_group_that_is_missing_or_changed_in_any_byte_is_seen() {
    let story = by_first_sync();
    assert_eq!(story.faults(), [""; 0]);
    for family in ["history_packed", "txid_packed"] {
        let name = family.strip_suffix("_packed").unwrap();
        let groups = story.index.all_of(family);
        assert!(groups.len() > 10, "{family} has {} groups", groups.len());
        for (key, value) in groups.iter().step_by(groups.len() / 8) {
            // 1. Missing.
            story.index.spoil(family, key, None);
            let faults = story.faults();
            assert!(
                faults.iter().any(|fault| fault.starts_with(name)),
                "{faults:?}"
            );

            // 2. Each byte of the value, and of the key.
            for at in 0..value.len() {
                let mut other = value.clone();
                other[at] ^= 1;
                story.index.spoil(family, key, Some(&other));
                assert!(
                    !story.faults().is_empty(),
                    "{family}: byte {at} of {value:?}"
                );
            }
            story.index.spoil(family, key, None);
            let mut other = key.clone();
            other[2] ^= 0x10;
            story.index.spoil(family, &other, Some(value));
            assert!(!story.faults().is_empty(), "{family}: the key {key:?}");
            story.index.spoil(family, &other, None);
            story.index.spoil(family, key, Some(value));
        }
        assert_eq!(story.faults(), [""; 0]);
    }
}

#[test]
fn a_row_of_its_own_where_only_packed_ones_belong_is_seen() {
    let story = by_first_sync();
    let row = story.rows[20].history[0];
    let mut key = [0; 16];
    story
        .index
        .spoil("history", row.encode(&mut key), Some(b""));
    let faults = story.faults();
    assert_eq!(faults.len(), 1, "{faults:?}");
    story.index.spoil("history", row.encode(&mut key), None);

    // The end of what is packed, lowered: its rows count no more.
    let end = story.rows[BLOCKS - 3].next_tx().0.to_le_bytes();
    story.index.spoil("meta", b"packed_end", Some(&end));
    let path = story.index.path().to_owned();
    let Story {
        chain,
        index,
        rows,
        _folder,
    } = story;
    drop((index, rows));
    let genesis = chain.blocks[0].block_hash();
    let refused = Index::open(&path, &genesis).err().unwrap();
    assert!(matches!(refused, IndexError::Corrupt(_)), "{refused}");
    let options = Options {
        blocks: Blocks::Sample(1),
        seed: 5,
        threads: 1,
    };
    let beside = Beside::open(&path, &genesis).unwrap();
    let report = verify(&beside, &chain, &options, &Silent).unwrap();
    let faults: Vec<String> = report.faults.iter().map(Fault::to_string).collect();
    for family in ["history: ", "txid: ", "tx_position: "] {
        let is_told = faults.iter().any(|fault| fault.starts_with(family));
        assert!(is_told, "{family}{faults:?}");
    }
}

#[test]
fn a_bit_that_flips_in_the_first_syncs_files_is_seen_wherever_it_is() {
    let story = by_first_sync();
    let file = story.index.path().join("rocksdb/tx_position.flat");
    let whole = std::fs::read(&file).unwrap();
    assert_eq!(whole.len(), 4 * story.rows[BLOCKS - 1].next_tx().0 as usize);
    let mut spoilt = whole.clone();
    for bit in (0..8 * whole.len()).step_by(whole.len() / 8 + 1) {
        spoilt[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&file, &spoilt).unwrap();
        let faults = story.faults();
        // By its checksum, and by the block that it is of.
        assert!(faults.len() >= 2, "bit {bit}: {faults:?}");
        assert!(
            faults[0].ends_with("not as it was written"),
            "bit {bit}: {faults:?}"
        );
        let n = bit as u32 / 32;
        let of_block = faults.iter().any(|fault| {
            let words: Vec<&str> = fault.split(' ').collect();
            let (from, to): (u32, u32) = (words[2].parse().unwrap(), words[4].parse().unwrap());
            fault.contains("other places than in the node's block") && (from..=to).contains(&n)
        });
        assert!(of_block, "bit {bit}: {faults:?}");
        spoilt[bit / 8] = whole[bit / 8];
    }
    // Without a block's own bytes, and with a checksum that fits: places that do not fill their block.
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(story.faults(), [""; 0]);
    let first = story.rows[20].block.first_tx;
    let sum = |bytes: &[u8]| {
        let end = story.rows[BLOCKS - 1].next_tx().0.to_le_bytes();
        [&end[..], &Sha256::digest(bytes)[..8]].concat()
    };
    for (n, offset) in [
        (first.0, 82u32),
        (first.0 + 1, 81),
        (first.0 - 1, 0xff_ffff),
    ] {
        let at = 4 * n as usize;
        spoilt[at..at + 3].copy_from_slice(&offset.to_le_bytes()[..3]);
        std::fs::write(&file, &spoilt).unwrap();
        let value = sum(&spoilt);
        story.index.spoil("meta", b"position_sums", Some(&value));
        let report = story.verify(Blocks::Sample(1));
        let faults: Vec<String> = report.faults.iter().map(Fault::to_string).collect();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].ends_with("do not fill their block"), "{faults:?}");
        spoilt[at..at + 4].copy_from_slice(&whole[at..at + 4]);
    }

    // No checksum at all.
    std::fs::write(&file, &whole).unwrap();
    story.index.spoil("meta", b"position_sums", None);
    assert_eq!(story.faults().len(), 1);
    story
        .index
        .spoil("meta", b"position_sums", Some(&sum(&whole)));
    assert_eq!(story.faults(), [""; 0]);

    // The rows of merkle trees, a bit and all of it.
    let merkle = file.with_file_name("merkle.flat");
    let rows = std::fs::read(&merkle).unwrap();
    for bit in (0..8 * rows.len()).step_by(rows.len() / 4 + 1) {
        let mut spoilt = rows.clone();
        spoilt[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&merkle, &spoilt).unwrap();
        let is_unused = rows[bit / 256 * 32..][..32] == [0; 32];
        let faults = story.faults();
        assert_eq!(
            faults.len(),
            usize::from(!is_unused),
            "bit {bit}: {faults:?}"
        );
    }
    std::fs::write(&merkle, &rows[..rows.len() - 1]).unwrap();
    let last = BLOCKS - 1;
    assert_eq!(
        story.faults(),
        [format!(
            "merkle.flat: what it has of block {last} is missing or wrong; proofs are right all the same, and take longer"
        )]
    );
    std::fs::write(&merkle, &rows).unwrap();

    // A row where only the file counts; the file cut, and gone.
    let (last, value) = &story.rows[20].tx_position[0];
    let key = TxPositionRow::key(*last);
    story.index.spoil("tx_position", &key, Some(value));
    let faults = story.faults();
    assert!(
        faults[0].contains("belong in the first sync's file"),
        "{faults:?}"
    );
    story.index.spoil("tx_position", &key, None);
    std::fs::write(&file, &whole[..whole.len() - 4]).unwrap();
    assert!(!story.faults().is_empty());
    std::fs::remove_file(&file).unwrap();
    assert!(!story.faults().is_empty());
}
