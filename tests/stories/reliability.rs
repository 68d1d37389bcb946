//! `docs/reliability.md`: its table is made from what the stories reported, and from nothing else.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

const BEGIN: &str = "<!-- figures: made by contrib/torture.sh -->";
const END: &str = "<!-- end of figures -->";
const ENEMIES_BEGIN: &str = "<!-- enemies: made by contrib/enemies.sh -->";
const ENEMIES_END: &str = "<!-- end of enemies -->";

/// The newest line of each story.
fn newest(report: &str) -> BTreeMap<String, Value> {
    let lines = report.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        Some((line["story"].as_str()?.to_owned(), line))
    });
    lines.collect()
}

/// 25,123
fn with_commas(number: &Value) -> String {
    let digits = number.as_u64().unwrap_or_default().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn mib(number: &Value) -> String {
    let bytes = number.as_f64().unwrap_or_default();
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

/// `a 3, b 4`, of an object.
fn parts(object: &Value) -> String {
    let parts = object.as_object().into_iter().flatten();
    let parts = parts.map(|(name, count)| format!("{name} {}", with_commas(count)));
    parts.collect::<Vec<_>>().join(", ")
}

/// What was done, and what was seen; `None` of a story that has no line in the table.
fn row(story: &str, figures: &Value) -> Option<(String, String)> {
    let f = |name: &str| with_commas(&figures[name]);
    Some(match story {
        "kills" | "kills in the suite" => (
            format!("{story} (SIGKILL)"),
            format!(
                "{}: {}; after {} restarts the index equalled a fresh one row by row, and every answer the oracle's, of {} scripts",
                f("kills"),
                parts(&figures["by_moment"]),
                f("checks"),
                f("scripts")
            ),
        ),
        "torn writes" | "torn writes in the suite" => (
            story.to_owned(),
            format!(
                "{}: {} recovered exactly, {} refused with the remedy, {} served with some questions refused; no wrong answer",
                f("tears"),
                f("recovered"),
                f("refused"),
                f("questions_refused")
            ),
        ),
        "random lives" => (
            story.to_owned(),
            format!(
                "{} steps, {} scripts asked for everything after each",
                f("steps"),
                f("scripts")
            ),
        ),
        "full disk in the first sync" | "full disk at the tip" => (
            story.to_owned(),
            format!(
                "{} stops in clear words, each went on with room",
                f("stops")
            ),
        ),
        "damaged block files" => (
            story.to_owned(),
            format!(
                "{} kinds of damage, the node was asked instead",
                f("faults")
            ),
        ),
        "bits flipped in block files after the sync" => (
            story.to_owned(),
            format!("{} flips, each found by `ambra verify`", f("faults")),
        ),
        "bits flipped under a running server" => (
            story.to_owned(),
            format!(
                "{} flips, {} of them in what was asked for: the node was asked instead, or the answer refused where it has the same",
                f("flips"),
                f("faults")
            ),
        ),
        "rolled back by 300 blocks" => (
            story.to_owned(),
            format!(
                "{} answers meanwhile, {} refused with \"try again\", the longest wait {} ms",
                f("answers"),
                f("refusals"),
                f("longest_ms")
            ),
        ),
        "soak" => (
            format!("soak, {} minutes", f("minutes")),
            format!(
                "{} questions, {} reconnects, {} reorganizations, {} checks of every script; memory {} early and {} late, \
                 {} at most; without the parts that are counted and bounded {} and {}; {} open files early and {} late",
                f("questions"),
                f("reconnects"),
                f("reorgs"),
                f("checks"),
                mib(&figures["memory_early"]),
                mib(&figures["memory_late"]),
                mib(&figures["memory_most"]),
                mib(&figures["rest_early"]),
                mib(&figures["rest_late"]),
                f("files_early"),
                f("files_late")
            ),
        ),
        "memory at its bounds" => (
            story.to_owned(),
            format!(
                "{} scripts in blocks, unwritten rows flushed {} times; the peak between two flushes, once all is full, {} early and {} late",
                f("scripts"),
                f("flushes"),
                mib(&figures["early"]),
                mib(&figures["late"])
            ),
        ),
        "fuzz" => (
            "inputs fuzzed".to_owned(),
            figures["targets"]
                .as_object()
                .map_or_else(|| f("inputs"), |_| parts(&figures["targets"])),
        ),
        _ => return None,
    })
}

fn table(newest: &BTreeMap<String, Value>) -> String {
    let mut table = "| proof | what was seen | seed | code |\n|---|---|---|---|\n".to_owned();
    for (story, line) in newest {
        let figures = &line["figures"];
        if let Some((proof, seen)) = row(story, figures) {
            let seed = figures["seed"]
                .as_u64()
                .map_or("–".to_owned(), |seed| seed.to_string());
            let code = line["code"].as_str().unwrap_or("–");
            table.push_str(&format!("| {proof} | {seen} | {seed} | {code} |\n"));
        }
    }
    table
}

/// What each attack of `enemies` did.
fn enemies_table(line: &Value) -> String {
    let figures = &line["figures"];
    let mut table = format!(
        "Before: {} MiB and {} open files; stated bound: {} MiB. Code: {}.\n\n\
         | attack | memory, at most | honest client waits: p50 | p99 | worst | answers | open files: most | after |\n\
         |---|---|---|---|---|---|---|---|\n",
        figures["memory_before_mib"],
        figures["files_before"],
        figures["memory_bound_mib"],
        line["code"].as_str().unwrap_or("–"),
    );
    for attack in figures["attacks"].as_array().into_iter().flatten() {
        let ms = |name: &str| format!("{:.1} ms", attack[name].as_f64().unwrap_or_default());
        table.push_str(&format!(
            "| {} | {} MiB | {} | {} | {} | {} | {} | {} |\n",
            attack["attack"].as_str().unwrap_or_default(),
            attack["memory_mib"],
            ms("p50_ms"),
            ms("p99_ms"),
            ms("worst_ms"),
            with_commas(&attack["answers"]),
            with_commas(&attack["files_during"]),
            with_commas(&attack["files_after"]),
        ));
    }
    table
}

/// The document with another table between these lines.
fn remade(document: &str, [begin, end]: [&str; 2], table: &str) -> String {
    let (before, rest) = document.split_once(begin).expect("the table's begin");
    let (_, after) = rest.split_once(end).expect("the table's end");
    format!("{before}{begin}\n{table}{end}{after}")
}

/// Writes a table made of the report's newest lines into the document.
fn remake(lines: [&str; 2], table: impl Fn(&BTreeMap<String, Value>) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md");
    let report = std::env::var("STORIES_REPORT").expect("STORIES_REPORT names the report");
    let report = fs::read_to_string(report).expect("the report can be read");
    let document = fs::read_to_string(&path).expect("the document can be read");
    let table = table(&newest(&report));
    println!("{table}");
    fs::write(path, remade(&document, lines, &table)).expect("the document can be written");
}

/// For `contrib/torture.sh`.
#[test]
#[ignore = "writes a document"]
fn the_document_is_remade_from_the_report() {
    remake([BEGIN, END], table);
}

/// For `contrib/enemies.sh`.
#[test]
#[ignore = "writes a document"]
fn the_table_of_enemies_is_remade_from_the_report() {
    remake([ENEMIES_BEGIN, ENEMIES_END], |newest| {
        enemies_table(newest.get("enemies").expect("enemies were measured"))
    });
}

#[test]
fn the_newest_line_of_each_story_is_told() {
    let report = r#"
{"story":"kills","code":"old","figures":{"kills":3,"by_moment":{"Tip":3},"checks":1,"scripts":5,"seed":1}}
not JSON
{"story":"kills","code":"new","figures":{"kills":1201,"by_moment":{"Node":1,"Tip":1200},"checks":800,"scripts":5,"seed":2}}
{"story":"kills so far","figures":{}}
"#;
    let document = format!("head\n{BEGIN}\nold table\n{END}\ntail\n");
    let table = table(&newest(report));
    assert_eq!(
        remade(&document, [BEGIN, END], &table),
        format!(
            "head\n{BEGIN}\n| proof | what was seen | seed | code |\n|---|---|---|---|\n\
             | kills (SIGKILL) | 1,201: Node 1, Tip 1,200; after 800 restarts the index equalled a fresh one row by row, \
             and every answer the oracle's, of 5 scripts | 2 | new |\n{END}\ntail\n"
        )
    );
}

#[test]
fn the_document_has_a_place_for_the_figures() {
    let document = include_str!("../../docs/reliability.md");
    for line in [BEGIN, END, ENEMIES_BEGIN, ENEMIES_END] {
        assert!(document.contains(line), "{line}");
    }
}
