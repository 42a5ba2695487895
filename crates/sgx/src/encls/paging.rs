//! What EWB and the ELD leaves have in common: how a page outside the EPC is sealed
//! (*SDM vol. 3D, EWB: TMP_HEADER; CR_BASE_PK*).

use aes_gcm::aead::AeadInPlace;
use aes_gcm::{Aes128Gcm, KeyInit};
use sgx_abi::{PAGE_SIZE, PageType, Pcmd, Secinfo, SecinfoFlags};
use zerocopy::{Immutable, IntoBytes};

use crate::epcm::{Entry, Flags};

/// MAC header, 128 bytes: what the MAC covers beside the page's content: what the page
/// is, where it is in its enclave, and which enclave that is.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Header {
    secinfo: Secinfo,
    linaddr: u64,
    eid: u64,
    /// PCMD's reserved fields: zero, or the page does not open.
    reserved: [u8; 48],
}

impl Header {
    /// Of a page that is described by `pcmd`, at linear address `linaddr`, of the enclave
    /// `eid`; zero for pages of none.
    pub(super) fn new(pcmd: &Pcmd, linaddr: u64, eid: u64) -> Self {
        let mut reserved = [0; 48];
        reserved[..pcmd.reserved1.len()].copy_from_slice(&pcmd.reserved1);
        let linaddr = if crate::planted!(EvictedAddress) { 0 } else { linaddr };
        let eid = if crate::planted!(EvictedOwner) { 0 } else { eid };
        Header { secinfo: pcmd.secinfo, linaddr, eid, reserved }
    }
}

/// The bits of an entry that go with a page; BLOCKED does not.
const BITS: [(SecinfoFlags, Flags); 6] = [
    (SecinfoFlags::R, Flags::R),
    (SecinfoFlags::W, Flags::W),
    (SecinfoFlags::X, Flags::X),
    (SecinfoFlags::PENDING, Flags::PENDING),
    (SecinfoFlags::MODIFIED, Flags::MODIFIED),
    (SecinfoFlags::PR, Flags::PR),
];

/// SECINFO of a page with that entry.
pub(super) fn secinfo(entry: &Entry) -> Secinfo {
    let mut bits = SecinfoFlags::empty();
    BITS.iter().for_each(|&(info, flag)| bits.set(info, entry.flags.contains(flag)));
    Secinfo::new(SecinfoFlags::new(entry.page_type, bits))
}

/// Flags of the valid, unblocked entry that a SECINFO describes.
pub(super) fn entry_flags(secinfo: &Secinfo) -> Flags {
    let mut flags = Flags::VALID;
    BITS.iter().for_each(|&(info, flag)| flags.set(flag, secinfo.flags.contains(info)));
    flags
}

/// True if a page of that type belongs to an enclave: shadow stacks do not occur, as no
/// model has CET.
pub(super) fn has_owner(page_type: PageType) -> bool {
    matches!(page_type, PageType::Reg | PageType::Tcs | PageType::Trim)
}

/// Versions are never used twice under a key, so neither is a nonce.
fn nonce(version: u64) -> [u8; 12] {
    let version = if crate::planted!(Version) { 1 } else { version };
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&version.to_le_bytes());
    nonce
}

/// Encrypts `page` in place; gives its MAC.
pub(super) fn seal(key: &[u8; 16], version: u64, header: &Header, page: &mut [u8; PAGE_SIZE]) -> [u8; 16] {
    let cipher = Aes128Gcm::new(key.into());
    let tag = cipher.encrypt_in_place_detached(&nonce(version).into(), header.as_bytes(), page);
    tag.expect("a page is within GCM's limits").into()
}

/// Decrypts `page` in place; false if it is not what was sealed.
pub(super) fn open(
    key: &[u8; 16],
    version: u64,
    header: &Header,
    page: &mut [u8; PAGE_SIZE],
    mac: &[u8; 16],
) -> bool {
    let cipher = Aes128Gcm::new(key.into());
    cipher.decrypt_in_place_detached(&nonce(version).into(), header.as_bytes(), page, mac.into()).is_ok()
}
