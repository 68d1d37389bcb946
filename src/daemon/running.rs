//! The bitcoinds that run on this machine, as the system lists its processes: a hint for a person whose node was not
//! found. What was on their command line no file tells.
//!
//! # Security
//! Anybody can start a process with any name, so nothing here is used without the person's word; and of what others
//! typed only the options below are told, never a password.
use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use bitcoin::Network;

use super::{
    bitcoin_conf::network_of_chain,
    discover::{network_folder, usual_rpc_port},
};

/// Longest command line that is read.
const COMMAND_BYTES_MAX: usize = 1 << 16;

/// What bitcoind's programs are called.
const PROGRAMS: [&str; 4] = ["bitcoind", "bitcoin-qt", "bitcoin-node", "bitcoin-gui"];

/// A running node, by what it was started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningNode {
    /// As bitcoind takes it: the networks' folders lie in it.
    pub data_dir: PathBuf,
    network: Option<Network>,
    rpc_port: Option<u16>,
    cookie_file: Option<PathBuf>,
    /// The folder of `blk*.dat`, where `-blocksdir` moved it.
    pub blocks_dir: Option<PathBuf>,
    /// `-server=0`, or a window's program, that has it off unless told.
    pub is_silent: bool,
}

impl RunningNode {
    /// Ambra's options that lead to it.
    pub fn options(&self) -> String {
        let mut options = format!("--daemon-dir {}", self.data_dir.display());
        let mut add = |option: &str, value: String| options.push_str(&format!(" {option} {value}"));
        if let Some(port) = self.rpc_port {
            add("--daemon-rpc-url", format!("http://127.0.0.1:{port}"));
        }
        if let Some(file) = &self.cookie_file {
            add("--cookie-file", file.display().to_string());
        }
        if let Some(folder) = &self.blocks_dir {
            add("--blocks-dir", folder.display().to_string());
        }
        options
    }

    /// True if this is likely the node whose RPC is there.
    pub fn answers_at(&self, rpc_url: &str) -> bool {
        let usual = usual_rpc_port(self.network.unwrap_or(Network::Bitcoin));
        rpc_url.ends_with(&format!(":{}", self.rpc_port.unwrap_or(usual)))
    }
}

/// Those that this user may see; none where the system does not tell (it does on Linux).
pub fn running_nodes() -> Vec<RunningNode> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    processes
        .filter_map(Result::ok)
        .filter(|process| process.file_name().to_str().is_some_and(is_number))
        .filter_map(|process| of_process(&process.path()))
        .collect()
}

fn of_process(process: &Path) -> Option<RunningNode> {
    let command = fs::read(process.join("cmdline")).ok()?;
    let owner = fs::metadata(process).ok()?.uid();
    let home = || home_of(owner, &fs::read_to_string("/etc/passwd").ok()?);
    // Only its own user (and root) may read where it was started.
    let started_in = fs::read_link(process.join("cwd")).ok();
    of_command(&command, started_in.as_deref(), home)
}

/// `command`: the arguments, each ended by a zero byte (proc_pid_cmdline(5)).
fn of_command(
    command: &[u8],
    started_in: Option<&Path>,
    home: impl FnOnce() -> Option<PathBuf>,
) -> Option<RunningNode> {
    let command = command.get(..COMMAND_BYTES_MAX).unwrap_or(command);
    let mut arguments = command
        .split(|&byte| byte == 0)
        .map(|bytes| OsString::from_vec(bytes.to_vec()));
    let name_of = |argument: OsString| {
        let name = PathBuf::from(argument).file_name()?.to_str()?.to_owned();
        Some(name)
    };
    let mut program = name_of(arguments.next()?)?;
    // Packages with libraries of their own start it by the loader (ld.so(8)).
    if program.starts_with("ld-") || program == "ld.so" {
        program = arguments
            .by_ref()
            .filter_map(name_of)
            .find(|name| PROGRAMS.contains(&name.as_str()))?;
    }
    if !PROGRAMS.contains(&program.as_str()) {
        return None;
    }
    let mut data_dir = None;
    let mut node = RunningNode {
        data_dir: PathBuf::new(),
        network: None,
        rpc_port: None,
        cookie_file: None,
        blocks_dir: None,
        is_silent: program.ends_with("-qt") || program.ends_with("-gui"),
    };
    // As in its file the last one counts on the command line (`ArgsManager::GetArg`); one dash or two.
    for argument in arguments {
        let Some(argument) = argument.to_str().and_then(|text| text.strip_prefix('-')) else {
            continue;
        };
        let argument = argument.strip_prefix('-').unwrap_or(argument);
        let (key, value) = argument.split_once('=').unwrap_or((argument, "1"));
        let is_on = value != "0";
        match key {
            "datadir" => data_dir = Some(started_in.unwrap_or(Path::new("")).join(value)),
            "rpcport" => node.rpc_port = value.parse().ok(),
            "rpccookiefile" => node.cookie_file = Some(value.into()),
            "blocksdir" => node.blocks_dir = Some(started_in.unwrap_or(Path::new("")).join(value)),
            "server" => node.is_silent = !is_on,
            "noserver" => node.is_silent = is_on,
            "chain" => node.network = network_of_chain(value),
            "testnet" if is_on => node.network = Some(Network::Testnet),
            "testnet4" if is_on => node.network = Some(Network::Testnet4),
            "signet" if is_on => node.network = Some(Network::Signet),
            "regtest" if is_on => node.network = Some(Network::Regtest),
            _ => {}
        }
    }
    node.data_dir = match data_dir {
        Some(dir) => dir,
        None => home()?.join(".bitcoin"),
    };
    let network = node.network.unwrap_or(Network::Bitcoin);
    // A relative cookie file lies in the network's folder.
    let folder = network_folder(&node.data_dir, network);
    node.cookie_file = node.cookie_file.map(|file| folder.join(file));
    node.blocks_dir = node
        .blocks_dir
        .map(|dir| network_folder(&dir, network).join("blocks"));
    Some(node)
}

/// Of passwd(5): `name:password:uid:gid:comment:home:shell`.
fn home_of(user: u32, passwd: &str) -> Option<PathBuf> {
    let fields = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let mut homes =
        fields.filter_map(|fields| Some((fields.get(2)?.parse().ok()?, *fields.get(5)?)));
    let (_, home) = homes.find(|(uid, _): &(u32, _)| *uid == user)?;
    Some(home.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(arguments: &[&str]) -> Option<RunningNode> {
        let command: Vec<u8> = arguments
            .iter()
            .flat_map(|argument| [argument.as_bytes(), &[0]].concat())
            .collect();
        of_command(&command, Some(Path::new("/srv")), || Some("/home/a".into()))
    }

    #[test]
    fn a_node_is_told_by_the_options_that_lead_to_it() {
        for (arguments, options) in [
            (&["bitcoind"][..], "--daemon-dir /home/a/.bitcoin"),
            (
                &["/usr/bin/bitcoind", "-datadir=/x", "-daemon"],
                "--daemon-dir /x",
            ),
            (
                &[
                    "/lib64/ld-linux-x86-64.so.2",
                    "--library-path",
                    "/a:/b",
                    "/x/bitcoind",
                    "-datadir=/y",
                ],
                "--daemon-dir /y",
            ),
            (
                &["bitcoind", "--datadir=btc", "-rpcport=1", "-rpcport=2"],
                "--daemon-dir /srv/btc --daemon-rpc-url http://127.0.0.1:2",
            ),
            (
                &["bitcoin-qt", "-signet", "-rpccookiefile=c", "-blocksdir=/b"],
                "--daemon-dir /home/a/.bitcoin --cookie-file /home/a/.bitcoin/signet/c --blocks-dir /b/signet/blocks",
            ),
            (
                &[
                    "bitcoind",
                    "-chain=main",
                    "-blocksdir=/b",
                    "-rpcpassword=secret",
                ],
                "--daemon-dir /home/a/.bitcoin --blocks-dir /b/blocks",
            ),
        ] {
            let node = seen(arguments).expect("a node");
            assert_eq!(node.options(), options, "{arguments:?}");
        }
    }

    #[test]
    fn what_is_no_bitcoind_is_none() {
        assert_eq!(seen(&["/usr/bin/bitcoin-cli", "-datadir=/x"]), None);
        assert_eq!(seen(&["vim", "bitcoind"]), None);
        assert_eq!(seen(&["/lib/ld.so", "/bin/vim"]), None);
        assert_eq!(seen(&[]), None);
        assert_eq!(of_command(b"", None, || None), None);
        assert_eq!(of_command(b"bitcoind\0", None, || None), None);
    }

    #[test]
    fn a_node_without_rpc_is_known_as_one() {
        let silent = |arguments: &[&str]| seen(arguments).expect("a node").is_silent;
        assert!(!silent(&["bitcoind"]));
        assert!(silent(&["bitcoind", "-server=0"]));
        assert!(silent(&["bitcoind", "-noserver"]));
        assert!(silent(&["bitcoin-qt"]));
        assert!(!silent(&["bitcoin-qt", "-server"]));
    }

    #[test]
    fn a_users_home_is_in_the_sixth_field() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\na:x:1000:1000:,,,:/home/a:/bin/sh\n";
        assert_eq!(home_of(1000, passwd), Some("/home/a".into()));
        assert_eq!(home_of(1, passwd), None);
    }
}
