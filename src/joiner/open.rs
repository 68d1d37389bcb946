//! Opening what is there: the node, its blocks, the index.

use std::{path::PathBuf, sync::Arc};

use bitcoin::{Network, blockdata::constants::genesis_block};

use super::{
    RunError,
    node::{LOOK_AGAIN, ask, block_source, wanted},
};
use crate::{
    admin::{snapshot, status::Monitor},
    chain::{self, HeaderBytes},
    config::{Config, NETWORKS},
    daemon::{
        discover::{self, NodeLocation},
        rpc::{Rpc, RpcConfig},
        source::BlockSource,
    },
    index::{DATABASE, Index, IndexError, has_database},
    state::{State, StateLimits},
    sync::{Stop, SyncError, relocate},
};

/// So great a part of `--cache-memory` large transactions may take besides: 32 MiB by default.
const LARGE_TXS_PART: u64 = 8;

/// The node, and the index beside it.
pub(super) struct Opened {
    pub node: NodeLocation,
    pub rpc: Rpc,
    pub index: Arc<Index>,
    pub source: Arc<BlockSource>,
    pub state: State,
}

/// Waits for the node; makes the index where there is none.
pub(super) async fn open(
    config: &Config,
    node: NodeLocation,
    monitor: &Monitor,
) -> Result<Opened, RunError> {
    let (rpc, genesis) = connect(&node, monitor).await?;
    let db_dir = config.db_dir(node.network);
    let (source_choice, blocks_dir, url) = (
        config.block_source,
        node.blocks_dir.clone(),
        node.rpc_url.clone(),
    );
    let limits = StateLimits {
        cache_bytes: config.cache_memory_bytes,
        large_tx_bytes: config.cache_memory_bytes as u64 / LARGE_TXS_PART,
        ..StateLimits::default()
    };
    let opened_rpc = rpc.clone();
    let rebuild = config.rebuild;
    let opening = tokio::task::spawn_blocking(move || {
        if rebuild {
            tracing::info!("deleting the index in {}", db_dir.display());
            Index::destroy(&db_dir).map_err(RunError::of)?;
        }
        let index = Index::open(&db_dir, &chain::block_hash(&genesis)).map_err(RunError::of)?;
        snapshot::clean(index.path());
        let source = block_source(
            source_choice,
            blocks_dir.as_deref(),
            &url,
            opened_rpc.clone(),
        )?;
        heal_places(&index, &source, &opened_rpc)?;
        let (index, source) = (Arc::new(index), Arc::new(source));
        let state =
            State::new(index.clone(), source.clone(), genesis, limits).map_err(RunError::of)?;
        Ok((index, source, state))
    });
    let (index, source, state) = opening.await.map_err(RunError::of)??;
    match index.tip().map_err(RunError::of)? {
        None => tracing::info!("a new index, in {}", index.path().display()),
        Some(tip) => tracing::info!(
            "the index in {} goes up to block {}, {:.1} MB",
            index.path().display(),
            tip.height,
            index.size() as f64 / 1e6
        ),
    }
    Ok(Opened {
        node,
        rpc,
        index,
        source,
        state,
    })
}

/// Finds the blocks again where the index came from another machine, or the node downloaded its chain anew. Blocks.
fn heal_places(index: &Index, source: &BlockSource, rpc: &Rpc) -> Result<(), RunError> {
    let Some(files) = source.files() else {
        return Ok(());
    };
    if relocate::fits(index, files).map_err(RunError::of)? {
        return Ok(());
    }
    tracing::info!(
        "the index does not know where the blocks lie in {}; finding them",
        files.folder().display()
    );
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut told = false;
    loop {
        let placed = relocate::check_headers(index, rpc).and_then(|fork| {
            relocate::place_blocks(index, source, rpc, fork, threads, &Stop::default())
        });
        match placed {
            Err(SyncError::Node(error)) => {
                if !told {
                    tracing::warn!("{error}; waiting for the node");
                    told = true;
                }
                std::thread::sleep(LOOK_AGAIN);
            }
            result => return result.map_err(RunError::of),
        }
    }
}

/// A handle on the node, and its genesis block's header.
pub(super) async fn connect(
    node: &NodeLocation,
    monitor: &Monitor,
) -> Result<(Rpc, HeaderBytes), RunError> {
    let rpc = Rpc::new(RpcConfig {
        url: node.rpc_url.clone(),
        auth: node.auth.clone(),
        timeout: RpcConfig::TIMEOUT,
    });
    let asked = rpc.clone();
    let genesis = ask(monitor, move || {
        asked
            .block_hash(0)
            .and_then(|hash| asked.block_header(&hash))
    })
    .await?;
    Ok((rpc, genesis))
}

/// The network that is meant, without waiting for the node: the one that was said, else the only one that has an index,
/// else the one that the node tells.
pub(super) async fn network(config: &Config) -> Result<Network, RunError> {
    if let Some(network) = config.network {
        return Ok(network);
    }
    let mut there = NETWORKS
        .into_iter()
        .map(|(_, network)| network)
        .filter(|network| config.db_dir(*network).join(DATABASE).is_dir());
    if let (Some(network), None) = (there.next(), there.next()) {
        return Ok(network);
    }
    let wanted = wanted(config);
    let found = tokio::task::spawn_blocking(move || discover::discover(&wanted)).await;
    let node = found.map_err(RunError::of)?.map_err(RunError::of)?;
    Ok(node.network)
}

/// The folder of an index that is there already; an error where there is none.
pub(super) fn existing(config: &Config, network: Network) -> Result<PathBuf, RunError> {
    let folder = config.db_dir(network);
    if has_database(&folder).map_err(RunError::of)? {
        return Ok(folder);
    }
    Err(RunError(format!(
        "there is no index in {}: `ambra sync` makes one; or say with --db-dir (and --network) where it is",
        folder.display()
    )))
}

/// An index that is there already, without the node. Blocks.
pub(super) fn offline(config: &Config, network: Network) -> Result<Index, RunError> {
    let folder = existing(config, network)?;
    let genesis = genesis_block(network).block_hash();
    Index::open(&folder, &genesis).map_err(|error| match error {
        // Those who come here have asked the server already.
        IndexError::InUse { path } => RunError(format!(
            "another process uses the index in {}, and does not answer on its {}: it may be starting, or be run by \
             another user",
            path.display(),
            super::control::SOCKET
        )),
        error => RunError::of(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_that_the_version_tells_is_the_indexs() {
        assert_eq!(crate::config::INDEX_FORMAT, Index::SHAPE.0);
    }
}
