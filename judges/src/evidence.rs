//! Quote and collateral, as the judge takes them.

use std::time::Duration;

use dcap::{Collateral, Time};
use der::DateTime;
use mc_attestation_verifier::{
    Accessor, Advisories, Evidence, EvidenceVerifier, TrustedIdentity, TrustedMrSignerIdentity,
    VerificationTreeDisplay, Verifier,
};
use mc_sgx_core_types::{IsvProductId, IsvSvn, MrSigner};
use mc_sgx_dcap_sys_types::sgx_ql_qve_collateral_t;
use mc_sgx_dcap_types::Quote3;

use crate::OpenSsl;

/// What the judge thinks.
#[derive(Debug)]
pub struct Opinion {
    /// Whether chains, TCB info, QE identity, quoting enclave and signatures are good. The
    /// quoting enclave is to be up to date: the judge knows no other good one.
    pub genuine: bool,
    /// Whether the enclave is also the one that was expected, on a platform whose advisories
    /// were expected.
    pub accepted: bool,
    /// The platform's status and its advisories, as it shows them.
    pub advisories: String,
    /// All of it in words.
    pub said: String,
}

/// What the judge says of an enclave that was not expected.
const NO_IDENTITY: &str = "No enclave identity matched";

/// What the judge's words for a status and these advisories are.
pub fn advisories(status: &str, ids: &[String]) -> String {
    let ids: std::collections::BTreeSet<_> = ids.iter().collect();
    let ids = if ids.is_empty() { "(none)".to_owned() } else { format!("{ids:?}") };
    format!("IDs: {ids} Status: {status}")
}

/// Collateral in the judge's form: through Intel's structure, which it reads.
fn collateral(from: &Collateral) -> Result<mc_sgx_dcap_types::Collateral, String> {
    fn set(pointer: &mut *mut std::ffi::c_char, size: &mut u32, bytes: &mut Vec<u8>) {
        bytes.push(0);
        *pointer = bytes.as_mut_ptr().cast();
        *size = bytes.len().try_into().expect("smaller than 16 MiB");
    }
    let signed = |name: &str, text: &str, signature: &[u8]| {
        format!(r#"{{"{name}":{text},"signature":"{}"}}"#, dcap::hex::encode(signature)).into_bytes()
    };
    let mut tcb_info = signed("tcbInfo", &from.tcb_info, &from.tcb_info_signature);
    let mut qe_identity = signed("enclaveIdentity", &from.qe_identity, &from.qe_identity_signature);
    let (mut root_crl, mut pck_crl) = (from.root_ca_crl.clone(), from.pck_crl.clone());
    let mut crl_chain = from.pck_crl_issuer_chain.clone().into_bytes();
    let mut tcb_chain = from.tcb_info_issuer_chain.clone().into_bytes();
    let mut qe_chain = from.qe_identity_issuer_chain.clone().into_bytes();

    let mut all = sgx_ql_qve_collateral_t::default();
    // SAFETY: all bytes of a new structure are zero, a value of either side of this union.
    let version = unsafe { all.__bindgen_anon_1.__bindgen_anon_1.as_mut() };
    // lists in DER
    (version.major_version, version.minor_version) = (3, 1);
    set(&mut all.root_ca_crl, &mut all.root_ca_crl_size, &mut root_crl);
    set(&mut all.pck_crl, &mut all.pck_crl_size, &mut pck_crl);
    set(&mut all.pck_crl_issuer_chain, &mut all.pck_crl_issuer_chain_size, &mut crl_chain);
    set(&mut all.tcb_info_issuer_chain, &mut all.tcb_info_issuer_chain_size, &mut tcb_chain);
    set(&mut all.tcb_info, &mut all.tcb_info_size, &mut tcb_info);
    set(&mut all.qe_identity_issuer_chain, &mut all.qe_identity_issuer_chain_size, &mut qe_chain);
    set(&mut all.qe_identity, &mut all.qe_identity_size, &mut qe_identity);
    // it copies what the pointers lead to
    mc_sgx_dcap_types::Collateral::try_from(&all).map_err(|error| error.to_string())
}

/// Has a quote judged under a root. `config` and `hardening` are the advisories that are
/// expected, and the statuses with them: it takes a platform that needs configuration if there
/// are some of the first, software hardening if there are some of the second.
///
/// # Errors
/// The judge cannot read one of the two, or finds no TCB level for the platform.
pub fn judge(
    quote: &[u8],
    from: &Collateral,
    root: &str,
    at: Time,
    [config, hardening]: [&[String]; 2],
) -> Result<Opinion, String> {
    let parsed = dcap::Quote::parse(quote).map_err(|refusal| refusal.to_string())?;
    let dcap::quote::Body::Enclave(report) = &parsed.body else { return Err("no enclave's".into()) };
    let identity = TrustedMrSignerIdentity::new(
        MrSigner::from(report.mrsigner),
        IsvProductId::from(report.isvprodid),
        IsvSvn::from(report.isvsvn),
        config,
        hardening,
    );
    let quote = Quote3::try_from(quote).map_err(|error| error.to_string())?;
    let evidence: Evidence<Vec<u8>> =
        Evidence::new(quote, collateral(from)?).map_err(|error| error.to_string())?.into();
    let at = DateTime::from_unix_duration(Duration::from_secs(at.unix())).map_err(|e| e.to_string())?;
    let verifier = EvidenceVerifier::new(OpenSsl::trusting(root), [TrustedIdentity::from(identity)], at);
    let output = verifier.verify(&evidence);
    let accepted = bool::from(output.is_success());
    let said = VerificationTreeDisplay::new(&verifier, output).to_string();
    let platform: Advisories = evidence.get();
    // the first line is of the whole, the last part of the expected identity
    let mut before = said.lines().skip(1).take_while(|line| !line.contains(NO_IDENTITY));
    let genuine = before.all(|line| !line.trim_start().starts_with("- [ ]"));
    Ok(Opinion { genuine, accepted, advisories: platform.to_string(), said })
}
