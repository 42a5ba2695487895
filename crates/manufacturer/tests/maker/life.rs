//! A platform's life as verifiers see it: made, out of date, mended, revoked, renewed,
//! restored. `dcap-qvl` judges every verdict.

use crate::{Place, equip, judge, now};
use dcap::issue::ORGANIZATION;
use dcap::{Policy, Root, Rule, TcbStatus, Time, Verdict, verify};
use manufacturer::testing::{quote_of, report};
use manufacturer::{FMSPC, Manufacturer};
use platform::{Passphrase, Platform, Update};

/// A quote of today.
fn quote(place: &Place) -> Vec<u8> {
    quote_of(&place.maker(), &report(), now()).unwrap().to_bytes().unwrap()
}

/// What we and the judge say of a quote with the collateral of a time; they agree.
fn verdict(place: &Place, quote: &[u8], at: Time) -> Result<Verdict, dcap::Refusal> {
    let maker = place.maker();
    let (root, collateral) = (maker.root().unwrap(), maker.issued(at).unwrap().collateral);
    let ours = verify(quote, &collateral, &root, at);
    let theirs = judge(quote, &collateral, &root, at);
    match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours.tcb.status.to_string(), theirs.status);
            assert_eq!(ours.tcb.advisory_ids, theirs.advisory_ids);
        }
        (Err(_), Err(_)) => {}
        _ => panic!("{:?} and {:?}", ours.as_ref().err(), theirs.as_ref().err()),
    }
    ours
}

#[test]
fn a_new_platform_is_up_to_date_software() {
    let place = Place::new();
    let at = now();
    let verdict = verdict(&place, &quote(&place), at).unwrap();
    assert_eq!(verdict.tcb.status, TcbStatus::UpToDate);
    assert!(verdict.software_platform);
    assert_eq!((verdict.platform.fmspc, verdict.tcb.evaluation_data_number), (FMSPC, 1));
    assert_eq!(Policy::default().check(&verdict).unwrap_err().rule, Rule::SoftwarePlatform);
    let policy = Policy { accept_software_platform: true, ..Policy::default() };
    assert_eq!(policy.check(&verdict), Ok(()));
    // what it is, stands in every name
    let issued = place.maker().issued(at).unwrap();
    for der in [issued.root.der(), issued.pck.der()] {
        assert!(String::from_utf8_lossy(der).contains(ORGANIZATION));
    }
    // another platform vouches for nothing of this one
    let other = Place::new();
    let maker = other.maker();
    let (root, collateral) = (maker.root().unwrap(), maker.issued(at).unwrap().collateral);
    let refusal = verify(&quote(&place), &collateral, &root, at).unwrap_err();
    assert_eq!(refusal.rule, Rule::ForeignRoot);
    assert_ne!(root.certificate().key(), place.maker().root().unwrap().certificate().key());
}

#[test]
fn an_advisory_puts_machines_out_of_date_until_they_are_updated() {
    let place = Place::new();
    let before = quote(&place);
    for id in ["KLUIS-SA-00001", "KLUIS-SA-00002"] {
        place.update(Update::Advisory(id.into()));
    }
    let old = verdict(&place, &before, now()).unwrap();
    assert_eq!(old.tcb.status, TcbStatus::OutOfDate);
    assert_eq!(old.tcb.advisory_ids, ["KLUIS-SA-00001", "KLUIS-SA-00002"]);
    assert_eq!(old.tcb.evaluation_data_number, 3);
    // a new quote of the same version is no better
    assert_eq!(verdict(&place, &quote(&place), now()).unwrap().tcb.status, TcbStatus::OutOfDate);

    place.update(Update::SvnUp);
    let after = quote(&place);
    let new = verdict(&place, &after, now()).unwrap();
    assert_eq!(new.tcb.status, TcbStatus::UpToDate);
    assert!(new.tcb.advisory_ids.is_empty());
    assert_eq!(verdict(&place, &before, now()).unwrap().tcb.status, TcbStatus::OutOfDate);

    // another version that mends nothing is as good; a weakness of it, one more
    place.update(Update::SvnUp);
    assert_eq!(verdict(&place, &after, now()).unwrap().tcb.status, TcbStatus::UpToDate);
    place.update(Update::Advisory("KLUIS-SA-00003".into()));
    assert_eq!(verdict(&place, &after, now()).unwrap().tcb.advisory_ids, ["KLUIS-SA-00003"]);
    assert_eq!(verdict(&place, &before, now()).unwrap().tcb.advisory_ids.len(), 3);
    // what was not known then was not known then
    let made = Time::from_unix(now().unix() - 3600).unwrap();
    assert_eq!(verdict(&place, &before, made).unwrap().tcb.status, TcbStatus::UpToDate);
}

#[test]
fn a_revoked_platform_is_refused_until_its_next_security_version() {
    let place = Place::new();
    let before = quote(&place);
    verdict(&place, &before, now()).unwrap();
    place.update(Update::Revoke);
    for quote in [&before, &quote(&place)] {
        assert_eq!(verdict(&place, quote, now()).unwrap_err().rule, Rule::Revoked);
    }
    assert!(Platform::update(&place.dir(), Update::Revoke).is_err(), "once is enough");
    place.update(Update::SvnUp);
    assert_eq!(verdict(&place, &quote(&place), now()).unwrap().tcb.status, TcbStatus::UpToDate);
    assert_eq!(verdict(&place, &before, now()).unwrap_err().rule, Rule::Revoked, "for ever");
}

#[test]
fn collateral_is_renewed_before_it_expires_for_thirty_years() {
    let place = Place::new();
    place.update(Update::Advisory("KLUIS-SA-00001".into()));
    let quote = quote(&place);
    let (start, day) = (now(), 86_400);
    let mut last = None;
    for days in (0..30 * 365 - 2).step_by(97).chain([0, 13, 14, 15, 16, 29, 30, 31]) {
        let at = Time::from_unix(start.unix() + days * day).unwrap();
        let issued = place.maker().issued(at).unwrap();
        assert!(issued.validity.from <= at);
        assert!(at.plus_days(15).unwrap() < issued.validity.until, "{days} days: {:?}", issued.validity);
        // the same whoever asks on the same day
        assert_eq!(place.maker().issued(at).unwrap().collateral, issued.collateral);
        let verdict = verdict(&place, &quote, at).unwrap();
        assert_eq!(verdict.tcb.status, TcbStatus::OutOfDate, "what is known stays known");
        if days < 3 {
            last = Some((issued.collateral, issued.validity.until));
        }
    }
    // and what was not renewed is refused
    let (collateral, until) = last.unwrap();
    let late = Time::from_unix(until.unix() + 1).unwrap();
    let refusal = verify(&quote, &collateral, &place.maker().root().unwrap(), late).unwrap_err();
    assert_eq!(refusal.rule, Rule::CrlExpired);
    // a platform's certificates end
    let end = start.plus_days(30 * 365 + 1).unwrap();
    assert_eq!(verdict(&place, &quote, end).unwrap_err().rule, Rule::CertExpired);
}

#[test]
fn a_backup_brings_the_maker_back_with_its_books() {
    let place = Place::new();
    place.update(Update::Advisory("KLUIS-SA-00001".into()));
    place.update(Update::Revoke);
    let (copy, words) = (place.at("backup"), || Passphrase::new(b"correct horse".to_vec()).unwrap());
    Platform::backup(&place.dir(), &copy, &words()).unwrap();
    let elsewhere = place.at("elsewhere");
    Platform::restore(&elsewhere, &copy, &words(), false).unwrap();
    let restored = Manufacturer::open(&elsewhere).unwrap().unwrap();
    let at = now();
    let (ours, theirs) = (place.maker().issued(at).unwrap(), restored.issued(at).unwrap());
    assert_eq!((ours.chain, ours.collateral), (theirs.chain, theirs.collateral));
}

#[test]
fn a_platform_without_a_maker_gets_one_once() {
    let place = Place::new();
    let other = place.at("older");
    assert!(Manufacturer::open(&other).unwrap().is_none(), "no platform, no maker");
    assert!(Manufacturer::equip(&other).is_err());
    // as `kluis run` makes it
    drop(Platform::init(&other).unwrap());
    assert!(Manufacturer::open(&other).unwrap().is_none());
    // in use by a machine, which does not matter
    let machine = Platform::open(&other).unwrap().unwrap();
    equip(&other);
    let first = Manufacturer::open(&other).unwrap().unwrap();
    drop(machine);
    let again = Manufacturer::equip(&other).unwrap();
    assert_eq!(first.mrsigner(), again.mrsigner());
    assert_eq!(first.root().unwrap(), again.root().unwrap());
    // the secrets that machines seal with are the same
    place.update(Update::SvnUp);
    assert_eq!(
        place.maker().root().unwrap(),
        Root::from_der(place.maker().root().unwrap().certificate().der()).unwrap()
    );
}

/// Nothing of what is printed or given away is secret.
#[test]
fn nothing_secret_is_issued() {
    let place = Place::new();
    let maker = place.maker();
    let issued = maker.issued(now()).unwrap();
    let given = format!("{maker:?} {} {} {issued:?}", issued.chain, issued.collateral.to_json());
    let roots = Platform::roots(&place.dir()).unwrap().unwrap();
    let key: String = roots.books.signing_key.lines().nth(3).unwrap().into();
    for secret in [&roots.seal_fuses[..], &roots.provisioning_fuses, &roots.svn_top, &roots.owner_epoch] {
        let forms =
            [dcap::hex::encode(secret), dcap::hex::encode(secret).to_uppercase(), format!("{secret:?}")];
        assert!(forms.iter().all(|form| !given.contains(form)));
    }
    assert!(!given.contains(&key));
}
