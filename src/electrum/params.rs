//! Parameters: what a method takes, and how what came is made of it.

use std::borrow::Cow;

use bitcoin::{
    Address, BlockHash, Network, Txid,
    address::NetworkUnchecked,
    hex::{FromHex, HexToBytesError},
};
use serde_json::value::RawValue;

use crate::chain::{Height, ScriptHash};

use super::{
    Refusal,
    message::{self, RawParams},
    version::{Offer, Version},
};

/// Most parameters that a method has.
pub const PARAMS_MAX: usize = 3;

/// A parameter of a method, with the name that the protocol's text gives it.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    pub name: &'static str,
    pub kind: Kind,
    pub is_optional: bool,
}

/// What a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ScriptHash,
    /// A base58, bech32 or bech32m address of this network.
    Address,
    /// A locking script in hexadecimal.
    Script,
    Txid,
    /// A non-negative integer.
    Natural,
    /// A non-negative integer, or −1.
    NaturalOrMinusOne,
    /// True or false. 1 and 0 are taken too: the reference server takes them.
    Flag,
    /// `verbose` of 1.2, or the ignored `height` of 1.0.
    FlagOrHeight,
    /// Bytes in hexadecimal, at least one.
    Hex,
    /// A list of those.
    HexList,
    /// Hexadecimal digits, an odd number too.
    Digits,
    /// A string or null.
    Text,
    /// A version, or a pair of them, or null.
    Versions,
    /// A block's hash or height.
    Block,
    /// Anything: not looked at.
    Ignored,
}

/// A parameter's value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Arg {
    #[default]
    Missing,
    Script(ScriptHash),
    Address(ScriptHash, Box<str>),
    Txid(Txid),
    Block(BlockHash),
    Number(i64),
    Flag(bool),
    Text(Box<str>),
    Texts(Vec<String>),
    Offer(Offer),
}

/// A request's parameters, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args([Arg; PARAMS_MAX]);

/// What a value said about itself does not hold: the words go behind the parameter's name.
type Wrong = Cow<'static, str>;

impl Args {
    /// Checks what came against what the method takes. `tolerant` methods ignore what is too much
    /// (protocol 1.6, `server.version`).
    pub fn bind(
        params: &[Param],
        tolerant: bool,
        raw: Option<&RawValue>,
        network: Network,
    ) -> Result<Args, Refusal> {
        let mut args = Args::default();
        let Some(raw) = raw else {
            return args.complete(params);
        };
        let raw = serde_json::from_str(raw.get())
            .map_err(|_| Refusal::Params("neither an array nor an object".to_owned()))?;
        let too_many = |count: usize| {
            let max = params.len();
            Refusal::Params(format!("at most {max} expected, {count} given"))
        };
        match raw {
            RawParams::ByPosition(values, count) => {
                if count > params.len() && !tolerant {
                    return Err(too_many(count));
                }
                for (index, value) in values.into_iter().take(params.len()).enumerate() {
                    args.set(params, index, value, network)?;
                }
            }
            RawParams::ByName(values, count) => {
                if count > values.len() && !tolerant {
                    return Err(too_many(count));
                }
                for (name, value) in values {
                    match params.iter().position(|param| param.name == name) {
                        Some(index) => args.set(params, index, value, network)?,
                        None if tolerant => {}
                        None => {
                            let name: String = name.chars().take(NAME_CHARS_MAX).collect();
                            return Err(Refusal::Params(format!("{name:?} is not known")));
                        }
                    }
                }
            }
        }
        args.complete(params)
    }

    fn set(
        &mut self,
        params: &[Param],
        index: usize,
        value: &RawValue,
        network: Network,
    ) -> Result<(), Refusal> {
        let param = &params[index];
        // A null where nothing need stand is as good as nothing.
        if param.is_optional && value.get() == "null" {
            return Ok(());
        }
        self.0[index] = param
            .kind
            .read(value, network)
            .map_err(|wrong| Refusal::Params(format!("{} {wrong}", param.name)))?;
        Ok(())
    }

    fn complete(self, params: &[Param]) -> Result<Args, Refusal> {
        for (param, arg) in params.iter().zip(&self.0) {
            if !param.is_optional && *arg == Arg::Missing {
                return Err(Refusal::Params(format!("{} is missing", param.name)));
            }
        }
        Ok(self)
    }

    pub fn get(&self, index: usize) -> &Arg {
        self.0.get(index).unwrap_or(&Arg::Missing)
    }

    pub fn script(&self, index: usize) -> Result<ScriptHash, Refusal> {
        match self.get(index) {
            Arg::Script(script) | Arg::Address(script, _) => Ok(*script),
            _ => Err(missing()),
        }
    }

    /// The script that the request asks about, if its first parameter says one.
    pub fn first_script(&self) -> Option<ScriptHash> {
        self.script(0).ok()
    }

    pub fn txid(&self, index: usize) -> Result<Txid, Refusal> {
        match self.get(index) {
            Arg::Txid(txid) => Ok(*txid),
            _ => Err(missing()),
        }
    }

    pub fn number(&self, index: usize) -> Result<i64, Refusal> {
        match self.get(index) {
            Arg::Number(number) => Ok(*number),
            _ => Err(missing()),
        }
    }

    pub fn number_or(&self, index: usize, default: i64) -> i64 {
        self.number(index).unwrap_or(default)
    }

    /// A height; one that no chain reaches is the highest there is.
    pub fn height(&self, index: usize) -> Result<Height, Refusal> {
        self.number(index).map(clamp)
    }

    pub fn height_or_zero(&self, index: usize) -> Height {
        clamp(self.number_or(index, 0))
    }

    pub fn flag(&self, index: usize) -> bool {
        self.flag_or(index, false)
    }

    pub fn flag_or(&self, index: usize, default: bool) -> bool {
        match self.get(index) {
            Arg::Flag(flag) => *flag,
            _ => default,
        }
    }

    pub fn text(&self, index: usize) -> Option<&str> {
        match self.get(index) {
            Arg::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn texts(&self, index: usize) -> Result<&[String], Refusal> {
        match self.get(index) {
            Arg::Texts(texts) => Ok(texts),
            _ => Err(missing()),
        }
    }
}

/// Most members of a list. The node takes 25 transactions in a package (Bitcoin Core, `policy/packages.h`); of a
/// million of them it need not be asked.
const LIST_MAX: usize = 1_000;

/// Most characters of a client's own words that an error repeats.
pub const NAME_CHARS_MAX: usize = 64;

fn clamp(number: i64) -> Height {
    Height::try_from(number).unwrap_or(if number < 0 { 0 } else { Height::MAX })
}

fn missing() -> Refusal {
    Refusal::Params("a parameter is missing".to_owned())
}

impl Kind {
    fn read(self, raw: &RawValue, network: Network) -> Result<Arg, Wrong> {
        match self {
            Kind::ScriptHash => text(raw)?
                .parse()
                .map(Arg::Script)
                .map_err(|_| "should be 64 hexadecimal digits".into()),
            Kind::Address => address(text(raw)?, network),
            Kind::Script => {
                let bytes = hex_bytes(&text(raw)?)?;
                Ok(Arg::Script(ScriptHash::new(&bytes)))
            }
            Kind::Txid => text(raw)?
                .parse()
                .map(Arg::Txid)
                .map_err(|_| "should be 64 hexadecimal digits".into()),
            Kind::Natural => natural(raw).map(Arg::Number),
            Kind::NaturalOrMinusOne if raw.get() == "-1" => Ok(Arg::Number(-1)),
            Kind::NaturalOrMinusOne => natural(raw).map(Arg::Number),
            Kind::Flag => flag(raw).map(Arg::Flag),
            Kind::FlagOrHeight => match flag(raw) {
                Ok(flag) if raw.get() == "true" || raw.get() == "false" => Ok(Arg::Flag(flag)),
                _ => natural(raw).map(|_| Arg::Missing),
            },
            Kind::Hex => hex_text(raw).map(|text| Arg::Text(text.into())),
            Kind::HexList => {
                let (list, count) = message::list(raw, LIST_MAX).ok_or("should be a list")?;
                if count > list.len() {
                    return Err(format!("may have {LIST_MAX} members, not {count}").into());
                }
                list.into_iter()
                    .map(hex_text)
                    .collect::<Result<_, _>>()
                    .map(Arg::Texts)
            }
            Kind::Digits => {
                let text = text(raw)?;
                if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err("should be hexadecimal digits".into());
                }
                Ok(Arg::Text(text.into()))
            }
            Kind::Text => Ok(Arg::Text(text(raw)?.into())),
            Kind::Versions => offer(raw).map(Arg::Offer),
            Kind::Block => match message::string(raw) {
                Some(hash) => hash
                    .parse()
                    .map(Arg::Block)
                    .map_err(|_| "should be a block's hash or height".into()),
                None => natural(raw).map(Arg::Number),
            },
            Kind::Ignored => Ok(Arg::Flag(true)),
        }
    }
}

fn text(raw: &RawValue) -> Result<Cow<'_, str>, Wrong> {
    message::string(raw).ok_or("should be a string".into())
}

fn natural(raw: &RawValue) -> Result<i64, Wrong> {
    // Numbers that 63 bits do not hold are as far beyond any chain as those that they do.
    let digits = raw.get();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("should be a non-negative integer".into());
    }
    Ok(digits.parse().unwrap_or(i64::MAX))
}

fn flag(raw: &RawValue) -> Result<bool, Wrong> {
    match raw.get() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("should be true or false".into()),
    }
}

fn hex_bytes(text: &str) -> Result<Vec<u8>, Wrong> {
    Vec::from_hex(text).map_err(|_: HexToBytesError| "should be hexadecimal".into())
}

fn hex_text(raw: &RawValue) -> Result<String, Wrong> {
    let text = text(raw)?;
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if text.is_empty() || text.len() % 2 != 0 || !is_hex {
        return Err("should be hexadecimal".into());
    }
    Ok(text.into_owned())
}

fn address(text: Cow<'_, str>, network: Network) -> Result<Arg, Wrong> {
    let parsed: Address<NetworkUnchecked> = text
        .parse()
        .map_err(|_| "should be a base58, bech32 or bech32m address")?;
    let checked = parsed
        .require_network(network)
        .map_err(|_| format!("is an address of another network: this server serves {network}"))?;
    let script = ScriptHash::new(checked.script_pubkey().as_bytes());
    Ok(Arg::Address(script, text.into()))
}

/// `protocol_version` of `server.version`: "1.4", or ["1.4", "1.6"].
fn offer(raw: &RawValue) -> Result<Offer, Wrong> {
    let version = |raw: &RawValue| -> Result<Version, Wrong> {
        text(raw)?
            .parse()
            .map_err(|wrong: super::version::NotAVersion| wrong.to_string().into())
    };
    if !raw.get().starts_with('[') {
        return version(raw).map(Offer::only);
    }
    let (list, count) = message::list(raw, 2).ok_or("should be a pair")?;
    match list[..] {
        [min, max] if count == 2 => Ok(Offer {
            min: version(min)?,
            max: version(max)?,
        }),
        _ => Err("should be a version or a pair of them".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn param(kind: Kind, is_optional: bool) -> Param {
        Param {
            name: "it",
            kind,
            is_optional,
        }
    }

    fn bind(kind: Kind, raw: &str) -> Result<Arg, Refusal> {
        let raw: Box<RawValue> = serde_json::from_str(raw).unwrap();
        Args::bind(&[param(kind, false)], false, Some(&raw), Network::Bitcoin)
            .map(|args| args.get(0).clone())
    }

    fn is_params(result: Result<Arg, Refusal>) -> bool {
        matches!(result, Err(Refusal::Params(_)))
    }

    #[test]
    fn parameters_come_by_position_or_by_name() {
        assert_eq!(bind(Kind::Natural, "[5]"), Ok(Arg::Number(5)));
        assert_eq!(bind(Kind::Natural, r#"{"it": 5}"#), Ok(Arg::Number(5)));
        for wrong in [
            "[]",
            "{}",
            "[5,6]",
            r#"{"it":5,"other":6}"#,
            r#"{"other":5}"#,
            "[null]",
        ] {
            assert!(is_params(bind(Kind::Natural, wrong)), "{wrong}");
        }
        assert!(
            Args::bind(
                &[param(Kind::Natural, false)],
                false,
                None,
                Network::Bitcoin
            )
            .is_err()
        );
        assert!(Args::bind(&[param(Kind::Natural, true)], false, None, Network::Bitcoin).is_ok());
    }

    #[test]
    fn a_tolerant_method_ignores_what_is_too_much() {
        for raw in [r#"[5,"x",{}]"#, r#"{"it":5,"dd":{}}"#] {
            let raw: Box<RawValue> = serde_json::from_str(raw).unwrap();
            let params = [param(Kind::Natural, false)];
            let args = Args::bind(&params, true, Some(&raw), Network::Bitcoin).unwrap();
            assert_eq!(args.number(0), Ok(5));
        }
    }

    #[test]
    fn a_million_parameters_or_members_are_counted_not_kept() {
        let million = "1,".repeat(999_999) + "1";
        let refused = |kind, raw: &str| match bind(kind, raw) {
            Err(Refusal::Params(words)) => words,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            refused(Kind::Natural, &format!("[{million}]")),
            "at most 1 expected, 1000000 given"
        );
        let named = r#""it":1,"#.repeat(999_999) + r#""it":1"#;
        assert_eq!(
            refused(Kind::Natural, &format!("{{{named}}}")),
            "at most 1 expected, 1000000 given"
        );
        assert_eq!(
            refused(Kind::HexList, &format!("[[{million}]]")),
            "it may have 1000 members, not 1000000"
        );
        assert_eq!(
            refused(Kind::Versions, &format!("[[{million}]]")),
            "it should be a version or a pair of them"
        );
        // So is a text of which an address would be made.
        let long = "1".repeat(9_000_000);
        assert!(is_params(bind(Kind::Address, &format!("[\"{long}\"]"))));
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused() {
        let cases = [
            (
                Kind::ScriptHash,
                vec!["1", "\"\"", "\"zz\"", "null", "[]", "{}", "true"],
            ),
            (Kind::Txid, vec!["1", "\"00\"", "null"]),
            (
                Kind::Natural,
                vec!["-1", "1.0", "1e3", "\"1\"", "null", "true", "[]"],
            ),
            (Kind::NaturalOrMinusOne, vec!["-2", "-1.0", "\"1\""]),
            (Kind::Flag, vec!["2", "\"true\"", "[]", "null"]),
            (Kind::Hex, vec!["\"\"", "\"0\"", "\"xy\"", "1"]),
            (Kind::HexList, vec!["\"00\"", "[1]", "[\"0\"]", "{}"]),
            (Kind::Digits, vec!["\"xy\"", "1"]),
            (
                Kind::Versions,
                vec![
                    "1.4",
                    "\"1\"",
                    "[\"1.4\"]",
                    "[\"1.4\",\"1.6\",\"1.7\"]",
                    "{}",
                ],
            ),
            (Kind::Block, vec!["\"00\"", "-1", "[]"]),
            (Kind::Address, vec!["\"\"", "\"x\"", "1"]),
        ];
        for (kind, values) in cases {
            for value in values {
                assert!(
                    is_params(bind(kind, &format!("[{value}]"))),
                    "{kind:?} {value}"
                );
            }
        }
    }

    #[test]
    fn huge_numbers_are_beyond_every_chain() {
        let huge = format!("[{}]", "9".repeat(40));
        assert_eq!(bind(Kind::Natural, &huge), Ok(Arg::Number(i64::MAX)));
        assert_eq!(
            Args([Arg::Number(i64::MAX), Arg::Missing, Arg::Missing]).height(0),
            Ok(u32::MAX)
        );
    }

    #[test]
    fn addresses_of_all_kinds_are_read_and_those_of_other_networks_refused() {
        for (network, address) in [
            (Network::Bitcoin, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
            (Network::Bitcoin, "3P14159f73E4gFr7JterCCQh9QjiTjiZrG"),
            (
                Network::Bitcoin,
                "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            ),
            (
                Network::Bitcoin,
                "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
            ),
            (
                Network::Bitcoin,
                "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
            ),
            (
                Network::Regtest,
                "bcrt1qn7d2x7272lznt5hhk9s07q3cqnrqljnwladrd3",
            ),
        ] {
            let raw: Box<RawValue> = serde_json::from_str(&format!("[\"{address}\"]")).unwrap();
            let bind =
                |network| Args::bind(&[param(Kind::Address, false)], false, Some(&raw), network);
            let args = bind(network).unwrap();
            assert!(matches!(args.get(0), Arg::Address(_, given) if **given == *address));
            let other = match network {
                Network::Bitcoin => Network::Testnet,
                _ => Network::Bitcoin,
            };
            let Err(Refusal::Params(words)) = bind(other) else {
                panic!("{address} on {other}");
            };
            assert!(words.contains("another network"), "{words}");
        }
    }

    #[test]
    fn an_address_its_script_and_its_script_hash_are_one() {
        let address = bind(Kind::Address, r#"["1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"]"#).unwrap();
        let Arg::Address(script, _) = address else {
            panic!("{address:?}");
        };
        let hash = r#"["8b01df4e368ea28f8dc0423bcf7a4923e3a12d307c875e47a0cfbf90b5c39161"]"#;
        assert_eq!(bind(Kind::ScriptHash, hash), Ok(Arg::Script(script)));
        let spk = r#"["76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac"]"#;
        assert_eq!(bind(Kind::Script, spk), Ok(Arg::Script(script)));
    }

    #[test]
    fn the_second_argument_of_transaction_get_may_be_of_two_times() {
        assert_eq!(bind(Kind::FlagOrHeight, "[true]"), Ok(Arg::Flag(true)));
        let raw: Box<RawValue> = serde_json::from_str("[170]").unwrap();
        let params = [param(Kind::FlagOrHeight, true)];
        let args = Args::bind(&params, false, Some(&raw), Network::Bitcoin).unwrap();
        assert!(!args.flag(0));
    }
}
