//! Counts records whose key it was given by a client that knew, from a quote, to whom it
//! gave it.
#![no_std]
#![no_main]

extern crate alloc;

mod client;
mod records;
mod tests;

use alloc::string::ToString;
use alloc::vec::Vec;

use client::Client;
use clinic_interface::{Clinic, Exchanged, Refusal};
use clinic_records::DataKey;
use enclave::sealing::{self, Policy, SealError};
use enclave::sync::Mutex;
use enclave::{report, sgx_abi};
use enclave_tls::{Identity, Quotes, Server};
use records::Reading;
use zerocopy::{FromBytes, IntoBytes};
use zeroize::Zeroizing;

/// What the sealed key is, to whom it is presented.
const SEALED: &[u8] = b"clinic: the key of records";

/// All that the enclave knows.
#[derive(Default)]
struct Desk {
    identity: Option<Identity>,
    server: Option<Server>,
    client: Option<Client>,
    key: Option<DataKey>,
    reading: Reading,
}

struct Office(Mutex<Option<Desk>>);

static OFFICE: Office = Office(Mutex::new(None));
enclave::serve!(Clinic, OFFICE);

impl Office {
    fn with<T>(&self, work: impl FnOnce(&mut Desk) -> T) -> T {
        work(self.0.lock().get_or_insert_default())
    }
}

impl Clinic for Office {
    fn report(&self, target: &[u8]) -> Result<Vec<u8>, Refusal> {
        let target = sgx_abi::Targetinfo::read_from_bytes(target).map_err(|_| Refusal::Target)?;
        let identity = Identity::generate().map_err(failed)?;
        let report = report::report(&target, &identity.report_data());
        self.with(|desk| {
            (desk.identity, desk.server, desk.client) = (Some(identity), None, None);
        });
        Ok(report.as_bytes().to_vec())
    }

    fn certify(&self, quote: &[u8]) -> Result<(), Refusal> {
        self.with(|desk| {
            let identity = desk.identity.as_ref().ok_or(Refusal::Order)?;
            desk.server = Some(identity.with_quotes(Quotes::new(quote.to_vec())).map_err(failed)?);
            Ok(())
        })
    }

    fn accept(&self) -> Result<(), Refusal> {
        self.with(|desk| {
            let server = desk.server.as_ref().ok_or(Refusal::Order)?;
            desk.client = Some(Client::new(server.accept().map_err(failed)?));
            Ok(())
        })
    }

    fn exchange(&self, bytes: &[u8]) -> Result<Exchanged, Refusal> {
        self.with(|desk| {
            let client = desk.client.as_mut().ok_or(Refusal::Order)?;
            let over = client.hear(bytes);
            let given = client.take_key();
            let kept = given.is_some();
            let out = client.take_outgoing();
            if let Some(key) = given {
                // records under another key are not counted with these
                desk.reading = Reading::default();
                desk.key = Some(key);
            }
            Ok(Exchanged { out, over, kept })
        })
    }

    fn seal(&self) -> Result<Vec<u8>, Refusal> {
        self.with(|desk| {
            let key = desk.key.as_ref().ok_or(Refusal::NoKey)?;
            // for this very enclave: the client has verified no other
            sealing::seal(Policy::Enclave, key.bytes(), SEALED).map_err(|_| Refusal::Sealed)
        })
    }

    fn unseal(&self, sealed: &[u8]) -> Result<(), Refusal> {
        let opened = sealing::unseal(Policy::Enclave, sealed, SEALED).map_err(|why| match why {
            SealError::Downgrade => Refusal::Later,
            _ => Refusal::Sealed,
        })?;
        let key = DataKey::new(&Zeroizing::new(opened.data)).ok_or(Refusal::Sealed)?;
        self.with(|desk| {
            desk.reading = Reading::default();
            desk.key = Some(key);
        });
        Ok(())
    }

    fn records(&self, number: u32, last: bool, chunk: &[u8]) -> Result<(), Refusal> {
        self.with(|desk| {
            let key = desk.key.as_ref().ok_or(Refusal::NoKey)?;
            desk.reading.take(key, number, last, chunk)
        })
    }

    fn results(&self) -> Result<Vec<u8>, Refusal> {
        self.with(|desk| {
            let key = desk.key.as_ref().ok_or(Refusal::NoKey)?;
            desk.reading.results(key)
        })
    }
}

fn failed(error: impl ToString) -> Refusal {
    Refusal::Failed(error.to_string())
}
