//! What carries messages: bytes with newlines (TCP, TLS, Unix sockets) or WebSocket frames.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use crate::electrum::Outbox;

use super::{inbox::Inbox, origin};

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    Something,
    /// The client will send no more.
    End,
}

/// A connection, whatever carries it.
pub trait Link: Send + Unpin {
    /// Puts what comes into the inbox.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &mut Inbox,
    ) -> Poll<io::Result<Received>>;

    /// Sends until nothing is left. Ready when all is out.
    fn poll_send(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<()>>;

    /// Bytes that it holds itself: of a message that has not come to its end, or is not out.
    fn held(&self) -> usize {
        0
    }

    /// Says that no more will be sent.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// What is sent in one go, before other connections of the thread have a turn: the system takes a tenth of a
/// millisecond to copy so much, and ten for a history of 200,000 entries.
const SENT_AT_ONCE: usize = 256 * 1024;

/// Messages end with a newline.
pub struct Lines<S> {
    stream: S,
    needs_flush: bool,
}

impl<S> Lines<S> {
    pub fn new(stream: S) -> Lines<S> {
        Lines {
            stream,
            needs_flush: false,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Link for Lines<S> {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &mut Inbox,
    ) -> Poll<io::Result<Received>> {
        let mut room = ReadBuf::new(inbox.room());
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        let count = room.filled().len();
        inbox.filled(count);
        Poll::Ready(Ok(match count {
            0 => Received::End,
            _ => Received::Something,
        }))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<()>> {
        let mut room = SENT_AT_ONCE;
        while !outbox.is_empty() {
            if room == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let next = outbox.next();
            let next = &next[..next.len().min(room)];
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, next))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.needs_flush = true;
            outbox.advance(count);
            room -= count;
        }
        if self.needs_flush {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What a client's ping or pong has before its body: two bytes and the mask (RFC 6455, section 5.2).
const CONTROL_FRAME_BYTES: usize = 6;

/// A message is a frame, without a newline.
pub struct Frames<S> {
    stream: WebSocketStream<Counting<S>>,
    needs_flush: bool,
    /// A ping was answered, and the answer is not out: nothing more is read before.
    owes_pong: bool,
    /// Bytes of the messages that are on their way out.
    sending: usize,
    /// What had been read when the last message was there, and the pings and pongs since: they may stand between the
    /// pieces of a message, and end none.
    read_before: usize,
}

impl<S> Frames<S> {
    pub fn new(stream: WebSocketStream<Counting<S>>) -> Frames<S> {
        Frames {
            stream,
            needs_flush: false,
            owes_pong: false,
            sending: 0,
            read_before: 0,
        }
    }
}

/// The handshake of a client whose messages have at most so many bytes, and who is no page that is not allowed.
pub async fn frames<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    bytes_max: usize,
    allowed_origins: &[String],
) -> io::Result<Frames<S>> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(bytes_max))
        .max_frame_size(Some(bytes_max))
        .read_buffer_size(8 * 1024)
        .write_buffer_size(0);
    let stream = tokio_tungstenite::accept_hdr_async_with_config(
        Counting::new(stream),
        // The answer to a handshake is what tungstenite makes of it; there is one a connection.
        #[allow(clippy::result_large_err)]
        |request: &_, response| origin::check(request, response, allowed_origins),
        Some(config),
    )
    .await
    .map_err(io::Error::other)?;
    Ok(Frames::new(stream))
}

/// Counts what is read: the library does not say how much it holds of a message that comes in pieces.
pub struct Counting<S> {
    stream: S,
    read: usize,
}

impl<S> Counting<S> {
    pub fn new(stream: S) -> Counting<S> {
        Counting { stream, read: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, room))?;
        let count = room.filled().len() - before;
        self.read = self.read.wrapping_add(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counting<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Link for Frames<S> {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &mut Inbox,
    ) -> Poll<io::Result<Received>> {
        // # Security
        // The library queues a pong for each ping, whether or not the client takes them.
        if self.owes_pong {
            ready!(Pin::new(&mut self.stream).poll_flush(cx)).map_err(io::Error::other)?;
            self.owes_pong = false;
        }
        match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
            None | Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(Received::End)),
            Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            Some(Ok(Message::Text(text))) => {
                self.read_before = self.stream.get_ref().read;
                inbox.message(text.as_bytes());
            }
            Some(Ok(Message::Binary(bytes))) => {
                self.read_before = self.stream.get_ref().read;
                inbox.message(&bytes);
            }
            // The library answers it by itself. A client that does not take the answer is closed like any other
            // that takes nothing.
            Some(Ok(Message::Ping(body))) => {
                self.read_before += CONTROL_FRAME_BYTES + body.len();
                self.owes_pong = true;
                self.needs_flush = true;
            }
            Some(Ok(Message::Pong(body))) => self.read_before += CONTROL_FRAME_BYTES + body.len(),
            Some(Ok(Message::Frame(_))) => {}
        }
        Poll::Ready(Ok(Received::Something))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<()>> {
        // A chunk holds whole messages, and whole messages are taken from it.
        while let Some(end) = memchr::memchr(b'\n', outbox.next()) {
            ready!(Pin::new(&mut self.stream).poll_ready(cx)).map_err(io::Error::other)?;
            let text = String::from_utf8_lossy(&outbox.next()[..end]).into_owned();
            Pin::new(&mut self.stream)
                .start_send(Message::text(text))
                .map_err(io::Error::other)?;
            self.needs_flush = true;
            self.sending += end;
            outbox.advance(end + 1);
        }
        if self.needs_flush {
            ready!(Pin::new(&mut self.stream).poll_flush(cx)).map_err(io::Error::other)?;
            self.needs_flush = false;
            self.sending = 0;
        }
        Poll::Ready(Ok(()))
    }

    fn held(&self) -> usize {
        // What was read ahead of a message's end may be frames that are counted again.
        let read = self.stream.get_ref().read;
        read.saturating_sub(self.read_before) + self.sending
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream)
            .poll_close(cx)
            .map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::server::fuzz::HANDSHAKE;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A link to a peer that has room for everything.
    fn wide() -> (Lines<DuplexStream>, DuplexStream) {
        let (stream, peer) = tokio::io::duplex(1 << 24);
        (Lines::new(stream), peer)
    }

    #[tokio::test]
    async fn a_large_answer_is_sent_in_turns_with_others() {
        let (mut link, mut peer) = wide();
        let answer: Vec<u8> = (0..3 * SENT_AT_ONCE + 5).map(|n| n as u8).collect();
        let mut outbox = Outbox::default();
        outbox.push(answer.clone());
        let wakes = Arc::new(Wakes::default());
        let waker = wakes.clone().into();
        let mut cx = Context::from_waker(&waker);
        for turn in 1..=3 {
            assert!(link.poll_send(&mut cx, &mut outbox).is_pending());
            assert_eq!(outbox.len(), answer.len() - turn * SENT_AT_ONCE);
            assert_eq!(
                wakes.0.load(Ordering::SeqCst),
                turn,
                "it asks for its next turn"
            );
        }
        assert!(link.poll_send(&mut cx, &mut outbox).is_ready());
        drop(link);
        let mut arrived = Vec::new();
        peer.read_to_end(&mut arrived).await.unwrap();
        assert_eq!(arrived, answer);
    }

    /// Without a runtime, whose tasks may be told to wait where nothing keeps them.
    #[test]
    fn no_more_pings_are_read_than_pongs_are_taken() {
        const ROOM: usize = 4096;
        let (stream, mut peer) = tokio::io::duplex(ROOM);
        let at_once = "nothing is to be waited for";
        let said = peer.write_all(HANDSHAKE).now_or_never();
        said.expect(at_once).unwrap();
        let link = frames(stream, 1000, &[]).now_or_never();
        let mut link = link.expect(at_once).unwrap();
        let mut answer = [0; ROOM];
        let said = peer.read(&mut answer).now_or_never();
        assert!(said.expect(at_once).unwrap() > 0);

        // 1. Pings, as many as are taken; no pong is.
        let ping = [&[0x89, 0x80 | 100, 0, 0, 0, 0][..], &[b'x'; 100]].concat();
        let pings = ping.repeat(1000);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let (mut inbox, mut outbox) = (Inbox::default(), Outbox::default());
        let (mut sent, mut taken) = (0, 0);
        loop {
            let before = (sent, taken);
            if let Poll::Ready(count) = Pin::new(&mut peer).poll_write(&mut cx, &pings[sent..]) {
                sent += count.unwrap();
            }
            while let Poll::Ready(received) = link.poll_receive(&mut cx, &mut inbox) {
                assert_eq!(received.unwrap(), Received::Something);
                taken += 1;
            }
            let _ = link.poll_send(&mut cx, &mut outbox);
            if before == (sent, taken) {
                break;
            }
        }
        let pong = ping.len() - 4;
        assert!(taken >= ROOM / pong, "{taken}");
        assert!(taken <= ROOM / pong + 2, "{taken} of 1000");

        // 2. With room for pongs it goes on.
        let read = peer.read(&mut answer).now_or_never();
        assert!(read.expect(at_once).unwrap() > pong);
        assert!(link.poll_receive(&mut cx, &mut inbox).is_ready());
    }
}
