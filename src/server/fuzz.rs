//! What is fuzzed of this room: a client's bytes before they are lines, the page that a browser names, a certificate.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    expiry,
    inbox::Inbox,
    link::{Lines, Link, Received, frames},
    origin,
};
use crate::electrum::Outbox;

/// Small, so that it is met.
const LINE_BYTES_MAX: usize = 1000;

/// What a wallet says first over WebSocket (RFC 6455, section 1.3).
pub(super) const HANDSHAKE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A client whose bytes are all there, and come in pieces; it takes whatever it is told, and then sends no more.
struct Client {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
}

impl Client {
    /// The pieces' length is in `how`, but for its last bit.
    fn new(how: u8, bytes: Vec<u8>) -> Client {
        let piece = usize::from(how >> 1) + 1;
        Client {
            bytes,
            at: 0,
            piece,
        }
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.bytes[self.at..];
        let count = self.piece.min(rest.len()).min(room.remaining());
        room.put_slice(&rest[..count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// All lines that a link gives; each is sent back. `bytes`: that came at the very most.
fn echo(link: &mut dyn Link, bytes: usize) -> (Vec<Vec<u8>>, Inbox) {
    let mut cx = Context::from_waker(Waker::noop());
    let (mut inbox, mut outbox) = (Inbox::default(), Outbox::default());
    let mut lines = Vec::new();
    // A ping or an empty frame has two bytes.
    for _ in 0..bytes + 2 {
        match link.poll_receive(&mut cx, &mut inbox) {
            Poll::Ready(Ok(Received::Something)) => {}
            Poll::Ready(Ok(Received::End) | Err(_)) => return (lines, inbox),
            Poll::Pending => panic!("all bytes are there"),
        }
        assert!(link.held() <= bytes, "more is held than came");
        while let Some(line) = inbox.line() {
            assert!(!line.contains(&b'\n'));
            outbox.push([line, b"\n"].concat());
            lines.push(line.to_vec());
        }
        match link.poll_send(&mut cx, &mut outbox) {
            Poll::Ready(Ok(())) => assert!(outbox.is_empty()),
            Poll::Ready(Err(_)) => return (lines, inbox),
            Poll::Pending => panic!("all is taken"),
        }
    }
    panic!("what has come to its end goes on")
}

/// The first byte says whether the handshake is the fuzzer's too.
pub fn websocket(bytes: &[u8]) {
    let Some((how, bytes)) = bytes.split_first() else {
        return;
    };
    let bytes = match how & 1 {
        0 => [HANDSHAKE, bytes].concat(),
        _ => bytes.to_vec(),
    };
    let count = bytes.len();
    let link = frames(Client::new(*how, bytes), LINE_BYTES_MAX, &[]);
    if let Ok(mut link) = link.now_or_never().expect("all bytes are there") {
        let (lines, _) = echo(&mut link, count);
        assert!(lines.iter().all(|line| line.len() <= LINE_BYTES_MAX));
    }
}

/// However the bytes are cut, the lines are the same.
pub fn lines(bytes: &[u8]) {
    let Some((how, bytes)) = bytes.split_first() else {
        return;
    };
    let mut link = Lines::new(Client::new(*how, bytes.to_vec()));
    let (lines, inbox) = echo(&mut link, bytes.len());
    let mut expected: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let rest = expected.pop().unwrap_or_default();
    assert_eq!(lines, expected);
    assert_eq!(inbox.len(), rest.len());
}

/// `Host` in the first line, `Origin` in the rest: a page is let in only where an address was asked.
pub fn origin(bytes: &[u8]) {
    let at = bytes.iter().position(|byte| *byte == b'\n');
    let (host, origin) = bytes.split_at(at.unwrap_or(bytes.len()));
    let origin = origin.get(1..).unwrap_or_default();
    if origin::is_allowed(Some(origin), Some(host), &[]) {
        let begins = host.first().map(u8::to_ascii_lowercase);
        assert!(matches!(begins, Some(b'0'..=b'9' | b'[' | b'l')));
        assert!(origin.to_ascii_lowercase().starts_with(b"http"));
    }
    assert!(origin::is_allowed(Some(origin), None, &["*".to_owned()]));
}

/// The owner's certificate, in DER.
pub fn certificate(bytes: &[u8]) {
    if let Some(validity) = expiry::validity(bytes) {
        for end in [validity.from, validity.until] {
            assert_eq!(end.date.len(), "2027-03-01".len());
        }
    }
}
