//! The host's files, and a counter beyond the host.

use alloc::vec::Vec;
use core::fmt;
use enclave::host::Host;
use enclave_store::{Counted, Counter, File, Storage, StoreId};
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use store_interface::OutsideClient;
use store_interface::counter::{self, Answer, Request};
use zerocopy::{FromBytes, IntoBytes};

const OUTSIDE: OutsideClient<Host> = OutsideClient(Host);

/// The files that the host keeps.
pub struct Files;

/// The host did not do it.
#[derive(Debug)]
pub struct NotDone;

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host could not read or write them")
    }
}

impl Storage for Files {
    type Error = NotDone;

    fn len(&self, file: File) -> Result<u64, NotDone> {
        OUTSIDE.len(file as u8).ok().flatten().ok_or(NotDone)
    }

    fn read(&self, file: File, at: u64, len: usize) -> Result<Vec<u8>, NotDone> {
        let len = u32::try_from(len).map_err(|_| NotDone)?;
        OUTSIDE.read(file as u8, at, len).ok().flatten().ok_or(NotDone)
    }

    fn write(&self, file: File, at: u64, bytes: &[u8]) -> Result<(), NotDone> {
        OUTSIDE.write(file as u8, at, bytes).is_ok_and(|done| done).then_some(()).ok_or(NotDone)
    }

    fn truncate(&self, file: File, len: u64) -> Result<(), NotDone> {
        OUTSIDE.truncate(file as u8, len).is_ok_and(|done| done).then_some(()).ok_or(NotDone)
    }
}

/// The counter with this public key. The host passes messages, and can keep them back.
pub struct Remote(VerifyingKey);

/// Why nothing was counted.
#[derive(Debug)]
pub enum NotCounted {
    /// There is no answer.
    Silent,
    /// It is not the counter's, or not to this question.
    Forged,
    /// Somebody else has counted.
    Elsewhere,
}

impl fmt::Display for NotCounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "it does not answer; start it, or give its address",
            Self::Forged => {
                "what answers is not the one that the store was made with; give the address of that one"
            }
            Self::Elsewhere => "another copy of the store has counted meanwhile; go on with that one",
        })
    }
}

impl Remote {
    /// By the counter's public key (SEC1); `None` if it is none.
    pub fn new(public: &[u8]) -> Option<Self> {
        VerifyingKey::from_sec1_bytes(public).ok().map(Self)
    }

    /// Asks, and with a number counts on.
    fn ask(&self, store: &StoreId, to: Counted) -> Result<Counted, NotCounted> {
        let to = counter::Counted { number: to.number, state: to.state };
        let request = Request { nonce: enclave::random::bytes(), store: *store, to };
        let answer = OUTSIDE.count(request.as_bytes()).ok().flatten().ok_or(NotCounted::Silent)?;
        let answer = Answer::read_from_bytes(&answer).map_err(|_| NotCounted::Forged)?;
        let signature = Signature::from_slice(&answer.signature).map_err(|_| NotCounted::Forged)?;
        let signed = counter::signed(&request, &answer.last);
        self.0.verify(&signed, &signature).map_err(|_| NotCounted::Forged)?;
        Ok(Counted { number: answer.last.number, state: answer.last.state })
    }
}

impl Counter for Remote {
    type Error = NotCounted;

    fn current(&self, store: &StoreId) -> Result<Option<Counted>, NotCounted> {
        self.ask(store, Counted::default()).map(Some)
    }

    fn advance(&self, store: &StoreId, to: &Counted) -> Result<(), NotCounted> {
        if self.ask(store, *to)? == *to { Ok(()) } else { Err(NotCounted::Elsewhere) }
    }
}
