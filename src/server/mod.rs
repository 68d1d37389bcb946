//! (room: server)
