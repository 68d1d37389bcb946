//! Scripts that anyone may spend, in the sizes and shapes of mainnet's, so that a chain of millions of
//! transactions needs no signature.

use bitcoin::hashes::{Hash, hash160};
use sha2::{Digest, Sha256};

use crate::random::Random;

/// A script by its number; its bytes follow from number and seed.
pub type ScriptId = u32;

const OP_1: u8 = 0x51;
const OP_2: u8 = 0x52;
const OP_DROP: u8 = 0x75;

/// A DER signature and a public key have about these lengths: what stands in for them is as long.
const SIGNATURE_LEN: usize = 72;
const PUBLIC_KEY_LEN: usize = 33;
const SCHNORR_LEN: usize = 64;

/// How a script looks and how it is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `OP_2 <20 bytes>`: as long as P2WPKH. A witness version without rules is free to spend (BIP 141).
    LikeWitnessKeyHash,
    /// `<20 bytes> DROP 1`: nearly as long as P2PKH, spent by a script that pushes as much.
    LikeKeyHash,
    /// P2SH of `<20 bytes> DROP 1`.
    ScriptHash,
    /// P2WSH of `<32 bytes> DROP <72 bytes> DROP 1`: what a node's mempool takes too.
    WitnessScriptHash,
    /// `OP_2 <32 bytes>`: as long as P2TR.
    LikeTaproot,
    /// True P2PKH, P2WPKH and P2TR of random bytes, which nobody can spend.
    KeyHash,
    WitnessKeyHash,
    Taproot,
}

impl Kind {
    /// The mix of outputs that are spent one day, of a thousand.
    fn spendable(random: &mut Random) -> Kind {
        match random.below(1000) {
            0..400 => Kind::LikeWitnessKeyHash,
            400..590 => Kind::LikeKeyHash,
            590..750 => Kind::ScriptHash,
            750..860 => Kind::WitnessScriptHash,
            _ => Kind::LikeTaproot,
        }
    }

    fn unspendable(random: &mut Random) -> Kind {
        match random.below(3) {
            0 => Kind::KeyHash,
            1 => Kind::WitnessKeyHash,
            _ => Kind::Taproot,
        }
    }
}

/// The bit of a number that says whether anyone can spend.
const UNSPENDABLE: ScriptId = 1 << 31;
/// The bit of a number that makes it P2WSH.
const SENDABLE: ScriptId = 1 << 30;

/// Writes scripts and what spends them.
pub struct Scripts {
    seed: u64,
    next: ScriptId,
    scratch: Vec<u8>,
}

impl Scripts {
    pub fn new(seed: u64) -> Scripts {
        Scripts {
            seed,
            next: 0,
            scratch: Vec::new(),
        }
    }

    /// A script that no output had yet.
    pub fn fresh(&mut self) -> ScriptId {
        self.next += 1;
        self.next
    }

    /// A script that no output had yet and that nobody can spend.
    pub fn fresh_unspendable(&mut self) -> ScriptId {
        self.fresh() | UNSPENDABLE
    }

    /// A script that no output had yet, of the kind that a mempool lets anyone spend.
    pub fn fresh_sendable(&mut self) -> ScriptId {
        self.fresh() | SENDABLE
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.next
    }

    fn start(&self, id: ScriptId) -> (Kind, Random) {
        let mut random = Random::new(self.seed, u64::from(id));
        let kind = if id & UNSPENDABLE != 0 {
            Kind::unspendable(&mut random)
        } else if id & SENDABLE != 0 {
            Kind::WitnessScriptHash
        } else {
            Kind::spendable(&mut random)
        };
        (kind, random)
    }

    pub fn kind(&self, id: ScriptId) -> Kind {
        self.start(id).0
    }

    /// Appends an output's script.
    pub fn write_output(&mut self, id: ScriptId, to: &mut Vec<u8>) {
        let (kind, mut random) = self.start(id);
        match kind {
            Kind::LikeWitnessKeyHash => {
                to.extend_from_slice(&[OP_2, 20]);
                random.bytes(20, to);
            }
            Kind::LikeTaproot => {
                to.extend_from_slice(&[OP_2, 32]);
                random.bytes(32, to);
            }
            Kind::LikeKeyHash => free_script(&mut random, to),
            Kind::ScriptHash => {
                self.scratch.clear();
                free_script(&mut random, &mut self.scratch);
                to.extend_from_slice(&[0xa9, 20]);
                to.extend_from_slice(hash160::Hash::hash(&self.scratch).as_byte_array());
                to.push(0x87);
            }
            Kind::WitnessScriptHash => {
                self.scratch.clear();
                witness_script(&mut random, &mut self.scratch);
                to.extend_from_slice(&[0, 32]);
                to.extend_from_slice(&Sha256::digest(&self.scratch));
            }
            Kind::KeyHash => {
                to.extend_from_slice(&[0x76, 0xa9, 20]);
                random.bytes(20, to);
                to.extend_from_slice(&[0x88, 0xac]);
            }
            Kind::WitnessKeyHash => {
                to.extend_from_slice(&[0, 20]);
                random.bytes(20, to);
            }
            Kind::Taproot => {
                to.extend_from_slice(&[OP_1, 32]);
                random.bytes(32, to);
            }
        }
    }

    /// Appends the script of an input that spends `id`, with its length, and its witness, with its
    /// number of items, to `witness`. `noise` gives what stands for signatures.
    pub fn write_input(
        &mut self,
        id: ScriptId,
        noise: &mut Random,
        to: &mut Vec<u8>,
        witness: &mut Vec<u8>,
    ) {
        let (kind, mut random) = self.start(id);
        let script_at = to.len();
        to.push(0); // the length, below
        let mut items = 0;
        let items_at = witness.len();
        witness.push(0); // the number of items, below
        match kind {
            Kind::LikeWitnessKeyHash => {
                push(SIGNATURE_LEN, noise, witness);
                push(PUBLIC_KEY_LEN, noise, witness);
                items = 2;
            }
            Kind::LikeTaproot => {
                push(SCHNORR_LEN, noise, witness);
                items = 1;
            }
            Kind::LikeKeyHash => {
                // More on the stack than the top is allowed before segwit.
                push(SIGNATURE_LEN, noise, to);
                push(PUBLIC_KEY_LEN, noise, to);
            }
            Kind::ScriptHash => {
                push(SIGNATURE_LEN, noise, to);
                self.scratch.clear();
                free_script(&mut random, &mut self.scratch);
                to.push(self.scratch.len() as u8);
                to.extend_from_slice(&self.scratch);
            }
            Kind::WitnessScriptHash => {
                self.scratch.clear();
                witness_script(&mut random, &mut self.scratch);
                witness.push(self.scratch.len() as u8);
                witness.extend_from_slice(&self.scratch);
                items = 1;
            }
            Kind::KeyHash | Kind::WitnessKeyHash | Kind::Taproot => {
                unreachable!("never chosen to be spent")
            }
        }
        to[script_at] = (to.len() - script_at - 1) as u8;
        witness[items_at] = items;
    }

    /// The witness that spends a P2WSH output.
    pub fn witness_script(&self, id: ScriptId) -> Vec<u8> {
        let (_, mut random) = self.start(id);
        let mut script = Vec::new();
        witness_script(&mut random, &mut script);
        script
    }
}

/// A push or a witness item of so many random bytes: below 76, both begin with the length.
fn push(len: usize, random: &mut Random, to: &mut Vec<u8>) {
    to.push(len as u8);
    random.bytes(len, to);
}

fn free_script(random: &mut Random, to: &mut Vec<u8>) {
    push(20, random, to);
    to.extend_from_slice(&[OP_DROP, OP_1]);
}

fn witness_script(random: &mut Random, to: &mut Vec<u8>) {
    push(32, random, to);
    to.push(OP_DROP);
    push(SIGNATURE_LEN, random, to);
    to.extend_from_slice(&[OP_DROP, OP_1]);
}
