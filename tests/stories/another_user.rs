//! A server that another user runs than the one who tells the story: root may do everything, so that permissions say nothing.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{ambra::Ambra, node::Node};

/// Debian's `nobody`.
const NOBODY: u32 = 65_534;

/// Whose a folder is.
#[derive(Clone, Copy, Debug)]
pub enum Owner {
    Root,
    Nobody,
}

/// From its next start on `nobody` runs it, who may ask the node. False, and a loud word, where that cannot be.
pub fn runs(ambra: &mut Ambra, node: &Node) -> bool {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root || Command::new("setpriv").arg("--version").output().is_err() {
        println!(
            "LOUD: another user can be tried by root only, with setpriv; the story is skipped"
        );
        return false;
    }
    ambra.wrap(&["setpriv", &format!("--reuid={NOBODY}"), "--clear-groups"]);
    set_mode(node.dir(), 0o755);
    set_mode(&node.dir().join("regtest"), 0o755);
    set_mode(&node.dir().join("regtest/.cookie"), 0o644);
    true
}

/// The folder and all below it.
pub fn give(folder: &Path, owner: Owner) {
    let owner = match owner {
        Owner::Root => 0,
        Owner::Nobody => NOBODY,
    };
    for path in all_below(folder) {
        chown(&path, Some(owner), None).expect("root may");
    }
}

/// Everybody may read.
pub fn open(folder: &Path) {
    for path in all_below(folder) {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        set_mode(&path, mode);
    }
}

/// Nobody but the owner may even look.
pub fn close(folder: &Path) {
    for path in all_below(folder) {
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        set_mode(&path, mode);
    }
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("root may");
}

fn all_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_path_buf()];
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(all_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}
