//! `ambra sync`: index up to the node's newest block, and end.

use tokio::sync::watch;

use super::{
    RunError,
    node::find_node,
    open::{Opened, open},
};
use crate::{
    admin::status::Monitor,
    config::Config,
    sync::{Stop, SyncError, start::FirstSync, tip::Writer},
};

pub(super) async fn run(
    config: &Config,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let opening = async {
        let monitor = Monitor::new();
        let node = find_node(config, &monitor).await?;
        open(config, node, &monitor).await
    };
    let opened = tokio::select! {
        opened = opening => opened?,
        _ = shutdown.wait_for(|stop| *stop) => return Ok(()),
    };
    let stop = Stop::default();
    let working = {
        let (config, stop) = (config.clone(), stop.clone());
        tokio::task::spawn_blocking(move || work(&config, opened, stop))
    };
    tokio::pin!(working);
    let ended = tokio::select! {
        ended = &mut working => ended,
        _ = shutdown.wait_for(|stop| *stop) => {
            stop.set();
            working.await
        }
    };
    match ended.map_err(RunError::of)? {
        Ok(()) | Err(SyncError::Stopped) => Ok(()),
        Err(error) => Err(RunError::of(error)),
    }
}

fn work(config: &Config, opened: Opened, stop: Stop) -> Result<(), SyncError> {
    let Opened {
        node,
        rpc,
        index,
        source,
        state,
    } = opened;
    let stats = std::sync::Arc::default();
    let first = FirstSync {
        index: index.clone(),
        source: source.clone(),
        rpc: rpc.clone(),
        state: state.clone(),
        network: node.network,
        memory: config.sync_memory_bytes,
        threads: config.threads,
        stop: stop.clone(),
        stats: std::sync::Arc::clone(&stats),
    };
    let result = first.run().and_then(|()| {
        let mut writer = Writer::new(index.clone(), source, rpc, state, stop, stats);
        let height = writer.catch_up()?;
        tracing::info!(
            "the index is complete up to block {height}: {:.1} MB in {}",
            index.size() as f64 / 1e6,
            index.path().display()
        );
        Ok(())
    });
    index.flush()?;
    result
}
