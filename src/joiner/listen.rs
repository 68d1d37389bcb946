//! Where wallets connect: the listeners, and their certificate.

use std::path::Path;

use bitcoin::Network;

use super::RunError;
use crate::{
    config::Config,
    electrum,
    server::{self, ListenUrl, Listener},
};

/// Binds all; with the certificate's fingerprint where there is one.
pub(super) async fn listen(
    config: &Config,
    network: Network,
    folder: &Path,
) -> Result<(Vec<Listener>, Option<String>), RunError> {
    let urls = config.listen_urls(network);
    let urls: Vec<ListenUrl> = urls
        .iter()
        .map(|url| url.parse().map_err(RunError::of))
        .collect::<Result<_, _>>()?;
    let mut fingerprint = None;
    let tls = if urls.iter().any(ListenUrl::needs_tls) {
        let files = match &config.tls {
            Some(files) => server::TlsFiles {
                certificate: files.cert.clone(),
                key: files.key.clone(),
            },
            None => {
                let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
                server::TlsFiles::own(folder, &names).map_err(RunError::of)?
            }
        };
        let sha256 = files.fingerprint().map_err(RunError::of)?.to_string();
        tracing::info!(
            "TLS certificate {}, SHA-256 {sha256}",
            files.certificate.display(),
        );
        fingerprint = Some(sha256);
        Some(server::TlsAcceptor::new(files).map_err(RunError::of)?)
    } else {
        None
    };
    let mut listeners = Vec::new();
    for url in &urls {
        let listener = Listener::bind(url, tls.as_ref())
            .await
            .map_err(RunError::of)?;
        tracing::info!("listening on {}", listener.url());
        listeners.push(listener);
    }
    Ok((listeners, fingerprint))
}

/// What wallets are told of other ways to connect.
pub(super) fn services(listeners: &[Listener]) -> Vec<electrum::Service> {
    let service = |listener: &Listener| {
        let (kind, at) = match listener.url().parse().ok()? {
            ListenUrl::Tcp(at) => (electrum::ServiceKind::Tcp, at),
            ListenUrl::Tls(at) => (electrum::ServiceKind::Tls, at),
            ListenUrl::Ws(at) => (electrum::ServiceKind::Ws, at),
            ListenUrl::Wss(at) => (electrum::ServiceKind::Wss, at),
            ListenUrl::Unix(_) => return None,
        };
        // "All addresses" is none that a wallet could use.
        let is_all = at
            .host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|host| host.is_unspecified());
        (!is_all).then_some(electrum::Service {
            kind,
            host: at.host,
            port: at.port,
        })
    };
    listeners.iter().filter_map(service).collect()
}

/// True of a host that only this machine reaches.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    let address = bare.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
