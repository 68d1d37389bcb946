//! A small blocking HTTP client, for the status page and for the browser's driver.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// A browser may take its time to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Status and body.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> Answer {
    exchange(address, "GET", path, "").expect("an answer")
}

/// One request on a connection of its own.
pub fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> std::io::Result<Answer> {
    let mut reader = request(address, method, path, body)?;
    let (status, length) = head(&mut reader)?;
    let mut body = Vec::new();
    match length {
        Length::Told(length) => {
            body.resize(length, 0);
            reader.read_exact(&mut body)?;
        }
        Length::Chunks => read_chunks(&mut reader, &mut body)?,
        Length::ToTheEnd => {
            reader.read_to_end(&mut body)?;
        }
    }
    Ok(Answer {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// Server-sent events, as they come.
pub struct Events(BufReader<TcpStream>);

impl Events {
    #[track_caller]
    pub fn open(address: SocketAddr, path: &str) -> Events {
        let mut reader = request(address, "GET", path, "").expect("a connection");
        let (status, _) = head(&mut reader).expect("an answer");
        assert_eq!(status, 200, "events");
        Events(reader)
    }

    /// The next one's data.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            let count = self.0.read_line(&mut line).expect("an event");
            assert!(count > 0, "the events ended");
            // Each event is a chunk of its own (RFC 9112, 7.1): lengths stand on lines between.
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).expect("JSON");
            }
        }
    }
}

fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> std::io::Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(BufReader::new(stream))
}

/// How the end of a body is known (RFC 9112, 6.3).
enum Length {
    Told(usize),
    Chunks,
    ToTheEnd,
}

/// Status, and the body's length.
fn head(reader: &mut impl BufRead) -> std::io::Result<(u16, Length)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no HTTP: {line:?}")))?;
    let mut length = Length::ToTheEnd;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            return Ok((status, length));
        }
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let told = value.trim().parse().map_err(std::io::Error::other)?;
                length = Length::Told(told);
            }
            "transfer-encoding" => length = Length::Chunks,
            _ => {}
        }
    }
}

/// Each chunk has its length before it, in hexadecimal (RFC 9112, 7.1).
fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
        let start = body.len();
        body.resize(start + length, 0);
        reader.read_exact(&mut body[start..])?;
        reader.read_line(&mut line)?;
        if length == 0 {
            return Ok(());
        }
    }
}
