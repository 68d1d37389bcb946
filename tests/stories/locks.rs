//! Coins and the keys to them: every kind of script that a chain may have, and how it is spent.

use std::sync::LazyLock;

use bitcoin::{
    Amount, EcdsaSighashType, OutPoint, PublicKey, ScriptBuf, Sequence, TapSighashType,
    Transaction, TxIn, TxOut, Witness, XOnlyPublicKey, absolute,
    hashes::{Hash, sha256},
    key::{Keypair, TapTweak},
    opcodes::all::{OP_CHECKMULTISIG, OP_CHECKSIG, OP_NIP, OP_PUSHNUM_1, OP_PUSHNUM_2},
    script::{Builder, PushBytesBuf},
    secp256k1::{All, Message, Secp256k1},
    sighash::{Prevouts, SighashCache},
    transaction,
};
use rand::{Rng, rngs::StdRng};

static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    P2pk,
    P2pkh,
    P2wpkh,
    /// P2WPKH inside P2SH.
    NestedP2wpkh,
    P2tr,
    /// 1 of 2, no address.
    BareMultisig,
    /// `<number> OP_1 OP_NIP` inside P2SH.
    NumberInP2sh,
    /// The same inside P2WSH.
    NumberInP2wsh,
    /// `<number> OP_1 OP_NIP` with no hash around it: anyone's.
    BareNumber,
    /// No script at all: anyone's.
    Empty,
}

pub const KINDS: [Kind; 10] = [
    Kind::P2pk,
    Kind::P2pkh,
    Kind::P2wpkh,
    Kind::NestedP2wpkh,
    Kind::P2tr,
    Kind::BareMultisig,
    Kind::NumberInP2sh,
    Kind::NumberInP2wsh,
    Kind::BareNumber,
    Kind::Empty,
];

/// A locking script that we can unlock. Two locks of one kind and number are the same.
#[derive(Clone, Debug)]
pub struct Lock {
    pub kind: Kind,
    number: u32,
    keys: Keypair,
}

/// An output that can be spent.
#[derive(Clone, Debug)]
pub struct Coin {
    pub outpoint: OutPoint,
    pub value: Amount,
    pub lock: Lock,
}

impl Lock {
    pub fn new(kind: Kind, number: u32) -> Lock {
        let seed = sha256::Hash::hash(format!("a test key, number {number}").as_bytes());
        let keys = Keypair::from_seckey_slice(&SECP, seed.as_ref()).expect("a secret key");
        Lock { kind, number, keys }
    }

    pub fn random(rng: &mut StdRng) -> Lock {
        Lock::new(KINDS[rng.random_range(0..KINDS.len())], rng.random())
    }

    fn key(&self) -> PublicKey {
        PublicKey::new(self.keys.public_key())
    }

    /// The locking script.
    pub fn script(&self) -> ScriptBuf {
        let key = self.key();
        let compressed = bitcoin::CompressedPublicKey(key.inner);
        match self.kind {
            Kind::P2pk => Builder::new()
                .push_key(&key)
                .push_opcode(OP_CHECKSIG)
                .into_script(),
            Kind::P2pkh => ScriptBuf::new_p2pkh(&key.pubkey_hash()),
            Kind::P2wpkh => ScriptBuf::new_p2wpkh(&compressed.wpubkey_hash()),
            Kind::NestedP2wpkh => ScriptBuf::new_p2sh(&self.inner_script().script_hash()),
            Kind::P2tr => {
                let (internal, _) = XOnlyPublicKey::from_keypair(&self.keys);
                ScriptBuf::new_p2tr(&SECP, internal, None)
            }
            Kind::BareMultisig => {
                let other = Lock::new(self.kind, self.number ^ 1).key();
                let (first, second) = (key.min(other), key.max(other));
                Builder::new()
                    .push_opcode(OP_PUSHNUM_1)
                    .push_key(&first)
                    .push_key(&second)
                    .push_opcode(OP_PUSHNUM_2)
                    .push_opcode(OP_CHECKMULTISIG)
                    .into_script()
            }
            Kind::NumberInP2sh => ScriptBuf::new_p2sh(&self.inner_script().script_hash()),
            Kind::NumberInP2wsh => ScriptBuf::new_p2wsh(&self.inner_script().wscript_hash()),
            Kind::BareNumber => self.inner_script(),
            Kind::Empty => ScriptBuf::new(),
        }
    }

    /// What the script hash of a P2SH or P2WSH stands for.
    fn inner_script(&self) -> ScriptBuf {
        match self.kind {
            Kind::NestedP2wpkh => {
                let compressed = bitcoin::CompressedPublicKey(self.key().inner);
                ScriptBuf::new_p2wpkh(&compressed.wpubkey_hash())
            }
            _ => Builder::new()
                .push_slice(self.number.to_be_bytes())
                .push_opcode(OP_PUSHNUM_1)
                .push_opcode(OP_NIP)
                .into_script(),
        }
    }

    /// Signature script and witness of input `index`.
    fn unlock(
        &self,
        transaction: &Transaction,
        index: usize,
        spent: &[TxOut],
    ) -> (ScriptBuf, Witness) {
        let all = EcdsaSighashType::All;
        let mut cache = SighashCache::new(transaction);
        let sign_ecdsa = |sighash: [u8; 32]| bitcoin::ecdsa::Signature {
            signature: SECP.sign_ecdsa(&Message::from_digest(sighash), &self.keys.secret_key()),
            sighash_type: all,
        };
        let none = Witness::new;
        match self.kind {
            Kind::P2pk | Kind::P2pkh | Kind::BareMultisig => {
                let sighash = cache
                    .legacy_signature_hash(index, &self.script(), all.to_u32())
                    .expect("the input is there");
                let signature = sign_ecdsa(sighash.to_byte_array()).serialize();
                let script = match self.kind {
                    Kind::P2pk => Builder::new().push_slice(signature),
                    Kind::P2pkh => Builder::new().push_slice(signature).push_key(&self.key()),
                    // CHECKMULTISIG takes one element too many.
                    _ => Builder::new().push_int(0).push_slice(signature),
                };
                (script.into_script(), none())
            }
            Kind::P2wpkh | Kind::NestedP2wpkh => {
                let program = match self.kind {
                    Kind::P2wpkh => self.script(),
                    _ => self.inner_script(),
                };
                let sighash = cache
                    .p2wpkh_signature_hash(index, &program, spent[index].value, all)
                    .expect("the input is there");
                let signature = sign_ecdsa(sighash.to_byte_array());
                let script = match self.kind {
                    Kind::P2wpkh => ScriptBuf::new(),
                    _ => push_only(program),
                };
                (script, Witness::p2wpkh(&signature, &self.key().inner))
            }
            Kind::P2tr => {
                let sighash = cache
                    .taproot_key_spend_signature_hash(
                        index,
                        &Prevouts::All(spent),
                        TapSighashType::Default,
                    )
                    .expect("the input is there");
                let keys = self.keys.tap_tweak(&SECP, None).to_keypair();
                let message = Message::from_digest(sighash.to_byte_array());
                let signature = bitcoin::taproot::Signature {
                    signature: SECP.sign_schnorr_no_aux_rand(&message, &keys),
                    sighash_type: TapSighashType::Default,
                };
                (ScriptBuf::new(), Witness::p2tr_key_spend(&signature))
            }
            Kind::NumberInP2sh => (push_only(self.inner_script()), none()),
            Kind::NumberInP2wsh => {
                let witness = Witness::from_slice(&[self.inner_script().as_bytes()]);
                (ScriptBuf::new(), witness)
            }
            Kind::BareNumber => (ScriptBuf::new(), none()),
            Kind::Empty => (
                Builder::new().push_opcode(OP_PUSHNUM_1).into_script(),
                none(),
            ),
        }
    }
}

fn push_only(script: ScriptBuf) -> ScriptBuf {
    let bytes = PushBytesBuf::try_from(script.into_bytes()).expect("a short script");
    Builder::new().push_slice(bytes).into_script()
}

/// An output.
pub fn output(lock: &Lock, value: Amount) -> TxOut {
    TxOut {
        value,
        script_pubkey: lock.script(),
    }
}

/// A signed transaction that says that it may be replaced (BIP 125).
pub fn pay(coins: &[Coin], outputs: Vec<TxOut>) -> Transaction {
    let mut transaction = Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: coins
            .iter()
            .map(|coin| TxIn {
                previous_output: coin.outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::new(),
            })
            .collect(),
        output: outputs,
    };
    let spent: Vec<TxOut> = coins
        .iter()
        .map(|coin| output(&coin.lock, coin.value))
        .collect();
    let unlocked: Vec<_> = coins
        .iter()
        .enumerate()
        .map(|(index, coin)| coin.lock.unlock(&transaction, index, &spent))
        .collect();
    for (input, (script, witness)) in transaction.input.iter_mut().zip(unlocked) {
        input.script_sig = script;
        input.witness = witness;
    }
    transaction
}

/// The coins that a transaction of ours makes, as far as `lock_of` knows their locks.
pub fn coins_of(
    transaction: &Transaction,
    lock_of: impl Fn(&ScriptBuf) -> Option<Lock>,
) -> Vec<Coin> {
    let txid = transaction.compute_txid();
    (0..)
        .zip(&transaction.output)
        .filter_map(|(vout, output)| {
            Some(Coin {
                outpoint: OutPoint { txid, vout },
                value: output.value,
                lock: lock_of(&output.script_pubkey)?,
            })
        })
        .collect()
}
