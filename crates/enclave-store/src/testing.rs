//! Files and a counter in memory: they crash where a test says, and show what they hold.

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use crate::{Counted, Counter, File, Storage, StoreId};

/// What a crashed storage or counter answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crashed;

impl core::fmt::Display for Crashed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("it has crashed")
    }
}

/// The contents of all files, in the order of [`File::ALL`].
pub type Contents = [Vec<u8>; 4];

/// Files in memory.
#[derive(Debug, Default)]
pub struct Memory {
    files: RefCell<Contents>,
    /// Bytes that can still be written; `None` for any number.
    fuel: Cell<Option<usize>>,
}

impl Memory {
    /// No files.
    pub fn new() -> Self {
        Self::default()
    }

    /// These files.
    pub fn with(contents: Contents) -> Self {
        Self { files: RefCell::new(contents), fuel: Cell::new(None) }
    }

    /// What is in the files.
    pub fn contents(&self) -> Contents {
        self.files.borrow().clone()
    }

    /// Changes files behind the store's back.
    pub fn change(&self, change: impl FnOnce(&mut Contents)) {
        change(&mut self.files.borrow_mut());
    }

    /// Lets it crash after so many bytes more were written, in the midst of a write. A file
    /// that is cut counts as a byte.
    pub fn crash_after(&self, bytes: Option<usize>) {
        self.fuel.set(bytes);
    }

    /// As many of `bytes` as can be written.
    fn burn(&self, bytes: usize) -> usize {
        let Some(fuel) = self.fuel.get() else { return bytes };
        let burnt = fuel.min(bytes);
        self.fuel.set(Some(fuel - burnt));
        burnt
    }
}

impl Storage for Memory {
    type Error = Crashed;

    fn len(&self, file: File) -> Result<u64, Crashed> {
        Ok(self.files.borrow()[file as usize].len() as u64)
    }

    fn read(&self, file: File, at: u64, len: usize) -> Result<Vec<u8>, Crashed> {
        let files = self.files.borrow();
        let from = files[file as usize].get(at as usize..).unwrap_or_default();
        Ok(from[..len.min(from.len())].to_vec())
    }

    fn write(&self, file: File, at: u64, bytes: &[u8]) -> Result<(), Crashed> {
        let done = self.burn(bytes.len());
        let file = &mut self.files.borrow_mut()[file as usize];
        let at = at as usize;
        if file.len() < at + done {
            file.resize(at + done, 0);
        }
        file[at..at + done].copy_from_slice(&bytes[..done]);
        if done == bytes.len() { Ok(()) } else { Err(Crashed) }
    }

    fn truncate(&self, file: File, len: u64) -> Result<(), Crashed> {
        if self.burn(1) == 0 {
            return Err(Crashed);
        }
        self.files.borrow_mut()[file as usize].truncate(len as usize);
        Ok(())
    }
}

/// A counter that nobody turns back, of one store.
#[derive(Debug, Default)]
pub struct Ledger {
    last: Cell<Counted>,
    silent: Cell<bool>,
}

impl Ledger {
    /// Nothing was counted.
    pub fn new() -> Self {
        Self::default()
    }

    /// Commits that were counted.
    pub fn number(&self) -> u64 {
        self.last.get().number
    }

    /// Lets it not answer, or answer again.
    pub fn be_silent(&self, silent: bool) {
        self.silent.set(silent);
    }
}

impl Counter for Ledger {
    type Error = Crashed;

    fn current(&self, _store: &StoreId) -> Result<Option<Counted>, Crashed> {
        if self.silent.get() { Err(Crashed) } else { Ok(Some(self.last.get())) }
    }

    fn advance(&self, _store: &StoreId, to: &Counted) -> Result<(), Crashed> {
        if self.silent.get() || self.number().checked_add(1) != Some(to.number) {
            return Err(Crashed);
        }
        self.last.set(*to);
        Ok(())
    }
}
