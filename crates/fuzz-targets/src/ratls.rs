//! Certificates with evidence, and evidence alone, of anybody's making: [`::ratls`] and
//! [`enclave_tls::evidence`].

use ::ratls::{Policy, Root, Verifier};
use dcap::issue::sign;
use dcap::testing::{Bundle, Parts};
use der::Encode;
use der::asn1::{BitString, OctetString};
use enclave_tls::evidence::{Claims, EVIDENCE, Evidence, report_data};
use std::sync::OnceLock;
use x509_cert::ext::Extension;

/// A server that is believed, the same each time.
struct Believed {
    bundle: Bundle,
    verifier: Verifier,
    /// What the quote binds.
    spki: Vec<u8>,
    evidence: Vec<u8>,
    claims: Vec<u8>,
    certificate: Vec<u8>,
}

impl Believed {
    fn get() -> &'static Self {
        static MADE: OnceLock<Believed> = OnceLock::new();
        MADE.get_or_init(|| Self::make().expect("all of it can be encoded"))
    }

    fn make() -> Result<Self, Box<dyn std::error::Error>> {
        let mut parts = Parts::default();
        // some certificate, with a key of nobody else's that signs it
        let mut tbs = parts.tcb.clone();
        let key = &parts.keys.stranger;
        tbs.subject_public_key_info.subject_public_key = BitString::from_bytes(&key.public().sec1())?;
        let spki = tbs.subject_public_key_info.to_der()?;
        let claims = Claims::of_key(&spki, Some(b"nonce".to_vec())).write();
        parts.report.reportdata = report_data(&claims);
        let bundle = parts.bundle()?;
        let evidence = Evidence { quote: &bundle.quote, claims: &claims }.write();
        let extn_value = OctetString::new(evidence.clone())?;
        tbs.extensions = Some(vec![Extension { extn_id: EVIDENCE, critical: false, extn_value }]);
        let certificate = sign(&tbs.to_der()?, &parts.keys.stranger)?;
        let policy = Policy { accept_software_platform: true, ..Policy::default() };
        let verifier = Verifier::new(Root::from_der(&bundle.root)?, bundle.collateral.clone(), policy);
        Ok(Self { bundle, verifier, spki, evidence, claims, certificate })
    }
}

/// What is believed has the key that the quote binds; what is read is written as it was.
pub fn ratls_certificate(data: &[u8]) {
    let believed = Believed::get();
    match believed.verifier.verify(data, believed.bundle.at) {
        Ok(attested) => {
            assert_eq!(attested.nonce.as_deref(), Some(&b"nonce"[..]));
            assert!(data.windows(believed.spki.len()).any(|bytes| bytes == believed.spki));
        }
        Err(refusal) => {
            let text = refusal.to_string();
            assert!(!text.contains(char::is_control), "{text}");
        }
    }
    if let Ok(evidence) = Evidence::read(data) {
        assert_eq!(evidence.write(), data);
    }
    if let Ok(claims) = Claims::read(data) {
        assert_eq!(Claims::read(&claims.write()), Ok(claims));
    }
}

/// A certificate that is believed, and its parts.
pub fn certificates() -> Vec<Vec<u8>> {
    let Believed { certificate, evidence, claims, .. } = Believed::get();
    vec![certificate.clone(), evidence.clone(), claims.clone()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else every input is refused for the first thing that is looked at.
    #[test]
    fn the_seed_is_believed() {
        let believed = Believed::get();
        believed.verifier.verify(&believed.certificate, believed.bundle.at).unwrap();
    }
}
