//! Room for the bytes of transactions and blocks, which each thread keeps: to get it from the system for each
//! question, and to have it zeroed, costs as much as to read a transaction.

use std::cell::Cell;

/// What a thread keeps when a question is answered: a block fits.
const KEPT_BYTES_MAX: usize = 4 << 20;

thread_local! {
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// This thread's room, or new room where that is in use.
pub struct Scratch {
    bytes: Vec<u8>,
}

impl Scratch {
    pub fn take() -> Scratch {
        Scratch { bytes: KEPT.take() }
    }

    /// So many bytes, to be overwritten: they hold whatever was there.
    pub fn room(&mut self, size: usize) -> &mut [u8] {
        if self.bytes.len() < size {
            self.bytes.resize(size, 0);
        }
        &mut self.bytes[..size]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.bytes.capacity() <= KEPT_BYTES_MAX {
            KEPT.set(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_kept_unless_it_is_large_and_two_never_share_it() {
        let mut first = Scratch::take();
        first.room(100).fill(1);
        let mut second = Scratch::take();
        second.room(200).fill(2);
        assert!(first.room(100).iter().all(|&byte| byte == 1));
        drop(first);
        assert_eq!(Scratch::take().bytes.len(), 100);
        drop(second);
        let mut kept = Scratch::take();
        assert_eq!(kept.bytes.len(), 200);
        assert_eq!(kept.room(50).len(), 50);
        kept.room(KEPT_BYTES_MAX + 1);
        drop(kept);
        assert_eq!(Scratch::take().bytes.capacity(), 0);
    }
}
