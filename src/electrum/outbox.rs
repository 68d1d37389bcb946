//! What a session has to say, on its way out.

use std::collections::VecDeque;

/// Answers from this size on are handed on as they are, smaller ones are copied together.
const CHUNK_BYTES: usize = 64 * 1024;

/// Messages, each ended by a newline, as a queue of chunks. A read's answers lie side by side and go
/// out with one write.
#[derive(Default)]
pub struct Outbox {
    /// Only the last may be empty.
    chunks: VecDeque<Vec<u8>>,
    /// How much of the first chunk is out already.
    sent: usize,
}

impl Outbox {
    /// Where small things are written. Only to be appended to.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        let has_room = |last: &Vec<u8>| last.len() < CHUNK_BYTES;
        if !self.chunks.back().is_some_and(has_room) {
            self.chunks.push_back(Vec::new());
        }
        self.chunks
            .back_mut()
            .expect("a chunk was added where there was none")
    }

    /// Adds bytes that were made elsewhere.
    pub fn push(&mut self, bytes: Vec<u8>) {
        if bytes.len() < CHUNK_BYTES {
            self.tail().extend_from_slice(&bytes);
            return;
        }
        if self.chunks.back().is_some_and(Vec::is_empty) {
            self.chunks.pop_back();
        }
        self.chunks.push_back(bytes);
    }

    /// The next bytes to send; empty when all is sent.
    pub fn next(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |first| &first[self.sent..])
    }

    /// The first `count` bytes of [`Outbox::next`] are out.
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
        if !self.next().is_empty() {
            return;
        }
        self.sent = 0;
        if self.chunks.len() == 1 && self.chunks[0].capacity() <= CHUNK_BYTES {
            self.chunks[0].clear();
        } else {
            self.chunks.pop_front();
        }
    }

    /// Bytes waiting to go out.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum::<usize>() - self.sent
    }

    pub fn is_empty(&self) -> bool {
        self.next().is_empty()
    }

    /// Gives memory back while nothing waits.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            *self = Outbox::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(outbox: &mut Outbox, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !outbox.is_empty() {
            let count = outbox.next().len().min(step);
            all.extend_from_slice(&outbox.next()[..count]);
            let before = outbox.len();
            outbox.advance(count);
            assert_eq!(outbox.len(), before - count);
        }
        all
    }

    #[test]
    fn what_goes_in_comes_out_in_order_whatever_its_size() {
        for step in [1, 1000, usize::MAX] {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for (round, size) in [0, 5, CHUNK_BYTES, 7, CHUNK_BYTES * 2, 0, 3]
                .into_iter()
                .enumerate()
            {
                let bytes = vec![round as u8; size];
                expected.extend_from_slice(&bytes);
                if round % 2 == 0 {
                    outbox.tail().extend_from_slice(&bytes);
                } else {
                    outbox.push(bytes);
                }
                assert_eq!(outbox.len(), expected.len());
            }
            assert_eq!(drain(&mut outbox, step), expected);
            outbox.push(b"again".to_vec());
            assert_eq!(drain(&mut outbox, step), b"again");
        }
    }

    #[test]
    fn an_empty_outbox_gives_its_memory_back() {
        let mut outbox = Outbox::default();
        outbox.tail().extend_from_slice(&[1; 1000]);
        outbox.shrink();
        assert_eq!(outbox.len(), 1000);
        drain(&mut outbox, usize::MAX);
        outbox.shrink();
        assert_eq!(outbox.chunks.capacity(), 0);
    }
}
