//! The commands that ask something of an index and end: `address`, `compact`, `snapshot`.

use std::{path::Path, sync::Arc};

use super::{
    Outcome, RunError,
    control::{self, Compacted, Question},
    node::{block_source, find_node},
    open::{connect, existing, network, offline},
    print,
};
use crate::{
    admin::{
        address::{self, AddressReport},
        snapshot,
        status::Monitor,
    },
    chain::{self, HeaderBytes},
    config::Config,
    daemon::{discover::NodeLocation, rpc::Rpc},
    state::{State, StateLimits},
    sync::Stop,
};

/// From the running Ambra, else from the index and the node.
pub(super) async fn address(
    config: &Config,
    text: &str,
    as_json: bool,
) -> Result<Outcome, RunError> {
    let network = network(config).await?;
    let script = address::script_hash(text, network).map_err(RunError::of)?;
    let folder = existing(config, network)?;
    let question = Question::Address {
        script_hash: script.to_string(),
    };
    let asked = blocking(move || control::ask::<AddressReport>(&folder, &question)).await?;
    let report = match asked {
        Some((report, _)) => report,
        None => {
            let index = {
                let config = config.clone();
                blocking(move || offline(&config, network)).await?
            };
            let (node, rpc, genesis) = node(config).await?;
            let choice = config.block_source;
            blocking(move || {
                let source = block_source(
                    choice,
                    node.blocks_dir.as_deref(),
                    &node.rpc_url,
                    rpc.clone(),
                )?;
                let (index, source) = (Arc::new(index), Arc::new(source));
                if index.tip().map_err(RunError::of)?.is_none() {
                    return Err(RunError(
                        "the index is not complete: `ambra sync` goes on with it".to_owned(),
                    ));
                }
                let limits = StateLimits::default();
                let state = State::new(index, source, genesis, limits).map_err(RunError::of)?;
                AddressReport::of(&state.view(), &script, false).map_err(RunError::of)
            })
            .await?
        }
    };
    if as_json {
        let text = serde_json::to_string_pretty(&report).map_err(RunError::of)?;
        print(&format!("{text}\n"))
    } else {
        print(&report.to_string())
    }
}

pub(super) async fn compact(config: &Config) -> Result<Outcome, RunError> {
    let network = network(config).await?;
    let folder = existing(config, network)?;
    let config = config.clone();
    let compacted: Compacted = blocking(move || {
        Ok(match control::ask(&folder, &Question::Compact {})? {
            Some((compacted, _)) => compacted,
            None => control::compact(&offline(&config, network)?)?,
        })
    })
    .await?;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    print(&format!(
        "compacted: {:.1} MB before, {:.1} MB after\n",
        megabytes(compacted.before),
        megabytes(compacted.after)
    ))
}

/// By the running Ambra, else from the index itself.
pub(super) async fn export(config: &Config, target: &Path) -> Result<Outcome, RunError> {
    let network = network(config).await?;
    let folder = existing(config, network)?;
    let (config, target) = (config.clone(), target.to_owned());
    let manifest = blocking(move || {
        match control::ask::<snapshot::About>(&folder, &Question::Checkpoint {})? {
            Some((about, stream)) => {
                let exported = snapshot::export(&about, &target).map_err(RunError::of);
                control::release(stream);
                exported
            }
            None => {
                let index = offline(&config, network)?;
                let checkpoint = snapshot::checkpoint(&index).map_err(RunError::of)?;
                snapshot::export(checkpoint.about(), &target).map_err(RunError::of)
            }
        }
    })
    .await?;
    print(&format!("{manifest}\n"))
}

/// Beside a node that has the snapshot's chain.
pub(super) async fn import(config: &Config, from: &Path) -> Result<Outcome, RunError> {
    let (node, rpc, genesis) = node(config).await?;
    let folder = config.db_dir(node.network);
    let into = folder.clone();
    let (from, choice) = (from.to_owned(), config.block_source);
    let height = blocking(move || {
        let source = block_source(
            choice,
            node.blocks_dir.as_deref(),
            &node.rpc_url,
            rpc.clone(),
        )?;
        let node = snapshot::Node {
            rpc: &rpc,
            source: &source,
            genesis: chain::block_hash(&genesis),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            stop: &Stop::default(),
        };
        snapshot::import(&from, &into, &node).map_err(RunError::of)
    })
    .await?;
    print(&format!(
        "the index is in {}, complete up to block {height}; `ambra` goes on from there\n",
        folder.display()
    ))
}

/// Waits for it.
async fn node(config: &Config) -> Result<(NodeLocation, Rpc, HeaderBytes), RunError> {
    let monitor = Monitor::new();
    let node = find_node(config, &monitor).await?;
    let (rpc, genesis) = connect(&node, &monitor).await?;
    Ok((node, rpc, genesis))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RunError> + Send + 'static,
) -> Result<T, RunError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(RunError::of)?
}
