//! A node that says what a test tells it to, over real connections: for the faults that a real one
//! shows too seldom.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};

/// What one request gets.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A result of RPC, or several to a batch.
    Result(Value),
    Results(Vec<Value>),
    /// A refusal by RPC, with its HTTP status.
    Refusal(u16, i32, &'static str),
    /// Any status and body.
    Http(u16, Vec<u8>),
    /// These bytes, and the end of the connection.
    Raw(&'static str),
    /// Nothing, for as long as the test runs.
    Silence,
}

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// As `POST / HTTP/1.1`.
    pub line: String,
    pub authorization: Option<String>,
    pub body: Vec<u8>,
    /// Number of the connection, from 0.
    pub connection: usize,
}

impl Asked {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub struct FakeNode {
    pub address: SocketAddr,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FakeNode {
    /// Answers one request after the other; when it runs out of answers, it closes the connection.
    pub fn new(answers: impl IntoIterator<Item = Answer>) -> FakeNode {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let node = FakeNode {
            address: listener.local_addr().unwrap(),
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
            asked: Arc::default(),
        };
        let (answers, asked) = (Arc::clone(&node.answers), Arc::clone(&node.asked));
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (answers, asked) = (Arc::clone(&answers), Arc::clone(&asked));
                thread::spawn(move || serve(stream.unwrap(), number, &answers, &asked));
            }
        });
        node
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(
    stream: TcpStream,
    connection: usize,
    answers: &Mutex<VecDeque<Answer>>,
    asked: &Mutex<Vec<Asked>>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(request) = read_request(&mut reader, connection) {
        asked.lock().unwrap().push(request.clone());
        let answer = answers.lock().unwrap().pop_front();
        let id_of = |request: &Value| request["id"].clone();
        let (status, body) = match answer {
            None => return,
            Some(Answer::Silence) => loop {
                thread::park();
            },
            Some(Answer::Raw(text)) => {
                stream.write_all(text.as_bytes()).unwrap();
                return;
            }
            Some(Answer::Http(status, body)) => (status, body),
            Some(Answer::Result(result)) => {
                let id = id_of(&request.json());
                let answer = json!({"result": result, "error": null, "id": id});
                (200, answer.to_string().into_bytes())
            }
            Some(Answer::Refusal(status, code, message)) => {
                let id = id_of(&request.json());
                let error = json!({"code": code, "message": message});
                let answer = json!({"result": null, "error": error, "id": id});
                (status, answer.to_string().into_bytes())
            }
            Some(Answer::Results(results)) => {
                let requests = request.json();
                let answers: Vec<Value> = requests
                    .as_array()
                    .unwrap()
                    .iter()
                    .zip(results)
                    .map(|(request, result)| match result.get("error") {
                        Some(error) => json!({"error": error, "id": id_of(request)}),
                        None => json!({"result": result, "id": id_of(request)}),
                    })
                    .collect();
                (200, json!(answers).to_string().into_bytes())
            }
        };
        let head = format!(
            "HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
    }
}

fn read_request(reader: &mut impl BufRead, connection: usize) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
    let (mut authorization, mut body_len) = (None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|len| *len > 0)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => body_len = value.parse().unwrap(),
            "authorization" => authorization = Some(value.to_owned()),
            _ => (),
        }
    }
    let mut body = vec![0; body_len];
    reader.read_exact(&mut body).ok()?;
    Some(Asked {
        line: line.trim_end().to_owned(),
        authorization,
        body,
        connection,
    })
}
