//! Script hashes: the protocol's name for "everything that pays this locking script".

use std::{fmt, str::FromStr};

use bitcoin::hex::{DisplayHex, FromHex};
use sha2::{Digest, Sha256};

/// SHA-256 of a locking script, in the order the hash function gives it. Shown and read reversed, as
/// the protocol's section "Script Hashes" says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScriptHash(pub [u8; 32]);

impl ScriptHash {
    pub fn new(script: &[u8]) -> ScriptHash {
        ScriptHash(Sha256::digest(script).into())
    }
}

/// True of outputs that can never be spent and so are not indexed: those whose script starts with
/// OP_RETURN. Other servers (electrs, ElectrumX) leave out the same ones.
pub fn is_unspendable(script: &[u8]) -> bool {
    const OP_RETURN: u8 = 0x6a;
    script.first() == Some(&OP_RETURN)
}

impl fmt::Display for ScriptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reversed = self.0;
        reversed.reverse();
        fmt::Display::fmt(&reversed.as_hex(), f)
    }
}

impl fmt::Debug for ScriptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A script hash is 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a script hash is 64 hexadecimal digits")]
pub struct NotAScriptHash;

impl FromStr for ScriptHash {
    type Err = NotAScriptHash;

    fn from_str(text: &str) -> Result<ScriptHash, NotAScriptHash> {
        let mut bytes = <[u8; 32]>::from_hex(text).map_err(|_| NotAScriptHash)?;
        bytes.reverse();
        Ok(ScriptHash(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_example_is_hashed_and_shown_reversed() {
        let script =
            Vec::<u8>::from_hex("76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac").unwrap();
        let shown = "8b01df4e368ea28f8dc0423bcf7a4923e3a12d307c875e47a0cfbf90b5c39161";
        assert_eq!(ScriptHash::new(&script).to_string(), shown);
        assert_eq!(shown.parse(), Ok(ScriptHash::new(&script)));
    }

    #[test]
    fn text_that_is_no_script_hash_is_refused() {
        for text in ["", "00", &"0".repeat(63), &"g".repeat(64), &"0".repeat(66)] {
            assert_eq!(text.parse::<ScriptHash>(), Err(NotAScriptHash), "{text}");
        }
    }
}
