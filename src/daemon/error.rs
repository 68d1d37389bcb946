//! What can go wrong with the node.

/// What went wrong with a call to the node, sorted by what a caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The node is away, loading, or overloaded: wait and try again. The text says which.
    #[error("{0}")]
    Unavailable(String),
    /// The node is there, and does not take the user name and the password that were given: only the person can mend
    /// it, or a restart of the node with others.
    #[error("{0}")]
    WrongLogin(String),
    /// The node understood and refused: its code and its own words.
    #[error("{message} (code {code})")]
    Refused { code: i32, message: String },
}

/// What a node that is not ready yet is told by.
const STARTING: &str = "the node is starting: ";

impl RpcError {
    /// True of a node that answers, but is not ready to serve.
    pub fn is_starting(&self) -> bool {
        matches!(self, RpcError::Unavailable(text) if text.contains(STARTING))
    }

    pub(super) fn starting(words: &str) -> RpcError {
        RpcError::Unavailable(format!("{STARTING}{words}"))
    }

    pub(super) fn garbage(method: &str) -> RpcError {
        RpcError::Unavailable(format!(
            "the node's answer to {method} cannot be understood"
        ))
    }
}
