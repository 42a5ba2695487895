//! Documents in JSON with a signature beside them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

use crate::error::{Refusal, Rule, refuse};
use crate::hex;
use crate::key::{PrivateKey, PublicKey};

/// The longest document that is read, in bytes.
pub const MAX_DOCUMENT_SIZE: usize = 1 << 20;

/// A document as it was signed, byte for byte: compact, its keys in the order of the signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The signed text.
    pub text: String,
    /// r and s of the signature over it.
    pub signature: Vec<u8>,
}

impl Signed {
    /// Takes apart what the service answers: `{"NAME":{…},"signature":"…"}`.
    pub fn from_body(body: &str, name: &str) -> Result<Self, Refusal> {
        check_size(body, name)?;
        let bad = |error| Refusal::new(Rule::Encoding, name, format!("is no JSON object: {error}"));
        let parts: BTreeMap<&str, &RawValue> = serde_json::from_str(body).map_err(bad)?;
        let part = |key: &str| {
            let field = format!("{name}: {key}");
            parts
                .get(key)
                .map(|raw| raw.get())
                .ok_or_else(|| Refusal::new(Rule::Encoding, field, "is not there"))
        };
        let signature: String = serde_json::from_str(part("signature")?).map_err(bad)?;
        let signature = hex::decode(&signature, &format!("{name}: signature"))?;
        Ok(Self { text: part(name)?.to_owned(), signature })
    }

    /// What the service answers.
    pub fn to_body(&self, name: &str) -> String {
        format!("{{\"{name}\":{},\"signature\":\"{}\"}}", self.text, hex::encode(&self.signature))
    }

    /// Signs a value as compact JSON.
    pub fn sign<T: Serialize>(value: &T, key: &PrivateKey) -> Result<Self, Refusal> {
        match serde_json::to_string(value) {
            Ok(text) => Ok(Self { signature: key.sign(text.as_bytes()).to_vec(), text }),
            Err(error) => refuse(Rule::Encoding, "collateral", error),
        }
    }

    /// Reads the value, whose signature must be by `key`.
    pub(crate) fn verify<'a, T: Deserialize<'a>>(&'a self, key: PublicKey, what: &str) -> Result<T, Refusal> {
        check_size(&self.text, what)?;
        let genuine = <&[u8; 64]>::try_from(self.signature.as_slice())
            .is_ok_and(|signature| key.signed(self.text.as_bytes(), signature));
        if !genuine {
            let says = "is not by the key of the TCB signing certificate over exactly this text";
            return refuse(Rule::CollateralSignature, format!("{what}: signature"), says);
        }
        read(&self.text, what)
    }
}

/// Reads a document without its signature.
pub(crate) fn read<'a, T: Deserialize<'a>>(text: &'a str, what: &str) -> Result<T, Refusal> {
    check_size(text, what)?;
    serde_json::from_str(text).map_err(|error| Refusal::new(Rule::Encoding, what, error))
}

fn check_size(text: &str, what: &str) -> Result<(), Refusal> {
    if text.len() > MAX_DOCUMENT_SIZE {
        let says = format!("has {} bytes; {MAX_DOCUMENT_SIZE} are the most", text.len());
        return refuse(Rule::Oversized, what, says);
    }
    Ok(())
}
