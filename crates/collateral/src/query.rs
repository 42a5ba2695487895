//! The query of a request's target (*RFC 3986 §3.4*), and percent-encoding.

use crate::Problem;
use std::fmt::Write;

/// Parameters: names and values, percent-decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `NAME=VALUE&…`. Only the first `=` divides, for clients do not encode the ones
    /// in addresses.
    ///
    /// # Errors
    /// Bad percent-encoding, or a name twice: who knows which one is meant?
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if parameters.iter().any(|(known, _)| *known == name) {
                return Err(Problem::bad(format!("the parameter {name:?} is there twice")));
            }
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// The value of a parameter, if it is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// `%XX` as the bytes they stand for.
fn decode(text: &str) -> Result<String, Problem> {
    let bad = || Problem::bad(format!("{text:?} is not percent-encoded text of UTF-8"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
                (high << 4 | low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

/// Text as it can stand in a header field, as the services encode chains of certificates:
/// all but unreserved characters as `%XX`.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 5 / 4);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_what_is_none() {
        let query = Query::parse("a=1&b=https://x/y?z=1&c&&d=%41%c3%A4+").unwrap();
        for (name, value) in [("a", "1"), ("b", "https://x/y?z=1"), ("c", ""), ("d", "Aä+")] {
            assert_eq!(query.get(name), Some(value));
        }
        assert_eq!(query.get("e"), None);
        for bad in ["a=%", "a=%4", "a=%4g", "a=%+1", "a=%ff", "%=1", "a=1&a=1", "a=1&%61=2"] {
            assert_eq!(Query::parse(bad).unwrap_err().status, 400, "{bad}");
        }
    }

    #[test]
    fn encoded_text_is_the_same_when_decoded() {
        let text = "-----BEGIN CERTIFICATE-----\nA+/=~ä\n";
        let encoded = encode(text);
        assert!(encoded.starts_with("-----BEGIN%20CERTIFICATE-----%0AA%2B%2F%3D~%C3%A4%0A"), "{encoded}");
        assert_eq!(decode(&encoded).unwrap(), text);
    }
}
