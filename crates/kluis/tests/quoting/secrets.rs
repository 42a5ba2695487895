//! Nobody is told a key: not by what commands print, not by their logs and errors, whatever
//! they are given, nor by a machine that makes quotes.

use crate::First;
use crate::common::{Scratch, output, text};
use crate::leaks::Secrets;
use crate::user::{Files, User};
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes128Gcm, Nonce};
use architectural::Enclave;
use dcap::key::PrivateKey;
use manufacturer::Manufacturer;
use manufacturer::keys::Keys;
use platform::{CpuSvn, Platform, Roots};
use provisioning::{PCE_PRODUCT, PCE_SVN, QE_PRODUCT, QE_SVN};
use rsa::pkcs8::DecodePrivateKey;
use rsa::traits::PrivateKeyParts;
use rustix::process::{Pid, Signal, kill_process};
use sgx_abi::{AttributeFlags, Attributes, KeyName, KeyPolicy, Keyrequest, Secs};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::process::{Child, Command, Stdio};

/// A platform's secrets, and all that follows from them.
fn platform_secrets(secrets: &mut Secrets, roots: &Roots) {
    secrets.add("seal fuses", &roots.seal_fuses);
    secrets.add("provisioning fuses", &roots.provisioning_fuses);
    secrets.add("owner epoch", &roots.owner_epoch);
    secrets.add("end of the chain of security versions", &roots.svn_top);
    for svn in 0..=roots.svn {
        secrets.add("secret of a security version", &*roots.svn_secret(svn).unwrap());
    }
    let keys = Keys::of(roots);
    for (role, key) in [
        ("root", &keys.root),
        ("pck ca", &keys.pck_ca),
        ("tcb signing", &keys.tcb),
        ("collateral tls", &keys.tls),
    ] {
        let scalar = makers_key(roots, role);
        assert_eq!(PrivateKey::from_bytes(&scalar).unwrap().public(), key.public(), "{role}");
        secrets.add(&format!("{role} key"), &scalar);
    }
    if roots.books.signing_key.is_empty() {
        return;
    }
    // PKCS #8 has the public key too, which is no secret; its other parts are
    let signing = rsa::RsaPrivateKey::from_pkcs8_pem(&roots.books.signing_key).unwrap();
    let mut parts = vec![signing.d().to_bytes_be()];
    parts.extend(signing.primes().iter().map(rsa::BigUint::to_bytes_be));
    parts.extend([signing.dp(), signing.dq()].into_iter().flatten().map(rsa::BigUint::to_bytes_be));
    parts.extend(signing.qinv().and_then(|it| it.to_biguint()).map(|it| it.to_bytes_be()));
    assert!(parts.len() >= 3);
    for part in parts {
        secrets.add("architectural signing key", &part);
    }
}

/// A key that the maker signs with, derived once more.
fn makers_key(roots: &Roots, role: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"kluis manufacturer key\0\0")
        .chain_update(roots.svn_top)
        .chain_update(roots.provisioning_fuses)
        .chain_update([0])
        .chain_update(role)
        .finalize()
        .into()
}

/// What EGETKEY gives an architectural enclave.
fn enclave_key(
    roots: &Roots,
    enclave: Enclave,
    mrsigner: [u8; 32],
    name: KeyName,
    request: &Keyrequest,
) -> [u8; 16] {
    let (isvprodid, isvsvn) = match enclave {
        Enclave::Pce => (PCE_PRODUCT, PCE_SVN),
        Enclave::Qe => (QE_PRODUCT, QE_SVN),
    };
    let flags = AttributeFlags::INIT | AttributeFlags::MODE64BIT | AttributeFlags::PROVISIONKEY;
    let mut secs = Secs {
        mrenclave: enclave.pages().measure(),
        mrsigner,
        isvprodid,
        isvsvn,
        attributes: Attributes { flags, xfrm: 3 },
        ..Secs::default()
    };
    secs.private.padding = sgx::sigstruct::PADDING;
    let processor = manufacturer::processor(&roots.fused());
    *sgx::keys::requested_key(&processor, name, &secs, request).unwrap()
}

/// The keys of the provisioning-certification enclave at all security versions so far.
fn pck_secrets(secrets: &mut Secrets, roots: &Roots, maker: &Manufacturer) {
    for svn in (1..=roots.svn).map(|svn| CpuSvn::new(svn).unwrap()) {
        let request = provisioning::key_request(svn.to_bytes(), PCE_SVN);
        let key = enclave_key(roots, Enclave::Pce, maker.mrsigner(), KeyName::Provision, &request);
        let scalar: [u8; 32] = provisioning::pck_key(&key).to_bytes().into();
        let public = PrivateKey::from_bytes(&scalar).unwrap().public();
        assert_eq!(public, maker.pck(svn).unwrap().unwrap().key());
        secrets.add("provisioning key", &key);
        secrets.add("PCK key", &scalar);
    }
}

/// All that a user's platform has now.
fn secrets_of(secrets: &mut Secrets, user: &User) {
    let folder = user.scratch.path("platform");
    let roots = Platform::roots(&folder).unwrap().unwrap();
    platform_secrets(secrets, &roots);
    if let Some(maker) = Manufacturer::open(&folder).unwrap() {
        pck_secrets(secrets, &roots, &maker);
    }
}

/// Opens a sealed attestation key as the quoting enclave does (`enclave_base::sealing`).
fn attestation_key(secrets: &mut Secrets, user: &User, sealed: &[u8], public: &dcap::key::PublicKey) {
    let folder = user.scratch.path("platform");
    let (roots, maker) =
        (Platform::roots(&folder).unwrap().unwrap(), Manufacturer::open(&folder).unwrap().unwrap());
    let (head, ciphertext) = sealed.split_at(64);
    let number = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let counted = AttributeFlags::INIT
        | AttributeFlags::DEBUG
        | AttributeFlags::PROVISIONKEY
        | AttributeFlags::EINITTOKEN_KEY;
    let request = Keyrequest {
        keyname: KeyName::Seal as u16,
        keyid: head[8..40].try_into().unwrap(),
        cpusvn: head[40..56].try_into().unwrap(),
        keypolicy: KeyPolicy::from_bits_retain(number(56)),
        isvsvn: number(58),
        attributemask: Attributes { flags: counted, xfrm: 0 },
        ..Keyrequest::default()
    };
    let key = enclave_key(&roots, Enclave::Qe, maker.mrsigner(), KeyName::Seal, &request);
    let additional = [head, b"kluis attestation key"].concat();
    let scalar = Aes128Gcm::new(&key.into())
        .decrypt(&Nonce::from([0; 12]), Payload { msg: ciphertext, aad: &additional })
        .expect("the key is the quoting enclave's");
    let scalar: [u8; 32] = scalar.try_into().unwrap();
    assert_eq!(&PrivateKey::from_bytes(&scalar).unwrap().public(), public);
    secrets.add("attestation key", &scalar);
    secrets.add("its seal key", &key);
    // whoever has it and a machine of the platform can make quotes by it
    secrets.add("sealed attestation key", ciphertext);
}

/// Nothing was said; and the search would have seen it: each secret is found that is put in
/// its way.
fn assert_silent(secrets: &Secrets, said: &[u8], planted: &[(&str, Vec<u8>)]) {
    println!("{} bytes, {} windows", said.len(), secrets.len());
    let found = secrets.said_in(said);
    assert!(found.is_empty(), "{found:?}");
    let middle = said.len() / 2;
    for (name, secret) in planted {
        for told in [secret[..8].to_vec(), dcap::hex::encode(&secret[secret.len() - 8..]).into_bytes()] {
            let with = [&said[..middle], b" ", &told, b" ", &said[middle..]].concat();
            let found = secrets.said_in(&with);
            assert!(found.iter().any(|found| found.starts_with(name)), "{name}: {found:?}");
        }
    }
}

#[test]
fn a_machine_that_makes_quotes_tells_no_key() {
    let first = First::machine();
    let user = first.user();
    let mut secrets = Secrets::default();
    secrets_of(&mut secrets, &user);
    let key = |name: &str| dcap::Quote::parse(&first.files[name]).unwrap().authentication.attestation_key;
    attestation_key(&mut secrets, &user, &first.key, &key("quote"));
    attestation_key(&mut secrets, &user, &first.service_key, &key("quote.aesm"));
    let roots = Platform::roots(&user.scratch.path("platform")).unwrap().unwrap();
    let planted = [
        ("seal fuses", roots.seal_fuses.to_vec()),
        ("root key", makers_key(&roots, "root").into()),
        ("sealed attestation key", first.key[64..].into()),
    ];
    // what it said on the way, and each file that it leaves: quotes, errors, the kernel's log
    let kernel = text(&first.files["kernel"]);
    assert!(kernel.contains("sgx: EPC section"), "{kernel}");
    let said: Vec<&[u8]> = first.files.values().map(Vec::as_slice).chain([&first.said[..]]).collect();
    assert_silent(&secrets, &said.join(&b" \n"[..]), &planted);
}

/// P-256 keys in PKCS #8, as *ring* and rcgen keep them, in a process's memory.
fn keys_in_memory(pid: u32) -> Vec<[u8; 32]> {
    const HEAD: &[u8] =
        b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\
        \xce\x3d\x03\x01\x07\x04\x6d\x30\x6b\x02\x01\x01\x04\x20";
    let mut memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut keys = Vec::new();
    for line in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (start, end) = fields[0].split_once('-').unwrap();
        let [start, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16).unwrap());
        let mut bytes = Vec::new();
        // code has the head alone, and some mappings cannot be read
        if !fields[1].starts_with("rw") || memory.seek(SeekFrom::Start(start)).is_err() {
            continue;
        }
        let _ = (&mut memory).take(end - start).read_to_end(&mut bytes);
        for window in bytes.windows(HEAD.len() + 32).filter(|window| window.starts_with(HEAD)) {
            keys.push(window[HEAD.len()..].try_into().unwrap());
        }
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// A process that ends with the test, whatever becomes of that.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves collateral, to clients that behave and to others; adds the key that it made.
fn serve(secrets: &mut Secrets, user: &User) -> [u8; 32] {
    let mut command =
        user.command(&["serve", "collateral", "--listen", "127.0.0.1:0", "--verbose", "--json"]);
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut service = Ended(spawned);
    let child = &mut service.0;
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let (address, ca) = (ready["address"].as_str().unwrap(), ready["tls_ca"].as_str().unwrap());
    user.heard(line.as_bytes());
    for path in [
        "sgx/certification/v4/rootcacrl",
        "sgx/certification/v4/tcb?fmspc=4B4C55490001",
        "none",
        "../../roots",
    ] {
        let url = format!("https://{address}/{path}");
        let args =
            ["--verbose", "--include", "--path-as-is", "--noproxy", "*", "--cacert", ca, "--output", "-"];
        let out = output(Command::new("curl").args(args).arg(url), b"");
        assert!(out.status.success(), "{}", text(&out.stderr));
        user.heard(&out.stdout);
        user.heard(&out.stderr);
    }
    // one that speaks no TLS, and one that does not believe it
    for (scheme, believes) in [("http", true), ("https", false)] {
        let url = format!("{scheme}://{address}/");
        let out = output(Command::new("curl").args(["--verbose", "--noproxy", "*", "--head", &url]), b"");
        assert_eq!(out.status.success(), believes, "{}", text(&out.stderr));
        user.heard(&out.stdout);
        user.heard(&out.stderr);
    }
    let keys = keys_in_memory(child.id());
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    child.stderr.take().unwrap().read_to_end(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", text(&rest));
    user.heard(&rest);
    assert!(!keys.is_empty(), "the service has a key");
    for key in &keys {
        secrets.add("TLS key", key);
    }
    keys[0]
}

#[test]
fn commands_that_have_keys_in_hand_tell_none() {
    let (user, mut secrets) = (User::new(), Secrets::default());
    // no word of it is one that is said anyway
    let words = b"Xq7-vT2m.9Kd0wLz,Ye4!";
    secrets.add("passphrase", words);
    let words_file = user.scratch.file("words", words);
    let other_words = user.scratch.file("other-words", "another passphrase, of no use");
    let platform = |args: &[&str], code: i32| {
        for json in [&[][..], &["--json"]] {
            let mut all = vec!["platform"];
            all.extend(args);
            all.extend(json);
            // what can be done once only is told once as data, and refused then
            let out = user.run(&all, b"");
            if json.is_empty() {
                assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out.stderr));
            }
        }
        Scratch::path(&user.scratch, "platform/roots").exists()
    };
    platform(&["show"], 2);
    assert!(platform(&["init"], 0));
    secrets_of(&mut secrets, &user);
    for args in
        [&["show"][..], &["export", "public"], &["update", "--advisory", "KLUIS-SA-00001"], &["revoke"]]
    {
        platform(args, 0);
    }
    platform(&["backup", "backup", "--passphrase-file", &words_file], 0);
    for change in ["--svn-up", "--new-owner-epoch"] {
        platform(&["update", change], 0);
        secrets_of(&mut secrets, &user);
    }
    platform(&["restore", "backup", "--passphrase-file", &words_file], 2);
    platform(&["restore", "backup", "--replace", "--passphrase-file", &other_words], 2);

    // quotes, good and bad, and files of keys where others are asked for
    let folder = user.scratch.path("platform");
    let roots = Platform::roots(&folder).unwrap().unwrap();
    let maker = Manufacturer::open(&folder).unwrap().unwrap();
    let at = crate::user::now();
    let quote = manufacturer::testing::quote_of(&maker, &manufacturer::testing::report(), at).unwrap();
    let quote = quote.to_bytes().unwrap();
    user.scratch.file("quote", &quote);
    user.scratch.file("cut", &quote[..quote.len() / 2]);
    let changed: Vec<u8> = quote.iter().enumerate().map(|(n, byte)| byte ^ u8::from(n == 99)).collect();
    user.scratch.file("changed", changed);
    user.scratch.file("signing.pem", &roots.books.signing_key);
    for quote in ["quote", "cut", "changed", "platform/roots", "signing.pem", "words", "none"] {
        user.run(&["attest", "inspect", quote], b"");
        for more in [&[][..], &["--accept-software-platform"], &["--accept-software-platform", "--json"]] {
            user.run(&[&["attest", "verify", quote], more].concat(), b"");
        }
    }
    for option in ["--root", "--collateral", "--policy", "--at"] {
        for file in ["platform/roots", "signing.pem", "words", "backup"] {
            let out = user.run(&["attest", "verify", "quote", option, file], b"");
            assert_ne!(out.status.code(), Some(0), "{option} {file}");
        }
    }
    for file in ["platform/roots", "signing.pem", "words"] {
        platform(&["restore", file, "--replace", "--passphrase-file", &words_file], 2);
    }
    platform(&["restore", "backup", "--replace", "--passphrase-file", "platform/roots"], 2);

    let tls = serve(&mut secrets, &user);

    // a platform that is damaged, in its head, its secrets and its books
    let good = user.roots();
    for byte in [0, 8, 12, 60, 100, 140, 200, 400, good.len() - 1] {
        let mut bad = good.clone();
        bad[byte] ^= 1;
        for bad in [&bad[..], &good[..byte]] {
            user.scratch.file("platform/roots", bad);
            for args in
                [&["platform", "show"][..], &["platform", "export", "other"], &["serve", "collateral"]]
            {
                assert_eq!(user.run(args, b"").status.code(), Some(2), "{args:?}, byte {byte}");
            }
        }
    }
    // the PEM's text, with a mistake that the file's checksum does not tell
    user.scratch.file("platform/roots", with_key(&good, |key| key.replace("MII", "M!I")));
    for args in [&["platform", "show"][..], &["platform", "export", "other"], &["serve", "collateral"]] {
        assert!(!user.run(args, b"").status.success(), "{args:?}");
    }

    let planted = [
        ("owner epoch", roots.owner_epoch.to_vec()),
        ("end of the chain", roots.svn_top.to_vec()),
        ("tcb signing key", makers_key(&roots, "tcb signing").into()),
        ("pck ca key", makers_key(&roots, "pck ca").into()),
        ("TLS key", tls.into()),
        ("passphrase", words.into()),
    ];
    assert_silent(&secrets, &user.said(), &planted);
    // the signing key's own text, and the file of all of them
    for (told, names) in [
        (roots.books.signing_key.as_bytes(), &["architectural signing key, in base64"][..]),
        (
            &good,
            &["seal fuses, as it is", "provisioning fuses, as it is", "architectural signing key, in base64"],
        ),
    ] {
        let found = secrets.said_in(told);
        assert!(names.iter().all(|name| found.iter().any(|found| found == name)), "{found:?}");
    }
}

/// A platform's file with another text of its signing key, of the same length.
fn with_key(roots: &[u8], change: impl Fn(&str) -> String) -> Vec<u8> {
    // header, 120 bytes of secrets, a length and the key, all before the checksum
    let mut bytes = roots[..roots.len() - 32].to_vec();
    let length = usize::from(u16::from_le_bytes([bytes[136], bytes[137]]));
    let key = change(std::str::from_utf8(&bytes[138..138 + length]).unwrap());
    bytes[138..138 + length].copy_from_slice(key.as_bytes());
    let sum = Sha256::digest(&bytes);
    [&bytes[..], &sum].concat()
}

/// The first machine's files are more than its quotes.
#[test]
fn a_machine_is_given_no_key_of_its_maker() {
    let first = First::machine();
    let user = first.user();
    let mut secrets = Secrets::default();
    secrets_of(&mut secrets, &user);
    let given = |files: &Files| -> Vec<Vec<u8>> {
        let names =
            ["pce.sgxs", "pce.sig", "qe.sgxs", "qe.sig", "pck-chain.pem", "collateral.json", "root.pem"];
        names.iter().map(|name| files[*name].clone()).collect()
    };
    assert_eq!(secrets.said_in(&given(&first.files).join(&b"\n"[..])), Vec::<String>::new());
}
