//! (room: electrum)
