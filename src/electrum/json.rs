//! JSON written straight into the output.

use bitcoin::Txid;

const HEX_PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Bytes as hexadecimal digits, without quotes.
pub fn hex_digits(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.extend_from_slice(&HEX_PAIRS[usize::from(*byte)]);
    }
}

/// Bytes as a hexadecimal string.
pub fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    hex_digits(out, bytes);
    out.push(b'"');
}

/// A hash as it is shown: reversed.
pub fn hash(out: &mut Vec<u8>, internal: &[u8; 32]) {
    let mut shown = [0; 66];
    shown[0] = b'"';
    shown[65] = b'"';
    for (digits, byte) in shown[1..65].chunks_exact_mut(2).zip(internal.iter().rev()) {
        digits.copy_from_slice(&HEX_PAIRS[usize::from(*byte)]);
    }
    out.extend_from_slice(&shown);
}

pub fn txid(out: &mut Vec<u8>, txid: &Txid) {
    hash(out, txid.as_ref());
}

/// An array of hashes, each shown reversed.
pub fn hashes(out: &mut Vec<u8>, list: &[[u8; 32]]) {
    array(out, list, hash);
}

pub fn array<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

pub fn integer(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A floating point number; one that JSON cannot say is null.
pub fn float(out: &mut Vec<u8>, number: f64) {
    serde(out, &number);
}

/// A string, escaped.
pub fn text(out: &mut Vec<u8>, text: &str) {
    serde(out, text);
}

pub fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Anything that serde can write.
pub fn serde<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let mark = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(mark);
        out.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hashes_are_shown_reversed_and_bytes_are_not() {
        let mut internal = [0; 32];
        internal[0] = 0xab;
        let shown = written(|out| hash(out, &internal));
        assert_eq!(shown, format!("\"{}ab\"", "0".repeat(62)));
        assert_eq!(written(|out| hex(out, &[0xab, 0x01])), "\"ab01\"");
    }

    #[test]
    fn numbers_and_text_are_json() {
        assert_eq!(written(|out| integer(out, -1i64)), "-1");
        assert_eq!(written(|out| integer(out, u64::MAX)), u64::MAX.to_string());
        assert_eq!(written(|out| float(out, 0.00001)).parse(), Ok(0.00001));
        assert_eq!(written(|out| float(out, f64::NAN)), "null");
        assert_eq!(written(|out| text(out, "a\"\n\u{1}")), r#""a\"\n\u0001""#);
        assert_eq!(
            written(|out| array(out, &[1u8, 2], |out, n| integer(out, *n))),
            "[1,2]"
        );
    }
}
