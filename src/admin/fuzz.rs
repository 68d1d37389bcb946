//! What is fuzzed of this room: the list of a snapshot that came from elsewhere, and the name that a browser calls the
//! page by.

use super::{snapshot, status};

/// A snapshot's list: no name that it is taken with leaves the folder.
pub fn manifest(bytes: &[u8]) {
    snapshot::fuzz(&String::from_utf8_lossy(bytes));
}

/// The header `Host` of a page that listens on loopback: no site's name is allowed.
pub fn host(bytes: &[u8]) {
    let host = String::from_utf8_lossy(bytes);
    let names = status::NamedHosts::new(true, [].into_iter());
    if names.allow(&host) {
        let begins = host.bytes().next();
        assert!(
            matches!(begins, Some(b'0'..=b'9' | b'[' | b':' | b'l' | b'L')),
            "{host:?}"
        );
    }
}
