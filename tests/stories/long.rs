//! Stories that run as long as one likes: what they are told, and what they tell.

use std::io::Write as _;

use serde_json::Value;

/// A number from the environment, such as `STORIES_SEED`.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Says what was seen, and adds it as a line to the file that `STORIES_REPORT` names, for
/// `contrib/torture.sh`.
pub fn report(story: &str, figures: &Value) {
    println!("{story}: {figures}");
    let Ok(path) = std::env::var("STORIES_REPORT") else {
        return;
    };
    // Which code it was, as git names it.
    let code = std::env::var("STORIES_CODE").unwrap_or_default();
    let line = serde_json::json!({"story": story, "code": code, "figures": figures});
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    let written = file.and_then(|mut file| writeln!(file, "{line}"));
    written.expect("the report can be written");
}
