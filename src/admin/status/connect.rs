//! How to connect a wallet: each listener as a wallet's owner would type it, and as a code to scan.

use std::net::{IpAddr, UdpSocket};

use qrcode::{Color, EcLevel, QrCode};
use serde::Serialize;

/// Light modules around a code, as its standard wants (ISO/IEC 18004: four).
const QUIET: usize = 4;

/// A listener and what to type into a wallet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connect {
    /// As Ambra listens: `tls://0.0.0.0:50002`.
    pub url: String,
    /// `host:port:s` (TLS) or `host:port:t`, where wallets write it so.
    pub server: Option<String>,
    /// Only programs of this machine reach it.
    pub is_local: bool,
    /// The code of `server`, where another machine could use it.
    pub qr: Option<Qr>,
}

/// A code: a square of `size` modules, quiet zone included, with the dark ones as an SVG path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Qr {
    pub size: usize,
    pub path: String,
}

/// Of a listener's URL, as it is bound.
pub fn connect(url: &str) -> Connect {
    let told = |server, is_local, qr| Connect {
        url: url.to_owned(),
        server,
        is_local,
        qr,
    };
    let Some((scheme, at)) = url.split_once("://") else {
        return told(None, true, None);
    };
    let Some((host, port)) = at.rsplit_once(':') else {
        return told(None, true, None);
    };
    let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let is_local = host == "localhost" || ip.is_some_and(|ip| ip.is_loopback());
    let mark = match scheme {
        "tcp" => "t",
        "tls" => "s",
        _ => return told(None, is_local, None),
    };
    // "All addresses" is none that a wallet could use.
    let host = match ip.filter(IpAddr::is_unspecified) {
        Some(all) => match own_address(all) {
            Some(IpAddr::V6(ip)) => format!("[{ip}]"),
            Some(ip) => ip.to_string(),
            None => return told(None, false, None),
        },
        None => host.to_owned(),
    };
    let server = format!("{host}:{port}:{mark}");
    let qr = (!is_local).then(|| qr(&server)).flatten();
    told(Some(server), is_local, qr)
}

/// This machine's address in its network: the one that the system would send from. A UDP socket that is
/// "connected" sends nothing; 192.0.2.1 and 2001:db8::1 are nobody's (RFC 5737, RFC 3849).
fn own_address(of: IpAddr) -> Option<IpAddr> {
    let ask = |from: &str, to: &str| {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
    };
    let by_v4 = || ask("0.0.0.0", "192.0.2.1");
    match of {
        IpAddr::V4(_) => by_v4(),
        IpAddr::V6(_) => by_v4().or_else(|| ask("::", "2001:db8::1")),
    }
}

/// `None` where the text is too long for a code.
pub fn qr(text: &str) -> Option<Qr> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
    let width = code.width();
    let modules = code.to_colors();
    let mut path = String::new();
    for (y, row) in modules.chunks(width).enumerate() {
        let mut x = 0;
        while x < width {
            let run = row[x..]
                .iter()
                .take_while(|module| **module == Color::Dark)
                .count();
            if run > 0 {
                path += &format!("M{} {}h{run}v1h-{run}z", x + QUIET, y + QUIET);
            }
            x += run.max(1);
        }
    }
    Some(Qr {
        size: width + 2 * QUIET,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_as_wallets_write_it() {
        let told = connect("tls://node.home:50002");
        assert_eq!(told.server.as_deref(), Some("node.home:50002:s"));
        assert!(!told.is_local && told.qr.is_some());
        let told = connect("tcp://192.168.1.7:50001");
        assert_eq!(told.server.as_deref(), Some("192.168.1.7:50001:t"));
        let told = connect("tls://[fd00::7]:50002");
        assert_eq!(told.server.as_deref(), Some("[fd00::7]:50002:s"));
    }

    #[test]
    fn what_only_this_machine_reaches_has_no_code_for_phones() {
        for url in [
            "tcp://127.0.0.1:50001",
            "tls://[::1]:50002",
            "tcp://localhost:1",
        ] {
            let told = connect(url);
            assert!(told.is_local && told.qr.is_none(), "{url}");
            assert!(told.server.is_some(), "{url}");
        }
        assert!(connect("unix:/run/ambra.sock").is_local);
    }

    #[test]
    fn websockets_are_no_electrum_servers() {
        assert_eq!(connect("wss://node.home:50004").server, None);
        assert!(!connect("wss://node.home:50004").is_local);
    }

    #[test]
    fn all_addresses_is_told_as_one_that_can_be_reached() {
        for url in ["tls://0.0.0.0:50002", "tls://[::]:50002"] {
            let told = connect(url);
            assert!(!told.is_local);
            if let Some(server) = told.server {
                assert!(server.ends_with(":50002:s"), "{server}");
                assert!(!server.starts_with("0.0.0.0") && !server.starts_with("[::]"));
            }
        }
    }

    #[test]
    fn the_path_draws_the_codes_dark_modules() {
        let text = "192.168.1.7:50002:s";
        let drawn = qr(text).unwrap();
        let code = QrCode::with_error_correction_level(text, EcLevel::M).unwrap();
        let mut dark = 0;
        for step in drawn.path.split('z').filter(|step| !step.is_empty()) {
            let (at, run) = step[1..].split_once('h').unwrap();
            let (x, y) = at.split_once(' ').unwrap();
            let run: usize = run.split('v').next().unwrap().parse().unwrap();
            let (x, y): (usize, usize) = (x.parse().unwrap(), y.parse().unwrap());
            for x in x..x + run {
                assert_eq!(code[(x - QUIET, y - QUIET)], Color::Dark);
            }
            dark += run;
        }
        let all = code.to_colors();
        assert_eq!(dark, all.iter().filter(|c| **c == Color::Dark).count());
        assert_eq!(drawn.size, code.width() + 8);
    }
}
