//! The index's folder: whether it holds a whole database, and how to be rid of it.

use std::path::Path;

use rocksdb::{DB, Options};

use super::{Index, IndexError, bulk, error::open_error};

/// Of RocksDB's files, within the index's folder.
pub const FOLDER: &str = "rocksdb";

impl Index {
    /// Deletes the index in the folder `path`, whatever its state; not while a server uses it. What else
    /// lies in the folder stays.
    pub fn destroy(path: &Path) -> Result<(), IndexError> {
        let folder = path.join(FOLDER);
        if folder.is_dir() {
            DB::destroy(&Options::default(), &folder).map_err(|error| open_error(error, path))?;
            // What RocksDB does not know as its own, such as a torn file's copy.
            remove_folder(&folder)?;
        }
        remove_folder(&path.join(bulk::FOLDER))
    }
}

/// An error where tables or logs lie there and the file that names the newest list of them is missing: RocksDB would
/// begin an empty database and delete them.
pub(super) fn is_whole(path: &Path) -> Result<(), IndexError> {
    let folder = path.join(FOLDER);
    if folder.join("CURRENT").exists() {
        return Ok(());
    }
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => {
            return Err(IndexError::File {
                action: "cannot read",
                path: folder,
                cause,
            });
        }
    };
    let has_rows = entries.flatten().any(|entry| {
        let path = entry.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("sst" | "log"))
    });
    if has_rows {
        return Err(IndexError::Incomplete {
            path: path.to_owned(),
            missing: "CURRENT".to_owned(),
        });
    }
    Ok(())
}

fn remove_folder(folder: &Path) -> Result<(), IndexError> {
    match std::fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(IndexError::File {
            action: "cannot remove",
            path: folder.to_owned(),
            cause,
        }),
        _ => Ok(()),
    }
}
