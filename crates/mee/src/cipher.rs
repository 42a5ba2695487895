//! Encryption and authentication of pages and tree nodes.

use aes::{
    Aes128,
    cipher::{BlockEncrypt, KeyInit, inout::InOutBuf},
};
use mem::secret::{SecretBox, SecretSlice, scrub_registers, scrub_stack};

use crate::{MeeError, PAGE, hash::HashKey, memory::FAN};

/// Bytes of a block of AES.
const BLOCK: usize = 16;
/// Bytes of [`Cipher`]'s key stream: a page's, behind the block that masks its code.
const STREAM: usize = BLOCK + PAGE;

/// The keys, expanded.
struct Keys {
    page: Aes128,
    page_hash: HashKey,
    node: Aes128,
    node_hash: HashKey,
}

/// Keys of one run of the platform, and room for a key stream. In memory for
/// secrets; each operation clears what it left on the stack and in registers.
pub(crate) struct Cipher {
    keys: SecretBox<Keys>,
    stream: SecretSlice<u8>,
}

impl Cipher {
    /// With fresh keys from the host's generator.
    pub(crate) fn new() -> Result<Self, MeeError> {
        let mut bytes = SecretSlice::<u8>::new(4 * BLOCK)?;
        getrandom::fill(&mut bytes).map_err(MeeError::Random)?;
        let key = |i: usize| {
            let mut key = [0; BLOCK];
            key.copy_from_slice(&bytes[i * BLOCK..][..BLOCK]);
            key
        };
        let keys = SecretBox::new_with(|| Keys {
            page: Aes128::new(&key(0).into()),
            page_hash: HashKey::new(key(1)),
            node: Aes128::new(&key(2).into()),
            node_hash: HashKey::new(key(3)),
        })?;
        scrub_registers();
        Ok(Self { keys, stream: SecretSlice::new(STREAM)? })
    }

    /// Encrypts `data` in place and returns its code. `version` must be new for
    /// `page`: the same key stream twice would give both contents away.
    pub(crate) fn seal(&mut self, page: u32, version: u64, data: &mut [u8]) -> u128 {
        self.make_stream(page, version);
        xor(data, &self.stream[BLOCK..]);
        let tag = self.code(data);
        clear();
        tag
    }

    /// Checks `data` against its code and decrypts it in place. False, with
    /// `data` left alone, if it does not verify.
    #[must_use]
    pub(crate) fn open(
        &mut self,
        page: u32,
        version: u64,
        data: &mut [u8],
        tag: u128,
        checks: Checks,
    ) -> bool {
        self.make_stream(page, version);
        let genuine = self.code(data) == tag || !checks.on();
        if genuine {
            xor(data, &self.stream[BLOCK..]);
        }
        clear();
        genuine
    }

    /// The code of a tree node's counters, under the counter above it. That
    /// counter must be new for this node when the node is written.
    pub(crate) fn node_code(&self, level: usize, index: u32, counter: u64, counters: &[u8]) -> u128 {
        // 26 bits of index and two of level: together with the counter, no
        // block is used for two nodes.
        let mut mask = counter_block((level as u32) << 28 | index, counter, 0);
        debug_assert!(index < 1 << 28 && counters.len() == FAN as usize * 8);
        self.keys.node.encrypt_block((&mut mask).into());
        let code = self.keys.node_hash.hash(counters) ^ u128::from_le_bytes(mask);
        clear();
        code
    }

    /// The code of a page, whose stream has been made.
    fn code(&self, data: &[u8]) -> u128 {
        let mut mask = [0; BLOCK];
        mask.copy_from_slice(&self.stream[..BLOCK]);
        self.keys.page_hash.hash(data) ^ u128::from_le_bytes(mask)
    }

    fn make_stream(&mut self, page: u32, version: u64) {
        let (blocks, _) = self.stream.as_chunks_mut::<BLOCK>();
        for (i, block) in blocks.iter_mut().enumerate() {
            *block = counter_block(page, version, i as u32);
        }
        let (blocks, _) = InOutBuf::from(&mut self.stream[..]).into_chunks();
        self.keys.page.encrypt_blocks_inout(blocks);
    }
}

/// `place` ‖ `counter` ‖ `block`: 4, 8 and 4 bytes.
fn counter_block(place: u32, counter: u64, block: u32) -> [u8; BLOCK] {
    (u128::from(place) | u128::from(counter) << 32 | u128::from(block) << 96).to_le_bytes()
}

fn xor(data: &mut [u8], stream: &[u8]) {
    for (data, stream) in data.iter_mut().zip(stream) {
        *data ^= stream;
    }
}

fn clear() {
    scrub_stack();
    scrub_registers();
}

/// Whether codes are checked: always, but in test builds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checks {
    #[cfg(any(test, feature = "unchecked"))]
    off: bool,
}

impl Checks {
    pub(crate) const ON: Self = Self {
        #[cfg(any(test, feature = "unchecked"))]
        off: false,
    };
    #[cfg(any(test, feature = "unchecked"))]
    pub(crate) const OFF: Self = Self { off: true };

    pub(crate) fn on(self) -> bool {
        #[cfg(any(test, feature = "unchecked"))]
        return !self.off;
        #[cfg(not(any(test, feature = "unchecked")))]
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(seed: u8) -> Vec<u8> {
        (0..PAGE).map(|i| (i as u8).wrapping_mul(seed)).collect()
    }

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        let mut cipher = Cipher::new().unwrap();
        let plain = page(7);
        let mut data = plain.clone();
        let tag = cipher.seal(5, 9, &mut data);
        assert_ne!(data, plain);
        let sealed = data.clone();
        for (page, version, tag) in [(6, 9, tag), (5, 10, tag), (5, 9, tag ^ 1)] {
            assert!(!cipher.open(page, version, &mut data, tag, Checks::ON));
            assert_eq!(data, sealed);
        }
        data[4095] ^= 0x80;
        assert!(!cipher.open(5, 9, &mut data, tag, Checks::ON));
        data[4095] ^= 0x80;
        assert!(cipher.open(5, 9, &mut data, tag, Checks::ON));
        assert_eq!(data, plain);
    }

    #[test]
    fn versions_pages_and_keys_make_other_ciphertext() {
        let (mut one, mut two) = (Cipher::new().unwrap(), Cipher::new().unwrap());
        let mut seen = Vec::new();
        for (cipher, page, version) in [(0, 1, 1), (0, 1, 2), (0, 2, 1), (1, 1, 1)] {
            let mut data = vec![0; PAGE];
            let cipher = if cipher == 0 { &mut one } else { &mut two };
            let tag = cipher.seal(page, version, &mut data);
            assert!(!seen.contains(&(data.clone(), tag)));
            // Within a page no block repeats either.
            let mut blocks: Vec<_> = data.chunks(BLOCK).collect();
            blocks.sort();
            blocks.dedup();
            assert_eq!(blocks.len(), PAGE / BLOCK);
            seen.push((data, tag));
        }
    }

    #[test]
    fn node_codes_depend_on_place_counter_and_content() {
        let cipher = Cipher::new().unwrap();
        let node = [3u8; 512];
        let mut other = node;
        other[511] ^= 1;
        let code = cipher.node_code(1, 2, 3, &node);
        assert_eq!(code, cipher.node_code(1, 2, 3, &node));
        for different in [
            cipher.node_code(0, 2, 3, &node),
            cipher.node_code(1, 1, 3, &node),
            cipher.node_code(1, 2, 4, &node),
            cipher.node_code(1, 2, 3, &other),
        ] {
            assert_ne!(code, different);
        }
    }
}
