//! The documents hold together: links lead somewhere, the book has every page, and the monitoring files name only
//! metrics that `docs/monitoring.md` explains.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below `folder` with that extension, in order.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder that can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// All that people read: the book and the pages at the top.
fn pages() -> Vec<PathBuf> {
    let mut pages = files(&root().join("docs"), "md");
    pages.extend(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    pages
}

/// The text without blocks of code and without `code`: what looks like a link there is none.
fn prose(text: &str) -> String {
    let mut prose = String::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            // Every second piece stands between backticks.
            for piece in line.split('`').step_by(2) {
                prose.push_str(piece);
            }
            prose.push('\n');
        }
    }
    prose
}

/// The targets of `[words](target)`. A link's words may be code, which [`prose`] has taken out.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let targets = prose.match_indices("](").filter_map(|(at, _)| {
        let rest = &prose[at + 2..];
        rest.find(')').map(|end| rest[..end].to_owned())
    });
    targets.collect()
}

/// The names under which the headings of a page can be linked to, made as mdBook and GitHub make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        }
        if is_code || !line.starts_with('#') {
            continue;
        }
        let heading = line.trim_start_matches('#').trim();
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept
            .map(|c| if c == ' ' { '-' } else { c })
            .flat_map(char::to_lowercase)
            .collect();
        anchors.insert(anchor);
    }
    anchors
}

/// The book has what lies in its folder; to all else its pages link by its address on the web.
fn is_of_the_book(path: &Path) -> bool {
    let path = path.canonicalize().unwrap_or_default();
    let folder = root().join("docs").canonicalize().unwrap_or_default();
    path.starts_with(folder)
}

/// What is wrong with the links of a page.
fn broken_links(page: &Path, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for link in links(text) {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
        let target = match path {
            "" => page.to_owned(),
            path => page.parent().expect("a page lies somewhere").join(path),
        };
        if !target.exists() {
            broken.push(format!("{}: no such file: {link}", page.display()));
        } else if is_of_the_book(page) && !(target.is_file() && is_of_the_book(&target)) {
            broken.push(format!("{}: not in the book: {link}", page.display()));
        } else if !anchor.is_empty() && !anchors(&read(&target)).contains(anchor) {
            broken.push(format!("{}: no such heading: {link}", page.display()));
        }
    }
    broken
}

/// Words of `text` that begin with one of `prefixes` and go on as `fits` says.
fn words<'t>(text: &'t str, prefixes: &[&str], fits: fn(char) -> bool) -> BTreeSet<&'t str> {
    let mut found = BTreeSet::new();
    for word in text.split(|c| !fits(c)) {
        if prefixes.iter().any(|prefix| word.starts_with(prefix)) {
            found.insert(word);
        }
    }
    found
}

fn metrics(text: &str) -> BTreeSet<&str> {
    let is_of_a_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    words(text, &["ambra_", "process_"], is_of_a_name)
}

/// A histogram is one metric in the document and three series for Prometheus.
fn explained(metric: &str, known: &BTreeSet<&str>) -> bool {
    let parts = ["_bucket", "_sum", "_count"];
    known.contains(metric)
        || parts
            .iter()
            .filter_map(|part| metric.strip_suffix(part))
            .any(|whole| known.contains(whole))
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    assert!(pages.len() > 5, "the pages were found");
    let broken: Vec<String> = pages
        .iter()
        .flat_map(|page| broken_links(page, &read(page)))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_broken_link_is_seen() {
    let page = root().join("docs/SUMMARY.md");
    let count = |text: &str| broken_links(&page, text).len();
    assert_eq!(count("[a](nowhere.md)"), 1);
    assert_eq!(count("[a](SUMMARY.md#nothing) and [b](nowhere/)"), 2);
    assert_eq!(count("[`code`](nowhere.md)"), 1);
    assert_eq!(count("[a](../README.md), [b](decisions/)"), 2);
    assert_eq!(
        count("# Here\n[a](SUMMARY.md) [b](https://example.org/x)"),
        0
    );
    assert_eq!(count("`[a](nowhere.md)`\n```\n[a](nowhere.md)\n```"), 0);
    let headings = anchors("# One, two!\n## `ambra` of 3-4\n");
    assert!(headings.contains("one-two") && headings.contains("ambra-of-3-4"));
}

#[test]
fn the_book_has_every_page() {
    let docs = root().join("docs");
    let summary = docs.join("SUMMARY.md");
    let links = links(&read(&summary));
    let listed: BTreeSet<PathBuf> = links.iter().map(|link| docs.join(link)).collect();
    assert_eq!(listed.len(), links.len(), "a page stands there twice");
    let missing: Vec<String> = files(&docs, "md")
        .into_iter()
        .filter(|page| *page != summary && !listed.contains(page))
        .map(|page| page.display().to_string())
        .collect();
    assert!(
        missing.is_empty(),
        "not in docs/SUMMARY.md: {}",
        missing.join(", ")
    );
}

#[test]
fn what_the_documents_name_in_contrib_exists() {
    let is_of_a_path = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
    let mut missing = Vec::new();
    for page in pages() {
        let text = read(&page);
        for path in words(&text, &["contrib/"], is_of_a_path) {
            // A sentence may end with it.
            let path = path.trim_end_matches('.');
            if !root().join(path).exists() {
                missing.push(format!("{}: {path}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn dashboard_and_alerts_ask_only_for_metrics_that_the_document_explains() {
    let document = read(&root().join("docs/monitoring.md"));
    let known = metrics(&document);
    let folder = root().join("contrib/monitoring");
    for name in ["grafana-dashboard.json", "alerts.yml"] {
        let text = read(&folder.join(name));
        let asked = metrics(&text);
        assert!(asked.len() > 5, "{name}: the metrics were found");
        let unknown: Vec<_> = asked
            .iter()
            .filter(|metric| !explained(metric, &known))
            .collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
    }
    let dashboard = read(&folder.join("grafana-dashboard.json"));
    let parsed: Result<serde_json::Value, _> = serde_json::from_str(&dashboard);
    let panels = parsed.expect("JSON")["panels"]
        .as_array()
        .map_or(0, Vec::len);
    assert!(panels > 10, "the dashboard has panels");
    assert!(!explained("ambra_nonsense_bucket", &known));
}
