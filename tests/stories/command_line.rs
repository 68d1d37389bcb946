//! The program's commands, as a person types them: what they print, and the code they end with.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use bitcoin::{Address, Network};
use serde_json::{Value, json};

use crate::{
    ambra::{Ambra, node_arguments, program},
    compare::compare_all,
    locks::{Kind, Lock},
    node::{Node, NodeOptions},
    oracle::Oracle,
    patience::until,
    random_chain::RandomChain,
    treasury::Treasury,
};

/// Runs it to its end.
fn ambra(arguments: &[&str]) -> Output {
    ambra_in(arguments, &[])
}

fn ambra_in(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(program())
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the program can be run")
}

/// The same beside a node, the index in a folder.
fn beside(node: &Node, db_dir: &Path, arguments: &[&str]) -> Output {
    let settings = node_arguments(node, db_dir);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    ambra(&[&settings[..], arguments].concat())
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// It did what was asked; what it printed.
#[track_caller]
fn well(output: Output) -> String {
    assert_eq!(code(&output), 0, "{}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

/// It could not; its last words.
#[track_caller]
fn refused(output: Output, code_wanted: i32) -> String {
    let (code, words) = (code(&output), stderr(&output));
    assert_eq!(code, code_wanted, "{}{words}", stdout(&output));
    words
}

#[test]
fn what_needs_no_node_is_answered_without_one() {
    let version = well(ambra(&["--version"]));
    for words in [
        "ambra ",
        "commit ",
        "index format ",
        "Electrum protocol 1.0",
    ] {
        assert!(version.contains(words), "{version}");
    }
    assert!(well(ambra(&["--help"])).contains("Exit codes"));
    assert!(well(ambra(&["help", "snapshot"])).contains("export"));
    let man = well(ambra(&["man"]));
    for words in [".TH ambra 1", "ambra snapshot export FOLDER", "db\\-dir"] {
        assert!(man.contains(words), "{words}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let completions = well(ambra(&["completions", shell]));
        assert!(completions.contains("daemon-rpc-url"), "{shell}");
        assert!(completions.contains("doctor"), "{shell}");
    }
}

#[test]
fn a_wrong_setting_ends_it_with_two_and_a_word_of_the_right_one() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("ambra.toml");
    std::fs::write(&conf, "db_dir = \"/x\"\n").unwrap();
    let conf = conf.to_str().unwrap();
    for (output, right) in [
        (ambra(&["--lisen", "tcp://127.0.0.1:1"]), "--listen"),
        (ambra(&["dokter"]), "doctor"),
        (ambra(&["address"]), "<ADDRESS>"),
        (ambra(&["config", "--conf", conf]), "db-dir"),
        (ambra(&["--network", "mainnet"]), "main, testnet"),
        (
            ambra_in(&["config"], &[("AMBRA_LISEN", "x")]),
            "AMBRA_LISTEN",
        ),
    ] {
        let words = refused(output, 2);
        assert!(words.contains(right), "{words}");
    }
}

#[test]
fn config_prints_what_is_in_force_and_reads_it_back() {
    // 1. Each value with the place it comes from; no secret.
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("one.toml");
    std::fs::write(
        &conf,
        "network = \"signet\"\nsync-memory = 100\nrpc-password = \"hunter2\"\n",
    )
    .unwrap();
    let conf = conf.to_str().unwrap();
    let environment = [("AMBRA_RPC_USER", "alice"), ("AMBRA_SERVER_NAME", "007")];
    let options = ["config", "--listen=unix:/a", "--listen=unix:/b", "--conf"];
    let printed = well(ambra_in(&[&options[..], &[conf]].concat(), &environment));
    for line in [
        &format!("network = \"signet\"  # network in {conf}"),
        "listen = [\"unix:/a\", \"unix:/b\"]  # --listen",
        "server-name = \"007\"  # AMBRA_SERVER_NAME in the environment",
        "cache-memory = 256  # default",
    ] {
        assert!(printed.lines().any(|l| l == line), "{line}\n{printed}");
    }
    assert!(!printed.contains("hunter2") && !printed.contains("alice"));

    // 2. What it printed is a settings file that means the same.
    let copy = dir.path().join("two.toml");
    std::fs::write(&copy, &printed).unwrap();
    let again = well(ambra(&["config", "--conf", copy.to_str().unwrap()]));
    let bare = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|l| l.split("  #").next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(bare(&printed), bare(&again));

    // 3. The same as JSON.
    let options = ["config", "--json", "--conf", conf];
    let told: Value = serde_json::from_str(&well(ambra_in(&options, &environment))).unwrap();
    assert_eq!(told["settings"]["network"]["value"], "signet");
    assert_eq!(told["settings"]["network"]["from"], "file");
    assert_eq!(told["settings"]["rpc-password"]["value"], Value::Null);
    assert_eq!(told["settings"]["rpc-password"]["hidden"], true);
    assert_eq!(told["settings"]["cache-memory"]["from"], "default");
}

#[test]
fn the_users_own_settings_file_is_read_where_none_is_named() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("ambra");
    std::fs::create_dir(&folder).unwrap();
    let environment = [("XDG_CONFIG_HOME", home.path().to_str().unwrap())];
    let before = well(ambra_in(&["config"], &environment));
    assert!(before.contains("Settings file: none"), "{before}");
    std::fs::write(folder.join("ambra.toml"), "network = \"testnet4\"").unwrap();
    let after = well(ambra_in(&["config"], &environment));
    assert!(after.contains("network = \"testnet4\""), "{after}");
    assert!(after.contains("tcp://127.0.0.1:40001"), "{after}");
    std::fs::write(folder.join("ambra.toml"), "netwrok = \"testnet4\"").unwrap();
    let words = refused(ambra_in(&["config"], &environment), 2);
    assert!(words.contains("nearest is network"), "{words}");
}

#[test]
fn sync_ends_with_the_index_and_an_address_is_answered_with_and_without_a_server() {
    // 1. A confirmed payment, an index, no server.
    let node = Node::start(NodeOptions::default());
    let mut treasury = Treasury::mine(&node);
    let mine = Lock::new(Kind::P2tr, 1);
    let address = Address::from_script(&mine.script(), Network::Regtest).unwrap();
    let address = address.to_string();
    let paid = treasury.payment(&mine, 1_000_000);
    node.send(&paid).unwrap();
    node.mine(1, &Treasury::elsewhere());
    let db = Arc::new(tempfile::tempdir().unwrap());
    let words = refused(beside(&node, db.path(), &["address", &address]), 1);
    assert!(words.contains("no index"), "{words}");
    well(beside(&node, db.path(), &["sync"]));
    let offline = well(beside(&node, db.path(), &["address", &address]));
    assert!(
        offline.contains("confirmed     0.01000000 BTC"),
        "{offline}"
    );
    assert!(offline.contains("unconfirmed   not known"), "{offline}");

    // 2. Another payment, unconfirmed; the server knows it.
    let server = Ambra::start_in(&node, &db, &[]);
    let second = treasury.payment(&mine, 500);
    node.send(&second).unwrap();
    let asked = until(crate::ambra::SYNC_PATIENCE, || {
        let told = well(beside(&node, db.path(), &["address", &address, "--json"]));
        let told: Value = serde_json::from_str(&told).unwrap();
        (told["unconfirmed"] == 500).then_some(told)
    });
    let told = asked.expect("the unconfirmed payment is told");
    assert_eq!(told["confirmed"], 1_000_000);
    assert_eq!(told["knows_mempool"], true);
    assert_eq!(told["history"][0]["txid"], json!(paid.compute_txid()));
    assert_eq!(told["history"][1]["height"], 0);
    assert_eq!(told["unspent"].as_array().unwrap().len(), 2);

    // 3. By script and by script hash it is the same; what is no address is refused.
    let by_hash = told["script_hash"].as_str().unwrap();
    let script = mine.script().to_hex_string();
    for name in [by_hash, &script] {
        let again = well(beside(&node, db.path(), &["address", name, "--json"]));
        assert_eq!(serde_json::from_str::<Value>(&again).unwrap(), told);
    }
    let main = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa";
    let words = refused(beside(&node, db.path(), &["address", main]), 1);
    assert!(words.contains("an address of main"), "{words}");

    // 4. Files are rewritten while it serves, and without.
    assert!(well(beside(&node, db.path(), &["compact"])).contains("compacted"));
    drop(server);
    assert!(well(beside(&node, db.path(), &["compact"])).contains("compacted"));
    assert!(!db.path().join("regtest/checkpoint-0").exists());
}

/// A node with the same chain as `other`, its block files written in another order.
fn shuffled_twin(other: &Node) -> Node {
    let twin = Node::start(NodeOptions::default());
    let blocks: Vec<String> = (1..=other.height())
        .map(|height| {
            let hash = other.block_at(height);
            let hex = other.rpc("getblock", json!([hash, 0]));
            hex.as_str().unwrap().to_owned()
        })
        .collect();
    for block in &blocks {
        twin.rpc("submitheader", json!([block[..160]]));
    }
    for pair in blocks.chunks(2) {
        for block in pair.iter().rev() {
            twin.rpc("submitblock", json!([block]));
        }
    }
    assert_eq!(twin.best_block(), other.best_block());
    twin
}

#[test]
fn a_snapshot_made_while_serving_goes_on_beside_another_node() {
    // 1. A server with a life behind it, and a copy of its index.
    let node = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&node, 71);
    for _ in 0..40 {
        chain.step();
    }
    node.mine(20, &Treasury::elsewhere());
    let server = Ambra::start(&node);
    let away = tempfile::tempdir().unwrap();
    let snapshot = away.path().join("snapshot");
    let to = snapshot.to_str().unwrap();
    let folder = server.folder();
    let db = folder.path();
    let told = well(beside(&node, db, &["snapshot", "export", to]));
    assert!(told.contains(&format!("block {}", node.height())), "{told}");
    // The server takes its checkpoint away once it sees that nobody reads it any more.
    let gone = until(crate::ambra::SYNC_PATIENCE, || {
        let left = std::fs::read_dir(db.join("regtest")).unwrap();
        let names = left.map(|entry| entry.unwrap().file_name());
        let is_checkpoint =
            |name: std::ffi::OsString| name.to_string_lossy().starts_with("checkpoint");
        (!names.into_iter().any(is_checkpoint)).then_some(())
    });
    assert!(gone.is_some(), "the checkpoint is still there");

    // 2. It goes into a new folder only.
    let words = refused(beside(&node, db, &["snapshot", "export", to]), 1);
    assert!(words.contains("not empty"), "{words}");

    // 3. Another node has the same blocks in other places of its files. The import finds them.
    let twin = shuffled_twin(&node);
    let other = Arc::new(tempfile::tempdir().unwrap());
    well(beside(&twin, other.path(), &["snapshot", "import", to]));
    let words = refused(beside(&twin, other.path(), &["snapshot", "import", to]), 1);
    assert!(words.contains("an index"), "{words}");
    let moved = Ambra::start_in(&twin, &other, &["--block-source", "files"]);
    compare_all(&mut Oracle::new(), &twin, &mut moved.client());

    // 4. Life goes on there.
    twin.mine(3, &Treasury::elsewhere());
    moved.wait_until_synced(&twin);
    drop(moved);

    // 5. A copy made without a server is as good.
    let second = away.path().join("second");
    let second = second.to_str().unwrap();
    well(beside(&twin, other.path(), &["snapshot", "export", second]));
    let third = tempfile::tempdir().unwrap();
    well(beside(&twin, third.path(), &["snapshot", "import", second]));
    let words = refused(
        beside(
            &node,
            &third.path().join("x"),
            &["snapshot", "import", second],
        ),
        1,
    );
    assert!(words.contains("let the node catch up"), "{words}");
}

#[test]
fn a_damaged_or_half_snapshot_is_refused_and_leaves_no_index() {
    let node = Node::start(NodeOptions::default());
    node.mine(120, &Treasury::elsewhere());
    let db = Arc::new(tempfile::tempdir().unwrap());
    well(beside(&node, db.path(), &["sync"]));
    let away = tempfile::tempdir().unwrap();
    let snapshot = away.path().join("snapshot");
    let to = snapshot.to_str().unwrap();
    well(beside(&node, db.path(), &["snapshot", "export", to]));
    let manifest = snapshot.join("ambra-snapshot.json");
    let whole = std::fs::read_to_string(&manifest).unwrap();
    let largest = std::fs::read_dir(&snapshot)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "sst"))
        .max_by_key(|path| std::fs::metadata(path).unwrap().len())
        .expect("a file of the database");
    let bytes = std::fs::read(&largest).unwrap();

    let other = tempfile::tempdir().unwrap();
    let refuses = |why: &str| {
        let words = refused(beside(&node, other.path(), &["snapshot", "import", to]), 1);
        assert!(words.contains(why), "{words}");
        assert!(!other.path().join("regtest/rocksdb").exists());
        let words = refused(
            beside(&node, other.path(), &["address", &"00".repeat(32)]),
            1,
        );
        assert!(words.contains("no index"), "{words}");
    };
    // 1. A byte is another.
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    std::fs::write(&largest, &flipped).unwrap();
    refuses("its checksum is another");
    // 2. The end is missing; a file is.
    std::fs::write(&largest, &bytes[..bytes.len() - 1]).unwrap();
    refuses("bytes, not");
    std::fs::remove_file(&largest).unwrap();
    refuses("No such file");
    std::fs::write(&largest, &bytes).unwrap();
    // 3. The list leads elsewhere, says another tip, another chain, another format.
    let tip = node.best_block().to_string();
    let genesis = node.block_at(0).to_string();
    for (from, to, why) in [
        ("CURRENT", "../CURRENT", "no name of a file"),
        (&tip, &genesis, "not what it says"),
        (&genesis, &tip, "chain that begins with"),
        (
            "\"index_format\": ",
            "\"index_format\": 9",
            "index format 9",
        ),
        ("{", "", "damaged"),
    ] {
        assert!(whole.contains(from), "{from}");
        std::fs::write(&manifest, whole.replacen(from, to, 1)).unwrap();
        refuses(why);
    }
    // 4. An export that was cut off has no list.
    std::fs::remove_file(&manifest).unwrap();
    refuses("no snapshot");
    // 5. Mended, it is taken: what was refused before is in nobody's way.
    std::fs::write(&manifest, &whole).unwrap();
    well(beside(&node, other.path(), &["snapshot", "import", to]));
    assert!(!other.path().join("regtest/import-unfinished").exists());
}

#[test]
fn an_index_beside_a_node_that_downloaded_anew_finds_its_blocks_again() {
    let node = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&node, 72);
    for _ in 0..30 {
        chain.step();
    }
    node.mine(20, &Treasury::elsewhere());
    let db = Arc::new(tempfile::tempdir().unwrap());
    well(beside(&node, db.path(), &["sync"]));
    let twin = shuffled_twin(&node);
    let moved = Ambra::start_in(&twin, &db, &["--block-source", "files"]);
    moved.wait_until_it_says("finding them");
    compare_all(&mut Oracle::new(), &twin, &mut moved.client());
    drop(moved);

    // Once: from then on they are known. A chain like main's has hundreds of gigabytes to look through.
    let again = Ambra::start_in(&twin, &db, &["--block-source", "files"]);
    assert!(!again.said().contains("finding them"), "{}", again.said());
}

/// The doctor's lines of one name, as `level: words`.
fn lines(report: &Value, name: &str) -> String {
    let checks = report["checks"].as_array().expect("a list").iter();
    let lines = checks.filter(|check| check["name"] == name).map(|check| {
        let text = |member: &str| check[member].as_str().unwrap_or("").to_owned();
        format!("{}: {} → {}", text("level"), text("says"), text("mend"))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_doctor_finds_nothing_where_all_is_well_and_each_thing_that_is_broken() {
    let node = Node::start(NodeOptions::default());
    node.mine(120, &Treasury::elsewhere());
    let db = Arc::new(tempfile::tempdir().unwrap());
    let ask = |options: &[&str], code_wanted: i32| -> Value {
        let mut all = vec!["doctor", "--json"];
        if !options.contains(&"--listen") {
            all.extend(["--listen", "tcp://127.0.0.1:0"]);
        }
        all.extend(options);
        let output = beside(&node, db.path(), &all);
        assert_eq!(
            code(&output),
            code_wanted,
            "{}{}",
            stdout(&output),
            stderr(&output)
        );
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    let expect = |report: &Value, name: &str, words: &str| {
        let lines = lines(report, name);
        assert!(lines.contains(words), "{name}: {lines}");
    };

    // 1. All is well; with an index too, and while it serves.
    let report = ask(&[], 0);
    for name in [
        "node",
        "cookie",
        "network",
        "chain",
        "pruned",
        "block files",
        "ZMQ",
        "clock",
        "index",
    ] {
        expect(&report, name, "ok: ");
    }
    expect(&report, "block files", ", XORed");
    expect(&report, "disk", "the index of 121 transactions");
    well(beside(&node, db.path(), &["sync"]));
    expect(&ask(&[], 0), "index", "up to block 120");
    let server = Ambra::start_in(&node, &db, &[]);
    let url = format!("tcp://{}", server.address());
    let report = ask(&["--listen", &url], 0);
    expect(&report, "listen", "is served by the Ambra that runs");
    expect(&report, "index", "in use by the Ambra that runs");
    drop(server);

    // 2. Ports: another program's, none of this machine, open to all.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", taken.local_addr().unwrap());
    expect(&ask(&["--listen", &url], 1), "listen", "fail: ");
    expect(
        &ask(&["--listen", "tcp://192.0.2.1:0"], 1),
        "listen",
        "fail: ",
    );
    let report = ask(&["--listen", "tcp://0.0.0.0:0"], 0);
    expect(
        &report,
        "listen",
        "warn: tcp://0.0.0.0:0: what goes over it can be read",
    );

    // 3. The certificate: to be made; made, with a key for all to read; with another's key.
    let tls = ["--listen", "tls://127.0.0.1:0"];
    expect(&ask(&tls, 0), "certificate", "Ambra makes one");
    let server = Ambra::start_in(&node, &db, &tls);
    let certificate = server.own_certificate();
    drop(server);
    expect(&ask(&tls, 0), "certificate", "ok: ");
    let key = certificate.with_file_name("tls-key.pem");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&key, open).unwrap();
    expect(&ask(&tls, 0), "certificate", "chmod 600");
    std::fs::write(&key, "no key").unwrap();
    expect(&ask(&tls, 1), "certificate", "fail: ");

    // 4. Block files that are elsewhere, or cannot be used.
    let empty = tempfile::tempdir().unwrap();
    let blocks = ["--blocks-dir", empty.path().to_str().unwrap()];
    expect(&ask(&blocks, 0), "block files", "warn: ");
    expect(&ask(&blocks, 0), "REST", "bitcoin.conf: rest=1");
    let forced = [&blocks[..], &["--block-source", "files"]].concat();
    expect(&ask(&forced, 1), "block files", "fail: ");
    expect(&ask(&["--block-source", "rest"], 1), "REST", "fail: ");
}

#[test]
fn the_doctor_says_what_is_wrong_with_the_node() {
    let healthy = Node::start(NodeOptions::default());
    let db = Arc::new(tempfile::tempdir().unwrap());
    let ask = |arguments: &[&str]| -> (i32, Value) {
        let listen = ["doctor", "--json", "--listen", "tcp://127.0.0.1:0"];
        let output = ambra(&[&listen[..], arguments].concat());
        (
            code(&output),
            serde_json::from_str(&stdout(&output)).unwrap(),
        )
    };
    let beside = |node: &Node, other: &[&str]| {
        let settings = node_arguments(node, db.path());
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        ask(&[&settings[..], other].concat())
    };
    let url = healthy.rpc_url();
    let dir = healthy.dir().to_str().unwrap();
    let db_dir = db.path().to_str().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();

    // 1. Another network, no data directory, no cookie, a wrong password, a folder that cannot be written.
    for (arguments, name, words) in [
        (
            &[
                "--network",
                "signet",
                "--daemon-dir",
                dir,
                "--daemon-rpc-url",
                &url,
            ][..],
            "node",
            "fail: ",
        ),
        (
            &["--daemon-dir", "/nowhere"],
            "node",
            "found no data directory",
        ),
        (&["--daemon-dir", empty], "node", "does not run"),
        (
            &[
                "--daemon-rpc-url",
                &url,
                "--rpc-user",
                "a",
                "--rpc-password",
                "b",
            ],
            "cookie",
            "refuses the user name or the password",
        ),
        (
            &[
                "--daemon-dir",
                dir,
                "--daemon-rpc-url",
                &url,
                "--db-dir",
                "/proc/ambra",
            ],
            "index folder",
            "fail: ",
        ),
    ] {
        let mut all = arguments.to_vec();
        if !all.contains(&"--db-dir") {
            all.extend(["--db-dir", db_dir]);
        }
        let (code, report) = ask(&all);
        let told = lines(&report, name);
        assert_eq!(code, 1, "{arguments:?}: {report:#}");
        assert!(told.contains(words), "{arguments:?}: {report:#}");
    }

    // 2. Silent: no ZMQ.
    let silent = Node::start(NodeOptions {
        zmq: false,
        ..NodeOptions::default()
    });
    let (code, report) = beside(&silent, &[]);
    assert_eq!(code, 0, "{report:#}");
    assert!(
        lines(&report, "ZMQ").contains("zmqpubhashblock="),
        "{report:#}"
    );

    // 3. Pruned.
    let pruned = Node::start(NodeOptions {
        prunes: true,
        ..NodeOptions::default()
    });
    pruned.mine(700, &Treasury::elsewhere());
    pruned.rpc("pruneblockchain", json!([400]));
    let (code, report) = beside(&pruned, &[]);
    assert_eq!(code, 1, "{report:#}");
    assert!(lines(&report, "pruned").starts_with("fail: "), "{report:#}");

    // 4. Stopped.
    silent.stop();
    let (code, report) = beside(&silent, &[]);
    assert_eq!(code, 1, "{report:#}");
    assert!(lines(&report, "node").starts_with("fail: "), "{report:#}");
}
