//! CBOR, as much of it as evidence has (*RFC 8949 §3*): unsigned integers, strings, arrays,
//! maps and tags, each of definite length and with the shortest head.

use alloc::vec::Vec;

/// Major types (*RFC 8949 §3.1*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Major {
    /// A number, not negative.
    Unsigned = 0,
    /// Bytes.
    Bytes = 2,
    /// Text in UTF-8.
    Text = 3,
    /// Items.
    Array = 4,
    /// Pairs of items.
    Map = 5,
    /// An item with a number that says what it is.
    Tag = 6,
}

/// Appends a head: what follows, and its number, length or count.
pub fn head(to: &mut Vec<u8>, major: Major, number: u64) {
    let major = (major as u8) << 5;
    let bytes = number.to_be_bytes();
    match number {
        0..24 => to.push(major | number as u8),
        24..0x100 => to.extend([major | 24, number as u8]),
        0x100..0x1_0000 => {
            to.push(major | 25);
            to.extend(&bytes[6..]);
        }
        0x1_0000..0x1_0000_0000 => {
            to.push(major | 26);
            to.extend(&bytes[4..]);
        }
        _ => {
            to.push(major | 27);
            to.extend(bytes);
        }
    }
}

/// Appends a string of this type.
pub fn string(to: &mut Vec<u8>, major: Major, content: &[u8]) {
    head(to, major, content.len() as u64);
    to.extend(content);
}

/// Reads items, one after another, from bytes that anybody may have written.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the first byte on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The number of a head of this type. `None` if there is none, or in a longer form than
    /// it takes.
    pub fn head(&mut self, major: Major) -> Option<u64> {
        let (&first, mut rest) = self.0.split_first()?;
        if first >> 5 != major as u8 {
            return None;
        }
        let number = match first & 31 {
            short @ 0..24 => u64::from(short),
            long @ 24..28 => {
                let size = 1 << (long - 24);
                let (bytes, after) = rest.split_at_checked(size)?;
                rest = after;
                let number = bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
                // the shortest form: 24 and more after one byte, else more than half as many hold
                let least = if size == 1 { 24 } else { 1 << (4 * size) };
                (number >= least).then_some(number)?
            }
            _ => return None,
        };
        self.0 = rest;
        Some(number)
    }

    /// A string of this type.
    pub fn string(&mut self, major: Major) -> Option<&'a [u8]> {
        let length = usize::try_from(self.head(major)?).ok()?;
        let (content, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }

    /// Whether all was read.
    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// *RFC 8949*, appendix A.
    #[test]
    fn heads_are_those_of_the_rfc() {
        for (number, encoded) in [
            (0, &[0x00][..]),
            (23, &[0x17]),
            (24, &[0x18, 0x18]),
            (100, &[0x18, 0x64]),
            (1000, &[0x19, 0x03, 0xe8]),
            (1_000_000, &[0x1a, 0x00, 0x0f, 0x42, 0x40]),
            (u64::MAX, &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ] {
            let mut bytes = Vec::new();
            head(&mut bytes, Major::Unsigned, number);
            assert_eq!(bytes, encoded);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.head(Major::Unsigned), Some(number));
            assert!(reader.is_at_end());
            assert_eq!(Reader::new(&bytes).head(Major::Bytes), None);
            for cut in 0..bytes.len() {
                assert_eq!(Reader::new(&bytes[..cut]).head(Major::Unsigned), None);
            }
        }
        let mut text = Vec::new();
        string(&mut text, Major::Text, b"IETF");
        assert_eq!(text, [0x64, 0x49, 0x45, 0x54, 0x46]);
        assert_eq!(Reader::new(&text).string(Major::Text), Some(&b"IETF"[..]));
        assert_eq!(Reader::new(&text[..4]).string(Major::Text), None);
    }

    #[test]
    fn longer_forms_and_those_without_a_length_are_refused() {
        let eight = |last: [u8; 8]| [&[0x1b][..], &last].concat();
        for bytes in [
            vec![0x18, 23],
            vec![0x19, 0, 255],
            vec![0x1a, 0, 0, 255, 255],
            eight([0, 0, 0, 0, 255, 255, 255, 255]),
            vec![0x1c],
            vec![0x1f],
        ] {
            assert_eq!(Reader::new(&bytes).head(Major::Unsigned), None, "{bytes:?}");
        }
        for bytes in [&[0x5f, 0x41, 0, 0xff][..], &[0x5b, 255, 255, 255, 255, 255, 255, 255, 255, 0]] {
            assert_eq!(Reader::new(bytes).string(Major::Bytes), None);
        }
    }
}
