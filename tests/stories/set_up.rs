//! Set-ups that people have, each with one thing broken: what `ambra` and `ambra doctor` say, as another user than
//! bitcoind's where that is what goes wrong.

use std::{
    fs,
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    ambra::{node_arguments, program},
    node::{Node, NodeOptions, bitcoind, free_port},
    patience::until,
    treasury::Treasury,
};

const START_PATIENCE: Duration = Duration::from_secs(60);

/// `nobody` on Linux.
const NOBODY: u32 = 65534;

/// The program, for a user who is not bitcoind's: for `nobody` where the stories run as root, who may read all; else
/// for whoever runs them, from whom then the files' modes take everything as well.
struct Stranger {
    folder: TempDir,
    program: PathBuf,
    is_nobody: bool,
}

impl Stranger {
    fn new() -> Stranger {
        let folder = tempfile::tempdir().unwrap();
        let is_nobody = fs::metadata("/proc/self").unwrap().uid() == 0;
        // Where the program was built nobody may be let in.
        let copy = folder.path().join("ambra");
        if fs::hard_link(program(), &copy).is_err() {
            fs::copy(program(), &copy).unwrap();
        }
        set_mode(folder.path(), 0o755);
        let db_dir = folder.path().join("db");
        fs::create_dir(&db_dir).unwrap();
        set_mode(&db_dir, 0o777);
        Stranger {
            folder,
            program: copy,
            is_nobody,
        }
    }

    /// As the doctor names them.
    fn name(&self) -> String {
        let whoami = Command::new("id").args(["-un"]).output().unwrap();
        match self.is_nobody {
            true => "nobody".to_owned(),
            false => String::from_utf8(whoami.stdout).unwrap().trim().to_owned(),
        }
    }

    fn db_dir(&self) -> PathBuf {
        self.folder.path().join("db")
    }

    fn run(&self, arguments: &[String]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        // Their own settings, not those of whoever runs the stories.
        command.env("HOME", self.folder.path());
        command.env_remove("XDG_CONFIG_HOME");
        if self.is_nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.output().expect("the program can be run")
    }

    fn doctor(&self, node: &Node, more: &[&str]) -> Value {
        let mut arguments = node_arguments(node, &self.db_dir());
        let doctor = ["doctor", "--json", "--listen", "tcp://127.0.0.1:0"];
        arguments.extend(doctor.iter().chain(more).map(|&word| word.to_owned()));
        let output = self.run(&arguments);
        serde_json::from_slice(&output.stdout).expect("the doctor's JSON")
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Level, words and what mends it, of the checks with this name.
fn told(report: &Value, name: &str) -> String {
    let checks = report["checks"].as_array().expect("a list").iter();
    let lines = checks.filter(|check| check["name"] == name).map(|check| {
        let text = |member: &str| check[member].as_str().unwrap_or("").to_owned();
        format!("{}: {}\n{}", text("level"), text("says"), text("mend"))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn expect(report: &Value, name: &str, words: &[&str]) {
    let told = told(report, name);
    for words in words {
        assert!(told.contains(words), "{name}: {words}\n{told}\n{report:#}");
    }
}

#[test]
fn whoever_may_not_read_the_nodes_files_is_told_the_commands_that_let_them() {
    let node = Node::start(NodeOptions::default());
    node.mine(5, &Treasury::elsewhere());
    let stranger = Stranger::new();
    let name = stranger.name();
    let regtest = node.dir().join("regtest");
    let (cookie, blocks) = (regtest.join(".cookie"), regtest.join("blocks"));
    let shown = |path: &Path| path.display().to_string();

    // 1. Neither the data directory nor what lies in it.
    set_mode(node.dir(), 0o000);
    let report = stranger.doctor(&node, &[]);
    let way = format!("sudo setfacl -m u:{name}:x {}", shown(node.dir()));
    expect(&report, "cookie", &["fail: ", &way]);

    // 2. Not the network's folder.
    set_mode(node.dir(), 0o755);
    set_mode(&regtest, 0o000);
    let report = stranger.doctor(&node, &[]);
    let way = format!("sudo setfacl -m u:{name}:x {}", shown(&regtest));
    expect(&report, "cookie", &["fail: ", &way, "rpccookieperms=group"]);

    // 3. Only the cookie; a start says so too, and ends.
    set_mode(&regtest, 0o755);
    set_mode(&cookie, 0o000);
    let report = stranger.doctor(&node, &[]);
    let group = format!(
        "sudo usermod -aG \"$(sudo stat -c %G {})\" {name}",
        shown(&cookie)
    );
    expect(
        &report,
        "cookie",
        &["fail: ", "bitcoin.conf: rpccookieperms=group", &group],
    );
    assert!(!told(&report, "cookie").contains("setfacl"));
    let started = stranger.run(&node_arguments(&node, &stranger.db_dir()));
    let words = String::from_utf8_lossy(&started.stderr).into_owned();
    assert_eq!(started.status.code(), Some(1), "{words}");
    assert!(words.contains("may not read bitcoind's cookie"), "{words}");

    // 4. Only the blocks: slower without, and no way at all where they were asked for.
    set_mode(&cookie, 0o644);
    set_mode(&blocks, 0o000);
    let report = stranger.doctor(&node, &[]);
    let open = format!(
        "sudo setfacl -R -m u:{name}:rX -m d:u:{name}:rX {}",
        shown(&blocks)
    );
    expect(
        &report,
        "block files",
        &["warn: ", "Permission denied", &open],
    );
    let report = stranger.doctor(&node, &["--block-source", "files"]);
    expect(&report, "block files", &["fail: ", "asks for them", &open]);
    let mut arguments = node_arguments(&node, &stranger.db_dir());
    arguments.extend(["--block-source", "files", "sync"].map(str::to_owned));
    let started = stranger.run(&arguments);
    let words = String::from_utf8_lossy(&started.stderr).into_owned();
    assert_eq!(started.status.code(), Some(1), "{words}");
    assert!(words.contains("ambra doctor"), "{words}");

    // 5. The index's folder: a command that gives this user that folder alone.
    set_mode(&blocks, 0o755);
    let closed = stranger.folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    set_mode(&closed, 0o555);
    let db_dir = closed.join("index");
    let mut arguments = node_arguments(&node, &db_dir);
    arguments.push("sync".to_owned());
    let started = stranger.run(&arguments);
    let words = String::from_utf8_lossy(&started.stderr).into_owned();
    assert_eq!(started.status.code(), Some(1), "{words}");
    assert!(words.contains("--db-dir"), "{words}");
    arguments.extend(["doctor", "--json"].map(str::to_owned));
    arguments.retain(|word| word != "sync");
    let output = stranger.run(&arguments);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let make = format!("sudo install -d -o {name} -m 700 {}", shown(&db_dir));
    expect(&report, "index folder", &["fail: ", &make]);
}

#[test]
fn a_node_that_was_not_found_and_runs_is_named_with_the_options_that_lead_to_it() {
    let node = Node::start(NodeOptions::default());
    let empty = tempfile::tempdir().unwrap();
    let arguments = [
        "doctor",
        "--json",
        "--daemon-dir",
        empty.path().to_str().unwrap(),
    ];
    let output = Command::new(program()).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let line = format!(
        "ambra --daemon-dir {} --daemon-rpc-url {}",
        node.dir().display(),
        node.rpc_url()
    );
    let told = told(&report, "node");
    assert!(told.starts_with("fail: "), "{told}");
    assert!(told.lines().any(|told| told == line), "{line}\n{told}");
    // What is looked at without a node is looked at all the same.
    expect(&report, "listen", &["127.0.0.1:50001"]);
}

#[test]
fn few_open_files_and_a_port_that_is_taken_are_told_before_they_hurt() {
    let node = Node::start(NodeOptions::default());
    let db_dir = tempfile::tempdir().unwrap();
    let mut arguments = node_arguments(&node, db_dir.path());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let unix = format!("unix:{}", db_dir.path().join("no/such/sock").display());
    let options = ["doctor", "--json", "--listen", &unix, "--admin-listen", &at];
    arguments.extend(options.map(str::to_owned));
    // The usual port of the page is for one server; another's is no harm.
    let usual = TcpListener::bind("127.0.0.1:60409");
    let ask = |wrapper: &str, arguments: &[String]| -> Value {
        let output = Command::new("sh")
            .args(["-c", &format!("{wrapper}; exec \"$0\" \"$@\"")])
            .arg(program())
            .args(arguments)
            .output()
            .expect("sh can be run");
        serde_json::from_slice(&output.stdout).expect("the doctor's JSON")
    };
    let report = ask("ulimit -n 256", &arguments);
    expect(&report, "open files", &["warn: only 256", "ulimit -n 4096"]);
    expect(&report, "status page", &["fail: ", "--admin-listen"]);
    expect(&report, "listen", &["fail: unix:", "sudo install -d -o "]);

    arguments.truncate(arguments.len() - 2);
    let report = ask(":", &arguments);
    expect(&report, "status page", &["warn: 127.0.0.1:60409"]);
    drop(usual);
    arguments.extend(["--admin-listen", "off"].map(str::to_owned));
    assert_eq!(told(&ask(":", &arguments), "status page"), "");
}

/// A bitcoind as a person has it: in their home, told by its `bitcoin.conf` what to do.
struct AtHome {
    home: TempDir,
    process: Child,
}

impl AtHome {
    /// `files` lie in `~/.bitcoin`; in their text and in the options HOME is the home.
    fn start(files: &[(&str, &str)], options: &[&str]) -> AtHome {
        let home = tempfile::tempdir().unwrap();
        let named = |text: &str| text.replace("HOME", home.path().to_str().unwrap());
        for folder in [".bitcoin", "blocks-elsewhere", "data-elsewhere"] {
            fs::create_dir(home.path().join(folder)).unwrap();
        }
        for (name, text) in files {
            fs::write(home.path().join(".bitcoin").join(name), named(text)).unwrap();
        }
        let process = Command::new(bitcoind())
            .env("HOME", home.path())
            .arg("-connect=0")
            .args(options.iter().map(|option| named(option)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bitcoind can be run");
        AtHome { home, process }
    }

    /// What the doctor says, told nothing, once it finds the node.
    fn doctor(&self) -> Value {
        let mut last = Value::Null;
        let found = until(START_PATIENCE, || {
            let output = Command::new(program())
                .env("HOME", self.home.path())
                .env_remove("XDG_CONFIG_HOME")
                .env_remove("XDG_DATA_HOME")
                .args(["doctor", "--json"])
                .output()
                .expect("the program can be run");
            last = serde_json::from_slice(&output.stdout).expect("the doctor's JSON");
            told(&last, "node").starts_with("ok: ").then_some(())
        });
        assert!(found.is_some(), "{last:#}");
        last
    }
}

impl Drop for AtHome {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn bitcoin_conf_alone_leads_to_the_node_however_it_is_written() {
    const QUIET: &str = "listen=0\ndnsseed=0\nfixedseeds=0\npar=1\ndbcache=16\n";
    let port = free_port();
    let zmq = free_port();
    for (main, more, options, wanted) in [
        // A section, an included file with a section, blocks and cookie elsewhere.
        (
            format!(
                "{QUIET}regtest=1\nincludeconf=more.conf\n[regtest]\nrpcport={port} # its own\n"
            ),
            "[regtest]\nrpccookiefile=biscuit\nblocksdir=HOME/blocks-elsewhere\n",
            &[][..],
            [
                ("cookie", ".bitcoin/regtest/biscuit"),
                ("block files", "blocks-elsewhere/regtest/blocks"),
            ],
        ),
        // Names with the network before them, a password, the whole data directory elsewhere, ZMQ.
        (
            format!(
                "{QUIET}chain=regtest\nregtest.rpcport={port}\nrpcuser=anna\nrpcpassword=secret\n\
                 datadir=HOME/data-elsewhere\nzmqpubsequence=tcp://127.0.0.1:{zmq}\n[signet]\nrpcport=2\n"
            ),
            "",
            &[],
            [
                ("cookie", "user and password"),
                ("block files", "data-elsewhere/regtest/blocks"),
            ],
        ),
        // The same, but what stands on the command line counts more: nothing is elsewhere.
        (
            format!("{QUIET}regtest=1\ndatadir=HOME/data-elsewhere\n[regtest]\nrpcport={port}\n"),
            "",
            &["-datadir=HOME/.bitcoin"],
            [
                ("cookie", ".bitcoin/regtest/.cookie"),
                ("block files", ".bitcoin/regtest/blocks"),
            ],
        ),
        // An address of its own, hashed users besides the cookie, files without a key.
        (
            format!(
                "{QUIET}regtest=1\nblocksxor=0\nrpcauth=a:00$00\n[regtest]\nrpcbind=127.0.0.1:{port}\n\
                 rpcallowip=127.0.0.1\n"
            ),
            "",
            &[],
            [
                ("cookie", ".bitcoin/regtest/.cookie"),
                ("block files", "can be read, not XORed"),
            ],
        ),
    ] {
        let node = AtHome::start(&[("bitcoin.conf", &main), ("more.conf", more)], options);
        let report = node.doctor();
        expect(&report, "network", &["ok: regtest"]);
        expect(&report, "node", &[&format!("127.0.0.1:{port}")]);
        for (name, words) in wanted {
            expect(&report, name, &["ok: ", words]);
        }
        if main.contains("zmq") {
            expect(&report, "ZMQ", &["ok: "]);
        }
    }
}
