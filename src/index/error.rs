//! What can go wrong with the index, and what mends it.

use std::path::{Path, PathBuf};

use super::schema::DamagedRow;

/// Why the index cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error(
        "there is no room left on the disk of the index; make room and start again, nothing is lost"
    )]
    DiskFull,
    #[error(
        "the disk of the index can only be read: {0}; it must be mounted for writing (a disk that fails is \
         often turned read-only: look at the system's log)"
    )]
    ReadOnly(String),
    #[error(
        "the index may not be written by this user: {0}; give its folder to the user that runs Ambra (chown -R)"
    )]
    NotAllowed(String),
    #[error(
        "too many files are open: {0}; raise the limit to 4096 or more (ulimit -n, LimitNOFILE=)"
    )]
    OpenFiles(String),
    #[error("the database failed: {0}")]
    Database(String),
    #[error("the index is damaged: {0}; {REBUILD}")]
    Corrupt(String),
    #[error(
        "{path} holds only a part of an index ({missing} is missing), as a copy that was not finished; copy the \
         whole folder of a server that is stopped, or {REBUILD}"
    )]
    Incomplete { path: PathBuf, missing: String },
    #[error("there is no index in {path}; a server makes it: `ambra` alone")]
    None { path: PathBuf },
    #[error("{0}; {REBUILD}")]
    Damaged(#[from] DamagedRow),
    #[error("{path} holds {found}, not {wanted}; choose another --db-dir, or {REBUILD}")]
    Foreign {
        path: PathBuf,
        found: String,
        wanted: String,
    },
    #[error("another process uses the index in {path}; stop it, or choose another --db-dir")]
    InUse { path: PathBuf },
    #[error("{action} {path}: {cause}{}", mend(cause))]
    File {
        action: &'static str,
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error(
        "the first sync's file {path} is damaged; start once with --rebuild, or delete {folder}: the sync begins again"
    )]
    DamagedRun { path: PathBuf, folder: PathBuf },
}

/// What mends it where a person can.
fn mend(cause: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match cause.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; run this as the user that owns it, or choose a folder of this user with --db-dir (`ambra doctor` says how \
             to make this one)"
        }
        ErrorKind::StorageFull => "; make room, or choose another disk with --db-dir",
        _ => "",
    }
}

/// What mends an index that cannot be used.
const REBUILD: &str =
    "start once with --rebuild: the old one is deleted, and a new one built from the node";

impl From<rocksdb::Error> for IndexError {
    /// RocksDB has one kind for all that the disk says; the rest is in the system's own words (`strerror`).
    fn from(error: rocksdb::Error) -> IndexError {
        let is_corruption = error.kind() == rocksdb::ErrorKind::Corruption;
        sorted(is_corruption, error.into_string())
    }
}

fn sorted(is_corruption: bool, text: String) -> IndexError {
    let says = |words: &str| text.contains(words);
    if says("No space left") || says("Disk quota exceeded") {
        IndexError::DiskFull
    } else if says("Read-only file system") {
        IndexError::ReadOnly(text)
    } else if says("Permission denied") || says("Operation not permitted") {
        IndexError::NotAllowed(text)
    } else if says("Too many open files") {
        IndexError::OpenFiles(text)
    } else if is_corruption || says("No such file or directory") {
        IndexError::Corrupt(text)
    } else {
        IndexError::Database(text)
    }
}

/// Of a file of ours.
pub(super) fn file_error(action: &'static str, path: &Path, cause: std::io::Error) -> IndexError {
    if cause.kind() == std::io::ErrorKind::StorageFull {
        IndexError::DiskFull
    } else {
        IndexError::File {
            action,
            path: path.to_owned(),
            cause,
        }
    }
}

/// Of opening the database in the folder `path`.
pub(super) fn open_error(error: rocksdb::Error, path: &Path) -> IndexError {
    let text = error.to_string();
    if text.contains("lock hold by current process") || text.contains("While lock file") {
        IndexError::InUse {
            path: path.to_owned(),
        }
    } else {
        IndexError::from(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_says_comes_with_what_mends_it() {
        let cases = [
            (
                false,
                "IO error: No space left on device: While appending to file: /x/000010.log: No space left on device",
                "no room left",
            ),
            (
                false,
                "IO error: While open a file for appending: /x/LOG: Read-only file system",
                "mounted for writing",
            ),
            (
                false,
                "IO error: While open a file for random read: /x/000010.sst: Permission denied",
                "chown",
            ),
            (
                false,
                "IO error: While open a file for random read: /x/000010.sst: Too many open files",
                "ulimit -n",
            ),
            (
                false,
                "IO error: No such file or directory: While open a file for random read: /x/000010.sst",
                "--rebuild",
            ),
            (
                true,
                "Corruption: block checksum mismatch in /x/000010.sst",
                "--rebuild",
            ),
        ];
        for (is_corruption, text, words) in cases {
            let told = sorted(is_corruption, text.to_owned()).to_string();
            assert!(told.contains(words), "{told}");
        }
        assert!(matches!(
            sorted(false, "Busy: ".to_owned()),
            IndexError::Database(_)
        ));
    }
}
