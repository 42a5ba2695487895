//! The secrets of one processor package, and what a processor is given of them.
//!
//! Security versions (SVN) follow the rule of *SDM vol. 3D, EGETKEY* and
//! CPUSVN: a processor derives keys of its own and of every *earlier* version,
//! never of a later one. So each version has a secret, and the secret of
//! version *n* is a one-way function of that of *n* + 1. The folder keeps the
//! chain's end, [`SVN_MAX`]; a processor is given the secret of its own version
//! only, and from there no way leads up.

use crate::PlatformError;
use crate::books::Books;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The security version of a new platform.
pub const SVN_FIRST: u8 = 1;
/// The greatest security version.
pub const SVN_MAX: u8 = u8::MAX;

/// Sets the chain's function apart from other uses of SHA-256.
const STEP_LABEL: &[u8; 24] = b"kluis cpusvn chain step\0";

/// The secret of the next earlier security version. `sgx::keys::svn_step` is the
/// same, where a processor goes on with the chain.
pub fn svn_step(secret: &[u8; 32]) -> [u8; 32] {
    let hash = Sha256::new().chain_update(STEP_LABEL).chain_update(secret);
    hash.finalize().into()
}

/// `steps` times [`svn_step`].
fn svn_steps(from: &[u8; 32], steps: u8) -> Zeroizing<[u8; 32]> {
    let mut secret = Zeroizing::new(*from);
    for _ in 0..steps {
        secret = Zeroizing::new(svn_step(&secret));
    }
    secret
}

/// CPUSVN as enclaves see it: 16 components, of which the first is the
/// platform's security version and the others are constant (zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuSvn(u8);

impl CpuSvn {
    /// The CPUSVN of this version; `None` for 0, which no platform has.
    pub fn new(svn: u8) -> Option<Self> {
        (svn >= SVN_FIRST).then_some(Self(svn))
    }

    /// From the 16 bytes of a structure; `None` if no platform has such a
    /// CPUSVN, now or later.
    pub fn from_bytes(bytes: &[u8; 16]) -> Option<Self> {
        bytes[1..].iter().all(|&b| b == 0).then(|| Self::new(bytes[0])).flatten()
    }

    /// The 16 bytes of REPORT, KEYREQUEST and EINITTOKEN.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0] = self.0;
        bytes
    }

    /// The version.
    pub fn svn(self) -> u8 {
        self.0
    }
}

/// What the folder keeps: everything, to the end of the chain of versions.
///
/// Wiped when dropped; neither cloned nor printed.
#[derive(Zeroize, ZeroizeOnDrop, PartialEq, Eq)]
pub struct Roots {
    /// Public identity of the package.
    pub platform_id: [u8; 16],
    /// When it was made, in seconds since 1970 (UTC).
    pub created: u64,
    /// When it was last changed, in seconds since 1970 (UTC).
    pub changed: u64,
    /// CR_SEAL_FUSES.
    pub seal_fuses: [u8; 16],
    /// The fuses of the provisioning key.
    pub provisioning_fuses: [u8; 16],
    /// CR_SGXOWNEREPOCH.
    pub owner_epoch: [u8; 16],
    /// How many owner epochs there were, this one included.
    pub owner_epoch_number: u32,
    /// Current security version.
    pub svn: u8,
    /// The secret of version [`SVN_MAX`].
    pub svn_top: [u8; 32],
    /// What their maker keeps beside them.
    pub books: Books,
}

impl Roots {
    /// New ones, from the host's random numbers.
    ///
    /// # Errors
    /// The host gives none.
    pub fn generate(now: u64) -> Result<Self, PlatformError> {
        let mut roots = Self {
            platform_id: [0; 16],
            created: now,
            changed: now,
            seal_fuses: [0; 16],
            provisioning_fuses: [0; 16],
            owner_epoch: [0; 16],
            owner_epoch_number: 1,
            svn: SVN_FIRST,
            svn_top: [0; 32],
            books: Books::default(),
        };
        let Self { platform_id, seal_fuses, provisioning_fuses, owner_epoch, svn_top, .. } = &mut roots;
        let all: [&mut [u8]; 5] = [platform_id, seal_fuses, provisioning_fuses, owner_epoch, svn_top];
        for secret in all {
            getrandom::fill(secret).map_err(PlatformError::Random)?;
        }
        Ok(roots)
    }

    /// The secret of security version `svn`, the platform's own or an earlier
    /// one; `None` for later ones. Zero, which no platform has, is before all
    /// others: enclaves may ask for it.
    pub fn svn_secret(&self, svn: u8) -> Option<Zeroizing<[u8; 32]>> {
        (svn <= self.svn).then(|| svn_steps(&self.svn_top, SVN_MAX - svn))
    }

    /// What a processor of this platform has in its fuses.
    pub fn fused(&self) -> Fused {
        Fused {
            platform_id: self.platform_id,
            seal_fuses: self.seal_fuses,
            provisioning_fuses: self.provisioning_fuses,
            owner_epoch: self.owner_epoch,
            svn: self.svn,
            svn_secret: *svn_steps(&self.svn_top, SVN_MAX - self.svn),
        }
    }
}

/// What a processor is given: the same, but of the chain of versions only the
/// current version's secret.
///
/// Wiped when dropped; neither cloned nor printed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Fused {
    /// Public identity of the package.
    pub platform_id: [u8; 16],
    /// CR_SEAL_FUSES.
    pub seal_fuses: [u8; 16],
    /// The fuses of the provisioning key.
    pub provisioning_fuses: [u8; 16],
    /// CR_SGXOWNEREPOCH.
    pub owner_epoch: [u8; 16],
    /// Current security version.
    pub svn: u8,
    /// The secret of version `svn`.
    pub svn_secret: [u8; 32],
}

impl Fused {
    /// The processor's CPUSVN.
    pub fn cpusvn(&self) -> CpuSvn {
        CpuSvn(self.svn)
    }

    /// The secret of security version `svn`, as [`Roots::svn_secret`].
    pub fn svn_secret(&self, svn: u8) -> Option<Zeroizing<[u8; 32]>> {
        Some(svn_steps(&self.svn_secret, self.svn.checked_sub(svn)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_secrets_follow_from_later_ones_and_not_the_reverse() {
        let mut roots = Roots::generate(0).unwrap();
        roots.svn = 4;
        let secret = |n| *roots.svn_secret(n).unwrap();
        for n in 0..4 {
            assert_eq!(svn_step(&secret(n + 1)), secret(n));
            assert_ne!(svn_step(&secret(n)), secret(n + 1));
        }
        let mut all: Vec<_> = (0..=4).map(secret).collect();
        all.push(roots.svn_top);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6, "each version has its own");
        for n in [5, SVN_MAX] {
            assert_eq!(roots.svn_secret(n), None);
        }
    }

    #[test]
    fn processor_derives_what_the_folder_does_and_nothing_later() {
        let mut roots = Roots::generate(0).unwrap();
        roots.svn = 3;
        let fused = roots.fused();
        for n in 0..=SVN_MAX {
            assert_eq!(fused.svn_secret(n), roots.svn_secret(n), "{n}");
        }
        assert_ne!(fused.svn_secret, roots.svn_top);
        roots.svn = 4;
        let next = roots.fused();
        assert_eq!(next.svn_secret(3).as_deref(), Some(&fused.svn_secret));
        assert_eq!(fused.svn_secret(4), None);
        roots.svn = SVN_MAX;
        assert_eq!(roots.svn_secret(SVN_MAX).as_deref(), Some(&roots.svn_top));
        assert_eq!(roots.fused().svn_secret(1), fused.svn_secret(1));
    }

    #[test]
    fn chain_is_the_same_for_ever() {
        // data sealed today must be readable by later versions of Kluis;
        // the value is of another program:
        // printf 'kluis cpusvn chain step\0' followed by 32 zero bytes | sha256sum
        let want = "3c4dcb60d99cb265a4d8bfc9cb18a5e58824875f86c54026c36a8024681821a4";
        let got: String = svn_step(&[0; 32]).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn new_roots_are_all_different() {
        let (a, b) = (Roots::generate(5).unwrap(), Roots::generate(5).unwrap());
        assert_ne!(a.platform_id, b.platform_id);
        assert_ne!(a.seal_fuses, b.seal_fuses);
        assert_ne!(a.provisioning_fuses, b.provisioning_fuses);
        assert_ne!(a.owner_epoch, b.owner_epoch);
        assert_ne!(a.svn_top, b.svn_top);
        assert_ne!(a.seal_fuses, a.provisioning_fuses);
        assert_eq!((a.svn, a.owner_epoch_number, a.created, a.changed), (1, 1, 5, 5));
    }

    #[test]
    fn cpusvn_has_one_component() {
        let svn = CpuSvn::new(7).unwrap();
        assert_eq!(svn.to_bytes(), [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(CpuSvn::from_bytes(&svn.to_bytes()), Some(svn));
        assert_eq!(CpuSvn::new(0), None);
        assert_eq!(CpuSvn::from_bytes(&[0; 16]), None);
        for i in 1..16 {
            let mut bytes = svn.to_bytes();
            bytes[i] = 1;
            assert_eq!(CpuSvn::from_bytes(&bytes), None, "{i}");
        }
        assert!(CpuSvn::new(8) > Some(svn));
    }
}
