//! Word to systemd (sd_notify(3)): that the start takes its time, that wallets can connect, how far all is, that
//! Ambra lives, that it stops. Where no service manager asked for it, nothing is sent.
//!
//! `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` are the service manager's letters to the process, no settings:
//! so they are read here.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::{sync::watch, time::Instant};

use super::{Monitor, Report, Stage};

/// How often it is looked whether there is something to say.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Between two sentences on how far all is: `systemctl status` is no film.
const STATUS_EVERY: Duration = Duration::from_secs(2);

/// Until the start is over, it is asked to be given this much more time, again and again.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Tells until `stop` turns true, and then that Ambra stops.
pub async fn run(monitor: Monitor, mut stop: watch::Receiver<bool>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let mut teller = Teller::new(monitor);
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = look.tick() => teller.look(),
            // An error: the sender is gone, which is as good a reason to stop.
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// A start is over after this, whether the node has come or not: until then systemd holds up what waits for it, the end
/// of the boot (`multi-user.target`) and a package's installation among it. What is waited for stands in the status.
const START_MAX: Duration = Duration::from_secs(20);

struct Teller {
    monitor: Monitor,
    began: Instant,
    is_ready_told: bool,
    status: String,
    status_told: Option<Instant>,
    patience_asked: Option<Instant>,
    /// How often systemd wants to hear that Ambra lives.
    watchdog: Option<Duration>,
    life_told: Option<Instant>,
}

impl Teller {
    fn new(monitor: Monitor) -> Teller {
        Teller {
            monitor,
            began: Instant::now(),
            is_ready_told: false,
            status: String::new(),
            status_told: None,
            patience_asked: None,
            // Twice as often as must be: sd_watchdog_enabled(3) advises so.
            watchdog: watchdog().map(|every| every / 2),
            life_told: None,
        }
    }

    fn look(&mut self) {
        if is_started(self.monitor.is_listening(), self.began.elapsed()) {
            if !self.is_ready_told {
                self.is_ready_told = true;
                send(&[NotifyState::Ready]);
            }
        } else if is_due(self.patience_asked, START_PATIENCE / 3) {
            self.patience_asked = Some(Instant::now());
            let micros = u32::try_from(START_PATIENCE.as_micros()).unwrap_or(u32::MAX);
            send(&[NotifyState::ExtendTimeoutUsec(micros)]);
        }
        if is_due(self.status_told, STATUS_EVERY) {
            self.status_told = Some(Instant::now());
            let status = sentence(&self.monitor.report());
            if status != self.status {
                send(&[NotifyState::Status(&status)]);
                self.status = status;
            }
        }
        let is_watched = self.watchdog;
        if is_watched.is_some_and(|every| is_due(self.life_told, every))
            && lives(self.monitor.not_alive())
        {
            self.life_told = Some(Instant::now());
            send(&[NotifyState::Watchdog]);
        }
    }
}

/// False of a process that only a restart mends: its watchdog is to bite.
fn lives(trouble: Option<String>) -> bool {
    if let Some(why) = &trouble {
        tracing::error!("{why}; systemd is not told that Ambra lives");
    }
    trouble.is_none()
}

fn is_started(is_listening: bool, since_began: Duration) -> bool {
    is_listening || since_began >= START_MAX
}

/// How often systemd wants to hear of this process's life, if it does. `WATCHDOG_PID` need not be there, but must be
/// this process's where it is (sd_watchdog_enabled(3)); the library wants it always.
fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = match std::env::var_os("WATCHDOG_PID") {
        Some(_) => number("WATCHDOG_PID") == Some(std::process::id().into()),
        None => true,
    };
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0)?;
    is_ours.then(|| Duration::from_micros(micros))
}

fn is_due(last: Option<Instant>, every: Duration) -> bool {
    last.is_none_or(|last| last.elapsed() >= every)
}

/// How far all is, in a line.
fn sentence(report: &Report) -> String {
    let height = report.indexed.unwrap_or_default();
    let open: u64 = report.wallets.connections.iter().map(|of| of.open).sum();
    match (&report.not_ready, report.stage) {
        (_, Stage::FirstSync) => {
            let percent = report.sync.share * 100.0;
            let text = report.sync.text.as_deref().unwrap_or_default();
            let left = report.sync.seconds_left.map_or(String::new(), |left| {
                format!(", {} min left", left.div_ceil(60))
            });
            format!("first sync: {percent:.1} %, {text}{left}")
        }
        (Some(why), Stage::Waiting) => why.clone(),
        (Some(why), Stage::CatchingUp | Stage::InStep) => format!("block {height}; {why}"),
        (None, _) => format!("in step with the node at block {height}; wallets connected: {open}"),
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!("systemd cannot be told: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_stays_away_does_not_hold_up_the_boot() {
        assert!(!is_started(false, START_MAX / 2));
        assert!(is_started(true, Duration::ZERO));
        assert!(is_started(false, START_MAX));
    }

    #[test]
    fn the_watchdog_of_a_process_that_hangs_is_not_fed() {
        assert!(lives(None));
        assert!(!lives(Some("the writer gives no sign of life".to_owned())));
    }

    #[test]
    fn the_sentence_says_what_is_waited_for_and_how_far_all_is() {
        let monitor = Monitor::new();
        monitor.waits_for(Some("the node is away".to_owned()));
        let mut report = monitor.report();
        assert_eq!(sentence(&report), "the node is away");
        report.stage = Stage::FirstSync;
        report.sync.share = 0.4217;
        report.sync.text = Some("block 7".to_owned());
        report.sync.seconds_left = Some(61);
        assert_eq!(sentence(&report), "first sync: 42.2 %, block 7, 2 min left");
        report.stage = Stage::InStep;
        report.indexed = Some(9);
        assert_eq!(sentence(&report), "block 9; the node is away");
        report.not_ready = None;
        assert_eq!(
            sentence(&report),
            "in step with the node at block 9; wallets connected: 0"
        );
    }
}
