//! Block files as a node leaves them.

use bitcoin::consensus::encode::serialize;
use proptest::prelude::*;

use super::*;
use crate::chain::{Height, fake::FakeChain};

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

/// Writes block files. Records come in any order, stale ones among them.
struct Folder {
    folder: tempfile::TempDir,
    key: [u8; 8],
}

impl Folder {
    fn new(key: [u8; 8]) -> Folder {
        let folder = tempfile::tempdir().unwrap();
        if key != [0; 8] {
            std::fs::write(folder.path().join("xor.dat"), key).unwrap();
        }
        Folder { folder, key }
    }

    fn write(&self, name: &str, records: &[u8], zeros: usize) {
        let mut bytes = records.to_vec();
        unxor(&self.key, 0, &mut bytes);
        bytes.resize(bytes.len() + zeros, 0);
        std::fs::write(self.folder.path().join(name), bytes).unwrap();
    }

    fn open(&self) -> BlockFiles {
        BlockFiles::open(self.folder.path()).unwrap()
    }
}

fn record(data: &[u8]) -> Vec<u8> {
    [&MAGIC[..], &(data.len() as u32).to_le_bytes(), data].concat()
}

fn blk(chain: &FakeChain, height: Height) -> Vec<u8> {
    record(&serialize(&chain.blocks[height as usize]))
}

fn rev(chain: &FakeChain, height: Height) -> Vec<u8> {
    let (undo, checksum) = chain.undo(height);
    [record(&undo), checksum.to_vec()].concat()
}

fn chain(seed: u64, blocks: usize) -> FakeChain {
    let mut chain = FakeChain::new(seed, 9);
    (1..blocks).for_each(|number| chain.grow(number % 6));
    chain
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn each_block_and_what_it_spends_are_found(
        seed: u64, key: [u8; 8], has_key: bool, zeros in 0usize..5000,
        order in Just((0u32..24).collect::<Vec<_>>()).prop_shuffle(), junk in 0usize..90, knows_rank: bool,
    ) {
        let chain = chain(seed, 24);
        let mut stale = chain.clone();
        stale.blocks.truncate(20);
        stale.reseed(!seed);
        stale.grow(5);
        let folder = Folder::new(if has_key { key } else { [0; 8] });
        // Two files; in each the blocks in the order of their download, the undo data in that of the chain.
        for (number, half) in order.chunks(12).enumerate() {
            let mut half = half.to_vec();
            if number == 0 {
                // The first record tells the magic, as the genesis block's does on any chain.
                half.retain(|&height| height != 0);
                half.insert(0, 0);
            } else {
                half.retain(|&height| height != 0);
            }
            let mut blocks: Vec<u8> = half.iter().flat_map(|&height| blk(&chain, height)).collect();
            blocks.extend(std::iter::repeat_n(0x11, junk));
            blocks.extend(blk(&stale, 20));
            half.sort_unstable();
            let mut undo: Vec<u8> = half.iter().filter(|&&height| height > 0).flat_map(|&height| rev(&chain, height)).collect();
            undo.extend(rev(&stale, 20));
            folder.write(&format!("blk{number:05}.dat"), &blocks, zeros);
            folder.write(&format!("rev{number:05}.dat"), &undo, zeros);
        }
        let files = folder.open();
        prop_assert_eq!(files.numbers().unwrap(), vec![0, 1]);
        let mut scanned = Vec::new();
        for number in [0, 1] {
            let (blocks, end) = files.scan(number, 0).unwrap();
            prop_assert_eq!(files.scan(number, end).unwrap(), (Vec::new(), end));
            scanned.extend(blocks);
        }
        prop_assert_eq!(scanned.len(), 24 + 2);
        for (height, block) in (0..).zip(&chain.blocks) {
            let found = scanned.iter().find(|found| found.hash == block.block_hash()).unwrap();
            prop_assert_eq!(found.tx_count as usize, block.txdata.len());
            prop_assert_eq!(found.previous(), block.header.prev_blockhash);
            let mut bytes = Vec::new();
            files.block(&found.place, &mut bytes).unwrap();
            prop_assert_eq!(&bytes, &serialize(block));
            let mut part = [0; 32];
            files.part(&found.place, 4, &mut part).unwrap();
            prop_assert_eq!(&part[..], &serialize(&block.header.prev_blockhash));
            if height > 0 {
                let near = knows_rank.then_some(height as usize / 2);
                let place = files.undo(&found.place, &found.header, found.tx_count, near, &mut bytes).unwrap();
                prop_assert_eq!(&bytes, &chain.undo(height).0);
                // Where it was found once, it is read at once.
                let again = files.undo(&place, &found.header, found.tx_count, Some(999), &mut bytes).unwrap();
                prop_assert_eq!(again, place);
                prop_assert_eq!(&bytes, &chain.undo(height).0);
            }
        }
    }

    #[test]
    fn a_record_that_is_still_being_written_is_found_when_it_is_whole(seed: u64, key: [u8; 8], cut in 1usize..200) {
        let chain = chain(seed, 4);
        let folder = Folder::new(key);
        let two = [blk(&chain, 0), blk(&chain, 1)].concat();
        let third = blk(&chain, 2);
        let half = &third[..third.len() - cut.min(third.len() - 1)];
        folder.write("blk00000.dat", &[&two[..], half].concat(), 0);
        let files = folder.open();
        let (blocks, end) = files.scan(0, 0).unwrap();
        prop_assert_eq!(blocks.len(), 2);
        prop_assert_eq!(end as usize, two.len());
        folder.write("blk00000.dat", &[two, third].concat(), 300);
        // A new handle: the file was replaced, which a node does not do.
        let (blocks, _) = folder.open().scan(0, end).unwrap();
        prop_assert_eq!(blocks.len(), 1);
        prop_assert_eq!(blocks[0].hash, chain.blocks[2].block_hash());
    }

    #[test]
    fn the_key_comes_off_at_any_offset(key: [u8; 8], offset in 0u64..1000, bytes: Vec<u8>) {
        let mut written = bytes.clone();
        for (index, byte) in written.iter_mut().enumerate() {
            *byte ^= key[(offset as usize + index) % 8];
        }
        unxor(&key, offset, &mut written);
        prop_assert_eq!(written, bytes);
    }

    #[test]
    fn any_bytes_are_scanned_to_an_end(bytes in prop::collection::vec(prop::sample::select(vec![0u8, 1, 0xfa, 0xbf, 0xb5, 0xda, 0xff]), 120..2000)) {
        let folder = Folder::new([0; 8]);
        let bytes = [&MAGIC[..], &bytes].concat();
        folder.write("blk00000.dat", &bytes, 0);
        folder.write("rev00000.dat", &bytes, 0);
        let files = folder.open();
        let (blocks, end) = files.scan(0, 0).unwrap();
        prop_assert!(end as usize <= bytes.len());
        for block in blocks {
            let mut out = Vec::new();
            let _ = files.undo(&block.place, &block.header, block.tx_count, None, &mut out);
        }
    }
}

#[test]
fn damage_is_told_with_file_and_offset() {
    let chain = chain(5, 6);
    let folder = Folder::new([0; 8]);
    let blocks: Vec<u8> = (0..6).flat_map(|height| blk(&chain, height)).collect();
    let mut undo: Vec<u8> = (1..6).flat_map(|height| rev(&chain, height)).collect();
    let at = undo.len() - 40;
    undo[at] ^= 1;
    folder.write("blk00000.dat", &blocks, 0);
    folder.write("rev00000.dat", &undo, 0);
    let files = folder.open();
    let (scanned, _) = files.scan(0, 0).unwrap();
    let last = scanned.last().unwrap();
    let mut out = Vec::new();
    let error = files
        .undo(&last.place, &last.header, last.tx_count, None, &mut out)
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("rev00000.dat"), "{text}");
    assert!(
        text.contains(&format!("offset {}", last.place.offset)),
        "{text}"
    );
    std::fs::remove_file(folder.folder.path().join("rev00000.dat")).unwrap();
    let error = folder
        .open()
        .undo(&last.place, &last.header, last.tx_count, None, &mut out)
        .unwrap_err();
    assert!(matches!(error, FilesError::Read { .. }), "{error}");
}

#[test]
fn a_folder_without_block_files_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        BlockFiles::open(folder.path()),
        Err(FilesError::NoFiles { .. })
    ));
    std::fs::write(folder.path().join("xor.dat"), [1, 2, 3]).unwrap();
    assert!(matches!(
        BlockFiles::open(folder.path()),
        Err(FilesError::Damaged { .. })
    ));
}

#[test]
fn a_file_that_the_node_deleted_is_closed_and_another_of_its_name_is_read() {
    let (old, new) = (chain(1, 3), chain(2, 3));
    let folder = Folder::new([0; 8]);
    let put = |chain: &FakeChain| {
        let _ = std::fs::remove_file(folder.folder.path().join("blk00000.dat"));
        folder.write("blk00000.dat", &blk(chain, 1), 0);
    };
    put(&old);
    let files = folder.open();
    let (found, _) = files.scan(0, 0).unwrap();
    let read = || {
        let mut bytes = Vec::new();
        files.block(&found[0].place, &mut bytes).map(|()| bytes)
    };
    assert_eq!(read().unwrap(), serialize(&old.blocks[1]));
    // What is there stays open.
    files.close_deleted();
    assert_eq!(files.open.read().unwrap().len(), 1);
    put(&new);
    files.close_deleted();
    assert_eq!(files.open.read().unwrap().len(), 0);
    let (found, _) = files.scan(0, 0).unwrap();
    assert_eq!(found[0].hash, new.blocks[1].block_hash());
    std::fs::remove_file(folder.folder.path().join("blk00000.dat")).unwrap();
    files.close_deleted();
    assert!(matches!(read(), Err(FilesError::Read { .. })));
}
