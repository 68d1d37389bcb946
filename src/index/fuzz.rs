//! What is fuzzed of this room: the decoders of rows, the rows of a block, and the files of a first sync.

use super::{
    BlockRow, BlockRows, bulk,
    flat::Section,
    packed::Group,
    schema::{
        FlatPosition, HashRow, HistoryRow, SCRIPT_PREFIX_LEN, TXID_PREFIX_LEN, TipRow,
        TxPositionRow, TxidRow, read_leb128, write_leb128,
    },
};
use crate::chain::{BlockPlace, BlockView, SpentReader, TxNum, fuzz::with_own_merkle_root};

/// A row of each kind: what decodes must encode to the same bytes, or a row could never be deleted again.
pub fn rows(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    let mut room = [0; 16];
    match kind % 10 {
        0 => {
            if let Some(row) = HistoryRow::decode(bytes) {
                assert_eq!(row.encode(&mut room), bytes);
            }
        }
        1 => {
            if let Some(row) = TxidRow::decode(bytes) {
                assert_eq!(row.encode(&mut room), bytes);
            }
        }
        2 => positions(bytes),
        3 => {
            let _ = BlockRow::decode_key(bytes);
            if let Ok(row) = BlockRow::decode_value(bytes) {
                assert_eq!(row.encode_value()[..], *bytes);
            }
        }
        4 => {
            if let Ok(row) = TipRow::decode(bytes) {
                assert_eq!(row.encode()[..], *bytes);
            }
        }
        5 => group::<SCRIPT_PREFIX_LEN>(bytes),
        6 => group::<TXID_PREFIX_LEN>(bytes),
        7 => flat_positions(bytes),
        8 => {
            if let Ok(sections) = Section::decode_all(bytes) {
                assert_eq!(Section::encode_all(&sections), bytes);
            }
        }
        _ => {
            let mut rest = bytes;
            while let Some(number) = read_leb128(&mut rest) {
                let mut again = Vec::new();
                write_leb128(&mut again, number);
                assert_eq!(read_leb128(&mut &again[..]), Some(number));
            }
        }
    }
}

/// Rows of a group ascend, or it is none.
fn group<const LEN: usize>(bytes: &[u8]) {
    let rows = Group::<LEN>::of(bytes).into_iter().flatten();
    let rows: Vec<HashRow<LEN>> = rows.map_while(Result::ok).collect();
    assert!(rows.is_sorted_by(|row, next| row < next));
    let fit = |row: &HashRow<LEN>| row.prefix >> (8 * LEN - 1) <= 1;
    assert!(rows.iter().all(fit));
}

fn positions(bytes: &[u8]) {
    let Some((key, value)) = bytes.split_at_checked(4) else {
        return;
    };
    let Ok(row) = TxPositionRow::decode(key, value) else {
        return;
    };
    let value = TxPositionRow::encode_value(row.first_offset, &row.sizes, &row.checks);
    assert_eq!(TxPositionRow::decode(key, &value), Ok(row.clone()));
    for n in [row.first(), row.last, TxNum(0), TxNum(u32::MAX)] {
        let _ = row.get(n);
    }
}

/// Whatever two neighbours in the file are, a place lies in its block.
fn flat_positions(bytes: &[u8]) {
    let (entries, rest) = bytes.as_chunks();
    let mut block_bytes = [0; 4];
    block_bytes[..rest.len()].copy_from_slice(rest);
    let block_bytes = u32::from_le_bytes(block_bytes);
    for pair in entries.windows(2) {
        let [one, next] = [pair[0], pair[1]].map(FlatPosition::decode);
        assert_eq!(one.encode(), pair[0]);
        if let Some(place) = one.place(next.offset, block_bytes) {
            assert!(place.size > 0 && place.offset + place.size <= block_bytes);
        }
    }
}

/// A block and what it spends, as they would come from files or from a node. The first two bytes say where
/// the one ends and the other begins, the third how the second is written and what number comes first.
pub fn block_rows(bytes: &[u8]) {
    let [low, high, how, rest @ ..] = bytes else {
        return;
    };
    let at = usize::from(u16::from_le_bytes([*low, *high]));
    let (block, spent) = rest.split_at_checked(at).unwrap_or((rest, &[]));
    let repaired = with_own_merkle_root(block);
    let block = repaired.as_deref().unwrap_or(block);
    let spent = match how & 1 {
        0 => SpentReader::undo(spent),
        _ => SpentReader::rest(spent),
    };
    let (Ok(block), Ok(spent)) = (BlockView::parse(block), spent) else {
        return;
    };
    let place = BlockPlace::in_no_file(0);
    let first = match how & 2 {
        0 => TxNum(1),
        _ => TxNum(u32::MAX - 1),
    };
    if let Ok(rows) = BlockRows::of(1, first, place, &block, spent) {
        assert_eq!(rows.txids.len(), block.tx_count as usize);
        assert_eq!(rows.txid.len(), rows.txids.len());
        let mut next = first;
        for (last, value) in &rows.tx_position {
            let row = TxPositionRow::decode(&TxPositionRow::key(*last), value);
            let row = row.expect("a row of our own");
            assert_eq!(row.first(), next);
            next = TxNum(last.0.wrapping_add(1));
        }
        assert_eq!(next, rows.next_tx());
    }
}

/// A run of a first sync: see `bulk::run`.
pub fn run(bytes: &[u8]) {
    bulk::fuzz(bytes);
}
