//! Stories: the server as a program, beside a real bitcoind on regtest, asked as wallets ask.
//!
//! `node`, `ambra` and `client` are the actors (`another_user` may run the second), and `spoiler` stands between the first two; `stage` sets them up;
//! `locks`, `treasury` and `random_chain` make transactions and blocks; `oracle` knows what is true, `compare` and
//! `watcher` hold the server to it. The stories come after them. The node is `$BITCOIND`, else the `bitcoind` in `$PATH`,
//! else what `contrib/bitcoind.sh` fetched.

mod ambra;
mod another_user;
mod client;
mod compare;
mod http;
mod locks;
mod long;
mod memory_parts;
mod node;
mod oracle;
mod patience;
mod random_chain;
mod slow_road;
mod soak_graph;
mod spoiler;
mod stage;
mod treasury;
mod watcher;

mod browser;
mod command_line;
mod damaged_blocks;
mod disk_faults;
mod electrum_wallet;
mod enemies;
mod first_sync;
mod full_mempool;
mod hearing_the_node;
mod node_faults;
mod node_not_ready;
mod old_clients;
mod one_moment;
mod permission_lost;
mod prometheus;
mod pushes;
mod random_lives;
mod reliability;
mod restarts;
mod rollback;
mod same_index;
mod same_rows;
mod set_up;
mod soak;
mod status_page;
mod torn_writes;
mod torture;
mod transports;
mod verify;
mod versions;
mod wallet_crate;
mod wallet_life;
mod wrong_database;
