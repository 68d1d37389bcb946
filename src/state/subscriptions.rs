//! Who wants to hear of what. Shared by script hash; a change is fanned out by what it touched.
use bitcoin::OutPoint;

use crate::chain::ScriptHash;

/// What may have changed since a subscriber last looked. Scripts and outpoints are candidates: compare
/// the new status with the one last told before sending.
#[derive(Debug, Default)]
pub struct Changed {
    pub tip: bool,
    pub scripts: Vec<ScriptHash>,
    pub outpoints: Vec<OutPoint>,
}

/// All subscriptions of all sessions.
#[derive(Clone)]
pub struct Subscriptions {}

impl Subscriptions {
    /// A new subscriber, one a session. Dropping it ends its subscriptions.
    pub fn subscriber(&self) -> Subscriber {
        unimplemented!()
    }
}

/// One session's end.
pub struct Subscriber {}

#[allow(unused_variables)]
impl Subscriber {
    /// Register first, then compute the status: a change in between is told, none is lost.
    pub fn subscribe(&self, script: ScriptHash) {
        unimplemented!()
    }
    /// True if there was such a subscription.
    pub fn unsubscribe(&self, script: &ScriptHash) -> bool {
        unimplemented!()
    }
    pub fn watch(&self, outpoint: OutPoint) {
        unimplemented!()
    }
    pub fn unwatch(&self, outpoint: &OutPoint) -> bool {
        unimplemented!()
    }
    /// Tip changes are told too from now on.
    pub fn watch_tip(&self) {
        unimplemented!()
    }
    /// Waits until something changed; takes and clears it. Cancel-safe.
    pub async fn changed(&self) -> Changed {
        unimplemented!()
    }
}
