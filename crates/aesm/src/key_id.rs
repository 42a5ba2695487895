//! Identifiers of attestation keys: which quoting enclave signs, and how.

use sgx_abi::ReportBody;
use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// MRSIGNER of Intel's architectural enclaves. Programs that know only Intel's quoting
/// enclave ask for it by this; see [`AttestationKeyId::INTEL_QE3`].
pub const INTEL_MRSIGNER: [u8; 32] = [
    0x8c, 0x4f, 0x57, 0x75, 0xd7, 0x96, 0x50, 0x3e, 0x96, 0x13, 0x7f, 0x77, 0xc6, 0x8a, 0x82, 0x9a, 0x00,
    0x56, 0xac, 0x8d, 0xed, 0x70, 0x14, 0x0b, 0x08, 0x1b, 0x09, 0x44, 0x90, 0xc5, 0x7b, 0xff,
];

/// `SGX_QL_ALG_ECDSA_P256`.
const ALGORITHM_ECDSA_P256: u32 = 2;

/// An attestation key's identifier, 256 bytes: `sgx_att_key_id_ext_t` of `sgx_quote.h`, whose
/// first [`Self::BASE`] bytes are `sgx_ql_att_key_id_t`. Little-endian, without alignment.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct AttestationKeyId {
    /// Of the structure: 0.
    pub id: U16,
    /// Of the structure: 0.
    pub version: U16,
    /// How many bytes of `mrsigner` count: 32.
    pub mrsigner_length: U16,
    /// MRSIGNER of the quoting enclave, then zeros.
    pub mrsigner: [u8; 48],
    /// ISVPRODID of the quoting enclave.
    pub product: U32,
    /// ISVEXTPRODID (KSS), or zeros.
    pub extended_product: [u8; 16],
    /// CONFIGID (KSS), or zeros.
    pub config_id: [u8; 64],
    /// ISVFAMILYID (KSS), or zeros.
    pub family_id: [u8; 16],
    /// How the attestation key signs: 2 is ECDSA with P-256.
    pub algorithm: U32,
    /// Of an EPID service provider; zeros.
    pub spid: [u8; 16],
    /// How an EPID key signs; 0.
    pub key_type: U16,
    /// Zeros.
    pub reserved: [u8; 80],
}

const _: () = assert!(size_of::<AttestationKeyId>() == AttestationKeyId::SIZE);
const _: () = assert!(std::mem::offset_of!(AttestationKeyId, spid) == AttestationKeyId::BASE);

impl AttestationKeyId {
    /// Its size in bytes.
    pub const SIZE: usize = 256;
    /// The bytes by which quoting enclaves are told apart; what follows is of EPID.
    pub const BASE: usize = 158;

    /// The identifier of Intel's quoting enclave for ECDSA, QE3. Programs and libraries have
    /// it built in; here it is another name of this platform's.
    pub const INTEL_QE3: Self = Self::ecdsa(INTEL_MRSIGNER, 1);

    /// The ECDSA key of a quoting enclave with this MRSIGNER and ISVPRODID.
    pub const fn ecdsa(mrsigner: [u8; 32], product: u16) -> Self {
        let mut padded = [0; 48];
        let mut i = 0;
        while i < mrsigner.len() {
            padded[i] = mrsigner[i];
            i += 1;
        }
        Self {
            id: U16::ZERO,
            version: U16::ZERO,
            mrsigner_length: U16::new(32),
            mrsigner: padded,
            product: U32::new(product as u32),
            extended_product: [0; 16],
            config_id: [0; 64],
            family_id: [0; 16],
            algorithm: U32::new(ALGORITHM_ECDSA_P256),
            spid: [0; 16],
            key_type: U16::ZERO,
            reserved: [0; 80],
        }
    }

    /// The ECDSA key of the quoting enclave that made this report.
    pub const fn of(quoting_enclave: &ReportBody) -> Self {
        Self::ecdsa(quoting_enclave.mrsigner, quoting_enclave.isvprodid)
    }

    /// Whether both are keys of the same quoting enclave.
    pub fn same_enclave(&self, other: &Self) -> bool {
        self.as_bytes()[..Self::BASE] == other.as_bytes()[..Self::BASE]
    }
}

/// The identifiers in a list as a program hands it on from a verifier
/// (`sgx_ql_att_key_id_list_t` of `sgx_quote_3.h`): a header of 8 bytes, then at most ten.
/// Nothing if it is no such list.
pub(crate) fn list(bytes: &[u8]) -> Option<&[AttestationKeyId]> {
    let (header, rest) = bytes.split_first_chunk::<8>()?;
    let [0, 0, 0, 0, count @ ..] = header else { return None };
    let ids = <[AttestationKeyId]>::ref_from_bytes(rest).ok()?;
    (1..=10).contains(&ids.len()).then_some(())?;
    (usize::try_from(u32::from_le_bytes(*count)) == Ok(ids.len())).then_some(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intels_identifier_has_the_bytes_that_programs_have_built_in() {
        let bytes = AttestationKeyId::INTEL_QE3.as_bytes();
        assert_eq!(bytes[..8], [0, 0, 0, 0, 32, 0, 0x8c, 0x4f]);
        assert_eq!(bytes[36..58], [&[0x7b, 0xff][..], &[0; 16], &[1, 0, 0, 0]].concat());
        assert_eq!(bytes[154..158], [2, 0, 0, 0]);
        assert!(bytes[58..154].iter().chain(&bytes[158..]).all(|&byte| byte == 0));
    }

    #[test]
    fn what_is_of_epid_makes_no_difference() {
        let mut other = AttestationKeyId::INTEL_QE3;
        other.spid = [7; 16];
        assert!(other.same_enclave(&AttestationKeyId::INTEL_QE3));
        other.product = U32::new(2);
        assert!(!other.same_enclave(&AttestationKeyId::INTEL_QE3));
    }

    #[test]
    fn a_list_says_how_many_there_are() {
        let id = AttestationKeyId::INTEL_QE3;
        let list_of = |count: u32, there: usize| {
            let mut bytes = [&[0; 4][..], &count.to_le_bytes()].concat();
            bytes.extend(std::iter::repeat_n(id.as_bytes(), there).flatten());
            bytes
        };
        assert_eq!(list(&list_of(2, 2)), Some(&[id.clone(), id.clone()][..]));
        for (count, there) in [(0, 0), (1, 0), (1, 2), (2, 1), (11, 11), (u32::MAX, 1)] {
            assert_eq!(list(&list_of(count, there)), None, "{count} {there}");
        }
        let whole = list_of(1, 1);
        for end in 0..whole.len() {
            assert_eq!(list(&whole[..end]), None);
        }
        let mut newer = whole.clone();
        newer[2] = 1;
        assert_eq!(list(&newer), None);
    }
}
