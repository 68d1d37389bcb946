//! What a session subscribed to, and what it was last told.

use std::collections::{HashMap, hash_map::Entry};

use bitcoin::OutPoint;

use crate::{
    chain::{ScriptHash, Status},
    state::OutpointStatus,
};

/// Under which names a script was subscribed to: a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names(u8);

impl Names {
    pub const SCRIPT_HASH: Names = Names(1);
    pub const SCRIPT: Names = Names(2);
    pub const ADDRESS: Names = Names(4);

    pub fn contains(self, other: Names) -> bool {
        self.0 & other.0 != 0
    }

    pub fn without(self, other: Names) -> Names {
        Names(self.0 & !other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A script's subscription. Small, for there may be half a million: 36 bytes and the hash.
#[derive(Debug)]
struct Script {
    told: Option<Status>,
    /// The client has had a first status.
    is_told: bool,
    /// It changed while an answer was on its way: look again when that is here.
    is_stale: bool,
    /// Answers on their way.
    waiting: u8,
    names: Names,
}

/// An outpoint's subscription.
#[derive(Debug)]
struct Watched {
    told: Option<OutpointStatus>,
    is_stale: bool,
    waiting: u8,
    /// The client's hint, without which the outpoint cannot be found.
    script: ScriptHash,
}

/// What to do after an answer came.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Nothing,
    /// Tell these names of it.
    Tell(Names),
    /// It was never told, and is not going to be: end the subscription.
    Forget,
}

#[derive(Default)]
pub struct Subscribed {
    scripts: HashMap<ScriptHash, Script>,
    /// The addresses as they were given.
    addresses: HashMap<ScriptHash, Vec<Box<str>>>,
    outpoints: HashMap<OutPoint, Watched>,
    /// Changed, but could not be looked at.
    unanswered: Unanswered,
}

/// What could not be looked at when it changed.
#[derive(Default)]
pub struct Unanswered {
    pub scripts: Vec<ScriptHash>,
    pub outpoints: Vec<OutPoint>,
}

impl Subscribed {
    pub fn len(&self) -> usize {
        self.scripts.len() + self.outpoints.len()
    }

    /// A request to subscribe came: an answer is on its way.
    pub fn ask_script(&mut self, script: ScriptHash, names: Names, address: Option<&str>) {
        let entry = self.scripts.entry(script).or_insert(Script {
            told: None,
            is_told: false,
            is_stale: false,
            waiting: 0,
            names: Names::default(),
        });
        entry.waiting = entry.waiting.saturating_add(1);
        entry.names.0 |= names.0;
        if let Some(address) = address {
            let given = self.addresses.entry(script).or_default();
            if !given.iter().any(|known| **known == *address) {
                given.push(address.into());
            }
        }
    }

    pub fn addresses(&self, script: &ScriptHash) -> &[Box<str>] {
        self.addresses.get(script).map_or(&[], Vec::as_slice)
    }

    /// The script may have changed. True: look at it; an answer is on its way from now on.
    pub fn script_changed(&mut self, script: &ScriptHash) -> bool {
        match self.scripts.get_mut(script) {
            Some(entry) if entry.waiting > 0 => {
                entry.is_stale = true;
                false
            }
            Some(entry) => {
                entry.is_stale = false;
                entry.waiting = 1;
                true
            }
            None => false,
        }
    }

    /// An answer came. `replied`: a reply under this name told it already.
    pub fn script_answered(
        &mut self,
        script: &ScriptHash,
        status: Option<Option<Status>>,
        replied: Option<Names>,
    ) -> Next {
        let Some(entry) = self.scripts.get_mut(script) else {
            return Next::Nothing;
        };
        entry.waiting = entry.waiting.saturating_sub(1);
        match status {
            Some(status) => {
                let differs = entry.is_told && entry.told != status;
                let others = replied.map_or(entry.names, |name| entry.names.without(name));
                entry.told = status;
                entry.is_told = true;
                if differs && !others.is_empty() {
                    return Next::Tell(others);
                }
            }
            None if !entry.is_told && entry.waiting == 0 => {
                self.remove_script(script);
                return Next::Forget;
            }
            // What could not be answered now is looked at again with the next change.
            None if replied.is_none() => self.unanswered.scripts.push(*script),
            None => {}
        }
        Next::Nothing
    }

    /// True if it changed while an answer was on its way; the next one is on its way from now on.
    pub fn is_script_stale(&mut self, script: &ScriptHash) -> bool {
        match self.scripts.get_mut(script) {
            Some(entry) if entry.is_stale && entry.waiting == 0 => {
                entry.is_stale = false;
                entry.waiting = 1;
                true
            }
            _ => false,
        }
    }

    /// Takes what could not be looked at when it changed.
    pub fn take_unanswered(&mut self) -> Unanswered {
        std::mem::take(&mut self.unanswered)
    }

    /// What was told last, for a notification.
    pub fn told(&self, script: &ScriptHash) -> Option<Status> {
        self.scripts.get(script).and_then(|entry| entry.told)
    }

    /// Ends a subscription under one name: was there one, and is no name left?
    pub fn unsubscribe_script(&mut self, script: &ScriptHash, name: Names) -> (bool, bool) {
        let Entry::Occupied(mut entry) = self.scripts.entry(*script) else {
            return (false, false);
        };
        let names = entry.get().names;
        if !names.contains(name) {
            return (false, false);
        }
        entry.get_mut().names = names.without(name);
        let is_last = names.without(name).is_empty();
        if is_last {
            self.remove_script(script);
        }
        (true, is_last)
    }

    fn remove_script(&mut self, script: &ScriptHash) {
        self.scripts.remove(script);
        self.addresses.remove(script);
    }

    pub fn ask_outpoint(&mut self, outpoint: OutPoint, script: ScriptHash) {
        let entry = self.outpoints.entry(outpoint).or_insert(Watched {
            told: None,
            is_stale: false,
            waiting: 0,
            script,
        });
        entry.script = script;
        entry.waiting = entry.waiting.saturating_add(1);
    }

    /// The outpoint may have changed: its script, where to look at it now.
    pub fn outpoint_changed(&mut self, outpoint: &OutPoint) -> Option<ScriptHash> {
        let entry = self.outpoints.get_mut(outpoint)?;
        if entry.waiting > 0 {
            entry.is_stale = true;
            return None;
        }
        entry.is_stale = false;
        entry.waiting = 1;
        Some(entry.script)
    }

    /// An answer came. [`Next::Tell`] means: tell the new status.
    pub fn outpoint_answered(
        &mut self,
        outpoint: &OutPoint,
        status: Option<&OutpointStatus>,
        replied: bool,
    ) -> Next {
        let Some(entry) = self.outpoints.get_mut(outpoint) else {
            return Next::Nothing;
        };
        entry.waiting = entry.waiting.saturating_sub(1);
        match status {
            Some(status) => {
                let differs = entry.told.as_ref().is_some_and(|told| told != status);
                entry.told = Some(status.clone());
                if differs && !replied {
                    return Next::Tell(Names::default());
                }
            }
            None if entry.told.is_none() && entry.waiting == 0 => {
                self.outpoints.remove(outpoint);
                return Next::Forget;
            }
            None if !replied => self.unanswered.outpoints.push(*outpoint),
            None => {}
        }
        Next::Nothing
    }

    /// True if it changed while an answer was on its way; the next one is on its way from now on.
    pub fn is_outpoint_stale(&mut self, outpoint: &OutPoint) -> Option<ScriptHash> {
        match self.outpoints.get_mut(outpoint) {
            Some(entry) if entry.is_stale && entry.waiting == 0 => {
                entry.is_stale = false;
                entry.waiting = 1;
                Some(entry.script)
            }
            _ => None,
        }
    }

    pub fn unsubscribe_outpoint(&mut self, outpoint: &OutPoint) -> bool {
        self.outpoints.remove(outpoint).is_some()
    }
}
