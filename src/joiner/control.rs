//! A running Ambra's private door: a Unix socket in the index's folder, for the other commands of the same user.
//!
//! One line of JSON asks, one line of JSON answers. What a question made (a checkpoint) lasts as long as its connection.
//!
//! # Security
//! The socket is its owner's alone (mode 0600). It tells nothing that the index's own files would not tell.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream as AsyncStream},
};

use super::RunError;
use crate::{
    admin::{
        address::AddressReport,
        snapshot::{self, Checkpoint},
    },
    chain::ScriptHash,
    index::Index,
    state::State,
};

/// In the index's folder.
pub(super) const SOCKET: &str = "control.sock";

/// Longest question, in bytes; the longest one is some 100.
const QUESTION_BYTES_MAX: u64 = 4096;

/// After an error of `accept`, so long nobody is taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Longest wait for what was made to be taken away; a few files are unlinked.
const RELEASE_WAIT: Duration = Duration::from_secs(10);

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Question {
    /// Where it listens.
    Listeners {},
    /// An [`AddressReport`].
    Address { script_hash: String },
    /// Rewrites the files; answers when it is done.
    Compact {},
    /// Makes a copy that stands still until the connection ends.
    Checkpoint {},
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Ok(Value),
    Error(String),
}

/// The sizes before and after, in bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Compacted {
    pub before: u64,
    pub after: u64,
}

pub(super) fn compact(index: &Index) -> Result<Compacted, RunError> {
    let before = index.size();
    index.compact().map_err(RunError::of)?;
    Ok(Compacted {
        before,
        after: index.size(),
    })
}

/// The server's side.
pub(super) struct Control {
    pub index: Arc<Index>,
    pub state: State,
    pub listeners: Vec<String>,
}

/// Opens the door. Where it cannot be had, Ambra serves all the same.
pub(super) fn open(control: Control) -> Option<Door> {
    let path = control.index.path().join(SOCKET);
    match bind(&path) {
        Ok(listener) => Some(Door {
            serving: tokio::spawn(accept(listener, Arc::new(control))),
            path,
        }),
        Err(error) => {
            tracing::warn!(
                "{}: {error}; `ambra address` and `ambra snapshot export` cannot ask this server",
                path.display()
            );
            None
        }
    }
}

/// Closes it when dropped.
pub(super) struct Door {
    serving: tokio::task::JoinHandle<()>,
    path: PathBuf,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.serving.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whoever holds the index's lock owns the socket too: one that is there was left by a dead process.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept(listener: UnixListener, control: Arc<Control>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(answer(stream, Arc::clone(&control)));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn answer(stream: AsyncStream, control: Arc<Control>) {
    let (reading, mut writing) = stream.into_split();
    let mut reading = tokio::io::BufReader::new(reading);
    let mut line = String::new();
    let question = (&mut reading)
        .take(QUESTION_BYTES_MAX)
        .read_line(&mut line)
        .await;
    if !matches!(question, Ok(bytes) if bytes > 0) {
        return;
    }
    let work = move || reply(&line, &control);
    let (answer, made) = match tokio::task::spawn_blocking(work).await {
        Ok(Ok((value, made))) => (Answer::Ok(value), made),
        Ok(Err(error)) => (Answer::Error(error.0), None),
        Err(error) => (Answer::Error(error.to_string()), None),
    };
    let Ok(mut text) = serde_json::to_string(&answer) else {
        return;
    };
    text.push('\n');
    if writing.write_all(text.as_bytes()).await.is_err() {
        return;
    }
    if made.is_some() {
        // Until the asker has copied it, or is gone.
        let mut rest = [0; 64];
        while matches!(reading.read(&mut rest).await, Ok(bytes) if bytes > 0) {}
    }
    // The asker sees the end of the stream when it is gone, not before.
    drop(made);
}

/// What was made for the asker is needed no more: waits until it is gone, so that nothing is left behind.
pub(super) fn release(mut stream: UnixStream) {
    let end = stream
        .shutdown(Shutdown::Write)
        .and_then(|()| stream.set_read_timeout(Some(RELEASE_WAIT)))
        .and_then(|()| stream.read_to_end(&mut Vec::new()));
    if let Err(error) = end {
        tracing::debug!("the running Ambra does not say that its copy is gone: {error}");
    }
}

/// The answer, and what lasts as long as the connection. Blocks.
fn reply(line: &str, control: &Control) -> Result<(Value, Option<Checkpoint>), RunError> {
    let question: Question = serde_json::from_str(line).map_err(|_| {
        RunError("the running Ambra is of another version; restart it, then ask again".to_owned())
    })?;
    match question {
        Question::Listeners {} => Ok((json!(control.listeners), None)),
        Question::Address { script_hash } => {
            let script: ScriptHash = script_hash.parse().map_err(RunError::of)?;
            let report = AddressReport::of(&control.state.view(), &script, true);
            Ok((json!(report.map_err(RunError::of)?), None))
        }
        Question::Compact {} => Ok((json!(compact(&control.index)?), None)),
        Question::Checkpoint {} => {
            let checkpoint = snapshot::checkpoint(&control.index).map_err(RunError::of)?;
            Ok((json!(checkpoint.about()), Some(checkpoint)))
        }
    }
}

/// The asker's side: `None` where no Ambra answers. The stream keeps what was made. Blocks.
pub(super) fn ask<T: DeserializeOwned>(
    folder: &Path,
    question: &Question,
) -> Result<Option<(T, UnixStream)>, RunError> {
    let path = folder.join(SOCKET);
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(RunError(format!(
                "{}: {error}: run this as the user that runs Ambra",
                path.display()
            )));
        }
        Err(_) => return Ok(None),
    };
    let broken = |error: &dyn std::fmt::Display| {
        RunError(format!("the running Ambra gave no answer: {error}"))
    };
    let mut text = serde_json::to_string(question).map_err(RunError::of)?;
    text.push('\n');
    stream
        .write_all(text.as_bytes())
        .map_err(|error| broken(&error))?;
    let mut line = String::new();
    BufReader::new(Read::by_ref(&mut stream))
        .read_line(&mut line)
        .map_err(|error| broken(&error))?;
    match serde_json::from_str(&line).map_err(|error| broken(&error))? {
        Answer::Ok(value) => {
            let answer = serde_json::from_value(value).map_err(|error| broken(&error))?;
            Ok(Some((answer, stream)))
        }
        Answer::Error(words) => Err(RunError(words)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_door_is_its_owners_alone_and_a_dead_ones_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SOCKET);
        for _ in 0..2 {
            let listener = bind(&path).unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            drop(listener);
            assert!(path.exists(), "a socket outlives its process");
        }
    }

    #[test]
    fn where_nobody_serves_nobody_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let asked = ask::<Vec<String>>(folder.path(), &Question::Listeners {});
        assert!(matches!(asked, Ok(None)));
    }
}
