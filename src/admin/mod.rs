//! For the server's owner: how Ambra does.

pub mod status;
