//! Reads the parts of a certificate that podbeat shows: subject, issuer, names and validity. Pure
//! and bounded. The input is not trusted, because any server on a port may send any bytes.
//!
//! podbeat has its own reader for the five members that it shows. rustls verifies certificates, but
//! does not return the dates or names of a certificate that it accepts. x509-parser adds 120 KB to
//! the image's binary: three quarters of the size of the rest of this command. Nothing here decides
//! whether a certificate is valid; rustls does.

use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A certificate that expires within this time should have been renewed already. Certificates with
/// a lifetime of 90 days are usually renewed after 60 days.
pub const NEAR: SignedDuration = SignedDuration::from_hours(14 * 24);

/// The maximum number of characters shown for one part of a name.
const LONGEST: usize = 80;

/// The maximum number of parts in a name, and of names in a certificate.
const MOST: usize = 1000;

/// The contents of a certificate. podbeat does not verify them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The subject, such as `CN=ica.example.com`.
    pub subject: String,
    /// The issuer, according to the certificate.
    pub issuer: String,
    /// The start of the validity.
    pub not_before: Timestamp,
    /// The end of the validity.
    pub not_after: Timestamp,
    /// The DNS names and IP addresses of the server.
    pub names: Vec<String>,
    /// The key, as text, if its length alone makes every signature with it invalid. rustls reports
    /// such a signature as a bad one.
    pub weak_key: Option<String>,
}

// The tags of X.690 that certificates use (RFC 5280, 4.1).
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const BMP_STRING: u8 = 0x1e;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// 1.2.840.113549.1.1.1
const RSA_ENCRYPTION: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// 2.5.29.17
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];

/// Reads a certificate in DER. Returns `None` if the bytes are not a certificate.
#[must_use]
pub fn read(der: &[u8]) -> Option<Certificate> {
    let certificate = Der(der).content(SEQUENCE)?;
    let mut members = Der(Der(certificate).content(SEQUENCE)?);
    if members.0.first() == Some(&VERSION) {
        members.next()?;
    }
    members.content(INTEGER)?;
    // The algorithm of the signature.
    members.content(SEQUENCE)?;
    let issuer = name(members.content(SEQUENCE)?)?;
    let mut validity = Der(members.content(SEQUENCE)?);
    let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
    let subject = name(members.content(SEQUENCE)?)?;
    let weak_key = weak_key(members.content(SEQUENCE)?);
    let mut names = Vec::new();
    while let Some((tag, content)) = members.next() {
        if tag == EXTENSIONS {
            names = alternative_names(Der(content).content(SEQUENCE)?)?;
        }
    }
    Some(Certificate {
        subject,
        issuer,
        not_before,
        not_after,
        names,
        weak_key,
    })
}

/// Finds an RSA key in a `SubjectPublicKeyInfo` (RFC 8017, A.1.1) whose length ring does not
/// support.
fn weak_key(public_key: &[u8]) -> Option<String> {
    let mut members = Der(public_key);
    let algorithm = Der(members.content(SEQUENCE)?).content(OID)?;
    let (0, key) = members
        .content(BIT_STRING)?
        .split_first()
        .filter(|_| algorithm == RSA_ENCRYPTION)?
    else {
        return None;
    };
    let modulus = Der(Der(key).content(SEQUENCE)?).content(INTEGER)?;
    let bytes = modulus.len() - modulus.iter().take_while(|byte| **byte == 0).count();
    (!(256..=1024).contains(&bytes)).then(|| format!("RSA of {} bits", bytes * 8))
}

/// The bytes that are not read yet.
struct Der<'der>(&'der [u8]);

impl<'der> Der<'der> {
    /// Returns the tag and the content of the next element.
    fn next(&mut self) -> Option<(u8, &'der [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Up to 16 MiB, which is also the limit of a TLS handshake.
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = bytes
                    .iter()
                    .fold(0_usize, |length, byte| (length << 8) | usize::from(*byte));
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// Returns the content of the next element if it has this tag.
    fn content(&mut self, tag: u8) -> Option<&'der [u8]> {
        self.next()
            .and_then(|(found, content)| (found == tag).then_some(content))
    }
}

/// Formats a distinguished name in its original order, with the common attributes only.
fn name(der: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    let mut sets = Der(der);
    while let Some((tag, set)) = sets.next() {
        if tag != SET {
            return None;
        }
        let mut attributes = Der(set);
        while let Some(attribute) = attributes.content(SEQUENCE) {
            let mut attribute = Der(attribute);
            let kind = attribute.content(OID)?;
            let (tag, value) = attribute.next()?;
            let kind = match kind {
                [0x55, 0x04, 0x03] => "CN",
                [0x55, 0x04, 0x06] => "C",
                [0x55, 0x04, 0x0a] => "O",
                [0x55, 0x04, 0x0b] => "OU",
                _ => continue,
            };
            if parts.len() < MOST {
                parts.push(format!("{kind}={}", text(tag, value)));
            }
        }
    }
    Some(parts.join(", "))
}

fn text(tag: u8, value: &[u8]) -> String {
    let whole = match tag {
        BMP_STRING => {
            let units = value
                .as_chunks::<2>()
                .0
                .iter()
                .map(|pair| u16::from_be_bytes(*pair));
            char::decode_utf16(units)
                .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
                .take(LONGEST)
                .collect()
        }
        _ => String::from_utf8_lossy(value).into_owned(),
    };
    whole.chars().take(LONGEST).collect()
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280, 4.1.2.5).
fn time((tag, value): (u8, &[u8])) -> Option<Timestamp> {
    let digits = std::str::from_utf8(value).ok()?.strip_suffix('Z')?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year: i16 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let (pairs, []) = rest.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let number = |[tens, ones]: [u8; 2]| i8::try_from((tens - b'0') * 10 + (ones - b'0')).ok();
    let [month, day, hour, minute, second] = *<&[[u8; 2]; 5]>::try_from(pairs).ok()?;
    let (month, day) = (number(month)?, number(day)?);
    let time = DateTime::new(
        year,
        month,
        day,
        number(hour)?,
        number(minute)?,
        number(second)?,
        0,
    )
    .ok()?;
    // 99991231235959Z means no expiry. It is one day later than jiff's maximum.
    Some(TimeZone::UTC.to_timestamp(time).unwrap_or(Timestamp::MAX))
}

fn alternative_names(extensions: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut extensions = Der(extensions);
    while let Some(extension) = extensions.content(SEQUENCE) {
        let mut extension = Der(extension);
        if extension.content(OID)? != SUBJECT_ALT_NAME {
            continue;
        }
        // The flag `critical` may come first.
        let mut value = extension.next()?;
        if value.0 != OCTET_STRING {
            value = extension.next()?;
        }
        let mut general = Der(Der(value.1).content(SEQUENCE)?);
        while let Some((tag, value)) = general.next() {
            let name = match tag {
                DNS_NAME => Some(text(tag, value)),
                IP_ADDRESS => address(value),
                _ => None,
            };
            names.extend(name.filter(|_| names.len() < MOST));
        }
    }
    Some(names)
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).to_string());
    }
    let sixteen = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(sixteen).to_string())
}

#[cfg(test)]
mod tests {
    use podbeat_lab::pki::Authority;

    use super::*;

    fn der(names: &[&str]) -> Vec<u8> {
        let identity = Authority::new()
            .expect("an authority")
            .issue(names)
            .expect("issued");
        identity.certificate_der().to_vec()
    }

    #[test]
    fn whose_it_is_from_whom_for_what_and_how_long() {
        let certificate = read(&der(&["ica.example", "*.ica.example", "10.0.0.1", "::1"]))
            .expect("a certificate");
        assert_eq!(certificate.subject, "CN=ica.example");
        assert_eq!(certificate.issuer, "CN=podbeat lab");
        assert_eq!(
            certificate.names,
            ["ica.example", "*.ica.example", "10.0.0.1", "::1"]
        );
        let dates = (certificate.not_before, certificate.not_after);
        // The fixed dates of rcgen.
        assert_eq!(dates.0.to_string(), "1975-01-01T00:00:00Z");
        assert_eq!(dates.1.to_string(), "4096-01-01T00:00:00Z");
    }

    #[test]
    fn whatever_comes_is_read_or_is_none() {
        let whole = der(&["ica.example"]);
        for end in 0..whole.len() {
            assert_eq!(read(whole.get(..end).expect("a part")), None, "{end} bytes");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut other = whole.clone();
                *other.get_mut(at).expect("a byte") ^= 1 << bit;
                // Whether it is readable or not, the result must be within the bounds.
                if let Some(read) = read(&other) {
                    assert!(read.subject.len() < 4096 && read.names.len() < MOST);
                }
            }
        }
    }

    #[test]
    fn times_in_both_forms_and_for_ever() {
        let time = |tag, text: &str| time((tag, text.as_bytes())).map(|time| time.to_string());
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            time(UTC_TIME, "261125021845Z"),
            some("2026-11-25T02:18:45Z")
        );
        assert_eq!(
            time(UTC_TIME, "500101000000Z"),
            some("1950-01-01T00:00:00Z")
        );
        assert_eq!(
            time(GENERALIZED_TIME, "20500101000000Z"),
            some("2050-01-01T00:00:00Z")
        );
        assert_eq!(
            time(GENERALIZED_TIME, "99991231235959Z"),
            some(&Timestamp::MAX.to_string())
        );
        for odd in [
            "",
            "Z",
            "261325021845Z",
            "2611250218Z",
            "261125021845",
            "26112502184é",
        ] {
            assert_eq!(time(UTC_TIME, odd), None, "{odd}");
        }
        assert_eq!(time(INTEGER, "261125021845Z"), None);
    }

    #[test]
    fn names_in_the_strings_that_certificates_have() {
        assert_eq!(text(BMP_STRING, &[0, b'a', 0x30, 0x42, 0]), "aあ");
        assert_eq!(text(0x13, b"a\xff"), "a\u{fffd}");
        assert_eq!(
            text(0x0c, "é".repeat(200).as_bytes()).chars().count(),
            LONGEST
        );
    }
}
