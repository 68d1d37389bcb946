//! A client's session, without its socket.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bitcoin::{BlockHash, OutPoint};
use serde_json::value::RawValue;

use crate::{
    chain::{ScriptHash, Status},
    state::{Changed, OutpointStatus},
};

use super::{
    Refusal, Settings,
    answers::{
        headers::{TipShape, write_tip},
        scripts::{outpoint, write_outpoint_status, write_status},
    },
    backend::{Backend, Listener},
    batch::{Batch, Slot},
    job::{Asker, Done, Job, Lane, Learned, Ticket, Work},
    json,
    message::{self, Form, Message, ReplyTo, Request},
    methods::{self, Call, Cost, Method},
    outbox::Outbox,
    params::{Arg, Args},
    stats::{Asked, Told, Way},
    subscribed::{Names, Next, Subscribed},
    version::{Offer, Speaks, Version},
};

/// Requests of one batch that are answered on the spot; what follows goes to the pool, so that a
/// batch of thousands holds up no other connection of this thread.
const BATCH_AT_ONCE: usize = 256;

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
        }
    }

    /// Whom to wait on for [`Session::on_change`].
    pub fn listener(&self) -> Arc<dyn Listener> {
        self.listener.clone()
    }

    /// True when the connection should end as soon as all is sent.
    pub fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Takes a line (or a WebSocket message). What is known at once is written to `out`; what is not
    /// becomes `jobs`.
    pub fn handle(&mut self, line: &[u8], out: &mut Outbox, jobs: &mut Vec<Job>) {
        let message = message::parse(line, self.asker.settings.batch_requests_max);
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
            };
            let at_once = index < BATCH_AT_ONCE;
            match self.one(raw, Some(slot), at_once, batch.at_once(), jobs) {
                Outcome::Written => {}
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

    /// Where notifications go: behind the replies that subscribed to them, which a batch may still hold.
    fn notifications<'a>(&'a mut self, out: &'a mut Outbox) -> &'a mut Vec<u8> {
        if self.batches.values().any(|batch| batch.subscribes) {
            &mut self.held
        } else {
            out.tail()
        }
    }

    fn release(&mut self, out: &mut Outbox) {
        if !self.held.is_empty() && !self.batches.values().any(|batch| batch.subscribes) {
            out.push(std::mem::take(&mut self.held));
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
        let ticket = |request: &Request, asked: Asked| Ticket {
            reply: request.id.map(|id| ReplyTo::new(request.form, Some(id))),
            slot,
            asked: Some(asked),
        };
        let result = self.answer(&request, &mut asked, at_once, out, jobs, ticket);
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
                        let question = self.asker.question(self.speaks, false);
                        return answer(&question, &args, out).map(|()| true);
                    }
                    cost @ (Cost::Script | Cost::History) if at_once => {
                        let mark = out.len();
                        let is_list = matches!(cost, Cost::History);
                        match self.answer_from_memory(method, &args, is_list, out) {
                            Some(Err(refusal)) if is_list && self.asker.wants_longer(&refusal) => {
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
        is_list: bool,
        out: &mut Vec<u8>,
    ) -> Option<Result<(), Refusal>> {
        let Call::Answer(answer) = method.call else {
            return None;
        };
        let question = self.asker.question(self.speaks, is_list);
        let script = args.first_script()?;
        question
            .view
            .is_in_memory(&script)
            .then(|| answer(&question, args, out))
    }

    /// A status in memory is known without its history, however long that is.
    fn status_from_memory(&self, script: &ScriptHash) -> Option<Result<Option<Status>, Refusal>> {
        let question = self.asker.question(self.speaks, false);
        question.view.is_in_memory(script).then(|| {
            question
                .view
                .status(script, &question.ask)
                .map_err(Refusal::from)
        })
    }

    fn check_room(&self) -> Result<(), Refusal> {
        let max = self.asker.settings.subscriptions_max;
        if self.subscribed.len() < max {
            return Ok(());
        }
        tracing::warn!("a session wanted more than {max} subscriptions");
        Err(Refusal::Bad(format!(
            "a session may have {max} subscriptions"
        )))
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

    /// Keeps what a client was told of a script, and tells what it was not: now, or without `out` behind
    /// the reply that is being written.
    fn learn_status(
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

    fn learn_outpoint(
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

    fn tell_script(&mut self, script: &ScriptHash, names: Names, out: &mut Outbox) {
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

/// Methods that change the session.
impl Session {
    /// `server.version(client_name="", protocol_version="1.4")`
    pub(super) fn negotiate(&mut self, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
        if matches!(self.speaks, Speaks::Agreed(version) if version >= Version::V1_4) {
            return Err(Refusal::Bad("server.version already sent".to_owned()));
        }
        let offer = match args.get(1) {
            Arg::Offer(offer) => *offer,
            _ => Offer::only(Version::UNSAID),
        };
        let max = self.asker.settings.newest();
        // From 1.6 on it "must be the first message sent"; a client that said something else before
        // gets an older version, if it speaks one.
        let chosen = if self.has_spoken {
            offer.choose(max.min(Version::V1_4_3))
        } else {
            offer.choose(max)
        };
        let Some(version) = chosen else {
            self.is_closing = true;
            return Err(Refusal::Bad(if offer.choose(max).is_some() {
                "server.version must be the first message".to_owned()
            } else {
                format!(
                    "unsupported protocol version: this server speaks {} to {max}",
                    Version::MIN
                )
            }));
        };
        self.speaks = Speaks::Agreed(version);
        let name = &self.asker.settings.server_name;
        if version < Version::V1_1 {
            json::text(out, name);
            return Ok(());
        }
        out.push(b'[');
        json::text(out, name);
        out.push(b',');
        json::text(out, &version.to_string());
        out.push(b']');
        Ok(())
    }

    /// `blockchain.headers.subscribe(raw)`: 1.0 and 1.1 know only deserialized headers, in 1.2 they are
    /// the default, in 1.3 raw ones are, and 1.4 knows no others. A session that agreed on no version gets
    /// the members of both unless it asks for one.
    pub(super) fn subscribe_headers(
        &mut self,
        args: &Args,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let shape = match (args.get(0), self.speaks) {
            (Arg::Flag(true), _) => TipShape::Raw,
            (Arg::Flag(false), _) => TipShape::Deserialized,
            (_, Speaks::Anything) => TipShape::Both,
            (_, Speaks::Agreed(version)) if version < Version::V1_3 => TipShape::Deserialized,
            (_, Speaks::Agreed(_)) => TipShape::Raw,
        };
        self.listener.watch_tip();
        let tip = self.asker.backend.answers().tip();
        self.tip.shape = Some(shape);
        self.tip.told = Some(tip.hash);
        write_tip(out, &tip, shape);
        Ok(())
    }

    /// `blockchain.numblocks.subscribe()`
    pub(super) fn subscribe_height(&mut self, _: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
        self.listener.watch_tip();
        let tip = self.asker.backend.answers().tip();
        self.tip.height = true;
        self.tip.told = Some(tip.hash);
        json::integer(out, tip.height);
        Ok(())
    }

    pub(super) fn unsubscribe_script_hash(
        &mut self,
        args: &Args,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        self.unsubscribe(&args.script(0)?, Names::SCRIPT_HASH, out);
        Ok(())
    }

    pub(super) fn unsubscribe_script(
        &mut self,
        args: &Args,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        self.unsubscribe(&args.script(0)?, Names::SCRIPT, out);
        Ok(())
    }

    fn unsubscribe(&mut self, script: &ScriptHash, name: Names, out: &mut Vec<u8>) {
        let (was_subscribed, is_last) = self.subscribed.unsubscribe_script(script, name);
        if is_last {
            self.listener.unsubscribe(script);
        }
        json::boolean(out, was_subscribed);
    }

    pub(super) fn unsubscribe_outpoint(
        &mut self,
        args: &Args,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let outpoint = outpoint(args)?;
        let was_subscribed = self.subscribed.unsubscribe_outpoint(&outpoint);
        if was_subscribed {
            self.listener.unwatch(&outpoint);
        }
        json::boolean(out, was_subscribed);
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.asker.cancelled.store(true, Ordering::Relaxed);
    }
}
