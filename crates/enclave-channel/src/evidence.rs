//! Whose a key is: what an enclave puts into its report for it, and who speaks for that.
//!
//! An enclave that makes a key has its [`Binding`] put into the REPORTDATA of a report. Then
//! whoever can verify that report knows which enclave holds the key:
//!
//! | who asks | verifies | evidence |
//! |---|---|---|
//! | an enclave on the same processor | the report's MAC (`enclave::report::verify_report`) | the report |
//! | anybody else | a quote, which a quoting enclave makes of the report | the quote |
//! | who has neither | nothing: believes somebody | [`Told`] |

use core::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::PublicKey;

/// What a report says of a key (REPORTDATA): SHA-256 of the key and of what it is for, then
/// zeros. As text, the hash's hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding([u8; 32]);

impl Binding {
    /// Of a key, made for this: whatever else those who use it rely on.
    pub fn new(key: &PublicKey, purpose: &[u8]) -> Self {
        // the key has a fixed length: nothing of it can be taken for the purpose
        let hash = Sha256::new_with_prefix(b"enclave-channel: key ").chain_update(key.bytes());
        Self(hash.chain_update(purpose).finalize().into())
    }

    /// As REPORTDATA.
    pub fn report_data(&self) -> [u8; 64] {
        core::array::from_fn(|n| self.0.get(n).copied().unwrap_or(0))
    }

    /// The hash alone.
    pub fn hash(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Something that speaks for an enclave's key.
pub trait Evidence {
    /// Why it does not.
    type Refusal;

    /// Finds that the evidence is genuine, of an enclave that is trusted, and that the
    /// enclave has said this.
    ///
    /// # Errors
    /// It is not: nothing may be encrypted for that key.
    fn says(&self, binding: &Binding) -> Result<(), Self::Refusal>;
}

/// The word of somebody who is trusted: hexadecimal digits that a binding must have. Whoever
/// tells could have made the key.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a>(pub &'a str);

/// Another binding than was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Another(pub Binding);

impl fmt::Display for Another {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this is not what was told, but {}", self.0)
    }
}

impl core::error::Error for Another {}

impl Evidence for Told<'_> {
    type Refusal = Another;

    fn says(&self, binding: &Binding) -> Result<(), Another> {
        use alloc::string::ToString;
        if binding.to_string() == self.0 { Ok(()) } else { Err(Another(*binding)) }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use rand_core::OsRng;

    use super::*;
    use crate::KeyPair;

    #[test]
    fn a_binding_is_of_one_key_for_one_purpose() {
        let [key, other] = core::array::from_fn(|_| KeyPair::generate(&mut OsRng));
        let binding = Binding::new(key.public(), b"purpose");
        assert_eq!(binding, Binding::new(key.public(), b"purpose"));
        assert_ne!(binding, Binding::new(other.public(), b"purpose"));
        assert_ne!(binding, Binding::new(key.public(), b"another"));
        let data = binding.report_data();
        assert_eq!((&data[..32], &data[32..]), (&binding.hash()[..], &[0; 32][..]));

        let text = binding.to_string();
        assert_eq!(Told(&text).says(&binding), Ok(()));
        for wrong in [&text[1..], &text.to_uppercase(), "", &"0".repeat(64)] {
            assert_eq!(Told(wrong).says(&binding), Err(Another(binding)), "{wrong}");
        }
    }
}
