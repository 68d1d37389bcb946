//! How far the first sync is, told three ways: a bar on a terminal, a line a minute in a log, a sentence
//! for wallets that ask meanwhile.

use std::{
    io::{IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{FirstSyncProgress, Stats, first::Progress};
use crate::{chain::Height, state::State};

/// Between two updates of the bar and of the sentence.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// Between two lines of the log.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Share of the whole that goes by until all blocks are in; sorting their rows into the database is the
/// rest. On the generated chain, in memory and on two cores, the two took 5.2 s and 5.1 s; where the disk
/// is slower than that, the blocks' share is larger, and the time left falls faster than it says.
const BLOCKS_SHARE: f64 = 0.5;

/// Characters of the bar.
const BAR_LEN: usize = 24;

/// The first sync's reporter.
pub struct Reporter {
    state: State,
    stats: Arc<Stats>,
    is_terminal: bool,
    shown: Mutex<Shown>,
}

struct Shown {
    began: Instant,
    /// What was done already when this process began, as a share of the whole.
    share_at_start: Option<f64>,
    txs_at_start: u64,
    bytes_at_start: u64,
    last_show: Option<Instant>,
    last_log: Instant,
}

impl Reporter {
    pub fn new(state: State, stats: Arc<Stats>) -> Reporter {
        let now = Instant::now();
        Reporter {
            state,
            stats,
            is_terminal: std::io::stderr().is_terminal(),
            shown: Mutex::new(Shown {
                began: now,
                share_at_start: None,
                txs_at_start: 0,
                bytes_at_start: 0,
                last_show: None,
                last_log: now,
            }),
        }
    }

    /// The bar goes; the log goes on below it.
    pub fn finish(&self) {
        self.stats.set_first_sync(None);
        if self.is_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    fn show(&self, share: f64, text: impl FnOnce(&Shown) -> String) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown
            .last_show
            .is_some_and(|last| last.elapsed() < SHOW_EVERY)
        {
            return;
        }
        shown.last_show = Some(Instant::now());
        let start = *shown.share_at_start.get_or_insert(share);
        let remaining = time_left(shown.began.elapsed(), share - start, 1.0 - share);
        let percent = share * 100.0;
        let left = remaining.map_or(String::new(), |left| format!(", {}", in_words(left)));
        self.state
            .set_progress(Some(format!("indexing: {percent:.0} % done{left}")));
        let text = text(&shown);
        self.stats.set_first_sync(Some(FirstSyncProgress {
            share,
            left: remaining,
            text: text.clone(),
        }));
        if self.is_terminal {
            let full = (share * BAR_LEN as f64) as usize;
            let bar: String = (0..BAR_LEN)
                .map(|at| if at < full { '█' } else { '░' })
                .collect();
            let _ = write!(
                std::io::stderr(),
                "\r\x1b[K{bar} {percent:.1} %  {text}{left}"
            );
            let _ = std::io::stderr().flush();
        } else if shown.last_log.elapsed() >= LOG_EVERY {
            shown.last_log = Instant::now();
            tracing::info!("indexing: {percent:.1} %, {text}{left}");
        }
    }
}

impl Progress for Reporter {
    fn phase(&self, text: &str) {
        self.state.set_progress(Some(format!("indexing: {text}")));
        self.stats.set_first_sync(Some(FirstSyncProgress {
            share: 0.0,
            left: None,
            text: text.to_owned(),
        }));
    }

    fn blocks(&self, height: Height, bytes: u64, all_bytes: u64, txs: u64, all_txs: u64) {
        // Where sizes are not known beforehand (REST, RPC), transactions stand for bytes.
        let (done, all) = if all_bytes > 0 {
            (bytes, all_bytes)
        } else {
            (txs, all_txs)
        };
        let share = BLOCKS_SHARE * done as f64 / all.max(1) as f64;
        {
            let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            if shown.share_at_start.is_none() {
                (shown.txs_at_start, shown.bytes_at_start) = (txs, bytes);
            }
        }
        self.show(share, |shown| {
            let seconds = shown.began.elapsed().as_secs_f64().max(0.001);
            let txs = txs.saturating_sub(shown.txs_at_start) as f64 / seconds;
            let megabytes = bytes.saturating_sub(shown.bytes_at_start) as f64 / seconds / 1e6;
            let disk = if all_bytes > 0 {
                format!(", {megabytes:.0} MB/s")
            } else {
                String::new()
            };
            format!("block {height}{disk}, {txs:.0} transactions/s")
        });
    }

    fn merging(&self, share: f64) {
        let share = BLOCKS_SHARE + (1.0 - BLOCKS_SHARE) * share;
        self.show(share, |_| "sorting into the database".to_owned());
    }
}

/// From what a share took, how long another share takes; `None` before anything can be said.
fn time_left(elapsed: Duration, done: f64, left: f64) -> Option<Duration> {
    /// Less than this, and the pace is a guess.
    const DONE_MIN: f64 = 0.005;
    (done > DONE_MIN).then(|| elapsed.mul_f64((left / done).max(0.0)))
}

fn in_words(left: Duration) -> String {
    match left.as_secs() {
        0..60 => "less than a minute left".to_owned(),
        60..120 => "about a minute left".to_owned(),
        seconds @ 120..7200 => format!("about {} minutes left", seconds / 60),
        seconds => format!("about {} hours left", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_the_pace() {
        let minute = Duration::from_secs(60);
        assert_eq!(time_left(minute, 0.25, 0.5), Some(2 * minute));
        assert_eq!(time_left(minute, 0.0, 0.5), None);
        assert_eq!(in_words(Duration::from_secs(59)), "less than a minute left");
        assert_eq!(in_words(Duration::from_secs(150)), "about 2 minutes left");
        assert_eq!(
            in_words(Duration::from_secs(3 * 3600 + 5)),
            "about 3 hours left"
        );
    }
}
