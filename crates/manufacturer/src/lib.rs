//! The maker of a platform: what Intel is to silicon, a platform's owner is to the platform.
//!
//! All that a maker issues follows from the platform's [`Roots`], its books
//! and the time; nothing of it is kept in files, so nothing of it can be out of date:
//!
//! * [`keys`]: the keys of root, PCK CA and TCB signer, from the platform's secrets
//! * [`enclaves`]: the architectural enclaves, their signer, and the PCK key, which the
//!   provisioning-certification enclave derives in the machine
//! * [`issue`]: certificates, revocation lists, TCB info and QE identity for a time
//!
//! Certificates have the names and extensions of [`dcap::issue`]; nobody shall take them for
//! silicon's.
#![forbid(unsafe_code)]

pub mod enclaves;
pub mod issue;
pub mod keys;
#[cfg(feature = "testing")]
pub mod testing;

pub use enclaves::processor;
pub use issue::{FMSPC, Issued, PCK_CRL, ROOT_CRL};

use dcap::key::PrivateKey;
use dcap::pki::Certificate;
use dcap::time::Validity;
use dcap::{Refusal, Root, Time};
use enclave_image::key::{KeyError, SigningKey};
use enclave_image::sigstruct::SigstructError;
use keys::Keys;
use platform::{CpuSvn, Platform, PlatformError, Roots};
use std::path::Path;

/// Why a maker cannot issue anything.
#[derive(Debug, thiserror::Error)]
pub enum ManufacturerError {
    /// The platform.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// An architectural enclave cannot be signed.
    #[error("the platform's architectural enclaves cannot be signed: {0}")]
    Sign(#[from] SigstructError),
    /// The key of the architectural enclaves.
    #[error("the platform's key for its architectural enclaves {0}")]
    Key(#[from] KeyError),
    /// What was to be issued.
    #[error("cannot issue what the platform is to be known by: {0}")]
    Issue(#[from] Refusal),
    /// A date beyond the year 9999.
    #[error("the platform was made at no time that a certificate can name: look at the host's clock")]
    Date,
}

/// The maker of one platform.
pub struct Manufacturer {
    roots: Roots,
    keys: Keys,
    /// Of its architectural enclaves.
    mrsigner: [u8; 32],
}

impl Manufacturer {
    /// The maker of the platform in `dir`; `None` if there is no platform, or one of which
    /// nothing was issued yet.
    ///
    /// # Errors
    /// The platform or its signing key cannot be used.
    pub fn open(dir: &Path) -> Result<Option<Self>, ManufacturerError> {
        match Platform::roots(dir)? {
            Some(roots) if !roots.books.signing_key.is_empty() => Self::of(roots).map(Some),
            _ => Ok(None),
        }
    }

    /// The same for a platform that is there; makes its signing key, which takes seconds, if
    /// it has none yet.
    ///
    /// # Errors
    /// As of [`Manufacturer::open`]; there is no platform, or the key cannot be made or written.
    pub fn equip(dir: &Path) -> Result<Self, ManufacturerError> {
        Platform::equip(dir, || Ok::<_, ManufacturerError>(SigningKey::generate()?.to_pem()?))?;
        Self::open(dir)?.ok_or_else(|| PlatformError::Missing(dir.to_owned()).into())
    }

    /// The maker of a platform that is in use, or new and not written yet; `make` is called
    /// before its signing key is made, if it has none yet.
    ///
    /// # Errors
    /// As of [`Manufacturer::equip`].
    pub fn of_platform(platform: &mut Platform, make: impl FnOnce()) -> Result<Self, ManufacturerError> {
        Self::of(platform.equipped(|| {
            make();
            Ok::<_, ManufacturerError>(SigningKey::generate()?.to_pem()?)
        })?)
    }

    fn of(roots: Roots) -> Result<Self, ManufacturerError> {
        let mrsigner = SigningKey::from_pem(&roots.books.signing_key)?.public().mrsigner();
        Ok(Self { keys: Keys::of(&roots), roots, mrsigner })
    }

    /// MRSIGNER of the platform's architectural enclaves.
    pub fn mrsigner(&self) -> [u8; 32] {
        self.mrsigner
    }

    /// The root, always the same.
    ///
    /// # Errors
    /// As of [`Manufacturer::issued`].
    pub fn root(&self) -> Result<Root, ManufacturerError> {
        Ok(Root::from_der(issue::root(self)?.der())?)
    }

    /// The key of the authority for TLS of the platform's collateral service, always the same.
    /// It signs nothing that verifiers of quotes believe. Of the maker nothing else is left.
    pub fn into_tls_key(self) -> PrivateKey {
        self.keys.tls
    }

    /// For how long certificates are valid that depend on nothing but the platform.
    ///
    /// # Errors
    /// As of [`Manufacturer::issued`].
    pub fn life(&self) -> Result<Validity, ManufacturerError> {
        let from = issue::made(self)?;
        Ok(Validity { from, until: issue::plus_days(from, issue::LIFE)? })
    }

    /// Names of the advisories that concern the platform's security version.
    pub fn advisories(&self) -> Vec<String> {
        let open = self.roots.books.advisories.iter().filter(|advisory| advisory.fixed_in > self.roots.svn);
        open.map(|advisory| advisory.id.clone()).collect()
    }

    /// Whether the PCK certificate of the platform's security version is revoked.
    pub fn is_revoked(&self) -> bool {
        self.roots.books.revoked.iter().any(|revocation| revocation.svn == self.roots.svn)
    }

    /// The PCK certificate of a security version; `None` for one that the platform does not
    /// have yet.
    ///
    /// # Errors
    /// As of [`Manufacturer::issued`].
    pub fn pck(&self, svn: CpuSvn) -> Result<Option<Certificate>, ManufacturerError> {
        (svn.svn() <= self.roots.svn).then(|| issue::pck(self, svn)).transpose()
    }

    /// All that is issued at a time, for the platform's security version of today.
    ///
    /// # Errors
    /// The platform's dates are beyond what certificates can say.
    pub fn issued(&self, at: Time) -> Result<Issued, ManufacturerError> {
        issue::issued(self, at)
    }
}

impl std::fmt::Debug for Manufacturer {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manufacturer").field("mrsigner", &dcap::hex::encode(&self.mrsigner)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dcap::hex::encode;

    /// Whether a type can be printed: what has `Debug` has a constant of its own, which goes
    /// before that of the trait.
    macro_rules! prints {
        ($type:ty) => {{
            #[allow(dead_code, reason = "types with Debug use the other")]
            trait No {
                const PRINTS: bool = false;
            }
            impl<T> No for Of<T> {}
            struct Of<T>(std::marker::PhantomData<T>);
            #[allow(dead_code, reason = "types without Debug use the other")]
            impl<T: std::fmt::Debug> Of<T> {
                const PRINTS: bool = true;
            }
            <Of<$type>>::PRINTS
        }};
    }

    #[test]
    fn keys_cannot_be_printed() {
        assert_eq!([prints!(Manufacturer), prints!(Issued)], [true; 2], "this is how it would look");
        assert!(![prints!(Keys), prints!(Roots), prints!(sgx::keys::Roots)].contains(&true));
    }

    /// What can be printed of a maker is what everybody may know.
    #[test]
    fn a_maker_is_printed_without_its_secrets() {
        let mut roots = Roots::generate(1_767_225_600).unwrap();
        // one that need not be made
        roots.books.signing_key.push_str(include_str!("../../kluis/tests/testdata/enclave-keys/one.pem"));
        let maker = Manufacturer::of(roots).unwrap();
        let issued = maker.issued(Time::from_unix(1_767_830_400).unwrap()).unwrap();
        let pck_key = maker.pck_key(maker.roots.fused().cpusvn());
        let signing = SigningKey::from_pem(&maker.roots.books.signing_key).unwrap();
        let mut said = format!("{maker:?}{maker:#?}{issued:?}{issued:#?}");
        said += &format!("{:?}{pck_key:?}{signing:?}{signing:#?}", maker.keys.root);
        assert!(said.contains(&encode(&maker.mrsigner)) && said.contains("PrivateKey(…)"));
        let Roots { seal_fuses, provisioning_fuses, owner_epoch, svn_top, .. } = &maker.roots;
        for secret in [&seal_fuses[..], provisioning_fuses, owner_epoch, svn_top] {
            for part in secret.windows(8) {
                let numbers = format!("{part:?}").replace(['[', ']'], "");
                assert!(!said.contains(&encode(part)) && !said.contains(&numbers));
            }
        }
        for line in maker.roots.books.signing_key.lines().filter(|line| line.len() == 64) {
            assert!(!said.contains(line));
        }
    }
}
