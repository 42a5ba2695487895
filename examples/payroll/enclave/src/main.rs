//! Counts what nobody else may read: records come in encrypted, go into sums, and leave
//! only as figures of groups, encrypted for those who are to have them.
#![no_std]
#![no_main]

extern crate alloc;

mod tally;
mod tests;

use alloc::vec::Vec;

use enclave::random::Rng;
use enclave::sealing::{self, Policy};
use enclave::sync::Mutex;
use enclave::{report, sgx_abi};
use enclave_channel::{Binding, KeyPair, Receiver, Sealed};
use payroll_interface::study::{self, Description, Study};
use payroll_interface::{Chunk, Payroll, Refusal};
use tally::{Tally, Total};
use zerocopy::{FromBytes, IntoBytes};
use zeroize::Zeroizing;

/// What sealed state is, to whom it is presented.
const STATE: &[u8] = b"payroll: a study and its key";

/// Most people in uploads that have not come to their end: what the heap has room for.
const MOST_PEOPLE: usize = 200_000;

/// A study and how far it has come.
struct Open {
    description: Description,
    binding: Binding,
    key: KeyPair,
    /// By party.
    contributions: Vec<Contribution>,
}

/// What a party has sent.
#[derive(Default)]
struct Contribution {
    upload: Option<Upload>,
    delivered: Option<Delivered>,
}

/// Records that are being sent.
struct Upload {
    /// Its encapsulated key.
    name: Vec<u8>,
    receiver: Receiver,
    next: u32,
    tally: Tally,
}

/// Records that were sent.
struct Delivered {
    /// The upload's name.
    name: Vec<u8>,
    /// By group.
    totals: Vec<Total>,
}

struct Office(Mutex<Option<Open>>);

static OFFICE: Office = Office(Mutex::new(None));
enclave::serve!(Payroll, OFFICE);

impl Payroll for Office {
    fn create(&self, study: Study) -> Result<Vec<u8>, Refusal> {
        study.check().map_err(Refusal::Study)?;
        let key = KeyPair::generate(&mut Rng).private();
        let state = postcard::to_allocvec(&(study, &key[..])).map_err(|_| Refusal::State)?;
        let state = Zeroizing::new(state);
        // for this very enclave: the parties have agreed to no other
        sealing::seal(Policy::Enclave, &state, STATE).map_err(|_| Refusal::State)
    }

    fn open(&self, sealed: &[u8]) -> Result<Description, Refusal> {
        let state = sealing::unseal(Policy::Enclave, sealed, STATE).map_err(|_| Refusal::State)?;
        let state = Zeroizing::new(state.data);
        let (study, key): (Study, &[u8]) = postcard::from_bytes(&state).map_err(|_| Refusal::State)?;
        let open = Open::new(study, KeyPair::from_private(key).map_err(|_| Refusal::State)?);
        let description = open.description.clone();
        *self.0.lock() = Some(open);
        Ok(description)
    }

    fn report(&self, target: &[u8]) -> Result<Vec<u8>, Refusal> {
        let target = sgx_abi::Targetinfo::read_from_bytes(target).map_err(|_| Refusal::Target)?;
        let data = self.0.lock().as_ref().ok_or(Refusal::Closed)?.binding.report_data();
        Ok(report::report(&target, &data).as_bytes().to_vec())
    }

    fn records(&self, party: u16, chunk: Chunk) -> Result<bool, Refusal> {
        self.0.lock().as_mut().ok_or(Refusal::Closed)?.records(party.into(), &chunk)
    }

    fn results(&self, party: u16) -> Result<Sealed, Refusal> {
        self.0.lock().as_ref().ok_or(Refusal::Closed)?.results(party.into())
    }
}

impl Open {
    fn new(study: Study, key: KeyPair) -> Self {
        let own = report::own();
        let description = Description {
            key: key.public().clone(),
            enclave: own.mrenclave,
            debug: own.attributes.flags.contains(sgx_abi::AttributeFlags::DEBUG),
            study,
        };
        let contributions = description.study.parties.iter().map(|_| Contribution::default()).collect();
        Self { binding: description.binding(), description, key, contributions }
    }

    fn records(&mut self, party: usize, chunk: &Chunk) -> Result<bool, Refusal> {
        let study = &self.description.study;
        let from = study.parties.get(party).filter(|party| party.contributes).ok_or(Refusal::Party)?;
        if let Some(delivered) = &self.contributions[party].delivered {
            return if delivered.name == chunk.upload { Ok(true) } else { Err(Refusal::Delivered) };
        }
        let people: usize = self.contributions.iter().flat_map(|c| &c.upload).map(|u| u.tally.people()).sum();
        let contribution = &mut self.contributions[party];
        let begun = contribution.upload.as_mut().filter(|upload| upload.name == chunk.upload);
        let mut new = None;
        let upload = match (begun, chunk.number) {
            (Some(upload), number) if number == upload.next => upload,
            // whatever was begun stays until this has shown to be the party's
            (_, 0) => {
                let purpose = study::records(&self.binding);
                let receiver = Receiver::new(&self.key, &from.key, &chunk.upload, &purpose);
                new.insert(Upload {
                    name: chunk.upload.clone(),
                    receiver: receiver.ok_or(Refusal::Forged)?,
                    next: 0,
                    tally: Tally::new(study),
                })
            }
            (begun, _) => return Err(Refusal::Order { expected: begun.map_or(0, |upload| upload.next) }),
        };
        let lines = upload.receiver.open(&chunk.ciphertext, chunk.last).ok_or(Refusal::Forged)?;
        let lines = Zeroizing::new(lines);
        upload.next += 1;
        // each line may be another person
        let room = people + lines.iter().filter(|byte| **byte == b'\n').count() <= MOST_PEOPLE;
        let added = if room {
            upload.tally.add(study, &lines).map_err(|(line, why)| Refusal::Record { line, why })
        } else {
            Err(Refusal::Busy)
        };
        if let Some(new) = new {
            contribution.upload = Some(new);
        }
        if let Err(refusal) = added {
            contribution.upload = None;
            return Err(refusal);
        }
        if chunk.last {
            contribution.delivered = contribution
                .upload
                .take()
                .map(|upload| Delivered { name: upload.name, totals: upload.tally.totals() });
        }
        Ok(chunk.last)
    }

    fn results(&self, party: usize) -> Result<Sealed, Refusal> {
        let study = &self.description.study;
        let to = study.parties.get(party).filter(|party| party.receives).ok_or(Refusal::Party)?;
        let contributing = || study.parties.iter().zip(&self.contributions).filter(|(p, _)| p.contributes);
        let missing: Vec<_> = contributing()
            .filter(|(_, contribution)| contribution.delivered.is_none())
            .map(|(party, _)| party.name.clone())
            .collect();
        if !missing.is_empty() {
            return Err(Refusal::Incomplete(missing));
        }
        let totals: Vec<&[Total]> =
            contributing().flat_map(|(_, c)| &c.delivered).map(|d| &d.totals[..]).collect();
        // which of its uploads was counted, so that a party sees if it is another
        let counted = self.contributions[party].delivered.as_ref().map(|delivered| &delivered.name);
        let table = tally::table(study, &totals);
        let message = postcard::to_allocvec(&(counted, table)).map_err(|_| Refusal::State)?;
        Ok(Sealed::new(&self.key, &to.key, &study::results(&self.binding), &message, &mut Rng))
    }
}
