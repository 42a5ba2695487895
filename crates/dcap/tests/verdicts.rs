//! TCB verdicts, and what policies make of them.

mod common;

use std::collections::BTreeSet;

use common::judge;
use dcap::collateral::{QeSvn, QeTcbLevel, TcbStatus};
use dcap::pki::PckAuthority;
use dcap::policy::{Digest, Policy, ReportData};
use dcap::testing::{Bundle, Parts, components, day, levels};
use dcap::{Refusal, Rule, Verdict};
use sgx_abi::AttributeFlags;

/// A platform of that status, whose quoting enclave has that one.
fn bundle(platform: TcbStatus, qe: TcbStatus) -> Bundle {
    let mut parts = Parts::default();
    parts.set_platform(|it| {
        it.tcb.components = components(4);
        it.tcb.cpusvn = components(4);
    });
    // in an order that is not the one that counts
    parts.tcb_info.tcb_levels = levels(&[(3, TcbStatus::Revoked), (4, platform)]);
    parts.tcb_info.tcb_levels.reverse();
    let level = |isvsvn, tcb_status| QeTcbLevel {
        tcb: QeSvn { isvsvn },
        tcb_date: day(0),
        tcb_status,
        advisory_ids: vec![format!("KLUIS-SA-QE-{isvsvn}"), format!("KLUIS-SA-{platform}")],
    };
    parts.qe_identity.tcb_levels =
        vec![level(3, TcbStatus::UpToDate), level(2, qe), level(1, TcbStatus::Revoked)];
    parts.bundle().unwrap()
}

/// Every status of a platform with every one of a quoting enclave, judged.
#[test]
fn every_status_is_the_judges() {
    use TcbStatus::{ConfigurationAndSWHardeningNeeded, ConfigurationNeeded, OutOfDate, Revoked, UpToDate};
    let mut seen = BTreeSet::new();
    for platform in TcbStatus::ALL {
        for qe in [UpToDate, OutOfDate, Revoked] {
            let bundle = bundle(platform, qe);
            let ours = bundle.verify().unwrap();
            assert_eq!((ours.tcb.platform.status, ours.tcb.qe.status), (platform, qe));
            seen.insert(ours.tcb.status);
            match judge(&bundle) {
                Ok(theirs) => {
                    assert_eq!(ours.tcb.status.to_string(), theirs.status, "{platform} with {qe}");
                    assert_eq!(ours.tcb.advisory_ids, theirs.advisory_ids);
                    let own = if platform == UpToDate { 2 } else { 3 };
                    // of the level, and the two of the enclave's, one of which may be the same
                    assert_eq!(ours.tcb.advisory_ids.len(), own - usize::from(platform != UpToDate));
                }
                // the judge has no verdict for what is revoked; ours is refused by every policy
                Err(error) => {
                    assert_eq!(ours.tcb.status, Revoked);
                    assert!(error.to_string().contains("Revoked"), "{error}");
                    let policy = Policy { accept_tcb: TcbStatus::ALL.into(), ..accepting() };
                    assert_eq!(policy.check(&ours).unwrap_err().rule, Rule::TcbRevoked);
                }
            }
        }
    }
    assert_eq!(seen.len(), 7, "{seen:?}");
    // by hand, as Intel's convergeTcbStatusWithQeTcbStatus has it
    assert_eq!(ConfigurationNeeded.with_enclave(OutOfDate), TcbStatus::OutOfDateConfigurationNeeded);
    assert_eq!(ConfigurationAndSWHardeningNeeded.with_enclave(UpToDate), ConfigurationAndSWHardeningNeeded);
}

fn accepting() -> Policy {
    Policy { accept_software_platform: true, ..Policy::default() }
}

fn verdict() -> Verdict {
    Parts::default().bundle().unwrap().verify().unwrap()
}

#[test]
fn a_verdict_says_what_was_signed() {
    let verdict = verdict();
    assert_eq!(verdict.report.reportdata, [0x44; 64]);
    assert_eq!(verdict.platform, dcap::testing::platform());
    assert_eq!(verdict.authority, PckAuthority::Platform);
    assert_eq!(verdict.root, "Kluis SGX Root CA");
    assert!(verdict.software_platform);
    assert_eq!(verdict.tcb.evaluation_data_number, 7);
    assert_eq!(verdict.valid_until, day(30));
}

#[test]
fn a_policy_refuses_each_thing_by_its_rule() {
    let check = |change: fn(&mut Policy)| -> Result<(), Refusal> {
        let mut policy = accepting();
        change(&mut policy);
        policy.check(&verdict())
    };
    assert_eq!(check(|_| ()), Ok(()));
    assert_eq!(
        check(|policy| {
            policy.mrenclave = Some(Digest([0x33; 32]));
            policy.mrsigner = Some(Digest([0x77; 32]));
            policy.isv_prod_id = Some(1);
            policy.min_isv_svn = Some(2);
            policy.report_data = Some(ReportData(vec![0x44; 64]));
        }),
        Ok(())
    );
    type Change = fn(&mut Policy);
    let refused: [(Rule, Change); 9] = [
        (Rule::SoftwarePlatform, |policy| policy.accept_software_platform = false),
        (Rule::TcbNotAccepted, |policy| policy.accept_tcb = [TcbStatus::OutOfDate].into()),
        (Rule::Mrenclave, |policy| policy.mrenclave = Some(Digest([0x34; 32]))),
        (Rule::Mrsigner, |policy| policy.mrsigner = Some(Digest([0x78; 32]))),
        (Rule::ProductId, |policy| policy.isv_prod_id = Some(2)),
        (Rule::SecurityVersion, |policy| policy.min_isv_svn = Some(3)),
        (Rule::ReportData, |policy| policy.report_data = Some(ReportData(vec![0x45; 64]))),
        // a nonce is followed by zeros, or it was not the nonce
        (Rule::ReportData, |policy| policy.report_data = Some(ReportData(vec![0x44; 32]))),
        (Rule::ReportData, |policy| policy.report_data = Some(ReportData(vec![0x44; 65]))),
    ];
    for (rule, change) in refused {
        assert_eq!(check(change).unwrap_err().rule, rule);
    }
}

#[test]
fn debug_enclaves_are_genuine_and_refused() {
    let mut parts = Parts::default();
    parts.report.attributes.flags.insert(AttributeFlags::DEBUG);
    let bundle = parts.bundle().unwrap();
    judge(&bundle).unwrap();
    let verdict = bundle.verify().unwrap();
    assert_eq!(accepting().check(&verdict).unwrap_err().rule, Rule::Debug);
    assert_eq!(Policy { accept_debug: true, ..accepting() }.check(&verdict), Ok(()));
}

#[test]
fn policies_are_read_strictly() {
    let text = r#"{"mrsigner":"7777777777777777777777777777777777777777777777777777777777777777",
        "min_isv_svn":2,"accept_tcb":["UpToDate","SWHardeningNeeded"],"accept_software_platform":true}"#;
    let policy = Policy::from_json(text).map_err(|refusal| refusal.to_string()).unwrap();
    assert_eq!(policy.check(&verdict()), Ok(()));
    assert_eq!(Policy::from_json(&serde_json::to_string(&policy).unwrap()), Ok(policy));
    for bad in ["{\"mrsinger\":\"77\"}", "{\"mrsigner\":\"77\"}", "{\"accept_tcb\":[\"Fine\"]}", "[]"] {
        assert_eq!(Policy::from_json(bad).unwrap_err().rule, Rule::Encoding, "{bad}");
    }
}

/// A report with a reserved byte or two more is still the report that was signed.
#[test]
fn a_trusted_collateral_serves_many_quotes() {
    let bundle = Parts::default().bundle().unwrap();
    let root = dcap::Root::from_der(&bundle.root).unwrap();
    let trusted = dcap::Trusted::new(&bundle.collateral, &root, bundle.at).unwrap();
    for nonce in 0..3 {
        let mut parts = Parts::default();
        parts.report.reportdata = [nonce; 64];
        let quote = dcap::Quote::parse(&parts.bundle().unwrap().quote).unwrap();
        assert_eq!(trusted.verify(&quote).unwrap().report.reportdata, [nonce; 64]);
    }
    assert_eq!(trusted.valid_until(), day(30));
}
