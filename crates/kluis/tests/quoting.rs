//! Quotes that the architectural enclaves make in a machine: of an enclave's report, by a
//! platform that is new, without a network.

mod common;

use common::{Scratch, checked, guest, kluis, output, text, turn};
use dcap::pki::{Certificate, Role, certificates_from_pem};
use dcap::quote::{Body, CertificationData};
use dcap::{Collateral, Quote, Root, Time};
use dcap_qvl::verify::QuoteVerifier;
use sgx_abi::{AttributeFlags, ReportBody};
use std::collections::BTreeMap;
use std::io::Read;
use std::process::Output;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a machine leaves behind, by name.
type Files = BTreeMap<String, Vec<u8>>;

/// Reports of the enclave as a production and as a debug one, and what is made of them.
const QUOTE: &str = "
report() { ./enclave-check $1.sgxs $1.sig report $2 $3; }
kluis-quote --key /keys/key --target-info > target
report closed target report
report open target report.open
kluis-quote --key /keys/key report > out/quote
kluis-quote --key /keys/key - < report.open > out/quote.open
kluis-quote --pck-key > out/pck
cp /usr/share/kluis/attestation/*.json /usr/share/kluis/attestation/*.pem out
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

/// The guest program with the client of AESM.
fn aesm_check() -> &'static [u8] {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    PROGRAM.get_or_init(|| std::fs::read(guest::program("aesm-check")).unwrap())
}

/// A user with a platform of their own, and a folder in which keys are kept.
struct User(Scratch);

impl User {
    fn new() -> Self {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.path("keys")).unwrap();
        Self(scratch)
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = kluis();
        command.current_dir(self.0.path("")).env("KLUIS_PLATFORM", self.0.path("platform")).args(args);
        command.env("XDG_RUNTIME_DIR", self.0.at(""));
        let out = output(&mut command, input);
        println!("{args:?}: {}", text(&out.stderr));
        out
    }

    fn works(&self, args: &[&str]) -> String {
        let out = self.run(args, b"");
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
        text(&out.stdout)
    }

    /// Runs a script in a machine; what is in its folder `out` then.
    fn machine(&self, script: &str) -> Files {
        let (closed, open) = (
            checked::enclave(serde_json::json!({ "debug": false }), 0),
            checked::enclave(serde_json::json!({}), 0),
        );
        let archive = guest::archive(&[
            ("enclave-check", checked::host()),
            ("aesm-check", aesm_check()),
            ("closed.sgxs", &closed.0),
            ("closed.sig", &closed.1),
            ("open.sgxs", &open.0),
            ("open.sig", &open.1),
        ]);
        let keys = format!("{}:/keys", self.0.at("keys"));
        let script = format!("set -e; cd /tmp; tar x; mkdir out\n{script}\ntar c -C out .");
        let shape = ["--size", "Standard_DC1s_v2", "--memory", "256M", "--network", "none"];
        let args = [&["run", "--quiet", "--timeout", "500s", "--share", &keys][..], &shape];
        let out = self.run(&[&args.concat()[..], &["--", "sh", "-c", &script]].concat(), &archive);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        let mut archive = tar::Archive::new(&out.stdout[..]);
        let file = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().file_name()?.to_str()?.to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            Some((name, content))
        };
        archive.entries().unwrap().filter_map(file).collect()
    }

    /// Verifies with what the user's own platform issues; the exit code.
    fn verify(&self, quote: &[u8]) -> (Option<i32>, String) {
        self.0.file("quote", quote);
        let out = self.run(&["attest", "verify", "quote", "--accept-software-platform", "--json"], b"");
        (out.status.code(), text(&out.stdout))
    }
}

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
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    QuoteVerifier::new(root(files).certificate().der().to_vec()).verify(quote, &collateral, now)
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

#[test]
fn a_machine_makes_quotes_that_everybody_verifies() {
    let _turn = turn();
    let user = User::new();
    let files = user.machine(&format!("{QUOTE}{REFUSALS}{AESM}"));
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
    let verified = judge(&files["quote"], &files).unwrap();
    assert_eq!((verified.status.as_str(), verified.advisory_ids.len()), ("UpToDate", 0));
    let collateral = Collateral::from_json(&text(&files["collateral.json"])).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let now = Time::from_unix(now).unwrap();
    let verdict = dcap::verify(&files["quote"], &collateral, &root(&files), now).unwrap();
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
    let sealed = std::fs::metadata(user.0.path("keys/key")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&sealed.permissions()) & 0o777, 0o600);
    // and what is no key is replaced by one
    let anew = Quote::parse(&files["quote.anew"]).unwrap();
    assert_ne!(anew.authentication.attestation_key, quote.authentication.attestation_key);
    judge(&files["quote.anew"], &files).unwrap();

    // the service's quotes are of the same report, with a key of its own
    for name in ["quote.aesm", "quote.intel"] {
        let by_service = Quote::parse(&files[name]).unwrap();
        assert_eq!(report(&by_service), report(&quote), "{name}");
        assert_eq!(judge(&files[name], &files).unwrap().status, "UpToDate");
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
    let foreign = std::fs::read(other.0.path("public/root.pem")).unwrap();
    let refused = dcap::verify(&files["quote"], &collateral, &Root::from_pem(&foreign).unwrap(), now);
    assert_eq!(refused.unwrap_err().rule.name(), "foreign-root");

    // the next security version has another attestation key and another certificate
    user.works(&["platform", "update", "--advisory", "KLUIS-SA-00007"]);
    assert_eq!(user.verify(&files["quote"]).0, Some(19));
    user.works(&["platform", "update", "--svn-up"]);
    let after = user.machine(QUOTE);
    let next = Quote::parse(&after["quote"]).unwrap();
    assert_ne!(next.authentication.attestation_key, quote.authentication.attestation_key);
    assert_ne!(leaf(&next).key(), leaf_key);
    assert_eq!(text(&after["pck"]).trim(), dcap::hex::encode(&leaf(&next).key().0));
    assert_eq!(judge(&after["quote"], &after).unwrap().status, "UpToDate");
    // it is the same platform still
    assert_eq!(next.header.user_data, quote.header.user_data);
    assert_eq!(root(&after).fingerprint(), root(&files).fingerprint());
    // and the old quote is out of date to whoever knows
    assert_eq!(judge(&files["quote"], &after).unwrap().status, "OutOfDate");
}
