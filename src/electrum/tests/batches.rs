//! Batches, notifications, and who answers what.

use serde_json::{Value, json};

use super::*;
use crate::electrum::fake::{script, txid};

#[test]
fn a_mixed_batch_is_answered_in_its_order() {
    let mut client = Client::new();
    let said = client.say(
        &json!([
            { "id": 1, "method": "server.ping" },
            { "id": "two", "method": "blockchain.transaction.get", "params": [txid(1).to_string()] },
            { "method": "server.ping" },
            { "id": [3], "method": "no.such" },
            5,
            [],
            { "id": 7, "method": "blockchain.estimatefee", "params": [6] },
            { "id": 8, "method": 8 },
            { "id": null, "method": "server.ping" },
        ])
        .to_string(),
    );
    assert_eq!(said.len(), 1);
    let replies = said[0].as_array().unwrap();
    let ids: Vec<&Value> = replies.iter().map(|reply| &reply["id"]).collect();
    let null = json!(null);
    assert_eq!(
        ids,
        [
            &json!(1),
            &json!("two"),
            &json!([3]),
            &null,
            &null,
            &json!(7),
            &json!(8),
            &null
        ]
    );
    let codes: Vec<Option<i64>> = replies
        .iter()
        .map(|reply| reply["error"]["code"].as_i64())
        .collect();
    assert_eq!(
        codes,
        [
            None,
            None,
            Some(-32601),
            Some(-32600),
            Some(-32600),
            None,
            Some(-32600),
            None
        ]
    );
}

#[test]
fn a_batch_of_notifications_is_answered_by_nothing() {
    let mut client = Client::new();
    let said = client
        .say(r#"[{"method":"server.ping"},{"method":"blockchain.estimatefee","params":[6]}]"#);
    assert_eq!(said, Vec::<Value>::new());
    let said = client.say(r#"{"method":"no.such"}"#);
    assert_eq!(said, Vec::<Value>::new());
}

#[test]
fn a_batch_is_refused_what_goes_beyond_the_bytes_of_its_replies() {
    // Answered at once, and by other threads.
    for (method, params) in [
        ("blockchain.block.headers", json!([0, 10])),
        ("blockchain.transaction.get", json!([txid(1).to_string()])),
    ] {
        let settings = Settings {
            batch_reply_bytes_max: 10_000,
            ..settings()
        };
        let mut client = Client::with(settings, Peer::Local);
        client.fake.change(|world| {
            world.txs.get_mut(&txid(1)).unwrap().bytes = vec![7; 800];
        });
        let requests: Vec<Value> = (0..50)
            .map(|id| json!({ "id": id, "method": method, "params": params }))
            .collect();
        let said = client.say(&Value::Array(requests).to_string());
        let replies = said[0].as_array().unwrap();
        assert_eq!(replies.len(), 50);
        let is_answered = |reply: &&Value| reply.get("error").is_none();
        let answered = replies.iter().take_while(is_answered).count();
        assert!((5..10).contains(&answered), "{answered}");
        assert!(
            replies[answered..]
                .iter()
                .all(|reply| reply["error"]["code"] == 1)
        );
        assert_eq!(client.session.held_bytes(), 0);
        // The next batch has all its bytes again.
        let ping =
            client.say(&json!([{ "id": 1, "method": method, "params": params }]).to_string());
        assert!(ping[0][0].get("error").is_none(), "{ping:?}");
    }
}

#[test]
fn empty_and_giant_batches_are_refused_as_a_whole() {
    let settings = Settings {
        batch_requests_max: 3,
        ..settings()
    };
    let mut client = Client::with(settings, Peer::Local);
    assert_eq!(client.say("[]")[0]["error"]["code"], -32600);
    assert_eq!(client.say("[1,2,3]")[0].as_array().unwrap().len(), 3);
    assert_eq!(client.say("[1,2,3,4]")[0]["error"]["code"], 1);
}

#[test]
fn a_large_batch_leaves_the_thread_after_a_while() {
    let mut client = Client::new();
    let hash = script(1).to_string();
    let batch: Vec<Value> = (0..1000)
        .map(|id| json!({ "id": id, "method": "blockchain.scripthash.get_balance", "params": [hash] }))
        .collect();
    assert!(client.send(&json!(batch).to_string()).is_empty());
    assert_eq!(client.jobs.len(), 1000 - 256);
    let said = client.run();
    let replies = said[0].as_array().unwrap();
    assert!(replies.iter().zip(0..).all(|(reply, id)| reply["id"] == id));
    assert_eq!(replies.len(), 1000);
}

#[test]
fn a_batch_of_large_replies_leaves_the_thread_early() {
    use crate::chain::{Confirmed, History};
    let mut client = Client::new();
    let entry = Confirmed {
        txid: txid(1),
        height: 3,
    };
    let history = History {
        confirmed: std::sync::Arc::new(vec![entry; 900]),
        ..History::default()
    };
    client
        .fake
        .change(|world| _ = world.histories.insert(script(2), history));
    // Over 70 kB each: a megabyte is full after fourteen at most.
    let params = json!([script(2).to_string()]);
    let request =
        json!({ "id": 1, "method": "blockchain.scripthash.get_history", "params": params });
    let batch = json!(vec![request; 20]).to_string();
    assert!(client.send(&batch).is_empty());
    assert!(
        (6..20).contains(&client.jobs.len()),
        "{}",
        client.jobs.len()
    );
    assert_eq!(client.run()[0].as_array().unwrap().len(), 20);
}

#[test]
fn what_is_in_memory_is_answered_at_once_and_the_rest_by_others() {
    let mut client = Client::new();
    let hash = script(1).to_string();
    let request = |method: &str, params: Value| {
        json!({ "id": 1, "method": method, "params": params }).to_string()
    };
    let history = request("blockchain.scripthash.get_history", json!([hash]));
    assert_eq!(client.send(&history).len(), 1);
    client
        .fake
        .change(|world| _ = world.on_disk.insert(script(1)));
    for (line, lane) in [
        (history, Lane::Short),
        (
            request("blockchain.scripthash.subscribe", json!([hash])),
            Lane::Short,
        ),
        (
            request("blockchain.transaction.get", json!([txid(1).to_string()])),
            Lane::Short,
        ),
        (
            request(
                "blockchain.transaction.get",
                json!([txid(1).to_string(), true]),
            ),
            Lane::Node,
        ),
        (
            request("blockchain.transaction.broadcast", json!(["00"])),
            Lane::Node,
        ),
        (
            request("blockchain.block.header", json!([1, 5])),
            Lane::Short,
        ),
    ] {
        assert!(client.send(&line).is_empty(), "{line}");
        assert_eq!(client.jobs.remove(0).lane(), lane, "{line}");
    }
}

#[test]
fn a_long_history_goes_the_long_way_from_disk_and_from_memory() {
    use crate::chain::Confirmed;
    for on_disk in [false, true] {
        let mut client = Client::new();
        client.fake.change(|world| {
            let history = world.histories.get_mut(&script(1)).unwrap();
            let entry = Confirmed {
                txid: txid(1),
                height: 3,
            };
            history.confirmed = std::sync::Arc::new(vec![entry; 5000]);
            if on_disk {
                world.on_disk.insert(script(1));
            }
        });
        let line = json!({ "id": 1, "method": "blockchain.scripthash.get_history", "params": [script(1).to_string()] });
        assert!(client.send(&line.to_string()).is_empty());
        let job = client.jobs.remove(0);
        let job = match (on_disk, job.lane()) {
            (false, Lane::Long) => job,
            (true, Lane::Short) => match job.run() {
                Ran::Longer(job) => job,
                Ran::Done(_) => panic!("it is not short"),
            },
            other => panic!("{other:?}"),
        };
        assert_eq!(job.lane(), Lane::Long);
        let said = client.run_one(job);
        assert_eq!(said[0]["result"].as_array().unwrap().len(), 5002);
    }
}

#[test]
fn the_jobs_of_a_session_that_ended_are_not_run() {
    let mut client = Client::new();
    client
        .fake
        .change(|world| _ = world.on_disk.insert(script(1)));
    client.fake.shut_gate();
    let line = json!({ "id": 1, "method": "blockchain.scripthash.get_history", "params": [script(1).to_string()] });
    client.send(&line.to_string());
    let job = client.jobs.remove(0);
    drop(client);
    assert!(
        matches!(job.run(), Ran::Done(_)),
        "the gate is shut for all others"
    );
}

#[test]
fn a_fault_of_ours_is_told_in_words_and_ends_nothing() {
    let mut client = Client::new();
    client.fake.change(|world| world.headers.clear());
    let line = json!({ "id": 1, "method": "blockchain.block.header", "params": [0, 1] });
    client.send(&line.to_string());
    let said = client.run();
    assert!([1, 2].contains(&said[0]["error"]["code"].as_i64().unwrap()));
}
