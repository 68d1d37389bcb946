//! A real Prometheus beside a real Ambra: the scrape file, the alerts, each figure of Grafana's dashboard, and the
//! expressions that the document names, evaluated over what Ambra tells.
//!
//! `contrib/monitoring/test.sh` has it run, and promtool before it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    ambra::Ambra,
    client::Client,
    http::{exchange, get},
    locks::{Kind, Lock},
    node::{Node, NodeOptions, free_port},
    oracle::script_hash,
    patience::until,
    status_page::ON_ANY_PORT,
    treasury::Treasury,
};

/// Prometheus asks once a second here; a rate wants two answers, and machines are busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// Grafana puts the time between two points there, four scrapes at least. Here it is long, for a machine that is slow.
const RATE_INTERVAL: &str = "1m";

/// What has no value while all is well.
const EMPTY_WHEN_WELL: [&str; 1] = [
    // Only while a first sync runs.
    "ambra_sync_remaining_seconds",
];

fn monitoring(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/monitoring");
    fs::read_to_string(folder.join(name)).expect("a file of the repository")
}

struct Prometheus {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    /// `None` where it is not installed.
    fn find() -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|folder| folder.join("prometheus"))
            .find(|program| program.is_file())
    }

    /// With the repository's own files, but for the place of Ambra and the pace.
    fn start(program: &Path, ambra: SocketAddr) -> Prometheus {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str| folder.path().join(name);
        let settings = monitoring("prometheus.yml");
        for line in ["targets: [\"ambra:50009\"]", "_interval: 15s"] {
            assert!(settings.contains(line), "{line}");
        }
        let settings = settings
            .replace("ambra:50009", &ambra.to_string())
            .replace("_interval: 15s", "_interval: 1s");
        fs::write(file("prometheus.yml"), settings).expect("a file");
        fs::write(file("alerts.yml"), monitoring("alerts.yml")).expect("a file");
        // Someone else may take a port between its choice and its use.
        for _ in 0..5 {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let mut process = Command::new(program)
                .arg(format!(
                    "--config.file={}",
                    file("prometheus.yml").display()
                ))
                .arg(format!("--storage.tsdb.path={}", file("data").display()))
                .arg(format!("--web.listen-address={address}"))
                .arg("--log.level=error")
                .stdin(Stdio::null())
                .spawn()
                .expect("Prometheus can be run");
            let ready = until(PATIENCE, || {
                if let Ok(Some(status)) = process.try_wait() {
                    eprintln!("Prometheus did not start: {status}");
                    return Some(false);
                }
                let answer = exchange(address, "GET", "/-/ready", "").ok()?;
                (answer.status == 200).then_some(true)
            });
            if ready == Some(true) {
                return Prometheus {
                    process,
                    address,
                    _folder: folder,
                };
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("Prometheus does not start");
    }

    fn api(&self, path: &str) -> Value {
        let answer = get(self.address, &format!("/api/v1/{path}"));
        let told = answer.json();
        assert_eq!(told["status"], "success", "{path}: {told}");
        told["data"].clone()
    }

    /// The values of an expression now, with their labels.
    fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let data = self.api(&format!("query?query={}", percent_encoded(expression)));
        let samples = data["result"].as_array().expect("a vector").iter();
        let samples = samples.map(|sample| {
            let value = sample["value"][1].as_str().expect("a value");
            (sample["metric"].clone(), value.parse().expect("a number"))
        });
        samples.collect()
    }

    fn has_a_number(&self, expression: &str) -> bool {
        let samples = self.query(expression);
        samples.iter().any(|(_, value)| value.is_finite())
    }

    /// `inactive`, `pending` or `firing`, and that its expression can be evaluated.
    fn alert(&self, name: &str) -> String {
        let rules = self.rules();
        let rule = rules.iter().find(|rule| rule["name"] == name);
        let rule = rule.unwrap_or_else(|| panic!("no alert {name}"));
        rule["state"].as_str().expect("a state").to_owned()
    }

    fn rules(&self) -> Vec<Value> {
        let data = self.api("rules");
        let groups = data["groups"].as_array().expect("groups").iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().expect("rules").clone());
        rules.collect()
    }

    #[track_caller]
    fn wait_until_alarmed(&self, name: &str) {
        // Some minutes must pass before it fires; the files' tests know that clock (promtool).
        let alarmed = until(PATIENCE, || (self.alert(name) != "inactive").then_some(()));
        assert!(alarmed.is_some(), "{name} sees nothing");
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// RFC 3986, 2.1.
fn percent_encoded(text: &str) -> String {
    let coded = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).into(),
        _ => format!("%{byte:02X}"),
    });
    coded.collect()
}

/// Every expression of the dashboard, with the names of its panel, as Grafana sends it.
fn dashboard() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&monitoring("grafana-dashboard.json")).unwrap();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("an expression");
            let expression = expression
                .replace("$job", "ambra")
                .replace("$__rate_interval", RATE_INTERVAL);
            assert!(!expression.contains('$'), "{expression}");
            let title = panel["title"].as_str().expect("a title").to_owned();
            expressions.push((title, expression));
        }
    }
    expressions
}

/// What `docs/monitoring.md` says is worth a look; of a comparison, what is compared.
fn worth_a_look() -> Vec<String> {
    let document = include_str!("../../docs/monitoring.md");
    let table = document.split("| question | expression |").nth(1);
    let rows = table.expect("the table").lines().skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let expressions = rows.map(|row| {
        let expression = row.split('`').nth(1).expect("an expression");
        let compared = [" == ", " > ", " < "].iter().find_map(|sign| {
            let (left, _) = expression.split_once(sign)?;
            Some(left)
        });
        compared.unwrap_or(expression).to_owned()
    });
    expressions.collect()
}

/// Something of everything that a wallet does, and one mistake.
fn live(client: &mut Client, lock: &Lock) {
    let script_hash = script_hash(&lock.script());
    client.ask("blockchain.scripthash.subscribe", json!([script_hash]));
    client.ask("blockchain.scripthash.get_history", json!([script_hash]));
    client.ask("blockchain.estimatefee", json!([2]));
    client.call("no.such.method", json!([])).expect_err("none");
}

#[test]
fn prometheus_and_the_dashboard_have_a_figure_for_each_question() {
    let Some(program) = Prometheus::find() else {
        eprintln!("SKIPPED: no prometheus in PATH (Debian: apt install prometheus)");
        return;
    };
    let node = Node::start(NodeOptions::default());
    let mut treasury = Treasury::mine(&node);
    let ambra = Ambra::start_with(&node, &ON_ANY_PORT);
    let prometheus = Prometheus::start(&program, ambra.status_page());

    // 1. It finds Ambra, and what it takes is in the form that it wants.
    let up = until(PATIENCE, || {
        let up = prometheus.query("up{job=\"ambra\"}");
        (up.first()?.1 == 1.0).then_some(())
    });
    assert!(up.is_some(), "{:#}", prometheus.api("targets"));
    let target = prometheus.api("targets")["activeTargets"][0].clone();
    assert_eq!(target["health"], "up", "{target:#}");
    assert_eq!(target["lastError"], "", "{target:#}");

    // 2. Each figure of the dashboard, and each of the document, while wallets come and go.
    let mut client = ambra.client();
    let lock = Lock::new(Kind::P2wpkh, 7);
    node.send(&treasury.payment(&lock, 50_000)).unwrap();
    let wanted = dashboard().into_iter().chain(
        worth_a_look()
            .into_iter()
            .map(|e| ("document".to_owned(), e)),
    );
    let (empty, mut left): (Vec<_>, Vec<_>) = wanted.partition(|(_, expression)| {
        let may_be_empty = EMPTY_WHEN_WELL.iter();
        may_be_empty.clone().any(|name| expression.contains(name))
    });
    assert!(left.len() > 45, "the expressions were found");
    let all = until(PATIENCE, || {
        live(&mut client, &lock);
        left.retain(|(_, expression)| !prometheus.has_a_number(expression));
        left.is_empty().then_some(())
    });
    assert!(all.is_some(), "no figure for {left:#?}");
    assert_eq!(empty.len(), EMPTY_WHEN_WELL.len());
    for (title, expression) in empty {
        assert_eq!(prometheus.query(&expression), [], "{title}");
    }
    // What Grafana's list of jobs is filled with.
    let jobs = prometheus.api("label/job/values?match%5B%5D=ambra_info");
    assert_eq!(jobs, json!(["ambra"]));

    // 3. Each alert can be evaluated, is about series that there are, and sees nothing wrong but a node without peers.
    let evaluated = until(PATIENCE, || {
        let rules = prometheus.rules();
        let is_done = rules.iter().all(|rule| rule["health"] == "ok");
        is_done.then_some(rules)
    });
    let rules = evaluated.unwrap_or_else(|| panic!("{:#?}", prometheus.rules()));
    let names = monitoring("alerts.yml").matches("- alert: ").count();
    assert_eq!(rules.len(), names);
    for rule in &rules {
        let query = rule["query"].as_str().expect("an expression");
        let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let series = query.split(|c| !is_of_a_name(c));
        for name in series.filter(|word| word.starts_with("ambra_") || word.starts_with("process_"))
        {
            assert!(!prometheus.query(name).is_empty(), "{name}: {rule:#}");
        }
        let alarmed = rule["state"] != "inactive";
        assert_eq!(alarmed, rule["name"] == "AmbraNodeWithoutPeers", "{rule:#}");
    }

    // 4. The node goes, then Ambra: both are seen.
    drop(client);
    node.stop();
    prometheus.wait_until_alarmed("AmbraNodeDown");
    assert_eq!(prometheus.alert("AmbraDown"), "inactive");
    drop(ambra);
    prometheus.wait_until_alarmed("AmbraDown");
}
