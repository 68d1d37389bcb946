//! What the server says of itself.

use serde_json::{Map, Value, json};

use crate::electrum::{
    Refusal, json,
    methods::METHODS,
    params::Args,
    version::{Speaks, Version},
};

use super::Question;

/// Most digits that a ping may ask for.
const PONG_DIGITS_MAX: usize = 1_000_000;

/// `server.banner()`: the owner's words, and how far a sync is while one runs.
pub fn banner(question: &Question, _: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    match question.view.progress() {
        Some(progress) => {
            json::text(out, &format!("{}\n\n{progress}", question.settings.banner));
        }
        None => json::text(out, &question.settings.banner),
    }
    Ok(())
}

/// `server.donation_address()`
pub fn donation_address(question: &Question, _: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    json::text(out, &question.settings.donation_address);
    Ok(())
}

/// `server.peers.subscribe()`: a personal server has no peers.
pub fn peers(_: &Question, _: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    out.extend_from_slice(b"[]");
    Ok(())
}

/// `server.add_peer(features)`: and takes none.
pub fn add_peer(_: &Question, _: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    out.extend_from_slice(b"false");
    Ok(())
}

/// `server.features()`
pub fn features(question: &Question, _: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let settings = &question.settings;
    let mut hosts = Map::new();
    for service in &settings.services {
        let ports = hosts
            .entry(service.host.clone())
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(ports) = ports.as_object_mut() {
            ports
                .entry(service.kind.port_member())
                .or_insert(service.port.into());
        }
    }
    let services: Vec<String> = settings
        .services
        .iter()
        .map(|service| {
            let scheme = service.kind.scheme();
            format!("{scheme}://{}:{}", service.host, service.port)
        })
        .collect();
    let extensions: Vec<&str> = METHODS
        .iter()
        .filter(|method| method.is_extension())
        .map(|method| method.name)
        .collect();
    let mut features = json!({
        "genesis_hash": question.view.genesis().to_string(),
        "hosts": hosts,
        "protocol_min": Version::MIN.to_string(),
        "protocol_max": settings.newest().to_string(),
        "pruning": null,
        "server_version": settings.server_name,
        "hash_function": "sha256",
        "services": services,
        "extensions": extensions,
    });
    // 1.7 has only scripts, no hashes of them.
    if let (Speaks::Agreed(version), Some(members)) = (question.speaks, features.as_object_mut())
        && version >= Version::V1_7
    {
        members.remove("hash_function");
    }
    json::serde(out, &features);
    Ok(())
}

/// `server.ping()`; from 1.7 on with padding that hides what is said by its size.
pub fn ping(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    if question.version() < Version::V1_7 {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    let pong = usize::try_from(args.number_or(0, 0)).unwrap_or(usize::MAX);
    if pong > PONG_DIGITS_MAX {
        return Err(Refusal::Params(format!(
            "pong_len may be {PONG_DIGITS_MAX} at most"
        )));
    }
    out.extend_from_slice(b"{\"data\":\"");
    out.resize(out.len() + pong, b'0');
    out.extend_from_slice(b"\"}");
    Ok(())
}
