//! The index's folder: who may write there, what is in it, and whether there is room.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use bitcoin::{Network, blockdata::constants::genesis_block};

use super::{Check, rights};
use crate::{
    config::Config,
    index::{Beside, DATABASE, IndexError},
    joiner::control::{self, Question},
};

/// Of index, for a transaction: rounded up from what was measured on a generated chain (docs/performance.md).
const BYTES_PER_TX: u64 = 40;

/// While the first sync ends, its sorted runs and the files that they are merged into are both there.
const FIRST_SYNC_FACTOR: u64 = 2;

/// A year of a chain like main (150 million transactions).
const GROWTH_BYTES: u64 = 150_000_000 * BYTES_PER_TX;

pub(super) fn look(config: &Config, network: Network, txs: Option<u64>, checks: &mut Vec<Check>) {
    let folder = config.db_dir(network);
    let has_index = index(&folder, network, checks);
    let there = existing(&folder);
    let probe = there.join(".ambra-doctor");
    match fs::File::create(&probe) {
        Ok(_) => {
            let _ = fs::remove_file(&probe);
        }
        Err(error) => checks.push(Check::fail(
            "index folder",
            format!("{}: this user cannot write there: {error}", there.display()),
            writable(&folder, &error),
        )),
    }
    if let (Ok(space), Some(txs)) = (rustix::fs::statvfs(&there), txs) {
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        checks.push(room(&there, free, txs, has_index));
    }
}

/// True if there is a whole index.
fn index(folder: &Path, network: Network, checks: &mut Vec<Check>) -> bool {
    const NAME: &str = "index";
    let place = folder.display();
    if !folder.join(DATABASE).is_dir() {
        checks.push(Check::ok(NAME, format!("none in {place} yet")));
        return false;
    }
    let running = control::ask::<Vec<String>>(folder, &Question::Listeners {});
    if let Ok(Some(_)) = running {
        checks.push(Check::ok(
            NAME,
            format!("{place}, in use by the Ambra that runs"),
        ));
        return true;
    }
    // Read beside whoever may write it: the doctor leaves no file of another user behind.
    match Beside::open(folder, &genesis_block(network).block_hash()) {
        Ok(index) => match index.tip() {
            Ok(Some(tip)) => {
                let megabytes = index.size() as f64 / 1e6;
                let height = tip.height;
                checks.push(Check::ok(
                    NAME,
                    format!("{place}, up to block {height}, {megabytes:.1} MB"),
                ));
                true
            }
            Ok(None) => {
                checks.push(Check::ok(
                    NAME,
                    format!("{place}, its first sync is not complete; `ambra` goes on with it"),
                ));
                false
            }
            Err(error) => {
                checks.push(Check::fail(NAME, error.to_string(), "ambra verify"));
                false
            }
        },
        Err(error) => {
            let mend = match &error {
                IndexError::Foreign { .. } => {
                    "ambra --db-dir ANOTHER_DIR, or ambra --rebuild (deletes this one and makes it anew)"
                }
                IndexError::Corrupt(_) | IndexError::Incomplete { .. } | IndexError::Damaged(_) => {
                    "ambra --rebuild (deletes it and makes it anew from the node)"
                }
                _ => "ask as the user that runs Ambra: sudo -u ambra ambra doctor",
            };
            checks.push(Check::fail(NAME, error.to_string(), mend));
            false
        }
    }
}

/// What lets this user write in the index's folder, and in no other.
fn writable(folder: &Path, error: &std::io::Error) -> String {
    let (user, place) = (rights::user(), rights::quoted(folder));
    match error.kind() {
        ErrorKind::ReadOnlyFilesystem => {
            "ambra --db-dir DIR on a disk that can be written".to_owned()
        }
        ErrorKind::StorageFull => "make room, or ambra --db-dir DIR on another disk".to_owned(),
        _ if folder.is_dir() => format!("sudo chown -R {user} {place}, or ambra --db-dir DIR"),
        _ => format!("sudo install -d -o {user} -m 700 {place}, or ambra --db-dir DIR"),
    }
}

/// The folder, or the nearest one above it that is there.
fn existing(folder: &Path) -> PathBuf {
    folder
        .ancestors()
        .find(|folder| folder.is_dir())
        .unwrap_or(Path::new("/"))
        .to_owned()
}

fn room(folder: &Path, free: u64, txs: u64, has_index: bool) -> Check {
    const NAME: &str = "disk";
    let size = |bytes: u64| match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    };
    let index = txs * BYTES_PER_TX;
    let place = folder.display();
    let mend = "make room, or ambra --db-dir DIR on another disk";
    if has_index {
        let grows = GROWTH_BYTES.min(index);
        let says = format!("{} free at {place}", size(free));
        return match free < grows {
            true => Check::warn(NAME, says, mend),
            false => Check::ok(NAME, says),
        };
    }
    let needs = index * FIRST_SYNC_FACTOR;
    let says = format!(
        "{} free at {place}; the index of {txs} transactions takes about {}, and up to {} while it is made",
        size(free),
        size(index),
        size(needs)
    );
    match free {
        free if free < index => Check::fail(NAME, says, mend),
        free if free < needs => Check::warn(NAME, says, mend),
        _ => Check::ok(NAME, says),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::joiner::doctor::Level;

    #[test]
    fn the_room_that_is_needed_follows_from_the_chain() {
        let level = |free, has_index| room(Path::new("/x"), free, 1_000, has_index).level;
        assert_eq!(level(39_999, false), Level::Fail);
        assert_eq!(level(79_999, false), Level::Warn);
        assert_eq!(level(80_000, false), Level::Ok);
        assert_eq!(level(39_999, true), Level::Warn);
        assert_eq!(level(40_000, true), Level::Ok);
    }

    #[test]
    fn only_the_indexs_own_folder_is_given_to_this_user() {
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("new");
        let denied = std::io::Error::from(ErrorKind::PermissionDenied);
        let mend = writable(&new, &denied);
        assert!(mend.starts_with("sudo install -d -o "), "{mend}");
        assert!(mend.contains(new.to_str().unwrap()), "{mend}");
        let mend = writable(dir.path(), &denied);
        assert!(mend.starts_with("sudo chown -R "), "{mend}");
        let full = std::io::Error::from(ErrorKind::StorageFull);
        assert!(writable(&new, &full).starts_with("make room"));
    }

    #[test]
    fn a_folder_that_is_to_be_made_is_looked_for_above() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing(&dir.path().join("a/b/c")), dir.path());
    }
}
