//! Measurement and signatures against other people's programs: the `sgxs` crate
//! of the Fortanix tools writes and signs enclaves, the `rsa` crate signs and
//! verifies, `num-bigint` divides. Built with the feature `testing`.

#[path = "../world/mod.rs"]
mod world;

use std::convert::Infallible;

use arch::regs::rflags;
use num_bigint::BigUint;
use rsa::traits::PublicKeyParts;
use rsa::{Pkcs1v15Sign, RsaPrivateKey, RsaPublicKey};
use sgx::Done;
use sgx::epcm::EpcPage;
use sgx::measure::Measurement;
use sgx::sigstruct::signer::Signer;
use sgx::sigstruct::{self, SignatureError, Verified};
use sgx_abi::{Attributes, Encls, Secinfo, Secs, Sigstruct, Status, Tcs};
use sgx_isa::{PageType, SecinfoFlags};
use sgxs::crypto::{Hash, SgxHashOps, SgxRsaOps};
use sgxs::sgxs::{CanonicalSgxsWriter, MeasECreate, PageChunk, PageReader, SecinfoTruncated};
use sgxs::sigstruct::{AttributesFlags, EnclaveHash};
use sha2::{Digest, Sha256};
use zerocopy::{FromBytes, IntoBytes};

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

/// The `rsa` crate behind the interface through which `sgxs` signs.
struct Rsa(RsaPrivateKey);

impl Rsa {
    fn of(signer: &Signer) -> Self {
        let (n, d) = signer.key();
        let number = rsa::BigUint::from_bytes_be;
        let factor = factor(&BigUint::from_bytes_be(&n), &BigUint::from_bytes_be(&d));
        let (n, d, p) = (number(&n), number(&d), number(&factor.to_bytes_be()));
        let q = &n / &p;
        Rsa(RsaPrivateKey::from_components(n, 3u8.into(), d, vec![p, q]).unwrap())
    }
}

impl SgxRsaOps for Rsa {
    type Error = Infallible;

    fn len(&self) -> usize {
        self.0.size() * 8
    }
    fn sign_sha256_pkcs1v1_5_with_q1_q2<H: AsRef<[u8]>>(
        &self,
        hash: H,
    ) -> Result<(Vec<u8>, Vec<u8>, Vec<u8>), Infallible> {
        let signature = self.0.sign(Pkcs1v15Sign::new::<Sha256>(), hash.as_ref()).unwrap();
        let (q1, q2) = quotients(&BigUint::from_bytes_be(&signature), &BigUint::from_bytes_le(&self.n()));
        let signature = signature.into_iter().rev().collect();
        Ok((signature, q1.to_bytes_le(), q2.to_bytes_le()))
    }
    fn verify_sha256_pkcs1v1_5<S: AsRef<[u8]>, H: AsRef<[u8]>>(
        &self,
        signature: S,
        hash: H,
    ) -> Result<(), Infallible> {
        let signature: Vec<u8> = signature.as_ref().iter().rev().copied().collect();
        let scheme = Pkcs1v15Sign::new::<Sha256>();
        RsaPublicKey::from(&self.0).verify(scheme, hash.as_ref(), &signature).unwrap();
        Ok(())
    }
    fn e(&self) -> Vec<u8> {
        self.0.e().to_bytes_le()
    }
    fn n(&self) -> Vec<u8> {
        self.0.n().to_bytes_le()
    }
}

/// A factor of an RSA modulus of exponent 3, from its private exponent: half of
/// all bases lead to a root of 1 that is neither 1 nor -1.
fn factor(n: &BigUint, d: &BigUint) -> BigUint {
    let one = BigUint::from(1u8);
    let order = d * 3u8 - &one;
    let twos = order.trailing_zeros().unwrap();
    for base in 2u8..100 {
        let mut root = BigUint::from(base).modpow(&(&order >> twos), n);
        for _ in 0..twos {
            let square = root.modpow(&2u8.into(), n);
            if square == one && root != one && root != n - &one {
                let (mut a, mut b) = (root - &one, n.clone());
                while b != BigUint::ZERO {
                    (a, b) = (b.clone(), a % b);
                }
                return a;
            }
            root = square;
        }
    }
    panic!("not an RSA key of exponent 3");
}

/// Q1 and Q2 by the SDM's formulas as they stand, with division.
fn quotients(s: &BigUint, n: &BigUint) -> (BigUint, BigUint) {
    let q1 = s * s / n;
    let q2 = (s * s * s - &q1 * s * n) / n;
    (q1, q2)
}

/// A repeatable stream of bytes.
fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut x = seed | 1;
    move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    }
}

/// An enclave as the `sgxs` crate writes it: pages of both types, measured
/// wholly, in part or not at all. EADD takes a page only if it is `loadable`.
fn sgxs_enclave(seed: u64, loadable: bool) -> Vec<u8> {
    let mut next = noise(seed);
    let mut stream = Vec::new();
    let ecreate = MeasECreate { ssaframesize: next() as u32 % 4 + 1, size: 1 << (20 + next() % 8) };
    let mut writer = CanonicalSgxsWriter::new(&mut stream, ecreate, true).unwrap();
    for _ in 0..12 {
        let mut content: Vec<u8> = (0..4096).map(|_| next() as u8).collect();
        let flags = match next() % 4 {
            0 => {
                if loadable {
                    let tcs = Tcs { ossa: next() << 12 & 0xf_f000, nssa: next() as u32, ..Tcs::default() };
                    content.copy_from_slice(tcs.as_bytes());
                }
                PageType::Tcs.into()
            }
            // EADD refuses pages that are writable but not readable
            _ => {
                let rights = next() & 7 | if loadable { 1 } else { 0 };
                SecinfoFlags::from(PageType::Reg) | SecinfoFlags::from_bits_truncate(rights)
            }
        };
        let chunks = std::array::from_fn(|chunk| match next() % 3 {
            // the content goes on in the next chunk then, which a TCS does not survive
            0 if !loadable || chunk != 0 => PageChunk::Skipped,
            1 => PageChunk::Included,
            _ => PageChunk::IncludedMeasured,
        });
        if next().is_multiple_of(3) {
            writer.skip_page();
        }
        writer.write_page((&mut &content[..], chunks), None, SecinfoTruncated { flags }).unwrap();
    }
    stream
}

/// Runs ECREATE, EADD and EEXTEND as the stream says.
fn measure(mut stream: &[u8]) -> [u8; 32] {
    let word = |block: &[u8], at: usize| u64::from_le_bytes(block[at..at + 8].try_into().unwrap());
    let mut measurement = None;
    while let Some((block, rest)) = stream.split_at_checked(64) {
        stream = rest;
        let mut chunk = || {
            let (data, rest) = stream.split_at(256);
            stream = rest;
            <[u8; 256]>::try_from(data).unwrap()
        };
        match (&block[..8], &mut measurement) {
            (b"ECREATE\0", none @ None) => {
                let frame = u32::from_le_bytes(block[8..12].try_into().unwrap());
                *none = Some(Measurement::ecreate(frame, word(block, 12)));
            }
            (b"EADD\0\0\0\0", Some(m)) => {
                let secinfo = Secinfo::new(sgx_abi::SecinfoFlags::from_bits_retain(word(block, 16)));
                m.eadd(word(block, 8), &secinfo);
            }
            (b"EEXTEND\0", Some(m)) => m.eextend(word(block, 8), &chunk()),
            (b"UNMEASRD", Some(_)) => drop(chunk()),
            (tag, _) => panic!("tag {tag:?}"),
        }
    }
    measurement.unwrap().finish()
}

/// The structure in `sgx-isa`'s form, as ours.
fn ours(theirs: &sgx_isa::Sigstruct) -> Sigstruct {
    Sigstruct::read_from_bytes(AsRef::<[u8]>::as_ref(theirs)).unwrap()
}

#[test]
fn measurements_agree_with_sgxs() {
    for seed in 1..40 {
        let stream = sgxs_enclave(seed << 32 | 0x9e37_79b9, false);
        let theirs = EnclaveHash::from_stream::<_, Sha>(&mut &stream[..]).unwrap().hash();
        assert_eq!(measure(&stream), theirs, "seed {seed}");
    }
}

#[test]
fn enclaves_signed_by_sgxs_verify() {
    for (seed, signer) in [(1, Signer::A), (2, Signer::B), (3, Signer::A)] {
        let hash = EnclaveHash::from_stream::<_, Sha>(&mut &sgxs_enclave(seed, false)[..]).unwrap();
        let mut theirs = sgxs::sigstruct::Signer::new(hash);
        theirs.isvprodid(3).isvsvn(seed as u16).date(2026, 1, 1);
        let sig = ours(&theirs.sign::<_, Sha>(&Rsa::of(&signer)).unwrap());
        assert!(sigstruct::form_holds(&sig));
        let verified = sigstruct::verify(&sig).unwrap();
        assert_eq!(verified, Verified { mrsigner: signer.mrsigner(), padding: sigstruct::PADDING });
        assert_eq!((sig.enclavehash, sig.isvsvn), (hash.hash(), seed as u16));
        let mut changed = sig.clone();
        changed.isvsvn += 1;
        assert_eq!(sigstruct::verify(&changed), Err(SignatureError::Encoding));
    }
}

/// What EINIT says to an enclave that ECREATE, EADD and EEXTEND made as the stream
/// says, with the attributes of `secs`, and to a SIGSTRUCT for it.
fn initialized(stream: &[u8], mut secs: Secs, sigs: &[&Sigstruct]) -> Vec<Done> {
    let (mut w, mut stream) = (world::World::new(), stream);
    let (info, mut pages) = PageReader::new(&mut stream).unwrap();
    (secs.size, secs.ssaframesize) = (info.ecreate.size, info.ecreate.ssaframesize);
    secs.baseaddr = world::BASE;
    assert_eq!(w.ecreate(world::SECS, &secs), Ok(Done::Quiet));
    let mut page = EpcPage(1);
    while let Some((eadd, chunks, content)) = pages.read_page().unwrap() {
        let flags = sgx_abi::SecinfoFlags::from_bits_retain(eadd.secinfo.flags.bits());
        w.add(page, world::BASE + eadd.offset, flags, &content);
        for chunk in (0..16).filter(|chunk| chunks.0 >> chunk & 1 != 0) {
            let at = world::la(page) + chunk * 256;
            assert_eq!(w.encls(Encls::Eextend, world::la(world::SECS), at, 0), Ok(Done::Quiet));
        }
        page.0 += 1;
    }
    let mut einit = |sig: &&Sigstruct| {
        w.put(world::SIGSTRUCT, *sig);
        w.encls(Encls::Einit, world::SIGSTRUCT, world::la(world::SECS), world::TOKEN).unwrap()
    };
    sigs.iter().map(&mut einit).collect()
}

/// The leaves themselves, on whole enclaves: whatever of the signed fields is
/// random, and pages are measured in part.
#[test]
fn enclaves_signed_by_sgxs_initialize() {
    let signer = Rsa::of(&Signer::A);
    for seed in 1..25 {
        let mut next = noise(seed << 20 | 0x1357);
        let stream = sgxs_enclave(seed << 32 | 0x5bd1_e995, true);
        let hash = EnclaveHash::from_stream::<_, Sha>(&mut &stream[..]).unwrap();
        let debug = u64::from(next().is_multiple_of(2)) << 1;
        let xfrm = [3, 7, 0xe7][next() as usize % 3];
        let mut theirs = sgxs::sigstruct::Signer::new(hash);
        theirs
            .isvprodid(next() as u16)
            .isvsvn(next() as u16)
            .swdefined(next() as u32)
            .date(2000 + next() as u16 % 30, 2, 28)
            .attributes_flags(AttributesFlags::from_bits_truncate(4 | debug), !2 | next())
            .attributes_xfrm(xfrm, !(next() & 4));
        let sig = ours(&theirs.clone().sign::<_, Sha>(&signer).unwrap());
        let attributes = Attributes { flags: sgx_abi::AttributeFlags::from_bits_retain(4 | debug), xfrm };
        let secs = Secs { attributes, ..Secs::default() };
        theirs.enclavehash(EnclaveHash::new(std::array::from_fn(|_| next() as u8)));
        let other = ours(&theirs.sign::<_, Sha>(&signer).unwrap());
        let mut forged = sig.clone();
        forged.attributes.xfrm ^= 1 << 7;
        let said = initialized(&stream, secs, &[&other, &forged, &sig]);
        let refused = [Status::InvalidMeasurement, Status::InvalidSignature]
            .map(|status| Done::Code(status, rflags::ZF));
        assert_eq!((&said[..2], said[2]), (&refused[..], Done::Success), "seed {seed}");
    }
}

#[test]
fn our_signatures_verify_there() {
    let mut next = noise(11);
    for signer in [Signer::A, Signer::B, Signer::A, Signer::B] {
        let mut sig = Signer::blank();
        // of every signed field that may be anything
        sig.enclavehash = std::array::from_fn(|_| next() as u8);
        sig.isvextprodid = std::array::from_fn(|_| next() as u8);
        sig.attributemask.xfrm = next();
        (sig.isvprodid, sig.isvsvn, sig.miscmask) = (next() as u16, next() as u16, next() as u32);
        signer.sign(&mut sig);
        let theirs = sgx_isa::Sigstruct::try_copy_from(sig.as_bytes()).unwrap();
        sgxs::sigstruct::verify::<_, Sha>(&theirs, &Rsa::of(&signer)).unwrap();
        let number = |bytes: &[u8]| BigUint::from_bytes_le(bytes);
        let (q1, q2) = quotients(&number(&sig.signature), &number(&sig.modulus));
        assert_eq!((number(&sig.q1), number(&sig.q2)), (q1, q2));
    }
}

/// Any S below N, right quotients: the verifier must get as far as the encoding,
/// so that its multiplication agrees with division on random numbers.
#[test]
fn quotients_by_division_are_accepted() {
    let mut next = noise(5);
    for _ in 0..50 {
        let mut number = || -> [u8; 384] { std::array::from_fn(|_| next() as u8) };
        let (mut modulus, mut signature) = (number(), number());
        modulus[383] |= 0x80;
        signature[383] &= 0x7f;
        let s = BigUint::from_bytes_le(&signature);
        let (q1, q2) = quotients(&s, &BigUint::from_bytes_le(&modulus));
        let fixed = |n: &BigUint| {
            let mut bytes = n.to_bytes_le();
            bytes.resize(384, 0);
            <[u8; 384]>::try_from(bytes).unwrap()
        };
        let sig = Sigstruct { modulus, signature, q1: fixed(&q1), q2: fixed(&q2), ..Signer::blank() };
        assert_eq!(sigstruct::verify(&sig), Err(SignatureError::Encoding));
        let off = Sigstruct { q1: fixed(&(&q1 + 1u8)), ..sig.clone() };
        assert_eq!(sigstruct::verify(&off), Err(SignatureError::Q1));
        let off = Sigstruct { q2: fixed(&(&q2 + 1u8)), ..sig };
        assert_eq!(sigstruct::verify(&off), Err(SignatureError::Q2));
    }
}
