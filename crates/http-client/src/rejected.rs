//! Explains TLS failures for which rustls has no readable text: certificates that ring can't verify
//! or that webpki rejects.
//!
//! rustls shows such an error as its `Debug` text, with object identifiers as lists of bytes. For
//! what ring and webpki accept, see <https://docs.rs/rustls-webpki> and `SUPPORTED_SIG_ALGS` of
//! rustls's ring provider.

use std::fmt;

use rustls::{AlertDescription, CertificateError, Error};

/// The accepted kinds of keys and signatures, for remedies.
pub const ACCEPTED: &str =
    "RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384 with SHA-256 or SHA-384, or Ed25519";

/// What is wrong with the peer's certificate, and how to fix it.
#[derive(Debug, thiserror::Error)]
#[error("{problem}; {remedy}")]
pub struct Rejected {
    /// What is wrong, as a clause.
    pub problem: String,
    /// What to do, in the imperative.
    pub remedy: String,
    /// The error of rustls. It is not a `source`, because its text would repeat the problem in
    /// bytes.
    pub error: Error,
}

impl Rejected {
    /// Returns `None` if the text of rustls is clear, or if the error is not about the peer's
    /// certificate.
    pub fn new(error: &Error) -> Option<Self> {
        let issue_again = || format!("issue the certificate again, with {ACCEPTED}");
        let (problem, remedy) = match error {
            Error::AlertReceived(AlertDescription::HandshakeFailure) => (
                "the server ended the TLS handshake (HandshakeFailure): it accepts nothing that podbeat offers".to_owned(),
                format!(
                    "give it a certificate whose key is accepted here ({ACCEPTED}; not P-521, Ed448 or DSA), and TLS 1.2 or 1.3 \
                     with ECDHE and AES-GCM or ChaCha20"
                ),
            ),
            Error::InvalidCertificate(certificate) => match certificate {
                CertificateError::UnsupportedSignatureAlgorithmContext {
                    signature_algorithm_id,
                    ..
                } => (
                    format!(
                        "a certificate of the chain is signed with {}, which is not supported",
                        Algorithm(signature_algorithm_id)
                    ),
                    issue_again(),
                ),
                CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                    signature_algorithm_id,
                    public_key_algorithm_id,
                } => (
                    format!(
                        "a certificate of the chain is signed with {} by a key of the kind {}, which is not supported",
                        Algorithm(signature_algorithm_id),
                        Algorithm(public_key_algorithm_id)
                    ),
                    issue_again(),
                ),
                CertificateError::BadSignature => (
                    "a certificate of the chain is not signed with the key of the CA of that name that is known here, or \
                     with an RSA key of fewer than 2048 bits"
                        .to_owned(),
                    format!("use the CA that issued it, and a CA with a key of these: {ACCEPTED}"),
                ),
                CertificateError::BadEncoding => (
                    "the certificate is not encoded as RFC 5280 demands".to_owned(),
                    issue_again(),
                ),
                CertificateError::Other(other) => other.0.downcast_ref().map(rejected_by_webpki)?,
                _ => return None,
            },
            _ => return None,
        };
        Some(Self {
            problem,
            remedy,
            error: error.clone(),
        })
    }
}

/// Errors of webpki that rustls forwards unchanged.
fn rejected_by_webpki(error: &webpki::Error) -> (String, String) {
    let (problem, remedy) = match error {
        webpki::Error::CaUsedAsEndEntity => (
            "the server's certificate is a CA's (basicConstraints CA:TRUE)",
            "issue a certificate for the server with that CA, without CA:TRUE, and trust the CA",
        ),
        webpki::Error::EndEntityUsedAsCa => (
            "a certificate of the chain was issued by one that is not a CA's (basicConstraints without CA:TRUE)",
            "issue it with a CA, or send the right intermediate certificates",
        ),
        webpki::Error::UnsupportedCertVersion => (
            "a certificate of the chain is of X.509 version 1 or 2",
            "issue it again as version 3, with the server's names in subjectAltName",
        ),
        webpki::Error::UnsupportedCriticalExtension => (
            "a certificate of the chain has a critical extension that is not supported",
            "issue it again without that extension, or without marking it as critical",
        ),
        webpki::Error::NameConstraintViolation => (
            "a CA of the chain may not issue certificates for this name (nameConstraints)",
            "issue it with a CA that may, or for a name that the CA may issue for",
        ),
        webpki::Error::PathLenConstraintViolated => (
            "the chain has more intermediate CAs than one of its CAs allows (pathLenConstraint)",
            "issue the certificate with a CA nearer to the root",
        ),
        webpki::Error::InvalidSerialNumber => (
            "a certificate of the chain has a serial number that is negative or longer than 20 bytes",
            "issue it again with a positive serial number of at most 20 bytes (RFC 5280, 4.1.2.2)",
        ),
        other => {
            let problem = format!("a certificate of the chain is rejected ({other:?})");
            return (problem, "issue it again as RFC 5280 demands".to_owned());
        }
    };
    (problem.to_owned(), remedy.to_owned())
}

/// An X.509 `AlgorithmIdentifier` without its outer tag and length. `Display` shows the algorithm
/// and, if the parameters are an object identifier, the parameters (the curve of an elliptic key).
pub struct Algorithm<'der>(pub &'der [u8]);

/// Object identifiers in DER, and their common names (RFC 3279, RFC 4055, RFC 5480, RFC 5758, RFC
/// 8410).
const NAMES: [(&[u8], &str); 19] = [
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01", "RSA"),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04", "RSA with MD5"),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", "RSA with SHA-1"),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a", "RSA-PSS"),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", "RSA with SHA-256"),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", "RSA with SHA-384"),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", "RSA with SHA-512"),
    (b"\x2a\x86\x48\xce\x38\x04\x01", "DSA"),
    (b"\x2a\x86\x48\xce\x3d\x02\x01", "ECDSA"),
    (b"\x2a\x86\x48\xce\x3d\x03\x01\x07", "P-256"),
    (b"\x2b\x81\x04\x00\x22", "P-384"),
    (b"\x2b\x81\x04\x00\x23", "P-521"),
    (b"\x2b\x81\x04\x00\x0a", "secp256k1"),
    (b"\x2a\x86\x48\xce\x3d\x04\x01", "ECDSA with SHA-1"),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x02", "ECDSA with SHA-256"),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x03", "ECDSA with SHA-384"),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x04", "ECDSA with SHA-512"),
    (b"\x2b\x65\x70", "Ed25519"),
    (b"\x2b\x65\x71", "Ed448"),
];

impl fmt::Display for Algorithm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut separator = "";
        while let [0x06, length, after @ ..] = rest
            && let Some((identifier, after)) = after.split_at_checked(usize::from(*length))
        {
            f.write_str(separator)?;
            match NAMES.iter().find(|(known, _)| *known == identifier) {
                Some((_, name)) => f.write_str(name)?,
                None => dotted(identifier, f)?,
            }
            separator = " on ";
            rest = after;
        }
        match separator {
            "" => f.write_str("an algorithm that can't be read"),
            _ => Ok(()),
        }
    }
}

/// Writes an object identifier in dotted form, such as `1.2.840.10045.4.3.4` (X.690, 8.19).
fn dotted(identifier: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut first = true;
    let mut arc: u64 = 0;
    for byte in identifier {
        arc = (arc << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if first {
            let root = (arc / 40).min(2);
            write!(f, "{root}.{}", arc - root * 40)?;
        } else {
            write!(f, ".{arc}")?;
        }
        (first, arc) = (false, 0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_by_name_or_by_their_numbers() {
        for (der, shown) in [
            (
                b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04".as_slice(),
                "ECDSA with SHA-512",
            ),
            (
                b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23",
                "ECDSA on P-521",
            ),
            // With NULL parameters, as for RSA.
            (
                b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05\x05\x00",
                "RSA with SHA-1",
            ),
            // From FIPS 204.
            (
                b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x12",
                "2.16.840.1.101.3.4.3.18",
            ),
            (b"\x06\x09\x2a", "an algorithm that can't be read"),
            (b"", "an algorithm that can't be read"),
        ] {
            assert_eq!(Algorithm(der).to_string(), shown);
        }
        let longest = [[0x06, 0xff].as_slice(), &[0xff; 0xff]].concat();
        assert!(Algorithm(&longest).to_string().len() < 600);
    }
}
