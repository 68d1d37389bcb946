//! (room: sync)

pub mod mempool;
