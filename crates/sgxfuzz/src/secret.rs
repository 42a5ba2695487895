//! Secrets: words that nobody outside an enclave has, and where to look for them.

use memchr::memmem::Finder;

/// Six bytes that begin no other word.
const MARK: [u8; 6] = [0x9d, 0xe1, 0xa7, 0xc3, 0x5b, 0xf2];

/// Finds secrets.
pub struct Scanner {
    finder: Finder<'static>,
    next: u16,
}

impl Default for Scanner {
    fn default() -> Self {
        Scanner { finder: Finder::new(&MARK).into_owned(), next: 0 }
    }
}

impl Scanner {
    /// A new secret word.
    pub fn word(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        let mut bytes = [0; 8];
        // The serial is in the low half, so that the mark survives sums of it.
        bytes[..2].copy_from_slice(&self.next.to_le_bytes());
        bytes[2..].copy_from_slice(&MARK);
        u64::from_le_bytes(bytes)
    }

    /// Where in `bytes` a secret is.
    pub fn find(&self, bytes: &[u8]) -> Option<usize> {
        self.finder.find(bytes)
    }

    /// True if a word has a secret's mark.
    pub fn is_secret(&self, word: u64) -> bool {
        self.find(&word.to_le_bytes()).is_some()
    }
}
