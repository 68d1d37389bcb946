//! What the protocol tells of a script: its history, its status, its balance, its coins.

use bitcoin::{Txid, hex::DisplayHex};
use sha2::{Digest, Sha256};

use super::Height;

/// A confirmed transaction that touches a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    pub txid: Txid,
    pub height: Height,
}

/// An unconfirmed transaction that touches a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MempoolEntry {
    pub txid: Txid,
    /// In satoshis.
    pub fee: u64,
    /// True if any input is unconfirmed: shown as height −1, else 0.
    pub has_unconfirmed_inputs: bool,
}

impl MempoolEntry {
    /// The height that the protocol shows for it: 0, or −1 where an input is unconfirmed.
    pub fn height(&self) -> i32 {
        if self.has_unconfirmed_inputs { -1 } else { 0 }
    }

    /// Where it stands among a script's unconfirmed transactions: height 0 before −1, then the txid as
    /// it is displayed, which is the reverse of how it is stored (`Txid`'s own order is another).
    pub fn canonical_key(&self) -> (bool, [u8; 32]) {
        let mut displayed: [u8; 32] = *AsRef::<[u8; 32]>::as_ref(&self.txid);
        displayed.reverse();
        (self.has_unconfirmed_inputs, displayed)
    }
}

/// All transactions that touch a script: confirmed ones in chain order, then the mempool's in the
/// canonical order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub confirmed: std::sync::Arc<Vec<Confirmed>>,
    pub mempool: Vec<MempoolEntry>,
}

/// Both in satoshis. The unconfirmed part is a difference, and may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    pub confirmed: u64,
    pub unconfirmed: i64,
}

/// An output that nothing confirmed or unconfirmed spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unspent {
    pub txid: Txid,
    pub vout: u32,
    /// In satoshis.
    pub value: u64,
    /// 0 where its transaction is unconfirmed.
    pub height: Height,
}

/// SHA-256 over `txid:height:` of a whole history (protocol basics, section "Status"), shown as it
/// comes out, not reversed. A script without transactions has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status(pub [u8; 32]);

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0.as_hex(), f)
    }
}

/// A status in the making. It can be kept after the confirmed part, and the mempool's part be added
/// to a clone.
#[derive(Clone, Default)]
pub struct StatusHasher {
    sha256: Sha256,
    is_empty_not: bool,
}

impl StatusHasher {
    pub fn confirmed(&mut self, entry: &Confirmed) {
        self.add(&entry.txid, i64::from(entry.height));
    }

    pub fn mempool(&mut self, entry: &MempoolEntry) {
        self.add(&entry.txid, i64::from(entry.height()));
    }

    pub fn finish(self) -> Option<Status> {
        self.is_empty_not
            .then(|| Status(self.sha256.finalize().into()))
    }

    fn add(&mut self, txid: &Txid, height: i64) {
        // By hand: `write!` takes as long as the hash, and a busy script has 200,000 entries.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        // A txid's 64 digits, a height of at most 11 characters, two colons.
        let mut text = [b':'; 64 + 1 + 11 + 1];
        let bytes: &[u8; 32] = txid.as_ref();
        for (pair, byte) in text.chunks_exact_mut(2).zip(bytes.iter().rev()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        let mut decimal = itoa::Buffer::new();
        let height = decimal.format(height).as_bytes();
        let end = 65 + height.len();
        text[65..end].copy_from_slice(height);
        self.sha256.update(&text[..=end]);
        self.is_empty_not = true;
    }
}

/// The status of a history.
pub fn status_of(history: &History) -> Option<Status> {
    let mut hasher = StatusHasher::default();
    history
        .confirmed
        .iter()
        .for_each(|entry| hasher.confirmed(entry));
    history
        .mempool
        .iter()
        .for_each(|entry| hasher.mempool(entry));
    hasher.finish()
}
