//! Each cell of method × version: its shape, its value, and its error.

use serde_json::{Value, json};

use super::*;
use crate::{
    chain::{block_hash, status_of},
    electrum::{
        fake::{Fault, locking, script, txid},
        methods::{METHODS, Method},
    },
};

const ADDRESS: &str = "bcrt1qqyqszqgpqyqszqgpqyqszqgpqyqszqgpvxat9t";

fn hex(bytes: &[u8]) -> String {
    use bitcoin::hex::DisplayHex;
    bytes.to_lower_hex_string()
}

/// Parameters that the method answers.
fn sample(method: &str) -> Value {
    let (hash, spk) = (script(1).to_string(), hex(&locking(1)));
    let tx = |number: u8| txid(number).to_string();
    match method {
        _ if method.starts_with("blockchain.address.") => json!([ADDRESS]),
        _ if method.starts_with("blockchain.scripthash.") => json!([hash]),
        _ if method.starts_with("blockchain.scriptpubkey.") => json!([spk]),
        "blockchain.outpoint.unsubscribe" => json!([tx(1), 1]),
        _ if method.starts_with("blockchain.outpoint.") => json!([tx(1), 1, spk]),
        "blockchain.block.get_chunk" => json!([0]),
        "blockchain.block.get_header" | "blockchain.block.header" => json!([5]),
        "blockchain.block.headers" => json!([8, 5]),
        "blockchain.header.get" => json!([5]),
        "blockchain.estimatefee" => json!([6]),
        "blockchain.transaction.broadcast" => json!(["00"]),
        "blockchain.transaction.broadcast_package" => json!([["00"]]),
        "blockchain.transaction.testmempoolaccept" => json!([["00", "01"]]),
        "blockchain.transaction.get_merkle" => json!([tx(1), 3]),
        "blockchain.transaction.id_from_pos" => json!([3, 0]),
        _ if method.starts_with("blockchain.transaction.") => json!([tx(1)]),
        "blockchain.utxo.get_address" | "blockchain.utxo.get_info" => json!([tx(2), 1]),
        "server.add_peer" => json!([{}]),
        _ => json!([]),
    }
}

/// What the texts say about each, from the world's own figures.
fn expected(method: &str, speaks: Speaks) -> Value {
    let world = Fake::new().world();
    let version = speaks.version();
    let header = |height: usize| hex(&world.headers[height]);
    let deserialized = |height: usize| {
        let header = &world.headers[height];
        json!({
            "block_height": height,
            "version": 2,
            "prev_block_hash": "01".repeat(32),
            "merkle_root": "01".repeat(32),
            "timestamp": 1_300_000_000 + height,
            "bits": 0x0101_0101,
            "nonce": u32::from_le_bytes(header[76..80].try_into().unwrap()),
        })
    };
    let mempool = json!([
        { "height": 0, "tx_hash": txid(3).to_string(), "fee": 200 },
        { "height": -1, "tx_hash": txid(4).to_string(), "fee": 300 },
    ]);
    let mut history = json!([
        { "height": 3, "tx_hash": txid(1).to_string() },
        { "height": 5, "tx_hash": txid(2).to_string() },
    ]);
    let entries = history.as_array_mut().unwrap();
    entries.extend(mempool.as_array().unwrap().iter().cloned());
    let unspent = json!([
        { "height": 5, "tx_hash": txid(2).to_string(), "tx_pos": 1, "value": 5000 },
        { "height": 0, "tx_hash": txid(4).to_string(), "tx_pos": 1, "value": 5000 },
    ]);
    let status = json!(status_of(&world.histories[&script(1)]).unwrap().to_string());
    let wrapped = |member: &str, list: Value| match version >= Version::V1_7 {
        true => json!({ member: list }),
        false => list,
    };
    let last = method.rsplit('.').next().unwrap();
    let of_scripts = ["address", "scripthash", "scriptpubkey"]
        .iter()
        .any(|room| method.starts_with(&format!("blockchain.{room}.")));
    match method {
        _ if of_scripts => match last {
            "get_balance" => json!({ "confirmed": 7000, "unconfirmed": -2000 }),
            "get_history" => wrapped("history", history),
            "get_mempool" => wrapped("history", mempool),
            "listunspent" => wrapped("utxos", unspent),
            "subscribe" => status,
            "unsubscribe" => json!(false),
            _ => panic!("{method}"),
        },
        "blockchain.outpoint.unsubscribe" => json!(false),
        _ if method.starts_with("blockchain.outpoint.") => {
            json!({ "funder_height": 3, "spender_txhash": txid(2).to_string(), "spender_height": 5 })
        }
        "blockchain.block.get_chunk" => json!((0..10).map(header).collect::<String>()),
        "blockchain.block.get_header" => deserialized(5),
        "blockchain.block.header" => json!(header(5)),
        "blockchain.block.headers" if version >= Version::V1_6 => {
            json!({ "count": 2, "headers": [header(8), header(9)], "max": 2016 })
        }
        "blockchain.block.headers" => {
            json!({ "count": 2, "hex": header(8) + &header(9), "max": 2016 })
        }
        "blockchain.headers.subscribe" => {
            let raw = json!({ "height": 9, "hex": header(9) });
            match speaks {
                Speaks::Agreed(version) if version >= Version::V1_3 => raw,
                Speaks::Agreed(_) => deserialized(9),
                Speaks::Anything => {
                    let mut both = deserialized(9);
                    let members = raw.as_object().unwrap().clone();
                    both.as_object_mut().unwrap().extend(members);
                    both
                }
            }
        }
        "blockchain.numblocks.subscribe" => json!(9),
        "blockchain.header.get" => json!({ "height": 5, "hex": header(5) }),
        "blockchain.estimatefee" => json!(0.0001),
        "blockchain.relayfee" => json!(0.00001),
        "mempool.get_fee_histogram" => json!([[12.5, 1000], [1.0, 2000]]),
        "mempool.get_info" => json!({
            "mempoolminfee": 0.00001, "minrelaytxfee": 0.00002, "incrementalrelayfee": 0.00002,
        }),
        "mempool.recent" => json!([{ "txid": txid(3).to_string(), "fee": 200, "vsize": 110 }]),
        "blockchain.transaction.broadcast" => json!(txid(9).to_string()),
        "blockchain.transaction.broadcast_package" => json!({ "success": true }),
        "blockchain.transaction.testmempoolaccept" => json!([
            { "txid": "a", "wtxid": "b", "allowed": true },
            { "txid": "c", "wtxid": "d", "allowed": false, "reason": "why, in full" },
        ]),
        "blockchain.transaction.get" => json!("01".repeat(10)),
        "blockchain.transaction.get_merkle" => {
            json!({ "block_height": 3, "merkle": ["07".repeat(32)], "pos": 0 })
        }
        "blockchain.transaction.id_from_pos" => json!(txid(1).to_string()),
        "blockchain.transaction.get_height" => json!(3),
        "blockchain.transaction.get_confirmed_blockhash" => json!({
            "block_hash": block_hash(&world.headers[3]).to_string(), "block_height": 3,
        }),
        "blockchain.utxo.get_address" => json!(ADDRESS),
        "blockchain.utxo.get_info" => json!({
            "confirmed_height": 5, "scripthash": script(1).to_string(), "value": 5000,
        }),
        "server.add_peer" => json!(false),
        "server.banner" => json!("Welcome to your own Electrum server."),
        "server.donation_address" => json!(""),
        "server.peers.subscribe" => json!([]),
        "server.ping" if version >= Version::V1_7 => json!({ "data": "" }),
        "server.ping" => json!(null),
        "server.features" => {
            let mut features = json!({
                "genesis_hash": block_hash(&world.headers[0]).to_string(),
                "hosts": {},
                "protocol_min": "1.0",
                "protocol_max": "1.7",
                "pruning": null,
                "server_version": "Ambra/test",
                "hash_function": "sha256",
                "services": [],
                "extensions": [
                    "blockchain.header.get",
                    "blockchain.transaction.get_confirmed_blockhash",
                    "blockchain.transaction.get_height",
                    "blockchain.utxo.get_info",
                ],
            });
            if version >= Version::V1_7 {
                features.as_object_mut().unwrap().remove("hash_function");
            }
            features
        }
        _ => panic!("nothing is expected of {method}"),
    }
}

fn serves(method: &Method, speaks: Speaks) -> bool {
    match speaks {
        Speaks::Agreed(version) => method.is_in(version),
        Speaks::Anything => method.is_open(),
    }
}

/// Which versions have a method, from the texts and not from the table: the first and the last.
const PRESENCE: &str = "\
    blockchain.address.get_balance 1.0 1.2
    blockchain.address.get_history 1.0 1.2
    blockchain.address.get_mempool 1.0 1.2
    blockchain.address.listunspent 1.0 1.2
    blockchain.address.subscribe 1.0 1.2
    blockchain.block.get_chunk 1.0 1.3
    blockchain.block.get_header 1.0 1.3
    blockchain.block.header 1.3 1.7
    blockchain.block.headers 1.2 1.7
    blockchain.estimatefee 1.0 1.7
    blockchain.header.get 1.0 1.7
    blockchain.headers.subscribe 1.0 1.7
    blockchain.numblocks.subscribe 1.0 1.0
    blockchain.outpoint.get_status 1.7 1.7
    blockchain.outpoint.subscribe 1.7 1.7
    blockchain.outpoint.unsubscribe 1.7 1.7
    blockchain.relayfee 1.0 1.4.3
    blockchain.scripthash.get_balance 1.0 1.6
    blockchain.scripthash.get_history 1.0 1.6
    blockchain.scripthash.get_mempool 1.0 1.6
    blockchain.scripthash.listunspent 1.0 1.6
    blockchain.scripthash.subscribe 1.0 1.6
    blockchain.scripthash.unsubscribe 1.4.2 1.6
    blockchain.scriptpubkey.get_balance 1.7 1.7
    blockchain.scriptpubkey.get_history 1.7 1.7
    blockchain.scriptpubkey.get_mempool 1.7 1.7
    blockchain.scriptpubkey.listunspent 1.7 1.7
    blockchain.scriptpubkey.subscribe 1.7 1.7
    blockchain.scriptpubkey.unsubscribe 1.7 1.7
    blockchain.transaction.broadcast 1.0 1.7
    blockchain.transaction.broadcast_package 1.6 1.7
    blockchain.transaction.get 1.0 1.7
    blockchain.transaction.get_confirmed_blockhash 1.0 1.7
    blockchain.transaction.get_height 1.0 1.7
    blockchain.transaction.get_merkle 1.0 1.7
    blockchain.transaction.id_from_pos 1.4 1.7
    blockchain.transaction.testmempoolaccept 1.7 1.7
    blockchain.utxo.get_address 1.0 1.0
    blockchain.utxo.get_info 1.0 1.7
    mempool.get_fee_histogram 1.2 1.7
    mempool.get_info 1.6 1.7
    mempool.recent 1.7 1.7
    server.add_peer 1.0 1.7
    server.banner 1.0 1.7
    server.donation_address 1.0 1.7
    server.features 1.0 1.7
    server.peers.subscribe 1.0 1.7
    server.ping 1.2 1.7
    server.version 1.0 1.7";

fn presence(name: &str) -> (Version, Version) {
    PRESENCE
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let is_it = words.next() == Some(name);
            let mut version = || words.next().unwrap().parse().unwrap();
            is_it.then(|| (version(), version()))
        })
        .next()
        .unwrap_or_else(|| panic!("{name} is in no text"))
}

#[test]
fn the_table_has_every_method_of_the_texts() {
    let known = names();
    for line in PRESENCE.lines() {
        let name = line.split_whitespace().next().unwrap();
        assert!(known.contains(&name), "{name}");
    }
}

fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = METHODS.iter().map(|method| method.name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[test]
fn every_method_answers_in_its_versions_and_is_unknown_in_the_others() {
    for name in names().into_iter().filter(|name| *name != "server.version") {
        for speaks in all_speaks() {
            let mut client = Client::speaking(speaks);
            let (first, last) = presence(name);
            let is_there = match speaks {
                Speaks::Agreed(version) => first <= version && version <= last,
                Speaks::Anything => true,
            };
            if is_there {
                let result = client.ask(name, sample(name));
                assert_eq!(result, expected(name, speaks), "{name} {speaks:?}");
            } else {
                assert_eq!(client.code(name, sample(name)), -32601, "{name} {speaks:?}");
            }
        }
    }
}

#[test]
fn every_method_takes_its_parameters_by_name_too() {
    for method in METHODS
        .iter()
        .filter(|method| method.name != "server.version")
    {
        let speaks = match Version::DEFINED
            .into_iter()
            .find(|version| method.is_in(*version))
        {
            Some(version) => Speaks::Agreed(version),
            None => Speaks::Anything,
        };
        let values = sample(method.name);
        let named: serde_json::Map<String, Value> = method
            .params
            .iter()
            .zip(values.as_array().unwrap())
            .map(|(param, value)| (param.name.to_owned(), value.clone()))
            .collect();
        let mut client = Client::speaking(speaks);
        let result = client.ask(method.name, Value::Object(named));
        assert_eq!(result, expected(method.name, speaks), "{}", method.name);
        let code = client.code(method.name, json!({ "no_such_parameter": 1 }));
        assert_eq!(code, -32602, "{}", method.name);
        let too_many = json!([1, 2, 3, 4]);
        assert_eq!(
            client.code(method.name, too_many),
            -32602,
            "{}",
            method.name
        );
        if method.params.iter().any(|param| !param.is_optional) {
            assert_eq!(
                client.code(method.name, json!([])),
                -32602,
                "{}",
                method.name
            );
        }
    }
}

#[test]
fn sync_load_and_a_node_that_is_away_never_make_electrum_disconnect() {
    for (fault, away) in [
        (Fault::Syncing, false),
        (Fault::Unavailable, false),
        (Fault::None, true),
        (Fault::Syncing, true),
    ] {
        for speaks in all_speaks() {
            for method in METHODS.iter().filter(|method| serves(method, speaks)) {
                if method.name == "server.version" {
                    continue;
                }
                let mut client = Client::speaking(speaks);
                client.fake.change(|world| {
                    world.fault = fault;
                    world.node_is_away = away;
                });
                let reply = client.reply(method.name, sample(method.name));
                if let Some(error) = reply.get("error") {
                    let code = error["code"].as_i64().unwrap();
                    assert!(
                        [1, 2].contains(&code),
                        "{} {speaks:?}: {reply}",
                        method.name
                    );
                }
            }
        }
    }
}

#[test]
fn while_syncing_a_script_question_says_how_far_and_so_does_the_banner() {
    let mut client = Client::new();
    client.fake.change(|world| world.fault = Fault::Syncing);
    let reply = client.reply(
        "blockchain.scripthash.get_balance",
        sample("blockchain.scripthash."),
    );
    assert_eq!(reply["error"]["code"], 1);
    assert_eq!(reply["error"]["message"], "indexing: 61 % done");
    let banner = client.ask("server.banner", json!([]));
    assert!(banner.as_str().unwrap().ends_with("indexing: 61 % done"));
}

#[test]
fn a_checkpoint_proof_is_given_from_1_4_on() {
    for version in [Version::V1_4, Version::V1_4_3, Version::V1_6, Version::V1_7] {
        let mut client = Client::at(version);
        let one = client.ask("blockchain.block.header", json!([5, 8]));
        let world = client.fake.world();
        assert_eq!(one["header"], hex(&world.headers[5]));
        assert_eq!(one["branch"].as_array().unwrap().len(), 4);
        let many = client.ask("blockchain.block.headers", json!([4, 2, 8]));
        assert_eq!(many["root"], one["root"]);
        assert_eq!(many["branch"], one["branch"], "of the last header");
        let none = client.ask("blockchain.block.headers", json!([100, 2, 8]));
        assert_eq!(none["count"], 0);
        assert!(none.get("root").is_none());
        for wrong in [json!([8, 5]), json!([5, 10])] {
            assert_eq!(client.code("blockchain.block.header", wrong), 1);
        }
        assert_eq!(client.code("blockchain.block.headers", json!([4, 6, 8])), 1);
    }
    let mut old = Client::at(Version::V1_3);
    assert_eq!(old.code("blockchain.block.header", json!([5, 8])), -32602);
    assert_eq!(
        old.code("blockchain.block.headers", json!([4, 2, 8])),
        -32602
    );
}

#[test]
fn what_is_beyond_the_chain_is_a_bad_request_or_empty() {
    let mut client = Client::new();
    for huge in [json!(10), json!(4_294_967_296_u64), json!(u64::MAX)] {
        assert_eq!(client.code("blockchain.block.header", json!([huge])), 1);
        assert_eq!(client.code("blockchain.block.get_header", json!([huge])), 1);
        let none = client.ask("blockchain.block.headers", json!([huge, 5]));
        assert_eq!(none["count"], 0);
        let chunk = client.ask("blockchain.block.get_chunk", json!([huge]));
        assert_eq!(chunk, "");
        assert_eq!(
            client.code(
                "blockchain.transaction.get_merkle",
                json!([txid(1).to_string(), huge])
            ),
            1
        );
        assert_eq!(
            client.code("blockchain.transaction.id_from_pos", json!([huge, huge])),
            1
        );
        assert_eq!(
            client.ask(
                "blockchain.utxo.get_info",
                json!([txid(1).to_string(), huge])
            ),
            json!(null)
        );
    }
    let all = client.ask("blockchain.block.headers", json!([0, u64::MAX]));
    assert_eq!(all["count"], 10);
}

#[test]
fn a_transaction_is_had_in_each_form() {
    let id = txid(1).to_string();
    let mut client = Client::at(Version::V1_4);
    let block = block_hash(&client.fake.world().headers[3]).to_string();
    let verbose = client.ask("blockchain.transaction.get", json!([id, true]));
    assert_eq!(verbose, json!({ "txid": id, "blockhash": block }));
    assert_eq!(
        client.ask("blockchain.transaction.get", json!([id, false])),
        "01".repeat(10)
    );
    // In both forms the same words, whatever the node's are: Sparrow looks how they begin.
    let nobodys = txid(77).to_string();
    for params in [json!([nobodys]), json!([nobodys, true])] {
        let reply = client.reply("blockchain.transaction.get", params);
        let told = json!({ "code": 2, "message": "No such mempool or blockchain transaction." });
        assert_eq!(reply["error"], told);
    }
    // 1.0 ignores a height, 1.1 refuses it, and who agreed on nothing may mean either.
    let old = "01".repeat(10);
    assert_eq!(
        Client::at(Version::V1_0).ask("blockchain.transaction.get", json!([id, 3])),
        old
    );
    assert_eq!(
        Client::at(Version::V1_1).code("blockchain.transaction.get", json!([id, 3])),
        -32602
    );
    assert_eq!(
        Client::at(Version::V1_4).code("blockchain.transaction.get", json!([id, 3])),
        -32602
    );
    assert_eq!(
        Client::new().ask("blockchain.transaction.get", json!([id, 3])),
        old
    );
    assert_eq!(
        Client::new().ask("blockchain.transaction.get", json!([id, true]))["txid"],
        id
    );
    let with_proof = client.ask("blockchain.transaction.id_from_pos", json!([3, 0, true]));
    assert_eq!(
        with_proof,
        json!({ "tx_hash": id, "merkle": ["07".repeat(32)] })
    );
    let found = client.ask("blockchain.transaction.get_merkle", json!([id]));
    assert_eq!(found["block_height"], 3);
}

#[test]
fn a_refused_transaction_is_an_error_everywhere_but_in_1_0() {
    for speaks in all_speaks() {
        let mut client = Client::speaking(speaks);
        client.fake.change(|world| world.node_refuses = true);
        let reply = client.reply("blockchain.transaction.broadcast", json!(["00ab"]));
        if speaks == Speaks::Agreed(Version::V1_0) {
            assert_eq!(reply["result"], "min relay fee not met");
        } else {
            assert_eq!(reply["error"]["code"], 1);
            assert_eq!(
                reply["error"]["message"],
                "the transaction was rejected by network rules.\n\nmin relay fee not met\n[00ab]"
            );
        }
    }
    let mut client = Client::at(Version::V1_6);
    let errors = client.ask(
        "blockchain.transaction.broadcast_package",
        json!([["00", "01"]]),
    );
    assert_eq!(
        errors,
        json!({ "success": false, "errors": [{ "txid": "t", "error": "too cheap" }] })
    );
    let verbose = client.ask(
        "blockchain.transaction.broadcast_package",
        json!([["00"], true]),
    );
    assert_eq!(verbose["package_msg"], "success");
    client.fake.change(|world| world.node_refuses = true);
    let reply = client.reply("blockchain.transaction.broadcast_package", json!([["00"]]));
    assert_eq!(reply["error"]["code"], 1);
    assert_eq!(
        reply["error"]["message"],
        "the tx package was rejected by network rules.\n\nmin relay fee not met."
    );
}

#[test]
fn fees_are_the_nodes() {
    let mut client = Client::at(Version::V1_6);
    assert_eq!(client.ask("blockchain.estimatefee", json!([1])), json!(-1));
    assert_eq!(client.ask("blockchain.estimatefee", json!([0])), json!(-1));
    assert_eq!(
        client.ask("blockchain.estimatefee", json!([100_000])),
        json!(0.0001)
    );
    assert_eq!(
        client.ask("blockchain.estimatefee", json!([6, "economical"])),
        json!(0.0001)
    );
    assert_eq!(
        client.ask("blockchain.estimatefee", json!([6, null])),
        json!(0.0001)
    );
    assert_eq!(
        client.code("blockchain.estimatefee", json!([6, "cheap"])),
        -32602
    );
    assert_eq!(
        Client::at(Version::V1_4).code("blockchain.estimatefee", json!([6, "economical"])),
        -32602
    );
}

#[test]
fn a_history_can_be_had_by_a_range_of_heights() {
    let mut client = Client::at(Version::V1_4);
    let hash = script(1).to_string();
    let mut heights = |range: Value| -> Vec<i64> {
        let mut params = vec![json!(hash)];
        params.extend(range.as_array().unwrap().iter().cloned());
        let history = client.ask("blockchain.scripthash.get_history", Value::Array(params));
        let entries = history.as_array().unwrap().iter();
        entries
            .map(|entry| entry["height"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(heights(json!([])), [3, 5, 0, -1]);
    assert_eq!(heights(json!([4])), [5, 0, -1]);
    assert_eq!(heights(json!([3, 5])), [3]);
    assert_eq!(heights(json!([0, 6])), [3, 5]);
    assert_eq!(heights(json!([6, 6])), [0_i64; 0]);
    assert_eq!(heights(json!([6, -1])), [0, -1]);
    assert_eq!(
        client.code("blockchain.scripthash.get_history", json!([hash, 6, 5])),
        -32602
    );
}

#[test]
fn extensions_answer_as_fulcrum_documents_them() {
    let mut client = Client::new();
    let id = |number: u8| txid(number).to_string();
    let mut height = |number| client.ask("blockchain.transaction.get_height", json!([id(number)]));
    assert_eq!(
        (height(1), height(3), height(77)),
        (json!(3), json!(0), json!(null))
    );
    let method = "blockchain.transaction.get_confirmed_blockhash";
    assert_eq!(client.code(method, json!([id(3)])), 1);
    let world = client.fake.world();
    let with_header = client.ask(method, json!([id(1), true]));
    assert_eq!(with_header["block_header"], hex(&world.headers[3]));
    let mut info = |number, vout| client.ask("blockchain.utxo.get_info", json!([id(number), vout]));
    assert_eq!(info(1, 1), json!(null), "it is spent");
    assert_eq!(info(2, 7), json!(null));
    assert_eq!(info(4, 1).get("confirmed_height"), None);
    let hash = block_hash(&world.headers[4]).to_string();
    assert_eq!(
        client.ask("blockchain.header.get", json!([hash]))["height"],
        4
    );
    assert_eq!(
        client.code("blockchain.header.get", json!(["ab".repeat(32)])),
        1
    );
    assert_eq!(client.code("blockchain.header.get", json!([100])), 1);
}

#[test]
fn addresses_of_another_network_are_refused_in_words() {
    let mut client = Client::at(Version::V1_2);
    let reply = client.reply(
        "blockchain.address.get_balance",
        json!(["1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"]),
    );
    assert_eq!(reply["error"]["code"], -32602);
    assert!(
        reply["error"]["message"]
            .as_str()
            .unwrap()
            .contains("another network")
    );
    assert_eq!(
        client.ask("blockchain.utxo.get_info", json!([txid(77).to_string(), 0])),
        json!(null)
    );
}

#[test]
fn the_shape_of_a_header_subscription_can_be_asked_for_where_the_text_says_so() {
    let method = "blockchain.headers.subscribe";
    let is_raw = |tip: &Value| tip.get("hex").is_some();
    for (version, default) in [(Version::V1_2, false), (Version::V1_3, true)] {
        assert_eq!(is_raw(&Client::at(version).ask(method, json!([]))), default);
        assert!(is_raw(&Client::at(version).ask(method, json!([true]))));
        assert!(!is_raw(
            &Client::at(version).ask(method, json!({ "raw": false }))
        ));
    }
    for version in [Version::V1_0, Version::V1_1, Version::V1_4, Version::V1_6] {
        assert_eq!(Client::at(version).code(method, json!([true])), -32602);
    }
}

#[test]
fn a_ping_of_1_7_is_padded() {
    let mut client = Client::at(Version::V1_7);
    assert_eq!(
        client.ask("server.ping", json!([5, "abc"])),
        json!({ "data": "00000" })
    );
    assert_eq!(client.code("server.ping", json!([1_000_001])), -32602);
    assert_eq!(client.code("server.ping", json!([0, "xyz"])), -32602);
    assert_eq!(
        client.say(r#"{"method":"server.ping","params":["00"]}"#),
        Vec::<Value>::new()
    );
}

#[test]
fn a_history_over_the_limit_is_refused_with_the_versions_code_and_never_empty() {
    let limited = Settings {
        remote_history_max: Some(3),
        ..settings()
    };
    for (version, code) in [
        (Version::V1_4, 1),
        (Version::V1_6, 1),
        (Version::V1_7, 10001),
    ] {
        let mut client = Client::with(limited.clone(), Peer::Remote);
        client.ask("server.version", json!(["", version.to_string()]));
        let room = if version == Version::V1_7 {
            "scriptpubkey"
        } else {
            "scripthash"
        };
        for method in [
            "get_history",
            "get_balance",
            "listunspent",
            "get_mempool",
            "subscribe",
        ] {
            let method = format!("blockchain.{room}.{method}");
            assert_eq!(client.code(&method, sample(&method)), code, "{method}");
            client
                .fake
                .change(|world| _ = world.on_disk.insert(script(1)));
            assert_eq!(
                client.code(&method, sample(&method)),
                code,
                "{method} from disk"
            );
        }
        assert!(
            !client.fake.listens(&script(1)),
            "nobody listens after a refused subscription"
        );
    }
    let mut local = Client::with(limited, Peer::Local);
    assert!(
        local
            .ask(
                "blockchain.scripthash.get_history",
                sample("blockchain.scripthash.")
            )
            .is_array()
    );
}
