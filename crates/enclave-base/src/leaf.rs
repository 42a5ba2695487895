//! The leaves of ENCLU that an enclave executes for itself.

use core::arch::asm;

use sgx_abi::{Enclu, Keyrequest, Report, Reportdata, Secinfo, SecinfoFlags, Status, Targetinfo};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Memory aligned as EREPORT and EGETKEY demand.
#[repr(C, align(512))]
struct Aligned<T>(T);

/// The same for SECINFO.
#[repr(C, align(64))]
struct AlignedInfo(Secinfo);

/// A key of the processor's; wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(C, align(16))]
pub struct Key([u8; Keyrequest::KEY_SIZE]);

impl Key {
    /// Its 16 bytes.
    pub fn bytes(&self) -> &[u8; Keyrequest::KEY_SIZE] {
        &self.0
    }
}

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Executes a leaf; RAX as it was before, or as the leaf set it.
///
/// # Safety
/// The operands are what the leaf takes, aligned, and nobody else uses what it writes.
unsafe fn enclu(leaf: Enclu, rbx: u64, rcx: u64, rdx: u64) -> u64 {
    let rax;
    // SAFETY: the caller's contract. RBX is the compiler's own, hence the exchange.
    unsafe {
        asm!(
            "xchg {rbx}, rbx",
            "enclu",
            "mov rbx, {rbx}",
            rbx = inout(reg) rbx => _,
            inout("rax") leaf as u64 => rax,
            in("rcx") rcx,
            in("rdx") rdx,
            options(nostack)
        );
    }
    rax
}

/// EREPORT: a report for the enclave that `target` describes, with `data`.
pub fn report(target: &Targetinfo, data: &[u8; 64]) -> Report {
    let target = Aligned(target.clone());
    let data = Aligned(Reportdata(*data));
    let mut report = Aligned(Report::default());
    // SAFETY: three operands in this frame, aligned to 512.
    unsafe {
        enclu(Enclu::Ereport, &raw const target as u64, &raw const data as u64, &raw mut report as u64);
    }
    report.0
}

/// EGETKEY, of a request that does not fault: its reserved fields are zero.
///
/// # Errors
/// What the processor says against it.
pub fn key(request: &Keyrequest) -> Result<Key, Status> {
    let request = Aligned(request.clone());
    let mut key = Key([0; Keyrequest::KEY_SIZE]);
    // SAFETY: both operands are in this frame, aligned.
    let status = unsafe { enclu(Enclu::Egetkey, &raw const request as u64, &raw mut key as u64, 0) };
    done(status).map(|()| key)
}

/// EACCEPT of a page: one that nothing of Rust's lies in yet, or one that loses rights which
/// nobody needs.
///
/// # Errors
/// The page is not as `flags` say.
pub fn accept(page: u64, flags: SecinfoFlags) -> Result<(), Status> {
    let info = AlignedInfo(Secinfo::new(flags));
    // SAFETY: the first operand is in this frame, aligned; the page stays as it is, or
    // becomes the enclave's.
    done(unsafe { enclu(Enclu::Eaccept, &raw const info as u64, page, 0) })
}

fn done(rax: u64) -> Result<(), Status> {
    match u32::try_from(rax).ok().and_then(Status::from_u32) {
        Some(Status::Success) => Ok(()),
        Some(error) => Err(error),
        None => panic!("ENCLU gave an unknown status"),
    }
}
