//! `getblock` with verbosity 3, made into the bytes that REST would have given.

use bitcoin::{Amount, Denomination, hex::FromHex};
use serde::Deserialize;
use serde_json::value::RawValue;

/// As much of the block as names its spent outputs.
#[derive(Deserialize)]
pub(super) struct Block<'a> {
    #[serde(borrow)]
    tx: Vec<Tx<'a>>,
}

#[derive(Deserialize)]
struct Tx<'a> {
    #[serde(borrow)]
    vin: Vec<Input<'a>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    /// Only a coinbase's input has it.
    #[serde(borrow, default)]
    coinbase: Option<&'a RawValue>,
    #[serde(borrow, default)]
    prevout: Option<Prevout<'a>>,
}

#[derive(Deserialize)]
struct Prevout<'a> {
    /// In BTC; kept as text, for a float is no amount.
    #[serde(borrow)]
    value: &'a RawValue,
    #[serde(borrow, rename = "scriptPubKey")]
    script: Script<'a>,
}

#[derive(Deserialize)]
struct Script<'a> {
    hex: &'a str,
}

/// Why it cannot be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Verbosity 3 came with Bitcoin Core 23; a block without undo data has no prevouts either.
    NoPrevouts,
    Garbage,
}

/// The answer of `/rest/spenttxouts` (Bitcoin Core `rest.cpp`, `SerializeBlockUndo`): the number of
/// transactions, and of each the number of its inputs and the outputs that these spend.
pub(super) fn rest_bytes(block: &Block<'_>) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    push_compact_size(&mut bytes, block.tx.len());
    for tx in &block.tx {
        let spent = tx.vin.iter().filter(|input| input.coinbase.is_none());
        push_compact_size(&mut bytes, spent.clone().count());
        for input in spent {
            let prevout = input.prevout.as_ref().ok_or(Fault::NoPrevouts)?;
            let value = Amount::from_str_in(prevout.value.get(), Denomination::Bitcoin)
                .map_err(|_| Fault::Garbage)?;
            let script = Vec::<u8>::from_hex(prevout.script.hex).map_err(|_| Fault::Garbage)?;
            bytes.extend_from_slice(&value.to_sat().to_le_bytes());
            push_compact_size(&mut bytes, script.len());
            bytes.extend_from_slice(&script);
        }
    }
    Ok(bytes)
}

/// Bitcoin Core `serialize.h`.
fn push_compact_size(bytes: &mut Vec<u8>, size: usize) {
    match size as u64 {
        size @ 0..=0xfc => bytes.push(size as u8),
        size @ 0xfd..=0xffff => {
            bytes.push(0xfd);
            bytes.extend_from_slice(&(size as u16).to_le_bytes());
        }
        size @ 0x1_0000..=0xffff_ffff => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&(size as u32).to_le_bytes());
        }
        size => {
            bytes.push(0xff);
            bytes.extend_from_slice(&size.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::SpentOutputs;

    fn of(json: &str) -> Result<Vec<u8>, Fault> {
        rest_bytes(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_coinbase_has_an_empty_list_and_others_their_spent_outputs() {
        let script = "51".repeat(300);
        let json = format!(
            r#"{{"hash":"00","tx":[
                {{"vin":[{{"coinbase":"00","sequence":1}}]}},
                {{"vin":[
                    {{"txid":"aa","prevout":{{"generated":true,"value":50.00000001,"scriptPubKey":{{"asm":"","hex":"6a01"}}}}}},
                    {{"txid":"bb","prevout":{{"value":0.00000000,"scriptPubKey":{{"hex":"{script}"}}}}}}
                ]}}]}}"#
        );
        let spent = SpentOutputs::Rest(of(&json).unwrap());
        let mut reader = spent.reader().unwrap();
        assert_eq!(reader.next_tx(), Ok(2));
        assert_eq!(reader.next_output(), Ok((5_000_000_001, &[0x6a, 0x01][..])));
        assert_eq!(reader.next_output(), Ok((0, &[0x51; 300][..])));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_node_that_gives_no_prevouts_is_found_out() {
        let json = r#"{"tx":[{"vin":[{"coinbase":"00"}]},{"vin":[{"txid":"aa","vout":0}]}]}"#;
        assert_eq!(of(json), Err(Fault::NoPrevouts));
    }

    #[test]
    fn amounts_and_scripts_that_are_none_are_garbage() {
        for (value, hex) in [
            ("1.000000001", "51"),
            ("-1", "51"),
            ("true", "51"),
            ("1", "5"),
        ] {
            let json = format!(
                r#"{{"tx":[{{"vin":[{{"prevout":{{"value":{value},"scriptPubKey":{{"hex":"{hex}"}}}}}}]}}]}}"#
            );
            assert_eq!(of(&json), Err(Fault::Garbage), "{value} {hex}");
        }
    }

    #[test]
    fn sizes_are_as_short_as_bitcoin_core_writes_them() {
        for size in [0usize, 0xfc, 0xfd, 0xffff, 0x1_0000, 0x200_0000] {
            let mut bytes = Vec::new();
            push_compact_size(&mut bytes, size);
            assert_eq!(
                bytes,
                bitcoin::consensus::serialize(&bitcoin::VarInt::from(size))
            );
        }
    }
}
