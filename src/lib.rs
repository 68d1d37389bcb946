//! Ambra: a personal Electrum server.
pub mod admin;
pub mod chain;
pub mod config;
pub mod daemon;
pub mod electrum;
pub mod index;
pub mod mempool;
pub mod server;
pub mod state;
pub mod sync;
