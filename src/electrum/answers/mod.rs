//! How each method is answered: pure functions of one consistent moment, writing JSON.

pub mod headers;
pub mod node;
pub mod scripts;
pub mod server;
pub mod transactions;

use std::sync::Arc;

use crate::state::Ask;

use super::{
    Settings,
    backend::{Answers, Backend, Node},
    version::{Speaks, Version},
};

/// What a question is answered from. It can be taken to another thread.
pub struct Question {
    pub view: Arc<dyn Answers>,
    pub backend: Arc<dyn Backend>,
    pub settings: Arc<Settings>,
    pub speaks: Speaks,
    pub ask: Ask,
}

impl Question {
    pub fn version(&self) -> Version {
        self.speaks.version()
    }

    pub fn node(&self) -> &dyn Node {
        self.backend.node()
    }
}
