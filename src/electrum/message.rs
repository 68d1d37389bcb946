//! Requests: JSON-RPC 1.0 and 2.0, one by one or in batches, borrowed from the line they came in.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Refusal;

/// Whose rules a reply follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `"jsonrpc":"1.0"`: `result` and `error` are both there, one of them null.
    V1,
    /// `"jsonrpc":"2.0"`, and every request that does not say (as the transcripts of old servers show).
    V2,
}

/// A request, or a notification (one without an `id`, which gets no reply).
#[derive(Debug)]
pub struct Request<'a> {
    pub form: Form,
    /// As it came, of any JSON kind.
    pub id: Option<&'a str>,
    pub method: Cow<'a, str>,
    pub params: Option<&'a RawValue>,
}

/// A line.
#[derive(Debug)]
pub enum Message<'a> {
    One(&'a RawValue),
    Batch(Vec<&'a RawValue>),
}

/// A message that is no request, and the id to tell it with.
#[derive(Debug)]
pub struct NotARequest<'a> {
    pub form: Form,
    pub id: Option<&'a str>,
    pub refusal: Refusal,
}

/// Takes a line apart, no further than its batch's members.
pub fn parse(line: &[u8], batch_requests_max: usize) -> Result<Message<'_>, Refusal> {
    let text = std::str::from_utf8(line).map_err(|_| Refusal::Parse)?;
    if !text.trim_start().starts_with('[') {
        return serde_json::from_str(text)
            .map(Message::One)
            .map_err(|_| Refusal::Parse);
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let (members, count) = json
        .deserialize_seq(Members {
            keep: batch_requests_max,
        })
        .map_err(|_| Refusal::Parse)?;
    json.end().map_err(|_| Refusal::Parse)?;
    match count {
        0 => Err(Refusal::Request("an empty batch")),
        _ if count > batch_requests_max => Err(Refusal::Bad(format!(
            "a batch may hold {batch_requests_max} requests, not {count}"
        ))),
        _ => Ok(Message::Batch(members)),
    }
}

/// An array's first members, and how many it has; none of something else.
pub fn list(raw: &RawValue, keep: usize) -> Option<(Vec<&RawValue>, usize)> {
    let mut json = serde_json::Deserializer::from_str(raw.get());
    json.deserialize_seq(Members { keep }).ok()
}

/// Reads an array: its first members and how many it has. A line of ten million `1,` costs no more
/// memory than the bound.
struct Members {
    keep: usize,
}

impl<'de> Visitor<'de> for Members {
    type Value = (Vec<&'de RawValue>, usize);

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while members.len() < self.keep {
            match seq.next_element()? {
                Some(member) => members.push(member),
                None => {
                    let count = members.len();
                    return Ok((members, count));
                }
            }
        }
        let mut count = members.len();
        while seq.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok((members, count))
    }
}

impl<'a> Request<'a> {
    /// Reads one member of a batch, or a line that is no batch. It is JSON already.
    pub fn parse(raw: &'a RawValue) -> Result<Request<'a>, NotARequest<'a>> {
        let bare = |refusal| NotARequest {
            form: Form::V2,
            id: None,
            refusal,
        };
        if !raw.get().starts_with('{') {
            return Err(bare(Refusal::Request("a request is an object")));
        }
        let envelope: Envelope =
            serde_json::from_str(raw.get()).map_err(|_| bare(Refusal::Parse))?;
        let form = match envelope.jsonrpc.map(RawValue::get) {
            Some(r#""1.0""#) => Form::V1,
            _ => Form::V2,
        };
        // In JSON-RPC 1.0 a null id marks a notification; in 2.0 its absence does.
        let id = match (form, envelope.id.map(RawValue::get)) {
            (Form::V1, Some("null")) => None,
            (_, id) => id,
        };
        let refuse = |why| NotARequest {
            form,
            id,
            refusal: Refusal::Request(why),
        };
        if envelope.repeated {
            return Err(refuse("a member is there twice"));
        }
        let method = envelope.method.ok_or_else(|| refuse("no method"))?;
        let method = string(method).ok_or_else(|| refuse("the method is no string"))?;
        let params = match envelope.params.map(RawValue::get) {
            None | Some("null") => None,
            Some(text) if text.starts_with(['[', '{']) => envelope.params,
            Some(_) => return Err(refuse("the parameters are neither an array nor an object")),
        };
        Ok(Request {
            form,
            id,
            method,
            params,
        })
    }
}

/// A JSON string's text, borrowed where it has no escapes.
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    struct Text;
    impl<'de> Visitor<'de> for Text {
        type Value = Cow<'de, str>;
        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("a string")
        }
        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }
        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.to_owned()))
        }
    }
    serde_json::Deserializer::from_str(raw.get())
        .deserialize_str(Text)
        .ok()
}

/// The members that matter, none of them looked into. Unknown ones are normal.
#[derive(Default)]
struct Envelope<'a> {
    jsonrpc: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
    repeated: bool,
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Envelope<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut envelope = Envelope::default();
                while let Some(Name(name)) = map.next_key()? {
                    let member = match name.as_ref() {
                        "jsonrpc" => &mut envelope.jsonrpc,
                        "id" => &mut envelope.id,
                        "method" => &mut envelope.method,
                        "params" => &mut envelope.params,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    envelope.repeated |= member.replace(map.next_value()?).is_some();
                }
                Ok(envelope)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A member's name.
pub struct Name<'a>(pub Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Parameters of a request that are looked at. A method has three at most.
const PARAMS_KEPT: usize = 16;

/// Parameters, still raw: by position or by name. The first [`PARAMS_KEPT`] of them, and how many there are:
/// a line of ten million `1,` costs no more memory than one of sixteen.
pub enum RawParams<'a> {
    ByPosition(Vec<&'a RawValue>, usize),
    ByName(Vec<(Cow<'a, str>, &'a RawValue)>, usize),
}

impl<'de> Deserialize<'de> for RawParams<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RawParams<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an array or an object")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                let (values, count) = Members { keep: PARAMS_KEPT }.visit_seq(seq)?;
                Ok(RawParams::ByPosition(values, count))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::with_capacity(2);
                let mut count = 0;
                while let Some(Name(name)) = map.next_key()? {
                    count += 1;
                    if values.len() < PARAMS_KEPT {
                        values.push((name, map.next_value()?));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(RawParams::ByName(values, count))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Where a reply goes.
#[derive(Clone, Debug)]
pub struct ReplyTo {
    pub form: Form,
    /// JSON, without line breaks.
    pub id: Box<str>,
}

impl ReplyTo {
    pub fn new(form: Form, id: Option<&str>) -> ReplyTo {
        ReplyTo {
            form,
            id: one_line(id.unwrap_or("null")).into(),
        }
    }
}

/// An id may hold line breaks only between the parts of an array or object; a reply may not.
pub fn one_line(id: &str) -> Cow<'_, str> {
    if id.contains(['\n', '\r']) {
        Cow::Owned(id.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(id)
    }
}

/// Writes what stands before a result.
pub fn begin_result(out: &mut Vec<u8>, form: Form, id: &str) {
    match form {
        Form::V1 => out.extend_from_slice(b"{\"id\":"),
        Form::V2 => out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":"),
    }
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(b",\"result\":");
}

/// Writes what stands behind a result.
pub fn end_result(out: &mut Vec<u8>, form: Form) {
    match form {
        Form::V1 => out.extend_from_slice(b",\"error\":null}"),
        Form::V2 => out.push(b'}'),
    }
}

/// Writes an error reply.
pub fn error(out: &mut Vec<u8>, form: Form, id: &str, refusal: &Refusal, version: super::Version) {
    match form {
        Form::V1 => {
            out.extend_from_slice(b"{\"id\":");
            out.extend_from_slice(id.as_bytes());
            out.extend_from_slice(b",\"result\":null,\"error\":");
        }
        Form::V2 => {
            out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
            out.extend_from_slice(id.as_bytes());
            out.extend_from_slice(b",\"error\":");
        }
    }
    refusal.write(version, out);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Request<'_> {
        match parse(line.as_bytes(), 10).unwrap() {
            Message::One(raw) => Request::parse(raw).unwrap(),
            Message::Batch(_) => panic!("a batch"),
        }
    }

    fn refused(line: &str) -> Refusal {
        match parse(line.as_bytes(), 10) {
            Err(refusal) => refusal,
            Ok(Message::One(raw)) => Request::parse(raw).unwrap_err().refusal,
            Ok(Message::Batch(members)) => panic!("{} members", members.len()),
        }
    }

    #[test]
    fn a_request_is_borrowed_from_its_line() {
        let request = one(
            "  {\"jsonrpc\": \"2.0\", \"id\": 7, \"method\": \"server.ping\", \"params\": [], \"x\": {}}  \r",
        );
        assert_eq!(request.id, Some("7"));
        assert!(matches!(request.method, Cow::Borrowed("server.ping")));
        assert_eq!(request.params.unwrap().get(), "[]");
        assert_eq!(request.form, Form::V2);
    }

    #[test]
    fn of_a_million_members_few_are_kept_and_all_are_counted() {
        let million = "1,".repeat(999_999) + "1";
        let array = format!("[{million}]");
        let raw: &RawValue = serde_json::from_str(&array).unwrap();
        let (kept, count) = list(raw, 7).unwrap();
        assert_eq!((kept.len(), count), (7, 1_000_000));
        let RawParams::ByPosition(kept, count) = serde_json::from_str(&array).unwrap() else {
            panic!("an array");
        };
        assert_eq!((kept.len(), count), (PARAMS_KEPT, 1_000_000));
        let object = format!("{{{}\"\":1}}", "\"\":1,".repeat(999_999));
        let RawParams::ByName(kept, count) = serde_json::from_str(&object).unwrap() else {
            panic!("an object");
        };
        assert_eq!((kept.len(), count), (PARAMS_KEPT, 1_000_000));
        assert!(matches!(parse(array.as_bytes(), 10), Err(Refusal::Bad(_))));
    }

    #[test]
    fn brackets_in_brackets_take_no_stack() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        let raw: &RawValue = serde_json::from_str(&deep).unwrap();
        assert_eq!(list(raw, 7).unwrap().1, 1);
        assert_eq!(refused(&"[".repeat(1_000_000)), Refusal::Parse);
        let line = format!("{{\"id\":{deep},\"method\":\"server.ping\"}}");
        assert_eq!(one(&line).id, Some(&*deep));
    }

    #[test]
    fn ids_of_any_kind_are_kept_as_they_came() {
        for id in [
            "null",
            "0",
            "-1.50",
            "1e999999",
            "\"a\\u00e9\"",
            "[1, {}]",
            "{\"a\": 1}",
            "true",
            "123456789012345678901234567890",
        ] {
            let line = format!("{{\"id\": {id}, \"method\": \"m\"}}");
            assert_eq!(one(&line).id, Some(id));
        }
    }

    #[test]
    fn a_notification_is_what_each_json_rpc_says_it_is() {
        assert_eq!(one(r#"{"method":"m"}"#).id, None);
        assert_eq!(
            one(r#"{"jsonrpc":"2.0","method":"m","id":null}"#).id,
            Some("null")
        );
        assert_eq!(one(r#"{"jsonrpc":"1.0","method":"m","id":null}"#).id, None);
    }

    #[test]
    fn nonsense_is_refused_with_the_right_code() {
        for line in [
            "",
            "x",
            "{",
            "{}}",
            "[1",
            "\"a",
            "{\"id\":01}",
            "{\"a\":\"\t\"}",
            "nul",
            "[1,]",
        ] {
            assert_eq!(refused(line), Refusal::Parse, "{line}");
        }
        assert_eq!(parse(b"{\"id\":\"\xff\"}", 10).unwrap_err(), Refusal::Parse);
        for line in [
            "[]",
            " [ ] ",
            "1",
            "null",
            "\"text\"",
            "{}",
            r#"{"method":1}"#,
            r#"{"id":1}"#,
            r#"{"method":"m","params":1}"#,
            r#"{"method":"m","params":"a"}"#,
            r#"{"id":1,"id":2,"method":"m"}"#,
            r#"{"method":"m","method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":2}"#,
        ] {
            assert!(matches!(refused(line), Refusal::Request(_)), "{line}");
        }
    }

    #[test]
    fn an_unreadable_request_is_told_with_its_own_id() {
        let raw: &RawValue = serde_json::from_str(r#"{"id":"x","method":1}"#).unwrap();
        assert_eq!(Request::parse(raw).unwrap_err().id, Some("\"x\""));
    }

    #[test]
    fn deep_nesting_is_read_without_depth() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(
            matches!(parse(deep.as_bytes(), 10), Ok(Message::Batch(members)) if members.len() == 1)
        );
        let line = format!("{{\"id\":1,\"method\":\"m\",\"params\":{deep},\"x\":{deep}}}");
        assert_eq!(one(&line).params.unwrap().get(), deep);
        let open = "[".repeat(200_000);
        assert_eq!(parse(open.as_bytes(), 10).unwrap_err(), Refusal::Parse);
    }

    #[test]
    fn a_batch_over_the_limit_is_no_method_and_no_internal_error() {
        let batch = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        assert!(parse(batch(10).as_bytes(), 10).is_ok());
        assert!(matches!(
            parse(batch(11).as_bytes(), 10),
            Err(Refusal::Bad(_))
        ));
    }

    #[test]
    fn an_id_never_breaks_a_line() {
        assert_eq!(one_line("[1,\r\n2]"), "[1,  2]");
        assert!(matches!(one_line("\"a\\n\""), Cow::Borrowed(_)));
    }
}
