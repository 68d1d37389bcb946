//! `ambra doctor`: looks at everything that set-ups go wrong by, and says what mends each.
//!
//! It changes nothing, waits for nothing, and works whether Ambra runs or not.

mod disk;
mod machine;
mod node;
mod rights;
mod wallets;

use serde::Serialize;

use super::{Outcome, RunError, node::wanted, print};
use crate::{config::Config, daemon::discover};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Ok,
    /// Works, but slower or less safely than it could.
    Warn,
    /// Ambra cannot work so.
    Fail,
}

/// A line of what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    name: &'static str,
    level: Level,
    says: String,
    /// The one command or line of bitcoin.conf that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Check {
    fn ok(name: &'static str, says: impl Into<String>) -> Check {
        Check {
            name,
            level: Level::Ok,
            says: says.into(),
            mend: None,
        }
    }

    fn warn(name: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Check {
        Check {
            name,
            level: Level::Warn,
            says: says.into(),
            mend: Some(mend.into()),
        }
    }

    fn fail(name: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Check {
        Check {
            level: Level::Fail,
            ..Check::warn(name, says, mend)
        }
    }
}

pub(super) async fn run(config: &Config, as_json: bool) -> Result<Outcome, RunError> {
    let config = config.clone();
    let looking = tokio::task::spawn_blocking(move || look(&config));
    let checks = looking.await.map_err(RunError::of)?;
    let failed = checks.iter().any(|check| check.level == Level::Fail);
    if as_json {
        let told = serde_json::json!({"ok": !failed, "checks": checks});
        print(&format!("{told:#}\n"))?;
    } else {
        print(&table(&checks))?;
    }
    Ok(match failed {
        true => Outcome::Faults,
        false => Outcome::Well,
    })
}

/// All checks, in the order in which a person mends them. Blocks.
fn look(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    let wanted = wanted(config);
    let (network, txs) = match discover::discover(&wanted) {
        Ok(location) => {
            let found = node::look(config, &location, &mut checks);
            (location.network, found)
        }
        Err(error) => {
            checks.push(node::not_found(&error));
            // The rest is looked at for the network that is likely meant.
            (discover::likely_network(&wanted), None)
        }
    };
    disk::look(config, network, txs, &mut checks);
    machine::look(config, &mut checks);
    wallets::look(config, network, &mut checks);
    checks
}

fn table(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let level = match check.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        text.push_str(&format!("{level:<4}  {:<13} {}\n", check.name, check.says));
        for line in check.mend.iter().flat_map(|mend| mend.lines()) {
            text.push_str(&format!("{:<20}→ {line}\n", ""));
        }
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let (warnings, failures) = (count(Level::Warn), count(Level::Fail));
    text.push_str(&match (warnings, failures) {
        (0, 0) => "\nall is well\n".to_owned(),
        (_, 0) => format!("\nAmbra can work; {warnings} to mend when you like (warn)\n"),
        (_, _) => format!(
            "\n{failures} to mend before Ambra can work (FAIL), {warnings} besides (warn)\n"
        ),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_how_bad_it_is_and_what_mends_it() {
        let checks = [
            Check::ok("node", "there"),
            Check::warn("ZMQ", "silent", "one\ntwo"),
            Check::fail("pruned", "it is", "prune=0"),
        ];
        let table = table(&checks);
        assert!(table.contains("ok    node          there\n"), "{table}");
        assert!(table.contains("→ one\n"), "{table}");
        assert!(table.contains("→ two\n"), "{table}");
        assert!(table.contains("FAIL  pruned        it is\n"), "{table}");
        assert!(table.contains("1 to mend before"), "{table}");
    }
}
