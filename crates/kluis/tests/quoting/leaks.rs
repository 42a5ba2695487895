//! Looking for secrets in what programs say: 8 bytes of them are too many, as they are or
//! written in hexadecimal, in base64 or as a list of numbers.

use std::collections::HashMap;

/// Bytes of a secret that nobody may say.
const WINDOW: usize = 8;
/// Characters that may stand between the digits of one secret.
const SEPARATORS: &[u8] = b" :,-_\t\r\n[]";

/// Secrets, by name.
#[derive(Default)]
pub(crate) struct Secrets {
    windows: HashMap<[u8; WINDOW], String>,
}

impl Secrets {
    /// Adds one. Parts of it that say nothing (zeros) are none.
    pub(crate) fn add(&mut self, name: &str, secret: &[u8]) {
        assert!(secret.len() >= WINDOW, "{name} is shorter than what is looked for");
        for window in secret.windows(WINDOW) {
            let window: [u8; WINDOW] = window.try_into().unwrap();
            if window.iter().any(|byte| *byte != window[0]) {
                self.windows.entry(window).or_insert_with(|| name.to_owned());
            }
        }
    }

    /// How many windows there are.
    pub(crate) fn len(&self) -> usize {
        self.windows.len()
    }

    /// The secrets of which something was said, each with how.
    pub(crate) fn said_in(&self, text: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        let mut look = |bytes: &[u8], how: &str| {
            for window in bytes.windows(WINDOW) {
                if let Some(name) = self.windows.get(window) {
                    found.push(format!("{name}, {how}"));
                }
            }
        };
        look(text, "as it is");
        for reading in hexadecimal(text) {
            look(&reading, "in hexadecimal");
        }
        for reading in base64(text) {
            look(&reading, "in base64");
        }
        look(&numbers(text), "as numbers");
        found.sort();
        found.dedup();
        found
    }
}

/// Runs of digits of an alphabet, without what may stand between them.
fn runs(text: &[u8], digit: impl Fn(u8) -> Option<u8>, between: &[u8]) -> Vec<Vec<u8>> {
    let mut runs = vec![Vec::new()];
    for &byte in text {
        match digit(byte) {
            Some(value) => runs.last_mut().unwrap().push(value),
            None if between.contains(&byte) => {}
            None if runs.last().unwrap().is_empty() => {}
            None => runs.push(Vec::new()),
        }
    }
    runs
}

/// All ways to read text as hexadecimal digits.
fn hexadecimal(text: &[u8]) -> Vec<Vec<u8>> {
    // `0xab` is `ab`
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, others @ ..] = rest {
        if let [b'0', b'x' | b'X', after @ ..] = rest {
            rest = after;
        } else {
            plain.push(*first);
            rest = others;
        }
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|value| value as u8);
    let mut readings = Vec::new();
    for run in runs(&plain, digit, SEPARATORS) {
        for start in 0..2.min(run.len()) {
            readings.push(run[start..].chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect());
        }
    }
    readings
}

/// All ways to read text as base64 of either alphabet, also in the middle of one.
fn base64(text: &[u8]) -> Vec<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    };
    let mut readings = Vec::new();
    // with lines that are broken, and each by itself
    for between in [&b"\r\n"[..], b""] {
        for run in runs(text, digit, between) {
            for start in 0..4.min(run.len()) {
                let bytes = run[start..].chunks_exact(4).flat_map(|four| {
                    let bits = four.iter().fold(0u32, |bits, value| bits << 6 | u32::from(*value));
                    bits.to_be_bytes()[1..].to_vec()
                });
                readings.push(bytes.collect());
            }
        }
    }
    readings
}

/// All numbers below 256, as `{:?}` writes bytes.
fn numbers(text: &[u8]) -> Vec<u8> {
    let words = text.split(|byte| !byte.is_ascii_digit()).filter(|word| !word.is_empty());
    words.filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [
        0xc9, 0xaf, 0xa9, 0xd8, 0x45, 0xba, 0x75, 0x16, 0x6b, 0x5c, 0x21, 0x57, 0x67, 0xb1, 0xd6, 0x93, 0x4e,
        0x50, 0xc3, 0xdb, 0x36, 0xe8, 0x9b, 0x12, 0x7b, 0x8a, 0x62, 0x2b, 0x12, 0x0f, 0x67, 0x21,
    ];

    /// Python's and OpenSSL's ways to write it, or 8 and more bytes of it.
    #[test]
    fn secrets_are_found_however_they_are_said() {
        let mut secrets = Secrets::default();
        secrets.add("secret", &SECRET);
        assert_eq!(secrets.len(), 25);
        let raw = [b"said: ", &SECRET[5..13], b"."].concat();
        for (text, how) in [
            (raw.as_slice(), "as it is"),
            (b"key=d845ba75166b5c21 and more", "in hexadecimal"),
            (b"key=D8:45:BA:75:16:6B:5C:21", "in hexadecimal"),
            (b"[0xd8, 0x45, 0xba, 0x75, 0x16, 0x6b, 0x5c, 0x21]", "in hexadecimal"),
            (b"[d8, 45, ba, 75, 16, 6b, 5c, 21]", "in hexadecimal"),
            (b"ya+p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyE=", "in base64"),
            (b"ya-p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyE", "in base64"),
            // in the middle, and at other places of three bytes
            (b"xxRbp1FmtcIVdnsdaTTlDD2zbomxJ7imIrEg9nIQ", "in base64"),
            (b"AMmvqdhFunUWa1whV2ex1pNOUMPb", "in base64"),
            (b"AADJr6nYRbp1Fmtc\nIVdnsdaTTlDD2zbo", "in base64"),
            (b"Key([216, 69, 186, 117, 22, 107, 92, 33])", "as numbers"),
            (
                b"Key([\n    216,\n    69,\n    186,\n    117,\n    22,\n    107,\n    92,\n    33,\n])",
                "as numbers",
            ),
        ] {
            let said = secrets.said_in(text);
            assert!(said.contains(&format!("secret, {how}")), "{}: {said:?}", String::from_utf8_lossy(text));
        }
        for harmless in [&b""[..], b"d845ba75166b5c and others", b"2EW6dRZr", &SECRET[..7]] {
            assert_eq!(secrets.said_in(harmless), Vec::<String>::new());
        }
    }

    #[test]
    fn zeros_are_no_secret() {
        let mut secrets = Secrets::default();
        secrets.add("key", &[0; 32]);
        assert_eq!((secrets.len(), secrets.said_in(&[0; 64])), (0, vec![]));
    }
}
