//! What the maker of a platform keeps beside its secrets: the key that signs its
//! architectural enclaves, the advisories that were published, the certificates that were
//! revoked. All else that a maker issues follows from these and the roots.
//!
//! ```text
//! u16 length, the signing key in PEM (length 0: there is none yet)
//! u16 number, then for each advisory:   u8 fixed in, u64 published, u8 length, its name
//! u16 number, then for each revocation: u8 security version, u64 since
//! ```

use crate::PlatformError;
use crate::roots::SVN_FIRST;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Most bytes of the books in a file.
pub const MAX_SIZE: usize = 32 << 10;
/// Most bytes of a signing key in PEM.
const MAX_KEY: usize = 8 << 10;
/// Most advisories.
const MAX_ADVISORIES: usize = 255;
/// Most bytes of an advisory's name.
const MAX_NAME: usize = 64;

/// The books. Wiped when dropped; neither cloned nor printed.
#[derive(Default, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Books {
    /// The key that signs the platform's architectural enclaves, in PEM; empty until it is
    /// made.
    pub signing_key: String,
    /// Oldest first.
    #[zeroize(skip)]
    pub advisories: Vec<Advisory>,
    /// Oldest first.
    #[zeroize(skip)]
    pub revoked: Vec<Revocation>,
}

/// A weakness that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advisory {
    /// Its name, such as `KLUIS-SA-00001`.
    pub id: String,
    /// The first security version without it.
    pub fixed_in: u8,
    /// In seconds since 1970 (UTC).
    pub published: u64,
}

/// The PCK certificate of a security version is not to be believed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The security version.
    pub svn: u8,
    /// In seconds since 1970 (UTC).
    pub since: u64,
}

impl Books {
    /// Publishes an advisory that the security version after `svn` will mend.
    ///
    /// # Errors
    /// Its name is none or is taken, there are too many, or there is no later version.
    pub fn publish(&mut self, id: &str, svn: u8, now: u64) -> Result<(), PlatformError> {
        if !is_name(id.as_bytes()) {
            return Err(PlatformError::AdvisoryName(id.to_owned()));
        }
        if self.advisories.iter().any(|advisory| advisory.id == id) {
            return Err(PlatformError::AdvisoryExists(id.to_owned()));
        }
        if self.advisories.len() >= MAX_ADVISORIES {
            return Err(PlatformError::TooManyAdvisories(MAX_ADVISORIES));
        }
        let fixed_in = svn.checked_add(1).ok_or(PlatformError::SvnAtTop(svn))?;
        self.advisories.push(Advisory { id: id.to_owned(), fixed_in, published: now });
        Ok(())
    }

    /// Revokes the PCK certificate of a security version.
    ///
    /// # Errors
    /// It is revoked.
    pub fn revoke(&mut self, svn: u8, now: u64) -> Result<(), PlatformError> {
        if self.revoked.iter().any(|revocation| revocation.svn == svn) {
            return Err(PlatformError::AlreadyRevoked(svn));
        }
        self.revoked.push(Revocation { svn, since: now });
        Ok(())
    }

    /// Writes the books.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        // none of the lengths is greater than what a number here can say
        let number = |n: usize| (n as u16).to_le_bytes();
        out.extend(number(self.signing_key.len()));
        out.extend(self.signing_key.as_bytes());
        out.extend(number(self.advisories.len()));
        for Advisory { id, fixed_in, published } in &self.advisories {
            out.push(*fixed_in);
            out.extend(published.to_le_bytes());
            out.push(id.len() as u8);
            out.extend(id.as_bytes());
        }
        out.extend(number(self.revoked.len()));
        for Revocation { svn, since } in &self.revoked {
            out.push(*svn);
            out.extend(since.to_le_bytes());
        }
    }

    /// Reads the books; `None` if they are not as they were written.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        let mut books = Self::default();
        let key_size = from.u16()?;
        if key_size > MAX_KEY {
            return None;
        }
        books.signing_key = std::str::from_utf8(from.take(key_size)?).ok()?.to_owned();
        for _ in 0..from.u16()? {
            let (fixed_in, published, length) = (from.u8()?, from.u64()?, from.u8()?);
            let name = from.take(length.into())?;
            if !is_name(name) || fixed_in <= SVN_FIRST || books.advisories.len() >= MAX_ADVISORIES {
                return None;
            }
            let id = String::from_utf8(name.to_vec()).ok()?;
            books.advisories.push(Advisory { id, fixed_in, published });
        }
        for _ in 0..from.u16()? {
            let svn = from.u8()?;
            // each version once, so there is an end to it
            if svn < SVN_FIRST || books.revoke(svn, from.u64()?).is_err() {
                return None;
            }
        }
        from.0.is_empty().then_some(books)
    }
}

/// Letters, digits and hyphens: the name goes into signed JSON.
fn is_name(bytes: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    (1..=MAX_NAME).contains(&bytes.len()) && bytes.iter().all(allowed)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<usize> {
        self.take(2)?.try_into().ok().map(u16::from_le_bytes).map(usize::from)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }
}

/// A signing key that may be kept.
///
/// # Errors
/// It is too long.
pub(crate) fn check_key(pem: &Zeroizing<String>) -> Result<(), PlatformError> {
    match pem.len() {
        1..=MAX_KEY => Ok(()),
        size => Err(PlatformError::SigningKey(size)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(books: &Books) -> Vec<u8> {
        let mut bytes = Vec::new();
        books.encode(&mut bytes);
        bytes
    }

    fn books() -> Books {
        let mut books = Books::default();
        books.signing_key.push_str("-----BEGIN");
        books.publish("KLUIS-SA-00001", 1, 50).unwrap();
        books.publish("KLUIS-SA-00002", 254, 60).unwrap();
        books.revoke(2, 70).unwrap();
        books
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for books in [books(), Books::default()] {
            let bytes = encoded(&books);
            assert!(Books::decode(&bytes).is_some_and(|read| read == books));
            for len in 0..bytes.len() {
                assert!(Books::decode(&bytes[..len]).is_none(), "{len} bytes");
            }
            assert!(Books::decode(&[&bytes[..], &[0]].concat()).is_none());
        }
    }

    #[test]
    fn what_cannot_be_is_not_read() {
        type Change = fn(&mut Books);
        let changes: [Change; 6] = [
            |b| b.advisories[0].id = "a b".into(),
            |b| b.advisories[0].id.clear(),
            |b| b.advisories[0].fixed_in = 1,
            |b| b.revoked[0].svn = 0,
            |b| b.revoked.push(b.revoked[0]),
            |b| b.signing_key = "x".repeat(MAX_KEY + 1),
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut bad = books();
            change(&mut bad);
            assert!(Books::decode(&encoded(&bad)).is_none(), "change {i}");
        }
    }

    #[test]
    fn advisories_have_names_of_their_own_and_an_end() {
        let mut books = Books::default();
        for bad in ["", "a\"b", "a b", "é", &"x".repeat(65)] {
            assert!(matches!(books.publish(bad, 1, 0), Err(PlatformError::AdvisoryName(_))), "{bad}");
        }
        assert!(matches!(books.publish("x", 255, 0), Err(PlatformError::SvnAtTop(255))));
        for i in 0..MAX_ADVISORIES {
            books.publish(&format!("{i:064}"), 1, 0).unwrap();
        }
        assert!(matches!(books.publish("x", 1, 0), Err(PlatformError::TooManyAdvisories(_))));
        assert!(matches!(books.publish(&"0".repeat(64), 1, 0), Err(PlatformError::AdvisoryExists(_))));
        for svn in 1..=255 {
            books.revoke(svn, 0).unwrap();
        }
        assert!(matches!(books.revoke(7, 0), Err(PlatformError::AlreadyRevoked(7))));
        books.signing_key = "x".repeat(MAX_KEY);
        let bytes = encoded(&books);
        assert!(bytes.len() <= MAX_SIZE, "{}", bytes.len());
        assert!(Books::decode(&bytes).is_some_and(|read| read == books));
    }
}
