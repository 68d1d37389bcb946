//! For the server's owner: how Ambra does, and whether its index is right.

pub mod status;
pub mod verify;
