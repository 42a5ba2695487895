use sgx_abi::{AttributeFlags, Attributes};
use zerocopy::IntoBytes;

use super::signer::Signer;
use super::*;

fn signed() -> Sigstruct {
    let mut sig = Signer::blank();
    sig.enclavehash = [0x5a; 32];
    sig.attributes = Attributes { flags: AttributeFlags::MODE64BIT, xfrm: 3 };
    sig.isvsvn = 7;
    Signer::A.sign(&mut sig);
    sig
}

fn le(n: &U3072) -> [u8; LEN] {
    n.to_le_bytes()
}

#[test]
fn a_signed_sigstruct_verifies() {
    let mut sig = signed();
    let verified = verify(&sig).unwrap();
    assert!(form_holds(&sig));
    assert_eq!(verified, Verified { mrsigner: Signer::A.mrsigner(), padding: PADDING });
    Signer::B.sign(&mut sig);
    assert_eq!(verify(&sig).unwrap().mrsigner, Signer::B.mrsigner());
    assert_ne!(Signer::A.mrsigner(), Signer::B.mrsigner());
}

#[test]
fn padding_is_the_one_of_the_sdm() {
    assert_eq!(PADDING[..3], [0, 1, 0xff]);
    assert!(PADDING[2..332].iter().all(|&b| b == 0xff));
    assert_eq!(PADDING[332..], *b"\x000\x310\r\x06\x09`\x86H\x01e\x03\x04\x02\x01\x05\x00\x04\x20");
}

#[test]
fn every_byte_but_the_unsigned_ones_is_guarded() {
    let sig = signed();
    for byte in 0..Sigstruct::SIZE {
        let mut other = sig.clone();
        other.as_mut_bytes()[byte] ^= 1 << (byte % 8);
        // EXPONENT and the last reserved field are not signed: the check of
        // form is what refuses them
        let unsigned = (512..516).contains(&byte) || (1028..1040).contains(&byte);
        assert_eq!(verify(&other).is_ok(), unsigned, "byte {byte}");
        assert!(!unsigned || !form_holds(&other), "byte {byte}");
    }
}

#[test]
fn form_is_checked_field_by_field() {
    let good = Signer::blank();
    assert!(form_holds(&good));
    assert!(form_holds(&Sigstruct { vendor: 0x8086, ..good.clone() }));
    let bad = |change: &dyn Fn(&mut Sigstruct)| {
        let mut sig = good.clone();
        change(&mut sig);
        assert!(!form_holds(&sig));
        sig
    };
    for i in 0..16 {
        assert!(!headers_hold(&bad(&|s| s.header[i] ^= 1)));
        assert!(!headers_hold(&bad(&|s| s.header2[i] ^= 1)));
    }
    assert!(!vendor_holds(&bad(&|s| s.vendor = 1)));
    assert!(!vendor_holds(&bad(&|s| s.vendor = 0x8680)));
    assert!(!exponent_holds(&bad(&|s| s.exponent = 0x1_0001)));
    for reserved in [&mut (44..128), &mut (910..912), &mut (992..1008), &mut (1028..1040)] {
        for byte in reserved {
            bad(&|s| s.as_mut_bytes()[byte] = 1);
        }
    }
    // free for the signer: date (20), swdefined (40), the identities
    for byte in (20..24).chain(40..44).chain(904..910).chain(912..992).chain(1008..1028) {
        let mut sig = good.clone();
        sig.as_mut_bytes()[byte] ^= 0xff;
        assert!(form_holds(&sig), "byte {byte}");
    }
}

#[test]
fn quotients_must_be_the_floor() {
    // Each alternative represents the same residue with a remainder out of range.
    let sig = signed();
    let n = U3072::from_le_slice(&sig.modulus);
    let (q1, q2) = (U3072::from_le_slice(&sig.q1), U3072::from_le_slice(&sig.q2));
    for other in [q1.wrapping_sub(&U3072::ONE), q1.wrapping_add(&U3072::ONE), U3072::ZERO, U3072::MAX, n] {
        assert_eq!(verify(&Sigstruct { q1: le(&other), ..sig.clone() }), Err(SignatureError::Q1));
    }
    for other in [q2.wrapping_sub(&U3072::ONE), q2.wrapping_add(&U3072::ONE), U3072::ZERO, U3072::MAX, n] {
        assert_eq!(verify(&Sigstruct { q2: le(&other), ..sig.clone() }), Err(SignatureError::Q2));
    }
}

#[test]
fn signature_must_be_below_the_modulus() {
    let sig = signed();
    let (n, s) = (U3072::from_le_slice(&sig.modulus), U3072::from_le_slice(&sig.signature));
    for other in [n, n.wrapping_add(&U3072::ONE), U3072::MAX, s.wrapping_add(&n)] {
        let expect = if other >= n { SignatureError::Range } else { SignatureError::Q1 };
        assert_eq!(verify(&Sigstruct { signature: le(&other), ..sig.clone() }), Err(expect));
    }
}

#[test]
fn hostile_moduli_are_refused_without_a_panic() {
    let sig = signed();
    let n = U3072::from_le_slice(&sig.modulus);
    let small = [
        U3072::ZERO,
        U3072::ONE,
        U3072::from(2u8),
        U3072::from(0xffffu32),
        n.wrapping_shr(1),
        U3072::MAX >> 1,
    ];
    for modulus in small {
        assert_eq!(verify(&Sigstruct { modulus: le(&modulus), ..sig.clone() }), Err(SignatureError::Modulus));
    }
    let top = U3072::ONE << 3071;
    for modulus in [top, U3072::MAX, U3072::MAX.wrapping_sub(&U3072::ONE), n.wrapping_sub(&U3072::ONE)] {
        for fill in [0, 1, 0x80, 0xff] {
            let hostile =
                Sigstruct { modulus: le(&modulus), q1: [fill; LEN], q2: [fill; LEN], ..sig.clone() };
            assert!(verify(&hostile).is_err());
            assert!(verify(&Sigstruct { signature: [fill; LEN], ..hostile }).is_err());
        }
    }
    // S = 0 and S = 1 cube to themselves, with zero quotients
    for signature in [U3072::ZERO, U3072::ONE] {
        let trivial = Sigstruct { signature: le(&signature), q1: [0; LEN], q2: [0; LEN], ..sig.clone() };
        assert_eq!(verify(&trivial), Err(SignatureError::Encoding));
    }
}

#[test]
fn all_of_the_encoding_counts() {
    let mut sig = signed();
    let [first, second] = sig.signed_parts();
    let hash = Sha256::new().chain_update(first).chain_update(second).finalize();
    let mut encoded = [0; LEN];
    encoded[..PADDING_LEN].copy_from_slice(&PADDING);
    encoded[PADDING_LEN..].copy_from_slice(&hash);
    Signer::A.sign_encoded(&mut sig, &encoded);
    assert!(verify(&sig).is_ok());
    // one flipped bit here and there in every part: 00 01, FF…, 00, DigestInfo, hash
    for byte in [1, 2, 100, 331, 332, 333, 334, 345, 349, 350, 351, 352, 383] {
        let mut wrong = encoded;
        wrong[byte] ^= 4;
        Signer::A.sign_encoded(&mut sig, &wrong);
        assert_eq!(verify(&sig), Err(SignatureError::Encoding), "byte {byte}");
    }
    // a shorter run of FF with the hash moved up and rubbish after it
    let mut bleichenbacher = [0; LEN];
    bleichenbacher[..12].copy_from_slice(&PADDING[..12]);
    bleichenbacher[12..32].copy_from_slice(&PADDING[332..]);
    bleichenbacher[32..64].copy_from_slice(&hash);
    Signer::A.sign_encoded(&mut sig, &bleichenbacher);
    assert_eq!(verify(&sig), Err(SignatureError::Encoding));
}
