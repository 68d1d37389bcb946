//! What the node says, and how its blocks can be read.

use std::{
    io::ErrorKind,
    net::{TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bitcoin::Network;
use serde_json::json;

use super::{Check, rights};
use crate::{
    config::{BlockSourceChoice, Config, network_name},
    daemon::{
        discover::{DiscoverError, NodeLocation},
        files::{BlockFiles, FilesError},
        rest::Rest,
        rpc::{ChainInfo, NetworkInfo, Rpc, RpcAuth, RpcConfig, RpcError},
        running::running_nodes,
    },
    joiner::node::{belong_to, host_of, nodes_nearby},
    sync::start::{downloaded, is_downloading},
};

/// For each question; a node that is well answers at once.
const TIMEOUT: Duration = Duration::from_secs(10);

/// For a connection to a ZMQ port on this machine.
const ZMQ_TIMEOUT: Duration = Duration::from_secs(2);

/// Bitcoin Core tells by RPC what blocks spend from this version on (`getblock` 3).
const VERSION_SPENT: u32 = 230_000;

/// Blocks may be dated two hours ahead (Bitcoin Core's `MAX_FUTURE_BLOCK_TIME`).
const AHEAD_MAX: u64 = 2 * 3600;
/// On main a gap of so many seconds between blocks is rarer than one in sixty million.
const AGE_MAX: u64 = 3 * 3600;

const ZMQ_HASHBLOCK: &str = "bitcoin.conf: zmqpubhashblock=tcp://127.0.0.1:28332";
const ZMQ_SEQUENCE: &str = "bitcoin.conf: zmqpubsequence=tcp://127.0.0.1:28332";

/// The words say what to do: [`DiscoverError`] ends with it.
pub(super) fn not_found(error: &DiscoverError) -> Check {
    let name = match error {
        DiscoverError::NoAnswer { tried } if is_refused(tried) => "cookie",
        DiscoverError::CookieUnreadable { .. }
        | DiscoverError::NoCredentials { .. }
        | DiscoverError::WrongLogin { .. } => "cookie",
        DiscoverError::WrongNetwork { .. } | DiscoverError::UnknownChain { .. } => "network",
        DiscoverError::NoDataDir { .. }
        | DiscoverError::DataDirClosed { .. }
        | DiscoverError::NoCookie { .. }
        | DiscoverError::NoAnswer { .. } => "node",
    };
    let usual = match error {
        DiscoverError::NoDataDir { .. } => {
            "ambra --daemon-dir DIR, or --daemon-rpc-url http://HOST:PORT with --rpc-user and --rpc-password".to_owned()
        }
        DiscoverError::DataDirClosed { path, .. } => {
            let way = rights::way_to(path);
            let mut lines = vec![way.unwrap_or_else(|| format!("ls -ld {}", rights::quoted(path)))];
            rights::with_setfacl(&mut lines);
            lines.join("\n")
        }
        DiscoverError::NoCookie { .. } => {
            "bitcoind -daemon, or ambra --daemon-dir DIR, or --cookie-file FILE".to_owned()
        }
        DiscoverError::CookieUnreadable { path, .. } => open_cookie(path),
        DiscoverError::NoCredentials { .. } => {
            "ambra --rpc-user USER --rpc-password PASSWORD, or --cookie-file FILE".to_owned()
        }
        DiscoverError::WrongLogin { .. } => {
            "the --rpc-user and --rpc-password of bitcoin.conf, or neither: the cookie needs none".to_owned()
        }
        DiscoverError::NoAnswer { tried } if is_refused(tried) => {
            "bitcoin-cli stop, then bitcoind -daemon: it still runs with another rpcpassword than bitcoin.conf says now"
                .to_owned()
        }
        DiscoverError::NoAnswer { tried } if tried.iter().any(|(_, error)| error.is_starting()) => {
            "wait: Ambra begins by itself when the node is ready".to_owned()
        }
        DiscoverError::NoAnswer { .. } => {
            "bitcoind -daemon (bitcoin.conf: server=1), and see that --daemon-rpc-url and rpcport are the same".to_owned()
        }
        DiscoverError::WrongNetwork { .. } => {
            "leave --network out, or --daemon-rpc-url of the other node".to_owned()
        }
        DiscoverError::UnknownChain { .. } => "bitcoin.conf: chain=main".to_owned(),
    };
    // Better than a guess: what leads to the node that runs.
    let nearby = match error {
        DiscoverError::NoDataDir { .. } | DiscoverError::NoCookie { .. } => nodes_nearby(),
        _ => Vec::new(),
    };
    let mend = match nearby.is_empty() {
        true => usual,
        false => nearby.join("\n"),
    };
    Check::fail(name, error.to_string(), mend)
}

fn is_refused(tried: &[(String, RpcError)]) -> bool {
    tried
        .iter()
        .any(|(_, error)| matches!(error, RpcError::WrongLogin(_)))
}

/// bitcoind writes it anew at each start, with the mode that `rpccookieperms` says; so its folder, its mode and the
/// group have to let this user in.
fn open_cookie(cookie: &Path) -> String {
    let mut lines: Vec<String> = rights::way_to(cookie).into_iter().collect();
    lines.push("bitcoin.conf: rpccookieperms=group, then restart bitcoind".to_owned());
    lines.push(format!(
        "sudo usermod -aG \"$(sudo stat -c %G {})\" {}, then log in again",
        rights::quoted(cookie),
        rights::user()
    ));
    rights::with_setfacl(&mut lines);
    lines.join("\n")
}

/// Looks at a node that answers; the number of its transactions, where it knows.
pub(super) fn look(config: &Config, node: &NodeLocation, checks: &mut Vec<Check>) -> Option<u64> {
    let rpc = Rpc::new(RpcConfig {
        url: node.rpc_url.clone(),
        auth: node.auth.clone(),
        timeout: TIMEOUT,
    });
    let (chain, net) = match (rpc.blockchain_info(), rpc.network_info()) {
        (Ok(chain), Ok(net)) => (chain, net),
        (Err(error), _) | (_, Err(error)) => {
            checks.push(Check::fail(
                "node",
                error.to_string(),
                "wait until bitcoind has started, then ask again",
            ));
            return None;
        }
    };
    checks.push(Check::ok(
        "node",
        format!("{} at {}", net.subversion, node.rpc_url),
    ));
    checks.push(Check::ok(
        "cookie",
        match &node.auth {
            RpcAuth::CookieFile(path) => format!("{} can be read", path.display()),
            RpcAuth::UserPass(..) => "not needed: user and password".to_owned(),
        },
    ));
    let network = network_name(node.network);
    checks.push(Check::ok("network", network));
    checks.push(chain_check(&chain, node.network));
    checks.push(pruned(&chain));
    let kind = blocks(config, node, &rpc, &net, checks);
    checks.push(rest(config, node, kind));
    checks.push(zmq(&rpc));
    if let Some(check) = clock(&rpc, &chain, &net, node.network) {
        checks.push(check);
    }
    let stats = rpc.call("getchaintxstats", &[]).ok()?;
    stats["txcount"].as_u64()
}

fn chain_check(chain: &ChainInfo, network: Network) -> Check {
    let at = format!("block {} of {}", chain.blocks, chain.headers);
    match is_downloading(chain, network) {
        true => Check::warn(
            "chain",
            format!(
                "{at}: the node is still downloading ({:.1} %)",
                downloaded(chain) * 100.0
            ),
            "wait: Ambra begins by itself when the node is done",
        ),
        false => Check::ok("chain", at),
    }
}

fn pruned(chain: &ChainInfo) -> Check {
    match (chain.pruned, chain.prune_height) {
        (false, _) => Check::ok("pruned", "no: the node has all blocks"),
        (true, Some(lowest)) if lowest > 0 => Check::fail(
            "pruned",
            format!(
                "the node is pruned: its blocks below {lowest} are gone, and the index needs them all"
            ),
            "bitcoin.conf: prune=0, then start bitcoind once with -reindex (it downloads the chain again)",
        ),
        (true, _) => Check::warn(
            "pruned",
            "the node prunes: it has all blocks still, and will lose them",
            "bitcoin.conf: prune=0",
        ),
    }
}

/// What the block files are good for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocks {
    ByFiles,
    ByNode,
}

fn blocks(
    config: &Config,
    node: &NodeLocation,
    rpc: &Rpc,
    net: &NetworkInfo,
    checks: &mut Vec<Check>,
) -> Blocks {
    const NAME: &str = "block files";
    let wants_files = match config.block_source {
        BlockSourceChoice::Auto | BlockSourceChoice::Files => true,
        BlockSourceChoice::Rest | BlockSourceChoice::Rpc => false,
    };
    if !wants_files {
        checks.push(Check::ok(NAME, "not used: --block-source says so"));
        return Blocks::ByNode;
    }
    let Some(folder) = &node.blocks_dir else {
        checks.push(worse(
            config,
            net,
            "not on this machine, or elsewhere: blocks are asked of the node, which is slower"
                .to_owned(),
            "ambra --blocks-dir DIR, if they are on this machine".to_owned(),
        ));
        return Blocks::ByNode;
    };
    let opened = BlockFiles::open(folder).map_err(|error| {
        let mend = match &error {
            FilesError::Read { cause, .. } if cause.kind() == ErrorKind::PermissionDenied => {
                open_blocks(folder)
            }
            FilesError::NoFiles { .. } => no_blocks(rpc.url()),
            FilesError::Read { .. } | FilesError::Damaged { .. } => {
                "ambra --blocks-dir DIR, if they are elsewhere on this machine".to_owned()
            }
        };
        (error.to_string(), mend)
    });
    let opened = opened.and_then(|files| match belong_to(&files, rpc) {
        Ok(()) => Ok(files),
        Err(error) => Err((error.0, no_blocks(rpc.url()))),
    });
    match opened {
        Ok(files) => {
            let xor = match files.is_xored() {
                true => "XORed",
                false => "not XORed",
            };
            checks.push(Check::ok(
                NAME,
                format!("{} can be read, {xor}", folder.display()),
            ));
            Blocks::ByFiles
        }
        Err((why, mend)) => {
            let says = match config.block_source {
                BlockSourceChoice::Files => format!("{why}; --block-source asks for them"),
                _ => format!("{why}; blocks are asked of the node, which is slower"),
            };
            checks.push(worse(config, net, says, mend));
            Blocks::ByNode
        }
    }
}

/// With a default that files inherit which come later.
fn open_blocks(folder: &Path) -> String {
    let (user, place) = (rights::user(), rights::quoted(folder));
    let mut lines: Vec<String> = rights::way_to(folder).into_iter().collect();
    lines.push(format!(
        "sudo setfacl -R -m u:{user}:rX -m d:u:{user}:rX {place}"
    ));
    rights::with_setfacl(&mut lines);
    lines.join("\n")
}

/// Where they were moved with an option of bitcoind's own command line, which can be seen.
fn no_blocks(rpc_url: &str) -> String {
    let moved: Vec<PathBuf> = running_nodes()
        .into_iter()
        .filter(|node| node.answers_at(rpc_url))
        .filter_map(|node| node.blocks_dir)
        .collect();
    match &moved[..] {
        [] => "ambra --blocks-dir DIR: the folder of the node's blk*.dat".to_owned(),
        moved => {
            let line = |folder: &PathBuf| format!("ambra --blocks-dir {}", rights::quoted(folder));
            moved.iter().map(line).collect::<Vec<_>>().join("\n")
        }
    }
}

/// Without files: no more than slow, unless they were asked for, or the node is too old for the other ways.
fn worse(config: &Config, net: &NetworkInfo, says: String, mend: String) -> Check {
    const NAME: &str = "block files";
    if config.block_source == BlockSourceChoice::Files || net.version < VERSION_SPENT {
        Check::fail(NAME, says, mend)
    } else {
        Check::warn(NAME, says, mend)
    }
}

fn rest(config: &Config, node: &NodeLocation, blocks: Blocks) -> Check {
    const NAME: &str = "REST";
    const MEND: &str = "bitcoin.conf: rest=1";
    let is_wanted = config.block_source == BlockSourceChoice::Rest;
    match Rest::with_timeout(&node.rpc_url, TIMEOUT).available() {
        Ok(true) => Check::ok(NAME, "on, with what blocks spend"),
        Ok(false) | Err(RpcError::Refused { .. }) if is_wanted => Check::fail(
            NAME,
            "off, or older than Bitcoin Core 30, and --block-source asks for it",
            MEND,
        ),
        _ if blocks == Blocks::ByFiles => Check::ok(NAME, "off; not needed beside block files"),
        Ok(false) | Err(RpcError::Refused { .. }) => Check::warn(
            NAME,
            "off, or older than Bitcoin Core 30: blocks come by RPC, the slowest way",
            MEND,
        ),
        Err(error) => Check::warn(NAME, error.to_string(), MEND),
    }
}

fn zmq(rpc: &Rpc) -> Check {
    const NAME: &str = "ZMQ";
    let notifications = match rpc.zmq_notifications() {
        Ok(notifications) => notifications,
        Err(error) => return Check::warn(NAME, error.to_string(), ZMQ_SEQUENCE),
    };
    let has = |kind: &str| notifications.iter().any(|one| one.kind == kind);
    // It tells of blocks too. Without either, blocks are waited for by RPC and come at once all the same.
    if !has("pubsequence") {
        const LATE: &str = "new payments are asked for every few seconds";
        let (lacks, mend) = match has("pubhashblock") {
            true => ("pubsequence", ZMQ_SEQUENCE.to_owned()),
            false => (
                "pubhashblock and no pubsequence",
                format!("{ZMQ_HASHBLOCK}\n{ZMQ_SEQUENCE}"),
            ),
        };
        return Check::warn(NAME, format!("the node publishes no {lacks}: {LATE}"), mend);
    }
    let silent = notifications
        .iter()
        .filter_map(|one| one.address.strip_prefix("tcp://"))
        .map(|address| match address.rsplit_once(':') {
            Some(("0.0.0.0" | "*" | "[::]", port)) => format!("{}:{port}", host_of(rpc.url())),
            _ => address.to_owned(),
        })
        .find(|address| !can_connect(address));
    match silent {
        Some(address) => Check::warn(
            NAME,
            format!("{address} takes no connection"),
            "see that no firewall stands between, and that bitcoin.conf names an address that can be reached",
        ),
        None => Check::ok(NAME, "on, blocks and mempool"),
    }
}

fn can_connect(address: &str) -> bool {
    let Ok(mut addresses) = address.to_socket_addrs() else {
        return false;
    };
    addresses.any(|address| TcpStream::connect_timeout(&address, ZMQ_TIMEOUT).is_ok())
}

/// The clock against the newest block's time.
fn clock(rpc: &Rpc, chain: &ChainInfo, net: &NetworkInfo, network: Network) -> Option<Check> {
    let header = rpc.call("getblockheader", &[json!(chain.best_block_hash)]);
    let time = header.ok()?["time"].as_u64()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(clock_check(now, time, net.connections, network))
}

fn clock_check(now: u64, block: u64, peers: u32, network: Network) -> Check {
    const NAME: &str = "clock";
    const MEND: &str = "sudo timedatectl set-ntp true";
    if block > now + AHEAD_MAX {
        let hours = (block - now) / 3600;
        return Check::fail(
            NAME,
            format!("this machine's clock is {hours} hours behind the newest block"),
            MEND,
        );
    }
    let age = now.saturating_sub(block);
    if age > AGE_MAX && network == Network::Bitcoin {
        let hours = age / 3600;
        return Check::warn(
            NAME,
            format!(
                "the newest block is {hours} hours old, the node has {peers} peers: it is not in step with the world, or \
                 this machine's clock is ahead"
            ),
            "bitcoin-cli getconnectioncount; timedatectl",
        );
    }
    Check::ok(NAME, "fits the newest block's time")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::joiner::doctor::Level;

    fn chain(members: &str) -> ChainInfo {
        chain_at(5, 100, members)
    }

    fn chain_at(blocks: u32, headers: u32, members: &str) -> ChainInfo {
        let zeros = "0".repeat(64);
        let text = format!(
            r#"{{"chain":"main","blocks":{blocks},"headers":{headers},"bestblockhash":"{zeros}","verificationprogress":0.5,
            "initialblockdownload":{members}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_node_that_still_downloads_is_waited_for_and_no_fault() {
        let check = |members, network| chain_check(&chain(members), network);
        let behind = check("true", Network::Bitcoin);
        assert_eq!(behind.level, Level::Warn);
        assert!(behind.says.contains("(5.0 %)"), "{behind:?}");
        assert_eq!(check("true", Network::Regtest).level, Level::Warn);
        assert_eq!(check("false", Network::Bitcoin).level, Level::Ok);
        // After a day without power a node calls itself so until the next block; Ambra serves meanwhile.
        let is_all_there = chain_check(&chain_at(100, 100, "true"), Network::Bitcoin);
        assert_eq!(is_all_there.level, Level::Ok);
        let has_none = |network| chain_check(&chain_at(0, 0, "true"), network).level;
        assert_eq!(has_none(Network::Bitcoin), Level::Warn);
        assert_eq!(has_none(Network::Regtest), Level::Ok);
    }

    #[test]
    fn a_node_that_prunes_is_a_fault_once_blocks_are_gone() {
        let level = |members| pruned(&chain(members)).level;
        assert_eq!(level("false"), Level::Ok);
        assert_eq!(level(r#"false,"pruned":true"#), Level::Warn);
        assert_eq!(level(r#"false,"pruned":true,"pruneheight":0"#), Level::Warn);
        assert_eq!(level(r#"false,"pruned":true,"pruneheight":3"#), Level::Fail);
    }

    #[test]
    fn what_mends_a_node_that_does_not_answer_follows_from_its_words() {
        let mend = |error: RpcError| {
            let tried = vec![("http://127.0.0.1:8332".to_owned(), error)];
            let check = not_found(&DiscoverError::NoAnswer { tried });
            (check.name, check.mend.unwrap())
        };
        let (name, line) = mend(RpcError::Unavailable(
            "the node is starting: Verifying".into(),
        ));
        assert_eq!(name, "node");
        assert!(line.starts_with("wait"), "{line}");
        let (name, line) = mend(RpcError::WrongLogin("no".into()));
        assert_eq!(name, "cookie");
        assert!(line.contains("another rpcpassword"), "{line}");
        let (_, line) = mend(RpcError::Unavailable("nothing listens".into()));
        assert!(line.starts_with("bitcoind -daemon"), "{line}");
    }

    #[test]
    fn the_clock_is_held_against_the_newest_block() {
        let level = |now, block, network| clock_check(now, block, 8, network).level;
        let (day, hour) = (86_400, 3_600);
        assert_eq!(level(day, day + hour, Network::Bitcoin), Level::Ok);
        assert_eq!(level(day, day + 3 * hour, Network::Bitcoin), Level::Fail);
        assert_eq!(level(day, day - 2 * hour, Network::Bitcoin), Level::Ok);
        assert_eq!(level(day, day - 4 * hour, Network::Bitcoin), Level::Warn);
        assert_eq!(level(day, 0, Network::Regtest), Level::Ok);
    }
}
