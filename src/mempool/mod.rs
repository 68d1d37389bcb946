//! (room: mempool)
