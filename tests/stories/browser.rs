//! The status page in a real browser: Chromium without a window, led by its driver (WebDriver, W3C).
//!
//! `BROWSER_PICTURES=FOLDER` keeps pictures of what was seen.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    ambra::Ambra,
    http::exchange,
    node::{Node, NodeOptions},
    patience::until,
    status_page::ON_ANY_PORT,
    treasury::Treasury,
};

/// For what a page shows: browsers are in no hurry where compilers run beside them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nothing but the page: no profile of the user's, no talk with others, no graphics card.
const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];

struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    /// Its profile, empty at first.
    _profile: TempDir,
}

impl Browser {
    /// `None` where the driver is not installed.
    fn open() -> Option<Browser> {
        let program = program("chromedriver")?;
        let mut driver = Command::new(program)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the driver can be run");
        let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.rsplit_once("successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        });
        // It must be able to go on talking.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().expect("a temporary directory");
        let mut arguments: Vec<String> = ARGUMENTS.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let mut browser = Browser {
            driver,
            address: SocketAddr::from(([127, 0, 0, 1], port.expect("the driver listens"))),
            session: String::new(),
            _profile: profile,
        };
        let wishes = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let session = browser.driver("POST", "/session", &wishes);
        let id = session["sessionId"].as_str().expect("a session");
        browser.session = format!("/session/{id}");
        Some(browser)
    }

    fn driver(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = exchange(self.address, method, path, &body.to_string()).expect("the driver");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()["value"].take()
    }

    fn ask(&self, path: &str, body: Value) -> Value {
        self.driver("POST", &format!("{}{path}", self.session), &body)
    }

    /// A command of the browser's own protocol.
    fn command(&self, command: &str, params: Value) -> Value {
        self.ask(
            "/goog/cdp/execute",
            json!({"cmd": command, "params": params}),
        )
    }

    fn run(&self, script: &str) -> Value {
        self.ask("/execute/sync", json!({"script": script, "args": []}))
    }

    fn text(&self, id: &str) -> String {
        let text = self.run(&format!(
            "return document.getElementById('{id}').textContent"
        ));
        text.as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    fn wait_for_text(&self, id: &str, wanted: &str) {
        let mut last = String::new();
        let came = until(PATIENCE, || {
            last = self.text(id);
            last.contains(wanted).then_some(())
        });
        assert!(came.is_some(), "{id} says {last:?}, not {wanted:?}");
    }

    fn look(&self, scheme: &str, width: u32, height: u32) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.command("Emulation.setEmulatedMedia", json!({"features": features}));
        let is_phone = width < 600;
        let size = json!({
            "width": width, "height": height, "mobile": is_phone,
            "deviceScaleFactor": if is_phone { 2 } else { 1 },
        });
        self.command("Emulation.setDeviceMetricsOverride", size);
        // Drawn anew for the width.
        let drawn = until(PATIENCE, || {
            (self.run("return innerWidth") == width).then_some(())
        });
        assert!(drawn.is_some(), "the window has another width");
    }

    /// The whole page, where pictures are wanted.
    fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("BROWSER_PICTURES").map(PathBuf::from) else {
            return;
        };
        fs::create_dir_all(&folder).expect("a folder for pictures");
        let shot = self.command(
            "Page.captureScreenshot",
            json!({"captureBeyondViewport": true}),
        );
        let bytes = STANDARD.decode(shot["data"].as_str().expect("a picture"));
        fs::write(folder.join(name), bytes.expect("base64")).expect("the picture can be kept");
    }

    /// What was logged since it was last asked for.
    fn log(&self, kind: &str) -> Vec<Value> {
        let log = self.ask("/se/log", json!({"type": kind}));
        log.as_array().cloned().unwrap_or_default()
    }

    /// Every address that the page asked for since this was last asked.
    fn requested(&self, page: &str) -> Vec<String> {
        let messages = self.log("performance").into_iter().filter_map(|entry| {
            let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &message["message"];
            let is_request = message["method"] == "Network.requestWillBeSent";
            let document = message["params"]["documentURL"].as_str()?;
            let url = message["params"]["request"]["url"].as_str()?;
            // The browser itself begins with a page of its own.
            (is_request && document.starts_with(page)).then(|| url.to_owned())
        });
        messages.collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Ends the browser too.
            let _ = exchange(self.address, "DELETE", &self.session, "");
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// As the page writes it.
fn shown(height: u32) -> String {
    let digits = height.to_string();
    match digits.len() {
        0..=3 => digits,
        len => format!("{},{}", &digits[..len - 3], &digits[len - 3..]),
    }
}

#[test]
fn the_page_lives_in_a_real_browser() {
    let Some(browser) = Browser::open() else {
        eprintln!(
            "SKIPPED: no chromedriver in PATH (Debian: apt install chromium chromium-driver)"
        );
        return;
    };
    let node = Node::start(NodeOptions::default());
    let mut treasury = Treasury::mine(&node);
    let tls = ["--listen", "tls://127.0.0.1:0"];
    let ambra = Ambra::start_with(&node, &[&ON_ANY_PORT[..], &tls].concat());
    let page = format!("http://{}/", ambra.status_page());

    // 1. It shows the tip and the node.
    browser.look("light", 1200, 900);
    browser.ask("/url", json!({"url": page}));
    browser.wait_for_text("dial-value", &shown(node.height()));
    browser.wait_for_text("state-text", "In step with your node");
    browser.wait_for_text("node-state", "Reachable");
    browser.wait_for_text("connect", &format!("{}:t", ambra.address()));
    browser.wait_for_text("fingerprint-text", ":");
    browser.wait_for_text("mempool-plot", "No transaction waits.");
    browser.run("window.isSamePage = true");

    // 2. A wallet comes, a payment, a block: each is shown without a reload.
    let mut client = ambra.client();
    client.ask("blockchain.headers.subscribe", json!([]));
    browser.wait_for_text("wallets-open", "1");
    let lock = crate::locks::Lock::new(crate::locks::Kind::P2wpkh, 7);
    node.send(&treasury.payment(&lock, 50_000)).unwrap();
    browser.wait_for_text("mempool-note", "1 transaction");
    browser.wait_for_text("mempool-plot", "sat/vB: ");
    browser.picture("desktop-light.png");
    node.mine(1, &Treasury::elsewhere());
    browser.wait_for_text("dial-value", &shown(node.height()));
    browser.wait_for_text("mempool-plot", "No transaction waits.");
    assert_eq!(browser.run("return window.isSamePage"), true);

    // 3. Dark where it is wished for, and whole on a phone.
    let paper = "return getComputedStyle(document.body).backgroundColor";
    let light = browser.run(paper);
    browser.look("dark", 1200, 900);
    assert_ne!(browser.run(paper), light);
    browser.picture("desktop-dark.png");
    browser.look("light", 390, 844);
    let widest = "return document.documentElement.scrollWidth";
    assert_eq!(browser.run(widest), 390, "nothing is wider than the phone");
    browser.picture("phone.png");

    // 4. Who does not see it is told the same: every picture has words, every part its name.
    let nameless = "return [...document.querySelectorAll('[role=img], section, svg[role=img], button')] \
        .filter((e) => !e.closest('[hidden]') && !e.getAttribute('aria-label') && !e.getAttribute('aria-labelledby') \
        && !e.querySelector('title')).map((e) => e.id || e.className)";
    assert_eq!(browser.run(nameless), json!([]));

    // 5. Nothing was complained of, and nobody else was asked.
    assert_eq!(browser.log("browser"), Vec::<Value>::new());
    let requested = browser.requested(&page);
    assert!(requested.iter().any(|url| url.ends_with("/api/events")));
    let elsewhere: Vec<_> = requested
        .iter()
        .filter(|url| !url.starts_with(&page))
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");

    // 6. The node goes and comes back, and so does Ambra.
    browser.look("dark", 1200, 900);
    node.stop();
    browser.wait_for_text("node-state", "Away");
    let mood = browser.run("return document.body.className");
    assert!(
        mood.as_str().unwrap_or_default().contains("is-bad"),
        "{mood}"
    );
    browser.picture("node-away.png");
    node.launch();
    browser.wait_for_text("state-text", "In step with your node");
    drop(ambra);
    browser.wait_for_text("state-text", "Ambra does not answer");
}
