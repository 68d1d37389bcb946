//! An index that is read while a server may be writing it.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
    time::Duration,
};

use bitcoin::BlockHash;

use super::{Index, IndexError};

/// The server may turn its files over while they are opened: then once more.
const ATTEMPTS: u32 = 5;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(300);

/// The index as it was at the moment of opening. What is written later is not seen.
pub struct Beside {
    index: Index,
    /// RocksDB writes its log there; it goes with this.
    scratch: PathBuf,
}

impl Beside {
    pub fn open(path: &Path, genesis: &BlockHash) -> Result<Beside, IndexError> {
        let scratch = std::env::temp_dir().join(format!("ambra-verify-{}", std::process::id()));
        let mut attempt = 1;
        loop {
            match Index::open_beside(path, &scratch, genesis) {
                Ok(index) => return Ok(Beside { index, scratch }),
                Err(IndexError::Corrupt(_) | IndexError::Database(_)) if attempt < ATTEMPTS => {
                    attempt += 1;
                    std::thread::sleep(PAUSE);
                }
                Err(error) => {
                    remove(&scratch);
                    return Err(error);
                }
            }
        }
    }
}

impl Deref for Beside {
    type Target = Index;

    fn deref(&self) -> &Index {
        &self.index
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        remove(&self.scratch);
    }
}

/// Only a log of RocksDB's: where it stays, nothing is lost.
fn remove(scratch: &Path) {
    let _ = std::fs::remove_dir_all(scratch);
}
