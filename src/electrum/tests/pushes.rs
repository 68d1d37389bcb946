//! Notifications: what is told, what is not, and in what order.

use bitcoin::OutPoint;
use serde_json::{Value, json};

use super::*;
use crate::{
    chain::{ScriptHash, block_hash},
    electrum::fake::{Fault, header, locking, script, txid},
};

const SUBSCRIBE: &str = "blockchain.scripthash.subscribe";
const ADDRESS: &str = "bcrt1qqyqszqgpqyqszqgpqyqszqgpqyqszqgpvxat9t";

fn told(client: &Client, script: &ScriptHash) -> Value {
    json!(client.fake.status(script).map(|status| status.to_string()))
}

fn notification(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "method": method, "params": params })
}

fn subscribed(scripts: &[u8]) -> Client {
    let mut client = Client::at(Version::V1_4_2);
    for number in scripts {
        client.ask(SUBSCRIBE, json!([script(*number).to_string()]));
    }
    client
}

#[test]
fn a_change_is_told_once_and_an_unchanged_status_never() {
    let mut client = subscribed(&[1, 2]);
    client.fake.pay(script(2), 9);
    client
        .fake
        .tell(true, &[script(1), script(2), script(3)], &[]);
    let expected = notification(
        SUBSCRIBE,
        json!([script(2).to_string(), told(&client, &script(2))]),
    );
    assert_eq!(client.hear(), [expected]);
    client.fake.tell(false, &[script(1), script(2)], &[]);
    assert_eq!(client.hear(), Vec::<Value>::new());
}

#[test]
fn a_status_that_vanishes_is_told_as_null() {
    let mut client = subscribed(&[1]);
    client.fake.change(|world| world.histories.clear());
    client.fake.tell(false, &[script(1)], &[]);
    let expected = notification(SUBSCRIBE, json!([script(1).to_string(), null]));
    assert_eq!(client.hear(), [expected]);
}

#[test]
fn a_parent_that_confirms_is_told() {
    let mut client = subscribed(&[1]);
    client.fake.change(|world| {
        let history = world.histories.get_mut(&script(1)).unwrap();
        history.mempool[1].has_unconfirmed_inputs = false;
    });
    client.fake.tell(false, &[script(1)], &[]);
    assert_eq!(client.hear().len(), 1);
}

#[test]
fn nothing_is_told_after_unsubscribing() {
    let mut client = subscribed(&[1]);
    let hash = json!([script(1).to_string()]);
    assert_eq!(
        client.ask("blockchain.scripthash.unsubscribe", hash.clone()),
        json!(true)
    );
    assert_eq!(
        client.ask("blockchain.scripthash.unsubscribe", hash),
        json!(false)
    );
    assert!(!client.fake.listens(&script(1)));
    client.fake.pay(script(1), 9);
    client.fake.tell(false, &[script(1)], &[]);
    assert_eq!(client.hear(), Vec::<Value>::new());
}

#[test]
fn an_address_is_told_as_it_was_given() {
    let mut client = Client::at(Version::V1_2);
    let method = "blockchain.address.subscribe";
    let loud = ADDRESS.to_uppercase();
    client.ask(method, json!([ADDRESS]));
    client.ask(method, json!([loud]));
    client.ask(SUBSCRIBE, json!([script(1).to_string()]));
    client.fake.pay(script(1), 9);
    client.fake.tell(false, &[script(1)], &[]);
    let status = told(&client, &script(1));
    let expected = [
        notification(SUBSCRIBE, json!([script(1).to_string(), status])),
        notification(method, json!([ADDRESS, status])),
        notification(method, json!([loud, status])),
    ];
    assert_eq!(client.hear(), expected);
}

#[test]
fn a_second_name_for_a_script_does_not_swallow_what_the_first_is_owed() {
    let mut client = Client::at(Version::V1_2);
    client.ask(SUBSCRIBE, json!([script(1).to_string()]));
    client.fake.pay(script(1), 9);
    let status = told(&client, &script(1));
    let line =
        format!(r#"{{"id":5,"method":"blockchain.address.subscribe","params":["{ADDRESS}"]}}"#);
    let said = client.say(&line);
    assert_eq!(said[0]["result"], status);
    assert_eq!(
        said[1],
        notification(SUBSCRIBE, json!([script(1).to_string(), status]))
    );
}

#[test]
fn scripts_of_1_7_are_told_by_their_hash() {
    use bitcoin::hex::DisplayHex;
    let mut client = Client::at(Version::V1_7);
    let spk = locking(1).to_lower_hex_string();
    client.ask("blockchain.scriptpubkey.subscribe", json!([spk]));
    client.fake.pay(script(1), 9);
    client.fake.tell(false, &[script(1)], &[]);
    let status = told(&client, &script(1));
    let expected = notification(
        "blockchain.scriptpubkey.subscribe",
        json!([script(1).to_string(), status]),
    );
    assert_eq!(client.hear(), [expected]);
    assert_eq!(
        client.ask("blockchain.scriptpubkey.unsubscribe", json!([spk])),
        json!(true)
    );
}

#[test]
fn an_outpoint_is_told_when_it_is_spent() {
    use bitcoin::hex::DisplayHex;
    let mut client = Client::at(Version::V1_7);
    let spk = locking(1).to_lower_hex_string();
    let outpoint = OutPoint {
        txid: txid(2),
        vout: 1,
    };
    let method = "blockchain.outpoint.subscribe";
    let hint = json!([txid(2).to_string(), 1, spk]);
    assert_eq!(client.ask(method, hint), json!({ "funder_height": 5 }));
    client.fake.tell(false, &[], &[outpoint]);
    assert_eq!(client.hear(), Vec::<Value>::new());
    client
        .fake
        .change(|world| _ = world.spenders.insert(outpoint, (txid(3), 0)));
    client.fake.tell(false, &[], &[outpoint]);
    let status =
        json!({ "funder_height": 5, "spender_txhash": txid(3).to_string(), "spender_height": 0 });
    let expected = notification(method, json!([txid(2).to_string(), 1, status]));
    assert_eq!(client.hear(), [expected]);
    let pair = json!([txid(2).to_string(), 1]);
    assert_eq!(
        client.ask("blockchain.outpoint.unsubscribe", pair.clone()),
        json!(true)
    );
    assert_eq!(
        client.ask("blockchain.outpoint.unsubscribe", pair),
        json!(false)
    );
    let wrong_hint = json!([txid(2).to_string(), 1, "00"]);
    assert_eq!(client.ask(method, wrong_hint), json!({}));
}

#[test]
fn a_new_tip_is_told_in_the_sessions_shape_and_only_if_it_is_new() {
    let raw = |height: u32, salt: u8| {
        use bitcoin::hex::DisplayHex;
        json!({ "height": height, "hex": header(height, salt).to_lower_hex_string() })
    };
    let method = "blockchain.headers.subscribe";
    let mut client = Client::at(Version::V1_4);
    client.ask(method, json!([]));
    client.fake.tell(true, &[], &[]);
    assert_eq!(client.hear(), Vec::<Value>::new(), "the same tip");
    client
        .fake
        .change(|world| world.headers.push(header(10, 1)));
    client
        .fake
        .change(|world| world.headers.push(header(11, 1)));
    client.fake.tell(true, &[], &[]);
    assert_eq!(
        client.hear(),
        [notification(method, json!([raw(11, 1)]))],
        "several at once"
    );
    client
        .fake
        .change(|world| *world.headers.last_mut().unwrap() = header(11, 2));
    client.fake.tell(true, &[], &[]);
    assert_eq!(
        client.hear(),
        [notification(method, json!([raw(11, 2)]))],
        "a reorg to the same height"
    );

    let mut client = Client::at(Version::V1_0);
    client.ask(method, json!([]));
    client.ask("blockchain.numblocks.subscribe", json!([]));
    client
        .fake
        .change(|world| world.headers.push(header(10, 1)));
    client.fake.tell(true, &[], &[]);
    let said = client.hear();
    assert_eq!(said[0]["params"][0]["block_height"], 10);
    assert!(said[0]["params"][0].get("hex").is_none());
    assert_eq!(
        said[1],
        notification("blockchain.numblocks.subscribe", json!([10]))
    );

    let mut client = Client::new();
    client.ask(method, json!([]));
    client
        .fake
        .change(|world| world.headers.push(header(10, 1)));
    client.fake.tell(true, &[], &[]);
    let said = client.hear();
    assert_eq!(said[0]["params"][0]["block_height"], 10);
    assert_eq!(said[0]["params"][0]["height"], 10);
    let hash = block_hash(&header(10, 1));
    assert_ne!(hash, block_hash(&header(9, 1)));
}

#[test]
fn a_reply_comes_before_what_happens_after_it() {
    let mut client = Client::at(Version::V1_4_2);
    client
        .fake
        .change(|world| _ = world.on_disk.insert(script(1)));
    let line = format!(
        r#"{{"id":7,"method":"{SUBSCRIBE}","params":["{}"]}}"#,
        script(1)
    );
    assert!(client.send(&line).is_empty(), "it takes a disk");
    let job = client.jobs.remove(0);
    let before = told(&client, &script(1));
    let crate::electrum::Ran::Done(done) = job.run() else {
        panic!("it is short");
    };
    // A change comes while the answer is on its way.
    client.fake.pay(script(1), 9);
    client.fake.tell(false, &[script(1)], &[]);
    assert_eq!(client.hear(), Vec::<Value>::new());
    let mut out = Outbox::default();
    client.session.finish(done, &mut out, &mut client.jobs);
    let mut said = lines(out);
    said.extend(client.run());
    assert_eq!(said[0]["id"], 7);
    assert_eq!(said[0]["result"], before);
    let after = told(&client, &script(1));
    assert_ne!(before, after);
    assert_eq!(
        said[1],
        notification(SUBSCRIBE, json!([script(1).to_string(), after]))
    );
    assert_eq!(said.len(), 2);
}

#[test]
fn a_notification_waits_for_the_batch_that_subscribed() {
    let mut client = Client::at(Version::V1_4_2);
    client
        .fake
        .change(|world| _ = world.on_disk.insert(script(2)));
    let line = format!(
        r#"[{{"id":1,"method":"{SUBSCRIBE}","params":["{}"]}},{{"id":2,"method":"{SUBSCRIBE}","params":["{}"]}}]"#,
        script(1),
        script(2)
    );
    assert!(client.send(&line).is_empty(), "the second takes a disk");
    let job = client.jobs.remove(0);
    client.fake.pay(script(1), 9);
    client.fake.tell(false, &[script(1)], &[]);
    assert_eq!(client.hear(), Vec::<Value>::new());
    let said = client.run_one(job);
    assert_eq!(said[0].as_array().unwrap().len(), 2);
    let status = told(&client, &script(1));
    assert_eq!(
        said[1],
        notification(SUBSCRIBE, json!([script(1).to_string(), status]))
    );
}

#[test]
fn what_could_not_be_looked_at_is_told_later() {
    let mut client = subscribed(&[1]);
    client.fake.pay(script(1), 9);
    client.fake.change(|world| world.fault = Fault::Unavailable);
    client.fake.tell(false, &[script(1)], &[]);
    assert_eq!(client.hear(), Vec::<Value>::new());
    client.fake.change(|world| world.fault = Fault::None);
    let mut out = Outbox::default();
    client.session.look_again_at_all(&mut out, &mut client.jobs);
    let status = told(&client, &script(1));
    assert_eq!(
        lines(out),
        [notification(
            SUBSCRIBE,
            json!([script(1).to_string(), status])
        )]
    );
}

#[test]
fn a_failed_subscription_is_none() {
    for on_disk in [false, true] {
        let mut client = Client::at(Version::V1_4_2);
        client.fake.change(|world| {
            world.fault = Fault::Unavailable;
            if on_disk {
                world.on_disk.insert(script(1));
            }
        });
        let hash = json!([script(1).to_string()]);
        assert_eq!(client.code(SUBSCRIBE, hash.clone()), 2);
        assert!(!client.fake.listens(&script(1)));
        assert_eq!(
            client.ask("blockchain.scripthash.unsubscribe", hash),
            json!(false)
        );
    }
}

#[test]
fn a_session_has_no_more_subscriptions_than_it_may() {
    let settings = Settings {
        subscriptions_max: 2,
        ..settings()
    };
    let mut client = Client::with(settings, Peer::Local);
    for number in 1..=2 {
        client.ask(SUBSCRIBE, json!([script(number).to_string()]));
    }
    assert_eq!(client.code(SUBSCRIBE, json!([script(3).to_string()])), 1);
    assert!(!client.fake.listens(&script(3)));
    client.ask(
        "blockchain.scripthash.unsubscribe",
        json!([script(1).to_string()]),
    );
    client.ask(SUBSCRIBE, json!([script(3).to_string()]));
}

#[test]
fn all_sessions_together_have_no_more_subscriptions_than_they_may_and_give_theirs_back() {
    let settings = Settings {
        all_subscriptions_max: 3,
        ..settings()
    };
    let count = settings.subscriptions.clone();
    let count = || count.load(std::sync::atomic::Ordering::Relaxed);
    let mut one = Client::with(settings.clone(), Peer::Local);
    let mut other = Client::with(settings, Peer::Remote);
    let name = |number| json!([script(number).to_string()]);
    one.ask(SUBSCRIBE, name(1));
    one.ask(SUBSCRIBE, name(2));
    one.ask(SUBSCRIBE, name(2));
    other.ask(SUBSCRIBE, name(3));
    assert_eq!(count(), 3);
    assert_eq!(other.code(SUBSCRIBE, name(4)), 1);
    one.ask("blockchain.scripthash.unsubscribe", name(1));
    assert_eq!(count(), 2);
    other.ask(SUBSCRIBE, name(4));
    drop(one);
    assert_eq!(count(), 2);
    // One that could not be answered is none.
    other
        .fake
        .change(|world| world.fault = crate::electrum::fake::Fault::Unavailable);
    assert_eq!(other.code(SUBSCRIBE, name(5)), 2);
    assert_eq!(count(), 2);
    drop(other);
    assert_eq!(count(), 0);
}

#[test]
fn a_grown_history_that_may_not_be_told_ends_the_session() {
    let settings = Settings {
        remote_history_max: Some(4),
        ..settings()
    };
    let mut client = Client::with(settings, Peer::Remote);
    client.ask(SUBSCRIBE, json!([script(1).to_string()]));
    client.fake.pay(script(1), 9);
    client.fake.tell(false, &[script(1)], &[]);
    assert_eq!(client.hear(), Vec::<Value>::new());
    assert!(client.session.is_closing());
}

#[test]
fn json_rpc_1_0_is_notified_in_its_own_form() {
    let mut client = Client::new();
    let line = format!(
        r#"{{"jsonrpc":"1.0","id":1,"method":"{SUBSCRIBE}","params":["{}"]}}"#,
        script(1)
    );
    let said = client.say(&line);
    assert_eq!(said[0]["error"], json!(null));
    assert!(said[0].get("jsonrpc").is_none());
    client.fake.pay(script(1), 9);
    client.fake.tell(false, &[script(1)], &[]);
    let said = client.hear();
    assert_eq!(said[0]["id"], json!(null));
    assert!(said[0].as_object().unwrap().contains_key("id"));
}
