//! What was counted, on the counter's own disk, and the key that vouches for it.

use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use store_interface::counter::{Answer, Counted, Request, signed};
use zerocopy::{FromBytes, IntoBytes};

/// Most stores: strangers must not fill the disk.
const STORES: usize = 10_000;

/// Numbers of stores.
pub struct Ledger {
    folder: PathBuf,
    key: SigningKey,
    stores: BTreeMap<String, Counted>,
}

impl Ledger {
    /// The one in a folder; makes it, and its key, if there is none.
    ///
    /// # Errors
    /// Files cannot be read or made, or are none of its own.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let stores = folder.join("stores");
        fs::create_dir_all(&stores)?;
        let key = key(&folder.join("key"))?;
        let public = hex(key.verifying_key().to_encoded_point(false).as_bytes());
        replace(&folder.join("public"), public.as_bytes())?;
        let mut ledger = Self { folder: stores, key, stores: BTreeMap::new() };
        for entry in fs::read_dir(&ledger.folder)? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|_| ErrorKind::InvalidData)?;
            // of a crash while it was written
            if name.ends_with(".new") {
                continue;
            }
            let bytes = fs::read(entry.path())?;
            let counted = Counted::read_from_bytes(&bytes)
                .map_err(|_| io::Error::other(format!("{name} is damaged: the number is lost")))?;
            ledger.stores.insert(name, counted);
        }
        Ok(ledger)
    }

    /// Answers a request. What it says it has is on the disk.
    ///
    /// # Errors
    /// It cannot be written, or there are too many stores.
    pub fn answer(&mut self, request: &Request) -> io::Result<Answer> {
        let name = hex(&request.store);
        let mut last = self.stores.get(&name).copied().unwrap_or_default();
        if last.leads_to(&request.to) {
            if self.stores.len() >= STORES && !self.stores.contains_key(&name) {
                return Err(io::Error::other(format!("there are {STORES} stores already")));
            }
            last = request.to;
            replace(&self.folder.join(&name), last.as_bytes())?;
            self.stores.insert(name, last);
        }
        let signature: Signature = self.key.sign(&signed(request, &last));
        Ok(Answer { last, signature: signature.to_bytes().into() })
    }
}

/// The key in a file, made if there is none.
fn key(file: &Path) -> io::Result<SigningKey> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let mut bytes = vec![0; 32];
            getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
            let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
            out.write_all(&bytes)?;
            out.sync_all()?;
            bytes
        }
        Err(e) => return Err(e),
    };
    SigningKey::from_slice(&bytes).map_err(|_| {
        io::Error::other(format!("{} is no key: remove it, and a new one is made", file.display()))
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file so that after a crash it is the old one or the new one.
fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    let mut out = File::create(&new)?;
    out.write_all(content)?;
    out.sync_all()?;
    fs::rename(new, file)?;
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use p256::ecdsa::signature::Verifier;

    #[test]
    fn numbers_go_up_by_one_and_outlast_the_process() {
        let folder = std::env::temp_dir().join(format!("store-counter-{}", std::process::id()));
        let mut ledger = Ledger::open(&folder).unwrap();
        let public = *ledger.key.verifying_key();
        let ask = |ledger: &mut Ledger, store: u8, number: u64, state: u8| {
            let to = Counted { number, state: [state; 32] };
            let request = Request { nonce: [7; 32], store: [store; 16], to };
            let answer = ledger.answer(&request).unwrap();
            let signature = Signature::from_slice(&answer.signature).unwrap();
            public.verify(&signed(&request, &answer.last), &signature).unwrap();
            assert!(
                public.verify(&signed(&request, &Counted { number: 99, ..answer.last }), &signature).is_err()
            );
            (answer.last.number, answer.last.state[0])
        };
        assert_eq!(ask(&mut ledger, 1, 0, 0), (0, 0));
        assert_eq!(ask(&mut ledger, 1, 2, 5), (0, 0));
        assert_eq!(ask(&mut ledger, 1, 1, 5), (1, 5));
        // the loser of two, an old one, another store
        assert_eq!(ask(&mut ledger, 1, 1, 6), (1, 5));
        assert_eq!(ask(&mut ledger, 1, 0, 6), (1, 5));
        assert_eq!(ask(&mut ledger, 2, 0, 0), (0, 0));
        assert_eq!(ask(&mut ledger, 1, 2, 7), (2, 7));
        let mut again = Ledger::open(&folder).unwrap();
        assert_eq!(ask(&mut again, 1, 0, 0), (2, 7));
        fs::remove_dir_all(&folder).unwrap();
    }
}
