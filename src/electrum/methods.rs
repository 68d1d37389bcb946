//! THE method table: what each version has, what each method takes, who answers it, and what an
//! answer costs. Versions differ in rows, not in code: a method whose parameters or shape changed has
//! a row for each range of versions.
//!
//! `docs/protocol.md` is written from this table by a test.

use std::{collections::HashMap, sync::LazyLock};

use super::{
    Refusal,
    answers::{Question, headers, node, scripts, server, transactions},
    params::{Arg, Args, Kind, NAME_CHARS_MAX, Param},
    session::{Session, Topic},
    version::{Speaks, Version},
};

/// A method in a range of versions.
pub struct Method {
    pub name: &'static str,
    /// The first and the last version that has it so.
    pub from: Version,
    pub to: Version,
    pub serves: Serves,
    /// Parameters that it does not know are ignored.
    pub is_tolerant: bool,
    pub params: &'static [Param],
    pub cost: Cost,
    pub call: Call,
    /// Where the protocol's text tells of it.
    pub text: Text,
}

/// Which sessions a row serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// Those that agreed on one of its versions, and those that agreed on none.
    All,
    /// Those that agreed on one of its versions.
    Agreed,
    /// Those that agreed on none.
    Open,
}

/// What a question costs, and so who answers it.
#[derive(Clone, Copy)]
pub enum Cost {
    /// Memory alone: answered at once.
    Memory,
    /// A figure of a script: at once if the script is in memory, however long its history, else on the pool.
    Script,
    /// A list of a script's history: at once if that is in memory and short, else on the pool.
    History,
    /// A read or two of disk: on the pool.
    Index,
    /// The node's RPC: on a pool of its own.
    Node,
    /// It depends on what is asked.
    By(fn(&Args) -> Cost),
}

impl Cost {
    pub fn of(self, args: &Args) -> Cost {
        match self {
            Cost::By(decide) => decide(args),
            known => known,
        }
    }
}

/// Who answers.
#[derive(Clone, Copy)]
pub enum Call {
    /// A pure function of one moment; it may run on any thread.
    Answer(fn(&Question, &Args, &mut Vec<u8>) -> Result<(), Refusal>),
    /// Changes the session, and waits for nothing.
    Session(fn(&mut Session, &Args, &mut Vec<u8>) -> Result<(), Refusal>),
    /// Registers first, then tells the status.
    Subscribe(Topic),
}

/// A page of the protocol's documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// protocol-methods
    Methods,
    /// protocol-removed
    Removed,
    /// The reference server's source: no text yet.
    Reference,
    /// The documents of the Electrum Cash Protocol, which Fulcrum follows.
    Fulcrum,
}

const ALL: (Version, Version) = (Version::V1_0, Version::V1_7);

const fn need(name: &'static str, kind: Kind) -> Param {
    Param {
        name,
        kind,
        is_optional: false,
    }
}

const fn may(name: &'static str, kind: Kind) -> Param {
    Param {
        name,
        kind,
        is_optional: true,
    }
}

const fn row(
    name: &'static str,
    (from, to): (Version, Version),
    params: &'static [Param],
    cost: Cost,
    call: Call,
) -> Method {
    Method {
        name,
        from,
        to,
        serves: Serves::All,
        is_tolerant: false,
        params,
        cost,
        call,
        text: Text::Methods,
    }
}

impl Method {
    const fn text(self, text: Text) -> Method {
        Method { text, ..self }
    }

    /// Another row of the same name serves sessions that agreed on no version.
    const fn closed(self) -> Method {
        Method {
            serves: Serves::Agreed,
            ..self
        }
    }

    /// Serves no others.
    const fn open_only(self) -> Method {
        Method {
            serves: Serves::Open,
            ..self
        }
    }

    /// A session that agreed on `version` has it.
    pub fn is_in(&self, version: Version) -> bool {
        self.serves != Serves::Open && self.from <= version && version <= self.to
    }

    /// A session that agreed on no version has it.
    pub fn is_open(&self) -> bool {
        self.serves != Serves::Agreed
    }

    const fn tolerant(self) -> Method {
        Method {
            is_tolerant: true,
            ..self
        }
    }

    const fn extension(self) -> Method {
        self.text(Text::Fulcrum)
    }

    /// Not in the protocol's text: other servers have it, and wallets use it.
    pub fn is_extension(&self) -> bool {
        self.text == Text::Fulcrum
    }
}

use Call::{Answer, Subscribe};
use Version as V;

const NONE: &[Param] = &[];
const ADDRESS: &[Param] = &[need("address", Kind::Address)];
const SCRIPT_HASH: &[Param] = &[need("scripthash", Kind::ScriptHash)];
const SCRIPT: &[Param] = &[need("spk", Kind::Script)];
const TX_HASH: &[Param] = &[need("tx_hash", Kind::Txid)];
const RAW_TX: &[Param] = &[need("raw_tx", Kind::Hex)];
const HEIGHT: &[Param] = &[need("height", Kind::Natural)];
const HISTORY: &[Param] = &[
    need("scripthash", Kind::ScriptHash),
    may("from_height", Kind::Natural),
    may("to_height", Kind::NaturalOrMinusOne),
];
const HEADER: &[Param] = &[
    need("height", Kind::Natural),
    may("cp_height", Kind::Natural),
];
const HEADERS_OLD: &[Param] = &[
    need("start_height", Kind::Natural),
    need("count", Kind::Natural),
];
const HEADERS: &[Param] = &[
    need("start_height", Kind::Natural),
    need("count", Kind::Natural),
    may("cp_height", Kind::Natural),
];
const OUTPOINT: &[Param] = &[
    need("tx_hash", Kind::Txid),
    need("txout_idx", Kind::Natural),
];
const OUTPOINT_SCRIPT: &[Param] = &[
    need("tx_hash", Kind::Txid),
    need("txout_idx", Kind::Natural),
    need("spk_hint", Kind::Script),
];
const RAW: &[Param] = &[may("raw", Kind::Flag)];
const VERSION: &[Param] = &[
    may("client_name", Kind::Ignored),
    may("protocol_version", Kind::Versions),
];

/// A header alone is in memory; a proof may have to warm its cache.
fn header_cost(args: &Args) -> Cost {
    if args.height_or_zero(1) == 0 {
        Cost::Memory
    } else {
        Cost::Index
    }
}

/// Headers of one answer that are written at once: 16 KB of digits.
const HEADERS_AT_ONCE: u32 = 100;

fn headers_cost(args: &Args) -> Cost {
    if args.height_or_zero(2) == 0 && args.height_or_zero(1) <= HEADERS_AT_ONCE {
        Cost::Memory
    } else {
        Cost::Index
    }
}

/// The verbose form is the node's.
fn transaction_cost(args: &Args) -> Cost {
    if args.flag(1) {
        Cost::Node
    } else {
        Cost::Index
    }
}

/// The node knows the height of a hash.
fn header_by_hash_cost(args: &Args) -> Cost {
    match args.get(0) {
        Arg::Block(_) => Cost::Node,
        _ => Cost::Memory,
    }
}

/// Every method of every version.
#[rustfmt::skip]
pub static METHODS: &[Method] = &[
    // Addresses: 1.0 to 1.2.
    row("blockchain.address.get_balance", (V::V1_0, V::V1_2), ADDRESS, Cost::Script, Answer(scripts::balance)).text(Text::Removed),
    row("blockchain.address.get_history", (V::V1_0, V::V1_2), ADDRESS, Cost::History, Answer(scripts::history)).text(Text::Removed),
    row("blockchain.address.get_mempool", (V::V1_0, V::V1_2), ADDRESS, Cost::Script, Answer(scripts::mempool)).text(Text::Removed),
    row("blockchain.address.listunspent", (V::V1_0, V::V1_2), ADDRESS, Cost::History, Answer(scripts::unspent)).text(Text::Removed),
    row("blockchain.address.subscribe", (V::V1_0, V::V1_2), ADDRESS, Cost::Script, Subscribe(Topic::Address)).text(Text::Removed),
    // Headers.
    row("blockchain.block.get_chunk", (V::V1_0, V::V1_3), &[need("index", Kind::Natural)], Cost::Index, Answer(headers::chunk)).text(Text::Removed),
    row("blockchain.block.get_header", (V::V1_0, V::V1_3), HEIGHT, Cost::Memory, Answer(headers::deserialized)).text(Text::Removed),
    row("blockchain.block.header", (V::V1_3, V::V1_3), HEIGHT, Cost::Memory, Answer(headers::header)).closed(),
    row("blockchain.block.header", (V::V1_4, V::V1_7), HEADER, Cost::By(header_cost), Answer(headers::header)),
    row("blockchain.block.headers", (V::V1_2, V::V1_3), HEADERS_OLD, Cost::By(headers_cost), Answer(headers::headers)).closed(),
    row("blockchain.block.headers", (V::V1_4, V::V1_7), HEADERS, Cost::By(headers_cost), Answer(headers::headers)),
    row("blockchain.headers.subscribe", (V::V1_0, V::V1_1), NONE, Cost::Memory, Call::Session(Session::subscribe_headers)).closed().text(Text::Removed),
    row("blockchain.headers.subscribe", (V::V1_2, V::V1_2), RAW, Cost::Memory, Call::Session(Session::subscribe_headers)).closed().text(Text::Removed),
    row("blockchain.headers.subscribe", (V::V1_3, V::V1_3), RAW, Cost::Memory, Call::Session(Session::subscribe_headers)).text(Text::Removed),
    row("blockchain.headers.subscribe", (V::V1_4, V::V1_7), NONE, Cost::Memory, Call::Session(Session::subscribe_headers)).closed(),
    row("blockchain.numblocks.subscribe", (V::V1_0, V::V1_0), NONE, Cost::Memory, Call::Session(Session::subscribe_height)).text(Text::Removed),
    row("blockchain.header.get", ALL, &[need("block_hash", Kind::Block)], Cost::By(header_by_hash_cost), Answer(headers::by_hash)).extension(),
    // Fees.
    row("blockchain.estimatefee", (V::V1_0, V::V1_4_3), &[need("number", Kind::Natural)], Cost::Node, Answer(node::estimate_fee)).closed(),
    row("blockchain.estimatefee", (V::V1_6, V::V1_7), &[need("number", Kind::Natural), may("mode", Kind::Text)], Cost::Node, Answer(node::estimate_fee)),
    row("blockchain.relayfee", (V::V1_0, V::V1_4_3), NONE, Cost::Node, Answer(node::relay_fee)).text(Text::Removed),
    row("mempool.get_fee_histogram", (V::V1_2, V::V1_7), NONE, Cost::Memory, Answer(node::fee_histogram)),
    row("mempool.get_info", (V::V1_6, V::V1_7), NONE, Cost::Node, Answer(node::mempool_info)),
    row("mempool.recent", (V::V1_7, V::V1_7), NONE, Cost::Memory, Answer(node::recent)).text(Text::Reference),
    // Script hashes: 1.1 to 1.6, and at 1.0, where they harm nobody.
    row("blockchain.scripthash.get_balance", (V::V1_0, V::V1_6), SCRIPT_HASH, Cost::Script, Answer(scripts::balance)),
    row("blockchain.scripthash.get_history", (V::V1_0, V::V1_6), HISTORY, Cost::History, Answer(scripts::history)),
    row("blockchain.scripthash.get_mempool", (V::V1_0, V::V1_6), SCRIPT_HASH, Cost::Script, Answer(scripts::mempool)),
    row("blockchain.scripthash.listunspent", (V::V1_0, V::V1_6), SCRIPT_HASH, Cost::History, Answer(scripts::unspent)),
    row("blockchain.scripthash.subscribe", (V::V1_0, V::V1_6), SCRIPT_HASH, Cost::Script, Subscribe(Topic::ScriptHash)),
    row("blockchain.scripthash.unsubscribe", (V::V1_4_2, V::V1_6), SCRIPT_HASH, Cost::Memory, Call::Session(Session::unsubscribe_script_hash)),
    // Scripts: 1.7.
    row("blockchain.scriptpubkey.get_balance", (V::V1_7, V::V1_7), SCRIPT, Cost::Script, Answer(scripts::balance)).text(Text::Reference),
    row("blockchain.scriptpubkey.get_history", (V::V1_7, V::V1_7), SCRIPT, Cost::History, Answer(scripts::history)).text(Text::Reference),
    row("blockchain.scriptpubkey.get_mempool", (V::V1_7, V::V1_7), SCRIPT, Cost::Script, Answer(scripts::mempool)).text(Text::Reference),
    row("blockchain.scriptpubkey.listunspent", (V::V1_7, V::V1_7), SCRIPT, Cost::History, Answer(scripts::unspent)).text(Text::Reference),
    row("blockchain.scriptpubkey.subscribe", (V::V1_7, V::V1_7), SCRIPT, Cost::Script, Subscribe(Topic::Script)).text(Text::Reference),
    row("blockchain.scriptpubkey.unsubscribe", (V::V1_7, V::V1_7), SCRIPT, Cost::Memory, Call::Session(Session::unsubscribe_script)).text(Text::Reference),
    // Outpoints: 1.7.
    row("blockchain.outpoint.get_status", (V::V1_7, V::V1_7), OUTPOINT_SCRIPT, Cost::Index, Answer(scripts::outpoint_status)).text(Text::Reference),
    row("blockchain.outpoint.subscribe", (V::V1_7, V::V1_7), OUTPOINT_SCRIPT, Cost::Index, Subscribe(Topic::Outpoint)).text(Text::Reference),
    row("blockchain.outpoint.unsubscribe", (V::V1_7, V::V1_7), OUTPOINT, Cost::Memory, Call::Session(Session::unsubscribe_outpoint)).text(Text::Reference),
    // Transactions.
    row("blockchain.transaction.broadcast", (V::V1_0, V::V1_0), RAW_TX, Cost::Node, Answer(node::broadcast_1_0)).closed(),
    row("blockchain.transaction.broadcast", (V::V1_1, V::V1_7), RAW_TX, Cost::Node, Answer(node::broadcast)),
    row("blockchain.transaction.broadcast_package", (V::V1_6, V::V1_7), &[need("raw_txs", Kind::HexList), may("verbose", Kind::Flag)], Cost::Node, Answer(node::broadcast_package)),
    row("blockchain.transaction.testmempoolaccept", (V::V1_7, V::V1_7), &[need("raw_txs", Kind::HexList)], Cost::Node, Answer(node::test_mempool_accept)).text(Text::Reference),
    row("blockchain.transaction.get", (V::V1_0, V::V1_0), &[need("tx_hash", Kind::Txid), may("height", Kind::Ignored)], Cost::Index, Answer(transactions::get_bytes)).closed(),
    row("blockchain.transaction.get", (V::V1_1, V::V1_1), TX_HASH, Cost::Index, Answer(transactions::get_bytes)).closed(),
    row("blockchain.transaction.get", (V::V1_2, V::V1_7), &[need("tx_hash", Kind::Txid), may("verbose", Kind::Flag)], Cost::By(transaction_cost), Answer(transactions::get)).closed(),
    row("blockchain.transaction.get", ALL, &[need("tx_hash", Kind::Txid), may("verbose", Kind::FlagOrHeight)], Cost::By(transaction_cost), Answer(transactions::get)).open_only(),
    row("blockchain.transaction.get_merkle", ALL, &[need("tx_hash", Kind::Txid), may("height", Kind::Natural)], Cost::Index, Answer(transactions::merkle)),
    row("blockchain.transaction.id_from_pos", (V::V1_4, V::V1_7), &[need("height", Kind::Natural), need("tx_pos", Kind::Natural), may("merkle", Kind::Flag)], Cost::Index, Answer(transactions::id_from_position)),
    row("blockchain.transaction.get_confirmed_blockhash", ALL, &[need("tx_hash", Kind::Txid), may("include_header", Kind::Flag)], Cost::Index, Answer(transactions::confirmed_block)).extension(),
    row("blockchain.transaction.get_height", ALL, TX_HASH, Cost::Index, Answer(transactions::height)).extension(),
    row("blockchain.utxo.get_address", (V::V1_0, V::V1_0), &[need("tx_hash", Kind::Txid), need("index", Kind::Natural)], Cost::Index, Answer(transactions::output_address)).text(Text::Removed),
    row("blockchain.utxo.get_info", ALL, &[need("tx_hash", Kind::Txid), need("out_n", Kind::Natural)], Cost::Index, Answer(transactions::output_info)).extension(),
    // The server.
    row("server.add_peer", ALL, &[need("features", Kind::Ignored)], Cost::Memory, Answer(server::add_peer)),
    row("server.banner", ALL, NONE, Cost::Memory, Answer(server::banner)),
    row("server.donation_address", ALL, NONE, Cost::Memory, Answer(server::donation_address)),
    row("server.features", ALL, NONE, Cost::Memory, Answer(server::features)),
    row("server.peers.subscribe", ALL, NONE, Cost::Memory, Answer(server::peers)),
    row("server.ping", (V::V1_2, V::V1_6), NONE, Cost::Memory, Answer(server::ping)),
    row("server.ping", (V::V1_7, V::V1_7), &[may("pong_len", Kind::Natural), may("data", Kind::Digits)], Cost::Memory, Answer(server::ping)).closed().text(Text::Reference),
    row("server.version", ALL, VERSION, Cost::Memory, Call::Session(Session::negotiate)).tolerant(),
];

/// A name's rows by version.
struct Rows {
    by_version: [Option<&'static Method>; Version::DEFINED.len()],
    open: Option<&'static Method>,
}

static BY_NAME: LazyLock<HashMap<&'static str, Rows>> = LazyLock::new(|| {
    let mut by_name = HashMap::new();
    for method in METHODS {
        let rows = by_name.entry(method.name).or_insert(Rows {
            by_version: Default::default(),
            open: None,
        });
        if method.is_open() {
            rows.open = Some(method);
        }
        for version in Version::DEFINED {
            if method.is_in(version) {
                rows.by_version[version.index()] = Some(method);
            }
        }
    }
    by_name
});

/// The row that answers `name` for a session that speaks so.
pub fn find(name: &str, speaks: Speaks, protocol_max: Version) -> Result<&'static Method, Refusal> {
    let Some(rows) = BY_NAME.get(name) else {
        let name: String = name.chars().take(NAME_CHARS_MAX).collect();
        return Err(Refusal::Method(format!("unknown method {name:?}")));
    };
    match speaks {
        Speaks::Anything => rows
            .open
            .filter(|method| method.from <= protocol_max)
            .ok_or_else(|| Refusal::Method(format!("unknown method {name:?}"))),
        Speaks::Agreed(version) => rows.by_version[version.index()]
            .ok_or_else(|| Refusal::Method(format!("protocol {version} has no method {name}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_version_has_a_method_twice() {
        for version in Version::DEFINED {
            let mut names: Vec<&str> = METHODS
                .iter()
                .filter(|method| method.is_in(version))
                .map(|method| method.name)
                .collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{version}");
        }
    }

    #[test]
    fn a_session_without_a_version_has_every_method_once() {
        for method in METHODS {
            let open = METHODS
                .iter()
                .filter(|other| other.name == method.name && other.is_open());
            assert_eq!(open.count(), 1, "{}", method.name);
        }
    }

    #[test]
    fn every_row_has_no_more_parameters_than_fit_and_required_ones_first() {
        for method in METHODS {
            assert!(method.params.len() <= super::super::params::PARAMS_MAX);
            let optional: Vec<bool> = method.params.iter().map(|p| p.is_optional).collect();
            assert!(optional.is_sorted(), "{}", method.name);
            assert!(method.from <= method.to, "{}", method.name);
        }
    }

    #[test]
    fn a_method_of_another_version_is_unknown() {
        let agreed = |version| Speaks::Agreed(version);
        let find = |name, speaks| find(name, speaks, Version::V1_6);
        assert!(find("blockchain.relayfee", agreed(Version::V1_4_3)).is_ok());
        assert!(matches!(
            find("blockchain.relayfee", agreed(Version::V1_6)),
            Err(Refusal::Method(_))
        ));
        assert!(find("blockchain.relayfee", Speaks::Anything).is_ok());
        assert!(find("mempool.get_info", Speaks::Anything).is_ok());
        assert!(find("mempool.recent", Speaks::Anything).is_err());
        assert!(find("no.such", Speaks::Anything).is_err());
    }
}
