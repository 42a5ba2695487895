//! Enclaves of other people's making in a machine: the `sgxs-loaders` crate of
//! the Fortanix tools loads them there by Linux' driver (`guest/sgxs-load`).
//! One is that project's own test enclave, as they built and signed it; others
//! the `sgxs` crate generates and signs here.

mod common;

use common::{guest, kluis, output, text, turn};
use num_bigint::BigUint;
use sgx_isa::SecinfoFlags;
use sgxs::crypto::{Hash, SgxHashOps, SgxRsaOps};
use sgxs::sgxs::{CanonicalSgxsWriter, MeasECreate, PageChunk, SecinfoTruncated};
use sgxs::sigstruct::{self, EnclaveHash, Signer};
use sha2::{Digest, Sha256};
use std::fmt::Write;

const TEST_ENCLAVE: &[u8] = include_bytes!("testdata/sgxs-tools/test_enclave.sgxs");
const TEST_SIGSTRUCT: &[u8] = include_bytes!("testdata/sgxs-tools/test_enclave.sig");

/// SHA-256 for `sgxs`.
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

/// RSA by its formulas for `sgxs`; without a private exponent it verifies only.
struct Key {
    n: BigUint,
    d: BigUint,
}

impl Key {
    /// The public test key of the guest's programs.
    fn test() -> Key {
        let mut lines = include_str!("../../../guest/sgx-check/src/test-key.txt")
            .lines()
            .map(|line| BigUint::parse_bytes(line.as_bytes(), 16).unwrap());
        Key { n: lines.next().unwrap(), d: lines.next().unwrap() }
    }

    /// EMSA-PKCS1-v1_5 for SHA-256.
    fn encoded(hash: &[u8]) -> BigUint {
        let mut bytes = vec![0, 1];
        bytes.resize(384 - 51 - 1, 0xff);
        bytes.push(0);
        bytes.extend([0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20]);
        bytes.extend(hash);
        BigUint::from_bytes_be(&bytes)
    }
}

#[derive(Debug, PartialEq)]
struct NotSigned;

impl std::fmt::Display for NotSigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("another key's signature, or of other data")
    }
}

impl std::error::Error for NotSigned {}

impl SgxRsaOps for Key {
    type Error = NotSigned;

    fn len(&self) -> usize {
        self.n.bits() as usize
    }
    fn sign_sha256_pkcs1v1_5_with_q1_q2<H: AsRef<[u8]>>(
        &self,
        hash: H,
    ) -> Result<(Vec<u8>, Vec<u8>, Vec<u8>), NotSigned> {
        let s = Key::encoded(hash.as_ref()).modpow(&self.d, &self.n);
        let q1 = &s * &s / &self.n;
        let q2 = (&s * &s * &s - &q1 * &s * &self.n) / &self.n;
        Ok((s.to_bytes_le(), q1.to_bytes_le(), q2.to_bytes_le()))
    }
    fn verify_sha256_pkcs1v1_5<S: AsRef<[u8]>, H: AsRef<[u8]>>(
        &self,
        s: S,
        hash: H,
    ) -> Result<(), NotSigned> {
        let message = BigUint::from_bytes_le(s.as_ref()).modpow(&3u8.into(), &self.n);
        if message == Key::encoded(hash.as_ref()) { Ok(()) } else { Err(NotSigned) }
    }
    fn e(&self) -> Vec<u8> {
        vec![3]
    }
    fn n(&self) -> Vec<u8> {
        self.n.to_bytes_le()
    }
}

fn measured(stream: &[u8]) -> Hash {
    EnclaveHash::from_stream::<_, Sha>(&mut &stream[..]).unwrap().hash()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The enclave's code: EREPORT for a TARGETINFO of zeros, with the data at
/// [`REPORTDATA`]; the report goes to the page that RSI named.
#[rustfmt::skip]
const REPORT_CODE: [u8; 56] = [
    0x49, 0x89, 0xca, // mov r10, rcx: the way back
    0x49, 0x89, 0xf3, // mov r11, rsi
    0x48, 0x8d, 0x1d, 0xf3, 0x0f, 0, 0, // lea rbx, [page 2]
    0x48, 0x8d, 0x0d, 0xec, 0x11, 0, 0, // lea rcx, [page 2 + 200h]
    0x48, 0x8d, 0x15, 0xe5, 0x13, 0, 0, // lea rdx, [page 2 + 400h]
    0x31, 0xc0, // xor eax, eax
    0x0f, 0x01, 0xd7, // enclu: EREPORT
    0x48, 0x89, 0xd6, // mov rsi, rdx
    0x4c, 0x89, 0xdf, // mov rdi, r11
    0xb9, 108, 0, 0, 0, // mov ecx, 108
    0xf3, 0xa5, // rep movsd
    0x4c, 0x89, 0xd3, // mov rbx, r10
    0xb8, 4, 0, 0, 0, // mov eax, 4
    0x0f, 0x01, 0xd7, // enclu: EEXIT
];

const REPORTDATA: &[u8; 64] = b"what the enclave says of itself is what it was measured to be...";

/// An enclave by the `sgxs` crate: the code above, and pages of random content and rights, measured or not.
fn generated(seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let mut next = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    const TCS: u64 = 1 << 8;
    const REG: u64 = 2 << 8;
    let mut stream = Vec::new();
    let ecreate = MeasECreate { ssaframesize: 1, size: 1 << 18 };
    let mut writer = CanonicalSgxsWriter::new(&mut stream, ecreate, true).unwrap();
    let mut page = |flags: u64, start: &[u8], measure: bool, skip: bool| {
        let mut content = start.to_vec();
        content.resize(4096, 0);
        let chunk = || if measure { PageChunk::IncludedMeasured } else { PageChunk::Included };
        if skip {
            writer.skip_page();
        }
        let flags = SecinfoFlags::from_bits_truncate(flags);
        let chunks = std::array::from_fn(|_| chunk());
        writer.write_page((&mut &content[..], chunks), None, SecinfoTruncated { flags }).unwrap();
    };
    let mut tcs = [0; 72];
    tcs[16..24].copy_from_slice(&0x3000u64.to_le_bytes()); // OSSA
    tcs[28] = 2; // NSSA
    tcs[32..40].copy_from_slice(&0x1000u64.to_le_bytes()); // OENTRY
    tcs[64..72].copy_from_slice(&[0xff, 0x0f, 0, 0, 0xff, 0x0f, 0, 0]); // FS and GS limits
    page(TCS, &tcs, true, false);
    page(REG | 5, &REPORT_CODE, true, false);
    let mut data = [0; 0x240];
    data[0x200..].copy_from_slice(REPORTDATA);
    page(REG | 3, &data, true, false);
    page(REG | 3, &[], true, false);
    page(REG | 3, &[], next() % 2 == 0, false);
    for _ in 0..24 {
        let content: Vec<u8> = (0..4096).map(|_| next() as u8).collect();
        let rights = [1, 3, 5, 7][next() as usize % 4];
        page(REG | rights, &content, !next().is_multiple_of(3), next().is_multiple_of(4));
    }
    stream
}

/// Signs as `sgxs` does.
fn signed(hash: Hash, isvprodid: u16) -> Vec<u8> {
    let mut signer = Signer::new(EnclaveHash::new(hash));
    signer.isvprodid(isvprodid).isvsvn(5).date(2026, 1, 1);
    let sig = signer.sign::<_, Sha>(&Key::test()).unwrap();
    sigstruct::verify::<_, Sha>(&sig, &Key::test()).unwrap();
    AsRef::<[u8]>::as_ref(&sig).to_vec()
}

/// What `sgxs-load` says of an enclave that it loads.
fn loaded(hash: &Hash) -> String {
    format!("measurement {0}\nsigned {0}\ninitialised ", hex(hash))
}

fn judge(model: &str) {
    let _turn = turn();
    let program = std::fs::read(guest::program("sgxs-load")).unwrap();
    let enclaves: Vec<Vec<u8>> = (1..=3).map(|seed| generated(seed << 40 | 0x9e37_79b9)).collect();
    let names: Vec<[String; 2]> = (0..3).map(|i| [format!("{i}.sgxs"), format!("{i}.sig")]).collect();
    let hashes: Vec<Hash> = enclaves.iter().map(|stream| measured(stream)).collect();
    let signatures: Vec<Vec<u8>> =
        hashes.iter().enumerate().map(|(i, &hash)| signed(hash, i as u16)).collect();
    let mut files: Vec<(&str, &[u8])> =
        vec![("load", &program), ("test.sgxs", TEST_ENCLAVE), ("test.sig", TEST_SIGSTRUCT)];
    for (i, [stream, sig]) in names.iter().enumerate() {
        files.extend([(stream.as_str(), &enclaves[i][..]), (sig.as_str(), &signatures[i][..])]);
    }
    let script = "cd /tmp && tar x && echo == && ./load test.sgxs test.sig ffffffff 1
        for n in 0 1 2; do echo ==; ./load $n.sgxs $n.sig 0; done
        echo ==; ./load 0.sgxs 1.sig 0; echo == $?";
    let mut command = kluis();
    command.args(["run", "--quiet", "--timeout", "500s", "--cpus", "1", "--memory", "1G"]);
    let out = output(command.args(["--cpu", model, "--", "sh", "-c", script]), &guest::archive(&files));
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{said}{}", text(&out.stderr));
    let parts: Vec<&str> = said.split("==").map(str::trim_start).collect();
    assert_eq!(parts.len(), 7, "{said}");

    // Theirs: leaves 64h at RSI if RDI is positive, and calls its host with -1 and 0.
    let signed_hash = &TEST_SIGSTRUCT[960..992];
    assert_eq!(measured(TEST_ENCLAVE), signed_hash);
    assert!(parts[1].starts_with(&loaded(&measured(TEST_ENCLAVE))), "{said}");
    let end = "size 0x40000\ntcs 0x15000\n\
        exit rdi 0xffffffffffffffff rsi 0x0 page \nexit rdi 0xffffffffffffffff rsi 0x0 page 64\n";
    assert!(parts[1].ends_with(end), "{said}");

    // Generated ones tell what they are by EREPORT.
    let mrsigner: [u8; 32] = Sha256::digest(Key::test().n.to_bytes_le()).into();
    for (i, part) in parts[2..5].iter().enumerate() {
        assert!(part.starts_with(&loaded(&hashes[i])), "{said}");
        assert!(part.contains("\ntcs 0x0\n"), "{said}");
        let report = part.rsplit(' ').next().unwrap().trim_end();
        let field = |from: usize, to: usize| &report[2 * from..2 * to];
        // REPORT's fields: ATTRIBUTES, MRENCLAVE, MRSIGNER, ISVPRODID and ISVSVN, REPORTDATA
        assert_eq!(field(48, 64), "05000000000000000300000000000000", "INIT, MODE64BIT; XFRM");
        assert_eq!(field(64, 96), hex(&hashes[i]), "{said}");
        assert_eq!(field(128, 160), hex(&mrsigner), "{said}");
        assert_eq!(field(256, 260), format!("0{i}000500"), "{said}");
        assert_eq!(field(320, 384), hex(REPORTDATA), "{said}");
    }

    // The signature of another enclave.
    assert!(parts[5].contains(&format!("measurement {}\nsigned {}\n", hex(&hashes[0]), hex(&hashes[1]))));
    assert!(parts[5].contains("FAILED: the loader refused: Failed to call EINIT"), "{said}");
    assert_eq!(parts[6], "1\n");
}

/// SGX1.
#[test]
fn fortanix_loader_runs_enclaves_on_xeon_e_2288g() {
    judge("xeon-e-2288g");
}

/// SGX2.
#[test]
fn fortanix_loader_runs_enclaves_on_xeon_8370c() {
    judge("xeon-8370c");
}

/// The vendor's key is none of ours: its signature verifies there and here.
#[test]
fn fortanix_signature_verifies() {
    let sig = sigstruct::read(&mut &TEST_SIGSTRUCT[..]).unwrap();
    let key = Key { n: BigUint::from_bytes_le(&sig.modulus), d: BigUint::ZERO };
    assert_eq!(sigstruct::verify::<_, Sha>(&sig, &key), Ok(()));
    let changed = [&TEST_SIGSTRUCT[..960], &[TEST_SIGSTRUCT[960] ^ 1], &TEST_SIGSTRUCT[961..]].concat();
    let changed = sigstruct::read(&mut &changed[..]).unwrap();
    assert_eq!(sigstruct::verify::<_, Sha>(&changed, &key), Err(NotSigned));
}
