//! The enclave: keys and values on the host's files, and a counter that the host does not
//! control.
#![no_std]
#![no_main]

extern crate alloc;

mod outside;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use enclave::sealing::{self, Policy};
use enclave::sync::Mutex;
use enclave_store::{Key, Limits, Store};
use outside::{Files, Remote};
use store_interface::{Opened, Refusal, Shelf};
use zeroize::Zeroizing;

/// What is sealed, so that nothing else that is sealed can be taken for it.
const WHAT: &[u8] = b"store: its key and its counter's";
/// Bytes of the store's key; the counter's follows it.
const KEY: usize = 32;
/// What the store is called.
const NAME: &[u8] = b"examples/store";

/// The store that is open.
struct Open(Mutex<Option<Store<Files, Remote>>>);

static OPEN: Open = Open(Mutex::new(None));
enclave::serve!(Shelf, OPEN);

/// The store's word on why not.
fn refused(error: impl core::fmt::Display) -> Refusal {
    Refusal::Store(error.to_string())
}

/// What is a name or a value here is text, and stays so.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Open {
    /// Does something with the store, if one is open.
    fn with<T>(
        &self,
        work: impl FnOnce(&mut Store<Files, Remote>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        work(self.0.lock().as_mut().ok_or(Refusal::Closed)?)
    }
}

impl Shelf for Open {
    fn create(&self, counter: &[u8]) -> Result<Vec<u8>, Refusal> {
        let remote = Remote::new(counter).ok_or(Refusal::Counter)?;
        let key = Zeroizing::new(enclave::random::bytes::<KEY>());
        let sealed = sealing::seal(Policy::Signer, &Zeroizing::new([&key[..], counter].concat()), WHAT);
        let sealed = sealed.expect("a hundred bytes are not too many");
        let store = Store::create(Files, remote, Key::new(*key), NAME, Limits::default());
        *self.0.lock() = Some(store.map_err(refused)?);
        Ok(sealed)
    }

    fn open(&self, sealed: &[u8]) -> Result<Opened, Refusal> {
        let unsealed = sealing::unseal(Policy::Signer, sealed, WHAT).map_err(|_| Refusal::Key)?;
        let plain = Zeroizing::new(unsealed.data);
        let (key, counter) = plain.split_first_chunk::<KEY>().ok_or(Refusal::Key)?;
        let remote = Remote::new(counter).ok_or(Refusal::Key)?;
        let store = Store::open(Files, remote, Key::new(*key), NAME, Limits::default()).map_err(refused)?;
        let opened = Opened { commits: store.commits(), counter: counter.to_vec() };
        *self.0.lock() = Some(store);
        Ok(opened)
    }

    fn put(&self, key: &str, value: &str) -> Result<(), Refusal> {
        self.with(|store| store.put(key.as_bytes(), value.as_bytes()).map_err(refused))
    }

    fn get(&self, key: &str) -> Result<Option<String>, Refusal> {
        self.with(|store| {
            let value = store.get(key.as_bytes()).map_err(refused)?;
            Ok(value.map(|value| text(&value)))
        })
    }

    fn remove(&self, key: &str) -> Result<(), Refusal> {
        self.with(|store| store.remove(key.as_bytes()).map_err(refused))
    }

    fn keys(&self) -> Result<Vec<String>, Refusal> {
        self.with(|store| Ok(store.keys().map(text).collect()))
    }
}
