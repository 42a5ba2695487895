//! The judge of all tests: `dcap-qvl`, with the same root.
#![allow(unreachable_pub, dead_code, reason = "a module of several tests, each of which uses a part")]

use dcap::testing::Bundle;
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::{QuoteVerifier, VerifiedReport};

/// What the judge makes of what we refuse.
#[derive(Clone, Copy)]
pub enum Judge {
    /// It refuses too.
    Refuses,
    /// It accepts; why we do not.
    Accepts(&'static str),
}

/// Verifies a bundle under its own root.
pub fn judge(bundle: &Bundle) -> anyhow::Result<VerifiedReport> {
    let collateral: QuoteCollateralV3 = serde_json::from_str(&bundle.collateral.to_json())?;
    QuoteVerifier::new(bundle.root.clone()).allow_debug(true).verify(
        &bundle.quote,
        &collateral,
        bundle.at.unix(),
    )
}
