//! The architectural enclaves as their maker knows them: what the provisioning-certification
//! enclave's processor gives it, and the PCK key that follows.

use crate::{Manufacturer, ManufacturerError};
use dcap::Time;
use dcap::key::PrivateKey;
use enclave_image::{SigningKey, Statement, sigstruct};
use platform::{CpuSvn, Fused};
use provisioning::{PCE_PRODUCT, PCE_SVN, pce_attributes};
use sgx::keys::{CpusvnBeyondCurrent, Key, Roots, requested_key};
use sgx::sigstruct::PADDING;
use sgx_abi::{KeyName, Keyrequest, Secs, Sigstruct};
use zeroize::Zeroizing;

/// The secrets of a platform as its processor has them in its fuses.
pub fn processor(fused: &Fused) -> Roots {
    Roots {
        seal_fuses: fused.seal_fuses,
        provisioning_fuses: fused.provisioning_fuses,
        owner_epoch: fused.owner_epoch,
        cpusvn: fused.svn,
        svn_secret: fused.svn_secret,
    }
}

/// What EGETKEY gives the provisioning-certification enclave whose signer is `mrsigner`.
///
/// # Errors
/// The request is for a later security version than the processor's.
fn provisioning_key(
    processor: &Roots,
    mrsigner: [u8; 32],
    request: &Keyrequest,
) -> Result<Key, CpusvnBeyondCurrent> {
    let mut secs = Secs { mrsigner, isvprodid: PCE_PRODUCT, attributes: pce_attributes(), ..Secs::default() };
    secs.private.padding = PADDING;
    requested_key(processor, KeyName::Provision, &secs, request)
}

impl Manufacturer {
    /// The PCK key of a security version that the platform has or had. Of it the certificate
    /// alone leaves this crate.
    pub(crate) fn pck_key(&self, svn: CpuSvn) -> PrivateKey {
        let request = provisioning::key_request(svn.to_bytes(), PCE_SVN);
        let scalar = provisioning::pck_key(&self.provisioning_key(&request)).to_bytes();
        let scalar = Zeroizing::new(<[u8; 32]>::from(scalar));
        PrivateKey::from_bytes(&scalar).expect("a private key of P-256")
    }

    /// The platform's provisioning identifier.
    pub(crate) fn ppid(&self) -> [u8; 16] {
        provisioning::ppid(&self.provisioning_key(&provisioning::ppid_request()))
    }

    /// Signs an architectural enclave of the platform. The date is that of the platform, so that
    /// it is the same signature whenever it is asked for.
    ///
    /// # Errors
    /// The platform's key or date cannot be used.
    pub fn sign(&self, enclave: Statement) -> Result<Sigstruct, ManufacturerError> {
        let made = Time::from_unix(self.roots.created).ok_or(ManufacturerError::Date)?.to_string();
        let date = sigstruct::date(made.split('T').next().unwrap_or_default())?;
        let key = SigningKey::from_pem(&self.roots.books.signing_key)?;
        Ok(Statement { date, ..enclave }.sign(&key)?)
    }

    fn provisioning_key(&self, request: &Keyrequest) -> Key {
        let processor = processor(&self.roots.fused());
        let key = provisioning_key(&processor, self.mrsigner, request);
        key.expect("requests are for the processor's own version or an earlier one")
    }
}
