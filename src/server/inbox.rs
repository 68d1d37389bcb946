//! What came of a client, line by line.

/// A read's room at first, so that an idle connection costs little; it doubles when a read fills it.
const ROOM_MIN: usize = 1024;
/// And at most: many small requests are taken with one read.
const ROOM_MAX: usize = 64 * 1024;

/// Bytes as they came. The front of it is lines that are done with.
#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Bytes in use: behind them is room.
    end: usize,
    /// Before this, all is done with.
    start: usize,
    /// Before this, no newline is left.
    searched: usize,
    room: usize,
}

impl Inbox {
    /// Where to read to.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.searched -= self.start;
            self.start = 0;
        }
        self.room = self.room.clamp(ROOM_MIN, ROOM_MAX);
        if self.bytes.len() < self.end + self.room {
            self.bytes.resize(self.end + self.room, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// So many bytes were read into the room.
    pub fn filled(&mut self, count: usize) {
        self.end += count;
        if count >= self.room {
            self.room *= 2;
        }
    }

    /// A message that came in one piece. In JSON a line break is whitespace, or wrong either way.
    pub fn message(&mut self, message: &[u8]) {
        self.bytes.truncate(self.end);
        self.bytes.extend(message.iter().map(|byte| match byte {
            b'\n' => b' ',
            other => *other,
        }));
        self.bytes.push(b'\n');
        self.end = self.bytes.len();
    }

    /// The next line, without its newline.
    pub fn line(&mut self) -> Option<&[u8]> {
        let rest = &self.bytes[self.searched..self.end];
        match memchr::memchr(b'\n', rest) {
            Some(at) => {
                let line = self.start..self.searched + at;
                self.start = line.end + 1;
                self.searched = self.start;
                Some(&self.bytes[line])
            }
            None => {
                self.searched = self.end;
                None
            }
        }
    }

    /// True if a whole line waits.
    pub fn has_line(&mut self) -> bool {
        let rest = &self.bytes[self.searched..self.end];
        match memchr::memchr(b'\n', rest) {
            Some(at) => {
                self.searched += at;
                true
            }
            None => {
                self.searched = self.end;
                false
            }
        }
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Gives memory back while nothing waits.
    pub fn shrink(&mut self) {
        if self.len() == 0 {
            *self = Inbox::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(inbox: &mut Inbox, bytes: &[u8]) {
        let room = inbox.room();
        assert!(room.len() >= bytes.len());
        room[..bytes.len()].copy_from_slice(bytes);
        inbox.filled(bytes.len());
    }

    #[test]
    fn lines_come_out_however_they_came_in() {
        for step in [1, 2, 3, 1000] {
            let mut inbox = Inbox::default();
            let mut lines = Vec::new();
            for piece in b"one\n\ntwo\r\nthree\nfo".chunks(step) {
                put(&mut inbox, piece);
                while inbox.has_line() {
                    lines.push(String::from_utf8(inbox.line().unwrap().to_vec()).unwrap());
                }
                assert!(inbox.line().is_none());
            }
            assert_eq!(lines, ["one", "", "two\r", "three"]);
            assert_eq!(inbox.len(), 2);
        }
    }

    #[test]
    fn a_message_is_a_line_whatever_is_in_it() {
        let mut inbox = Inbox::default();
        inbox.message(b"a\nb");
        inbox.message(b"");
        assert_eq!(inbox.line(), Some(&b"a b"[..]));
        assert_eq!(inbox.line(), Some(&b""[..]));
        assert_eq!(inbox.line(), None);
    }

    #[test]
    fn room_grows_with_what_comes_and_goes_when_nothing_does() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.room().len(), ROOM_MIN);
        for _ in 0..10 {
            let count = inbox.room().len();
            inbox.filled(count);
        }
        assert!(inbox.room().len() >= ROOM_MAX);
        assert!(inbox.line().is_none());
        put(&mut inbox, b"\n");
        assert!(inbox.line().is_some());
        inbox.shrink();
        assert_eq!(inbox.bytes.capacity(), 0);
    }
}
