//! Which web pages may speak with a WebSocket listener.
//!
//! # Security
//! A browser lets any page open a WebSocket to any address, loopback included, and says in `Origin` (RFC 6454,
//! RFC 6455 section 10.2) which page it is. A page is not what wallets are: unless it was allowed by name, it is
//! refused before the first message. Programs that are no browsers send no `Origin`, or that of the address they
//! connect to.

use std::net::{Ipv4Addr, Ipv6Addr};

use tokio_tungstenite::tungstenite::{
    handshake::server::{ErrorResponse, Request, Response},
    http::{HeaderValue, StatusCode},
};

/// Refuses the handshake of a page that is not allowed.
#[allow(clippy::result_large_err)] // the library's own type
pub fn check(
    request: &Request,
    response: Response,
    allowed: &[String],
) -> Result<Response, ErrorResponse> {
    let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
    if is_allowed(header("origin"), header("host"), allowed) {
        return Ok(response);
    }
    let words = "web pages are not served here; the server's owner can allow one by --allow-origin";
    let mut refusal = ErrorResponse::new(Some(words.to_owned()));
    *refusal.status_mut() = StatusCode::FORBIDDEN;
    Err(refusal)
}

pub(super) fn is_allowed(origin: Option<&[u8]>, host: Option<&[u8]>, allowed: &[String]) -> bool {
    let Some(origin) = origin else {
        return true;
    };
    let is_named = |name: &String| name == "*" || name.as_bytes().eq_ignore_ascii_case(origin);
    allowed.iter().any(is_named) || is_of_this_listener(origin, host)
}

/// Libraries of some apps (React Native's) send the very address that they connect to. A page cannot have come from
/// there, for pages are not served here; but a name that its owner points at this machine could make one look so,
/// therefore only addresses count, and `localhost`, which no name server answers for.
fn is_of_this_listener(origin: &[u8], host: Option<&[u8]>) -> bool {
    let authority = |scheme: &str| origin.strip_prefix(scheme.as_bytes());
    let origin = authority("http://").or_else(|| authority("https://"));
    let (Some(origin), Some(host)) = (origin, host) else {
        return false;
    };
    origin.eq_ignore_ascii_case(host) && std::str::from_utf8(host).is_ok_and(is_address)
}

fn is_address(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest
            .split_once(']')
            .is_some_and(|(ip, _)| ip.parse::<Ipv6Addr>().is_ok());
    }
    let name = host.split(':').next().unwrap_or(host);
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_let_in(origin: &str, host: &str, allowed: &[&str]) -> bool {
        let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        is_allowed(Some(origin.as_bytes()), Some(host.as_bytes()), &allowed)
    }

    #[test]
    fn a_foreign_page_is_refused_unless_it_is_allowed_by_name() {
        let host = "127.0.0.1:50003";
        for origin in ["https://evil.example", "http://127.0.0.1:8000", "null", ""] {
            assert!(!is_let_in(origin, host, &[]), "{origin}");
            assert!(!is_let_in(origin, host, &["https://wallet.example"]));
            assert!(is_let_in(origin, host, &["*"]));
        }
        assert!(is_let_in(
            "https://Wallet.example",
            host,
            &["https://wallet.example"]
        ));
        assert!(is_allowed(None, Some(host.as_bytes()), &[]), "no browser");
    }

    #[test]
    fn an_app_that_names_the_listener_itself_is_let_in_but_no_name_that_was_pointed_at_it() {
        for host in [
            "127.0.0.1:50003",
            "localhost:50003",
            "[::1]:50003",
            "192.168.1.2",
        ] {
            assert!(is_let_in(&format!("http://{host}"), host, &[]), "{host}");
            assert!(is_let_in(&format!("https://{host}"), host, &[]), "{host}");
        }
        for host in [
            "evil.example:50003",
            "127.0.0.1.evil.example",
            "[evil]:50003",
            "",
        ] {
            assert!(!is_let_in(&format!("http://{host}"), host, &[]), "{host}");
        }
    }
}
