//! What a vault knows, and the rules by which it gives it away.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use enclave::interface::{Deserialize, Serialize};
use enclave_channel::{KeyPair, PRIVATE, PublicKey};
use vault_interface::{Content, Grant, MOST_BYTES, MOST_GRANTS, MOST_SECRETS, NAME, Refusal, Request};
use zeroize::{Zeroize, Zeroizing};

/// All of a vault; what is sealed.
#[derive(Serialize, Deserialize)]
#[serde(crate = "enclave::interface::serde")]
pub struct State {
    /// The private half of its key.
    pub key: Zeroizing<[u8; PRIVATE]>,
    owner: PublicKey,
    /// How often it has changed.
    pub changes: u64,
    /// The latest time that the host has told, in seconds since 1970. A clock that was set
    /// back is at rest here.
    time: u64,
    secrets: BTreeMap<String, Secret>,
}

#[derive(Serialize, Deserialize)]
#[serde(crate = "enclave::interface::serde")]
struct Secret {
    content: Vec<u8>,
    grants: Vec<Grant>,
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.content.zeroize();
    }
}

impl State {
    pub fn new(key: &KeyPair, owner: PublicKey) -> Self {
        Self { key: key.private(), owner, changes: 0, time: 0, secrets: BTreeMap::new() }
    }

    /// Does what a client wants, at the time that the host tells.
    ///
    /// # Errors
    /// It may not be; then nothing has changed.
    pub fn answer(&mut self, from: &PublicKey, request: Request, now: u64) -> Result<Content, Refusal> {
        let Self { owner, changes, time, secrets, .. } = self;
        *time = (*time).max(now);
        let owner = if from == owner { Ok(()) } else { Err(Refusal::NotOwner) };
        match request {
            Request::Put { name, secret, grants } => {
                owner?;
                if name.is_empty()
                    || name.len() > NAME
                    || secret.len() > MOST_BYTES
                    || grants.len() > MOST_GRANTS
                {
                    return Err(Refusal::Large);
                }
                if secrets.len() == MOST_SECRETS && !secrets.contains_key(&name) {
                    return Err(Refusal::Full);
                }
                secrets.insert(name, Secret { content: secret, grants });
            }
            Request::Remove { name } => {
                owner?;
                secrets.remove(&name).ok_or(Refusal::NoSecret)?;
            }
            Request::List => {
                owner?;
                let entry = |(name, secret): (&String, &Secret)| (name.clone(), secret.grants.clone());
                return Ok(Content::List(secrets.iter().map(entry).collect()));
            }
            Request::Get { name } => {
                let secret = secrets.get_mut(&name).ok_or(Refusal::NoSecret)?;
                let grant = secret.grants.iter_mut().find(|grant| grant.reader == *from);
                let grant = grant.ok_or(Refusal::NoSecret)?;
                if grant.until.is_some_and(|until| *time > until) {
                    return Err(Refusal::Expired);
                }
                if let Some(reads) = &mut grant.reads {
                    *reads = reads.checked_sub(1).ok_or(Refusal::Exhausted)?;
                    *changes += 1;
                }
                return Ok(Content::Secret(secret.content.clone()));
            }
        }
        *changes += 1;
        Ok(Content::Done)
    }
}
