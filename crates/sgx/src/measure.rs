//! MRENCLAVE: the running measurement of an enclave under construction.
//!
//! SHA-256 over 64-byte blocks (*SDM vol. 3D, ECREATE, EADD, EEXTEND, EINIT:
//! SHA256INITIALIZE, SHA256UPDATE, SHA256FINAL*). Every update is a multiple of
//! a block, so the state between two leaves is a chaining value and a count of
//! blocks. Both live in the SECS page: an enclave may be paged out half built.

use sgx_abi::page::EEXTEND_CHUNK;
use sgx_abi::{Secinfo, SecsPrivate};
use sha2::digest::generic_array::GenericArray;
use zerocopy::IntoBytes;

/// Bytes of a SHA-256 block.
const BLOCK: usize = 64;
/// The tags that begin a block, in ASCII.
const TAG_ECREATE: &[u8; 8] = b"ECREATE\0";
const TAG_EADD: &[u8; 8] = b"EADD\0\0\0\0";
const TAG_EEXTEND: &[u8; 8] = b"EEXTEND\0";

/// Initial chaining value (FIPS 180-4, 5.3.3).
const SHA256_INIT: [u32; 8] =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

/// State of a measurement between two leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurement {
    hash: [u32; 8],
    blocks: u64,
}

impl Measurement {
    /// What ECREATE begins with: the frame size in pages and the enclave's size
    /// in bytes. Attributes are not measured; SIGSTRUCT states them.
    pub fn ecreate(ssaframesize: u32, size: u64) -> Self {
        let mut this = Self { hash: SHA256_INIT, blocks: 0 };
        let mut block = [0; BLOCK];
        block[..8].copy_from_slice(TAG_ECREATE);
        block[8..12].copy_from_slice(&ssaframesize.to_le_bytes());
        block[12..20].copy_from_slice(&size.to_le_bytes());
        this.update(&block);
        this
    }

    /// The state kept in a SECS page.
    pub fn load(secs: &SecsPrivate) -> Self {
        Self { hash: secs.hash, blocks: secs.hash_blocks }
    }

    /// Keeps the state in a SECS page.
    pub fn store(&self, secs: &mut SecsPrivate) {
        secs.hash = self.hash;
        secs.hash_blocks = self.blocks;
    }

    /// EADD of a page at `offset` bytes from the enclave's base. `secinfo` is
    /// what EADD has made of the operand (it clears R, W and X of a TCS).
    pub fn eadd(&mut self, offset: u64, secinfo: &Secinfo) {
        let mut block = [0; BLOCK];
        block[..8].copy_from_slice(TAG_EADD);
        block[8..16].copy_from_slice(&offset.to_le_bytes());
        block[16..].copy_from_slice(&secinfo.as_bytes()[..Secinfo::MEASURED]);
        self.update(&block);
    }

    /// EEXTEND of 256 bytes at `offset` bytes from the enclave's base.
    pub fn eextend(&mut self, offset: u64, chunk: &[u8; EEXTEND_CHUNK]) {
        let mut block = [0; BLOCK];
        block[..8].copy_from_slice(TAG_EEXTEND);
        block[8..16].copy_from_slice(&offset.to_le_bytes());
        self.update(&block);
        self.update(chunk);
    }

    /// MRENCLAVE, as EINIT completes it; the state itself stays.
    pub fn finish(&self) -> [u8; 32] {
        let mut last = *self;
        // FIPS 180-4, 5.1.1: a one bit, zeros, the length in bits
        let mut block = [0; BLOCK];
        block[0] = 0x80;
        block[56..].copy_from_slice(&self.blocks.wrapping_mul(8 * BLOCK as u64).to_be_bytes());
        last.update(&block);
        let mut mrenclave = [0; 32];
        for (bytes, word) in mrenclave.chunks_exact_mut(4).zip(last.hash) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        mrenclave
    }

    /// `data` is a whole number of blocks.
    fn update(&mut self, data: &[u8]) {
        for block in data.chunks_exact(BLOCK) {
            sha2::compress256(&mut self.hash, &[*GenericArray::from_slice(block)]);
            self.blocks = self.blocks.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use sgx_abi::{PageType, SecinfoFlags};
    use sha2::{Digest, Sha256};

    use super::*;

    fn secinfo(page_type: PageType) -> Secinfo {
        Secinfo::new(SecinfoFlags::new(page_type, SecinfoFlags::R | SecinfoFlags::W))
    }

    /// A small enclave, and the stream it is measured as, written out by hand.
    fn enclave() -> (Measurement, Vec<u8>) {
        let mut m = Measurement::ecreate(2, 0x8000);
        let mut stream = b"ECREATE\0\x02\0\0\0\0\x80\0\0\0\0\0\0".to_vec();
        stream.resize(64, 0);
        for page in 0..3u64 {
            let offset = page << 12 | page << 40;
            m.eadd(offset, &secinfo(PageType::Reg));
            let at = stream.len();
            stream.extend(b"EADD\0\0\0\0");
            stream.extend(offset.to_le_bytes());
            stream.extend(0x203u64.to_le_bytes());
            stream.resize(at + 64, 0);
            for part in 0..page {
                let data: [u8; 256] = std::array::from_fn(|i| (i as u64 * 7 + page + part) as u8);
                m.eextend(offset + part * 256, &data);
                let at = stream.len();
                stream.extend(b"EEXTEND\0");
                stream.extend((offset + part * 256).to_le_bytes());
                stream.resize(at + 64, 0);
                stream.extend(data);
            }
        }
        (m, stream)
    }

    #[test]
    fn measurement_is_the_hash_of_the_stream() {
        let (m, stream) = enclave();
        assert_eq!(m.finish()[..], Sha256::digest(&stream)[..]);
        assert_eq!(m.blocks as usize * 64, stream.len());
    }

    #[test]
    fn known_answer_of_another_program() {
        // printf 'ECREATE\0\1\0\0\0\0\x20' followed by 50 zero bytes | sha256sum
        let got: String =
            Measurement::ecreate(1, 0x2000).finish().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(got, "9e197c8837c6d65632dbdd59cd7df4f1a25b68d8e4e5eb6ca3b20b05311fecb8");
    }

    #[test]
    fn survives_the_secs_page_at_every_step() {
        let mut secs = SecsPrivate::default();
        let mut once = Measurement::ecreate(1, 1 << 20);
        let mut paged = once;
        for i in 0..40u64 {
            paged.store(&mut secs);
            let bytes = secs.as_bytes().to_vec();
            secs = zerocopy::FromBytes::read_from_bytes(&bytes[..]).unwrap();
            paged = Measurement::load(&secs);
            for m in [&mut once, &mut paged] {
                if i % 3 == 0 {
                    m.eadd(i << 12, &secinfo(PageType::Tcs));
                } else {
                    m.eextend(i << 8, &[i as u8; 256]);
                }
            }
            assert_eq!(once.finish(), paged.finish());
        }
        assert_eq!(once, paged);
    }

    #[test]
    fn finishing_does_not_disturb_the_state() {
        let (m, _) = enclave();
        let before = m;
        assert_eq!(m.finish(), m.finish());
        assert_eq!(m, before);
    }

    #[test]
    fn every_input_counts_once() {
        let base = Measurement::ecreate(1, 0x4000);
        let with = |f: &dyn Fn(&mut Measurement)| {
            let mut m = base;
            f(&mut m);
            m.finish()
        };
        let mut late = secinfo(PageType::Reg);
        late.reserved1[47] = 1;
        let mut seen = vec![
            base.finish(),
            Measurement::ecreate(2, 0x4000).finish(),
            Measurement::ecreate(1, 0x8000).finish(),
            with(&|m| m.eadd(0, &secinfo(PageType::Reg))),
            with(&|m| m.eadd(0x1000, &secinfo(PageType::Reg))),
            with(&|m| m.eadd(0, &secinfo(PageType::Tcs))),
            with(&|m| m.eextend(0, &[0; 256])),
            with(&|m| m.eextend(256, &[0; 256])),
            with(&|m| {
                m.eextend(0, &std::array::from_fn(|i| u8::from(i == 255)));
            }),
        ];
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all, "two enclaves with the same measurement");
        // bytes 48 to 63 of SECINFO are not measured
        assert_eq!(with(&|m| m.eadd(0, &late)), with(&|m| m.eadd(0, &secinfo(PageType::Reg))));
    }
}
