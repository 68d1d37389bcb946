//! The real Electrum wallet, from Debian's package `electrum`, without its windows.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    str::FromStr,
    time::Duration,
};

use bitcoin::{Address, Amount, Network, Transaction, TxOut, consensus::encode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    ambra::Ambra,
    locks::pay,
    node::{Node, NodeOptions},
    patience::until,
    treasury::Treasury,
};

/// Python is in no hurry.
const PATIENCE: Duration = Duration::from_secs(90);

struct Electrum {
    program: PathBuf,
    dir: TempDir,
    daemon: Option<Child>,
}

impl Electrum {
    /// `None` where the program is not installed.
    fn find() -> Option<Electrum> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path)
            .map(|folder| folder.join("electrum"))
            .find(|program| program.is_file())?;
        Some(Electrum {
            program,
            dir: tempfile::tempdir().expect("a temporary directory"),
            daemon: None,
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .arg("--regtest")
            .arg("-D")
            .arg(self.dir.path())
            // It must not look for a screen, nor for the user's own wallets.
            .env("HOME", self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// A command that works without the daemon.
    fn offline(&self, arguments: &[&str]) -> String {
        let output = self
            .command(arguments)
            .arg("--offline")
            .output()
            .expect("electrum can be run");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {text}{errors}");
        text
    }

    fn start_daemon(&mut self, server: &str) {
        let daemon = self
            .command(&["daemon", "--oneserver", "--server", server, "-v"])
            .stdout(Stdio::null())
            .stderr(self.log())
            .spawn()
            .expect("electrum can be run");
        self.daemon = Some(daemon);
        let up = until(PATIENCE, || self.ask(&["getinfo"]).ok());
        assert!(up.is_some(), "the wallet's daemon starts:\n{}", self.tail());
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("daemon.log")
    }

    fn log(&self) -> std::fs::File {
        std::fs::File::create(self.log_path()).expect("a file")
    }

    fn tail(&self) -> String {
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// A command to the daemon.
    fn ask(&self, arguments: &[&str]) -> Result<Value, String> {
        let output = self
            .command(arguments)
            .output()
            .expect("electrum can be run");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{arguments:?}: {text}{errors}"));
        }
        // Some commands answer with bare text.
        Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    #[track_caller]
    fn must(&self, arguments: &[&str]) -> Value {
        match self.ask(arguments) {
            Ok(answer) => answer,
            Err(why) => panic!("{why}\n{}", self.tail()),
        }
    }

    /// Waits until the wallet's balance is this (`confirmed`, `unconfirmed`, in BTC).
    #[track_caller]
    fn wait_for_balance(&self, expected: Value) {
        let mut last = Value::Null;
        let reached = until(PATIENCE, || {
            last = self.must(&["getbalance"]);
            (last == expected).then_some(())
        });
        let tail = self.tail();
        assert!(reached.is_some(), "balance {last}, not {expected}\n{tail}");
    }
}

impl Drop for Electrum {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn output_to(address: &str, sats: u64) -> TxOut {
    let address = Address::from_str(address).expect("an address");
    let address = address.require_network(Network::Regtest).expect("regtest");
    TxOut {
        value: Amount::from_sat(sats),
        script_pubkey: address.script_pubkey(),
    }
}

#[test]
fn the_electrum_wallet_receives_and_sends() {
    let Some(mut wallet) = Electrum::find() else {
        eprintln!("SKIPPED: no program `electrum` here; apt-get install electrum, and run again");
        return;
    };
    let node = Node::start(NodeOptions::default());
    let mut treasury = Treasury::mine(&node);
    let ambra = Ambra::start(&node);

    // 1. A new wallet, whose only server is ours.
    wallet.offline(&["create"]);
    wallet.start_daemon(&format!("{}:t", ambra.address()));
    wallet.must(&["load_wallet"]);
    let height = node.height();
    let mut info = Value::Null;
    let connected = until(PATIENCE, || {
        info = wallet.must(&["getinfo"]);
        (info["connected"] == true && info["server_height"] == height).then_some(())
    });
    let tail = wallet.tail();
    assert!(connected.is_some(), "{info}, not at {height}\n{tail}");

    // 2. It sees a payment unconfirmed, then confirmed.
    let address = wallet.must(&["getunusedaddress"]);
    let address = address.as_str().expect("an address").to_owned();
    let coin = treasury.coin();
    let change = coin.value - Amount::from_sat(200_001_000);
    let outputs = vec![
        output_to(&address, 200_000_000),
        crate::locks::output(&coin.lock, change),
    ];
    let payment = pay(&[coin], outputs);
    node.send(&payment).unwrap();
    wallet.wait_for_balance(json!({"confirmed": "0", "unconfirmed": "2"}));
    node.mine(1, &Treasury::elsewhere());
    wallet.wait_for_balance(json!({"confirmed": "2"}));

    // 3. It sends, through the server, what the node accepts.
    let recipient = Address::from_script(&Treasury::elsewhere(), Network::Regtest).unwrap();
    let signed = wallet.must(&["payto", &recipient.to_string(), "0.5", "--fee", "0.0001"]);
    let signed = signed.as_str().expect("hexadecimal").to_owned();
    let transaction: Transaction = encode::deserialize_hex(&signed).expect("a transaction");
    let txid = transaction.compute_txid();
    assert_eq!(wallet.must(&["broadcast", &signed]), json!(txid));
    assert_eq!(node.unconfirmed(&txid), Some(transaction));

    // 4. Its change confirms.
    node.mine(1, &Treasury::elsewhere());
    wallet.wait_for_balance(json!({"confirmed": "1.4999"}));
    let history = wallet.must(&["onchain_history"]);
    let entries = history["transactions"].as_array().expect("a list");
    assert_eq!(entries.len(), 2);
    assert!(
        entries
            .iter()
            .all(|entry| entry["confirmations"].as_u64() > Some(0))
    );
    wallet.must(&["stop"]);
}
