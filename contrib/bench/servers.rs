//! The servers that are compared, and how each is started.
#![allow(dead_code)] // Each program uses its own part.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    client::{Client, Failure, check_status},
    process::{Node, Running, free_port},
    record::Record,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Server {
    AmbraFiles,
    AmbraRest,
    AmbraRpc,
    Electrs,
}

impl Server {
    pub fn name(self) -> &'static str {
        match self {
            Server::AmbraFiles => "Ambra, files",
            Server::AmbraRest => "Ambra, REST",
            Server::AmbraRpc => "Ambra, RPC",
            Server::Electrs => "electrs",
        }
    }

    /// Who makes the index for it.
    pub fn first_sync(self) -> Server {
        match self {
            Server::Electrs => Server::Electrs,
            Server::AmbraFiles | Server::AmbraRest | Server::AmbraRpc => Server::AmbraFiles,
        }
    }

    /// A large history takes seconds where blocks have to be asked for, so it is asked for few.
    pub fn is_slow(self) -> bool {
        self != Server::AmbraFiles
    }
}

#[derive(Clone, Debug, clap::Args)]
pub struct Programs {
    /// The server, built with the release profile
    #[arg(long, default_value = "target/release/ambra")]
    pub ambra: PathBuf,
    /// electrs 0.11.1
    #[arg(long, default_value = "target/bench/electrs/bin/electrs")]
    pub electrs: PathBuf,
    /// A bitcoind, as contrib/bitcoind.sh gets it
    #[arg(long, env = "BITCOIND", default_value = "bitcoind")]
    pub bitcoind: PathBuf,
}

/// A server that has been started.
pub struct Started {
    pub running: Running,
    pub address: String,
    pub at: Instant,
    /// How long it took to serve, as [`Started::wait_until_served`] saw it.
    pub serving_after: Duration,
}

pub fn start(
    server: Server,
    programs: &Programs,
    node: &Node,
    db_dir: &Path,
    log: &Path,
) -> Result<Started, Failure> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let rpc = format!("127.0.0.1:{}", node.rpc_port);
    let at = Instant::now();
    let mut command = match server {
        Server::Electrs => {
            let mut command = Command::new(&programs.electrs);
            command
                .arg("--skip-default-conf-files")
                .args(["--network", "regtest", "--log-filters", "INFO"])
                .args(["--daemon-rpc-addr", &rpc])
                .args(["--daemon-p2p-addr", &format!("127.0.0.1:{}", node.p2p_port)])
                .args(["--electrum-rpc-addr", &address])
                .args(["--monitoring-addr", &format!("127.0.0.1:{}", free_port()?)]);
            command
        }
        Server::AmbraFiles | Server::AmbraRest | Server::AmbraRpc => {
            let source = match server {
                Server::AmbraRest => "rest",
                Server::AmbraRpc => "rpc",
                _ => "files",
            };
            let mut command = Command::new(&programs.ambra);
            command
                .args(["--network", "regtest", "--block-source", source])
                .args(["--daemon-rpc-url", &format!("http://{rpc}")])
                .args(["--listen", &format!("tcp://{address}")]);
            command
        }
    };
    command
        .arg("--daemon-dir")
        .arg(&node.dir)
        .arg("--db-dir")
        .arg(db_dir);
    let running = Running::start(server.name(), &mut command, log)?;
    Ok(Started {
        running,
        address,
        at,
        serving_after: Duration::ZERO,
    })
}

impl Started {
    /// Waits until it serves the record's tip and a script; gives the time since it was started.
    pub fn wait_until_served(&mut self, record: &Record) -> Result<Duration, Failure> {
        let height = record.chain.as_ref().ok_or("the record is empty")?.height;
        let script = record.scripts.last().ok_or("the record has no script")?;
        loop {
            self.running.must_run()?;
            if let Ok(mut client) = Client::negotiated(&self.address) {
                let tip = client.call("blockchain.headers.subscribe", &json!([]));
                if tip.is_ok_and(|tip| tip["height"] == json!(height)) {
                    let params = json!([script.scripthash]);
                    let status = client.call_raw("blockchain.scripthash.subscribe", &params);
                    if let Ok(status) = status {
                        check_status(script, &status)?;
                        self.serving_after = self.at.elapsed();
                        return Ok(self.serving_after);
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
