//! The process: settings, log, open files, signals, exit code. All the rest is [`ambra::run`].
#![forbid(unsafe_code)]

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use ambra::{
    Outcome, RunError,
    config::{Config, ConfigError, Invocation, LogFormat},
};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};
use tracing_subscriber::{Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// The system's allocator keeps what many threads had at their busiest moment; this one gives it back after some seconds.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long a stop may take. What is still at work then is left: the index is whole after a kill at any
/// moment, and a system that shuts down does not wait long.
const STOP_WITHIN: Duration = Duration::from_millis(1800);

/// Fewer open files than this, and RocksDB with a full index or many wallets run out of them.
const OPEN_FILES_LOW: u64 = 4096;

const EXIT_WELL: u8 = 0;
/// Could not go on, and the log says why; or found faults, and told of them.
const EXIT_FAILED: u8 = 1;
/// A wrong option or setting (clap's own code too).
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let invocation = match Invocation::from_process() {
        Ok(invocation) => invocation,
        // Also --help and --version, which are no failures.
        Err(ConfigError::Usage(error)) => error.exit(),
        Err(error) => {
            eprintln!("ambra: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    log_to_stderr(&invocation.config);
    info!("Ambra {}", env!("CARGO_PKG_VERSION"));
    raise_open_files();

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            error!("cannot start threads: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let (code, asked_to_stop) = runtime.block_on(run(invocation));
    // A blocking call to the node may still wait for its answer; nobody needs it any more.
    let until = asked_to_stop.unwrap_or_else(Instant::now) + STOP_WITHIN;
    runtime.shutdown_timeout(until.saturating_duration_since(Instant::now()));
    leave(code, until)
}

/// Leaves once the index is closed, by `until` at the latest. Then without what `exit` does: it would destroy what
/// RocksDB's threads still use (`index::wait_until_closed` has the story), and a kill does the index no harm.
fn leave(code: u8, until: Instant) -> ExitCode {
    if ambra::index::wait_until_closed(until.saturating_duration_since(Instant::now())) {
        return ExitCode::from(code);
    }
    debug!("the index is still in use; leaving all the same");
    let _ = std::io::stdout().flush();
    #[cfg(unix)]
    signal_hook::low_level::exit(code.into());
    #[cfg(not(unix))]
    std::process::abort()
}

/// Runs until it ends by itself or is told to stop; then also says when that was.
async fn run(invocation: Invocation) -> (u8, Option<Instant>) {
    let (stop, shutdown) = watch::channel(false);
    let is_question = invocation.command.is_question();
    let code = |result| code(result, is_question);
    let run = ambra::run(invocation, shutdown);
    tokio::pin!(run);
    tokio::select! {
        result = &mut run => return (code(result), None),
        signal = stop_signal() => info!("{signal}: stopping"),
    }
    let asked_to_stop = Instant::now();
    // Nobody listens if everything has ended in this moment.
    let _ = stop.send(true);
    let code = tokio::select! {
        result = tokio::time::timeout(STOP_WITHIN, &mut run) => match result {
            Ok(result) => code(result),
            Err(_) => {
                warn!("not everything has stopped in time; leaving all the same, the index is whole");
                EXIT_FAILED
            }
        },
        signal = stop_signal() => {
            warn!("{signal} again: leaving at once");
            EXIT_FAILED
        }
    };
    (code, Some(asked_to_stop))
}

/// What a question could not be answered for is told without a log's trimmings.
fn code(result: Result<Outcome, RunError>, is_question: bool) -> u8 {
    match result {
        Ok(Outcome::Well) => EXIT_WELL,
        Ok(Outcome::Faults) => EXIT_FAILED,
        Err(error) => {
            match is_question {
                true => eprintln!("ambra: {error}"),
                false => error!("{error}"),
            }
            EXIT_FAILED
        }
    }
}

/// Waits for SIGINT or SIGTERM, and gives its name.
#[cfg(unix)]
async fn stop_signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    match (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) {
        (Ok(mut interrupt), Ok(mut terminate)) => tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        },
        (Err(error), _) | (_, Err(error)) => {
            warn!("signals cannot be heard ({error}); only a kill stops Ambra");
            std::future::pending().await
        }
    }
}

#[cfg(not(unix))]
async fn stop_signal() -> &'static str {
    match tokio::signal::ctrl_c().await {
        Ok(()) => "Ctrl-C",
        Err(error) => {
            warn!("Ctrl-C cannot be heard ({error}); only a kill stops Ambra");
            std::future::pending().await
        }
    }
}

fn log_to_stderr(config: &Config) {
    let format = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let format = match config.log_format {
        LogFormat::Human => format
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        LogFormat::Json => format.json().boxed(),
    };
    tracing_subscriber::registry()
        .with(ambra::admin::status::warnings_layer())
        .with(format.with_filter(config.log_levels.filter()))
        .init();
}

/// Up to what the system allows: many systems start processes with 1024.
fn raise_open_files() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < OPEN_FILES_LOW => warn!(
            "only {limit} files may be open at a time; raise the limit to {OPEN_FILES_LOW} or more (ulimit -n, LimitNOFILE=)"
        ),
        Ok(_) => {}
        Err(error) => warn!("the limit of open files cannot be raised: {error}"),
    }
}
