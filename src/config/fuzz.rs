//! What is fuzzed of the configuration: the settings' file.

use std::path::Path;

use super::{args::command, layers::file_entries};

/// The file's text; each setting goes through the parser of its option.
pub fn settings_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match file_entries(&command(), Path::new("ambra.toml"), &text) {
        Ok(entries) => {
            for entry in entries {
                if let Err(error) = entry.check() {
                    assert!(!error.to_string().is_empty());
                }
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
