//! `ambra address`: what is known of one address, as a table or as JSON.

use std::{fmt, str::FromStr};

use bitcoin::{Address, Amount, Network, SignedAmount, address::NetworkUnchecked, hex::FromHex};
use serde::{Deserialize, Serialize};

use crate::{
    chain::ScriptHash,
    state::{Ask, QueryError, View},
};

/// Why a text names no script of the network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error(
        "this is an address of {of}, and the index is {wanted}'s: say the other network with --network"
    )]
    OtherNetwork {
        of: &'static str,
        wanted: &'static str,
    },
    #[error(
        "this is no address: give one as your wallet shows it, a script in hexadecimal, or a script hash of 64 digits"
    )]
    None,
}

/// What `getblockchaininfo` calls it, in the words of options.
fn name(network: Network) -> &'static str {
    match network {
        Network::Bitcoin => "main",
        Network::Testnet => "testnet",
        Network::Testnet4 => "testnet4",
        Network::Signet => "signet",
        Network::Regtest => "regtest",
    }
}

/// The script that is meant: by its address, its bytes in hexadecimal, or its hash as the protocol shows it. 64 digits
/// are a hash: no usual script has 32 bytes.
pub fn script_hash(text: &str, network: Network) -> Result<ScriptHash, AddressError> {
    if let Ok(hash) = text.parse::<ScriptHash>() {
        return Ok(hash);
    }
    if let Ok(address) = Address::<NetworkUnchecked>::from_str(text) {
        let valid = |network: &Network| address.is_valid_for_network(*network);
        if valid(&network) {
            let script = address.assume_checked().script_pubkey();
            return Ok(ScriptHash::new(script.as_bytes()));
        }
        // Testnets share their prefixes; the first one names them all.
        let of = [Network::Bitcoin, Network::Testnet, Network::Regtest];
        let of = of.iter().find(|network| valid(network));
        return Err(AddressError::OtherNetwork {
            of: of.map_or("another network", |network| name(*network)),
            wanted: name(network),
        });
    }
    match Vec::<u8>::from_hex(text) {
        Ok(script) if !script.is_empty() => Ok(ScriptHash::new(&script)),
        Ok(_) | Err(_) => Err(AddressError::None),
    }
}

/// All that is told; amounts in satoshis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressReport {
    pub script_hash: String,
    /// The block that the answer is true of.
    pub tip_height: u32,
    pub tip_hash: String,
    /// False where the mempool was not looked at: then nothing unconfirmed is told.
    pub knows_mempool: bool,
    pub confirmed: u64,
    /// A difference, and may be negative.
    pub unconfirmed: i64,
    pub history: Vec<HistoryLine>,
    pub unspent: Vec<UnspentLine>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryLine {
    pub txid: String,
    /// 0 of an unconfirmed transaction, −1 of one with an unconfirmed input.
    pub height: i64,
    /// Of an unconfirmed transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fee: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnspentLine {
    pub txid: String,
    pub vout: u32,
    pub value: u64,
    /// 0 of an unconfirmed transaction.
    pub height: u32,
}

impl AddressReport {
    /// All from one View, so all of one moment.
    pub fn of(
        view: &View,
        script: &ScriptHash,
        knows_mempool: bool,
    ) -> Result<AddressReport, QueryError> {
        let ask = Ask::default();
        let tip = view.tip();
        let balance = view.balance(script, &ask)?;
        let history = view.history(script, &ask)?;
        let confirmed = history.confirmed.iter().map(|entry| HistoryLine {
            txid: entry.txid.to_string(),
            height: entry.height.into(),
            fee: None,
        });
        let unconfirmed = history.mempool.iter().map(|entry| HistoryLine {
            txid: entry.txid.to_string(),
            height: entry.height().into(),
            fee: Some(entry.fee),
        });
        let unspent = view.unspent(script, &ask)?;
        Ok(AddressReport {
            script_hash: script.to_string(),
            tip_height: tip.height,
            tip_hash: tip.hash.to_string(),
            knows_mempool,
            confirmed: balance.confirmed,
            unconfirmed: balance.unconfirmed,
            history: confirmed.chain(unconfirmed).collect(),
            unspent: unspent
                .iter()
                .map(|coin| UnspentLine {
                    txid: coin.txid.to_string(),
                    vout: coin.vout,
                    value: coin.value,
                    height: coin.height,
                })
                .collect(),
        })
    }
}

/// As a table, amounts in BTC.
impl fmt::Display for AddressReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let btc = |satoshis: u64| {
            let amount = Amount::from_sat(satoshis);
            format!("{:.8}", amount.display_in(bitcoin::Denomination::Bitcoin))
        };
        let height = |height: i64| match height {
            ..=0 => "unconfirmed".to_owned(),
            height => height.to_string(),
        };
        writeln!(f, "as of block   {} {}", self.tip_height, self.tip_hash)?;
        writeln!(f, "script hash   {}", self.script_hash)?;
        writeln!(f, "confirmed     {} BTC", btc(self.confirmed))?;
        if self.knows_mempool {
            let unconfirmed = SignedAmount::from_sat(self.unconfirmed);
            let unconfirmed = unconfirmed.display_in(bitcoin::Denomination::Bitcoin);
            writeln!(f, "unconfirmed   {unconfirmed:+.8} BTC")?;
        } else {
            writeln!(
                f,
                "unconfirmed   not known: no Ambra serves, and the index has confirmed transactions only"
            )?;
        }
        writeln!(f, "\nhistory: {}", self.history.len())?;
        if !self.history.is_empty() {
            writeln!(f, "{:>11}  transaction", "height")?;
        }
        for line in &self.history {
            write!(f, "{:>11}  {}", height(line.height), line.txid)?;
            match line.fee {
                Some(fee) => writeln!(f, "  fee {} BTC", btc(fee))?,
                None => writeln!(f)?,
            }
        }
        writeln!(f, "\nunspent: {}", self.unspent.len())?;
        if !self.unspent.is_empty() {
            writeln!(f, "{:>11}  {:>17}  output", "height", "BTC")?;
        }
        for line in &self.unspent {
            let height = height(line.height.into());
            let value = btc(line.value);
            writeln!(f, "{height:>11}  {value:>17}  {}:{}", line.txid, line.vout)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address of the protocol's example of a script hash, on each network.
    const SCRIPT: &str = "76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac";
    const HASH: &str = "8b01df4e368ea28f8dc0423bcf7a4923e3a12d307c875e47a0cfbf90b5c39161";
    const MAIN: &str = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa";
    /// Of BIP 173's example key, as regtest writes it.
    const REGTEST: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
    const TESTNETS: &str = "mpXwg4jMtRhuSpVq4xS3HFHmCmWp9NyGKt";

    #[test]
    fn a_script_is_named_by_its_address_its_bytes_or_its_hash() {
        let wanted = HASH.parse().unwrap();
        for text in [MAIN, SCRIPT, HASH] {
            assert_eq!(script_hash(text, Network::Bitcoin), Ok(wanted), "{text}");
        }
        for network in [
            Network::Testnet,
            Network::Testnet4,
            Network::Signet,
            Network::Regtest,
        ] {
            assert_eq!(script_hash(TESTNETS, network), Ok(wanted), "{network}");
        }
    }

    #[test]
    fn an_address_of_another_network_is_refused_with_both_names() {
        for (text, network, of, wanted) in [
            (MAIN, Network::Regtest, "main", "regtest"),
            (TESTNETS, Network::Bitcoin, "testnet", "main"),
            (REGTEST, Network::Signet, "regtest", "signet"),
        ] {
            let error = AddressError::OtherNetwork { of, wanted };
            assert_eq!(script_hash(text, network), Err(error), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "bc1q", "xyz", "123", &MAIN[1..]] {
            assert_eq!(
                script_hash(text, Network::Bitcoin),
                Err(AddressError::None),
                "{text}"
            );
        }
    }

    #[test]
    fn amounts_have_eight_digits_in_the_table_and_are_satoshis_in_json() {
        let report = AddressReport {
            script_hash: HASH.to_owned(),
            tip_height: 7,
            tip_hash: "00".to_owned(),
            knows_mempool: true,
            confirmed: 2_100_000_000_000_001,
            unconfirmed: -5,
            history: Vec::new(),
            unspent: vec![UnspentLine {
                txid: "ab".to_owned(),
                vout: 3,
                value: 10,
                height: 0,
            }],
        };
        let table = report.to_string();
        for words in [
            "confirmed     21000000.00000001 BTC",
            "unconfirmed   -0.00000005 BTC",
            "0.00000010  ab:3",
        ] {
            assert!(table.contains(words), "{table}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["confirmed"], 2_100_000_000_000_001_u64);
        assert_eq!(json["unspent"][0]["value"], 10);
    }
}
