//! The node's own block files: `blk*.dat` and `rev*.dat`.
//!
//! ```text
//! record   magic (4) ‖ size (4, little-endian) ‖ data; a rev record has a checksum (32) behind it
//! xor.dat  8 bytes; each byte of blk and rev files is XORed with key[offset mod 8] (Bitcoin Core 28)
//! ```
//!
//! Files are preallocated: the tail is zero until it is used. Blocks lie in the order in which they
//! came, stale ones among them; a block's undo data lie in the rev file of the same number, in the order
//! in which blocks were connected. (Bitcoin Core `node/blockstorage.cpp`.)

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
};

use bitcoin::{BlockHash, hashes::Hash};

use crate::chain::{
    BlockPlace, BlockView, Cursor, HEADER_LEN, HeaderBytes, block_hash, undo_checksum,
};

/// Magic and size before each record.
const RECORD_HEADER_LEN: u64 = 8;

/// Behind a rev record's data.
const CHECKSUM_LEN: usize = 32;

/// No block is larger (Bitcoin Core `MAX_BLOCK_SERIALIZED_SIZE`); undo data are smaller than this too.
const RECORD_BYTES_MAX: u32 = 4_000_000 * 2;

/// Open files that are kept: blk and rev files of which many are read at random. At most an eighth of what the
/// process may open: the rest is for the index and for connections.
const OPEN_FILES_MAX: usize = 512;

fn open_files_max() -> usize {
    let allowed = rlimit::Resource::NOFILE.get_soft().unwrap_or(1024);
    usize::try_from(allowed / 8)
        .unwrap_or(OPEN_FILES_MAX)
        .clamp(1, OPEN_FILES_MAX)
}

/// Why the files do not give a block.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("cannot read {path}: {cause}")]
    Read { path: PathBuf, cause: io::Error },
    #[error("{path} does not hold what it should at offset {offset}: {what}")]
    Damaged {
        path: PathBuf,
        offset: u64,
        what: String,
    },
    #[error("{folder} holds no block files (blk*.dat)")]
    NoFiles { folder: PathBuf },
}

/// A block as a scan found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScannedBlock {
    pub hash: BlockHash,
    pub header: HeaderBytes,
    pub tx_count: u32,
    pub place: BlockPlace,
}

impl ScannedBlock {
    pub fn previous(&self) -> BlockHash {
        previous(&self.header)
    }
}

/// The hash of the block before the one with this header.
pub fn previous(header: &HeaderBytes) -> BlockHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(&header[4..36]);
    BlockHash::from_byte_array(hash)
}

/// A rev record's place: where its data are, and the number of transactions that they speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct UndoRecord {
    offset: u32,
    size: u32,
    tx_count: u32,
}

/// The folder `blocks` of a node.
pub struct BlockFiles {
    folder: PathBuf,
    key: [u8; 8],
    magic: [u8; 4],
    open: RwLock<HashMap<(Kind, u32), Arc<File>>>,
    /// Rev records by file number, with the offset to which the file has been scanned.
    undo: Mutex<HashMap<u32, Arc<Vec<UndoRecord>>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Blocks,
    Undo,
}

impl BlockFiles {
    pub fn open(folder: &Path) -> Result<BlockFiles, FilesError> {
        let key = match std::fs::read(folder.join("xor.dat")) {
            Ok(bytes) => bytes
                .as_slice()
                .try_into()
                .map_err(|_| FilesError::Damaged {
                    path: folder.join("xor.dat"),
                    offset: 0,
                    what: format!("a key has 8 bytes, this one {}", bytes.len()),
                })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => [0; 8],
            Err(cause) => {
                return Err(FilesError::Read {
                    path: folder.join("xor.dat"),
                    cause,
                });
            }
        };
        let mut files = BlockFiles {
            folder: folder.to_owned(),
            key,
            magic: [0; 4],
            open: RwLock::default(),
            undo: Mutex::default(),
        };
        let first = *files
            .numbers()?
            .first()
            .ok_or_else(|| FilesError::NoFiles {
                folder: folder.to_owned(),
            })?;
        let mut magic = [0; 4];
        files.read(Kind::Blocks, first, 0, &mut magic)?;
        files.magic = magic;
        Ok(files)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn is_xored(&self) -> bool {
        self.key != [0; 8]
    }

    /// The numbers of all blk files, ascending.
    pub fn numbers(&self) -> Result<Vec<u32>, FilesError> {
        let error = |cause| FilesError::Read {
            path: self.folder.clone(),
            cause,
        };
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(error)? {
            let name = entry.map_err(error)?.file_name();
            let number = name.to_str().and_then(|name| {
                name.strip_prefix("blk")?
                    .strip_suffix(".dat")?
                    .parse::<u32>()
                    .ok()
            });
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Bytes of a blk file, preallocated ones included.
    pub fn len(&self, number: u32) -> Result<u64, FilesError> {
        let path = self.path(Kind::Blocks, number);
        std::fs::metadata(&path)
            .map(|metadata| metadata.len())
            .map_err(|cause| FilesError::Read { path, cause })
    }

    /// All blocks of a file from `offset` on, in the order in which they lie, and the offset behind
    /// the last. A record that is still being written ends the scan, as does the zero tail.
    pub fn scan(
        &self,
        number: u32,
        mut offset: u64,
    ) -> Result<(Vec<ScannedBlock>, u64), FilesError> {
        /// Record header, block header, and the number of transactions.
        const PROBE_LEN: usize = RECORD_HEADER_LEN as usize + HEADER_LEN + 9;
        let len = self.len(number)?;
        let mut blocks = Vec::new();
        let mut probe = [0; PROBE_LEN];
        while offset + (PROBE_LEN as u64) <= len {
            self.read(Kind::Blocks, number, offset, &mut probe)?;
            if probe[..4] != self.magic {
                match self.next_magic(number, offset, len)? {
                    Some(next) => {
                        offset = next;
                        continue;
                    }
                    None => break,
                }
            }
            let size = u32::from_le_bytes([probe[4], probe[5], probe[6], probe[7]]);
            let start = offset + RECORD_HEADER_LEN;
            if size > RECORD_BYTES_MAX || start + u64::from(size) > len {
                break;
            }
            let data = &probe[RECORD_HEADER_LEN as usize..];
            let data = &data[..data.len().min(size as usize)];
            let parsed = BlockView::parse(data).ok().zip(u32::try_from(start).ok());
            if let Some((block, start)) = parsed {
                let hash = block_hash(block.header);
                let place = BlockPlace {
                    file: number,
                    offset: start,
                    size,
                    undo_offset: 0,
                    undo_size: 0,
                };
                blocks.push(ScannedBlock {
                    hash,
                    header: *block.header,
                    tx_count: block.tx_count,
                    place,
                });
            }
            offset = start + u64::from(size);
        }
        Ok((blocks, offset))
    }

    /// Looks for a record behind bytes that are none; `None` where only zeros (as they lie on disk)
    /// follow, or nothing that looks like one.
    fn next_magic(&self, number: u32, from: u64, len: u64) -> Result<Option<u64>, FilesError> {
        let mut raw = [0u8; 64];
        let count = raw.len().min((len - from) as usize);
        self.read_raw(Kind::Blocks, number, from, &mut raw[..count])?;
        if raw[..count].iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let mut window = vec![0u8; 1 << 16];
        let mut at = from + 1;
        while at + 4 <= len {
            let count = window.len().min((len - at) as usize);
            self.read(Kind::Blocks, number, at, &mut window[..count])?;
            let found = window[..count]
                .windows(4)
                .position(|bytes| bytes == self.magic);
            if let Some(position) = found {
                return Ok(Some(at + position as u64));
            }
            at += count as u64 - 3;
        }
        Ok(None)
    }

    /// A whole block, in `out`.
    pub fn block(&self, place: &BlockPlace, out: &mut Vec<u8>) -> Result<(), FilesError> {
        out.resize(place.size as usize, 0);
        self.read(Kind::Blocks, place.file, place.offset.into(), out)
    }

    /// Fills `out` with the bytes from `offset` on in a block.
    pub fn part(&self, place: &BlockPlace, offset: u32, out: &mut [u8]) -> Result<(), FilesError> {
        let at = u64::from(place.offset) + u64::from(offset);
        self.read(Kind::Blocks, place.file, at, out)
    }

    /// The undo data of a block: in `out`, and their place in the rev file. `near` is a guess at which of the file's records it is (the
    /// block's rank by height among the file's blocks).
    pub fn undo(
        &self,
        place: &BlockPlace,
        header: &HeaderBytes,
        tx_count: u32,
        near: Option<usize>,
        out: &mut Vec<u8>,
    ) -> Result<BlockPlace, FilesError> {
        let previous = previous(header);
        if place.undo_size > 0 {
            let record = UndoRecord {
                offset: place.undo_offset,
                size: place.undo_size,
                tx_count,
            };
            if self.undo_record(place.file, record, &previous, out)? {
                return Ok(*place);
            }
        }
        for is_fresh in [false, true] {
            let records = self.undo_records(place.file, is_fresh)?;
            let last = records.len().saturating_sub(1);
            let near = near.unwrap_or(last).min(last);
            // Outward from the guess: near, near + 1, near − 1, …
            let candidates = (0..=records.len()).flat_map(|distance| {
                let below = (distance > 0).then(|| near.checked_sub(distance)).flatten();
                [Some(near + distance), below]
            });
            for record in candidates.flatten().filter_map(|index| records.get(index)) {
                if record.tx_count == tx_count - 1
                    && self.undo_record(place.file, *record, &previous, out)?
                {
                    return Ok(BlockPlace {
                        undo_offset: record.offset,
                        undo_size: record.size,
                        ..*place
                    });
                }
            }
        }
        Err(FilesError::Damaged {
            path: self.path(Kind::Undo, place.file),
            offset: 0,
            what: format!(
                "no undo record fits the block at offset {} of {}",
                place.offset,
                self.path(Kind::Blocks, place.file).display()
            ),
        })
    }

    /// Reads a record; true if its checksum says that it belongs to the block after `previous`.
    fn undo_record(
        &self,
        file: u32,
        record: UndoRecord,
        previous: &BlockHash,
        out: &mut Vec<u8>,
    ) -> Result<bool, FilesError> {
        out.resize(record.size as usize + CHECKSUM_LEN, 0);
        self.read(Kind::Undo, file, record.offset.into(), out)?;
        let (undo, checksum) = out.split_at(record.size as usize);
        let is_it = undo_checksum(previous, undo) == checksum;
        out.truncate(record.size as usize);
        Ok(is_it)
    }

    /// The rev records of a file, in the order in which they lie.
    fn undo_records(
        &self,
        number: u32,
        is_fresh: bool,
    ) -> Result<Arc<Vec<UndoRecord>>, FilesError> {
        /// Files whose records are remembered; a record takes 12 bytes, a file has some hundred.
        const REMEMBERED_MAX: usize = 64;
        let remembered = self
            .undo
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        if let Some(records) = remembered.get(&number).filter(|_| !is_fresh) {
            return Ok(records.clone());
        }
        drop(remembered);
        let path = self.path(Kind::Undo, number);
        let len = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(cause) => return Err(FilesError::Read { path, cause }),
        };
        let mut records = Vec::new();
        let mut offset = 0;
        let mut probe = [0; RECORD_HEADER_LEN as usize + 9];
        while offset + RECORD_HEADER_LEN < len {
            let count = probe.len().min((len - offset) as usize);
            self.read(Kind::Undo, number, offset, &mut probe[..count])?;
            if probe[..4] != self.magic {
                break;
            }
            let size = u32::from_le_bytes([probe[4], probe[5], probe[6], probe[7]]);
            let start = offset + RECORD_HEADER_LEN;
            let end = start + u64::from(size) + CHECKSUM_LEN as u64;
            if size > RECORD_BYTES_MAX || end > len {
                break;
            }
            let tx_count = Cursor::new(&probe[RECORD_HEADER_LEN as usize..count]).compact_size();
            let tx_count = tx_count.ok().and_then(|count| u32::try_from(count).ok());
            if let (Some(tx_count), Ok(offset)) = (tx_count, u32::try_from(start)) {
                records.push(UndoRecord {
                    offset,
                    size,
                    tx_count,
                });
            }
            offset = end;
        }
        let records = Arc::new(records);
        let mut remembered = self
            .undo
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(number, records.clone());
        Ok(records)
    }

    fn read(&self, kind: Kind, number: u32, offset: u64, out: &mut [u8]) -> Result<(), FilesError> {
        self.read_raw(kind, number, offset, out)?;
        if self.is_xored() {
            unxor(&self.key, offset, out);
        }
        Ok(())
    }

    fn read_raw(
        &self,
        kind: Kind,
        number: u32,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), FilesError> {
        let error = |cause| FilesError::Read {
            path: self.path(kind, number),
            cause,
        };
        let file = self.file(kind, number).map_err(error)?;
        file.read_exact_at(out, offset).map_err(error)
    }

    fn file(&self, kind: Kind, number: u32) -> io::Result<Arc<File>> {
        let open = self
            .open
            .read()
            .unwrap_or_else(|broken| broken.into_inner());
        if let Some(file) = open.get(&(kind, number)) {
            return Ok(file.clone());
        }
        drop(open);
        let file = Arc::new(File::open(self.path(kind, number))?);
        let mut open = self
            .open
            .write()
            .unwrap_or_else(|broken| broken.into_inner());
        if open.len() >= open_files_max() {
            open.clear();
        }
        open.insert((kind, number), file.clone());
        Ok(file)
    }

    /// Closes files that the node has deleted: it prunes, or begins anew with other files of the same names. Whoever
    /// keeps a deleted file open keeps its room on the disk taken, and reads what is no longer there.
    pub fn close_deleted(&self) {
        let is_there = |file: &File| !file.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
        let mut open = self
            .open
            .write()
            .unwrap_or_else(|broken| broken.into_inner());
        let mut closed = Vec::new();
        open.retain(|(_, number), file| {
            is_there(file) || {
                closed.push(*number);
                false
            }
        });
        drop(open);
        let mut undo = self
            .undo
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        closed.iter().for_each(|number| _ = undo.remove(number));
    }

    fn path(&self, kind: Kind, number: u32) -> PathBuf {
        let name = match kind {
            Kind::Blocks => "blk",
            Kind::Undo => "rev",
        };
        self.folder.join(format!("{name}{number:05}.dat"))
    }
}

/// Takes the key off bytes that lie at `offset`.
fn unxor(key: &[u8; 8], offset: u64, bytes: &mut [u8]) {
    let mut rotated = *key;
    rotated.rotate_left((offset % 8) as usize);
    let word = u64::from_ne_bytes(rotated);
    let mut words = bytes.chunks_exact_mut(8);
    for chunk in &mut words {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ word).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(rotated) {
        *byte ^= key;
    }
}
