//! Stories: the server as a program, beside a real bitcoind on regtest, asked as wallets ask.
//!
//! `node`, `ambra`, `client` are the actors; `locks`, `treasury` and `random_chain` make transactions and blocks;
//! `oracle` and `watcher` know what is true. The stories come after them.

mod ambra;
mod client;
mod locks;
mod node;
mod oracle;
mod patience;
mod random_chain;
mod treasury;
mod watcher;

mod electrum_wallet;
mod first_sync;
mod hearing_the_node;
mod one_moment;
mod pushes;
mod random_lives;
mod restarts;
mod same_rows;
mod transports;
mod versions;
mod wallet_crate;
mod wallet_life;
