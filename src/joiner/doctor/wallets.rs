//! Where wallets connect: ports and certificate.

use std::{
    io::ErrorKind,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    time::{Duration, SystemTime},
};

use bitcoin::Network;

use super::{Check, rights};
use crate::{
    config::{AdminListen, Config},
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
    let (served, running) = match running {
        Ok(Some((urls, _))) => (urls, true),
        Ok(None) | Err(_) => (Vec::new(), false),
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
    status_page(config, network, running, checks);
}

/// Its usual port may be another's: then Ambra works without the page.
fn status_page(config: &Config, network: Network, is_running: bool, checks: &mut Vec<Check>) {
    const NAME: &str = "status page";
    const MEND: &str = "ambra --admin-listen HOST:ANOTHER_PORT, or --admin-listen off";
    let (at, is_asked_for) = match &config.admin_listen {
        AdminListen::Off => return,
        AdminListen::At(at) => (at.clone(), true),
        AdminListen::Usual => (config.admin_usual(network), false),
    };
    if is_running {
        return checks.push(Check::ok(NAME, format!("{at}, of the Ambra that runs")));
    }
    checks.push(match TcpListener::bind(&at) {
        Ok(_) => Check::ok(NAME, format!("{at} is free")),
        Err(error) if is_asked_for => Check::fail(NAME, format!("{at}: {error}"), MEND),
        Err(error) => Check::warn(
            NAME,
            format!("{at}: {error}; Ambra serves wallets without its page"),
            MEND,
        ),
    });
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
                Err(_) => socket_folder(text, path),
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

/// The folder of a Unix socket is not made by whoever binds it.
fn socket_folder(text: &str, path: &Path) -> Check {
    const NAME: &str = "listen";
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let probe = folder.join(".ambra-doctor");
    match std::fs::File::create(&probe) {
        Ok(_) => {
            let _ = std::fs::remove_file(&probe);
            Check::ok(NAME, format!("{text} is free"))
        }
        Err(error) => Check::fail(
            NAME,
            format!("{text}: {}: {error}", folder.display()),
            format!(
                "sudo install -d -o {} {}, or ambra --listen unix:PATH in a folder of yours",
                rights::user(),
                rights::quoted(folder)
            ),
        ),
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
    checks.push(validity(&files, &fingerprint, SystemTime::now()));
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

fn validity(files: &TlsFiles, fingerprint: &str, now: SystemTime) -> Check {
    const NAME: &str = "certificate";
    const RENEW: &str = "renew it (certbot renew); Ambra takes the new file without a restart";
    let shown = files.certificate.display();
    match files.validity() {
        Some(validity) if validity.until.at < now => Check::fail(
            NAME,
            format!("{shown} has been invalid since {}", validity.until.date),
            RENEW,
        ),
        Some(validity) if validity.from.at > now => Check::fail(
            NAME,
            format!(
                "{shown} is valid from {} on, by this machine's clock not yet",
                validity.from.date
            ),
            "date; sudo timedatectl set-ntp true if the clock is wrong, else wait or take another certificate",
        ),
        Some(validity) if validity.until.at < now + EXPIRES_SOON => Check::warn(
            NAME,
            format!("{shown} is valid until {}", validity.until.date),
            RENEW,
        ),
        Some(validity) => Check::ok(
            NAME,
            format!(
                "{shown}, valid until {}, SHA-256 {fingerprint}",
                validity.until.date
            ),
        ),
        None => Check::ok(NAME, format!("{shown}, SHA-256 {fingerprint}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::joiner::doctor::Level;

    #[test]
    fn a_certificate_is_good_in_its_time_and_told_of_before_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2027, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2027, 4, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let files = TlsFiles {
            certificate: dir.path().join("cert.pem"),
            key: dir.path().join("key.pem"),
        };
        let certificate = parameters.self_signed(&key).unwrap();
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        // 2027-01-01 is day 20,819 since 1970.
        let day = |day: u64| SystemTime::UNIX_EPOCH + Duration::from_secs((20_819 + day) * 86_400);
        let hour = Duration::from_secs(3600);
        let check = |now| validity(&files, "AB:CD", now);
        for (now, level, words) in [
            (day(0) - hour, Level::Fail, "from 2027-01-01 on"),
            (day(0) + hour, Level::Ok, "SHA-256 AB:CD"),
            (day(59), Level::Ok, "until 2027-04-01"),
            (day(61), Level::Warn, "until 2027-04-01"),
            (day(90) + hour, Level::Fail, "invalid since 2027-04-01"),
        ] {
            let check = check(now);
            assert_eq!(check.level, level, "{check:?}");
            assert!(check.says.contains(words), "{check:?}");
        }
    }
}
