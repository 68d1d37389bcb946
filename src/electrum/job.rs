//! Questions that need a disk or the node: answered on other threads.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bitcoin::OutPoint;

use crate::{
    chain::{ScriptHash, Status},
    state::{Ask, OutpointStatus},
};

use super::{
    Refusal, Settings,
    answers::{Question, scripts},
    backend::Backend,
    batch::Slot,
    message::{self, ReplyTo},
    methods::{Call, Cost, Method},
    params::Args,
    stats::{Asked, Way},
    subscribed::Names,
    version::Speaks,
};

/// Entries of a history that are answered at once, or on the short lane: 100 KB of JSON, a tenth of
/// a millisecond. Longer ones go the long way, where they delay nobody.
pub const SHORT_HISTORY: usize = 1000;

/// Which threads answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Some reads of disk.
    Short,
    /// Histories of over `SHORT_HISTORY` entries.
    Long,
    /// The node's RPC.
    Node,
}

/// What all of a session's questions share.
#[derive(Clone)]
pub struct Asker {
    pub backend: Arc<dyn Backend>,
    pub settings: Arc<Settings>,
    /// Most entries of a history; `None`: no limit.
    pub history_max: Option<usize>,
    /// Set when the session has ended.
    pub cancelled: Arc<AtomicBool>,
}

/// How far a question may go where it is asked. What goes further is refused as [`Refusal::Long`], and asked
/// again on [`Lane::Long`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Reads the transactions of [`SHORT_HISTORY`] rows at most.
    Near,
    /// And lists as many entries at most.
    NearList,
    Far,
}

impl Reach {
    /// Of a question of this cost, asked where others wait.
    pub fn near(cost: Cost) -> Reach {
        match cost {
            Cost::History => Reach::NearList,
            _ => Reach::Near,
        }
    }
}

impl Asker {
    /// The question as of now.
    pub fn question(&self, speaks: Speaks, reach: Reach) -> Question {
        Question {
            view: self.backend.answers(),
            backend: self.backend.clone(),
            settings: self.settings.clone(),
            speaks,
            ask: Ask {
                max_history: self.history_max,
                rows_max: (reach != Reach::Far).then_some(SHORT_HISTORY),
                list_max: (reach == Reach::NearList).then_some(SHORT_HISTORY),
                cancelled: Some(self.cancelled.clone()),
            },
        }
    }

    /// Why no more is answered of a batch whose replies are as many bytes as they may be.
    pub fn over_batch_bound(&self, slot: &Slot) -> Option<Refusal> {
        let max = self.settings.batch_reply_bytes_max;
        (slot.bytes.get() >= max).then(|| {
            Refusal::Bad(format!(
                "the replies to a batch may have {max} bytes; ask for less at a time"
            ))
        })
    }
}

/// A question on its way to other threads.
pub struct Job {
    pub(super) lane: Lane,
    pub(super) work: Work,
    pub(super) ticket: Ticket,
    pub(super) speaks: Speaks,
    pub(super) asker: Asker,
}

/// What is asked.
pub enum Work {
    Answer {
        method: &'static Method,
        args: Args,
    },
    /// `name`: what the reply, if there is one, subscribes to.
    Status {
        script: ScriptHash,
        name: Option<Names>,
    },
    Outpoint {
        outpoint: OutPoint,
        script: ScriptHash,
        replied: bool,
    },
}

/// Where the answer goes.
#[derive(Debug, Default)]
pub struct Ticket {
    /// Nobody waits for a reply to a notification, or to a look after a change.
    pub reply: Option<ReplyTo>,
    pub slot: Option<Slot>,
    /// The request, for counting.
    pub asked: Option<Asked>,
    /// Bytes of the request: what the job holds is made of them.
    pub bytes: usize,
}

impl Ticket {
    /// Bytes that a job with this ticket takes, at most. Parameters and the id are as long as they came.
    fn held_bytes(&self) -> usize {
        size_of::<Job>() + self.bytes
    }
}

/// What came of running a job.
pub enum Ran {
    Done(Done),
    /// It turned out long: run it again on [`Lane::Long`].
    Longer(Job),
}

/// An answer on its way back to its session.
pub struct Done {
    lane: Lane,
    pub(super) slot: Option<Slot>,
    job_bytes: usize,
    /// The reply's object, without a newline; empty where nobody waits for one.
    pub(super) reply: Vec<u8>,
    pub(super) learned: Learned,
}

impl Done {
    /// Bytes of its reply.
    pub fn reply_bytes(&self) -> usize {
        self.reply.len()
    }

    /// What [`Job::held_bytes`] of its job was.
    pub fn job_bytes(&self) -> usize {
        self.job_bytes
    }

    /// It came by [`Lane::Long`].
    pub fn was_long(&self) -> bool {
        self.lane == Lane::Long
    }
}

/// What a session keeps of an answer.
pub enum Learned {
    Nothing,
    Status {
        script: ScriptHash,
        /// A reply under this name told it already.
        replied: Option<Names>,
        status: Result<Option<Status>, Refusal>,
    },
    Outpoint {
        outpoint: OutPoint,
        replied: bool,
        status: Result<OutpointStatus, Refusal>,
    },
}

impl Job {
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Bytes that it takes while it waits.
    pub fn held_bytes(&self) -> usize {
        self.ticket.held_bytes()
    }

    /// Answers. Blocks, as long as it takes.
    pub fn run(mut self) -> Ran {
        let is_short = self.lane == Lane::Short;
        /// A status, a balance or a short history.
        const USUAL_REPLY_BYTES: usize = 128;
        let mut reply = Vec::with_capacity(USUAL_REPLY_BYTES);
        if let Some(to) = &self.ticket.reply {
            message::begin_result(&mut reply, to.form, &to.id);
        }
        // # Correctness
        // A fault of ours in one question must neither end the thread nor leave the asker waiting.
        let slot = self.ticket.slot.as_ref();
        let outcome = if self.asker.cancelled.load(Ordering::Relaxed) {
            self.refused(Refusal::Cancelled)
        } else if let Some(refusal) = slot.and_then(|slot| self.asker.over_batch_bound(slot)) {
            self.refused(refusal)
        } else {
            let question = self.asker.question(self.speaks, self.reach());
            catch_unwind(AssertUnwindSafe(|| self.answer(&question, &mut reply)))
                .unwrap_or_else(|_| self.refused(fault()))
        };
        let (result, learned) = outcome;
        if is_short && result == Err(Refusal::Long) {
            self.lane = Lane::Long;
            return Ran::Longer(self);
        }
        if let Some(asked) = self.ticket.asked {
            let stats = self.asker.backend.stats();
            stats.answered(asked, Way::from(self.lane), result.as_ref().err());
        }
        if let Some(to) = &self.ticket.reply {
            match &result {
                Ok(()) => message::end_result(&mut reply, to.form),
                Err(refusal) => {
                    reply.clear();
                    let version = self.speaks.version();
                    message::error(&mut reply, to.form, &to.id, refusal, version);
                }
            }
        } else {
            reply.clear();
        }
        if let Some(slot) = &self.ticket.slot {
            slot.bytes.add(reply.len());
        }
        Ran::Done(Done {
            lane: self.lane,
            job_bytes: self.ticket.held_bytes(),
            slot: self.ticket.slot,
            reply,
            learned,
        })
    }

    fn reach(&self) -> Reach {
        match (self.lane, &self.work) {
            (Lane::Short, Work::Answer { method, args }) => Reach::near(method.cost.of(args)),
            (Lane::Short, Work::Status { .. } | Work::Outpoint { .. }) => Reach::Near,
            (Lane::Long | Lane::Node, _) => Reach::Far,
        }
    }

    fn answer(&self, question: &Question, out: &mut Vec<u8>) -> (Result<(), Refusal>, Learned) {
        match &self.work {
            Work::Answer { method, args } => {
                let result = match method.call {
                    Call::Answer(answer) => answer(question, args, out),
                    Call::Session(_) | Call::Subscribe(_) => Err(fault()),
                };
                (result, Learned::Nothing)
            }
            Work::Status { script, name } => {
                let status = question
                    .view
                    .status(script, &question.ask)
                    .map_err(Refusal::from);
                let result = status
                    .as_ref()
                    .map(|status| scripts::write_status(out, status.as_ref()))
                    .map_err(Refusal::clone);
                let learned = Learned::Status {
                    script: *script,
                    replied: *name,
                    status,
                };
                (result, learned)
            }
            Work::Outpoint {
                outpoint,
                script,
                replied,
            } => {
                let status = question
                    .view
                    .outpoint_status(outpoint, script, &question.ask)
                    .map_err(Refusal::from);
                let result = status
                    .as_ref()
                    .map(|status| scripts::write_outpoint_status(out, status))
                    .map_err(Refusal::clone);
                let learned = Learned::Outpoint {
                    outpoint: *outpoint,
                    replied: *replied,
                    status,
                };
                (result, learned)
            }
        }
    }

    fn refused(&self, refusal: Refusal) -> (Result<(), Refusal>, Learned) {
        let learned = match &self.work {
            Work::Answer { .. } => Learned::Nothing,
            Work::Status { script, name } => Learned::Status {
                script: *script,
                replied: *name,
                status: Err(refusal.clone()),
            },
            Work::Outpoint {
                outpoint, replied, ..
            } => Learned::Outpoint {
                outpoint: *outpoint,
                replied: *replied,
                status: Err(refusal.clone()),
            },
        };
        (Err(refusal), learned)
    }
}

fn fault() -> Refusal {
    tracing::error!("a question failed by a fault of this server; please report it");
    Refusal::Daemon("the server failed to answer this; its log says more".to_owned())
}
