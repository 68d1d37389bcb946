//! Processes: what they used, how they are stopped, a node to ask.
#![allow(dead_code)] // Each program uses its own part.

use std::{
    fs, io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bitcoincore_rpc::{Auth, Client as Rpc, RpcApi};

use crate::client::Failure;

/// The kernel's unit of processor time in /proc (`USER_HZ`, 100 on all of Linux's platforms).
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Used {
    /// User and system time, in seconds.
    pub cpu_seconds: f64,
    pub peak_memory: u64,
    pub memory: u64,
    /// What it had the kernel write to disk, in bytes.
    pub written: u64,
}

impl Used {
    /// `who` is a process number, or `self`.
    pub fn of(who: impl std::fmt::Display) -> Result<Used, Failure> {
        let status = fs::read_to_string(format!("/proc/{who}/status"))?;
        let stat = fs::read_to_string(format!("/proc/{who}/stat"))?;
        let io = fs::read_to_string(format!("/proc/{who}/io"))?;
        // The name, in brackets, may hold spaces.
        let times = stat.rsplit(')').next().unwrap_or_default();
        let ticks: f64 = times
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<f64>().ok())
            .sum();
        Ok(Used {
            cpu_seconds: ticks / TICKS_PER_SECOND,
            peak_memory: field(&status, "VmHWM:") * 1024,
            memory: field(&status, "VmRSS:") * 1024,
            written: field(&io, "write_bytes:"),
        })
    }
}

fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// All bytes of the files below a directory, as allocated on disk.
pub fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            // It went away in between.
            Err(_) => 0,
        })
        .sum()
}

/// Reads all files below a directory, so that they are in the page cache: some systems take out what has
/// not been used for a while.
pub fn warm(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            warm(&entry.path())?;
        } else {
            io::copy(&mut fs::File::open(entry.path())?, &mut io::sink())?;
        }
    }
    Ok(())
}

/// A port that nobody uses.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A process that is stopped when this is dropped.
pub struct Running {
    pub child: Child,
    name: String,
}

impl Running {
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Running, Failure> {
        let log = fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{name} cannot be started: {error}"))?;
        Ok(Running {
            child,
            name: name.to_owned(),
        })
    }

    pub fn used(&self) -> Result<Used, Failure> {
        Used::of(self.child.id())
    }

    /// An error where it has ended.
    pub fn must_run(&mut self) -> Result<(), Failure> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("{} ended with {status}", self.name).into()),
        }
    }

    /// Asks it to end, and waits.
    pub fn stop(mut self) -> Result<Duration, Failure> {
        let started = Instant::now();
        self.end()?;
        Ok(started.elapsed())
    }

    fn end(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_none() {
            Command::new("kill")
                .args(["-INT", &self.child.id().to_string()])
                .status()?;
            self.child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing is left to be done where this fails.
        let _ = self.end();
    }
}

/// A bitcoind on regtest, of which the ports are ours.
pub struct Node {
    pub running: Running,
    pub dir: PathBuf,
    pub rpc_port: u16,
    pub p2p_port: u16,
    pub zmq_port: u16,
}

impl Node {
    pub fn start(bitcoind: &Path, dir: &Path, more: &[String]) -> Result<Node, Failure> {
        fs::create_dir_all(dir)?;
        let dir = dir.canonicalize()?;
        let (rpc_port, p2p_port, zmq_port) = (free_port()?, free_port()?, free_port()?);
        let mut command = Command::new(bitcoind);
        command
            .args(["-regtest", "-server", "-rest", "-checkblockindex=0"])
            // The chain's time is not today's; a server would wait for the node to catch up.
            .arg("-maxtipage=99999999999")
            .args(["-dbcache=1500", "-rpcthreads=8", "-rpcworkqueue=256"])
            .args(["-fallbackfee=0.0001", "-acceptnonstdtxn=1"])
            .args(["-connect=0", "-discover=0", "-dnsseed=0", "-natpmp=0"])
            .args(["-printtoconsole=0", "-debuglogfile=debug.log"])
            .arg(format!("-datadir={}", dir.display()))
            .arg(format!("-rpcport={rpc_port}"))
            .arg(format!("-bind=127.0.0.1:{p2p_port}"))
            .args(["-listen=1", "-whitelist=download@127.0.0.1"])
            .args(more);
        // Knots takes what is pushed and dropped for hidden data, and this chain's scripts do just that.
        let version = Command::new(bitcoind).arg("--version").output()?;
        if String::from_utf8_lossy(&version.stdout).contains("Knots") {
            command.args(["-acceptnonstddatacarrier", "-datacarrierfullcount=0"]);
        }
        for topic in ["hashblock", "sequence"] {
            command.arg(format!("-zmqpub{topic}=tcp://127.0.0.1:{zmq_port}"));
        }
        let running = Running::start("bitcoind", &mut command, &dir.join("bitcoind.log"))?;
        let node = Node {
            running,
            dir,
            rpc_port,
            p2p_port,
            zmq_port,
        };
        Ok(node)
    }

    /// Has the blocks in the page cache.
    pub fn warm(&self) -> io::Result<()> {
        warm(&self.dir.join("regtest/blocks"))
    }

    pub fn rpc(&self) -> Result<Rpc, Failure> {
        let url = format!("http://127.0.0.1:{}", self.rpc_port);
        let cookie = self.dir.join("regtest/.cookie");
        Ok(Rpc::new(&url, Auth::CookieFile(cookie))?)
    }

    /// Waits until it has a chain of this height.
    pub fn wait_for(&mut self, height: u64) -> Result<(), Failure> {
        loop {
            self.running.must_run()?;
            let count = self.rpc().map(|rpc| rpc.get_block_count());
            if let Ok(Ok(count)) = count
                && count >= height
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
