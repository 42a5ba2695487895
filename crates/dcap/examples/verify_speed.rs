//! Quote verifications per second on one core: ours and those of `dcap-qvl`, in turns in the
//! same run, on a genuine quote of Intel's and on one of a software platform.
//!
//! ```sh
//! cargo run --profile tested -p dcap --features testing --example verify_speed -- [SECONDS]
//! ```

use std::hint::black_box;
use std::time::{Duration, Instant};

use dcap::testing::{Bundle, Parts};
use dcap::{Collateral, Quote, Root, Time, Trusted, verify};
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::configs::{RingConfig, RustCryptoConfig};
use dcap_qvl::verify::QuoteVerifier;

type Job<'a> = (&'static str, Box<dyn Fn() + 'a>);

/// Runs each for a slice of the time in turns, so that a slower moment of the host is
/// everybody's; runs per second of each.
fn race(jobs: &[Job<'_>], seconds: u64) -> Vec<f64> {
    const SLICES: u32 = 20;
    let slice = Duration::from_secs(seconds) / SLICES / jobs.len() as u32;
    let mut sums = vec![(0u32, Duration::ZERO); jobs.len()];
    for _ in 0..SLICES {
        for ((_, job), (runs, time)) in jobs.iter().zip(&mut sums) {
            let start = Instant::now();
            while start.elapsed() < slice {
                job();
                *runs += 1;
            }
            *time += start.elapsed();
        }
    }
    sums.iter().map(|(runs, time)| f64::from(*runs) / time.as_secs_f64()).collect()
}

fn main() {
    let seconds = std::env::args().nth(1).map_or(20, |text| text.parse().expect("seconds"));
    let genuine = Bundle {
        at: Time::from_unix(1_750_330_571).expect("in range"),
        quote: include_bytes!("../testdata/real1/quote.bin").to_vec(),
        collateral: Collateral::from_json(include_str!("../testdata/real1/collateral.json")).expect("reads"),
        root: Root::intel().certificate().der().to_vec(),
    };
    let software = Parts::default().bundle().expect("builds");
    for (name, bundle) in [("a genuine quote", genuine), ("a software platform's quote", software)] {
        let root = Root::from_der(&bundle.root).expect("a root");
        let theirs: QuoteCollateralV3 = serde_json::from_str(&bundle.collateral.to_json()).expect("reads");
        let judge = QuoteVerifier::new(bundle.root.clone());
        let ring = judge.with_config::<RingConfig>();
        let rustcrypto = QuoteVerifier::new(bundle.root.clone()).with_config::<RustCryptoConfig>();
        let trusted = Trusted::new(&bundle.collateral, &root, bundle.at).expect("verifies");
        let now = bundle.at.unix();
        let jobs: [Job<'_>; 4] = [
            (
                "Kluis, all of the collateral each time",
                Box::new(|| {
                    black_box(verify(&bundle.quote, &bundle.collateral, &root, bundle.at)).expect("verifies");
                }),
            ),
            (
                "Kluis, collateral verified once",
                Box::new(|| {
                    let quote = Quote::parse(&bundle.quote).expect("parses");
                    black_box(trusted.verify(&quote)).expect("verifies");
                }),
            ),
            (
                "dcap-qvl, ring",
                Box::new(|| {
                    black_box(ring.verify(&bundle.quote, &theirs, now)).expect("verifies");
                }),
            ),
            (
                "dcap-qvl, RustCrypto",
                Box::new(|| {
                    black_box(rustcrypto.verify(&bundle.quote, &theirs, now)).expect("verifies");
                }),
            ),
        ];
        let rates = race(&jobs, seconds / 2);
        println!("{name}: verifications per second on one core");
        for ((job, _), rate) in jobs.iter().zip(&rates) {
            println!("  {job:40} {rate:8.0}   {:5.2} of dcap-qvl with ring", rate / rates[2]);
        }
    }
}
