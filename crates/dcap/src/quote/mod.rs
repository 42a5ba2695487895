//! Quotes: an enclave's report, signed so that somebody far away can believe it.
//!
//! *Intel SGX ECDSA QuoteLibReference, §A.4 (version 3); `sgx_quote_4.h`, `sgx_quote_5.h`.*
//! All integers are little-endian; signatures and keys are pairs of 32-byte numbers with the
//! most significant byte first.

mod authentication;
mod body;
mod certification;
mod header;

pub use authentication::{AUTH_DATA_SIZE, Authentication, qe_report_data};
pub use body::{Body, TdReport};
pub use certification::{CertificationData, RawTcb};
pub use header::{ATTESTATION_KEY_ECDSA_P256, HEADER_SIZE, Header, QE_VENDOR_INTEL, TeeType};

use crate::error::{Refusal, Rule, refuse};
use crate::reader::Reader;

/// The largest quote that is read, in bytes. Intel's are of about 5000; AESM's buffers are
/// of 8192.
pub const MAX_QUOTE_SIZE: usize = 64 << 10;

/// A quote of version 3, 4 or 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// What kind of quote it is.
    pub header: Header,
    /// For whom it speaks.
    pub body: Body,
    /// Why it is to be believed.
    pub authentication: Authentication,
}

impl Quote {
    /// Reads a quote, which zeros may follow: many a program hands on the whole buffer that
    /// it asked for it with. Nothing is verified.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > MAX_QUOTE_SIZE {
            let what = format!("has {} bytes; {MAX_QUOTE_SIZE} are the most", bytes.len());
            return refuse(Rule::Oversized, "quote", what);
        }
        let mut from = Reader::new("quote", bytes);
        let header = Header::read(&mut from)?;
        let body = Body::read(&header, &mut from)?;
        let authentication = from.prefixed32("signature data")?;
        from.end_of_buffer()?;
        let authentication = Authentication::read(header.version, authentication)?;
        Ok(Self { header, body, authentication })
    }

    /// The bytes that the attestation key signs.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = self.header.to_bytes().to_vec();
        self.body.write(self.header.version, &mut bytes);
        bytes
    }

    /// The quote as bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Refusal> {
        let mut authentication = Vec::new();
        self.authentication.write(self.header.version, &mut authentication)?;
        let mut bytes = self.signed_bytes();
        bytes.extend((authentication.len() as u32).to_le_bytes());
        bytes.extend(authentication);
        Ok(bytes)
    }
}
