//! Batches: one line for all replies, sent when the last one is there.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A place in a batch that is being answered.
#[derive(Clone, Debug)]
pub struct Slot {
    pub batch: u32,
    pub piece: usize,
    pub bytes: ReplyBytes,
}

/// Bytes of the replies to a batch that are there already; whoever makes one counts it in, whatever the
/// thread.
#[derive(Clone, Debug, Default)]
pub struct ReplyBytes(Arc<AtomicUsize>);

impl ReplyBytes {
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub fn add(&self, count: usize) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// The replies of a batch in the making, in the order of its requests.
///
/// A piece is either several replies that were there at once, with commas between them, or a single
/// reply that was waited for.
#[derive(Debug, Default)]
pub struct Batch {
    pieces: Vec<Vec<u8>>,
    waiting: usize,
    /// The last piece takes more replies.
    is_open: bool,
    /// It holds replies to subscriptions: their notifications wait until it is sent.
    pub subscribes: bool,
    pub bytes: ReplyBytes,
}

impl Batch {
    /// Where the next reply that is there at once is written, its comma already before it.
    pub fn at_once(&mut self) -> &mut Vec<u8> {
        self.open();
        let piece = self.pieces.last_mut().expect("a piece was added");
        if !piece.is_empty() {
            piece.push(b',');
        }
        piece
    }

    /// The place that [`Batch::later`] would keep now.
    pub fn next_piece(&mut self) -> usize {
        self.open();
        self.pieces.len()
    }

    fn open(&mut self) {
        if !self.is_open {
            self.pieces.push(Vec::new());
            self.is_open = true;
        }
    }

    /// Nothing was written to [`Batch::at_once`]: takes its comma back.
    pub fn nothing_written(&mut self) {
        if let Some(piece) = self.pieces.last_mut()
            && piece.last() == Some(&b',')
        {
            piece.pop();
        }
    }

    /// Keeps a place for a reply that comes later.
    pub fn later(&mut self) -> usize {
        self.open();
        self.nothing_written();
        self.is_open = false;
        self.waiting += 1;
        self.pieces.push(Vec::new());
        self.pieces.len() - 1
    }

    /// Fills a place.
    pub fn fill(&mut self, piece: usize, reply: Vec<u8>) {
        if let Some(place) = self.pieces.get_mut(piece) {
            *place = reply;
            self.waiting = self.waiting.saturating_sub(1);
        }
    }

    pub fn is_complete(&self) -> bool {
        self.waiting == 0
    }

    /// The line, or nothing where all were notifications.
    pub fn into_line(self) -> Vec<u8> {
        let room = self
            .pieces
            .iter()
            .map(|piece| piece.len() + 1)
            .sum::<usize>()
            + 2;
        let mut pieces = self.pieces.into_iter().filter(|piece| !piece.is_empty());
        let Some(first) = pieces.next() else {
            return Vec::new();
        };
        // Memory that is not written to yet is no memory, and each piece goes when it was copied: so what is held
        // meanwhile is about what was held before.
        let mut line = Vec::with_capacity(room);
        line.push(b'[');
        line.extend_from_slice(&first);
        for piece in pieces {
            line.push(b',');
            line.extend_from_slice(&piece);
        }
        line.extend_from_slice(b"]\n");
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_stand_in_the_order_of_their_requests_whenever_they_came() {
        let mut batch = Batch::default();
        batch.at_once().extend_from_slice(b"1");
        let second = batch.later();
        batch.at_once().extend_from_slice(b"3");
        batch.at_once().extend_from_slice(b"4");
        batch.at_once();
        batch.nothing_written();
        let fifth = batch.later();
        assert!(!batch.is_complete());
        batch.fill(fifth, b"5".to_vec());
        batch.fill(second, b"2".to_vec());
        assert!(batch.is_complete());
        assert_eq!(batch.into_line(), b"[1,2,3,4,5]\n");
    }

    #[test]
    fn a_batch_of_notifications_has_no_reply() {
        let mut batch = Batch::default();
        batch.at_once();
        batch.nothing_written();
        let later = batch.later();
        batch.fill(later, Vec::new());
        assert!(batch.into_line().is_empty());
    }
}
