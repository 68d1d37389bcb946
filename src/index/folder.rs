//! The index's folder: whether it holds a whole database, and how to be rid of it.

use std::path::Path;

use rocksdb::{DB, Options};

use super::{
    Index, IndexError,
    error::open_error,
    families::{FAMILIES, FOLDER, META, META_FORMAT, RUNS_FOLDER},
    schema::FORMAT,
};

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
        remove_folder(&path.join(RUNS_FOLDER))
    }
}

/// Whether a database lies in the folder `path`; an error where this user may not look.
pub fn has_database(path: &Path) -> Result<bool, IndexError> {
    let folder = path.join(FOLDER);
    match std::fs::metadata(&folder) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(IndexError::File {
            action: "cannot look into",
            path: folder,
            cause,
        }),
    }
}

/// An error where the database is another version's. Looked at before it is opened: opening would add what this version
/// has more, and then the other version could not use it any more.
pub(super) fn is_of_this_version(path: &Path) -> Result<(), IndexError> {
    let folder = path.join(FOLDER);
    if !folder.join("CURRENT").exists() {
        return Ok(());
    }
    let failed = |error| open_error(error, path);
    let options = Options::default();
    let found = DB::list_cf(&options, &folder).map_err(failed)?;
    let is_ours = |name: &String| name == "default" || FAMILIES.contains(&name.as_str());
    if found.iter().all(is_ours) && found.len() == FAMILIES.len() + 1 {
        return Ok(());
    }
    // A kill while it was made leaves a part of ours, and no format.
    let format = if found.iter().any(|name| name == META) {
        let db = DB::open_cf_for_read_only(&options, &folder, [META], false).map_err(failed)?;
        let meta = db.cf_handle(META);
        meta.map(|meta| db.get_cf(meta, META_FORMAT))
            .transpose()?
            .flatten()
    } else {
        None
    };
    match format {
        Some(format) if format != FORMAT.to_le_bytes() => Err(IndexError::Foreign {
            path: path.to_owned(),
            found: of_format(&format),
            wanted: format!("one of format {FORMAT}"),
        }),
        None if !found.iter().all(is_ours) => Err(IndexError::Foreign {
            path: path.to_owned(),
            found: "another program's database".to_owned(),
            wanted: format!("an index of format {FORMAT}"),
        }),
        _ => Ok(()),
    }
}

/// What the row `format` of `meta` says.
pub(super) fn of_format(format: &[u8]) -> String {
    <[u8; 4]>::try_from(format).map_or("an index of an unknown format".to_owned(), |bytes| {
        format!("an index of format {}", u32::from_le_bytes(bytes))
    })
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
