//! What may be typed: one struct for the command line, the environment and the file alike.
use std::{path::PathBuf, sync::LazyLock};

use bitcoin::Network;

use super::{
    limits::Limits,
    values::{
        self, AdminListen, BlockSourceChoice, INDEX_FORMAT, LogFormat, LogLevels, MebiBytes,
        Profile, RpcUrl, SYNC_MEMORY_DEFAULT,
    },
    verbs::Command,
};

const AFTER_HELP: &str = "\
Every option can also be set by an environment variable (--db-dir: AMBRA_DB_DIR; several values
are separated by commas) or by a line in the file given with --conf (db-dir = \"/srv/ambra\").
An option goes before the environment, the environment before the file, the file before the default.
Options may stand before or after the command. `-h` is a shorter help than this one.

Exit codes: 0 done, or stopped as asked; 1 could not go on, or found a fault (the last lines say what);
2 a wrong option or setting.";

/// Below the short help (`-h`).
const AFTER_BRIEF_HELP: &str = "\
These are what most people need. All options, grouped, and how the environment and a file set them:
`ambra --help`. Something does not work: `ambra doctor`.";

/// The settings that the short help names.
const BRIEF: [&str; 10] = [
    "conf",
    "network",
    "daemon-dir",
    "daemon-rpc-url",
    "db-dir",
    "profile",
    "listen",
    "admin-listen",
    "log-level",
    REBUILD,
];

/// Below the help of a command, which hides the settings.
const AFTER_COMMAND_HELP: &str = "The options of `ambra --help` can stand here too.";

/// What `--version` tells: what a report of a fault needs.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{}\ncommit {}\nindex format {INDEX_FORMAT}\nElectrum protocol {}",
        env!("CARGO_PKG_VERSION"),
        env!("BUILD_COMMIT"),
        values::PROTOCOL_VERSIONS.join(", ")
    )
});

#[derive(Debug, clap::Parser)]
#[command(
    name = "ambra",
    version,
    long_version = LONG_VERSION.as_str(),
    about = "A personal Electrum server: your wallets ask your own node",
    after_help = AFTER_HELP,
)]
pub(super) struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Read settings from this TOML file; its keys are the options' long names
    #[arg(long, value_name = "FILE", value_parser = values::path())]
    pub conf: Option<PathBuf>,

    /// Delete the index first and build it anew from the node: for one that is damaged, or of another format
    // A flag, and so no setting: in a file it would delete the index at every start.
    #[arg(long)]
    pub rebuild: bool,

    #[command(flatten)]
    pub settings: Settings,
}

/// Everything that can be set. Where a value is absent, [`super::Config`] knows the default.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Settings {
    /// main, testnet, testnet4, signet or regtest; by default the one that the node is on
    #[arg(long, value_parser = values::network, help_heading = "Node")]
    pub network: Option<Network>,

    /// bitcoind's data directory; by default looked for where bitcoind puts it
    #[arg(long, value_name = "DIR", value_parser = values::path(), help_heading = "Node")]
    pub daemon_dir: Option<PathBuf>,

    /// bitcoind's RPC, as http://HOST:PORT; by default this machine and the network's usual port
    #[arg(long, value_name = "URL", help_heading = "Node")]
    pub daemon_rpc_url: Option<RpcUrl>,

    /// bitcoind's cookie file; by default .cookie in its data directory
    #[arg(long, value_name = "FILE", value_parser = values::path(), help_heading = "Node")]
    pub cookie_file: Option<PathBuf>,

    /// RPC user, where the node has no cookie; better in the file or as AMBRA_RPC_USER
    #[arg(long, value_name = "USER", help_heading = "Node")]
    pub rpc_user: Option<String>,

    /// RPC password; better in the file or as AMBRA_RPC_PASSWORD: others see a command line
    #[arg(long, value_name = "PASSWORD", help_heading = "Node")]
    pub rpc_password: Option<String>,

    /// How to read blocks: auto, files, rest or rpc [default: auto, the fastest that works]
    #[arg(long, value_name = "SOURCE", value_parser = values::block_source, help_heading = "Node")]
    pub block_source: Option<BlockSourceChoice>,

    /// The folder of bitcoind's blk*.dat files; by default found in its data directory
    #[arg(long, value_name = "DIR", value_parser = values::path(), help_heading = "Node")]
    pub blocks_dir: Option<PathBuf>,

    /// The folder that holds the index, a subfolder for each network [default: ambra in your data directory]
    #[arg(long, value_name = "DIR", value_parser = values::path(), help_heading = "Index")]
    pub db_dir: Option<PathBuf>,

    /// What the machine can give: small, default or large; sets sync-memory, cache-memory and threads where they are
    /// not given [default: default]
    #[arg(long, value_name = "PROFILE", value_parser = values::profile, help_heading = "Index")]
    pub profile: Option<Profile>,

    /// Memory for the first sync, in MiB [default: 1024; profile small 256, large 4096]
    #[arg(long, value_name = "MIB", value_parser = values::sync_memory, help_heading = "Index")]
    pub sync_memory: Option<MebiBytes>,

    /// Memory for what is known of scripts, in MiB, and an eighth more for large transactions [default: 256; profile small 64, large 2048]
    #[arg(long, value_name = "MIB", value_parser = values::cache_memory, help_heading = "Index")]
    pub cache_memory: Option<MebiBytes>,

    /// Threads of the first sync [default: one for each core; profile small one for two cores]
    #[arg(long, value_name = "NUMBER", value_parser = values::threads, help_heading = "Index")]
    pub threads: Option<usize>,

    /// Where wallets connect, repeatable: tcp://HOST:PORT, tls://, ws://, wss:// or unix:PATH
    /// [default: tcp://127.0.0.1:50001; testnet 60001, testnet4 40001, signet 60601, regtest 60401]
    #[arg(long, value_name = "URL", value_delimiter = ',', value_parser = values::listen_url, help_heading = "Wallets")]
    pub listen: Vec<String>,

    /// Certificate chain (PEM) for tls:// and wss:// [default: one made by Ambra, kept with the index]
    #[arg(long, value_name = "FILE", value_parser = values::path(), help_heading = "Wallets")]
    pub tls_cert: Option<PathBuf>,

    /// Private key (PEM) of that certificate
    #[arg(long, value_name = "FILE", value_parser = values::path(), help_heading = "Wallets")]
    pub tls_key: Option<PathBuf>,

    /// A web page that may use ws:// and wss://, repeatable: https://HOST, as a browser's Origin names it, or *
    /// for all; without it no page in a browser reaches this server
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',', value_parser = values::origin, help_heading = "Wallets")]
    pub allow_origin: Vec<String>,

    /// The newest protocol version to speak; 1.7 is a draft [default: 1.6]
    #[arg(long, value_name = "VERSION", value_parser = values::protocol_version, help_heading = "Wallets")]
    pub protocol_max: Option<String>,

    /// The name told to wallets [default: Ambra and its version]
    #[arg(long, value_name = "NAME", value_parser = values::server_name, help_heading = "Wallets")]
    pub server_name: Option<String>,

    /// The greeting that wallets show
    #[arg(long, value_name = "TEXT", value_parser = values::banner, help_heading = "Wallets")]
    pub banner: Option<String>,

    /// Where the status page listens: HOST:PORT, or off
    /// [default: this machine; 50009, testnet 60009, testnet4 40009, signet 60609, regtest 60409]
    #[arg(long, value_name = "HOST:PORT", value_parser = values::admin_listen, help_heading = "Status page")]
    pub admin_listen: Option<AdminListen>,

    /// A name under which the status page is known besides, repeatable; say, behind a proxy
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = values::admin_host, help_heading = "Status page")]
    pub admin_host: Vec<String>,

    #[command(flatten)]
    pub limits: Limits,

    /// error, warn, info, debug or trace; by room too: info,sync=debug [default: info]
    #[arg(long, value_name = "LEVEL", help_heading = "Log")]
    pub log_level: Option<LogLevels>,

    /// human or json [default: human]
    #[arg(long, value_name = "FORMAT", value_parser = values::log_format, help_heading = "Log")]
    pub log_format: Option<LogFormat>,
}

const _: () = {
    assert!(SYNC_MEMORY_DEFAULT.0 == 1024, "the help text says 1024");
    assert!(
        Profile::Small.sync_memory().0 == 256,
        "the help text says 256"
    );
    assert!(
        Profile::Large.sync_memory().0 == 4096,
        "the help text says 4096"
    );
    assert!(
        Profile::Small.cache_memory().0 == 64,
        "the help text says 64"
    );
    assert!(
        Profile::Large.cache_memory().0 == 2048,
        "the help text says 2048"
    );
};

/// The one flag that is no setting.
const REBUILD: &str = "rebuild";

/// The command line's shape: every setting may stand before the verb or after it, and a verb's own help is about the
/// verb.
pub(super) fn command() -> clap::Command {
    let command = <Args as clap::CommandFactory>::command();
    let command = command.mut_args(|arg| {
        let is_global = is_setting(&arg) || arg.get_id() == REBUILD;
        arg.global(is_global)
    });
    let settings: Vec<_> = command
        .get_arguments()
        .filter(|arg| is_setting(arg))
        .map(|arg| arg.clone().hide(true))
        .collect();
    let rebuild = command.get_arguments().find(|arg| arg.get_id() == REBUILD);
    let refused: Vec<_> = rebuild
        .into_iter()
        .map(|arg| arg.clone().hide(true))
        .collect();
    command.mut_subcommands(|verb| {
        let verb = with_hidden(verb, &settings);
        match verb.get_name() {
            "serve" | "sync" => verb,
            // It is refused there with a reason.
            _ => with_hidden(verb, &refused),
        }
    })
}

/// The same command with a help that fits on a screen: all is taken, what few people need is not named.
pub(super) fn brief_command() -> clap::Command {
    let is_named = |arg: &clap::Arg| arg.get_long().is_some_and(|long| BRIEF.contains(&long));
    command()
        .mut_args(|arg| match is_named(&arg) || !is_setting(&arg) {
            true => arg,
            false => arg.hide(true),
        })
        .after_help(AFTER_BRIEF_HELP)
}

fn with_hidden(verb: clap::Command, settings: &[clap::Arg]) -> clap::Command {
    let verb = verb.args(settings).after_help(AFTER_COMMAND_HELP);
    verb.mut_subcommands(|verb| with_hidden(verb, settings))
}

/// What a shell offers after an option: the words that it takes, folders, files. For completions alone: the words'
/// parsers are in [`values`], and their errors are better than clap's.
pub(super) fn with_offers(command: clap::Command) -> clap::Command {
    use clap::{ValueHint, builder::PossibleValuesParser};
    let offer = |arg: clap::Arg| {
        let words: Vec<&'static str> = match arg.get_id().as_str() {
            "network" => values::NETWORKS.map(|(name, _)| name).to_vec(),
            "block_source" => vec!["auto", "files", "rest", "rpc"],
            "profile" => vec!["small", "default", "large"],
            "protocol_max" => values::PROTOCOL_VERSIONS.to_vec(),
            "log_level" => vec!["error", "warn", "info", "debug", "trace"],
            "log_format" => vec!["human", "json"],
            _ => vec![],
        };
        let names = arg.get_value_names().unwrap_or_default();
        let place = match names.first().map(|name| name.as_str()) {
            Some("DIR") => Some(ValueHint::DirPath),
            Some("FILE") => Some(ValueHint::FilePath),
            Some(_) | None => None,
        };
        match (words.is_empty(), place) {
            (false, _) => arg.value_parser(PossibleValuesParser::new(words)),
            (true, Some(place)) => arg.value_hint(place),
            (true, None) => arg,
        }
    };
    command.mut_args(offer).mut_subcommands(with_offers)
}

/// False for `--help` and `--version`.
pub(super) fn is_setting(arg: &clap::Arg) -> bool {
    use clap::ArgAction;
    arg.get_long().is_some() && matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}
