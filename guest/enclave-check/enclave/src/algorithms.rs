//! Known answers of the algorithms that enclaves use, in the crates that they use.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature, SigningKey};
use sha2::{Digest, Sha256, Sha512};

/// The algorithms, and whether each works.
pub fn all() -> [(&'static str, bool); 5] {
    [
        ("AES-128-GCM", aes128gcm()),
        ("AES-256-GCM", aes256gcm()),
        ("SHA-256", sha256()),
        ("SHA-512", sha512()),
        ("ECDSA P-256", ecdsa()),
    ]
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    core::array::from_fn(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).expect("hexadecimal"))
}

/// *McGrew, Viega: The Galois/Counter Mode of Operation*, test case 4.
fn aes128gcm() -> bool {
    let key: [u8; 16] = hex("feffe9928665731c6d6a8f9467308308");
    let nonce: [u8; 12] = hex("cafebabefacedbaddecaf888");
    let text: [u8; 60] = hex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    );
    let additional: [u8; 20] = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let expected: [u8; 76] = hex(
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e0915bc94fbc3221a5db94fae95ae7121a47",
    );
    let cipher = Aes128Gcm::new(&key.into());
    let sealed = cipher.encrypt(&nonce.into(), Payload { msg: &text, aad: &additional });
    sealed.as_deref().is_ok_and(|sealed| sealed == expected)
        && cipher.decrypt(&nonce.into(), &expected[..]).is_err()
}

/// The same, test case 14.
fn aes256gcm() -> bool {
    let cipher = Aes256Gcm::new(&[0; 32].into());
    let expected: [u8; 32] = hex("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
    let sealed = cipher.encrypt(&[0; 12].into(), &[0u8; 16][..]);
    sealed.is_ok_and(|sealed| sealed == expected)
}

/// *FIPS 180-2*, appendix B.1.
fn sha256() -> bool {
    Sha256::digest(b"abc")[..]
        == hex::<32>("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
}

/// *FIPS 180-2*, appendix C.1, first half.
fn sha512() -> bool {
    Sha512::digest(b"abc")[..32]
        == hex::<32>("ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a")
}

/// *RFC 6979*, appendix A.2.5: SHA-256, "sample".
fn ecdsa() -> bool {
    let key: [u8; 32] = hex("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721");
    let expected: [u8; 64] = hex(
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    );
    let Ok(key) = SigningKey::from_bytes(&key.into()) else { return false };
    let signature: Signature = key.sign(b"sample");
    signature.to_bytes()[..] == expected
        && key.verifying_key().verify(b"sample", &signature).is_ok()
        && key.verifying_key().verify(b"simple", &signature).is_err()
}
