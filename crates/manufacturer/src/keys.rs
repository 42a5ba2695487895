//! The keys that a maker signs with, from the platform's secrets.
//!
//! They are hashes, with labels, of the end of the chain of security versions, which no
//! processor is given, and of the provisioning fuses. So a backup of the platform is one of
//! its maker, and platforms that were made before there were makers have one.

use dcap::key::PrivateKey;
use platform::Roots;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Sets these keys apart from whatever else the secrets are used for.
const LABEL: &[u8; 24] = b"kluis manufacturer key\0\0";

/// The keys. Wiped when dropped; never printed.
pub struct Keys {
    /// Of the root.
    pub root: PrivateKey,
    /// Of the PCK CA.
    pub pck_ca: PrivateKey,
    /// Of the TCB signer.
    pub tcb: PrivateKey,
    /// Of the authority for TLS of the platform's collateral service.
    pub tls: PrivateKey,
}

impl Keys {
    /// Those of a platform.
    pub fn of(roots: &Roots) -> Self {
        let key = |role: &[u8]| derive(&roots.svn_top, &roots.provisioning_fuses, role);
        Self {
            root: key(b"root"),
            pck_ca: key(b"pck ca"),
            tcb: key(b"tcb signing"),
            tls: key(b"collateral tls"),
        }
    }
}

/// The first of a sequence of hashes that is a private key of P-256 (*FIPS 186-5 §A.2.2*);
/// for all but one in 2^32 secrets it is the first of all.
fn derive(svn_top: &[u8; 32], provisioning_fuses: &[u8; 16], role: &[u8]) -> PrivateKey {
    let candidate = |number: u8| {
        let hash = Sha256::new()
            .chain_update(LABEL)
            .chain_update(svn_top)
            .chain_update(provisioning_fuses)
            .chain_update([number])
            .chain_update(role);
        PrivateKey::from_bytes(&Zeroizing::new(hash.finalize().into())).ok()
    };
    (0..=u8::MAX).find_map(candidate).expect("256 failures of one in 2^32 each do not happen")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Certificates that were given away name these keys: they are the same for ever. The
    /// value was computed apart, with Python's hashlib and the formulas of the curve.
    #[test]
    fn keys_are_the_same_for_ever() {
        let key = derive(&[1; 32], &[2; 16], b"root");
        assert_eq!(
            dcap::hex::encode(&key.public().0),
            "1b38cdee7ebbc678d644f82123fb6bdca895d482c0c03b985d57ca713e1b2f76dd5958c8c07701cba18bf75f3d8361ff3e634d529e2614aaf63b4745c2b9b2e8"
        );
        for other in [derive(&[1; 32], &[2; 16], b"tcb signing"), derive(&[3; 32], &[2; 16], b"root")] {
            assert_ne!(other.public(), key.public());
        }
    }
}
