//! Whom a verification believes: the root, and the collateral below it.

use super::args::VerifyArgs;
use super::read;
use super::verify::Stop;
use crate::exit::Error;
use dcap::collateral::MAX_BUNDLE_SIZE;
use dcap::pki::{MAX_CHAIN_SIZE, certificates_from_pem};
use dcap::quote::CertificationData;
use dcap::{Collateral, Quote, Root, Time};
use manufacturer::Manufacturer;
use std::path::Path;

/// The root and the collateral.
pub(super) struct Trust {
    pub(super) root: Root,
    pub(super) collateral: Collateral,
}

impl Trust {
    /// What the options say; else Intel's root, or that of the user's own platform if the
    /// quote is of it, with its collateral of that time.
    pub(super) fn find(args: &VerifyArgs, quote: &Quote, platform: &Path, at: Time) -> Result<Self, Stop> {
        let collateral = args.collateral.as_deref().map(read_collateral).transpose()?;
        let given = args.root.as_deref().map(read_root).transpose()?;
        let claimed = claimed_root(quote, collateral.as_ref());
        let own = match claimed.as_ref().is_some_and(Root::is_intel) {
            true => None,
            false => Own::find(platform, claimed.as_ref())?,
        };
        let collateral = match (collateral, &own) {
            (Some(collateral), _) => collateral,
            (None, Some(own)) => own.maker.issued(at).map_err(Error::from)?.collateral,
            (None, None) => {
                let cause = "there is no collateral for the quote, which is not of your platform: give --collateral FILE";
                return Err(Error::bad(cause).into());
            }
        };
        let root = given.or(own.map(|own| own.root)).unwrap_or_else(Root::intel);
        Ok(Self { root, collateral })
    }
}

/// The user's own platform.
struct Own {
    maker: Manufacturer,
    root: Root,
}

impl Own {
    /// It, if it is what a quote or its collateral claims to be below.
    fn find(platform: &Path, claimed: Option<&Root>) -> Result<Option<Self>, Error> {
        let (Some(claimed), Some(maker)) = (claimed, Manufacturer::open(platform)?) else { return Ok(None) };
        let root = maker.root()?;
        let same = root.certificate().key() == claimed.certificate().key();
        Ok(same.then_some(Self { maker, root }))
    }
}

/// The root that a quote's chain ends at, or else the collateral's: a claim, no more.
fn claimed_root(quote: &Quote, collateral: Option<&Collateral>) -> Option<Root> {
    let chain = match (&quote.authentication.certification, collateral) {
        (CertificationData::PckChain(chain), _) => chain.as_slice(),
        (_, Some(collateral)) => collateral.pck_crl_issuer_chain.as_bytes(),
        _ => return None,
    };
    let last = certificates_from_pem(chain, "chain").ok()?.pop()?;
    Root::from_der(&last).ok()
}

fn read_collateral(file: &Path) -> Result<Collateral, Stop> {
    let bytes = read(file, MAX_BUNDLE_SIZE)?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Collateral::from_json(&text)?),
        Err(_) => Err(Error::bad(format!("{} is no collateral: it is no text", file.display())).into()),
    }
}

fn read_root(file: &Path) -> Result<Root, Error> {
    let bytes = read(file, MAX_CHAIN_SIZE)?;
    let root = if bytes.starts_with(b"-----") { Root::from_pem(&bytes) } else { Root::from_der(&bytes) };
    root.map_err(|refusal| Error::bad(format!("--root {} is none: {refusal}", file.display())))
}
