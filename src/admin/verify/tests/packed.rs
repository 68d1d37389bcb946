//! Packed rows, as the first sync writes them, spoiled group by group.

use super::*;
use crate::index::{Bulk, Finish, Gatherer, TipRow};

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
    drop(index);
    let index = Index::open(&path, &chain.blocks[0].block_hash()).unwrap();
    let story = Story {
        chain,
        index,
        rows,
        _folder,
    };
    assert!(!story.faults().is_empty());
}
