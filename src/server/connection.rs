//! One client: reads, hands lines to its session, sends what that says.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    electrum::{Job, Lane, Outbox, Peer, Ran, Session},
    state::Changed,
};

use super::{
    Limits, Shared,
    inbox::Inbox,
    limits::SMALL,
    link::{Link, Received},
    memory::Share,
    pool::{Client, HELD_MAX, Letter, Pool},
};

/// Scripts looked at in one go after a change; others get a turn in between.
const CHANGES_AT_ONCE: usize = 256;

/// Jobs that are handed over together: each time wakes a thread.
const SUBMITTED_TOGETHER: usize = 16;

/// The longest pause between two looks whether a letter is being held back for others that take long.
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(64);

/// How long a client may go on sending after it was told that it is being closed: its socket is read
/// so long, for else the system would throw away what it was told.
const LINGER: Duration = Duration::from_millis(500);

/// What a browser is told.
const NO_WEB_SERVER: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
This is an Electrum server, not a web server: a wallet can speak with it, a browser cannot.\n";

/// # Security
/// A web page can make a browser send a request to any port of this machine, and choose what stands in it, line by
/// line. So a connection that begins as HTTP ends there.
fn is_http(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

struct Connection<'a> {
    limits: &'a Limits,
    pool: &'a Pool,
    client: Client,
    session: Session,
    inbox: Inbox,
    outbox: Outbox,
    /// Made, but not begun.
    waiting: VecDeque<Job>,
    /// The same, of long histories: one is answered at a time, for its answer may be of megabytes.
    waiting_long: VecDeque<Job>,
    in_flight: usize,
    is_long_in_flight: bool,
    /// Bytes of all jobs that are not done.
    in_jobs: usize,
    changed: Changed,
    memory: Share,
    /// The client's first line is still to come.
    is_new: bool,
    /// Not all that was handed to the link is out.
    is_sending: bool,
    /// When the client said that it will send no more.
    ended: Option<Instant>,
    last_request: Instant,
    /// When something was sent, or nothing waited.
    last_sent: Instant,
}

/// Serves a client until it goes, breaks a bound, or the server stops.
pub async fn serve(
    mut link: Box<dyn Link>,
    peer: Peer,
    shared: &Shared,
    pool: &Pool,
    client: Client,
    memory: Share,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let session = Session::new(shared.backend.clone(), shared.settings.clone(), peer);
    let listener = session.listener();
    let mailbox = client.mailbox.clone();
    let now = Instant::now();
    let mut connection = Connection {
        limits: &shared.limits,
        pool,
        client,
        session,
        inbox: Inbox::default(),
        outbox: Outbox::default(),
        waiting: VecDeque::new(),
        waiting_long: VecDeque::new(),
        in_flight: 0,
        is_long_in_flight: false,
        in_jobs: 0,
        changed: Changed::default(),
        memory,
        is_new: true,
        is_sending: false,
        ended: None,
        last_request: now,
        last_sent: now,
    };
    let pause = connection.tick_pause();
    let mut tick = std::pin::pin!(tokio::time::sleep(pause));
    let mut look_pause = HELD_MAX;
    let mut look = std::pin::pin!(tokio::time::sleep(look_pause));
    let mut change = listener.changed();
    loop {
        let letters = mailbox.take();
        if !letters.is_empty() {
            look_pause = HELD_MAX;
        }
        connection.work(letters);
        if !connection.is_within_memory(&*link) {
            return Ok(());
        }
        if connection.is_finished() {
            break;
        }
        let has_room = connection.has_room();
        let may_read = has_room && connection.ended.is_none() && !connection.session.is_closing();
        let has_changes = has_room && connection.has_changes();
        let may_change = has_room && !has_changes && !connection.session.is_closing();
        let may_hold = mailbox.may_hold();
        if may_hold {
            look.as_mut()
                .reset(tokio::time::Instant::now() + look_pause);
        }
        tokio::select! {
            exchanged = poll_fn(|cx| connection.poll(cx, &mut *link, may_read)) => {
                if exchanged? == Some(Received::End) {
                    connection.ended = Some(Instant::now());
                }
            }
            () = mailbox.arrived() => {}
            () = &mut look, if may_hold => look_pause = (2 * look_pause).min(LOOK_PAUSE_MAX),
            changed = &mut change, if may_change => {
                connection.changed = changed;
                change = listener.changed();
            }
            () = tokio::task::yield_now(), if has_changes => {}
            () = &mut tick => {
                if let Some(why) = connection.overdue() {
                    tracing::debug!("a connection is closed: {why}");
                    return Ok(());
                }
                connection.tick();
                tick.as_mut().reset(tokio::time::Instant::now() + pause);
            }
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
    }
    close(&mut *link, connection.session.is_closing()).await
}

/// Ends the sending side, and reads what is still coming.
async fn close(link: &mut dyn Link, linger: bool) -> io::Result<()> {
    let close = async {
        poll_fn(|cx| link.poll_close(cx)).await?;
        let mut inbox = Inbox::default();
        while linger && poll_fn(|cx| link.poll_receive(cx, &mut inbox)).await? != Received::End {
            inbox = Inbox::default();
        }
        Ok(())
    };
    tokio::time::timeout(LINGER, close).await.unwrap_or(Ok(()))
}

impl Connection<'_> {
    /// Does all that can be done without waiting.
    fn work(&mut self, letters: Vec<Letter>) {
        let mut jobs = Vec::new();
        let mut not_begun = Vec::new();
        for letter in letters {
            self.in_flight -= 1;
            match letter {
                Letter::Ran(Ran::Done(done)) => {
                    if done.was_long() {
                        self.is_long_in_flight = false;
                    }
                    self.in_jobs = self.in_jobs.saturating_sub(done.job_bytes());
                    self.session.finish(done, &mut self.outbox, &mut jobs);
                }
                Letter::Ran(Ran::Longer(job)) => self.waiting_long.push_back(job),
                Letter::NotBegun(job) => not_begun.push(job),
            }
        }
        for job in not_begun.into_iter().rev() {
            match job.lane() {
                Lane::Long => {
                    self.is_long_in_flight = false;
                    self.waiting_long.push_front(job);
                }
                Lane::Short | Lane::Node => self.waiting.push_front(job),
            }
        }
        self.keep(&mut jobs);
        if self.has_room() && self.has_changes() {
            let changed = self.some_changes();
            self.session.on_change(changed, &mut self.outbox, &mut jobs);
            self.keep(&mut jobs);
        }
        while self.has_room() && !self.session.is_closing() {
            let Some(line) = self.inbox.line() else {
                break;
            };
            if line.len() > self.limits.line_bytes_max {
                self.too_long();
                break;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            if std::mem::take(&mut self.is_new) && is_http(line) {
                self.outbox.push(NO_WEB_SERVER.to_vec());
                self.session.close();
                break;
            }
            self.session.handle(line, &mut self.outbox, &mut jobs);
            self.last_request = Instant::now();
            self.keep(&mut jobs);
            if self.waiting.len() >= SUBMITTED_TOGETHER {
                self.submit();
            }
        }
        if self.inbox.len() > self.limits.line_bytes_max && !self.inbox.has_line() {
            self.too_long();
        }
        self.client.mailbox.set_outgoing(self.outbox.len());
        self.submit();
    }

    /// False: end it at once.
    fn is_within_memory(&mut self, link: &dyn Link) -> bool {
        let waiting = self.outbox.len();
        let held =
            self.inbox.len() + link.held() + self.in_jobs + waiting + self.session.held_bytes();
        if self.memory.hold(held) || self.session.is_closing() {
            return true;
        }
        self.memory.tell();
        self.inbox = Inbox::default();
        self.waiting.clear();
        self.waiting_long.clear();
        let why = "the server's memory for its clients is used up; ask for less at a time";
        self.session.end(why.to_owned(), &mut self.outbox);
        // What waits cannot be sent by half; and who takes nothing need not be told.
        waiting < SMALL
    }

    fn too_long(&mut self) {
        if !self.session.is_closing() {
            let max = self.limits.line_bytes_max;
            tracing::info!("a client sent a request of over {max} bytes and is closed");
            let why = format!("a request may have {max} bytes");
            self.session.end(why, &mut self.outbox);
        }
    }

    fn keep(&mut self, jobs: &mut Vec<Job>) {
        for job in jobs.drain(..) {
            self.in_jobs += job.held_bytes();
            match job.lane() {
                Lane::Long => self.waiting_long.push_back(job),
                Lane::Short | Lane::Node => self.waiting.push_back(job),
            }
        }
    }

    /// Begins as many jobs as may be in flight.
    fn submit(&mut self) {
        if self.session.is_closing() || self.outbox.len() > self.limits.output_bytes_max {
            return;
        }
        let room = self
            .limits
            .jobs_in_flight_max
            .saturating_sub(self.in_flight);
        let count = room.min(self.waiting.len());
        if count > 0 {
            self.in_flight += count;
            self.pool.submit(&self.client, self.waiting.drain(..count));
        }
        if !self.is_long_in_flight
            && let Some(job) = self.waiting_long.pop_front()
        {
            self.is_long_in_flight = true;
            self.in_flight += 1;
            self.pool.submit(&self.client, [job]);
        }
    }

    /// More may be begun. Long histories that wait hold up nothing else, as long as they are few.
    fn has_room(&self) -> bool {
        self.outbox.len() + self.session.held_bytes() <= self.limits.output_bytes_max
            && self.in_flight + self.waiting.len() + self.waiting_long.len()
                < self.limits.jobs_in_flight_max
    }

    fn has_changes(&self) -> bool {
        let Changed {
            tip,
            scripts,
            outpoints,
        } = &self.changed;
        *tip || !scripts.is_empty() || !outpoints.is_empty()
    }

    fn some_changes(&mut self) -> Changed {
        let scripts = &mut self.changed.scripts;
        let outpoints = &mut self.changed.outpoints;
        Changed {
            tip: std::mem::take(&mut self.changed.tip),
            scripts: scripts.split_off(scripts.len().saturating_sub(CHANGES_AT_ONCE)),
            outpoints: outpoints.split_off(outpoints.len().saturating_sub(CHANGES_AT_ONCE)),
        }
    }

    fn is_finished(&mut self) -> bool {
        if !self.outbox.is_empty() {
            return false;
        }
        if self.session.is_closing() {
            return true;
        }
        self.ended.is_some()
            && self.in_flight == 0
            && self.waiting.is_empty()
            && self.waiting_long.is_empty()
            && !self.inbox.has_line()
    }

    /// Sends what waits, then reads what came. Ready when there is something to do.
    fn poll(
        &mut self,
        cx: &mut std::task::Context<'_>,
        link: &mut dyn Link,
        may_read: bool,
    ) -> Poll<io::Result<Option<Received>>> {
        let waited = self.outbox.len();
        let sent = link.poll_send(cx, &mut self.outbox)?;
        self.is_sending = sent.is_pending();
        if self.outbox.len() < waited || !self.is_sending {
            self.last_sent = Instant::now();
        }
        self.client.mailbox.set_outgoing(self.outbox.len());
        if may_read && let Poll::Ready(received) = link.poll_receive(cx, &mut self.inbox)? {
            return Poll::Ready(Ok(Some(received)));
        }
        // All is sent: there may be room again, or nothing more to do.
        if sent.is_ready() && waited > 0 {
            return Poll::Ready(Ok(None));
        }
        // A message that comes in many pieces is none yet, but it is held.
        if may_read && !self.is_within_memory(link) {
            return Poll::Ready(Err(io::Error::other(
                "the memory for all clients is used up",
            )));
        }
        Poll::Pending
    }

    fn tick_pause(&self) -> Duration {
        let Limits {
            write_timeout,
            idle_timeout,
            half_closed_timeout,
            ..
        } = self.limits;
        let shortest = (*write_timeout)
            .min(*idle_timeout)
            .min(*half_closed_timeout);
        (shortest / 4).clamp(Duration::from_millis(20), Duration::from_secs(15))
    }

    /// Why the connection must end, if it must.
    fn overdue(&self) -> Option<&'static str> {
        let is_sending = self.is_sending || !self.outbox.is_empty();
        if is_sending && self.last_sent.elapsed() > self.limits.write_timeout {
            return Some("it does not take what it asked for");
        }
        let has_gone = |ended: Instant| ended.elapsed() > self.limits.half_closed_timeout;
        if self.outbox.is_empty() && self.ended.is_some_and(has_gone) {
            return Some("it has gone");
        }
        let is_busy = self.in_flight > 0 || is_sending;
        if !is_busy && self.last_request.elapsed() > self.limits.idle_timeout {
            return Some("it asks nothing");
        }
        None
    }

    fn tick(&mut self) {
        let mut jobs = Vec::new();
        self.session.look_again_at_all(&mut self.outbox, &mut jobs);
        self.keep(&mut jobs);
        self.inbox.shrink();
        self.outbox.shrink();
        self.waiting.shrink_to_fit();
        self.waiting_long.shrink_to_fit();
    }
}
