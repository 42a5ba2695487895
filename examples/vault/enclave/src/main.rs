//! Keeps secrets, and the rules by which it gives them away.
#![no_std]
#![no_main]

extern crate alloc;

mod state;
mod tests;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use enclave::random::{self, Rng};
use enclave::sealing::{self, Policy, SealError};
use enclave::sync::Mutex;
use enclave_channel::{KeyPair, PublicKey, Sealed};
use state::State;
use vault_interface::{Answer, Challenge, Closed, Envelope, Response, Vault};
use zeroize::Zeroizing;

/// What sealed state is, to whom it is presented.
const STATE: &[u8] = b"vault: its secrets and rules";

/// Challenges that are good at a time; the oldest makes room.
const CHALLENGES: usize = 64;

/// A vault that is open.
struct Open {
    key: KeyPair,
    state: State,
}

/// The vault, and the challenges that were given.
struct Safe {
    open: Mutex<Option<Open>>,
    challenges: Mutex<VecDeque<Challenge>>,
}

impl Safe {
    const fn new() -> Self {
        Self { open: Mutex::new(None), challenges: Mutex::new(VecDeque::new()) }
    }

    /// Whether it was given and is good; it is not any more.
    fn takes(&self, challenge: &Challenge) -> bool {
        let mut challenges = self.challenges.lock();
        let found = challenges.iter().position(|one| one == challenge);
        found.and_then(|at| challenges.remove(at)).is_some()
    }
}

static SAFE: Safe = Safe::new();
enclave::serve!(Vault, SAFE);

impl Vault for Safe {
    fn create(&self, owner: PublicKey) -> Result<Vec<u8>, Closed> {
        let key = KeyPair::generate(&mut Rng);
        seal(&State::new(&key, owner))
    }

    fn open(&self, sealed: &[u8]) -> Result<PublicKey, Closed> {
        let state = sealing::unseal(Policy::Signer, sealed, STATE).map_err(|error| match error {
            SealError::Downgrade => Closed::Later,
            _ => Closed::State,
        })?;
        let state: State = postcard::from_bytes(&Zeroizing::new(state.data)).map_err(|_| Closed::State)?;
        let key = KeyPair::from_private(&*state.key).map_err(|_| Closed::State)?;
        let public = key.public().clone();
        *self.open.lock() = Some(Open { key, state });
        Ok(public)
    }

    fn challenge(&self) -> Challenge {
        let challenge = random::bytes();
        let mut challenges = self.challenges.lock();
        if challenges.len() == CHALLENGES {
            challenges.pop_front();
        }
        challenges.push_back(challenge);
        challenge
    }

    fn answer(&self, from: PublicKey, challenge: Challenge, request: Sealed) -> Result<Answer, Closed> {
        let mut open = self.open.lock();
        let Open { key, state } = open.as_mut().ok_or(Closed::None)?;
        if !self.takes(&challenge) {
            return Err(Closed::Challenge);
        }
        let envelope = Envelope { own: key, other: &from, challenge: &challenge };
        let request = envelope.asked(&request).ok_or(Closed::Request)?;
        let before = state.changes;
        // a host that does not tell the time has none of it pass
        let now = enclave::host::untrusted_time().map_or(0, |time| time.as_secs());
        let content = state.answer(&from, request, now);
        let response = envelope.tell(&Response { changes: state.changes, content }, &mut Rng);
        let state = if state.changes == before { None } else { Some(seal(state)?) };
        Ok(Answer { response, state })
    }
}

/// For enclaves of the same signer, of this security version or a later one.
fn seal(state: &State) -> Result<Vec<u8>, Closed> {
    let encoded = Zeroizing::new(postcard::to_allocvec(state).map_err(|_| Closed::State)?);
    sealing::seal(Policy::Signer, &encoded, STATE).map_err(|_| Closed::State)
}
