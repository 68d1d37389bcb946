//! What a session tells without being asked: of tips, scripts and outpoints that changed.

use bitcoin::OutPoint;

use super::Session;
use crate::{
    chain::{ScriptHash, Status},
    electrum::{
        Refusal,
        answers::{
            headers::write_tip,
            scripts::{write_outpoint_status, write_status},
        },
        job::{Job, Lane, Ticket, Work},
        json,
        message::Form,
        outbox::Outbox,
        stats::Told,
        subscribed::{Names, Next},
    },
    state::{Changed, OutpointStatus},
};

impl Session {
    /// Where notifications go: behind the replies that subscribed to them, which a batch may still hold.
    fn notifications<'a>(&'a mut self, out: &'a mut Outbox) -> &'a mut Vec<u8> {
        if self.batches.values().any(|batch| batch.subscribes) {
            &mut self.held
        } else {
            out.tail()
        }
    }

    pub(super) fn release(&mut self, out: &mut Outbox) {
        if !self.held.is_empty() && !self.batches.values().any(|batch| batch.subscribes) {
            out.push(std::mem::take(&mut self.held));
        }
    }

    /// Keeps what a client was told of a script, and tells what it was not: now, or without `out` behind
    /// the reply that is being written.
    pub(super) fn learn_status(
        &mut self,
        script: &ScriptHash,
        status: Result<Option<Status>, Refusal>,
        replied: Option<Names>,
        out: Option<&mut Outbox>,
        jobs: &mut Vec<Job>,
    ) {
        if let (None, Err(Refusal::TooLarge { limit })) = (replied, &status) {
            // The client could not be told of this change, and must not believe there was none.
            tracing::warn!("a subscribed history grew over {limit} entries: its session ends");
            self.is_closing = true;
        }
        let status = status.ok();
        match self.subscribed.script_answered(script, status, replied) {
            Next::Nothing => {}
            Next::Forget => {
                self.listener.unsubscribe(script);
                self.count_subscriptions();
                return;
            }
            Next::Tell(names) => match out {
                Some(out) => self.tell_script(script, names, out),
                None => self.tell_next.push((*script, names)),
            },
        }
        if status.is_some() && self.subscribed.is_script_stale(script) {
            self.look_again(*script, jobs);
        }
    }

    fn look_again(&self, script: ScriptHash, jobs: &mut Vec<Job>) {
        let work = Work::Status { script, name: None };
        jobs.push(self.job(Lane::Short, work, Ticket::default()));
    }

    pub(super) fn learn_outpoint(
        &mut self,
        outpoint: &OutPoint,
        status: Result<OutpointStatus, Refusal>,
        replied: bool,
        out: &mut Outbox,
        jobs: &mut Vec<Job>,
    ) {
        let status = status.ok();
        match self
            .subscribed
            .outpoint_answered(outpoint, status.as_ref(), replied)
        {
            Next::Nothing => {}
            Next::Forget => {
                self.listener.unwatch(outpoint);
                self.count_subscriptions();
                return;
            }
            Next::Tell(_) => {
                if let Some(status) = &status {
                    let form = self.form;
                    self.asker.backend.stats().notified(Told::Outpoint);
                    let tail = self.notifications(out);
                    notify(tail, form, "blockchain.outpoint.subscribe", |out| {
                        json::txid(out, &outpoint.txid);
                        out.push(b',');
                        json::integer(out, outpoint.vout);
                        out.push(b',');
                        write_outpoint_status(out, status);
                    });
                }
            }
        }
        if status.is_some()
            && let Some(script) = self.subscribed.is_outpoint_stale(outpoint)
        {
            self.look_at_outpoint(*outpoint, script, jobs);
        }
    }

    fn look_at_outpoint(&self, outpoint: OutPoint, script: ScriptHash, jobs: &mut Vec<Job>) {
        let work = Work::Outpoint {
            outpoint,
            script,
            replied: false,
        };
        jobs.push(self.job(Lane::Short, work, Ticket::default()));
    }

    /// Takes a change: what differs from what was last told is told.
    pub fn on_change(&mut self, changed: Changed, out: &mut Outbox, jobs: &mut Vec<Job>) {
        if changed.tip {
            self.tell_tip(out);
        }
        for script in &changed.scripts {
            self.look(script, out, jobs);
        }
        for outpoint in &changed.outpoints {
            if let Some(script) = self.subscribed.outpoint_changed(outpoint) {
                self.look_at_outpoint(*outpoint, script, jobs);
            }
        }
        self.look_again_at_all(out, jobs);
    }

    /// Looks again at what could not be looked at when it changed: with the next change, and with a
    /// tick of the clock now and then.
    pub fn look_again_at_all(&mut self, out: &mut Outbox, jobs: &mut Vec<Job>) {
        let unanswered = self.subscribed.take_unanswered();
        for script in unanswered.scripts {
            self.look(&script, out, jobs);
        }
        for outpoint in unanswered.outpoints {
            if let Some(script) = self.subscribed.outpoint_changed(&outpoint) {
                self.look_at_outpoint(outpoint, script, jobs);
            }
        }
    }

    fn look(&mut self, script: &ScriptHash, out: &mut Outbox, jobs: &mut Vec<Job>) {
        if !self.subscribed.script_changed(script) {
            return;
        }
        match self.status_from_memory(script) {
            None => self.look_again(*script, jobs),
            Some(status) => self.learn_status(script, status, None, Some(out), jobs),
        }
    }

    fn tell_tip(&mut self, out: &mut Outbox) {
        if self.tip.shape.is_none() && !self.tip.height {
            return;
        }
        let tip = self.asker.backend.answers().tip();
        if self.tip.told.replace(tip.hash) == Some(tip.hash) {
            return;
        }
        let (form, shape, height) = (self.form, self.tip.shape, self.tip.height);
        self.asker.backend.stats().notified(Told::Tip);
        let tail = self.notifications(out);
        if let Some(shape) = shape {
            notify(tail, form, "blockchain.headers.subscribe", |out| {
                write_tip(out, &tip, shape)
            });
        }
        if height {
            notify(tail, form, "blockchain.numblocks.subscribe", |out| {
                json::integer(out, tip.height);
            });
        }
    }

    pub(super) fn tell_script(&mut self, script: &ScriptHash, names: Names, out: &mut Outbox) {
        let form = self.form;
        self.asker.backend.stats().notified(Told::Script);
        let status = self.subscribed.told(script);
        let addresses = match names.contains(Names::ADDRESS) {
            true => self.subscribed.addresses(script).to_vec(),
            false => Vec::new(),
        };
        let tail = self.notifications(out);
        for (name, method) in [
            (Names::SCRIPT_HASH, "blockchain.scripthash.subscribe"),
            (Names::SCRIPT, "blockchain.scriptpubkey.subscribe"),
        ] {
            if names.contains(name) {
                notify(tail, form, method, |out| {
                    json::hash(out, &script.0);
                    out.push(b',');
                    write_status(out, status.as_ref());
                });
            }
        }
        for address in addresses {
            notify(tail, form, "blockchain.address.subscribe", |out| {
                json::text(out, &address);
                out.push(b',');
                write_status(out, status.as_ref());
            });
        }
    }
}

/// Writes a notification, with its newline.
fn notify(out: &mut Vec<u8>, form: Form, method: &str, params: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(match form {
        Form::V1 => b"{\"id\":null,\"method\":\"".as_slice(),
        Form::V2 => b"{\"jsonrpc\":\"2.0\",\"method\":\"",
    });
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(b"\",\"params\":[");
    params(out);
    out.extend_from_slice(b"]}\n");
}
