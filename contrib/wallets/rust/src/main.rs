//! Electrum clients of Rust, each living a wallet's life in a scene.
//!
//!     ambra-wallets electrum-client|bdk|streaming tcp|tls
//!
//! `bdk` is a wallet; the two others are libraries that carry bytes, for which `life` keeps the books and the
//! scene's purse has the keys.

mod bdk;
mod life;
mod raw;
mod stage;
mod streaming;

use serde_json::json;
use stage::{Result, Stage};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [client, transport] = arguments.as_slice() else {
        return Err("two words: a client and a transport".into());
    };
    let mut stage = Stage::enter()?;
    let mut about = |name: &str| -> Result<()> {
        let version = locked(name).ok_or("not in the lock file")?;
        stage.act(
            "about",
            json!({"client": name, "version": version, "transport": transport}),
        )?;
        Ok(())
    };
    match client.as_str() {
        "electrum-client" => {
            about("electrum-client")?;
            life::live(&mut stage, &mut raw::Raw::new(transport)?)
        }
        "streaming" => {
            about("electrum_streaming_client")?;
            life::live(&mut stage, &mut streaming::Streaming::new()?)
        }
        "bdk" => {
            about("bdk_electrum")?;
            bdk::live(&mut stage, transport)
        }
        _ => Err(format!("no client {client}").into()),
    }
}

/// A package's version in the lock file.
pub fn locked(name: &str) -> Option<&'static str> {
    let lock = include_str!("../Cargo.lock");
    let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    rest.split('"').next()
}
