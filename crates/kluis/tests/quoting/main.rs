//! Quotes that the architectural enclaves make in a machine: of an enclave's report, by a
//! platform that is new, without a network.

#[path = "../common/mod.rs"]
mod common;
mod leaks;
mod python;
mod secrets;
mod updates;
mod user;

use common::{checked, text};
use dcap::pki::{Certificate, Role, certificates_from_pem};
use dcap::quote::{Body, CertificationData};
use dcap::{Collateral, Quote, Root};
use dcap_qvl::verify::QuoteVerifier;
use sgx_abi::{AttributeFlags, ReportBody};
use std::sync::OnceLock;
use user::{Files, User};

/// Reports of the enclave as a production and as a debug one, and what is made of them.
const QUOTE: &str = "
report() { ./enclave-check $1.sgxs $1.sig report $2 $3; }
kluis-quote --key /keys/key --target-info > target
report closed target report
report open target report.open
kluis-quote --key /keys/key report > out/quote
kluis-quote --key /keys/key - < report.open > out/quote.open
kluis-quote --pck-key > out/pck
cp /usr/share/kluis/attestation/* out
";

/// The same by an unmodified client of AESM, which finds the service by itself: with the key
/// that the service names, and by the name that Intel's has.
const AESM: &str = "
./aesm-check own target > target.aesm
cmp target target.aesm
./aesm-check own quote report > out/quote.aesm
./aesm-check intel quote report > out/quote.intel
./aesm-check own epid 2> out/epid.why || echo $? > out/epid
./aesm-check own quote forged 2> out/aesm.why || echo $? > out/aesm
cp /var/lib/kluis/attestation-key /keys/service
dmesg > out/kernel
";

/// What must not be.
const REFUSALS: &str = "
refused() { name=$1; shift; kluis-quote --key /keys/key \"$@\" > out/$name 2> out/$name.why || echo $? >> out/$name; }
# a byte of REPORTDATA, and the MAC
(head -c 320 report; printf '!'; tail -c +322 report) > forged
refused forged forged
(head -c 416 report; printf 'sixteen letters.') > forged
refused mac forged
kluis-quote --certifier > certifier
report closed certifier report.certifier
refused other report.certifier
refused certify --certify report.certifier
refused uncertified --certify report
refused short target
printf 'no key' > /keys/damaged
kluis-quote --key /keys/damaged report > out/quote.anew
";

/// The report that a quote is of.
fn report(quote: &Quote) -> &ReportBody {
    match &quote.body {
        Body::Enclave(report) => report,
        Body::TrustDomain(_) => panic!("no enclave's quote"),
    }
}

/// What the judge says of a quote with what the machine was given.
fn judge(quote: &[u8], files: &Files) -> anyhow::Result<dcap_qvl::verify::VerifiedReport> {
    let collateral: dcap_qvl::QuoteCollateralV3 = serde_json::from_slice(&files["collateral.json"])?;
    QuoteVerifier::new(root(files).certificate().der().to_vec()).verify(
        quote,
        &collateral,
        user::now().unix(),
    )
}

fn root(files: &Files) -> Root {
    Root::from_pem(&files["root.pem"]).unwrap()
}

fn leaf(quote: &Quote) -> Certificate {
    match &quote.authentication.certification {
        CertificationData::PckChain(chain) => {
            let chain = certificates_from_pem(chain, "chain").unwrap();
            Certificate::parse(Role::Pck, &chain[0]).unwrap()
        }
        other => panic!("certification data {}", other.kind()),
    }
}

/// A machine in which all of that was done, and its user's platform.
struct First {
    files: Files,
    /// The platform.
    roots: Vec<u8>,
    /// The attestation key of `quote`, sealed.
    key: Vec<u8>,
    /// The service's attestation key, sealed.
    service_key: Vec<u8>,
    /// All that was said on the way.
    said: Vec<u8>,
}

impl First {
    /// The same for all tests: there is one machine for them.
    fn machine() -> &'static Self {
        static FIRST: OnceLock<First> = OnceLock::new();
        FIRST.get_or_init(|| {
            let user = User::new();
            let files = user.machine(&format!("{QUOTE}{REFUSALS}{AESM}"));
            Self {
                roots: user.roots(),
                key: user.key("key"),
                service_key: user.key("service"),
                said: user.said(),
                files,
            }
        })
    }

    /// Its user.
    fn user(&self) -> User {
        User::of(&self.roots)
    }
}

#[test]
fn a_machine_makes_quotes_that_everybody_verifies() {
    let first = First::machine();
    let (user, files) = (first.user(), &first.files);
    let quote = Quote::parse(&files["quote"]).unwrap();

    // the enclave that asked, and its words
    let (stream, _) = checked::enclave(serde_json::json!({ "debug": false }), 0);
    let measured = enclave_image::sgxs::Enclave::read(&stream).unwrap().measure();
    assert_eq!(report(&quote).mrenclave, measured);
    assert_eq!(
        &report(&quote).reportdata,
        b"what an enclave has to say to whoever is far away: 64 characters"
    );
    assert_eq!(report(&quote).isvprodid, 7);

    // verified by the judge and by us, with what was in the machine, and by the command
    let verified = judge(&files["quote"], files).unwrap();
    assert_eq!((verified.status.as_str(), verified.advisory_ids.len()), ("UpToDate", 0));
    let collateral = Collateral::from_json(&text(&files["collateral.json"])).unwrap();
    let now = user::now();
    let verdict = dcap::verify(&files["quote"], &collateral, &root(files), now).unwrap();
    assert_eq!(verdict.tcb.status, dcap::TcbStatus::UpToDate);
    let (code, said) = user.verify(&files["quote"]);
    assert_eq!(code, Some(0), "{said}");

    // the key that the enclave derived is the one that the certificate names
    let leaf_key = leaf(&quote).key();
    assert_eq!(text(&files["pck"]).trim(), dcap::hex::encode(&leaf_key.0));

    // a debug enclave is one to everybody
    let open = Quote::parse(&files["quote.open"]).unwrap();
    assert!(report(&open).attributes.flags.contains(AttributeFlags::DEBUG));
    let (code, said) = user.verify(&files["quote.open"]);
    assert_eq!(code, Some(20), "{said}");
    // the second was made by another process, which found the key
    assert_eq!(open.authentication.attestation_key, quote.authentication.attestation_key);
    // and what is no key is replaced by one
    let anew = Quote::parse(&files["quote.anew"]).unwrap();
    assert_ne!(anew.authentication.attestation_key, quote.authentication.attestation_key);
    judge(&files["quote.anew"], files).unwrap();

    // the service's quotes are of the same report, with a key of its own
    for name in ["quote.aesm", "quote.intel"] {
        let by_service = Quote::parse(&files[name]).unwrap();
        assert_eq!(report(&by_service), report(&quote), "{name}");
        assert_eq!(judge(&files[name], files).unwrap().status, "UpToDate");
        assert_eq!(user.verify(&files[name]).0, Some(0));
    }

    // nobody else's reports
    for (name, code, why) in [
        ("forged", "1", "the quoting enclave refuses: the report was not made for this enclave"),
        ("mac", "1", "the quoting enclave refuses: the report was not made for this enclave"),
        ("other", "1", "the quoting enclave refuses: the report was not made for this enclave"),
        (
            "certify",
            "1",
            "certification enclave refuses: the report is not this platform's quoting enclave's",
        ),
        ("uncertified", "1", "certification enclave refuses: the report was not made for this enclave"),
        ("short", "2", "is no report"),
        ("epid", "1", "aesm-check: "),
        ("aesm", "1", "aesm-check: "),
    ] {
        let said = text(&files[&format!("{name}.why")]);
        assert!(said.contains(why) && said.lines().count() == 1, "{name}: {said}");
        assert_eq!(text(&files[name]).trim(), code, "{name}");
    }

    // another platform's root is another root
    let other = User::new();
    other.works(&["platform", "init"]);
    other.works(&["platform", "export", "public"]);
    let foreign = std::fs::read(other.scratch.path("public/root.pem")).unwrap();
    let refused = dcap::verify(&files["quote"], &collateral, &Root::from_pem(&foreign).unwrap(), now);
    assert_eq!(refused.unwrap_err().rule.name(), "foreign-root");
}
