//! The last warnings and errors of the log, kept for the status page.
//!
//! # Security
//! Only what Ambra itself says at these levels is kept, and of it only the sentence: by the rules of its log no
//! address, script hash or transaction of a user, and no credential, is in it.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

/// Lines that are kept: as many as one looks at.
const LINES_MAX: usize = 40;
/// Characters of a line: the log has all of it.
const LINE_CHARS_MAX: usize = 400;
/// What Ambra's own lines are marked with.
const OWN_TARGET: &str = "ambra";

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// In Unix seconds, when it was last said.
    pub time: u64,
    pub level: &'static str,
    /// Which part of Ambra said it.
    pub room: String,
    pub text: String,
    /// How often it was said in a row.
    pub times: u64,
}

/// The newest lines, and how many there were of each level.
pub struct Warnings {
    lines: Mutex<VecDeque<Warning>>,
    warnings: AtomicU64,
    errors: AtomicU64,
}

/// The process's: a process has one log.
static OF_THIS_PROCESS: Warnings = Warnings::new();

/// What adds to the log of the process; to be put beside the layer that writes it.
pub fn layer<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    // Without a filter of its own it would have every trace of every library made.
    Recorder(&OF_THIS_PROCESS).with_filter(LevelFilter::WARN)
}

pub fn of_this_process() -> &'static Warnings {
    &OF_THIS_PROCESS
}

impl Warnings {
    const fn new() -> Warnings {
        Warnings {
            lines: Mutex::new(VecDeque::new()),
            warnings: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        }
    }

    /// Newest first.
    pub fn newest(&self) -> Vec<Warning> {
        self.lock().iter().rev().cloned().collect()
    }

    /// Lines of a level since the start: name, count.
    pub fn counts(&self) -> [(&'static str, u64); 2] {
        [
            ("warn", self.warnings.load(Relaxed)),
            ("error", self.errors.load(Relaxed)),
        ]
    }

    fn add(&self, level: Level, target: &str, text: String) {
        let (level, counter) = match level {
            Level::ERROR => ("error", &self.errors),
            _ => ("warn", &self.warnings),
        };
        counter.fetch_add(1, Relaxed);
        let time = unix_seconds(SystemTime::now());
        let room = target.split("::").nth(1).unwrap_or_default();
        let mut lines = self.lock();
        if let Some(last) = lines
            .back_mut()
            .filter(|last| last.text == text && last.room == room && last.level == level)
        {
            last.time = time;
            last.times += 1;
            return;
        }
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(Warning {
            time,
            level,
            room: room.to_owned(),
            text,
            times: 1,
        });
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Warning>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds since 1970; 0 where a clock stands before that.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

struct Recorder(&'static Warnings);

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let is_own = metadata.target().split("::").next() == Some(OWN_TARGET);
        if !is_own || *metadata.level() > Level::WARN {
            return;
        }
        let mut sentence = Sentence(String::new());
        event.record(&mut sentence);
        self.0.add(*metadata.level(), metadata.target(), sentence.0);
    }
}

/// The message of an event, cut to its bound.
struct Sentence(String);

impl Visit for Sentence {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let text = format!("{value:?}");
            let shown = text.chars().filter(|c| !c.is_control());
            self.0 = shown.take(LINE_CHARS_MAX).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn recorded(say: impl FnOnce()) -> Vec<Warning> {
        let warnings: &'static Warnings = Box::leak(Box::new(Warnings::new()));
        let layer = Recorder(warnings).with_filter(LevelFilter::WARN);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), say);
        warnings.newest()
    }

    #[test]
    fn warnings_and_errors_of_ambra_are_kept_newest_first() {
        let lines = recorded(|| {
            tracing::warn!(target: "ambra::sync::tip", height = 7, "the node is away");
            tracing::info!(target: "ambra::sync::tip", "it is back");
            tracing::error!(target: "ambra::index", "the disk is full");
            tracing::warn!(target: "rustls::conn", "an address of a client");
            tracing::warn!(target: "ambrosia", "another program's");
        });
        let told: Vec<_> = lines
            .iter()
            .map(|line| (line.level, line.room.as_str(), line.text.as_str()))
            .collect();
        let expected = [
            ("error", "index", "the disk is full"),
            ("warn", "sync", "the node is away"),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_said_again_is_one_line_and_old_lines_go() {
        let lines = recorded(|| {
            for number in 0..2 * LINES_MAX {
                tracing::warn!(target: "ambra::server", "line {number}");
            }
            for _ in 0..3 {
                tracing::warn!(target: "ambra::server", "{}", "long".repeat(LINE_CHARS_MAX));
            }
        });
        assert_eq!(lines.len(), LINES_MAX);
        assert_eq!(lines[0].times, 3);
        assert_eq!(lines[0].text.len(), LINE_CHARS_MAX);
        assert_eq!(lines[1].text, format!("line {}", 2 * LINES_MAX - 1));
    }
}
