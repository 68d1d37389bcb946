//! The scene as a client in Rust sees it.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::exit,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// For whatever is to be seen.
const PATIENCE: Duration = Duration::from_secs(300);

pub struct Stage {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Stage {
    pub fn enter() -> Result<Stage> {
        let writer = TcpStream::connect(variable("SCENE")?)?;
        Ok(Stage {
            reader: BufReader::new(writer.try_clone()?),
            writer,
        })
    }

    /// Asks the scene to do something.
    pub fn act(&mut self, name: &str, members: Value) -> Result<Value> {
        let mut request = json!({"do": name});
        if let (Some(request), Value::Object(members)) = (request.as_object_mut(), members) {
            request.extend(members);
        }
        self.writer.write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let mut reply: Value = serde_json::from_str(&line)?;
        match reply["error"].as_str() {
            Some(words) => Err(format!("{name}: {words}").into()),
            None => Ok(reply["result"].take()),
        }
    }

    /// A string among what the scene answers.
    pub fn text(&mut self, name: &str, members: Value, member: &str) -> Result<String> {
        let answer = self.act(name, members)?;
        let found = if member.is_empty() {
            &answer
        } else {
            &answer[member]
        };
        let text = found.as_str().ok_or_else(|| format!("{name}: {answer}"))?;
        Ok(text.to_owned())
    }

    pub fn height(&mut self) -> Result<u64> {
        let tip = self.act("tip", json!({}))?;
        Ok(tip["height"].as_u64().ok_or("no height")?)
    }

    /// A step of the life. What fails ends the life: the next steps stand on it.
    pub fn step(
        &mut self,
        name: &str,
        body: impl FnOnce(&mut Stage) -> Result<String>,
    ) -> Result<()> {
        let began = Instant::now();
        let (outcome, detail) = match body(self) {
            Ok(detail) => ("ok", detail),
            Err(error) => ("failed", error.to_string()),
        };
        let seconds = began.elapsed().as_secs_f64();
        self.act(
            "step",
            json!({"name": name, "outcome": outcome, "seconds": seconds, "detail": detail}),
        )?;
        if outcome == "failed" {
            exit(1);
        }
        Ok(())
    }
}

pub fn variable(name: &str) -> Result<String> {
    env::var(name).map_err(|_| format!("no {name}: to be run by scene.py").into())
}

/// `HOST:PORT` of Ambra for a transport.
pub fn address(transport: &str) -> Result<String> {
    let port = variable(&format!("SCENE_{}", transport.to_uppercase()))?;
    Ok(format!("{}:{port}", variable("SCENE_HOST")?))
}

/// Asks until there is an answer.
pub fn wait<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(format!("{what}: not within {PATIENCE:?}").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn must(holds: bool, what: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(what.into()) }
}

pub fn same<T: PartialEq + std::fmt::Debug>(found: T, expected: T, what: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found:?}, not {expected:?}").into())
}
