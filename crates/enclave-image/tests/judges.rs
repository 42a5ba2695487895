//! Other people's programs agree with what is made here: the `sgxs` crate on streams,
//! measurements and SIGSTRUCTs, OpenSSL on keys and signatures, sgxs-tools' own files.

use enclave_image::inspect::{self, hex};
use enclave_image::key::{PublicKey, SigningKey};
use enclave_image::sgxs::{Enclave, Page};
use enclave_image::sigstruct::{self, Signature, SigstructError, Statement};
use num_bigint::BigUint;
use sgx_abi::{AttributeFlags, Attributes, MiscSelect, PAGE_SIZE, PageType, SecinfoFlags};
use sgxs::crypto::{Hash, SgxHashOps, SgxRsaOps};
use sgxs::sgxs::{CanonicalSgxsReader, SgxsRead};
use sgxs::sigstruct::EnclaveHash;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

const TEST_ENCLAVE: &[u8] = include_bytes!("../../kluis/tests/testdata/sgxs-tools/test_enclave.sgxs");
const TEST_SIGSTRUCT: &[u8] = include_bytes!("../../kluis/tests/testdata/sgxs-tools/test_enclave.sig");

struct Sha(Sha256);

impl SgxHashOps for Sha {
    fn new() -> Self {
        Sha(Sha256::new())
    }
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
    fn finish(self) -> Hash {
        self.0.finalize().into()
    }
}

/// A public key for `sgxs`, by RSA's formula.
struct Judge(BigUint);

#[derive(Debug, PartialEq)]
struct NotSigned;

impl std::fmt::Display for NotSigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not signed")
    }
}

impl std::error::Error for NotSigned {}

impl SgxRsaOps for Judge {
    type Error = NotSigned;

    fn len(&self) -> usize {
        self.0.bits() as usize
    }
    fn sign_sha256_pkcs1v1_5_with_q1_q2<H: AsRef<[u8]>>(
        &self,
        _: H,
    ) -> Result<(Vec<u8>, Vec<u8>, Vec<u8>), NotSigned> {
        Err(NotSigned)
    }
    fn verify_sha256_pkcs1v1_5<S: AsRef<[u8]>, H: AsRef<[u8]>>(
        &self,
        s: S,
        hash: H,
    ) -> Result<(), NotSigned> {
        let message = BigUint::from_bytes_le(s.as_ref()).modpow(&3u8.into(), &self.0).to_bytes_be();
        let info = [0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20];
        let expected = [&[1][..], &[0xff; 330], &[0], &info, hash.as_ref()].concat();
        if message == expected { Ok(()) } else { Err(NotSigned) }
    }
    fn e(&self) -> Vec<u8> {
        vec![3]
    }
    fn n(&self) -> Vec<u8> {
        self.0.to_bytes_le()
    }
}

/// Pages of all kinds with content of a generator's choice.
fn generated(seed: u64) -> Enclave {
    let mut x = seed << 20 | 0x9e37_79b9;
    let mut next = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let mut pages = Vec::new();
    for n in 0..64u64 {
        if next().is_multiple_of(4) {
            continue;
        }
        let page_type = if next().is_multiple_of(5) { PageType::Tcs } else { PageType::Reg };
        let rights = SecinfoFlags::from_bits_truncate([1, 3, 5, 7][next() as usize % 4]);
        let rights = if page_type == PageType::Tcs { SecinfoFlags::empty() } else { rights };
        let data = (!next().is_multiple_of(3)).then(|| Box::new(std::array::from_fn(|_| next() as u8)));
        let measured = [0, u16::MAX, next() as u16][next() as usize % 3];
        pages.push(Page {
            offset: n * PAGE_SIZE as u64,
            flags: SecinfoFlags::new(page_type, rights),
            measured,
            data,
        });
    }
    Enclave { size: 1 << (18 + seed % 4), ssa_frame_pages: 1 + seed as u32 % 3, pages }
}

/// Of the `sgxs` crate.
fn their_measurement(stream: &[u8]) -> Hash {
    EnclaveHash::from_stream::<_, Sha>(&mut &stream[..]).unwrap().hash()
}

#[test]
fn sgxs_measures_our_streams_alike() {
    for seed in 1..40 {
        let enclave = generated(seed);
        let stream = enclave.write();
        assert_eq!(enclave.measure(), their_measurement(&stream), "seed {seed}");
        assert_eq!(Enclave::read(&stream).unwrap().measure(), enclave.measure(), "seed {seed}");
        // and finds them canonical
        let mut stream = &stream[..];
        let mut reader = CanonicalSgxsReader::new(&mut stream);
        while reader.read_meas().unwrap().is_some() {}
    }
}

#[test]
fn their_enclave_is_read_and_measured() {
    let enclave = Enclave::read(TEST_ENCLAVE).unwrap();
    let sig = sigstruct::read(TEST_SIGSTRUCT).unwrap();
    assert_eq!(enclave.measure(), sig.enclavehash);
    assert_eq!(enclave.measure(), their_measurement(TEST_ENCLAVE));
    assert_eq!(enclave.write(), TEST_ENCLAVE);
    let report = inspect::stream(&enclave);
    assert_eq!((report.size, report.threads.len()), (0x40000, 1));
    assert_eq!(report.threads[0].tcs, 0x15000);
    let report = inspect::sigstruct(&sig);
    assert_eq!(report.mrenclave, hex(&sig.enclavehash));
    assert_eq!(report.mrsigner, hex(&Sha256::digest(sig.modulus)));
}

/// A key of OpenSSL's, in a folder.
fn openssl_key() -> &'static Path {
    static KEY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = KEY.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        openssl(dir.path(), &["genrsa", "-3", "-out", "key.pem", "3072"]);
        openssl(dir.path(), &["rsa", "-in", "key.pem", "-pubout", "-out", "public.pem"]);
        dir
    });
    dir.path()
}

fn openssl(dir: &Path, args: &[&str]) {
    let out = Command::new("openssl").current_dir(dir).args(args).output().unwrap();
    assert!(out.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn statement() -> Statement {
    Statement {
        mrenclave: std::array::from_fn(|i| i as u8),
        attributes: Attributes { flags: AttributeFlags::MODE64BIT | AttributeFlags::KSS, xfrm: 3 },
        miscselect: MiscSelect::empty(),
        isvprodid: 7,
        isvsvn: 3,
        isvfamilyid: [0xfa; 16],
        isvextprodid: [0xe0; 16],
        date: 0x2026_1127,
    }
}

#[test]
fn openssl_signs_what_we_state() {
    let dir = openssl_key();
    std::fs::write(dir.join("digest"), statement().digest()).unwrap();
    openssl(dir, &["dgst", "-sha256", "-sign", "key.pem", "-out", "raw", "digest"]);
    let raw = Signature::read(&std::fs::read(dir.join("raw")).unwrap()).unwrap();
    let public = PublicKey::from_pem(&text(&dir.join("public.pem"))).unwrap();
    let two_steps = sigstruct::seal(&statement().digest(), &raw, &public).unwrap();
    // one step with the same key: the signature has no randomness
    let key = SigningKey::from_pem(&text(&dir.join("key.pem"))).unwrap();
    let one_step = statement().sign(&key).unwrap();
    assert_eq!(sigstruct::write(&two_steps), sigstruct::write(&one_step));
    assert_eq!(Statement::of(&one_step), statement());

    // the sgxs crate reads and verifies it
    let bytes = sigstruct::write(&one_step);
    let theirs = sgxs::sigstruct::read(&mut &bytes[..]).unwrap();
    let judge = Judge(BigUint::from_bytes_le(&theirs.modulus));
    assert_eq!(sgxs::sigstruct::verify::<_, Sha>(&theirs, &judge), Ok(()));
    assert_eq!((theirs.isvprodid, theirs.isvsvn, theirs.enclavehash), (7, 3, statement().mrenclave));
    assert_eq!(theirs.date, 0x2026_1127);
    let (n, s) = (&judge.0, BigUint::from_bytes_le(&theirs.signature));
    let q1 = &s * &s / n;
    let q2 = (&s * &s * &s - &q1 * &s * n) / n;
    assert_eq!(BigUint::from_bytes_le(&theirs.q1), q1);
    assert_eq!(BigUint::from_bytes_le(&theirs.q2), q2);
}

#[test]
fn openssl_verifies_what_we_sign() {
    let dir = openssl_key();
    let key = SigningKey::generate().unwrap();
    std::fs::write(dir.join("ours.pem"), &*key.to_pem().unwrap()).unwrap();
    openssl(dir, &["rsa", "-in", "ours.pem", "-check", "-noout"]);
    let sig = statement().sign(&key).unwrap();
    let mut raw = sig.signature;
    raw.reverse();
    std::fs::write(dir.join("ours.raw"), raw).unwrap();
    std::fs::write(dir.join("ours.digest"), statement().digest()).unwrap();
    openssl(dir, &["dgst", "-sha256", "-prverify", "ours.pem", "-signature", "ours.raw", "ours.digest"]);
    // what was written as PEM is the same key
    let again = SigningKey::from_pem(&key.to_pem().unwrap()).unwrap();
    assert_eq!(again.public(), key.public());
    assert_eq!(hex(&key.public().mrsigner()), inspect::sigstruct(&sig).mrsigner);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let dir = openssl_key();
    let key = SigningKey::from_pem(&text(&dir.join("key.pem"))).unwrap();
    let other = SigningKey::generate().unwrap().public();
    let digest = statement().digest();
    let signature = key.sign(&digest).unwrap();
    let refused = |digest: &[u8], signature: &Signature, key: &PublicKey| {
        sigstruct::seal(digest, signature, key).err().unwrap().to_string()
    };
    let named = "SGX_INVALID_SIGNATURE";
    assert!(refused(&digest, &signature, &other).contains(named));
    let mut changed = digest;
    changed[192] ^= 1; // of ENCLAVEHASH
    assert!(refused(&changed, &signature, &key.public()).contains(named));
    let mut reversed = signature;
    reversed.0.reverse();
    assert!(refused(&digest, &reversed, &key.public()).contains(named));
    // a digest that is none
    for wrong in [&digest[..255], &[0; 256], b"MIIB"] {
        let error = sigstruct::seal(wrong, &signature, &key.public()).err();
        assert_eq!(error, Some(SigstructError::Digest));
    }
    // a signature over other form is refused as a form
    let mut sig = sigstruct::write(&statement().sign(&key).unwrap());
    sig[100] = 1; // reserved
    assert_eq!(sigstruct::read(&sig).err(), Some(SigstructError::Form));
}

#[test]
fn keys_come_in_both_forms() {
    let dir = openssl_key();
    openssl(dir, &["rsa", "-in", "key.pem", "-traditional", "-out", "pkcs1.pem"]);
    openssl(dir, &["rsa", "-in", "key.pem", "-RSAPublicKey_out", "-out", "public1.pem"]);
    let key = SigningKey::from_pem(&text(&dir.join("pkcs1.pem"))).unwrap();
    for file in ["key.pem", "pkcs1.pem", "public.pem", "public1.pem"] {
        assert_eq!(PublicKey::from_pem(&text(&dir.join(file))).unwrap(), key.public(), "{file}");
    }
}
