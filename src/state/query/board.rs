//! Who reads which piece of a long history.

use std::sync::{Condvar, Mutex};

use super::{PIECES_AHEAD, Piece};
use crate::{
    chain::TxNum,
    state::{QueryError, lock},
};

/// Pieces in the making.
pub struct Board {
    inside: Mutex<BoardInside>,
    changed: Condvar,
}

struct BoardInside {
    /// The first piece that nobody has taken.
    untaken: usize,
    /// The piece that is to be merged next.
    merged: usize,
    pieces: Vec<Option<Result<Piece, QueryError>>>,
    is_stopped: bool,
}

pub enum Turn<'a> {
    Merge(Result<Piece, QueryError>),
    Read(Taken<'a>),
}

/// A piece that this thread is to read. Others wait for it: so it is put back in any case.
pub struct Taken<'a> {
    board: &'a Board,
    pub at: usize,
}

impl Taken<'_> {
    pub fn put(self, piece: Result<Piece, QueryError>) {
        lock(&self.board.inside).pieces[self.at] = Some(piece);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        lock(&self.board.inside).pieces[self.at]
            .get_or_insert_with(|| Err(QueryError::Unavailable("a reader failed".to_owned())));
        self.board.changed.notify_all();
    }
}

impl BoardInside {
    fn take(&mut self) -> Option<usize> {
        let may_take =
            self.untaken < self.pieces.len() && self.untaken <= self.merged + PIECES_AHEAD;
        may_take.then(|| {
            self.untaken += 1;
            self.untaken - 1
        })
    }
}

impl Board {
    pub fn new(pieces: &[Vec<TxNum>]) -> Board {
        Board {
            inside: Mutex::new(BoardInside {
                untaken: 0,
                merged: 0,
                pieces: pieces.iter().map(|_| None).collect(),
                is_stopped: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// A piece to read; `None` when there is no more to do.
    pub fn take_or_wait(&self) -> Option<Taken<'_>> {
        let mut inside = lock(&self.inside);
        loop {
            if inside.is_stopped || inside.untaken == inside.pieces.len() {
                return None;
            }
            if let Some(at) = inside.take() {
                return Some(Taken { board: self, at });
            }
            inside = wait(&self.changed, inside);
        }
    }

    /// The piece that is next in order, or one to read meanwhile.
    pub fn get_or_take(&self, next: usize) -> Turn<'_> {
        let mut inside = lock(&self.inside);
        inside.merged = next;
        self.changed.notify_all();
        loop {
            if let Some(piece) = inside.pieces[next].take() {
                return Turn::Merge(piece);
            }
            if let Some(at) = inside.take() {
                return Turn::Read(Taken { board: self, at });
            }
            inside = wait(&self.changed, inside);
        }
    }
}

fn wait<'a, T>(
    condition: &Condvar,
    guard: std::sync::MutexGuard<'a, T>,
) -> std::sync::MutexGuard<'a, T> {
    condition
        .wait(guard)
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub struct StopBoard<'a>(pub &'a Board);

impl Drop for StopBoard<'_> {
    fn drop(&mut self) {
        lock(&self.0.inside).is_stopped = true;
        self.0.changed.notify_all();
    }
}
