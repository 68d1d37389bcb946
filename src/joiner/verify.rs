//! `ambra verify`: joins the index, read beside whoever writes it, and the node.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    Outcome, RunError,
    node::{ask, block_source, find_node},
    print,
};
use crate::{
    admin::{
        status::Monitor,
        verify::{self, Blocks, COUNT_PATIENCE, Node, Options, Watch},
    },
    chain,
    config::{BlocksToVerify, Config, Verify},
    daemon::rpc::{Rpc, RpcConfig},
    index::Beside,
};

/// Between two lines that say how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);

pub(super) async fn run(
    config: &Config,
    asked: &Verify,
    mut shutdown: watch::Receiver<bool>,
) -> Result<Outcome, RunError> {
    let teller = Arc::new(Teller::default());
    let checking = check(config, asked, teller.clone());
    tokio::select! {
        outcome = checking => outcome,
        _ = shutdown.wait_for(|stop| *stop) => {
            teller.is_stopped.store(true, Ordering::Relaxed);
            Err(RunError::of(verify::VerifyError::Stopped))
        }
    }
}

async fn check(config: &Config, asked: &Verify, teller: Arc<Teller>) -> Result<Outcome, RunError> {
    // Nobody looks at this one: a check has no status page.
    let monitor = Monitor::new();
    let node = find_node(config, &monitor).await?;
    let rpc = |timeout| {
        Rpc::new(RpcConfig {
            url: node.rpc_url.clone(),
            auth: node.auth.clone(),
            timeout,
        })
    };
    let (patient, rpc) = (rpc(COUNT_PATIENCE), rpc(RpcConfig::TIMEOUT));
    let genesis = {
        let rpc = rpc.clone();
        let genesis = move || rpc.block_hash(0).and_then(|hash| rpc.block_header(&hash));
        ask(&monitor, genesis).await?
    };
    let db_dir = config.db_dir(node.network);
    let source_choice = config.block_source;
    let options = Options {
        blocks: match asked.blocks {
            BlocksToVerify::All => Blocks::All,
            BlocksToVerify::Some(count) => Blocks::Sample(count),
        },
        // The standard library's source of randomness.
        seed: asked
            .seed
            .unwrap_or_else(|| RandomState::new().build_hasher().finish()),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let checking = tokio::task::spawn_blocking(move || {
        let index = Beside::open(&db_dir, &chain::block_hash(&genesis)).map_err(RunError::of)?;
        let blocks_dir = node.blocks_dir.as_deref();
        let source = block_source(source_choice, blocks_dir, &node.rpc_url, rpc.clone())?;
        let truth = Node {
            source,
            rpc,
            patient,
            network: node.network,
        };
        verify::verify(&index, &truth, &options, &*teller).map_err(RunError::of)
    });
    let report = checking.await.map_err(RunError::of)??;
    print(&format!("{report}\n"))?;
    Ok(if report.is_well() {
        Outcome::Well
    } else {
        Outcome::Faults
    })
}

/// Tells the log what is being checked, and now and then how far it is.
#[derive(Default)]
struct Teller {
    is_stopped: AtomicBool,
    phase: Mutex<Option<(String, Instant)>>,
}

impl Watch for Teller {
    fn phase(&self, text: &str) {
        tracing::info!("checking: {text}");
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        *phase = Some((text.to_owned(), Instant::now()));
    }

    fn done(&self, done: u64, all: u64) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((text, told)) = &mut *phase
            && told.elapsed() >= TELL_EVERY
        {
            *told = Instant::now();
            let percent = 100.0 * done as f64 / all.max(1) as f64;
            tracing::info!("checking: {text}: {percent:.0} %");
        }
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}
