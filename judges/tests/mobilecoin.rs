//! `mc-attestation-verifier` judges genuine quotes under Intel's root, and quotes of a platform
//! of ours: with every status, and with one broken rule each.

// the cases, which `dcap-qvl` judges there
#[path = "../../crates/dcap/tests/refusals.rs"]
mod refusals;

use dcap::collateral::{QeSvn, QeTcbLevel, TcbStatus};
use dcap::pki::to_pem;
use dcap::testing::{Bundle, Parts, components, day, levels};
use dcap::{Collateral, Root, Time};
use kluis_judges::{Opinion, advisories, judge};
use std::collections::BTreeSet;

fn bundle_judged(bundle: &Bundle, expected: [&[String]; 2]) -> Result<Opinion, String> {
    judge(&bundle.quote, &bundle.collateral, &to_pem([&bundle.root[..]]), bundle.at, expected)
}

#[test]
fn genuine_quotes_are_to_both_what_they_are() {
    let root = to_pem([Root::intel().certificate().der()]);
    for (quote, json, from, until) in [
        (
            &include_bytes!("../../crates/dcap/testdata/real1/quote.bin")[..],
            include_str!("../../crates/dcap/testdata/real1/collateral.json"),
            1_750_330_571,
            1_752_919_278,
        ),
        (
            include_bytes!("../../crates/dcap/testdata/real2/quote.bin"),
            include_str!("../../crates/dcap/testdata/real2/collateral.json"),
            1_748_430_000,
            1_750_400_000,
        ),
    ] {
        let collateral = Collateral::from_json(json).unwrap();
        // to it a document has expired in its last second
        for at in [from, until - 1].map(|at| Time::from_unix(at).unwrap()) {
            let ours = dcap::verify(quote, &collateral, &Root::intel(), at).unwrap();
            let ids = &ours.tcb.platform.advisory_ids;
            let theirs = judge(quote, &collateral, &root, at, [ids, ids]).unwrap();
            let status = ours.tcb.platform.status;
            assert_eq!(theirs.advisories, advisories(&status.to_string(), ids));
            assert_eq!(theirs.genuine, ours.tcb.qe.status == TcbStatus::UpToDate, "{}", theirs.said);
            let configurable = status == TcbStatus::ConfigurationAndSWHardeningNeeded;
            assert_eq!(theirs.accepted, theirs.genuine && configurable, "{}", theirs.said);
        }
        // a changed byte, another time, another root
        let mut changed = quote.to_vec();
        changed[400] ^= 1;
        let good = Time::from_unix(from).unwrap();
        assert!(!judge(&changed, &collateral, &root, good, [&[], &[]]).unwrap().genuine);
        let late = Time::from_unix(1_900_000_000).unwrap();
        assert!(!judge(quote, &collateral, &root, late, [&[], &[]]).unwrap().genuine);
        let other = to_pem([&Parts::default().bundle().unwrap().root[..]]);
        assert!(!judge(quote, &collateral, &other, good, [&[], &[]]).unwrap().genuine);
    }
}

/// A platform of ours of each status, with a quoting enclave of each.
#[test]
fn every_status_is_the_judges() {
    let mut accepted = Vec::new();
    for platform in TcbStatus::ALL {
        for qe in [TcbStatus::UpToDate, TcbStatus::OutOfDate, TcbStatus::Revoked] {
            let mut parts = Parts::default();
            parts.set_platform(|it| {
                it.tcb.components = components(4);
                it.tcb.cpusvn = components(4);
            });
            // the highest first: the judge does not sort
            parts.tcb_info.tcb_levels = levels(&[(4, platform), (3, TcbStatus::Revoked)]);
            parts.qe_identity.tcb_levels = vec![QeTcbLevel {
                tcb: QeSvn { isvsvn: 2 },
                tcb_date: day(0),
                tcb_status: qe,
                advisory_ids: Vec::new(),
            }];
            let bundle = parts.bundle().unwrap();
            let ours = bundle.verify().unwrap();
            let ids = &ours.tcb.platform.advisory_ids;
            let theirs = bundle_judged(&bundle, [ids, ids]).unwrap();
            assert_eq!(theirs.advisories, advisories(&platform.to_string(), ids));
            assert_eq!(theirs.genuine, qe == TcbStatus::UpToDate, "{}", theirs.said);
            if theirs.accepted {
                accepted.push(platform);
            }
        }
    }
    // what needs configuration and hardening, and what is better
    use TcbStatus::{ConfigurationAndSWHardeningNeeded, ConfigurationNeeded, SWHardeningNeeded, UpToDate};
    let better = [UpToDate, SWHardeningNeeded, ConfigurationNeeded, ConfigurationAndSWHardeningNeeded];
    assert_eq!(BTreeSet::from_iter(accepted), BTreeSet::from(better));
}

/// What we refuse, and the judge does not.
const ACCEPTED: &[&str] = &[
    // OpenSSL does not know what Intel's profile asks of certificates and lists
    "a TCB signer that may not sign",
    "PCK with another name",
    "TCB signer with another name",
    "PCK without list",
    "TCB signer without constraints",
    "root without list",
    "five elements by the Platform CA",
    "a type that is none",
    "components that are not CPUSVN's",
    "PCK CRL without next update",
    "PCK CRL without number",
    "root CRL without key id",
    // it does not look at these fields
    "PCEID of another enclave",
    "TCB info for TDX",
    "TCB info of another type",
    "QE identity for TDX",
    "short authentication data",
    "a key on P-384",
    "another vendor's QE",
    // it takes the first level that is met
    "TCB info with two answers",
    "QE identity with two answers",
    "QE identity with its levels upside down",
    // the QE identity's mask allows it
    "a debug QE",
    // OpenSSL has the root already
    "a chain without its root",
];

#[test]
fn one_broken_rule_each() {
    let unchanged = Parts::default().bundle().unwrap();
    assert!(bundle_judged(&unchanged, [&[], &[]]).unwrap().accepted);
    let (mut accepts, mut refuses) = (Vec::new(), 0);
    for case in refusals::CASES {
        let mut parts = Parts::default();
        (case.change)(&mut parts);
        let bundle = parts.bundle().unwrap();
        assert_eq!(bundle.verify().unwrap_err().rule, case.rule, "{}", case.name);
        match bundle_judged(&bundle, [&[], &[]]) {
            Ok(opinion) if opinion.genuine => accepts.push(case.name),
            _ => refuses += 1,
        }
    }
    println!("of {} cases the judge refuses {refuses}", refusals::CASES.len());
    assert_eq!(BTreeSet::from_iter(accepts), BTreeSet::from_iter(ACCEPTED.iter().copied()));
}
