//! Snapshots: a whole, checksummed copy of the index, to build it on one machine and use it on another.
//!
//! A snapshot is a folder: the database's files, and `MANIFEST` that names each with its size and SHA-256. The manifest
//! is written last, so a folder that has one is whole. An import copies and checks everything beside the place of the
//! index, and moves it there in one step: a half import is never taken for an index.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use bitcoin::{BlockHash, hex::DisplayHex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    chain::Height,
    daemon::{
        rpc::{Rpc, RpcError},
        source::BlockSource,
    },
    index::{DATABASE, Index, IndexError},
    sync::{Stop, SyncError, relocate},
};

const MANIFEST: &str = "ambra-snapshot.json";
/// Of the manifest.
const VERSION: u32 = 1;
/// Longest manifest that is read, in bytes: 100,000 files, some 150 bytes each.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// Where a checkpoint stands while it is copied, in the index's folder.
const CHECKPOINT: &str = "checkpoint-";
/// Where an import is at work, in the index's folder.
const UNFINISHED: &str = "import-unfinished";

/// Attempts to make a checkpoint between two blocks.
const CHECKPOINT_ATTEMPTS: u32 = 8;
/// A fork deeper than this below the snapshot's tip is another chain, not a reorganization.
const FORK_DEPTH_MAX: Height = 100;
/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 20;
/// Between two lines of the log.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Why there is no snapshot, or no index made of it.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Sync(#[from] SyncError),
    #[error(transparent)]
    Node(#[from] RpcError),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("the index is not complete yet: its first sync must end before a snapshot can be made")]
    Incomplete,
    #[error("blocks come too fast to make a snapshot between two of them: try again")]
    Restless,
    #[error("{} is there already and is not empty: name a new folder", .0.display())]
    TargetInUse(PathBuf),
    #[error("{} is no snapshot: it has no {MANIFEST} (an export that was cut off has none either)", .0.display())]
    NoManifest(PathBuf),
    #[error("{} is damaged: {why}; copy the snapshot again, or make a new one", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("the snapshot is of {found}, and this Ambra reads {wanted}")]
    OtherShape { found: String, wanted: String },
    #[error(
        "the snapshot is of the chain that begins with {found}, and the node is on the one that begins with {wanted}"
    )]
    OtherChain { found: String, wanted: BlockHash },
    #[error(
        "the node is at block {node}, and the snapshot at {snapshot}: let the node catch up, then import again"
    )]
    NodeBehind { node: Height, snapshot: Height },
    #[error(
        "the node's chain is another one from block {from} on, and the snapshot goes up to {snapshot}"
    )]
    OtherBranch { from: Height, snapshot: Height },
    #[error(
        "there is an index in {} already: remove it first, or name another folder with --db-dir",
        .0.display()
    )]
    IndexThere(PathBuf),
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> SnapshotError + '_ {
    move |error| SnapshotError::File {
        path: path.to_owned(),
        error,
    }
}

/// What a checkpoint is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Where its files are.
    pub folder: PathBuf,
    pub genesis: String,
    pub tip_height: Height,
    pub tip_hash: String,
}

/// A copy of the database that stands still; gone when dropped.
pub struct Checkpoint {
    about: About,
}

impl Checkpoint {
    pub fn about(&self) -> &About {
        &self.about
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.about.folder);
    }
}

/// Makes a checkpoint in the index's folder, while others read and write.
pub fn checkpoint(index: &Index) -> Result<Checkpoint, SnapshotError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..CHECKPOINT_ATTEMPTS {
        let tip = index.tip()?.ok_or(SnapshotError::Incomplete)?;
        let genesis = index.block(0)?.ok_or(SnapshotError::Incomplete)?.hash;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let checkpoint = Checkpoint {
            about: About {
                folder: index.path().join(format!("{CHECKPOINT}{number}")),
                genesis: genesis.to_string(),
                tip_height: tip.height,
                tip_hash: tip.hash.to_string(),
            },
        };
        index.checkpoint(&checkpoint.about.folder)?;
        if index.tip()? == Some(tip) {
            return Ok(checkpoint);
        }
    }
    Err(SnapshotError::Restless)
}

/// Takes away what killed processes left in the index's folder. For the owner of the index alone.
pub fn clean(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_left = name
            .to_str()
            .is_some_and(|name| name.starts_with(CHECKPOINT));
        if is_left {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The list of a snapshot's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    ambra_snapshot: u32,
    index_format: u32,
    prefixes: [u8; 2],
    genesis: String,
    tip_height: Height,
    tip_hash: String,
    files: Vec<FileEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileEntry {
    name: String,
    bytes: u64,
    sha256: String,
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: f64 = self.files.iter().map(|file| file.bytes as f64).sum();
        write!(
            f,
            "snapshot of block {} ({}): {} files, {:.1} MB",
            self.tip_height,
            self.tip_hash,
            self.files.len(),
            bytes / 1e6
        )
    }
}

/// Copies a checkpoint into a new folder.
pub fn export(about: &About, target: &Path) -> Result<Manifest, SnapshotError> {
    make_empty(target)?;
    let (format, prefixes) = Index::SHAPE;
    let mut manifest = Manifest {
        ambra_snapshot: VERSION,
        index_format: format,
        prefixes,
        genesis: about.genesis.clone(),
        tip_height: about.tip_height,
        tip_hash: about.tip_hash.clone(),
        files: Vec::new(),
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(&about.folder).map_err(file_error(&about.folder))? {
        let name = entry.map_err(file_error(&about.folder))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    let mut told = Told::new("copied");
    for name in names {
        let (bytes, sha256) = copy(&about.folder.join(&name), &target.join(&name), &mut told)?;
        manifest.files.push(FileEntry {
            name,
            bytes,
            sha256,
        });
    }
    // The last file, written beside and renamed: with it the snapshot is whole.
    let (path, beside) = (target.join(MANIFEST), target.join("manifest.new"));
    let text = serde_json::to_string_pretty(&manifest).map_err(io::Error::other);
    let write = || {
        let mut file = fs::File::create_new(&beside)?;
        file.write_all(text?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        fs::File::open(target)?.sync_all()
    };
    write().map_err(file_error(&path))?;
    Ok(manifest)
}

/// A folder with nothing in it.
fn make_empty(folder: &Path) -> Result<(), SnapshotError> {
    fs::create_dir_all(folder).map_err(file_error(folder))?;
    let mut entries = fs::read_dir(folder).map_err(file_error(folder))?;
    match entries.next() {
        Some(_) => Err(SnapshotError::TargetInUse(folder.to_owned())),
        None => Ok(()),
    }
}

/// Copies a file to the disk; its size and SHA-256.
fn copy(from: &Path, to: &Path, told: &mut Told) -> Result<(u64, String), SnapshotError> {
    let mut reading = fs::File::open(from).map_err(file_error(from))?;
    let mut writing = fs::File::create_new(to).map_err(file_error(to))?;
    let (mut bytes, mut hash) = (0, Sha256::new());
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = reading.read(&mut buffer).map_err(file_error(from))?;
        let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else {
            break;
        };
        writing.write_all(part).map_err(file_error(to))?;
        hash.update(part);
        bytes += count as u64;
        told.add(count as u64);
    }
    writing.sync_all().map_err(file_error(to))?;
    Ok((bytes, hash.finalize().to_lower_hex_string()))
}

/// How far a copy is, in the log.
struct Told {
    what: &'static str,
    bytes: u64,
    last: Instant,
}

impl Told {
    fn new(what: &'static str) -> Told {
        Told {
            what,
            bytes: 0,
            last: Instant::now(),
        }
    }

    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.last.elapsed() >= LOG_EVERY {
            self.last = Instant::now();
            tracing::info!("{} {:.1} MB", self.what, self.bytes as f64 / 1e6);
        }
    }
}

/// The node that the imported index will follow.
pub struct Node<'a> {
    pub rpc: &'a Rpc,
    pub source: &'a BlockSource,
    pub genesis: BlockHash,
    pub threads: usize,
    pub stop: &'a Stop,
}

/// Makes the snapshot in `from` the index in `folder`, which must have none; the height it goes up to.
pub fn import(from: &Path, folder: &Path, node: &Node<'_>) -> Result<Height, SnapshotError> {
    let target = folder.join(DATABASE);
    if target.exists() {
        return Err(SnapshotError::IndexThere(folder.to_owned()));
    }
    let manifest = read_manifest(from)?;
    check_identity(&manifest, node)?;

    let unfinished = folder.join(UNFINISHED);
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file_error(&unfinished)(error));
        }
        Ok(()) | Err(_) => {}
    }
    let database = unfinished.join(DATABASE);
    fs::create_dir_all(&database).map_err(file_error(&database))?;
    let mut told = Told::new("copied and checked");
    for file in &manifest.files {
        let path = from.join(&file.name);
        let (bytes, sha256) = copy(&path, &database.join(&file.name), &mut told)?;
        if (bytes, &sha256) != (file.bytes, &file.sha256) {
            let why = match bytes == file.bytes {
                true => "its checksum is another".to_owned(),
                false => format!("it has {bytes} bytes, not {}", file.bytes),
            };
            return Err(SnapshotError::Damaged { path, why });
        }
    }

    {
        let index = Index::open(&unfinished, &node.genesis)?;
        let tip = index.tip()?.map(|tip| (tip.height, tip.hash.to_string()));
        if tip != Some((manifest.tip_height, manifest.tip_hash.clone())) {
            let why = "its database is not what it says".to_owned();
            let path = from.join(MANIFEST);
            return Err(SnapshotError::Damaged { path, why });
        }
        tracing::info!("checking the headers against the node's, and finding its blocks");
        let fork = relocate::check_headers(&index, node.rpc)?;
        if fork + FORK_DEPTH_MAX < manifest.tip_height {
            return Err(SnapshotError::OtherBranch {
                from: fork + 1,
                snapshot: manifest.tip_height,
            });
        }
        relocate::place_blocks(&index, node.source, node.rpc, fork, node.threads, node.stop)?;
    }
    let settle = || {
        fs::File::open(&database)?.sync_all()?;
        fs::rename(&database, &target)?;
        fs::File::open(folder)?.sync_all()
    };
    settle().map_err(file_error(&target))?;
    let _ = fs::remove_dir_all(&unfinished);
    Ok(manifest.tip_height)
}

fn read_manifest(from: &Path) -> Result<Manifest, SnapshotError> {
    let path = from.join(MANIFEST);
    let file = match fs::File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SnapshotError::NoManifest(from.to_owned()));
        }
        opened => opened.map_err(file_error(&path))?,
    };
    let mut text = String::new();
    file.take(MANIFEST_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(file_error(&path))?;
    manifest_of(&text).map_err(|why| SnapshotError::Damaged { path, why })
}

/// The list, or what is wrong with it.
fn manifest_of(text: &str) -> Result<Manifest, String> {
    let manifest: Manifest = serde_json::from_str(text).map_err(|error| error.to_string())?;
    // # Security: a snapshot may come from elsewhere, and its names must not leave its folder.
    let is_plain = |name: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '_';
        !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
    };
    match manifest.files.iter().find(|file| !is_plain(&file.name)) {
        Some(file) => Err(format!("{:?} is no name of a file", file.name)),
        None => Ok(manifest),
    }
}

/// What may be fuzzed of it.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(text: &str) {
    use std::path::Component;
    let Ok(manifest) = manifest_of(text) else {
        return;
    };
    assert!(!manifest.to_string().is_empty());
    for file in &manifest.files {
        let parts: Vec<_> = Path::new(&file.name).components().collect();
        assert!(matches!(parts[..], [Component::Normal(_)]), "{file:?}");
    }
    let again = serde_json::to_string(&manifest).expect("it was JSON");
    assert_eq!(manifest_of(&again), Ok(manifest));
}

fn check_identity(manifest: &Manifest, node: &Node<'_>) -> Result<(), SnapshotError> {
    let (format, prefixes) = Index::SHAPE;
    let found = (
        manifest.ambra_snapshot,
        manifest.index_format,
        manifest.prefixes,
    );
    if found != (VERSION, format, prefixes) {
        let words = |(version, format, prefixes): (u32, u32, [u8; 2])| {
            format!("form {version}, index format {format}, prefixes {prefixes:?}")
        };
        return Err(SnapshotError::OtherShape {
            found: words(found),
            wanted: words((VERSION, format, prefixes)),
        });
    }
    if manifest.genesis != node.genesis.to_string() {
        return Err(SnapshotError::OtherChain {
            found: manifest.genesis.clone(),
            wanted: node.genesis,
        });
    }
    let blocks = node.rpc.blockchain_info()?.blocks;
    if blocks < manifest.tip_height {
        return Err(SnapshotError::NodeBehind {
            node: blocks,
            snapshot: manifest.tip_height,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_export_left_is_taken_away_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["checkpoint-0", "checkpoint-17", DATABASE] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("CURRENT"), "x").unwrap();
        }
        fs::write(folder.path().join("tls-key.pem"), "key").unwrap();
        clean(folder.path());
        let left = fs::read_dir(folder.path()).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [DATABASE, "tls-key.pem"]);
    }
}
