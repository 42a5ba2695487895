//! Evidence in a certificate, as *Interoperable RA-TLS* of the Confidential Computing
//! Consortium has it (*X.509 Cert and Evidence Formats*; *SGX / TDX Evidence Formats*).
//!
//! ```text
//! extension 2.23.133.5.4.9 (tcg-dice-tagged-evidence):
//!     60000([ quote, claims ])
//! claims, a byte string that holds
//!     { "pubkey-hash": bytes of [ 1, SHA-256 of SubjectPublicKeyInfo ],  ? "nonce": bytes }
//! REPORTDATA in the quote:
//!     SHA-256 of claims, then 32 zeros
//! ```
//!
//! Before it there was the quote alone, as Gramine has it: extension
//! 1.2.840.113741.1337.6, REPORTDATA the SHA-256 of SubjectPublicKeyInfo and 32 zeros.

use alloc::vec::Vec;

use der::asn1::ObjectIdentifier;
use sha2::{Digest, Sha256};

use crate::cbor::{Major, Reader, head, string};

/// The extension of the interoperable format.
pub const EVIDENCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.5.4.9");
/// The extension of the older one, which is the quote as it is.
pub const LEGACY_QUOTE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1337.6");
/// The tag of an array of a quote of an Intel TEE and claims (*IANA, CBOR Tags*).
pub const QUOTE_TAG: u64 = 60_000;

/// Most claims that are read; two have a meaning.
const MAX_CLAIMS: u64 = 32;
const PUBKEY_HASH: &[u8] = b"pubkey-hash";
const NONCE: &[u8] = b"nonce";

/// Hash algorithms of a `pubkey-hash` (*IANA, Named Information Hash Algorithm Registry*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// SHA-256.
    Sha256 = 1,
    /// SHA-384.
    Sha384 = 7,
    /// SHA-512.
    Sha512 = 8,
}

/// What the enclave says beside its quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// By which algorithm the key is hashed.
    pub algorithm: HashAlgorithm,
    /// The hash of the certificate's SubjectPublicKeyInfo in DER.
    pub key_hash: Vec<u8>,
    /// What a client wanted to see, of any length.
    pub nonce: Option<Vec<u8>>,
}

/// The two parts of evidence, as they stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence<'a> {
    /// The quote.
    pub quote: &'a [u8],
    /// What its REPORTDATA is the hash of; [`Claims::read`] reads it.
    pub claims: &'a [u8],
}

/// Evidence or claims that are not encoded as they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for Malformed {}

impl Claims {
    /// That this is the certificate's key, in DER.
    pub fn of_key(spki: &[u8], nonce: Option<Vec<u8>>) -> Self {
        Self { algorithm: HashAlgorithm::Sha256, key_hash: Sha256::digest(spki).to_vec(), nonce }
    }

    /// The map.
    pub fn write(&self) -> Vec<u8> {
        let mut hash = Vec::new();
        head(&mut hash, Major::Array, 2);
        head(&mut hash, Major::Unsigned, self.algorithm as u64);
        string(&mut hash, Major::Bytes, &self.key_hash);
        let mut map = Vec::new();
        head(&mut map, Major::Map, 1 + u64::from(self.nonce.is_some()));
        string(&mut map, Major::Text, PUBKEY_HASH);
        string(&mut map, Major::Bytes, &hash);
        if let Some(nonce) = &self.nonce {
            string(&mut map, Major::Text, NONCE);
            string(&mut map, Major::Bytes, nonce);
        }
        map
    }

    /// Reads the map. Claims of other names are passed over, as the format asks.
    ///
    /// # Errors
    /// It is no map of that kind, has a claim twice, or no hash of a key.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut map = Reader::new(bytes);
        let count = map.head(Major::Map).ok_or(Malformed("the claims are no map of definite length"))?;
        if count > MAX_CLAIMS {
            return Err(Malformed("there are more than 32 claims"));
        }
        let (mut key, mut nonce) = (None, None);
        for _ in 0..count {
            let name = map.string(Major::Text).ok_or(Malformed("a claim's name is no text"))?;
            let value = map.string(Major::Bytes).ok_or(Malformed("a claim's value is no byte string"))?;
            let known = match name {
                PUBKEY_HASH => &mut key,
                NONCE => &mut nonce,
                _ => continue,
            };
            if known.replace(value).is_some() {
                return Err(Malformed("a claim is there twice"));
            }
        }
        if !map.is_at_end() {
            return Err(Malformed("something follows the claims"));
        }
        let (algorithm, key_hash) = key_hash(key.ok_or(Malformed("there is no pubkey-hash"))?)?;
        Ok(Self { algorithm, key_hash: key_hash.to_vec(), nonce: nonce.map(<[u8]>::to_vec) })
    }
}

/// The parts of a `pubkey-hash`.
fn key_hash(bytes: &[u8]) -> Result<(HashAlgorithm, &[u8]), Malformed> {
    let mut entry = Reader::new(bytes);
    let mut read = || {
        let two = entry.head(Major::Array)? == 2;
        let parts = (entry.head(Major::Unsigned)?, entry.string(Major::Bytes)?);
        (two && entry.is_at_end()).then_some(parts)
    };
    let (algorithm, hash) = read().ok_or(Malformed("pubkey-hash is no array of algorithm and hash"))?;
    let (algorithm, length) = match algorithm {
        1 => (HashAlgorithm::Sha256, 32),
        7 => (HashAlgorithm::Sha384, 48),
        8 => (HashAlgorithm::Sha512, 64),
        _ => return Err(Malformed("pubkey-hash is of another algorithm than SHA-256, -384 and -512")),
    };
    if hash.len() != length {
        return Err(Malformed("pubkey-hash is not as long as its algorithm's hashes"));
    }
    Ok((algorithm, hash))
}

impl<'a> Evidence<'a> {
    /// As it stands in the extension.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        head(&mut bytes, Major::Tag, QUOTE_TAG);
        head(&mut bytes, Major::Array, 2);
        string(&mut bytes, Major::Bytes, self.quote);
        string(&mut bytes, Major::Bytes, self.claims);
        bytes
    }

    /// Reads the extension's value.
    ///
    /// # Errors
    /// It is no tagged array of quote and claims.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let tag = reader.head(Major::Tag).ok_or(Malformed("it is no tagged item"))?;
        if tag != QUOTE_TAG {
            return Err(Malformed("its tag is not 60000: it is no quote"));
        }
        let two = reader.head(Major::Array) == Some(2);
        match (two, reader.string(Major::Bytes), reader.string(Major::Bytes)) {
            (true, Some(quote), Some(claims)) if reader.is_at_end() => Ok(Self { quote, claims }),
            _ => Err(Malformed("it is no array of two byte strings, quote and claims")),
        }
    }
}

/// REPORTDATA that bind bytes: their SHA-256, then zeros. In the interoperable format the
/// bytes are the claims, in the older one SubjectPublicKeyInfo.
pub fn report_data(bytes: &[u8]) -> [u8; 64] {
    let hash = Sha256::digest(bytes);
    core::array::from_fn(|n| hash.get(n).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn evidence_and_claims_are_read_as_written() {
        let plain = Claims::of_key(b"key", None);
        let fresh = Claims::of_key(b"key", Some(vec![7; 300]));
        for claims in [plain.clone(), fresh] {
            let bytes = claims.write();
            assert_eq!(Claims::read(&bytes), Ok(claims));
            let evidence = Evidence { quote: &[3; 4600], claims: &bytes };
            let written = evidence.write();
            assert_eq!(Evidence::read(&written), Ok(evidence));
            for cut in 0..bytes.len() {
                assert!(Claims::read(&bytes[..cut]).is_err());
            }
            for cut in [0, 1, 5, 6, 9, 4600, written.len() - 1] {
                assert!(Evidence::read(&written[..cut]).is_err());
            }
            assert!(Claims::read(&[&bytes[..], &[0]].concat()).is_err());
            assert!(Evidence::read(&[&written[..], &[0]].concat()).is_err());
        }
        // as Gramine and Intel's SDK write it: tag, array, the head of a long byte string
        let written = Evidence { quote: &[3; 4734], claims: &plain.write() }.write();
        assert_eq!(written[..8], [0xd9, 0xea, 0x60, 0x82, 0x59, 0x12, 0x7e, 3]);
        assert_eq!(plain.write()[..18], *b"\xa1\x6bpubkey-hash\x58\x24\x82\x01\x58");
    }

    #[test]
    fn other_claims_are_passed_over_and_wrong_ones_refused() {
        let map = |pairs: &[(&[u8], &[u8])]| {
            let mut bytes = Vec::new();
            head(&mut bytes, Major::Map, pairs.len() as u64);
            for (name, value) in pairs {
                string(&mut bytes, Major::Text, name);
                string(&mut bytes, Major::Bytes, value);
            }
            Claims::read(&bytes)
        };
        let hash = |algorithm, length| {
            let mut bytes = vec![];
            head(&mut bytes, Major::Array, 2);
            head(&mut bytes, Major::Unsigned, algorithm);
            string(&mut bytes, Major::Bytes, &vec![9; length]);
            bytes
        };
        let good = hash(1, 32);
        let read = map(&[(b"key_0", b"value"), (PUBKEY_HASH, &good), (b"key_1", b"")]).unwrap();
        assert_eq!((read.key_hash, read.nonce), (vec![9; 32], None));
        for (algorithm, length) in [(7, 48), (8, 64)] {
            assert!(map(&[(PUBKEY_HASH, &hash(algorithm, length))]).is_ok());
        }
        for (algorithm, length) in [(1, 31), (1, 48), (7, 32), (8, 32), (2, 32), (0, 0)] {
            assert!(map(&[(PUBKEY_HASH, &hash(algorithm, length))]).is_err(), "{algorithm} {length}");
        }
        assert_eq!(map(&[]), Err(Malformed("there is no pubkey-hash")));
        assert_eq!(
            map(&[(PUBKEY_HASH, &good), (PUBKEY_HASH, &good)]),
            Err(Malformed("a claim is there twice"))
        );
        let twice = map(&[(NONCE, b"1"), (PUBKEY_HASH, &good), (NONCE, b"2")]);
        assert_eq!(twice, Err(Malformed("a claim is there twice")));
        assert!(map(&vec![(&b"x"[..], &b""[..]); 33]).is_err());
        // an array where a map should be, and the number of another tag
        assert!(Claims::read(&[0x81, 0x40]).is_err());
        assert!(Evidence::read(&[0xd9, 0xea, 0x61, 0x82, 0x40, 0x40]).is_err());
    }
}
