//! Why something is refused: which field broke which rule.

use std::fmt;

/// A refusal: one line that names the field, what is wrong with it, and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what} [{}]", rule.name())]
pub struct Refusal {
    /// The rule that was broken.
    pub rule: Rule,
    /// The object and its field, such as `PCK certificate: basicConstraints.pathLen`.
    pub field: String,
    /// What is wrong, and what was expected instead.
    pub what: String,
}

impl Refusal {
    pub(crate) fn new(rule: Rule, field: impl Into<String>, what: impl fmt::Display) -> Self {
        // text that a file may have chosen stays in one line
        let one_line = |text: String| match text.contains(char::is_control) {
            true => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
            false => text,
        };
        Self { rule, field: one_line(field.into()), what: one_line(what.to_string()) }
    }
}

/// `Err` with a [`Refusal`].
pub(crate) fn refuse<T>(rule: Rule, field: impl Into<String>, what: impl fmt::Display) -> Result<T, Refusal> {
    Err(Refusal::new(rule, field, what))
}

/// The kinds of refusals, each of which asks something else of who meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// These bytes are not what they are said to be: get the file again.
    Malformed,
    /// They are, but of a kind that is not verified here.
    Unsupported,
    /// Nobody who is trusted says so: a chain, a signature or a binding is wrong.
    Untrusted,
    /// It was true once, or will be: get newer collateral, or look at the clock.
    Expired,
    /// Its issuer has taken it back.
    Revoked,
    /// All is genuine, and not what the policy wants.
    Policy,
}

macro_rules! rules {
    ($($(#[doc = $doc:literal])* $rule:ident $name:literal $class:ident,)*) => {
        /// The rules. Where each comes from stands in `docs/quotes.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Rule {
            $($(#[doc = $doc])* $rule,)*
        }

        impl Rule {
            /// All of them.
            pub const ALL: &[Rule] = &[$(Rule::$rule),*];

            /// Its name in messages and documents.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Rule::$rule => $name,)*
                }
            }

            /// Its kind.
            pub const fn class(self) -> Class {
                match self {
                    $(Rule::$rule => Class::$class,)*
                }
            }
        }
    };
}

rules! {
    /// All bytes of a field are there.
    Truncated "truncated" Malformed,
    /// Nothing follows the last field, but for zeros after a quote.
    Trailing "trailing-bytes" Malformed,
    /// No larger than anything genuine.
    Oversized "oversized" Malformed,
    /// DER, PEM, JSON, hexadecimal digits, times and keys are encoded as they should be.
    Encoding "encoding" Malformed,

    /// Quotes of version 3 are verified; 4 and 5 are read.
    QuoteVersion "quote-version" Unsupported,
    /// Enclaves are verified; trust domains (TDX) are read.
    TeeType "tee-type" Unsupported,
    /// The attestation key is an ECDSA key on P-256.
    AttestationKeyType "attestation-key-type" Unsupported,
    /// The quoting enclave is of the vendor whose formats these are.
    QeVendor "qe-vendor" Unsupported,
    /// The certification data leads to a PCK certificate.
    CertificationData "certification-data" Unsupported,
    /// What the certification data says of the platform, its PCK certificate says too.
    CertificationMismatch "certification-mismatch" Untrusted,
    /// The quoting enclave's authentication data are 32 bytes.
    AuthDataLength "auth-data-length" Malformed,

    /// X.509 version 3.
    CertVersion "cert-version" Malformed,
    /// Signed with ECDSA and SHA-256, said alike inside and outside.
    CertAlgorithm "cert-algorithm" Unsupported,
    /// The subject's key is a point on P-256.
    CertKey "cert-key" Unsupported,
    /// The common name is that of the certificate's role.
    CertName "cert-name" Untrusted,
    /// The issuer is the subject of the next certificate.
    CertIssuer "cert-issuer" Untrusted,
    /// The issuer's key signed it.
    CertSignature "cert-signature" Untrusted,
    /// It is valid already.
    CertNotYetValid "cert-not-yet-valid" Expired,
    /// It is still valid.
    CertExpired "cert-expired" Expired,
    /// The five extensions of every certificate are there.
    CertExtensionMissing "cert-extension-missing" Malformed,
    /// No extension is there twice.
    CertExtensionRepeated "cert-extension-repeated" Malformed,
    /// No critical extension is unknown.
    CertExtensionUnknown "cert-extension-unknown" Unsupported,
    /// An authority is marked as one, and nobody else is.
    CertAuthority "cert-authority" Untrusted,
    /// A path of authorities is as long as its issuer allows.
    CertPathLength "cert-path-length" Untrusted,
    /// The key may be used for what it is used for, and for nothing else.
    CertKeyUsage "cert-key-usage" Untrusted,
    /// The authority key identifier is the issuer's subject key identifier.
    CertKeyIdentifier "cert-key-identifier" Untrusted,
    /// A chain has as many certificates as its kind has.
    ChainLength "chain-length" Malformed,
    /// A chain ends at the root that the caller trusts.
    ForeignRoot "foreign-root" Untrusted,
    /// A PCK certificate says which platform it is for.
    SgxExtensionMissing "sgx-extension-missing" Malformed,
    /// The SGX extension has the elements that its authority writes, once each.
    SgxExtension "sgx-extension" Malformed,
    /// The sixteen components and CPUSVN of the SGX extension say the same.
    SgxTcb "sgx-tcb" Untrusted,

    /// A revocation list is one of version 2.
    CrlVersion "crl-version" Malformed,
    /// Its issuer is the authority whose certificates it speaks of.
    CrlIssuer "crl-issuer" Untrusted,
    /// That authority's key signed it.
    CrlSignature "crl-signature" Untrusted,
    /// It is valid already.
    CrlNotYetValid "crl-not-yet-valid" Expired,
    /// It is still valid.
    CrlExpired "crl-expired" Expired,
    /// It has a number, the issuer's key identifier, and a next update.
    CrlFieldMissing "crl-field-missing" Malformed,
    /// No critical extension of it is unknown.
    CrlExtensionUnknown "crl-extension-unknown" Unsupported,
    /// Its authority key identifier is the issuer's subject key identifier.
    CrlKeyIdentifier "crl-key-identifier" Untrusted,
    /// A certificate is not on it.
    Revoked "revoked" Revoked,

    /// TCB info is for SGX, a QE identity is for the quoting enclave.
    CollateralId "collateral-id" Unsupported,
    /// TCB info is of version 3, a QE identity of version 2.
    CollateralVersion "collateral-version" Unsupported,
    /// The TCB signing key signed exactly these bytes.
    CollateralSignature "collateral-signature" Untrusted,
    /// It is issued already.
    CollateralNotYetValid "collateral-not-yet-valid" Expired,
    /// Its next update is not due yet.
    CollateralExpired "collateral-expired" Expired,
    /// There are TCB levels, and no two for the same versions.
    TcbLevels "tcb-levels" Malformed,
    /// The TCB's components are compared as SGX type 0 has it.
    TcbType "tcb-type" Unsupported,
    /// A status is one that this kind of collateral may give.
    TcbStatus "tcb-status" Unsupported,
    /// TCB info is for the platform's family and model (FMSPC).
    FmspcMismatch "fmspc-mismatch" Untrusted,
    /// TCB info is for the platform's provisioning enclave.
    PceIdMismatch "pceid-mismatch" Untrusted,
    /// Some TCB level is met by the platform.
    TcbUnknown "tcb-unknown" Untrusted,

    /// The PCK key signed the quoting enclave's report.
    QeReportSignature "qe-report-signature" Untrusted,
    /// That report carries the hash of attestation key and authentication data.
    QeBinding "qe-binding" Untrusted,
    /// The quoting enclave is not a debug enclave.
    QeDebug "qe-debug" Untrusted,
    /// Its signer is the QE identity's.
    QeMrsigner "qe-mrsigner" Untrusted,
    /// Its product identifier is.
    QeProductId "qe-product-id" Untrusted,
    /// Its MISCSELECT is, under the mask.
    QeMiscselect "qe-miscselect" Untrusted,
    /// Its attributes are, under the mask.
    QeAttributes "qe-attributes" Untrusted,
    /// Some TCB level of the QE identity is met by its security version.
    QeSvn "qe-svn" Untrusted,
    /// The attestation key signed header and report.
    QuoteSignature "quote-signature" Untrusted,

    /// The platform is silicon, unless a software platform is accepted by name.
    SoftwarePlatform "software-platform" Policy,
    /// No part of the platform's TCB is revoked; no policy accepts that.
    TcbRevoked "tcb-revoked" Revoked,
    /// The TCB's status is one of those accepted.
    TcbNotAccepted "tcb-not-accepted" Policy,
    /// The enclave is no debug enclave, unless that is accepted.
    Debug "debug" Policy,
    /// The enclave's measurement is the one wanted.
    Mrenclave "mrenclave" Policy,
    /// The enclave's signer is the one wanted.
    Mrsigner "mrsigner" Policy,
    /// The enclave's product identifier is the one wanted.
    ProductId "product-id" Policy,
    /// The enclave's security version is high enough.
    SecurityVersion "security-version" Policy,
    /// The enclave says what it was asked to say: a nonce, or the hash of a key.
    ReportData "report-data" Policy,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Rule::ALL.len());
    }

    #[test]
    fn messages_are_one_line_whatever_a_file_says() {
        let refusal = Refusal::new(Rule::CertName, "root: CN", "is \"a\nb\u{1b}[31m\"");
        assert_eq!(refusal.to_string(), "root: CN: is \"a\u{fffd}b\u{fffd}[31m\" [cert-name]");
    }
}
