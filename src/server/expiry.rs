//! When a certificate is valid: the one thing that is read of it.

use std::time::{Duration, SystemTime};

/// From when and until when a certificate is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from: Expiry,
    pub until: Expiry,
}

/// An end of a certificate's validity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub at: SystemTime,
    /// As `2027-03-01`.
    pub date: String,
}

/// Of a certificate's DER bytes; `None` where they are not what RFC 5280, section 4.1, says.
pub(super) fn validity(certificate: &[u8]) -> Option<Validity> {
    const INTEGER: u8 = 0x02;
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate, SEQUENCE)?;
    let (_, mut fields, _) = element(certificate, SEQUENCE)?;
    if let Some((_, _, rest)) = element(fields, VERSION) {
        fields = rest;
    }
    // Serial number, signature algorithm, issuer; then the validity.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        fields = element(fields, tag)?.2;
    }
    let (_, validity, _) = element(fields, SEQUENCE)?;
    let (tag, from, rest) = any_element(validity)?;
    let from = moment(tag, std::str::from_utf8(from).ok()?)?;
    let (tag, until, _) = any_element(rest)?;
    let until = moment(tag, std::str::from_utf8(until).ok()?)?;
    Some(Validity { from, until })
}

/// Tag, content, and what follows.
type Element<'a> = (u8, &'a [u8], &'a [u8]);

fn element(bytes: &[u8], wanted: u8) -> Option<Element<'_>> {
    any_element(bytes).filter(|(tag, _, _)| *tag == wanted)
}

/// X.690, section 8.1: a tag of one byte, a definite length.
fn any_element(bytes: &[u8]) -> Option<Element<'_>> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let len = digits
                .iter()
                .fold(0, |len, digit| len << 8 | usize::from(*digit));
            (len, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// RFC 5280, section 4.1.2.5: `YYMMDDHHMMSSZ` until 2049, `YYYYMMDDHHMMSSZ` from then on.
fn moment(tag: u8, text: &str) -> Option<Expiry> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let text = text.strip_suffix('Z')?;
    let number = |from: usize, len: usize| text.get(from..from + len)?.parse::<u64>().ok();
    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 12) => (
            number(0, 2).map(|year| 1900 + year + 100 * u64::from(year < 50))?,
            2,
        ),
        (GENERALIZED_TIME, 14) => (number(0, 4)?, 4),
        _ => return None,
    };
    let part = |at: usize| number(rest + 2 * at, 2);
    let (month, day) = (part(0)?, part(1)?);
    let seconds = part(2)? * 3600 + part(3)? * 60 + part(4)?;
    let days = days_since_1970(year, month, day)?;
    Some(Expiry {
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400 + seconds),
        date: format!("{year:04}-{month:02}-{day:02}"),
    })
}

fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let february = 28 + u64::from(is_leap(year));
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    if year < 1970 || !(1..=12).contains(&month) {
        return None;
    }
    let years: u64 = (1970..year)
        .map(|year| 365 + u64::from(is_leap(year)))
        .sum();
    let before: u64 = months.iter().take(month as usize - 1).sum();
    Some(years + before + day.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(expiry: &Expiry) -> u64 {
        let since = expiry.at.duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap().as_secs()
    }

    #[test]
    fn the_ends_of_a_certificates_time_are_read_in_both_forms() {
        for (year, date, unix) in [
            (2027, "2027-03-01", 1_803_859_200),
            // From 2050 on in the other form.
            (2052, "2052-03-01", 2_592_864_000),
        ] {
            let mut parameters = rcgen::CertificateParams::new(vec!["host".to_owned()]).unwrap();
            parameters.not_before = rcgen::date_time_ymd(year - 1, 3, 1);
            parameters.not_after = rcgen::date_time_ymd(year, 3, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = parameters.self_signed(&key).unwrap();
            let Validity { from, until } = validity(certificate.der()).unwrap();
            assert_eq!(until.date, date);
            assert_eq!(seconds(&until), unix);
            assert_eq!(from.date, format!("{}-03-01", year - 1));
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_have_no_end() {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let bytes = certificate.der();
        assert!(validity(bytes).is_some());
        for len in 0..60 {
            assert_eq!(validity(&bytes[..len]), None, "{len}");
        }
        assert_eq!(validity(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
