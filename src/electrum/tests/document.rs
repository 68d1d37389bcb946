//! `docs/protocol.md` is written from the method table: the part between its two marks.
//!
//! `AMBRA_WRITE_DOCS=1 cargo test` writes it anew.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use super::*;
use crate::electrum::{
    methods::{Cost, METHODS, Method, Text},
    params::Args,
};

const BEGIN: &str = "<!-- made from the method table -->\n";
const END: &str = "<!-- end -->\n";

fn link(method: &Method) -> String {
    let anchor = method.name.replace(['.', '_'], "-");
    match method.text {
        Text::Methods => format!(
            "https://electrum-protocol.readthedocs.io/en/latest/protocol-methods.html#{anchor}"
        ),
        Text::Removed => format!(
            "https://electrum-protocol.readthedocs.io/en/latest/protocol-removed.html#{anchor}"
        ),
        Text::Reference => {
            "https://github.com/spesmilo/electrumx/blob/master/src/electrumx/server/session.py"
                .to_owned()
        }
        Text::Fulcrum => format!(
            "https://electrum-cash-protocol.readthedocs.io/en/latest/protocol-methods.html#{anchor}"
        ),
    }
}

fn range(method: &Method) -> String {
    match (method.from, method.to) {
        _ if !Version::DEFINED
            .iter()
            .any(|version| method.is_in(*version)) =>
        {
            "before agreeing".to_owned()
        }
        (from, to) if from == to => from.to_string(),
        (from, to) => format!("{from} – {to}"),
    }
}

fn params(method: &Method) -> String {
    let mut text = String::new();
    for param in method.params {
        let separator = if text.is_empty() { "" } else { ", " };
        let optional = if param.is_optional { "?" } else { "" };
        let _ = write!(text, "{separator}{}{optional}", param.name);
    }
    text
}

fn cost(method: &Method) -> &'static str {
    match method.cost {
        Cost::Memory => "memory",
        Cost::Script => "script",
        Cost::History => "history",
        Cost::Index => "index",
        Cost::Node => "node",
        Cost::By(decide) => match decide(&Args::default()) {
            Cost::Memory => "memory; index or node for more",
            _ => "index; node for more",
        },
    }
}

fn table() -> String {
    let mut by_name: BTreeMap<&str, Vec<&Method>> = BTreeMap::new();
    for method in METHODS {
        by_name.entry(method.name).or_default().push(method);
    }
    let mut text = String::from("| method |");
    for version in Version::DEFINED {
        let _ = write!(text, " {version} |");
    }
    text.push_str(" – |\n|---|");
    text.push_str(&":-:|".repeat(Version::DEFINED.len() + 1));
    text.push('\n');
    for (name, methods) in &by_name {
        let _ = write!(text, "| `{name}` |");
        for version in Version::DEFINED {
            let is_there = methods.iter().any(|method| method.is_in(version));
            text.push_str(if is_there { " ● |" } else { " |" });
        }
        text.push_str(" ● |\n");
    }
    text.push_str("\n| method | versions | parameters (`?`: optional) | cost | text |\n|---|---|---|---|---|\n");
    for (name, methods) in &by_name {
        for method in methods {
            let words = match method.text {
                Text::Methods => "protocol",
                Text::Removed => "protocol, removed",
                Text::Reference => "reference server",
                Text::Fulcrum => "extension",
            };
            let _ = writeln!(
                text,
                "| `{name}` | {} | {} | {} | [{words}]({}) |",
                range(method),
                params(method),
                cost(method),
                link(method)
            );
        }
    }
    text
}

#[test]
fn the_protocol_document_shows_the_method_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the first mark");
    let (shown, after) = rest.split_once(END).expect("the second mark");
    let table = table();
    if std::env::var_os("AMBRA_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert!(
        shown == table,
        "docs/protocol.md is stale: run `AMBRA_WRITE_DOCS=1 cargo test --release the_protocol_document`"
    );
}

#[test]
fn every_method_of_the_protocols_text_is_in_the_table() {
    // The headings of protocol-methods and protocol-removed.
    let headings = "blockchain.block.header blockchain.block.headers blockchain.estimatefee \
        blockchain.headers.subscribe blockchain.scripthash.get_balance \
        blockchain.scripthash.get_history blockchain.scripthash.get_mempool \
        blockchain.scripthash.listunspent blockchain.scripthash.subscribe \
        blockchain.scripthash.unsubscribe blockchain.transaction.broadcast \
        blockchain.transaction.broadcast_package blockchain.transaction.get \
        blockchain.transaction.get_merkle blockchain.transaction.id_from_pos \
        mempool.get_fee_histogram mempool.get_info server.add_peer server.banner \
        server.donation_address server.features server.peers.subscribe server.ping server.version \
        blockchain.address.get_balance blockchain.address.get_history \
        blockchain.address.get_mempool blockchain.address.listunspent \
        blockchain.address.subscribe blockchain.numblocks.subscribe \
        blockchain.utxo.get_address blockchain.block.get_header blockchain.block.get_chunk \
        blockchain.relayfee";
    for name in headings.split_whitespace() {
        assert!(METHODS.iter().any(|method| method.name == name), "{name}");
    }
}
