//! Hexadecimal digits.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

use crate::error::{Refusal, Rule};

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Bytes as lower-case digits.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|&b| [b >> 4, b & 15]).map(|n| char::from(DIGITS[usize::from(n)])).collect()
}

/// Digits of either case as bytes.
pub fn decode(text: &str, field: &str) -> Result<Vec<u8>, Refusal> {
    let digit = |c: u8| char::from(c).to_digit(16);
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some((digit(*high)? << 4 | digit(*low)?) as u8),
        _ => None,
    });
    pairs.collect::<Option<_>>().ok_or_else(|| Refusal::new(Rule::Encoding, field, "is not hexadecimal"))
}

/// Exactly `N` bytes.
pub fn decode_array<const N: usize>(text: &str, field: &str) -> Result<[u8; N], Refusal> {
    decode(text, field)?.try_into().map_err(|bytes: Vec<u8>| {
        Refusal::new(Rule::Encoding, field, format!("is of {} bytes; {N} are needed", bytes.len()))
    })
}

/// For `#[serde(with)]` on arrays of bytes, written in upper case as Intel's collateral is.
pub(crate) mod array {
    use super::*;

    pub(crate) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&encode(bytes).to_ascii_uppercase())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        from: D,
    ) -> Result<[u8; N], D::Error> {
        decode_array(&String::deserialize(from)?, "hexadecimal value").map_err(|e| D::Error::custom(e.what))
    }
}

/// For `#[serde(with)]` on byte strings, written in lower case.
pub(crate) mod bytes {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        decode(&String::deserialize(from)?, "hexadecimal value").map_err(|e| D::Error::custom(e.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_bad_digits() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all), "x").unwrap(), all);
        assert_eq!(decode("aBCd", "x").unwrap(), [0xab, 0xcd]);
        for bad in ["a", "abc", "0x", "+1", "ää", " 1"] {
            assert!(decode(bad, "x").is_err(), "{bad}");
        }
        assert!(decode_array::<2>("abcdef", "x").is_err());
    }
}
