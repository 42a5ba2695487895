//! The attestation key across machines and updates of their platform: it is kept sealed, for
//! the quoting enclave on one platform of one security version.

use crate::common::text;
use crate::user::{Files, User};
use crate::{First, QUOTE, judge, leaf, root};
use dcap::Quote;
use std::fs;

/// A quote by the key in a file of that name, and what is said of the key.
fn by(name: &str) -> String {
    format!("kluis-quote --key /keys/{name} report > out/{name} 2> out/{name}.why\n")
}

/// The report that is quoted, first.
const REPORT: &str = "
kluis-quote --target-info > target
./enclave-check closed.sgxs closed.sig report target report
cp /usr/share/kluis/attestation/*.json /usr/share/kluis/attestation/*.pem out
";

fn attestation_key(quote: &[u8]) -> dcap::key::PublicKey {
    Quote::parse(quote).unwrap().authentication.attestation_key
}

/// The key of a quote that is good, and why the one that was kept was not used.
fn made(files: &Files, name: &str) -> (dcap::key::PublicKey, String) {
    judge(&files[name], files).unwrap();
    let why = text(&files[&format!("{name}.why")]);
    assert!(why.lines().count() <= 1, "{why}");
    (attestation_key(&files[name]), why)
}

/// What is said of a key that is not used.
fn replaced(name: &str, why: &str) -> String {
    format!("kluis-quote: /keys/{name}: the attestation key is {why}; there is a new one\n")
}

#[test]
fn the_attestation_key_is_kept_for_its_platform_and_security_version() {
    let first = First::machine();
    let user = first.user();
    let kept = |name: &str, key: &[u8]| drop(user.scratch.file(&format!("keys/{name}"), key));
    let before = Quote::parse(&first.files["quote"]).unwrap();
    let old = before.authentication.attestation_key;

    // another machine of the platform: the same key, but not if one bit was changed of its
    // head, its ciphertext or its tag
    kept("again", &first.key);
    let last = first.key.len() - 1;
    let flipped = [8, 40, 58, 64, last];
    let name = |byte: usize| format!("flipped{byte}");
    for byte in flipped {
        let mut key = first.key.clone();
        key[byte] ^= 2;
        kept(&name(byte), &key);
    }
    let names: Vec<String> = flipped.map(name).into();
    let script: String = names.iter().map(|name| by(name)).collect();
    let files = user.machine(&format!("{REPORT}{}{script}", by("again")));
    assert_eq!(made(&files, "again"), (old, String::new()));
    assert_eq!(fs::read(user.scratch.path("keys/again")).unwrap(), first.key);
    let mut keys = vec![old.0];
    for name in &names {
        let (key, why) = made(&files, name);
        // a greater version in the head is one that the processor has no key for
        let later = ["flipped40", "flipped58"].contains(&name.as_str());
        let wanted = if later {
            "of a later security version"
        } else {
            "of another enclave or processor, or was changed"
        };
        assert_eq!(why, replaced(name, wanted));
        keys.push(key.0);
    }
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 1 + names.len(), "each new key is another");

    // the next security version has another certificate; it can unseal the key of before, and
    // does not use it
    let words = user.scratch.file("words", "a passphrase of some length\n");
    user.works(&["platform", "backup", "backup", "--passphrase-file", &words]);
    user.works(&["platform", "update", "--advisory", "KLUIS-SA-00007"]);
    assert_eq!(user.verify(&first.files["quote"]).0, Some(19));
    user.works(&["platform", "update", "--svn-up"]);
    kept("key", &first.key);
    let after = user.machine(QUOTE);
    let next = Quote::parse(&after["quote"]).unwrap();
    assert_ne!(next.authentication.attestation_key, old);
    assert_ne!(leaf(&next).key(), leaf(&before).key());
    assert_eq!(text(&after["pck"]).trim(), dcap::hex::encode(&leaf(&next).key().0));
    assert_eq!(judge(&after["quote"], &after).unwrap().status, "UpToDate");
    // it is the same platform still
    assert_eq!(next.header.user_data, before.header.user_data);
    assert_eq!(root(&after).fingerprint(), root(&first.files).fingerprint());
    // and the old quote is out of date to whoever knows
    assert_eq!(judge(&first.files["quote"], &after).unwrap().status, "OutOfDate");
    let said = text(&user.said());
    assert!(said.contains(&replaced("key", "of an earlier security version")), "{said}");
    let newer = user.key("key");
    assert_ne!(newer, first.key);

    // a processor of the old version cannot unseal the new key, and still can its own
    user.works(&["platform", "restore", "backup", "--replace", "--passphrase-file", &words]);
    kept("newer", &newer);
    kept("old", &first.key);
    let files = user.machine(&format!("{REPORT}{}{}", by("newer"), by("old")));
    let (key, why) = made(&files, "newer");
    assert_eq!(why, replaced("newer", "of a later security version"));
    assert!(key != old && key != next.authentication.attestation_key);
    assert_eq!(made(&files, "old"), (old, String::new()));
}

/// On another platform it is a stranger's.
#[test]
fn another_platform_has_no_use_for_the_key() {
    let first = First::machine();
    let user = User::new();
    user.scratch.file("keys/foreign", &first.key);
    let files = user.machine(&format!("{REPORT}{}", by("foreign")));
    let (key, why) = made(&files, "foreign");
    assert_eq!(why, replaced("foreign", "of another enclave or processor, or was changed"));
    assert_ne!(key, attestation_key(&first.files["quote"]));
}
