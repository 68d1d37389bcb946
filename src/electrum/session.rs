//! A client's session, without its socket.
//!
//! Here requests are answered. `acts`: methods that change the session. `tell`: what it tells without being asked.

mod acts;
mod tell;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bitcoin::BlockHash;
use serde_json::value::RawValue;

use crate::chain::{ScriptHash, Status};

use super::{
    Refusal, Settings,
    answers::{
        headers::TipShape,
        scripts::{outpoint, write_status},
    },
    backend::{Backend, Listener},
    batch::{Batch, Slot},
    job::{Asker, Done, Job, Lane, Learned, Reach, Ticket, Work},
    message::{self, Form, Message, ReplyTo, Request},
    methods::{self, Call, Cost, Method},
    outbox::Outbox,
    params::{Arg, Args},
    stats::{Asked, Way},
    subscribed::{Names, Subscribed},
    version::Speaks,
};

/// Requests of one batch that are answered on the spot; what follows goes to the pool, so that a
/// batch of thousands holds up no other connection of this thread.
const BATCH_AT_ONCE: usize = 256;

/// Bytes of replies to one batch that are made on the spot: the memory for all clients is looked at after that. 256
/// histories of 1000 entries would be 26 MB.
const BATCH_BYTES_AT_ONCE: usize = 1_000_000;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A program of this machine: nobody limits it.
    Local,
    Remote,
}

/// What a subscription is about, and so what its notifications are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    Address,
    ScriptHash,
    Script,
    Outpoint,
}

/// What became of a request.
enum Outcome {
    /// The reply was written.
    Written,
    /// It was a notification.
    Silent,
    /// A job gives the reply.
    Later,
}

/// How the session hears of new tips.
#[derive(Default)]
struct TipSubscription {
    shape: Option<TipShape>,
    /// `blockchain.numblocks.subscribe`
    height: bool,
    told: Option<BlockHash>,
}

pub struct Session {
    asker: Asker,
    listener: Arc<dyn Listener>,
    speaks: Speaks,
    /// A request came before.
    has_spoken: bool,
    is_closing: bool,
    /// The form of the last request: notifications take it too.
    form: Form,
    tip: TipSubscription,
    subscribed: Subscribed,
    batches: HashMap<u32, Batch>,
    next_batch: u32,
    /// Notifications that wait for the replies of a batch.
    held: Vec<u8>,
    /// Other names of a script, to be told behind the reply that is being written.
    tell_next: Vec<(ScriptHash, Names)>,
    /// Subscriptions of this session that are counted into all sessions'.
    counted: usize,
    /// That it met the bound of subscriptions was logged.
    has_met_bound: bool,
}

impl Session {
    pub fn new(backend: Arc<dyn Backend>, settings: Arc<Settings>, peer: Peer) -> Session {
        let listener = backend.listener();
        let history_max = match peer {
            Peer::Local => None,
            Peer::Remote => settings.remote_history_max,
        };
        Session {
            asker: Asker {
                backend,
                settings,
                history_max,
                cancelled: Arc::new(AtomicBool::new(false)),
            },
            listener,
            speaks: Speaks::Anything,
            has_spoken: false,
            is_closing: false,
            form: Form::V2,
            tip: TipSubscription::default(),
            subscribed: Subscribed::default(),
            batches: HashMap::new(),
            next_batch: 0,
            held: Vec::new(),
            tell_next: Vec::new(),
            counted: 0,
            has_met_bound: false,
        }
    }

    /// Whom to wait on for [`Session::on_change`].
    pub fn listener(&self) -> Arc<dyn Listener> {
        self.listener.clone()
    }

    /// Bytes of replies that wait for others of their batch, and of notifications that wait for them.
    pub fn held_bytes(&self) -> usize {
        let batches = self.batches.values().map(|batch| batch.bytes.get());
        self.held.len() + batches.sum::<usize>()
    }

    /// True when the connection should end as soon as all is sent.
    pub fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Takes a line (or a WebSocket message). What is known at once is written to `out`; what is not
    /// becomes `jobs`.
    pub fn handle(&mut self, line: &[u8], out: &mut Outbox, jobs: &mut Vec<Job>) {
        let message = message::parse(line, self.asker.settings.batch_requests_max);
        if let Err(Refusal::Bad(why)) = &message {
            tracing::info!("a client's batch is refused: {why}");
        }
        match message {
            Ok(Message::One(raw)) => {
                let tail = out.tail();
                if let Outcome::Written = self.one(raw, None, true, tail, jobs) {
                    tail.push(b'\n');
                }
            }
            Ok(Message::Batch(members)) => self.batch(&members, out, jobs),
            Err(refusal) => {
                let stats = self.asker.backend.stats();
                stats.answered(Asked::now(), Way::Memory, Some(&refusal));
                self.tell_error(&refusal, out);
            }
        }
        for (script, names) in std::mem::take(&mut self.tell_next) {
            self.tell_script(&script, names, out);
        }
    }

    /// Ends the session without a word.
    pub fn close(&mut self) {
        self.is_closing = true;
    }

    /// Tells of something that is wrong with the connection, and ends it.
    pub fn end(&mut self, why: String, out: &mut Outbox) {
        self.is_closing = true;
        self.tell_error(&Refusal::Bad(why), out);
    }

    fn tell_error(&self, refusal: &Refusal, out: &mut Outbox) {
        let tail = out.tail();
        let version = self.speaks.version();
        message::error(tail, self.form, "null", refusal, version);
        tail.push(b'\n');
    }

    fn batch(&mut self, members: &[&RawValue], out: &mut Outbox, jobs: &mut Vec<Job>) {
        let number = self.next_batch;
        self.next_batch = number.wrapping_add(1);
        let mut batch = Batch::default();
        for (index, raw) in members.iter().enumerate() {
            if self.is_closing {
                break;
            }
            // A job needs to know its place before it is made; it is kept only if one was made.
            let slot = Slot {
                batch: number,
                piece: batch.next_piece(),
                bytes: batch.bytes.clone(),
            };
            let at_once = index < BATCH_AT_ONCE && batch.bytes.get() < BATCH_BYTES_AT_ONCE;
            let out = batch.at_once();
            let mark = out.len();
            match self.one(raw, Some(slot), at_once, out, jobs) {
                Outcome::Written => {
                    let count = out.len() - mark;
                    batch.bytes.add(count);
                }
                Outcome::Silent => batch.nothing_written(),
                Outcome::Later => {
                    batch.later();
                }
            }
        }
        batch.subscribes = self.subscribed.len() > 0;
        if batch.is_complete() {
            out.push(batch.into_line());
        } else {
            self.batches.insert(number, batch);
        }
    }

    /// Answers one request, or a member of a batch.
    fn one(
        &mut self,
        raw: &RawValue,
        slot: Option<Slot>,
        at_once: bool,
        out: &mut Vec<u8>,
        jobs: &mut Vec<Job>,
    ) -> Outcome {
        let mut asked = Asked::now();
        let request = match Request::parse(raw) {
            Ok(request) => request,
            Err(wrong) => {
                self.has_spoken = true;
                let id = message::one_line(wrong.id.unwrap_or("null"));
                let version = self.speaks.version();
                message::error(out, wrong.form, &id, &wrong.refusal, version);
                let stats = self.asker.backend.stats();
                stats.answered(asked, Way::Memory, Some(&wrong.refusal));
                return Outcome::Written;
            }
        };
        self.form = request.form;
        let mark = out.len();
        let id = request.id.map(message::one_line);
        if let Some(id) = &id {
            message::begin_result(out, request.form, id);
        }
        let result = match slot
            .as_ref()
            .and_then(|slot| self.asker.over_batch_bound(slot))
        {
            Some(refusal) => Err(refusal),
            None => {
                let ticket = |request: &Request, asked: Asked| Ticket {
                    reply: request.id.map(|id| ReplyTo::new(request.form, Some(id))),
                    slot: slot.clone(),
                    asked: Some(asked),
                    bytes: raw.get().len(),
                };
                self.answer(&request, &mut asked, at_once, out, jobs, ticket)
            }
        };
        self.has_spoken = true;
        let refused = match result {
            Ok(true) => None,
            Ok(false) => {
                out.truncate(mark);
                return Outcome::Later;
            }
            Err(refusal) => Some(refusal),
        };
        let stats = self.asker.backend.stats();
        stats.answered(asked, Way::Memory, refused.as_ref());
        let Some(id) = id else {
            out.truncate(mark);
            return Outcome::Silent;
        };
        match refused {
            None => message::end_result(out, request.form),
            Some(refusal) => {
                out.truncate(mark);
                message::error(out, request.form, &id, &refusal, self.speaks.version());
            }
        }
        Outcome::Written
    }

    /// True: the result was written. False: a job was made.
    fn answer(
        &mut self,
        request: &Request,
        asked: &mut Asked,
        at_once: bool,
        out: &mut Vec<u8>,
        jobs: &mut Vec<Job>,
        ticket: impl Fn(&Request, Asked) -> Ticket,
    ) -> Result<bool, Refusal> {
        let settings = &self.asker.settings;
        let method = methods::find(&request.method, self.speaks, settings.newest())?;
        asked.names(method);
        let args = Args::bind(
            method.params,
            method.is_tolerant,
            request.params,
            settings.network,
        )?;
        match method.call {
            Call::Session(act) => act(self, &args, out).map(|()| true),
            Call::Answer(answer) => {
                let lane = match method.cost.of(&args) {
                    Cost::Memory if at_once => {
                        let question = self.asker.question(self.speaks, Reach::Far);
                        return answer(&question, &args, out).map(|()| true);
                    }
                    cost @ (Cost::Script | Cost::History) if at_once => {
                        let mark = out.len();
                        match self.answer_from_memory(method, &args, Reach::near(cost), out) {
                            Some(Err(Refusal::Long)) => {
                                out.truncate(mark);
                                Lane::Long
                            }
                            Some(result) => return result.map(|()| true),
                            None => Lane::Short,
                        }
                    }
                    Cost::Memory | Cost::Script | Cost::History | Cost::Index | Cost::By(_) => {
                        Lane::Short
                    }
                    Cost::Node => Lane::Node,
                };
                jobs.push(self.job(lane, Work::Answer { method, args }, ticket(request, *asked)));
                Ok(false)
            }
            Call::Subscribe(Topic::Outpoint) => {
                self.check_room()?;
                let outpoint = outpoint(&args)?;
                let script = args.script(2)?;
                self.listener.watch(outpoint);
                self.subscribed.ask_outpoint(outpoint, script);
                self.count_subscriptions();
                let work = Work::Outpoint {
                    outpoint,
                    script,
                    replied: true,
                };
                jobs.push(self.job(Lane::Short, work, ticket(request, *asked)));
                Ok(false)
            }
            Call::Subscribe(topic) => {
                self.check_room()?;
                let script = args.script(0)?;
                let (name, address) = match args.get(0) {
                    Arg::Address(_, address) => (Names::ADDRESS, Some(&**address)),
                    _ if topic == Topic::Script => (Names::SCRIPT, None),
                    _ => (Names::SCRIPT_HASH, None),
                };
                // # Concurrency
                // Register first, then compute: a change in between is told, none is lost.
                self.listener.subscribe(script);
                self.subscribed.ask_script(script, name, address);
                self.count_subscriptions();
                if let Some(status) = at_once.then(|| self.status_from_memory(&script)).flatten() {
                    if let Ok(status) = &status {
                        write_status(out, status.as_ref());
                    }
                    let result = status.clone().map(|_| true);
                    self.learn_status(&script, status, Some(name), None, jobs);
                    return result;
                }
                let work = Work::Status {
                    script,
                    name: Some(name),
                };
                jobs.push(self.job(Lane::Short, work, ticket(request, *asked)));
                Ok(false)
            }
        }
    }

    fn job(&self, lane: Lane, work: Work, ticket: Ticket) -> Job {
        Job {
            lane,
            work,
            ticket,
            speaks: self.speaks,
            asker: self.asker.clone(),
        }
    }

    /// Answers a question about a script, if that needs no disk.
    fn answer_from_memory(
        &self,
        method: &Method,
        args: &Args,
        reach: Reach,
        out: &mut Vec<u8>,
    ) -> Option<Result<(), Refusal>> {
        let Call::Answer(answer) = method.call else {
            return None;
        };
        let question = self.asker.question(self.speaks, reach);
        let script = args.first_script()?;
        question
            .view
            .is_in_memory(&script)
            .then(|| answer(&question, args, out))
    }

    /// A status in memory is known without its history, however long that is.
    fn status_from_memory(&self, script: &ScriptHash) -> Option<Result<Option<Status>, Refusal>> {
        let question = self.asker.question(self.speaks, Reach::Near);
        if !question.view.is_in_memory(script) {
            return None;
        }
        let status = question.view.status(script, &question.ask);
        // It may have been thrown out of memory in this moment.
        let status = status.map_err(Refusal::from);
        (status != Err(Refusal::Long)).then_some(status)
    }

    fn check_room(&mut self) -> Result<(), Refusal> {
        let settings = &self.asker.settings;
        let (max, all_max) = (settings.subscriptions_max, settings.all_subscriptions_max);
        let all = settings.subscriptions.load(Ordering::Relaxed);
        let why = if self.subscribed.len() >= max {
            format!("a session may have {max} subscriptions")
        } else if all >= all_max {
            format!("all sessions together may have {all_max} subscriptions, and have them")
        } else {
            return Ok(());
        };
        // Once a session: it may ask half a million times more.
        if !std::mem::replace(&mut self.has_met_bound, true) {
            tracing::warn!("a subscription is refused: {why}");
        }
        Err(Refusal::Bad(why))
    }

    /// Counts this session's subscriptions into all sessions'.
    fn count_subscriptions(&mut self) {
        let now = self.subscribed.len();
        let all = &self.asker.settings.subscriptions;
        match now.checked_sub(self.counted) {
            Some(more) => all.fetch_add(more, Ordering::Relaxed),
            None => all.fetch_sub(self.counted - now, Ordering::Relaxed),
        };
        self.counted = now;
    }

    /// Takes a job's answer. More jobs may follow from it.
    pub fn finish(&mut self, done: Done, out: &mut Outbox, jobs: &mut Vec<Job>) {
        match done.slot {
            None => {
                let mut reply = done.reply;
                if !reply.is_empty() {
                    reply.push(b'\n');
                    out.push(reply);
                }
            }
            Some(slot) => {
                if let Some(batch) = self.batches.get_mut(&slot.batch) {
                    batch.fill(slot.piece, done.reply);
                    if batch.is_complete() {
                        let line = self.batches.remove(&slot.batch);
                        out.push(line.map(Batch::into_line).unwrap_or_default());
                        self.release(out);
                    }
                }
            }
        }
        match done.learned {
            Learned::Nothing => {}
            Learned::Status {
                script,
                replied,
                status,
            } => self.learn_status(&script, status, replied, Some(out), jobs),
            Learned::Outpoint {
                outpoint,
                replied,
                status,
            } => self.learn_outpoint(&outpoint, status, replied, out, jobs),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.asker.cancelled.store(true, Ordering::Relaxed);
        let all = &self.asker.settings.subscriptions;
        all.fetch_sub(self.counted, Ordering::Relaxed);
    }
}
