//! Finding the node, and the best way to its blocks.

use std::{path::Path, time::Duration};

use bitcoin::BlockHash;

use super::RunError;
use crate::{
    admin::status::Monitor,
    config::{self, BlockSourceChoice, Config},
    daemon::{
        discover::{self, DiscoverError, NodeLocation},
        files::{BlockFiles, FilesError},
        rest::Rest,
        rpc::{Rpc, RpcError},
        running::running_nodes,
        source::{BlockSource, SourceKind},
    },
};

/// Between two looks for a node that is away.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A service that is only the second best way is asked for so often while it is not to be understood: it may be no node's.
const REST_ATTEMPTS: u32 = 4;

/// What the person said about the node.
pub(super) fn wanted(config: &Config) -> discover::Wanted {
    discover::Wanted {
        network: config.network,
        daemon_dir: config.daemon_dir.clone(),
        rpc_url: config.daemon_rpc_url.clone(),
        cookie_file: config.cookie_file.clone(),
        user_password: config
            .rpc_login
            .clone()
            .map(|login| (login.user, login.password)),
        blocks_dir: config.blocks_dir.clone(),
    }
}

/// What leads to the nodes that run on this machine though none was found, or opens one that keeps silent: a line each.
pub(super) fn nodes_nearby() -> Vec<String> {
    let nodes = running_nodes().into_iter();
    let mut lines: Vec<String> = nodes
        .map(|node| match node.is_silent {
            true => format!(
                "bitcoin.conf: server=1, then restart the node that runs in {}",
                node.data_dir.display()
            ),
            false => format!("ambra {}", node.options()),
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

/// Looks for the node until it answers.
pub(super) async fn find_node(
    config: &Config,
    monitor: &Monitor,
) -> Result<NodeLocation, RunError> {
    let wanted = wanted(config);
    let mut told = String::new();
    loop {
        let wanted = wanted.clone();
        let found = tokio::task::spawn_blocking(move || discover::discover(&wanted)).await;
        match found.map_err(RunError::of)? {
            Ok(node) => {
                tracing::info!(
                    "the node at {} is on {}",
                    node.rpc_url,
                    config::network_name(node.network)
                );
                monitor.waits_for(None);
                return Ok(node);
            }
            Err(error) if error.is_passing() => {
                let text = error.to_string();
                if text != told {
                    tracing::warn!("{text}; waiting for it");
                    if matches!(error, DiscoverError::NoCookie { .. }) {
                        tell_nearby();
                    }
                    monitor.waits_for(Some(text.clone()));
                    told = text;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(error) => {
                if matches!(error, DiscoverError::NoDataDir { .. }) {
                    tell_nearby();
                }
                return Err(RunError::of(error));
            }
        }
    }
}

fn tell_nearby() {
    for line in nodes_nearby() {
        tracing::warn!("a node runs on this machine: {line}");
    }
}

/// Asks the node until it answers; a refusal is an error.
pub(super) async fn ask<T: Send + 'static>(
    monitor: &Monitor,
    question: impl Fn() -> Result<T, RpcError> + Clone + Send + 'static,
) -> Result<T, RunError> {
    let mut told = String::new();
    loop {
        let question = question.clone();
        match tokio::task::spawn_blocking(question)
            .await
            .map_err(RunError::of)?
        {
            Ok(answer) => {
                monitor.waits_for(None);
                return Ok(answer);
            }
            Err(RpcError::Unavailable(text)) => {
                if text != told {
                    tracing::warn!("{text}; waiting for the node");
                    monitor.waits_for(Some(text.clone()));
                    told = text;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(error) => return Err(RunError::of(error)),
        }
    }
}

/// Asks, so many times at most, until the node answers. That it is away, or starts, says nothing of what it has. Blocks.
fn until_it_answers<T>(
    attempts: u32,
    pause: Duration,
    question: impl Fn() -> Result<T, RpcError>,
) -> Result<T, RpcError> {
    let mut told = String::new();
    for _ in 1..attempts {
        match question() {
            Err(RpcError::Unavailable(text)) => {
                if text != told {
                    tracing::warn!("{text}; waiting for the node");
                    told = text;
                }
                std::thread::sleep(pause);
            }
            answer => return answer,
        }
    }
    question()
}

/// The best source that works, or the one that was asked for. Waits for a node that is away. Blocks.
pub(super) fn block_source(
    choice: BlockSourceChoice,
    blocks_dir: Option<&Path>,
    rpc_url: &str,
    rpc: Rpc,
) -> Result<BlockSource, RunError> {
    let files = || {
        let folder = blocks_dir.ok_or_else(|| {
            RunError(
                "the node's block files are not on this machine (or say where with --blocks-dir)"
                    .into(),
            )
        })?;
        let files = BlockFiles::open(folder).map_err(RunError::of)?;
        let is_ours = until_it_answers(u32::MAX, LOOK_AGAIN, || are_known(&files, &rpc));
        is_ours.map_err(RunError::of)??;
        Ok(files)
    };
    let rest = |attempts| {
        let rest = Rest::new(rpc_url);
        match until_it_answers(attempts, LOOK_AGAIN, || rest.available()) {
            Ok(true) => Ok(rest),
            Ok(false) => Err(RunError(
                "the node has no REST service that tells what blocks spend: put rest=1 into bitcoin.conf \
                 (Bitcoin Core 30 or newer)"
                    .into(),
            )),
            Err(error) => Err(RunError::of(error)),
        }
    };
    let source = match choice {
        BlockSourceChoice::Files => {
            let files = files().map_err(|why: RunError| {
                RunError(format!(
                    "the block files were asked for (--block-source): {why}. `ambra doctor` says what mends it"
                ))
            })?;
            BlockSource::new(Some(files), rest(REST_ATTEMPTS).ok(), rpc.clone())
        }
        BlockSourceChoice::Rest => BlockSource::new(None, Some(rest(u32::MAX)?), rpc),
        BlockSourceChoice::Rpc => BlockSource::new(None, None, rpc),
        BlockSourceChoice::Auto => {
            let files = files()
                .inspect_err(|why| {
                    tracing::warn!("not by block files: {why}. `ambra doctor` says what mends it")
                })
                .ok();
            let rest = rest(REST_ATTEMPTS)
                .inspect_err(|why| match files {
                    Some(_) => tracing::debug!("not by REST: {why}"),
                    None => tracing::info!("not by REST: {why}"),
                })
                .ok();
            BlockSource::new(files, rest, rpc.clone())
        }
    };
    let detail = match (source.kind(), source.files()) {
        (SourceKind::Files, Some(files)) => format!(
            " ({}{})",
            files.folder().display(),
            if files.is_xored() { ", XORed" } else { "" }
        ),
        _ => String::new(),
    };
    tracing::info!("blocks come by {}{detail}", source.kind().name());
    Ok(source)
}

/// The files are this node's: it knows a block that lies in them.
pub(super) fn belong_to(files: &BlockFiles, rpc: &Rpc) -> Result<(), RunError> {
    are_known(files, rpc).map_err(RunError::of)?
}

/// The same; the outer error is that the node does not answer.
fn are_known(files: &BlockFiles, rpc: &Rpc) -> Result<Result<(), RunError>, RpcError> {
    let first = || -> Result<Option<BlockHash>, FilesError> {
        let number = files.numbers()?.first().copied().unwrap_or(0);
        let (blocks, _) = files.scan(number, 0)?;
        Ok(blocks.first().map(|block| block.hash))
    };
    let first = match first() {
        Ok(first) => first,
        Err(error) => return Ok(Err(RunError::of(error))),
    };
    match first.map(|hash| rpc.block_header_info(&hash)) {
        Some(Ok(_)) => Ok(Ok(())),
        Some(Err(error @ RpcError::Unavailable(_))) => Err(error),
        Some(Err(_)) | None => Ok(Err(RunError(format!(
            "{} holds another node's blocks",
            files.folder().display()
        )))),
    }
}

/// The host of `http://HOST:PORT`.
pub(super) fn host_of(url: &str) -> &str {
    let host = url.strip_prefix("http://").unwrap_or(url);
    let host = host.split('/').next().unwrap_or(host);
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_node_that_is_away_for_a_moment_is_asked_again() {
        let away = || RpcError::Unavailable("loading".to_owned());
        let no = || RpcError::Refused {
            code: -5,
            message: "Block not found".to_owned(),
        };
        for (answers, attempts, expected) in [
            (vec![Err(away()), Err(away()), Ok(7)], u32::MAX, Ok(7)),
            (vec![Err(away()), Err(no()), Ok(7)], u32::MAX, Err(no())),
            (vec![Err(away()), Err(away()), Ok(7)], 2, Err(away())),
        ] {
            let answers = RefCell::new(answers.into_iter());
            let question = || answers.borrow_mut().next().expect("an answer");
            assert_eq!(
                until_it_answers(attempts, Duration::ZERO, question),
                expected
            );
        }
    }

    #[test]
    fn the_host_is_what_stands_before_the_port() {
        assert_eq!(host_of("http://127.0.0.1:8332"), "127.0.0.1");
        assert_eq!(host_of("http://[::1]:8332/"), "[::1]");
        assert_eq!(host_of("http://node"), "node");
    }
}
