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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn unconfirmed(txid: &str, fee: u64, has_unconfirmed_inputs: bool) -> MempoolEntry {
        MempoolEntry {
            txid: txid.parse().unwrap(),
            fee,
            has_unconfirmed_inputs,
        }
    }

    fn confirmed(txid: &str, height: Height) -> Confirmed {
        Confirmed {
            txid: txid.parse().unwrap(),
            height,
        }
    }

    #[test]
    fn the_specifications_example_has_its_status() {
        let history = History {
            confirmed: Arc::new(vec![
                confirmed(
                    "a6c9c361bd0bc536d6a22648efbf8f9b200e425ef6c3a7a9669dc444c532a347",
                    2472,
                ),
                confirmed(
                    "9c42f84b2fcdaff676ba25d9d4941741cc0d1a01cce0c23fdc4c0b2afa38431c",
                    2473,
                ),
                confirmed(
                    "770f2d4371b3fabb902dd9a103e2dd005fcd3971181078fca4a2a1d6ff127b30",
                    2473,
                ),
            ]),
            mempool: vec![
                unconfirmed(
                    "80b19848aed792565ab7c5a79b7c2a00fbf985741579396ebe0ab6098e607311",
                    200,
                    false,
                ),
                unconfirmed(
                    "e02a1dadfa83b996b24175df807b271ea5d02937ef5b35c195fac1e1bdc3198f",
                    300,
                    false,
                ),
                unconfirmed(
                    "bb4c8ab438c13b89ca80d1d5bee25b0b6b7f55673f4d801998ba97db161d9e85",
                    200,
                    true,
                ),
            ],
        };
        let status = status_of(&history).unwrap().to_string();
        assert_eq!(
            status,
            "78e96c6562cafa71c115503b9411fdfdc595a45031e2ab76ff75162fe1b0590d"
        );
        assert_eq!(status_of(&History::default()), None);
    }

    /// The specification's example cannot tell the two byte orders of a txid apart; this one can: as
    /// displayed the first comes first, as stored the second does. Computed with another language's SHA-256.
    #[test]
    fn unconfirmed_ties_are_broken_as_txids_are_displayed() {
        let displayed_first = "01000000000000000000000000000000000000000000000000000000000000ff";
        let stored_first = "0200000000000000000000000000000000000000000000000000000000000000";
        let unconfirmed_parent = "0011111111111111111111111111111111111111111111111111111111111111";
        let mut mempool = vec![
            unconfirmed(unconfirmed_parent, 1, true),
            unconfirmed(stored_first, 1, false),
            unconfirmed(displayed_first, 1, false),
        ];
        assert!(
            mempool[1].txid < mempool[2].txid,
            "the txids' own order is another"
        );
        mempool.sort_by_key(MempoolEntry::canonical_key);
        let shown: Vec<String> = mempool.iter().map(|entry| entry.txid.to_string()).collect();
        assert_eq!(shown, [displayed_first, stored_first, unconfirmed_parent]);
        let history = History {
            confirmed: Arc::default(),
            mempool,
        };
        assert_eq!(
            status_of(&history).unwrap().to_string(),
            "cfeed49cbb3811eec291d2fa33b742f0591ec981909eb10a10ec5d55da73fb59"
        );
    }
}
