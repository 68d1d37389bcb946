//! A wallet that only listens: it subscribes once to each script, and believes what is pushed.

use std::{collections::HashMap, time::Instant};

use bitcoin::{Script, ScriptBuf};
use serde_json::{Value, json};

use crate::{
    client::Client,
    compare::CATCH_UP_PATIENCE,
    oracle::{Facts, script_hash},
};

const METHOD: &str = "blockchain.scripthash.subscribe";

pub struct Watcher {
    client: Client,
    /// What was told last.
    told: HashMap<String, Value>,
}

impl Watcher {
    pub fn new(client: Client) -> Watcher {
        Watcher {
            client,
            told: HashMap::new(),
        }
    }

    /// Subscribes to those that are new.
    pub fn watch<'s>(&mut self, scripts: impl IntoIterator<Item = &'s ScriptBuf>) {
        for script in scripts {
            let name = script_hash(script);
            if !self.told.contains_key(&name) {
                let status = self.client.ask(METHOD, json!([name]));
                self.told.insert(name, status);
            }
        }
    }

    /// Who only listens is taken for gone after a while (`--idle-timeout`).
    pub fn ping(&mut self) {
        self.client.ask("server.ping", json!([]));
    }

    /// Listens until everything told is true.
    #[track_caller]
    pub fn expect(&mut self, facts: &HashMap<&Script, Facts>) {
        let truth: HashMap<String, &Value> = facts
            .iter()
            .map(|(script, facts)| (script_hash(script), &facts.status))
            .collect();
        let mut wrong: HashMap<&String, &Value> = truth
            .iter()
            .filter(|(name, status)| self.told.get(*name).is_some_and(|told| told != **status))
            .map(|(name, status)| (name, *status))
            .collect();
        let deadline = Instant::now() + CATCH_UP_PATIENCE;
        while !wrong.is_empty() {
            let Some(push) = self.client.take_notification(deadline) else {
                let told: Vec<_> = wrong.keys().map(|name| &self.told[*name]).collect();
                panic!("never pushed: {wrong:?}; told last: {told:?}");
            };
            let name = self.believe(push.params);
            if let Some((name, status)) = truth.get_key_value(&name) {
                if self.told[name] == **status {
                    wrong.remove(name);
                } else {
                    wrong.insert(name, status);
                }
            }
        }
    }

    fn believe(&mut self, params: Value) -> String {
        let name = params[0].as_str().expect("a script hash").to_owned();
        let status = params[1].clone();
        let before = self.told.insert(name.clone(), status.clone());
        let before = before.expect("a push for something subscribed to");
        assert_ne!(before, status, "told again though unchanged: {name}");
        name
    }
}
