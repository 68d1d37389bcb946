//! `bitcoin.conf`, read for what it tells of where the node is.
//!
//! A file that bitcoind itself would refuse is no error here: bitcoind says what is wrong with it.
use std::{
    io::Read,
    path::{Path, PathBuf},
};

use bitcoin::Network;

const FILE_NAME: &str = "bitcoin.conf";
/// Longest file that is read; more than a person writes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most `includeconf` lines that are followed.
const INCLUDES_MAX: usize = 32;

/// Options that count for main alone when they stand outside a section
/// (Bitcoin Core's `ArgsManager::NETWORK_ONLY`).
const NETWORK_ONLY: [&str; 2] = ["rpcport", "rpcbind"];

/// The lines of the file and of what it includes, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BitcoinConf {
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// `None` outside of all sections.
    section: Option<String>,
    key: String,
    value: String,
}

impl BitcoinConf {
    /// The file in the data directory, as a node of this network sees it (`None`: before the network is
    /// chosen). Empty where there is none or it cannot be read.
    pub fn load(data_dir: &Path, network: Option<Network>) -> Self {
        let mut conf = Self::parse(&read(&data_dir.join(FILE_NAME)));
        let includes: Vec<PathBuf> = conf
            .lines_of(network)
            .filter(|line| line.key == "includeconf")
            .take(INCLUDES_MAX)
            .map(|line| data_dir.join(&line.value))
            .collect();
        // Bitcoin Core follows includes one level deep, and puts them after the file.
        for path in includes {
            conf.lines.extend(Self::parse(&read(&path)).lines);
        }
        conf
    }

    /// As Bitcoin Core's `GetConfigOptions`: `#` starts a comment anywhere, `[x]` a section, and
    /// `x.key=value` is a line of section x.
    pub fn parse(text: &str) -> Self {
        let mut lines = Vec::new();
        let mut section: Option<String> = None;
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let header = line.strip_prefix('[').and_then(|l| l.strip_suffix(']'));
            if let Some(name) = header {
                section = Some(name.to_owned());
            } else if let Some((key, value)) = line.split_once('=') {
                let (key, value) = (key.trim(), value.trim());
                let (section, key) = match key.split_once('.') {
                    Some((section, key)) => (Some(section.to_owned()), key),
                    None => (section.clone(), key),
                };
                // noX=1 is X=0, noX=0 is X=1.
                let (key, value) = match (key.strip_prefix("no"), value) {
                    (Some(key), "0") => (key, "1"),
                    (Some(key), _) => (key, "0"),
                    (None, value) => (key, value),
                };
                lines.push(Line {
                    section,
                    key: key.to_owned(),
                    value: value.to_owned(),
                });
            }
        }
        Self { lines }
    }

    /// The network that bitcoind starts on with this file, where the file says one.
    pub fn network(&self) -> Option<Network> {
        let flags = [
            ("testnet", Network::Testnet),
            ("testnet4", Network::Testnet4),
            ("signet", Network::Signet),
            ("regtest", Network::Regtest),
        ];
        let by_name = self.get(None, "chain").and_then(network_of_chain);
        by_name.or_else(|| {
            flags
                .into_iter()
                .find(|(key, _)| self.get(None, key).is_some_and(is_true))
                .map(|(_, network)| network)
        })
    }

    /// The first value counts, and the network's section goes before the lines outside.
    pub fn get(&self, network: Option<Network>, key: &str) -> Option<&str> {
        self.lines_of(network)
            .find(|line| line.key == key)
            .map(|line| line.value.as_str())
    }

    /// The lines that count for a network: its section's, then those outside of all sections.
    fn lines_of(&self, network: Option<Network>) -> impl Iterator<Item = &Line> {
        let section = network.map(Network::to_core_arg);
        let elsewhere = !matches!(network, None | Some(Network::Bitcoin));
        let inside = self
            .lines
            .iter()
            .filter(move |line| section.is_some() && line.section.as_deref() == section);
        let outside = self.lines.iter().filter(move |line| {
            line.section.is_none() && !(elsewhere && NETWORK_ONLY.contains(&line.key.as_str()))
        });
        inside.chain(outside)
    }
}

/// The network that `getblockchaininfo` and `chain=` call so.
pub(super) fn network_of_chain(name: &str) -> Option<Network> {
    Network::from_core_arg(name).ok()
}

/// As Bitcoin Core's `InterpretBool`: empty is true, else it is a number.
fn is_true(value: &str) -> bool {
    value.is_empty() || value.parse::<i64>().is_ok_and(|n| n != 0)
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|f| f.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
# a comment
server=1
rpcport = 1111   # of main alone
rpcuser=alice
regtest.rpcport=2222
datadir=/srv/one
datadir=/srv/two
norest=1
[signet]
rpcport=3333
rpcuser=bob
[test]
rpcport=4444
";

    #[test]
    fn a_section_goes_before_the_lines_outside() {
        let conf = BitcoinConf::parse(FILE);
        assert_eq!(conf.get(Some(Network::Signet), "rpcuser"), Some("bob"));
        assert_eq!(conf.get(Some(Network::Regtest), "rpcuser"), Some("alice"));
        assert_eq!(conf.get(Some(Network::Testnet), "rpcport"), Some("4444"));
    }

    #[test]
    fn a_port_outside_of_all_sections_is_for_main_alone() {
        let conf = BitcoinConf::parse(FILE);
        assert_eq!(conf.get(Some(Network::Bitcoin), "rpcport"), Some("1111"));
        assert_eq!(conf.get(Some(Network::Regtest), "rpcport"), Some("2222"));
        assert_eq!(conf.get(Some(Network::Testnet4), "rpcport"), None);
    }

    #[test]
    fn the_first_value_counts_and_no_negates() {
        let conf = BitcoinConf::parse(FILE);
        assert_eq!(conf.get(None, "datadir"), Some("/srv/one"));
        assert_eq!(conf.get(None, "rest"), Some("0"));
    }

    #[test]
    fn the_network_is_told_by_chain_or_by_its_flag() {
        for (text, network) in [
            ("", None),
            ("chain=test", Some(Network::Testnet)),
            ("chain=signet", Some(Network::Signet)),
            ("testnet4=1", Some(Network::Testnet4)),
            ("regtest=", Some(Network::Regtest)),
            ("regtest=0", None),
            ("noregtest=0", Some(Network::Regtest)),
            ("[regtest]\nsignet=1", None),
        ] {
            assert_eq!(BitcoinConf::parse(text).network(), network, "{text}");
        }
    }

    #[test]
    fn included_files_come_after_the_file_that_includes_them() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(
            "bitcoin.conf",
            "includeconf=all.conf\nrpcuser=main\n[signet]\nincludeconf=signet.conf\n",
        );
        write("all.conf", "rpcuser=all\nrpcpassword=all\n");
        write("signet.conf", "blocksdir=/signet\n");
        let signet = BitcoinConf::load(dir.path(), Some(Network::Signet));
        assert_eq!(signet.get(Some(Network::Signet), "rpcuser"), Some("main"));
        assert_eq!(
            signet.get(Some(Network::Signet), "rpcpassword"),
            Some("all")
        );
        assert_eq!(
            signet.get(Some(Network::Signet), "blocksdir"),
            Some("/signet")
        );
        let main = BitcoinConf::load(dir.path(), Some(Network::Bitcoin));
        assert_eq!(main.get(Some(Network::Bitcoin), "blocksdir"), None);
    }

    #[test]
    fn no_file_is_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(BitcoinConf::load(dir.path(), None), BitcoinConf::default());
    }
}
