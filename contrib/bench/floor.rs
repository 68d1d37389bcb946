//! The floor: what any index of this chain must at least do, and no more, on all cores. Read the
//! node's block and undo files, undo the XOR, parse, hash each txid and each script, sort the rows and
//! write them once to a plain file. No database, no marks, nothing kept for a restart.
//!
//! It takes a plain chain for granted, as `bench-chain` makes it: no stale blocks, undo records in the
//! order of the blocks.

mod client;
mod process;
mod record;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use ambra::chain::{BlockView, ParseError, SpentReader, TxView};
use bitcoin::hashes::Hash;
use clap::Parser;
use client::Failure;
use process::Used;
use sha2::{Digest, Sha256};

#[derive(Parser)]
#[command(name = "bench-floor")]
struct Args {
    /// The node's directory of blk and rev files
    #[arg(long)]
    blocks_dir: PathBuf,
    /// Where to write the rows
    #[arg(long)]
    out: PathBuf,
    /// How many threads; all cores if not given
    #[arg(long)]
    threads: Option<usize>,
}

/// What precedes a record: network magic and length.
const RECORD_HEAD: u64 = 8;
/// The checksum behind an undo record.
const CHECKSUM: u64 = 32;
/// Rows are parted by their first byte before they are sorted.
const PARTS: usize = 256;
/// Blocks that a thread takes at once.
const RUN: usize = 16;

/// A block and its undo record in the files with this number.
struct Place {
    file: usize,
    block: (u64, usize),
    undo: (u64, usize),
    first_tx: u32,
}

struct Files {
    key: [u8; 8],
    blk: Vec<File>,
    rev: Vec<File>,
}

impl Files {
    fn read(&self, file: &File, at: u64, to: &mut [u8]) -> Result<(), Failure> {
        file.read_exact_at(to, at)?;
        let mut key = self.key;
        key.rotate_left((at % 8) as usize);
        let word = u64::from_ne_bytes(key);
        if word == 0 {
            return Ok(());
        }
        let (words, rest) = to.as_chunks_mut::<8>();
        for chunk in words {
            *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
        }
        for (byte, key) in rest.iter_mut().zip(key) {
            *byte ^= key;
        }
        Ok(())
    }
}

/// The rows of one thread, by part.
struct Rows {
    /// Script hash, 6 bytes, and transaction number.
    history: Vec<Vec<u128>>,
    /// Txid without its first byte, 4 bytes, and transaction number.
    txid: Vec<Vec<u64>>,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let started = Instant::now();
    let files = open(&args.blocks_dir)?;
    let (places, tx_count) = find(&files)?;
    let threads = match args.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism()?.get(),
    };

    let next = AtomicUsize::new(0);
    let made: Vec<Rows> = in_threads(threads, || make_rows(&files, &places, &next))?;
    let parsed = started.elapsed();

    let sizes = |part: usize| -> (usize, usize) {
        made.iter().fold((0, 0), |(history, txid), rows| {
            (
                history + rows.history[part].len(),
                txid + rows.txid[part].len(),
            )
        })
    };
    let mut offsets = Vec::new();
    let (mut end, mut row_count) = (0, 0);
    for part in 0..PARTS {
        let (history, txid) = sizes(part);
        offsets.push(end);
        end += (history * 10 + txid * 9) as u64;
        row_count += history;
    }
    let out = File::create(&args.out)?;
    let made = Mutex::new(made);
    let next = AtomicUsize::new(0);
    in_threads(threads, || write_parts(&made, &offsets, &out, &next))?;

    let seconds = started.elapsed().as_secs_f64();
    let used = Used::of("self")?;
    println!(
        "{}",
        serde_json::json!({
            "seconds": seconds,
            "cpu_seconds": used.cpu_seconds,
            "peak_memory": used.peak_memory,
            "seconds_until_sorting": parsed.as_secs_f64(),
            "threads": threads,
            "blocks": places.len(),
            "transactions": tx_count,
            "history_rows": row_count,
            "bytes": end,
        })
    );
    Ok(())
}

fn in_threads<T: Send>(
    threads: usize,
    work: impl Fn() -> Result<T, Failure> + Sync,
) -> Result<Vec<T>, Failure> {
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().map_err(|_| "a thread failed")?)
            .collect()
    })
}

fn open(dir: &Path) -> Result<Files, Failure> {
    let key = match fs::read(dir.join("xor.dat")) {
        Ok(key) => key.as_slice().try_into()?,
        Err(_) => [0; 8],
    };
    let (mut blk, mut rev) = (Vec::new(), Vec::new());
    while let Ok(file) = File::open(dir.join(format!("blk{:05}.dat", blk.len()))) {
        rev.push(File::open(dir.join(format!("rev{:05}.dat", rev.len())))?);
        blk.push(file);
    }
    Ok(Files { key, blk, rev })
}

/// Where all blocks but the genesis block are.
fn find(files: &Files) -> Result<(Vec<Place>, u32), Failure> {
    let mut places = Vec::new();
    let mut first_tx = 0;
    for number in 0..files.blk.len() {
        let blk = &files.blk[number];
        let mut undos = records(files, &files.rev[number], CHECKSUM)?.into_iter();
        for block in records(files, blk, 0)? {
            let mut head = vec![0; 89.min(block.1)];
            files.read(blk, block.0, &mut head)?;
            let view = BlockView::parse(&head)?;
            if view.header[4..36] == [0; 32] {
                continue;
            }
            places.push(Place {
                file: number,
                block,
                undo: undos.next().ok_or("a block without undo record")?,
                first_tx,
            });
            first_tx += view.tx_count;
        }
    }
    Ok((places, first_tx))
}

/// Offset and length of each record of a file.
fn records(files: &Files, file: &File, tail: u64) -> Result<Vec<(u64, usize)>, Failure> {
    let mut found = Vec::new();
    let end = file.metadata()?.len();
    let mut at = 0;
    while at + RECORD_HEAD < end {
        let mut head = [0; RECORD_HEAD as usize];
        files.read(file, at, &mut head)?;
        let [.., a, b, c, d] = head;
        let size = u64::from(u32::from_le_bytes([a, b, c, d]));
        // A file's end is allocated before it is used, and reads as zeros or as the key itself.
        if head[..4] != [0xfa, 0xbf, 0xb5, 0xda] {
            break;
        }
        found.push((at + RECORD_HEAD, size as usize));
        at += RECORD_HEAD + size + tail;
    }
    Ok(found)
}

fn make_rows(files: &Files, places: &[Place], next: &AtomicUsize) -> Result<Rows, Failure> {
    let mut rows = Rows {
        history: vec![Vec::new(); PARTS],
        txid: vec![Vec::new(); PARTS],
    };
    let (mut block, mut undo, mut touched) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let run = next.fetch_add(RUN, Relaxed);
        if run >= places.len() {
            return Ok(rows);
        }
        for place in &places[run..places.len().min(run + RUN)] {
            block.resize(place.block.1, 0);
            files.read(&files.blk[place.file], place.block.0, &mut block)?;
            undo.resize(place.undo.1, 0);
            files.read(&files.rev[place.file], place.undo.0, &mut undo)?;
            let mut spent = SpentReader::undo(&undo)?;
            let mut number = place.first_tx;
            BlockView::parse(&block)?.for_each_tx(|_, tx| {
                add_tx(&tx, number, place.first_tx, &mut spent, &mut touched)?;
                for &script in &touched {
                    let row = u128::from(script) << 32 | u128::from(number);
                    rows.history[(script >> 40) as usize].push(row);
                }
                let txid = tx.txid();
                let [part, a, b, c, d, ..] = *txid.as_raw_hash().as_byte_array();
                let prefix = u64::from(u32::from_be_bytes([a, b, c, d]));
                rows.txid[usize::from(part)].push(prefix << 32 | u64::from(number));
                number += 1;
                Ok::<_, ParseError>(())
            })?;
            spent.finish()?;
        }
    }
}

/// Leaves in `touched` the prefix of each script that the transaction pays or spends, once.
fn add_tx(
    tx: &TxView,
    number: u32,
    coinbase: u32,
    spent: &mut SpentReader,
    touched: &mut Vec<u64>,
) -> Result<(), ParseError> {
    const OP_RETURN: u8 = 0x6a;
    touched.clear();
    for output in tx.outputs() {
        if output.script.first() != Some(&OP_RETURN) {
            touched.push(prefix(output.script));
        }
    }
    if number != coinbase {
        for _ in 0..spent.next_tx()? {
            touched.push(prefix(spent.next_output()?.1));
        }
    }
    touched.sort_unstable();
    touched.dedup();
    Ok(())
}

fn prefix(script: &[u8]) -> u64 {
    let [a, b, c, d, e, f, ..]: [u8; 32] = Sha256::digest(script).into();
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

fn write_parts(
    made: &Mutex<Vec<Rows>>,
    offsets: &[u64],
    out: &File,
    next: &AtomicUsize,
) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    loop {
        let part = next.fetch_add(1, Relaxed);
        let Some(&offset) = offsets.get(part) else {
            return Ok(());
        };
        let (mut history, mut txid) = (Vec::new(), Vec::new());
        for rows in made.lock().map_err(|_| "a thread failed")?.iter_mut() {
            history.push(std::mem::take(&mut rows.history[part]));
            txid.push(std::mem::take(&mut rows.txid[part]));
        }
        let mut history = history.concat();
        let mut txid = txid.concat();
        history.sort_unstable();
        txid.sort_unstable();
        bytes.clear();
        for row in history {
            bytes.extend_from_slice(&row.to_be_bytes()[6..]);
        }
        for row in txid {
            bytes.push(part as u8);
            bytes.extend_from_slice(&row.to_be_bytes());
        }
        out.write_all_at(&bytes, offset)?;
    }
}
