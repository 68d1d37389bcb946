//! Any bytes at all.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::electrum::methods::METHODS;

/// A reply is an object with an id and either a result or an error of a known code; a batch's is a list.
fn check(said: &[Value]) -> Result<(), TestCaseError> {
    for line in said {
        let replies = line.as_array().cloned().unwrap_or(vec![line.clone()]);
        for reply in replies {
            if reply.get("method").is_some() {
                continue;
            }
            prop_assert!(reply.get("id").is_some(), "{reply}");
            match reply.get("error") {
                None | Some(Value::Null) => prop_assert!(reply.get("result").is_some(), "{reply}"),
                Some(error) => {
                    let code = error["code"].as_i64().unwrap();
                    let known = [-32700, -32600, -32601, -32602, 1, 2, 10001];
                    prop_assert!(known.contains(&code), "{reply}");
                }
            }
        }
    }
    Ok(())
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..30i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        "[0-9a-f]{64}".prop_map(Value::from),
        Just(json!("1.4")),
        Just(json!("00")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z_]{1,10}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_request() -> impl Strategy<Value = Value> {
    let methods: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
    (
        prop::sample::select(methods),
        any_json(),
        any_json(),
        0..8u8,
    )
        .prop_map(|(method, params, id, parts)| {
            let mut request = json!({ "method": method });
            if parts & 1 == 0 {
                request["params"] = params;
            }
            if parts & 2 == 0 {
                request["id"] = id;
            }
            if parts & 4 == 0 {
                request["jsonrpc"] = json!("2.0");
            }
            request
        })
}

proptest! {
    #[test]
    fn any_bytes_are_answered_by_the_right_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut client = Client::new();
        let mut out = Outbox::default();
        client.session.handle(&bytes, &mut out, &mut client.jobs);
        let said = lines(out);
        prop_assert_eq!(said.len(), 1);
        check(&said)?;
    }

    #[test]
    fn any_request_is_answered_and_the_session_lives(requests in prop::collection::vec(any_request(), 1..6), batch: bool) {
        let mut client = Client::new();
        if batch {
            check(&client.say(&json!(requests).to_string()))?;
        } else {
            for request in requests {
                let said = client.say(&request.to_string());
                check(&said)?;
                if request.get("id").is_none() {
                    prop_assert!(said.iter().all(|line| line.get("id").is_none() || line["error"]["code"] == -32600));
                }
            }
        }
        if !client.session.is_closing() {
            let reply = client.say(r#"{"id":"alive","method":"server.banner"}"#);
            prop_assert!(reply.iter().any(|line| line["id"] == "alive"));
        }
    }

    #[test]
    fn a_request_cut_anywhere_is_a_parse_error(cut in 1usize..80) {
        let line = br#"{"jsonrpc":"2.0","id":1,"method":"blockchain.block.header","params":[1,{"a":"b"}]}"#;
        let mut client = Client::new();
        let mut out = Outbox::default();
        client.session.handle(&line[..cut.min(line.len() - 1)], &mut out, &mut client.jobs);
        prop_assert_eq!(&lines(out)[0]["error"]["code"], -32700);
    }
}

#[test]
fn whitespace_and_padding_are_normal() {
    let mut client = Client::new();
    for line in [
        "  {\"id\":1,\"method\":\"server.ping\"}\r",
        "\t{ \"id\" : 1 , \"method\" : \"server.ping\" , \"params\" : [ ] }      ",
        "{\"id\":1,\"method\":\"server.ping\",\"params\":{}}",
        "{\"id\":1,\"method\":\"server.ping\",\"params\":null}",
        " [ {\"id\":1,\"method\":\"server.\\u0070ing\"} ] ",
    ] {
        let said = client.say(line);
        let reply = said[0].get(0).unwrap_or(&said[0]);
        assert_eq!(
            *reply,
            json!({ "jsonrpc": "2.0", "id": 1, "result": null }),
            "{line}"
        );
    }
}

#[test]
fn an_id_comes_back_byte_for_byte() {
    let mut client = Client::new();
    let mut out = Outbox::default();
    let id = r#"{"a": [1.50e3, "\u00e9"],  "b": 1e999}"#;
    let line = format!("{{\"id\":{id},\"method\":\"server.ping\"}}");
    client
        .session
        .handle(line.as_bytes(), &mut out, &mut client.jobs);
    let said = String::from_utf8(out.next().to_vec()).unwrap();
    assert_eq!(
        said,
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":null}}\n")
    );
}

#[test]
fn a_long_unknown_name_is_not_repeated_in_full() {
    let mut client = Client::new();
    let reply = client.reply(&"x".repeat(100_000), json!([]));
    assert!(reply.to_string().len() < 300);
    let reply = client.reply("server.ping", json!({ "y".repeat(100_000): 1 }));
    assert!(reply.to_string().len() < 300);
}
