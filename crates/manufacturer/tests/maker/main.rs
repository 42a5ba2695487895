//! Platforms and their makers: in scratch folders, with one signing key for all of them, for
//! it takes seconds to make; and the judge.

mod enclave_key;
mod life;

use dcap::{Collateral, Root, Time};
use dcap_qvl::verify::{QuoteVerifier, VerifiedReport};
use enclave_image::SigningKey;
use manufacturer::{Manufacturer, ManufacturerError};
use platform::{Platform, Update};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use zeroize::Zeroizing;

struct Place(TempDir);

impl Place {
    /// A platform, equipped.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        Platform::init(&place.dir()).unwrap();
        equip(&place.dir());
        place
    }

    fn dir(&self) -> PathBuf {
        self.at("platform")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn maker(&self) -> Manufacturer {
        Manufacturer::open(&self.dir()).unwrap().unwrap()
    }

    fn update(&self, update: Update) {
        Platform::update(&self.dir(), update).unwrap();
    }

    /// What a processor of it has in its fuses.
    fn processor(&self) -> sgx::keys::Roots {
        manufacturer::processor(&Platform::open(&self.dir()).unwrap().unwrap().fused())
    }
}

fn equip(dir: &Path) {
    static KEY: OnceLock<Zeroizing<String>> = OnceLock::new();
    let key = KEY.get_or_init(|| SigningKey::generate().unwrap().to_pem().unwrap());
    Platform::equip(dir, || Ok::<_, ManufacturerError>(key.clone())).unwrap();
}

fn now() -> Time {
    Time::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// What the judge says of a quote, under the same root.
fn judge(quote: &[u8], collateral: &Collateral, root: &Root, at: Time) -> anyhow::Result<VerifiedReport> {
    let collateral: dcap_qvl::QuoteCollateralV3 = serde_json::from_str(&collateral.to_json())?;
    QuoteVerifier::new(root.certificate().der().to_vec()).verify(quote, &collateral, at.unix())
}
