//! The server under test: the program itself, as a user runs it.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{client::Client, node::Node, patience::until};

/// First sync of a few hundred small blocks, on a busy machine.
pub const SYNC_PATIENCE: Duration = Duration::from_secs(120);

pub struct Ambra {
    /// Programs that start it, each of which becomes the next: for another user, limit or clock.
    wrapper: Vec<String>,
    arguments: Vec<String>,
    db_dir: Arc<TempDir>,
    process: Option<Child>,
    log: Arc<Mutex<Vec<String>>>,
    /// The log's length then: what older processes said is no news.
    launched_at: usize,
    address: SocketAddr,
}

impl Ambra {
    /// Running on a fresh database, and caught up with the node.
    pub fn start(node: &Node) -> Ambra {
        Ambra::start_with(node, &[])
    }

    /// Running on a fresh database, and caught up; with these options besides.
    pub fn start_with(node: &Node, options: &[&str]) -> Ambra {
        let ambra = Ambra::start_early(node, options);
        ambra.wait_until_synced(node);
        ambra
    }

    /// Running on a fresh database; perhaps still at work.
    pub fn start_early(node: &Node, options: &[&str]) -> Ambra {
        let mut ambra = Ambra::start_unseen(node, options);
        ambra.wait_until_listening();
        ambra
    }

    /// Just begun, on a fresh database.
    pub fn start_unseen(node: &Node, options: &[&str]) -> Ambra {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let mut ambra = Ambra::in_folder(node, folder, options);
        ambra.launch_unseen();
        ambra
    }

    /// Running on the story's own database folder, and caught up.
    pub fn start_in(node: &Node, folder: &Arc<TempDir>, options: &[&str]) -> Ambra {
        let mut ambra = Ambra::in_folder(node, Arc::clone(folder), options);
        ambra.launch();
        ambra.wait_until_synced(node);
        ambra
    }

    /// Running on a fresh database, and caught up; the node's RPC is at this URL.
    pub fn start_at(node: &Node, rpc_url: &str, options: &[&str]) -> Ambra {
        let mut ambra = Ambra::start_unseen_at(node, rpc_url, options);
        ambra.wait_until_listening();
        ambra.wait_until_synced(node);
        ambra
    }

    /// Just begun, on a fresh database; the node's RPC is at this URL.
    pub fn start_unseen_at(node: &Node, rpc_url: &str, options: &[&str]) -> Ambra {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let mut ambra = Ambra::in_folder(node, folder, options);
        let own = node.rpc_url();
        let url = ambra.arguments.iter_mut().find(|word| **word == own);
        *url.expect("the node's URL is an argument") = rpc_url.to_owned();
        ambra.launch_unseen();
        ambra
    }

    /// Not begun; on whatever lies in this folder.
    pub fn in_folder(node: &Node, folder: Arc<TempDir>, options: &[&str]) -> Ambra {
        Ambra {
            wrapper: Vec::new(),
            arguments: arguments(node, folder.path(), options),
            db_dir: folder,
            process: None,
            log: Arc::default(),
            launched_at: 0,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }

    /// Not begun; on a copy of this one's database, as it is on disk now.
    pub fn on_a_copy(&self, node: &Node) -> Ambra {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        copy_folder(self.db_dir.path(), folder.path());
        Ambra::in_folder(node, folder, &[])
    }

    /// Its database, for another server.
    pub fn folder(&self) -> Arc<TempDir> {
        Arc::clone(&self.db_dir)
    }

    /// Started by these programs from now on; `[]`: by none.
    pub fn wrap(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
    }

    /// With another value of an option for the next starts.
    pub fn set_value(&mut self, option: &str, value: &str) {
        let at = self
            .arguments
            .iter()
            .position(|argument| argument == option);
        let at = at.expect("an option that is given");
        value.clone_into(&mut self.arguments[at + 1]);
    }

    /// With one more option for the next starts; or without it again.
    pub fn set_option(&mut self, option: &str, is_set: bool) {
        self.arguments.retain(|argument| argument != option);
        if is_set {
            self.arguments.push(option.to_owned());
        }
    }

    /// Another one on the same database.
    pub fn twin(&self) -> Ambra {
        let mut twin = Ambra {
            wrapper: Vec::new(),
            arguments: self.arguments.clone(),
            db_dir: Arc::clone(&self.db_dir),
            process: None,
            log: Arc::default(),
            launched_at: 0,
            address: self.address,
        };
        twin.launch_unseen();
        twin
    }

    /// Starts again on the same database; perhaps still at work.
    pub fn launch(&mut self) {
        self.launch_unseen();
        self.wait_until_listening();
    }

    /// Starts again, and gives it no time to come up.
    pub fn launch_unseen(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        let mut process = self.spawn();
        self.launched_at = self.log.lock().expect("the log").len();
        self.follow(process.stdout.take().expect("piped"));
        self.follow(process.stderr.take().expect("piped"));
        self.process = Some(process);
    }

    #[track_caller]
    pub fn wait_until_listening(&mut self) {
        let address = until(SYNC_PATIENCE, || {
            if let Some(status) = self.exit_status() {
                panic!("the server ended by itself with {status}");
            }
            self.listening()
        });
        self.address = address.expect("the server says where it listens");
    }

    /// Waits for a line with this text.
    #[track_caller]
    pub fn wait_until_it_says(&self, text: &str) {
        let said = until(SYNC_PATIENCE, || {
            let log = self.log.lock().expect("the log");
            log.iter().any(|line| line.contains(text)).then_some(())
        });
        assert!(said.is_some(), "it never said anything of {text}");
    }

    fn spawn(&self) -> Child {
        self.command(&[])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server can be run")
    }

    /// The program with this server's options behind these words.
    fn command(&self, words: &[&str]) -> Command {
        let program = program().display().to_string();
        let mut line: Vec<&str> = self.wrapper.iter().map(String::as_str).collect();
        line.push(&program);
        line.extend(words);
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).args(&self.arguments);
        // No settings of whoever runs the tests.
        command.env("XDG_CONFIG_HOME", "/nonexistent");
        command
    }

    /// [`Ambra::run`] by the user who tells the story, whoever runs the server.
    pub fn run_as_root(&self, words: &[&str]) -> (ExitStatus, String) {
        let own = Ambra {
            wrapper: Vec::new(),
            arguments: self.arguments.clone(),
            db_dir: Arc::clone(&self.db_dir),
            process: None,
            log: Arc::default(),
            launched_at: 0,
            address: self.address,
        };
        own.run(words)
    }

    /// Runs the program to its end with a verb and this server's options; all that it printed.
    pub fn run(&self, words: &[&str]) -> (ExitStatus, String) {
        let output = self.command(words).stdin(Stdio::null()).output();
        let output = output.expect("the program can be run");
        let text = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&text).into_owned())
    }

    /// Waits until it has ended by itself; its exit status, and what it said since it was launched.
    #[track_caller]
    pub fn wait_until_it_ends(&mut self) -> (ExitStatus, String) {
        let status = until(SYNC_PATIENCE, || self.exit_status());
        let status = status.expect("the server ends by itself");
        self.process = None;
        // Its last words may still be on the way through the pipe.
        until(Duration::from_secs(5), || {
            (Arc::strong_count(&self.log) == 1).then_some(())
        });
        (status, self.said())
    }

    /// What it said since it was launched.
    pub fn said(&self) -> String {
        let log = self.log.lock().expect("the log");
        log[self.launched_at.min(log.len())..].join("\n")
    }

    /// SIGKILL after a while, whatever the story does meanwhile; [`Ambra::kill`] must follow.
    pub fn kill_in(&self, while_: Duration) -> thread::JoinHandle<()> {
        let pid = self.pid().to_string();
        thread::spawn(move || {
            thread::sleep(while_);
            let killed = Command::new("kill").args(["-KILL", &pid]).status();
            killed.expect("kill can be run");
        })
    }

    fn follow(&self, pipe: impl Read + Send + 'static) {
        let log = Arc::clone(&self.log);
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                log.lock().expect("the log").push(line);
            }
        });
    }

    /// The address in a line that it said since it was launched.
    fn listening(&self) -> Option<SocketAddr> {
        self.word_after("listening on tcp://")?.parse().ok()
    }

    /// What follows this text, up to a space or comma, in a line since it was launched.
    fn word_after(&self, text: &str) -> Option<String> {
        let log = self.log.lock().expect("the log");
        log[self.launched_at..].iter().find_map(|line| {
            let (_, rest) = line.split_once(text)?;
            let word = rest.split([' ', ',']).next()?;
            Some(word.to_owned())
        })
    }

    /// Where it listens for another scheme than `tcp`.
    #[track_caller]
    pub fn listener(&self, scheme: &str) -> String {
        let text = format!("listening on {scheme}://");
        let address = until(SYNC_PATIENCE, || self.word_after(&text));
        address.expect("the server says where it listens")
    }

    /// The certificate that it made for itself.
    pub fn own_certificate(&self) -> PathBuf {
        let path = self.word_after("TLS certificate ");
        PathBuf::from(path.expect("the server names its certificate"))
    }

    /// Where its status page listens.
    #[track_caller]
    pub fn status_page(&self) -> SocketAddr {
        let address = until(SYNC_PATIENCE, || {
            let word = self.word_after("status page at http://")?;
            word.trim_end_matches('/').parse().ok()
        });
        address.expect("the server says where its status page is")
    }

    /// Its exit status, if it has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        let process = self.process.as_mut()?;
        process.try_wait().expect("the process can be asked")
    }

    /// Where it listens (plain TCP).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Until it shows the node's best block and answers for scripts.
    #[track_caller]
    pub fn wait_until_synced(&self, node: &Node) {
        let mut client = self.client();
        let mut last = String::new();
        let synced = until(SYNC_PATIENCE, || {
            let best = node.rpc("getblockheader", json!([node.best_block(), false]));
            let tip = client.call("blockchain.headers.subscribe", json!([]));
            let any_script = "00".repeat(32);
            let balance = client.call("blockchain.scripthash.get_balance", json!([any_script]));
            last = format!("tip {tip:?}, balance {balance:?}");
            let is_synced = tip.is_ok_and(|tip| tip["hex"] == best) && balance.is_ok();
            is_synced.then_some(())
        });
        assert!(synced.is_some(), "not caught up with the node: {last}");
    }

    /// Until it shows the node's best block.
    #[track_caller]
    pub fn wait_until_at_tip(&self, node: &Node) {
        let synced = until(SYNC_PATIENCE, || {
            let best = node.rpc("getblockheader", json!([node.best_block(), false]));
            (self.tip()["hex"] == best).then_some(())
        });
        assert!(synced.is_some(), "not at the node's best block");
    }

    /// Lets it stand still while `change` happens: it sees what was before and what is after, nothing between.
    pub fn while_it_stands_still(&self, change: impl FnOnce()) {
        let signal = |name: &str| {
            let sent = Command::new("kill")
                .args([name, &self.pid().to_string()])
                .status();
            assert!(sent.expect("kill can be run").success());
        };
        signal("-STOP");
        change();
        signal("-CONT");
    }

    /// SIGTERM; its exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the server runs");
        let killed = Command::new("kill")
            .args(["-TERM", &process.id().to_string()])
            .status();
        assert!(killed.expect("kill can be run").success());
        let status = until(SYNC_PATIENCE, || process.try_wait().ok().flatten());
        status.unwrap_or_else(|| {
            let _ = process.kill();
            let _ = process.wait();
            panic!("SIGTERM did not end the server")
        })
    }

    /// Stops it in good order.
    pub fn stop(&mut self) {
        let status = self.terminate();
        assert!(status.success(), "it ended with {status}");
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the server runs");
        process.kill().expect("the server can be killed");
        process.wait().expect("the server has ended");
        let said = self.said();
        assert!(!said.contains("panicked"), "it panicked: {said}");
    }

    /// It said since it was launched that it has caught up with the node once.
    pub fn is_in_step(&self) -> bool {
        self.said().contains("in step with the node")
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:") * 1024
    }

    /// Of it, what is a file's: the program's own code, as far as it was used.
    pub fn memory_of_files(&self) -> u64 {
        self.status("RssFile:") * 1024
    }

    /// The most resident memory that it ever had, in bytes.
    pub fn memory_peak(&self) -> u64 {
        self.status("VmHWM:") * 1024
    }

    /// From now on [`Ambra::memory_peak`] is that of what follows.
    pub fn forget_memory_peak(&self) {
        // The kernel's word for it (proc(5)).
        let written = fs::write(format!("/proc/{}/clear_refs", self.pid()), "5");
        written.expect("the server is our own");
    }

    pub fn threads(&self) -> u64 {
        self.status("Threads:")
    }

    pub fn open_files(&self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.pid()));
        files.expect("the server runs").count()
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server runs").id()
    }

    /// A number of the kernel's about the process.
    fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|text| text.parse().ok()).expect("a number")
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_some() && self.exit_status().is_none()
    }

    /// Of a killed server's newest log the last bytes were never written (`count` is even), or are zeros.
    pub fn tear_write_ahead_log(&self, count: usize) {
        // Killed before it made one.
        let Some(log) = self.newest_write_ahead_log() else {
            return;
        };
        let mut bytes = fs::read(&log).expect("the log can be read");
        let kept = bytes.len().saturating_sub(count);
        println!("{} of {} bytes are torn", bytes.len() - kept, bytes.len());
        if count.is_multiple_of(2) {
            bytes.truncate(kept);
        } else {
            bytes[kept..].fill(0);
        }
        fs::write(&log, bytes).expect("the log can be written");
    }

    /// The index of regtest; to be opened when the server has stopped.
    pub fn index_folder(&self) -> PathBuf {
        self.db_dir.path().join("regtest")
    }

    /// Where RocksDB wrote last what is not in its tables yet.
    fn newest_write_ahead_log(&self) -> Option<PathBuf> {
        let mut folders = vec![self.db_dir.path().to_path_buf()];
        let mut logs = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "log") {
                    logs.push(path);
                }
            }
        }
        // They are numbered.
        logs.into_iter().max()
    }

    /// The tip as the protocol shows it.
    pub fn tip(&self) -> Value {
        self.client().ask("blockchain.headers.subscribe", json!([]))
    }
}

impl Drop for Ambra {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if thread::panicking() {
            let log = match self.log.lock() {
                Ok(log) => log,
                Err(poisoned) => poisoned.into_inner(),
            };
            let from = log.len().saturating_sub(200);
            eprintln!("--- the server's log, database {:?}", self.db_dir.path());
            for line in &log[from..] {
                eprintln!("{line}");
            }
            eprintln!("--- end of the server's log");
        }
    }
}

pub fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&target).expect("a folder");
            copy_folder(&entry.path(), &target);
        } else if entry.path().is_file() {
            // Not sockets.
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// What is under test: `$STORIES_AMBRA`, for long runs while others compile; else what was built with the
/// stories.
pub fn program() -> PathBuf {
    let given = std::env::var_os("STORIES_AMBRA").map(PathBuf::from);
    given.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_ambra")))
}

fn arguments(node: &Node, db_dir: &Path, options: &[&str]) -> Vec<String> {
    let mut arguments = node_arguments(node, db_dir);
    arguments.extend(["--listen", "tcp://127.0.0.1:0"].map(str::to_owned));
    // Its usual port is one for all servers of this machine.
    if !options.contains(&"--admin-listen") {
        arguments.extend(["--admin-listen", "off"].map(str::to_owned));
    }
    arguments.extend(options.iter().map(|option| (*option).to_owned()));
    arguments
}

/// The options that lead to a node and to a database folder.
pub fn node_arguments(node: &Node, db_dir: &Path) -> Vec<String> {
    let daemon_dir = node.dir().display().to_string();
    let db_dir = db_dir.display().to_string();
    let rpc_url = node.rpc_url();
    let mut arguments = vec!["--network", "regtest"];
    arguments.extend(["--daemon-dir", &daemon_dir]);
    arguments.extend(["--daemon-rpc-url", &rpc_url]);
    arguments.extend(["--db-dir", &db_dir]);
    arguments.into_iter().map(str::to_owned).collect()
}
