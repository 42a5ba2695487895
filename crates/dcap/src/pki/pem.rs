//! Chains of certificates as text (*RFC 7468*).

use der::pem::{self, LineEnding};

use crate::error::{Refusal, Rule, refuse};

/// The longest chain that is read, in bytes.
pub const MAX_CHAIN_SIZE: usize = 64 << 10;
/// The most certificates that are read; no chain here has more than three.
const MAX_CERTIFICATES: usize = 8;
const LABEL: &str = "CERTIFICATE";
const CRL_LABEL: &str = "X509 CRL";
const END: &str = "-----END CERTIFICATE-----";

/// The certificates of a chain in its order, as DER. Quotes end it with a NUL.
pub fn certificates_from_pem(text: &[u8], what: &str) -> Result<Vec<Vec<u8>>, Refusal> {
    if text.len() > MAX_CHAIN_SIZE {
        let says = format!("has {} bytes; {MAX_CHAIN_SIZE} are the most", text.len());
        return refuse(Rule::Oversized, what, says);
    }
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    let Ok(mut rest) = std::str::from_utf8(text) else {
        return refuse(Rule::Encoding, what, "is not text (PEM)");
    };
    let mut certificates = Vec::new();
    while !rest.trim_ascii_start().is_empty() {
        rest = rest.trim_ascii_start();
        if certificates.len() == MAX_CERTIFICATES {
            return refuse(Rule::Oversized, what, format!("has more than {MAX_CERTIFICATES} certificates"));
        }
        let Some(end) = rest.find(END) else {
            return refuse(Rule::Encoding, what, format!("has no \"{END}\" where one must follow"));
        };
        let (one, after) = rest.split_at(end + END.len());
        match pem::decode_vec(one.as_bytes()) {
            Ok((LABEL, der)) => certificates.push(der),
            Ok((label, _)) => return refuse(Rule::Encoding, what, format!("holds a \"{label}\"")),
            Err(error) => return refuse(Rule::Encoding, what, format!("is no PEM: {error}")),
        }
        rest = after;
    }
    Ok(certificates)
}

/// Certificates in DER as a chain of text.
pub fn to_pem<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> String {
    let one = |der| pem::encode_string(LABEL, LineEnding::LF, der).expect("lines of known length");
    certificates.into_iter().map(one).collect()
}

/// A revocation list in DER as text.
pub fn crl_to_pem(der: &[u8]) -> String {
    pem::encode_string(CRL_LABEL, LineEnding::LF, der).expect("lines of known length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_and_what_is_none() {
        let ders: [&[u8]; 3] = [&[1; 100], &[2; 48], &[3; 1]];
        let mut text = to_pem(ders);
        assert_eq!(certificates_from_pem(text.as_bytes(), "chain").unwrap(), ders);
        text.push('\0');
        assert_eq!(certificates_from_pem(text.as_bytes(), "chain").unwrap(), ders);
        let crlf = text.replace('\n', "\r\n");
        assert_eq!(certificates_from_pem(crlf.as_bytes(), "chain").unwrap(), ders);
        assert!(certificates_from_pem(b" \n", "chain").unwrap().is_empty());
        for bad in
            ["x", "-----BEGIN CERTIFICATE-----\n", &text.replace("CERT", "KERT"), &(text.clone() + "y")]
        {
            assert_eq!(
                certificates_from_pem(bad.as_bytes(), "chain").unwrap_err().rule,
                Rule::Encoding,
                "{bad}"
            );
        }
        assert_eq!(certificates_from_pem(b"\xff", "chain").unwrap_err().rule, Rule::Encoding);
        let many = to_pem([&[1u8][..]; 9]);
        assert_eq!(certificates_from_pem(many.as_bytes(), "chain").unwrap_err().rule, Rule::Oversized);
        assert_eq!(
            certificates_from_pem(&[b' '; (64 << 10) + 1], "chain").unwrap_err().rule,
            Rule::Oversized
        );
    }
}
