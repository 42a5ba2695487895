//! Random numbers, and private keys of P-256.

use p256::SecretKey;
use rustls::Error;
use rustls::crypto::{GetRandomFailed, SecureRandom};

/// What `getrandom` gives: the operating system's, in an enclave RDRAND's.
#[derive(Debug)]
pub(crate) struct Random;

impl SecureRandom for Random {
    fn fill(&self, to: &mut [u8]) -> Result<(), GetRandomFailed> {
        getrandom::fill(to).map_err(|_| GetRandomFailed)
    }
}

/// Draws before it is clear that the generator is broken: one fails once in 2^32.
const ATTEMPTS: usize = 8;

/// A new private key: a number from 1 to the order, each as likely (*FIPS 186-5*, A.2.2).
///
/// # Errors
/// There are no random numbers.
pub(crate) fn secret_key() -> Result<SecretKey, Error> {
    for _ in 0..ATTEMPTS {
        let mut bytes = [0; 32];
        Random.fill(&mut bytes)?;
        let key = SecretKey::from_bytes(&bytes.into());
        zeroize(&mut bytes);
        if let Ok(key) = key {
            return Ok(key);
        }
    }
    Err(GetRandomFailed.into())
}

/// What was drawn does not stay on the stack.
fn zeroize(bytes: &mut [u8; 32]) {
    use p256::elliptic_curve::zeroize::Zeroize;
    bytes.zeroize();
}
