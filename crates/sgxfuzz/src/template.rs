//! The enclaves that the kernel builds: their pages, and the SIGSTRUCT for them.
//! All are of one measurement.

use std::sync::OnceLock;

use sgx::sigstruct::signer::Signer;
use sgx_abi::{Attributes, Sigstruct};
use sha2::{Digest, Sha256};
use zerocopy::IntoBytes;

use crate::layout::*;

/// Permission bits of SECINFO.
pub const R: u64 = 1;
/// W.
pub const W: u64 = 2;
/// X.
pub const X: u64 = 4;
/// Page types in SECINFO.
pub const SECINFO_TCS: u64 = 1 << 8;
/// PT_REG.
pub const SECINFO_REG: u64 = 2 << 8;
/// ATTRIBUTES.FLAGS: DEBUG.
pub const DEBUG: u64 = 2;
/// MODE64BIT.
pub const MODE64: u64 = 4;
/// XFRM of all enclaves.
pub const XFRM: u64 = 7;
/// Bytes that are measured of each page.
const MEASURED: u64 = 256;

/// A page to be added: its place, SECINFO and content.
#[derive(Clone, Debug)]
pub struct Added {
    /// Page in the enclave's range.
    pub page: u64,
    /// SECINFO.FLAGS.
    pub secinfo: u64,
    /// Content.
    pub content: Vec<u8>,
}

/// The pages of every enclave.
pub fn pages() -> &'static [Added] {
    static PAGES: OnceLock<Vec<Added>> = OnceLock::new();
    PAGES.get_or_init(|| {
        let data: Vec<u8> = SPIN.into_iter().chain((2..PAGE).map(|i| (i * 7) as u8)).collect();
        let mut all = vec![
            Added { page: P_CODE, secinfo: SECINFO_REG | R | X, content: code_page() },
            Added { page: P_DATA, secinfo: SECINFO_REG | R | W, content: data.clone() },
            Added { page: P_RWX, secinfo: SECINFO_REG | R | W | X, content: data.clone() },
            Added { page: P_RO, secinfo: SECINFO_REG | R, content: data.clone() },
            Added { page: P_X, secinfo: SECINFO_REG | X, content: data },
        ];
        for n in 0..2 {
            all.push(Added { page: P_TCS + n, secinfo: SECINFO_TCS, content: tcs(n) });
        }
        for n in 0..4 {
            let content = vec![0; PAGE as usize];
            all.push(Added { page: P_SSA + n, secinfo: SECINFO_REG | R | W, content });
        }
        all
    })
}

/// Content of the `n`th TCS: two frames, entry at the first gadget.
pub fn tcs(n: u64) -> Vec<u8> {
    let mut page = vec![0; PAGE as usize];
    let mut put = |at: usize, value: u64| page[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(16, (P_SSA + 2 * n) * PAGE);
    put(24, 2 << 32);
    put(32, P_CODE * PAGE);
    put(48, P_DATA * PAGE);
    put(56, P_RWX * PAGE);
    put(64, 0xfff_0000_0fff);
    page
}

/// SECS of an enclave at `base`, as ECREATE takes it.
pub fn secs(base: u64, flags: u64, exinfo: bool) -> Vec<u8> {
    let mut page = vec![0; PAGE as usize];
    let mut put = |at: usize, value: u64| page[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, ELRANGE);
    put(8, base);
    put(16, 1 | u64::from(exinfo) << 32);
    put(48, flags);
    put(56, XFRM);
    page
}

/// The measured blocks of an enclave, as they are hashed (*SDM vol. 3D, ECREATE,
/// EADD, EEXTEND*).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Trace(Sha256Trace);

#[derive(Clone, Default)]
struct Sha256Trace(Sha256);

impl PartialEq for Sha256Trace {
    fn eq(&self, other: &Self) -> bool {
        self.0.clone().finalize() == other.0.clone().finalize()
    }
}
impl Eq for Sha256Trace {}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x?}", &self.finish()[..4])
    }
}

impl Trace {
    fn block(&mut self, tag: &[u8; 8], words: &[u64]) {
        let mut block = [0; 64];
        block[..8].copy_from_slice(tag);
        for (to, word) in block[8..].chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        self.0.0.update(block);
    }
    /// ECREATE, of an SSA frame of one page.
    pub fn ecreate(&mut self, size: u64) {
        let mut block = [0; 64];
        block[..8].copy_from_slice(b"ECREATE\0");
        block[8..12].copy_from_slice(&1u32.to_le_bytes());
        block[12..20].copy_from_slice(&size.to_le_bytes());
        self.0.0.update(block);
    }
    /// EADD at an offset from the base.
    pub fn eadd(&mut self, offset: u64, secinfo: u64) {
        self.block(b"EADD\0\0\0\0", &[offset, secinfo]);
    }
    /// EEXTEND.
    pub fn eextend(&mut self, offset: u64, chunk: &[u8]) {
        self.block(b"EEXTEND\0", &[offset]);
        self.0.0.update(chunk);
    }
    /// MRENCLAVE.
    pub fn finish(&self) -> [u8; 32] {
        self.0.0.clone().finalize().into()
    }
}

/// The measurement of a whole enclave.
pub fn measurement() -> &'static Trace {
    static TRACE: OnceLock<Trace> = OnceLock::new();
    TRACE.get_or_init(|| {
        let mut trace = Trace::default();
        trace.ecreate(ELRANGE);
        for added in pages() {
            trace.eadd(added.page * PAGE, added.secinfo);
            trace.eextend(added.page * PAGE, &added.content[..MEASURED as usize]);
        }
        trace
    })
}

/// SIGSTRUCT of that measurement; DEBUG is left to the kernel.
pub fn sigstruct() -> &'static [u8] {
    static SIG: OnceLock<Vec<u8>> = OnceLock::new();
    SIG.get_or_init(|| {
        let mut sig: Sigstruct = Signer::blank();
        sig.enclavehash = measurement().finish();
        let mut attributes = Attributes::default();
        attributes.flags |= sgx_abi::AttributeFlags::MODE64BIT;
        attributes.xfrm = XFRM;
        sig.attributes = attributes;
        let mut mask = attributes;
        mask.flags = sgx_abi::AttributeFlags::from_bits_retain(!DEBUG & !1);
        sig.attributemask = mask;
        Signer::A.sign(&mut sig);
        sig.as_bytes().to_vec()
    })
}

/// MRSIGNER.
pub fn mrsigner() -> [u8; 32] {
    Signer::A.mrsigner()
}
