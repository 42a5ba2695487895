//! Quotes of real silicon, under Intel's root: our verdicts and those of `dcap-qvl`.

use dcap::collateral::TcbStatus;
use dcap::pki::{PckAuthority, Root};
use dcap::policy::Policy;
use dcap::{Collateral, Quote, Rule, Time, verify};
use dcap_qvl::verify::QuoteVerifier;

struct Sample {
    quote: &'static [u8],
    collateral: &'static str,
    /// Seconds since 1970 between which all of its collateral is valid.
    window: [u64; 2],
    status: TcbStatus,
    advisories: &'static [&'static str],
}

const SAMPLES: [Sample; 2] = [
    Sample {
        quote: include_bytes!("../testdata/real1/quote.bin"),
        collateral: include_str!("../testdata/real1/collateral.json"),
        window: [1_750_330_571, 1_752_919_278],
        status: TcbStatus::ConfigurationAndSWHardeningNeeded,
        advisories: &["INTEL-SA-00289", "INTEL-SA-00615"],
    },
    Sample {
        quote: include_bytes!("../testdata/real2/quote.bin"),
        collateral: include_str!("../testdata/real2/collateral.json"),
        window: [1_748_430_000, 1_750_400_000],
        status: TcbStatus::OutOfDate,
        advisories: &[],
    },
];

fn judge(sample: &Sample, at: u64) -> anyhow::Result<dcap_qvl::verify::VerifiedReport> {
    let collateral: dcap_qvl::QuoteCollateralV3 = serde_json::from_str(sample.collateral).unwrap();
    QuoteVerifier::new_prod().verify(sample.quote, &collateral, at)
}

#[test]
fn verdicts_are_the_judges() {
    for sample in &SAMPLES {
        let collateral = Collateral::from_json(sample.collateral).unwrap();
        for at in sample.window {
            let ours =
                verify(sample.quote, &collateral, &Root::intel(), Time::from_unix(at).unwrap()).unwrap();
            let theirs = judge(sample, at).unwrap();
            assert_eq!(ours.tcb.status, sample.status);
            assert_eq!(ours.tcb.status.to_string(), theirs.status);
            assert_eq!(ours.tcb.advisory_ids, theirs.advisory_ids);
            if !sample.advisories.is_empty() {
                assert_eq!(ours.tcb.advisory_ids, sample.advisories);
            }
            assert_eq!(ours.tcb.platform.status.to_string(), theirs.platform_status.status.to_string());
            assert_eq!(ours.tcb.qe.status.to_string(), theirs.qe_status.status.to_string());
            assert_eq!(ours.platform.ppid.to_vec(), theirs.ppid);
            let report = theirs.report.as_sgx().unwrap();
            assert_eq!(ours.report.mrenclave, report.mr_enclave);
            assert_eq!(ours.report.reportdata, report.report_data);
            assert_eq!(ours.authority, PckAuthority::Processor);
            assert!(!ours.software_platform);
        }
    }
}

#[test]
fn collateral_ages_for_both() {
    for sample in &SAMPLES {
        let collateral = Collateral::from_json(sample.collateral).unwrap();
        for at in [1_600_000_000, 1_900_000_000] {
            assert!(judge(sample, at).is_err());
            let refusal =
                verify(sample.quote, &collateral, &Root::intel(), Time::from_unix(at).unwrap()).unwrap_err();
            assert!([Rule::CrlNotYetValid, Rule::CrlExpired].contains(&refusal.rule), "{refusal}");
        }
        // to the second
        let good = Time::from_unix(sample.window[0]).unwrap();
        let until = verify(sample.quote, &collateral, &Root::intel(), good).unwrap().valid_until.unix();
        for (at, ok) in [(until, true), (until + 1, false)] {
            let ours = verify(sample.quote, &collateral, &Root::intel(), Time::from_unix(at).unwrap());
            assert_eq!((ours.is_ok(), judge(sample, at).is_ok()), (ok, ok), "{at}");
        }
    }
}

#[test]
fn the_default_policy_wants_more_than_these_platforms_are() {
    for sample in &SAMPLES {
        let collateral = Collateral::from_json(sample.collateral).unwrap();
        let at = Time::from_unix(sample.window[0]).unwrap();
        let verdict = verify(sample.quote, &collateral, &Root::intel(), at).unwrap();
        assert_eq!(Policy::default().check(&verdict).unwrap_err().rule, Rule::TcbNotAccepted);
        let policy = Policy { accept_tcb: [sample.status].into(), ..Policy::default() };
        let checked = policy.check(&verdict);
        assert_eq!(checked, Ok(()));
    }
}

#[test]
fn no_byte_of_a_genuine_quote_can_change() {
    let sample = &SAMPLES[0];
    let collateral = Collateral::from_json(sample.collateral).unwrap();
    let at = Time::from_unix(sample.window[0]).unwrap();
    let trusted = dcap::Trusted::new(&collateral, &Root::intel(), at).unwrap();
    let last = sample.quote.len() - 1;
    // the chain's text is long, and guarded by its certificates' signatures
    for byte in (0..1052).chain((1052..last).step_by(37)) {
        let mut quote = sample.quote.to_vec();
        quote[byte] ^= 1;
        let verified = Quote::parse(&quote).and_then(|quote| trusted.verify(&quote));
        assert!(verified.is_err(), "byte {byte}");
    }
}

#[test]
fn quotes_are_written_as_they_were_read() {
    for sample in &SAMPLES {
        assert_eq!(Quote::parse(sample.quote).unwrap().to_bytes().unwrap(), sample.quote);
    }
}
