//! What a person needs once Ambra listens: what to type into a wallet, and a code for a phone to scan.

use std::{io::IsTerminal, net::UdpSocket};

use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};

use super::listen::is_loopback;
use crate::{
    config::LogFormat,
    server::{HostPort, ListenUrl, Listener},
};

/// An address in a wallet's words.
struct Invitation {
    /// `HOST:PORT:s` (TLS) or `HOST:PORT:t` (TCP), as Electrum writes it and other wallets read it; for WebSocket the URL.
    text: String,
    is_encrypted: bool,
    is_here_only: bool,
    /// False of what no wallet scans.
    can_be_scanned: bool,
}

/// Says for each listener how to connect; where a person looks on, shows the best one as a QR code.
pub(super) fn tell(listeners: &[Listener], format: LogFormat) {
    let urls = listeners.iter().filter_map(|one| one.url().parse().ok());
    let invitations: Vec<_> = urls.filter_map(|url| invitation(&url)).collect();
    for one in &invitations {
        let who = match one.is_here_only {
            true => "on this machine",
            false => "in your network",
        };
        let how = match (one.is_encrypted, one.is_here_only) {
            (true, _) => ", encrypted",
            (false, true) => "",
            (false, false) => ", NOT encrypted: others on the way can read along",
        };
        tracing::info!("wallets {who} connect to {}{how}", one.text);
    }
    if format == LogFormat::Human && std::io::stderr().is_terminal() {
        let best = invitations
            .iter()
            .filter(|one| one.can_be_scanned)
            .max_by_key(|one| (!one.is_here_only, one.is_encrypted));
        if let Some((code, best)) = best.and_then(|best| Some((code(&best.text)?, best))) {
            eprintln!("\n{code}\n{}\n", best.text);
        }
    }
}

fn invitation(url: &ListenUrl) -> Option<Invitation> {
    let (at, is_encrypted) = match url {
        ListenUrl::Tcp(at) | ListenUrl::Ws(at) => (at, false),
        ListenUrl::Tls(at) | ListenUrl::Wss(at) => (at, true),
        ListenUrl::Unix(_) => return None,
    };
    let host = bracketed(&reached_at(at));
    let port = at.port;
    Some(Invitation {
        text: match url {
            ListenUrl::Ws(_) => format!("ws://{host}:{port}"),
            ListenUrl::Wss(_) => format!("wss://{host}:{port}"),
            ListenUrl::Tcp(_) => format!("{host}:{port}:t"),
            ListenUrl::Tls(_) | ListenUrl::Unix(_) => format!("{host}:{port}:s"),
        },
        is_encrypted,
        is_here_only: is_loopback(&host),
        can_be_scanned: matches!(url, ListenUrl::Tcp(_) | ListenUrl::Tls(_)),
    })
}

/// The host to type. Of "all addresses" the one by which this machine is reached from its network.
fn reached_at(at: &HostPort) -> String {
    let bare = at.host.trim_matches(['[', ']']);
    match bare.parse::<std::net::IpAddr>() {
        Ok(ip) if ip.is_unspecified() => {
            own_address(ip.is_ipv6()).unwrap_or_else(|| at.host.clone())
        }
        Ok(_) | Err(_) => at.host.clone(),
    }
}

/// As an IPv6 address stands before a port.
fn bracketed(host: &str) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}

/// This machine's address in its network: the one from which it would send. Nothing is sent: a UDP socket that is
/// connected only looks up the route. The far ends are addresses for documents (RFC 5737, RFC 3849).
fn own_address(is_v6: bool) -> Option<String> {
    let (here, far) = match is_v6 {
        false => ("0.0.0.0:0", "192.0.2.1:9"),
        true => ("[::]:0", "[2001:db8::1]:9"),
    };
    let socket = UdpSocket::bind(here).ok()?;
    socket.connect(far).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

/// Two modules to a character, black on white whatever the terminal's colours are: many readers take no other.
fn code(text: &str) -> Option<String> {
    const BLACK_ON_WHITE: &str = "\x1b[30;107m";
    const PLAIN: &str = "\x1b[0m";
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let image = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Dark)
        .light_color(Dense1x2::Light)
        .quiet_zone(true)
        .build();
    let lines = image
        .lines()
        .map(|line| format!("{BLACK_ON_WHITE}{line}{PLAIN}"));
    Some(lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(url: &str) -> Option<String> {
        invitation(&url.parse().unwrap()).map(|one| one.text)
    }

    #[test]
    fn an_invitation_is_what_wallets_read() {
        for (url, wanted) in [
            ("tcp://127.0.0.1:50001", "127.0.0.1:50001:t"),
            ("tls://node.local:50002", "node.local:50002:s"),
            ("tls://[fd00::1]:50002", "[fd00::1]:50002:s"),
            ("wss://node.local:50004", "wss://node.local:50004"),
        ] {
            assert_eq!(text(url).as_deref(), Some(wanted));
        }
        assert_eq!(text("unix:/run/ambra.sock"), None);
    }

    #[test]
    fn all_addresses_are_none_to_type() {
        // A machine without a network has no other to tell.
        if let Some(own) = own_address(false) {
            assert_eq!(text("tls://0.0.0.0:1"), Some(format!("{own}:1:s")));
            assert_ne!(own, "0.0.0.0");
        }
    }

    #[test]
    fn a_code_is_square_and_dark_on_light() {
        let code = code("127.0.0.1:50001:t").unwrap();
        let lines: Vec<_> = code.lines().collect();
        let width = lines[0].chars().filter(|c| " ▀▄█".contains(*c)).count();
        // A module is half a character high; the quiet zone is four modules wide on each side.
        assert_eq!(lines.len(), width.div_ceil(2));
        assert!((21 + 8..=25 + 8).contains(&width), "{width}");
        assert!(lines.iter().all(|line| line.starts_with("\x1b[30;107m")));
        let quiet = lines[0].matches(' ').count();
        assert_eq!(quiet, width, "{code}");
    }
}
