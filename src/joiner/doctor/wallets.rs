//! Where wallets connect: ports and certificate.

use std::{
    io::ErrorKind,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    time::{Duration, SystemTime},
};

use bitcoin::Network;

use super::Check;
use crate::{
    config::Config,
    joiner::{
        control::{self, Question},
        listen::is_loopback,
    },
    server::{HostPort, ListenUrl, TlsAcceptor, TlsFiles},
};

/// Before a certificate ends, time to make another.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 86_400);

pub(super) fn look(config: &Config, network: Network, checks: &mut Vec<Check>) {
    let folder = config.db_dir(network);
    let running = control::ask::<Vec<String>>(&folder, &Question::Listeners {});
    let served = match running {
        Ok(Some((urls, _))) => urls,
        Ok(None) | Err(_) => Vec::new(),
    };
    let mut needs_tls = false;
    for text in config.listen_urls(network) {
        let url: ListenUrl = match text.parse() {
            Ok(url) => url,
            Err(error) => {
                checks.push(Check::fail("listen", format!("{error}"), "ambra --help"));
                continue;
            }
        };
        needs_tls |= url.needs_tls();
        checks.push(match served.contains(&text) {
            true => Check::ok("listen", format!("{text} is served by the Ambra that runs")),
            false => port(&text, &url),
        });
        if let ListenUrl::Tcp(at) | ListenUrl::Ws(at) = &url
            && !is_loopback(&at.host)
        {
            checks.push(Check::warn(
                "listen",
                format!("{text}: what goes over it can be read by everyone on the way"),
                format!("ambra --listen tls://{at}"),
            ));
        }
    }
    if needs_tls {
        certificate(config, &folder, checks);
    }
}

fn port(text: &str, url: &ListenUrl) -> Check {
    const NAME: &str = "listen";
    let at: &HostPort = match url {
        ListenUrl::Tcp(at) | ListenUrl::Tls(at) | ListenUrl::Ws(at) | ListenUrl::Wss(at) => at,
        ListenUrl::Unix(path) => {
            return match UnixStream::connect(path) {
                Ok(_) => Check::fail(
                    NAME,
                    format!("{text}: another program listens there"),
                    "ambra --listen unix:ANOTHER_PATH",
                ),
                Err(_) => Check::ok(NAME, format!("{text} is free")),
            };
        }
    };
    match TcpListener::bind((at.host.trim_matches(['[', ']']), at.port)) {
        Ok(_) => Check::ok(NAME, format!("{text} is free")),
        Err(error) => {
            let mend = match error.kind() {
                ErrorKind::AddrInUse => format!(
                    "ss -ltnp 'sport = :{}' tells whose it is; ambra --listen URL with another port",
                    at.port
                ),
                ErrorKind::PermissionDenied => {
                    "ambra --listen URL with a port above 1023".to_owned()
                }
                _ => "ambra --listen URL with an address of this machine (ip address shows them)"
                    .to_owned(),
            };
            Check::fail(NAME, format!("{text}: {error}"), mend)
        }
    }
}

fn certificate(config: &Config, folder: &Path, checks: &mut Vec<Check>) {
    const NAME: &str = "certificate";
    let files = match &config.tls {
        Some(files) => TlsFiles {
            certificate: files.cert.clone(),
            key: files.key.clone(),
        },
        None => match TlsFiles::made(folder) {
            Some(files) => files,
            None => {
                checks.push(Check::ok(NAME, "Ambra makes one when it starts"));
                return;
            }
        },
    };
    let loaded = TlsAcceptor::new(files.clone()).and_then(|_| files.fingerprint());
    let fingerprint = match loaded {
        Ok(fingerprint) => fingerprint,
        Err(error) => {
            checks.push(Check::fail(
                NAME,
                error.to_string(),
                "give a certificate and its key with --tls-cert and --tls-key, or leave both out: Ambra makes its own",
            ));
            return;
        }
    };
    let shown = files.certificate.display();
    let soon = SystemTime::now() + EXPIRES_SOON;
    checks.push(match files.expiry() {
        Some(expiry) if expiry.at < SystemTime::now() => Check::fail(
            NAME,
            format!("{shown} has been invalid since {}", expiry.date),
            "renew it (certbot renew); Ambra takes the new file without a restart",
        ),
        Some(expiry) if expiry.at < soon => Check::warn(
            NAME,
            format!("{shown} is valid until {}", expiry.date),
            "renew it (certbot renew); Ambra takes the new file without a restart",
        ),
        Some(expiry) => Check::ok(
            NAME,
            format!(
                "{shown}, valid until {}, SHA-256 {fingerprint}",
                expiry.date
            ),
        ),
        None => Check::ok(NAME, format!("{shown}, SHA-256 {fingerprint}")),
    });
    let mode = std::fs::metadata(&files.key).map(|about| about.permissions().mode());
    if let Ok(mode) = mode
        && mode & 0o077 != 0
    {
        checks.push(Check::warn(
            NAME,
            format!("others may read the key {}", files.key.display()),
            format!("chmod 600 {}", files.key.display()),
        ));
    }
}
