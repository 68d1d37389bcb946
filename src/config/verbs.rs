//! What Ambra can be asked to do: its verbs, each with what it alone takes.
use std::path::PathBuf;

use super::values;

/// A verb; [`Command::Serve`] where none is typed.
#[derive(Clone, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Serve wallets: what `ambra` alone does
    Serve,
    /// Index the chain up to the node's newest block, and end
    Sync,
    /// Check the index against the node's blocks
    Verify(Verify),
    /// Look at the set-up, and say what mends what is wrong
    Doctor {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the settings in force, and where each comes from
    Config {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print balance, history and unspent outputs of an address
    Address {
        /// An address, a script (hex), or a script hash as in the Electrum protocol
        address: String,
        /// As JSON, amounts in satoshis
        #[arg(long)]
        json: bool,
    },
    /// Rewrite the index's files without what has been taken away
    Compact,
    /// Copy the index, to move it to another machine
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Print completions for a shell
    Completions { shell: clap_complete::Shell },
    /// Print the manual page
    Man,
}

#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(long_about = VERIFY)]
pub struct Verify {
    /// How many blocks are made again from the node's bytes: a number of them, chosen at random, or all
    #[arg(long, value_name = "all|N", default_value = "1000", value_parser = blocks_to_verify)]
    pub blocks: BlocksToVerify,

    /// Choose the same blocks as an earlier check, which printed this number
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
}

const VERIFY: &str = "\
Check the index against itself and against the node's blocks. Nothing is written, and a server may use the
index meanwhile. Every row is read: headers must link and be the node's, transactions must have one number
and one place each. Of some blocks, or of all, the rows are made again from the node's bytes and compared;
with all, the number and the sum of unspent outputs are compared with the node's too.

Exit codes: 0 no fault; 1 faults were found, or the check could not be finished; 2 a wrong option.";

/// What `--blocks` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlocksToVerify {
    All,
    Some(u32),
}

fn blocks_to_verify(text: &str) -> Result<BlocksToVerify, String> {
    match text {
        "all" => Ok(BlocksToVerify::All),
        _ => text
            .parse()
            .map(BlocksToVerify::Some)
            .map_err(|_| "this must be 'all' or a number of blocks".to_owned()),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum Snapshot {
    /// Write a copy of the index into a new folder, while serving or not
    Export {
        #[arg(value_parser = values::path())]
        folder: PathBuf,
    },
    /// Take such a copy as this machine's index
    Import {
        #[arg(value_parser = values::path())]
        folder: PathBuf,
    },
}

impl Command {
    /// True for what tells its result on stdout and ends: the log then only has what went wrong.
    pub fn is_question(&self) -> bool {
        match self {
            Self::Serve | Self::Sync | Self::Verify(_) | Self::Compact | Self::Snapshot(_) => false,
            Self::Doctor { .. }
            | Self::Config { .. }
            | Self::Address { .. }
            | Self::Completions { .. }
            | Self::Man => true,
        }
    }
}
