//! What EWB and ELDB/ELDU have in common: the sealing of a page that leaves the
//! EPC (*SDM vol. 3D, EWB: TMP_HEADER; CR_BASE_PK*).

use aes_gcm::aead::AeadInPlace;
use aes_gcm::{Aes128Gcm, KeyInit};
use sgx_abi::{PAGE_SIZE, PageType, Secinfo, SecinfoFlags};
use zerocopy::{Immutable, IntoBytes};

use crate::epcm::{Entry, Flags};

/// What the MAC covers beside the page: where it was, what it was, whose it was.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Header {
    pub(super) secinfo: Secinfo,
    pub(super) linaddr: u64,
    pub(super) eid: u64,
    pub(super) reserved: [u8; 48],
}

impl Header {
    pub(super) fn new(secinfo: Secinfo, linaddr: u64, eid: u64) -> Self {
        Header { secinfo, linaddr, eid, reserved: [0; 48] }
    }
}

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

/// Flags and type of the entry that a SECINFO describes.
pub(super) fn entry_flags(secinfo: &Secinfo) -> Option<(Flags, PageType)> {
    let mut flags = Flags::VALID;
    BITS.iter().for_each(|&(info, flag)| flags.set(flag, secinfo.flags.contains(info)));
    Some((flags, secinfo.flags.page_type()?))
}

/// Versions are never used twice, so neither is a nonce.
fn nonce(version: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&version.to_le_bytes());
    nonce
}

/// Encrypts `page` in place; its MAC.
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
