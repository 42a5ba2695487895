//! OpenSSL verifies what we issue: chains with revocation lists, strictly.

use dcap::issue::{Issuer, certificate, crl};
use dcap::key::PrivateKey;
use dcap::pki::{Certificate, Role, to_pem};
use dcap::testing::{Parts, day, days, platform};
use std::path::Path;
use std::process::Command;

struct Platform {
    folder: tempfile::TempDir,
    root: Certificate,
    pck_ca: Certificate,
    pck: Certificate,
    tcb: Certificate,
    keys: [PrivateKey; 4],
}

fn openssl(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let output =
        Command::new("openssl").current_dir(folder).args(arguments).output().expect("openssl is installed");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

fn platform_with(revoked: [Vec<(Vec<u8>, dcap::Time)>; 2]) -> Platform {
    let keys = [1, 2, 3, 4].map(|seed| PrivateKey::from_bytes(&[seed; 32]).unwrap());
    let details = platform();
    let request = |role, serial, key: &PrivateKey| certificate::Request {
        role,
        serial: [serial; 16],
        validity: days(3650),
        key: key.public(),
        crl_url: "https://kluis.invalid/crl",
        platform: (role == Role::Pck).then_some(&details),
    };
    let root = certificate::issue_root(&request(Role::Root, 1, &keys[0]), &keys[0]).unwrap();
    let by_root = Issuer { key: &keys[0], certificate: &root };
    // a first bit that is set makes the number one byte longer
    let pck_ca = certificate::issue(&request(Role::PckCa, 0x82, &keys[1]), by_root).unwrap();
    let tcb = certificate::issue(&request(Role::TcbSigning, 4, &keys[3]), by_root).unwrap();
    let by_ca = Issuer { key: &keys[1], certificate: &pck_ca };
    let pck = certificate::issue(&request(Role::Pck, 3, &keys[2]), by_ca).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    for (name, one) in [("root.pem", &root), ("ca.pem", &pck_ca), ("tcb.pem", &tcb), ("pck.pem", &pck)] {
        write(name, to_pem([one.der()]).as_bytes());
    }
    let [by_the_root, by_the_ca] = revoked;
    let lists = [("root.crl", by_root, by_the_root), ("ca.crl", by_ca, by_the_ca)];
    for (name, issuer, revoked) in lists {
        let list = crl::issue(&crl::Request { validity: days(30), number: 300, revoked }, issuer).unwrap();
        write(name, &list);
        let pem = ["crl", "-inform", "DER", "-in", name, "-out", &format!("{name}.pem")];
        assert!(openssl(folder.path(), &pem).0);
    }
    Platform { folder, root, pck_ca, pck, tcb, keys }
}

fn verify(platform: &Platform, leaf: &str, at: dcap::Time) -> (bool, String) {
    let at = at.unix().to_string();
    let mut arguments =
        vec!["verify", "-x509_strict", "-crl_check_all", "-attime", &at, "-CAfile", "root.pem"];
    arguments.extend(["-CRLfile", "root.crl.pem", "-CRLfile", "ca.crl.pem", "-untrusted", "ca.pem", leaf]);
    openssl(platform.folder.path(), &arguments)
}

#[test]
fn chains_and_lists_verify() {
    let platform = platform_with([vec![], vec![]]);
    for leaf in ["pck.pem", "tcb.pem"] {
        let (ok, text) = verify(&platform, leaf, day(10));
        assert!(ok, "{text}");
        let (ok, text) = verify(&platform, leaf, day(40));
        assert!(!ok && text.contains("CRL has expired"), "{text}");
    }
    for (list, by) in [("root.crl", "root.pem"), ("ca.crl", "ca.pem")] {
        let arguments = ["crl", "-inform", "DER", "-in", list, "-CAfile", by, "-noout", "-text"];
        let (ok, text) = openssl(platform.folder.path(), &arguments);
        assert!(ok && text.contains("verify OK") && text.contains("300"), "{text}");
    }
    let (_, text) = openssl(platform.folder.path(), &["x509", "-in", "pck.pem", "-noout", "-text"]);
    for line in [
        "O = Kluis software platform",
        "CN = Kluis SGX PCK Certificate",
        "CA:FALSE",
        "Digital Signature, Non Repudiation",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn revoked_certificates_are_seen() {
    let fresh = platform_with([vec![], vec![]]);
    let serial = |one: &Certificate| vec![(one.serial().to_vec(), day(1))];
    let cases = [
        ("pck.pem", [vec![], serial(&fresh.pck)]),
        ("pck.pem", [serial(&fresh.pck_ca), vec![]]),
        ("tcb.pem", [serial(&fresh.tcb), vec![]]),
    ];
    for (leaf, revoked) in cases {
        let (ok, text) = verify(&platform_with(revoked), leaf, day(10));
        assert!(!ok && text.contains("certificate revoked"), "{leaf}: {text}");
    }
}

/// The same inputs make the same bytes, and what is issued is what was asked for.
#[test]
fn issuing_is_deterministic() {
    let [one, two] = [(); 2].map(|()| platform_with([vec![], vec![]]));
    for (one, two) in
        [(&one.root, &two.root), (&one.pck_ca, &two.pck_ca), (&one.pck, &two.pck), (&one.tcb, &two.tcb)]
    {
        assert_eq!(one.der(), two.der());
    }
    assert_eq!(Parts::default().bundle().unwrap().quote, Parts::default().bundle().unwrap().quote);
    assert_eq!(one.pck.pck_extension().unwrap(), platform());
    assert_eq!(one.pck.key(), one.keys[2].public());
    assert_eq!(one.root.serial(), [1; 16]);
    assert_eq!(one.pck_ca.serial().strip_prefix(&[0]), Some(&[0x82; 16][..]));
}
