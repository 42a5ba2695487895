//! What a platform's maker and its provisioning-certification enclave (PCE) derive alike:
//! the platform's PCK key and its identifier (PPID), both from EGETKEY(PROVISION_KEY).
//!
//! The enclave asks its processor for the provisioning key of [`key_request`]; the maker
//! computes the same key from the platform's roots, for the enclave that [`PCE_PRODUCT`] and
//! [`pce_attributes`] describe. From there on both use the functions below. So the maker
//! knows the public key without having met the enclave, and the private key is in no file.
//!
//! The provisioning key depends on CPUSVN and on the enclave's signer, product, security
//! version and the attributes that count (DEBUG among them): a debug build of the enclave,
//! or one of somebody else's, has another key (*SDM vol. 3D, EGETKEY, Key Derivation*).
#![no_std]
#![forbid(unsafe_code)]

use aes::Aes128;
use cmac::{Cmac, Mac};
use p256::SecretKey;
use sgx_abi::{AttributeFlags, Attributes, KeyName, Keyrequest};
use zeroize::Zeroizing;

/// ISVPRODID of the quoting enclave: that of Intel's, which clients ask for.
pub const QE_PRODUCT: u16 = 1;
/// ISVPRODID of the provisioning-certification enclave. It is not the quoting enclave's,
/// which is signed by the same key and must not derive the PCK key.
pub const PCE_PRODUCT: u16 = 2;
/// ISVSVN of the quoting enclave.
pub const QE_SVN: u16 = 1;
/// ISVSVN of the provisioning-certification enclave (PCESVN).
pub const PCE_SVN: u16 = 1;
/// Identifier of the provisioning-certification enclave (PCEID), as Intel's.
pub const PCE_ID: [u8; 2] = [0, 0];

/// Labels that tell apart what is derived from a provisioning key.
const LABEL_PCK: &[u8; 15] = b"kluis pck key\0\0";
const LABEL_PPID: &[u8; 16] = b"kluis ppid\0\0\0\0\0\0";

/// The attributes of the provisioning-certification enclave on which its keys depend.
pub fn pce_attributes() -> Attributes {
    let flags = AttributeFlags::INIT | AttributeFlags::MODE64BIT | AttributeFlags::PROVISIONKEY;
    Attributes { flags, xfrm: 0 }
}

/// The attributes of the quoting enclave, of which the QE identity speaks: Intel's has
/// PROVISIONKEY too, and verifiers expect it.
pub fn qe_attributes() -> Attributes {
    pce_attributes()
}

/// The request for the provisioning key of a processor's and an enclave's security version.
pub fn key_request(cpusvn: [u8; 16], isvsvn: u16) -> Keyrequest {
    // which state of the processor it may use says nothing about whether it is genuine
    let attributemask = Attributes { flags: pce_attributes().flags | AttributeFlags::DEBUG, xfrm: 0 };
    Keyrequest { keyname: KeyName::Provision as u16, cpusvn, isvsvn, attributemask, ..Keyrequest::default() }
}

/// The request for the provisioning key behind the PPID: it asks for the versions before all
/// others, so that no update changes it.
pub fn ppid_request() -> Keyrequest {
    key_request([0; 16], 0)
}

/// The PCK key of a provisioning key: the first of a sequence of 256-bit numbers that is a
/// private key of P-256 (*FIPS 186-5 §A.2.2*); each is two CMACs (*SP 800-108, counter
/// mode*). All but one in 2^32 keys are the first.
pub fn pck_key(provisioning_key: &[u8; 16]) -> SecretKey {
    let candidate = |number: u8| {
        let mut scalar = Zeroizing::new([0; 32]);
        for (half, bytes) in scalar.chunks_exact_mut(16).enumerate() {
            let mac = <Cmac<Aes128> as Mac>::new(provisioning_key.into())
                .chain_update([number, half as u8])
                .chain_update(LABEL_PCK);
            bytes.copy_from_slice(&mac.finalize().into_bytes());
        }
        SecretKey::from_slice(&scalar[..]).ok()
    };
    (0..=u8::MAX).find_map(candidate).expect("256 failures of one in 2^32 each do not happen")
}

/// The platform's provisioning identifier, of the provisioning key of [`ppid_request`].
pub fn ppid(provisioning_key: &[u8; 16]) -> [u8; 16] {
    <Cmac<Aes128> as Mac>::new(provisioning_key.into())
        .chain_update(LABEL_PPID)
        .finalize()
        .into_bytes()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Certificates are issued for these keys: they are the same for ever. The values are
    /// OpenSSL's: `openssl mac -cipher AES-128-CBC -macopt hexkey:… CMAC`.
    #[test]
    fn keys_are_the_same_for_ever() {
        let hex = |bytes: &[u8]| -> [u8; 64] {
            let mut digits = [b'0'; 64];
            for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
                pair.copy_from_slice(&[byte >> 4, byte & 15].map(|n| b"0123456789abcdef"[usize::from(n)]));
            }
            digits
        };
        let key = [7; 16];
        assert_eq!(&hex(&pck_key(&key).to_bytes()), PCK);
        assert_eq!(&hex(&ppid(&key))[..32], PPID);
        assert_ne!(pck_key(&[8; 16]), pck_key(&key));
    }

    /// The PCK key is printed as something that is none of its bytes.
    #[test]
    fn keys_are_not_printed() {
        extern crate std;
        let key = pck_key(&[7; 16]);
        let scalar = key.to_bytes();
        let said = std::format!("{key:?}{key:#?}");
        assert!(said.contains("SecretKey"));
        for part in scalar.windows(8) {
            let numbers = std::format!("{part:?}").replace(['[', ']'], "");
            let hex = numbers.split(", ").map(|n| std::format!("{:02x}", n.parse::<u8>().unwrap()));
            let hex: std::string::String = hex.collect();
            assert!(!said.to_lowercase().contains(&hex) && !said.contains(&numbers));
        }
    }

    const PCK: &[u8; 64] = b"e2c0c40245baab77de676c226cb4e50a9073c7dcff15eccf33246386781e792b";
    const PPID: &[u8; 32] = b"964c95a42558c55557b3562b3c1da35c";

    #[test]
    fn requests_can_be_made_and_differ_in_versions_alone() {
        let request = key_request([3; 16], 2);
        assert!(request.reserved_is_zero());
        assert_eq!((request.cpusvn, request.isvsvn), ([3; 16], 2));
        assert_eq!(key_request([0; 16], 0), ppid_request());
        assert_ne!(PCE_PRODUCT, QE_PRODUCT);
    }
}
