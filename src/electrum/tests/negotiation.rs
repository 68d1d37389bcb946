//! Agreeing on a version.

use serde_json::{Value, json};

use super::*;

fn version(params: Value) -> (Value, bool) {
    let mut client = Client::with(
        Settings {
            protocol_max: Version::V1_6,
            ..settings()
        },
        Peer::Local,
    );
    let reply = client.reply("server.version", params);
    (reply, client.session.is_closing())
}

fn agreed(params: Value) -> Value {
    let (mut reply, is_closing) = version(params);
    assert!(!is_closing && reply.get("error").is_none(), "{reply}");
    reply["result"].take()
}

#[test]
fn the_reply_is_a_string_in_1_0_and_a_pair_from_1_1_on() {
    assert_eq!(agreed(json!(["2.7.11", "1.0"])), "Ambra/test");
    assert_eq!(agreed(json!(["2.7.11", "0.10"])), "Ambra/test");
    for (asked, given) in [
        (json!("1.1"), "1.1"),
        (json!(["0.10", "1.1"]), "1.1"),
        (json!("1.2"), "1.2"),
        (json!(["1.1", "1.3"]), "1.3"),
        (json!("1.4"), "1.4"),
        (json!(["1.4", "1.4.2"]), "1.4.2"),
        (json!(["1.3", "1.4.3"]), "1.4.3"),
        (json!(["1.4", "1.6"]), "1.6"),
        (json!(["1.4", "1.7"]), "1.6"),
        (json!(["1.0", "99.99"]), "1.6"),
    ] {
        assert_eq!(agreed(json!(["x", asked])), json!(["Ambra/test", given]));
    }
}

#[test]
fn what_is_not_said_is_1_4_and_what_is_too_much_is_ignored() {
    let pair = json!(["Ambra/test", "1.4"]);
    assert_eq!(agreed(json!([])), pair);
    assert_eq!(agreed(json!(["x"])), pair);
    assert_eq!(agreed(json!(["x", null])), pair);
    assert_eq!(agreed(json!([null, "1.4"])), pair);
    assert_eq!(
        agreed(json!({ "client_name": "x", "protocol_version": "1.4" })),
        pair
    );
    assert_eq!(agreed(json!(["x", "1.4", "trailing", 9999.9, {}])), pair);
    assert_eq!(
        agreed(json!({ "protocol_version": ["1.3", "1.4"], "dd": {} })),
        pair
    );
    assert_eq!(agreed(json!([{ "odd": "name" }, "1.4"])), pair);
}

#[test]
fn without_a_common_version_there_is_an_error_and_an_end() {
    for wrong in [
        json!("1.7"),
        json!(["1.7", "1.8"]),
        json!(["1.6", "1.4"]),
        json!("99.0"),
    ] {
        let (reply, is_closing) = version(json!(["x", wrong]));
        assert_eq!(reply["error"]["code"], 1);
        assert!(is_closing);
    }
    for wrong in [
        json!("x"),
        json!(""),
        json!(1.4),
        json!([]),
        json!(["1.4"]),
        json!({}),
    ] {
        let (reply, _) = version(json!(["x", wrong]));
        assert_eq!(reply["error"]["code"], -32602, "{wrong}");
    }
}

#[test]
fn nothing_is_answered_after_the_end() {
    let mut client = Client::new();
    let said = client.say(
        r#"[{"id":1,"method":"server.version","params":["x","99.0"]},{"id":2,"method":"server.ping"}]"#,
    );
    assert_eq!(said[0].as_array().unwrap().len(), 1);
    assert!(client.session.is_closing());
}

#[test]
fn only_the_first_is_accepted_from_1_4_on_and_before_it_is_a_ping() {
    for asked in ["1.4", "1.4.2", "1.6", "1.7"] {
        let mut client = Client::new();
        client.ask("server.version", json!(["x", asked]));
        assert_eq!(client.code("server.version", json!(["x", asked])), 1);
        assert!(!client.session.is_closing());
    }
    let mut client = Client::new();
    assert_eq!(
        client.ask("server.version", json!(["x", "1.0"])),
        "Ambra/test"
    );
    assert_eq!(
        client.ask("server.version", json!(["x", "1.0"])),
        "Ambra/test"
    );
    assert_eq!(client.ask("server.version", json!(["x", "1.2"]))[1], "1.2");
    assert_eq!(
        client.ask("server.version", json!(["x", ["1.1", "1.4"]]))[1],
        "1.4"
    );
}

#[test]
fn from_1_6_on_it_must_be_the_first_message() {
    let mut client = Client::new();
    client.ask("server.ping", json!([]));
    let pair = client.ask("server.version", json!(["x", ["1.4", "1.6"]]));
    assert_eq!(pair[1], "1.4.3", "an older one will do");
    let mut client = Client::new();
    client.ask("server.ping", json!([]));
    let reply = client.reply("server.version", json!(["x", "1.6"]));
    assert_eq!(reply["error"]["code"], 1);
    assert_eq!(
        reply["error"]["message"],
        "server.version must be the first message"
    );
    assert!(client.session.is_closing());
    let mut client = Client::new();
    let said = client.say(
        r#"[{"id":1,"method":"server.version","params":{"client_name":"x","protocol_version":["1.4","1.6"]}},
            {"id":2,"method":"mempool.get_info"}]"#
            .replace('\n', "")
            .as_str(),
    );
    assert_eq!(said[0][0]["result"][1], "1.6", "first in a batch is first");
    assert!(said[0][1].get("result").is_some());
}

#[test]
fn the_newest_version_is_behind_a_setting() {
    let mut client = Client::with(
        Settings {
            protocol_max: Version::V1_6,
            ..settings()
        },
        Peer::Local,
    );
    assert_eq!(client.code("mempool.recent", json!([])), -32601);
    assert_eq!(
        client.ask("server.features", json!([]))["protocol_max"],
        "1.6"
    );
}

#[test]
fn features_name_the_services() {
    use crate::electrum::{Service, ServiceKind};
    let service = |kind, port| Service {
        kind,
        host: "node.local".to_owned(),
        port,
    };
    let settings = Settings {
        services: vec![
            service(ServiceKind::Tcp, 50001),
            service(ServiceKind::Tls, 50002),
        ],
        ..settings()
    };
    let features = Client::with(settings, Peer::Local).ask("server.features", json!([]));
    assert_eq!(
        features["hosts"],
        json!({ "node.local": { "tcp_port": 50001, "ssl_port": 50002 } })
    );
    assert_eq!(
        features["services"],
        json!(["tcp://node.local:50001", "ssl://node.local:50002"])
    );
}

#[test]
fn a_version_that_does_not_exist_yet_is_not_offered() {
    let settings = Settings {
        protocol_max: "2.0".parse().unwrap(),
        ..settings()
    };
    let mut client = Client::with(settings, Peer::Local);
    assert_eq!(
        client.ask("server.version", json!(["x", ["1.4", "9.0"]]))[1],
        "1.7"
    );
    assert_eq!(
        client.ask("server.features", json!([]))["protocol_max"],
        "1.7"
    );
}
