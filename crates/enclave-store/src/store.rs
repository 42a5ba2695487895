//! The store: what is where in the log, and how that changes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use zeroize::Zeroizing;

use crate::cipher::{Cipher, OVERHEAD, random};
use crate::head::Head;
use crate::record::{self, EXTRA, Entry, Opened, PREFIX};
use crate::{Counter, Damage, Error, File, Key, Storage};

/// Bytes of the log that are read or written at a time, where records allow it.
const PIECE: usize = 64 << 10;
/// Fewer dead bytes are left in the log.
const SLACK: u64 = 64 << 10;

/// What a store may take. Of the enclave's memory that is, for each key, its length and
/// about 100 bytes; and twice a commit. Of the disk it is what lives, as much again, and
/// while the log is written anew what lives once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Keys.
    pub keys: usize,
    /// Bytes of a key; at most 65,535.
    pub key: u16,
    /// Bytes of a commit's records: keys, values and 35 bytes for each.
    pub commit: u32,
}

impl Default for Limits {
    /// 4,096 keys of 256 bytes; commits of 256 KiB.
    fn default() -> Self {
        Self { keys: 4096, key: 256, commit: 256 << 10 }
    }
}

/// A change of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// The key has this value from now on.
    Put(&'a [u8], &'a [u8]),
    /// The key is no longer there, if it was.
    Remove(&'a [u8]),
}

impl<'a> Change<'a> {
    fn key(&self) -> &'a [u8] {
        match *self {
            Self::Put(key, _) | Self::Remove(key) => key,
        }
    }

    /// Bytes of its record.
    fn len(&self) -> usize {
        let value = if let Self::Put(_, value) = self { value.len() } else { 0 };
        self.key().len().saturating_add(value).saturating_add(EXTRA)
    }
}

/// Keys and values in files of somebody else; see the head of this crate.
pub struct Store<S, C> {
    storage: S,
    counter: C,
    cipher: Cipher,
    name: Vec<u8>,
    limits: Limits,
    head: Head,
    index: BTreeMap<Vec<u8>, Entry>,
    /// Bytes of the records that `index` names.
    live: u64,
    /// A commit has failed: what is on the disk is not known.
    broken: bool,
}

type Result<T, S, C> = core::result::Result<T, Error<<S as Storage>::Error, <C as Counter>::Error>>;

impl<S: Storage, C: Counter> Store<S, C> {
    /// Makes a store where none is. It is opened again with the same key and name: `name`
    /// tells stores of one key apart.
    ///
    /// # Errors
    /// [`Error::Exists`]; those of the storage.
    pub fn create(storage: S, counter: C, key: Key, name: &[u8], limits: Limits) -> Result<Self, S, C> {
        let store = Self::new(storage, counter, key, name, limits, Head::new(random()));
        for head in [File::HeadA, File::HeadB] {
            if store.storage.len(head).map_err(Error::Storage)? != 0 {
                return Err(Error::Exists);
            }
        }
        store.write_heads()?;
        Ok(store)
    }

    /// Opens a store. What was committed is there, all of it; of a commit that was
    /// interrupted all of it is there or nothing.
    ///
    /// # Errors
    /// [`Error::Missing`]; [`Error::Damaged`] if the files are not those of one state of the
    /// store; [`Error::RolledBack`], [`Error::Forked`] and [`Error::NotCounted`] if that state
    /// is not the one that was counted; those of storage and counter.
    pub fn open(storage: S, counter: C, key: Key, name: &[u8], limits: Limits) -> Result<Self, S, C> {
        let mut store = Self::new(storage, counter, key, name, limits, Head::new([0; 16]));
        store.read_heads()?;
        store.check_counter()?;
        store.read_log()?;
        Ok(store)
    }

    fn new(storage: S, counter: C, key: Key, name: &[u8], limits: Limits, head: Head) -> Self {
        let (cipher, name, index) = (Cipher::new(&key), name.to_vec(), BTreeMap::new());
        Self { storage, counter, cipher, name, limits, head, index, live: 0, broken: false }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`Error::Damaged`] if its record was changed since the store was opened.
    pub fn get(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, S, C> {
        let Some(entry) = self.index.get(key) else { return Ok(None) };
        let opened = self.read_record(entry)?;
        match opened.value() {
            Some(value) if opened.key() == key => Ok(Some(Zeroizing::new(value.to_vec()))),
            _ => Err(Error::Damaged(Damage::Record(entry.at))),
        }
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.index.keys().map(Vec::as_slice)
    }

    /// Commits so far: what the counter counts. Writing the log anew is one too.
    pub fn commits(&self) -> u64 {
        self.head.commits
    }

    /// Gives a key a value.
    ///
    /// # Errors
    /// As of [`Self::commit`].
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), S, C> {
        self.commit(&[Change::Put(key, value)])
    }

    /// Takes a key out.
    ///
    /// # Errors
    /// As of [`Self::commit`].
    pub fn remove(&mut self, key: &[u8]) -> Result<(), S, C> {
        self.commit(&[Change::Remove(key)])
    }

    /// Makes changes, in this order: all of them, or after a crash none. When it returns
    /// they are on the disk, and counted.
    ///
    /// # Errors
    /// [`Error::TooLarge`] and [`Error::Full`], with nothing changed. After those of storage
    /// and counter, and [`Error::Damaged`] while the log is written anew, the changes may have
    /// been made or not, and the store is [`Error::Broken`]: open it again.
    pub fn commit(&mut self, changes: &[Change<'_>]) -> Result<(), S, C> {
        if self.broken {
            return Err(Error::Broken);
        }
        let len = changes.iter().fold(0usize, |len, change| len.saturating_add(change.len()));
        let key = usize::from(self.limits.key);
        if len > self.limits.commit as usize || changes.iter().any(|change| change.key().len() > key) {
            return Err(Error::TooLarge);
        }
        self.fits(changes)?;
        let (mut head, mut out, mut entries) = (self.head.clone(), Vec::with_capacity(len), Vec::new());
        for change in changes {
            entries.push(record::append(&self.cipher, &mut head, change, &mut out));
        }
        self.broken = true;
        self.storage.write(head.log(), self.head.len, &out).map_err(Error::Storage)?;
        self.advance(head)?;
        for (change, entry) in changes.iter().zip(entries) {
            match change {
                Change::Put(key, _) => self.place(key, Some(entry)),
                Change::Remove(key) => self.place(key, None),
            }
        }
        if self.head.len - self.live > SLACK.max(self.live) {
            self.compact()?;
        }
        self.broken = false;
        Ok(())
    }

    /// Whether there may be as many keys as there would be at any time of these changes.
    fn fits(&self, changes: &[Change<'_>]) -> Result<(), S, C> {
        let mut changed = BTreeMap::new();
        let mut keys = self.index.len();
        for change in changes {
            let there = changed.entry(change.key()).or_insert_with(|| self.index.contains_key(change.key()));
            let put = matches!(change, Change::Put(..));
            match (*there, put) {
                (false, true) => keys += 1,
                (true, false) => keys -= 1,
                _ => {}
            }
            *there = put;
            if keys > self.limits.keys {
                return Err(Error::Full);
            }
        }
        Ok(())
    }

    /// Says where a key's record is now.
    fn place(&mut self, key: &[u8], entry: Option<Entry>) {
        let before = match entry {
            Some(entry) => {
                self.live += u64::from(entry.len);
                self.index.insert(key.to_vec(), entry)
            }
            None => self.index.remove(key),
        };
        self.live -= before.map_or(0, |before| u64::from(before.len));
    }

    /// Makes what `head` says, and what is on the disk for it, the present state.
    fn advance(&mut self, head: Head) -> Result<(), S, C> {
        self.head = Head { commits: self.head.commits + 1, ..head };
        self.write_heads()?;
        self.count()
    }

    /// Has the present state counted.
    fn count(&self) -> Result<(), S, C> {
        self.counter.advance(&self.head.id, &self.head.counted()).map_err(Error::Counter)
    }

    fn write_heads(&self) -> Result<(), S, C> {
        [File::HeadA, File::HeadB].into_iter().try_for_each(|file| self.write_head(file))
    }

    fn write_head(&self, file: File) -> Result<(), S, C> {
        let sealed = self.head.seal(&self.cipher, &self.name);
        self.storage.write(file, 0, &sealed).map_err(Error::Storage)
    }

    /// Finds the present state, and makes both heads say so.
    fn read_heads(&mut self) -> Result<(), S, C> {
        let mut heads = [const { None }; 2];
        let mut nothing = true;
        for (head, file) in heads.iter_mut().zip([File::HeadA, File::HeadB]) {
            let len = self.storage.len(file).map_err(Error::Storage)?;
            nothing &= len == 0;
            if len == Head::SEALED as u64 {
                let sealed = self.storage.read(file, 0, Head::SEALED).map_err(Error::Storage)?;
                *head = Head::open(&self.cipher, &self.name, &sealed);
            }
        }
        self.head = match &heads {
            // a crash after the first, or after both
            [Some(a), Some(b)] if a == b || (a.id == b.id && Some(a.commits) == b.commits.checked_add(1)) => {
                a.clone()
            }
            [Some(_), Some(_)] => return Err(Error::Damaged(Damage::HeadsDiffer)),
            // a crash within one
            [Some(one), None] | [None, Some(one)] => one.clone(),
            [None, None] if nothing => return Err(Error::Missing),
            [None, None] => return Err(Error::Damaged(Damage::Heads)),
        };
        for (head, file) in heads.iter().zip([File::HeadA, File::HeadB]) {
            // or the next crash might find the only one
            if head.as_ref() != Some(&self.head) {
                self.write_head(file)?;
            }
        }
        Ok(())
    }

    /// Compares with what was counted.
    fn check_counter(&self) -> Result<(), S, C> {
        let Some(last) = self.counter.current(&self.head.id).map_err(Error::Counter)? else { return Ok(()) };
        let (here, counter, store) = (self.head.counted(), last.number, self.head.commits);
        match store.checked_sub(counter) {
            // of the first state there is but one
            Some(0) if last == here || store == 0 => Ok(()),
            Some(0) => Err(Error::Forked { number: store }),
            // a crash just before it would have been; what it was made from had been
            Some(1) => self.count(),
            Some(_) => Err(Error::NotCounted { store, counter }),
            None => Err(Error::RolledBack { store, counter }),
        }
    }

    /// Reads the log up to where the head says that it ends.
    fn read_log(&mut self) -> Result<(), S, C> {
        let Head { len, chain, .. } = self.head;
        if self.storage.len(self.head.log()).map_err(Error::Storage)? < len {
            return Err(Error::Damaged(Damage::Short));
        }
        // the head as it was while the log grew
        let mut so_far = Head { len: 0, chain: [0; 32], ..self.head.clone() };
        let (mut piece, mut from) = (Vec::new(), 0);
        while so_far.len < len {
            let at = so_far.len;
            let damaged = Error::Damaged(Damage::Record(at));
            let prefix = self.within(&mut piece, &mut from, at, PREFIX)?;
            let sealed = prefix.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
            let whole = PREFIX + sealed;
            if !(EXTRA..=self.limits.commit as usize).contains(&whole) || whole as u64 > len - at {
                return Err(damaged);
            }
            let record = self.within(&mut piece, &mut from, at, whole)?;
            let sealed = &record[PREFIX..];
            let Some(opened) = Opened::new(&self.cipher, &so_far, at, sealed) else { return Err(damaged) };
            let entry = Entry { at, len: whole as u32, tag: record::tag(sealed) };
            so_far.append(whole, &entry.tag);
            self.place(opened.key(), opened.value().map(|_| entry));
            if self.index.len() > self.limits.keys {
                return Err(Error::Full);
            }
        }
        if so_far.chain == chain { Ok(()) } else { Err(Error::Damaged(Damage::Log)) }
    }

    /// Bytes of the log at `at`, from `piece`, which begins at `from`, or from the storage.
    fn within<'a>(
        &self,
        piece: &'a mut Vec<u8>,
        from: &mut u64,
        at: u64,
        len: usize,
    ) -> Result<&'a [u8], S, C> {
        let held = at.checked_sub(*from).is_some_and(|skip| skip + len as u64 <= piece.len() as u64);
        if !held {
            let left = usize::try_from(self.head.len - at).unwrap_or(usize::MAX);
            let want = len.max(PIECE).min(left);
            *piece = self.storage.read(self.head.log(), at, want).map_err(Error::Storage)?;
            *from = at;
            if piece.len() != want || want < len {
                return Err(Error::Damaged(Damage::Record(at)));
            }
        }
        let skip = (at - *from) as usize;
        Ok(&piece[skip..skip + len])
    }

    fn read_record(&self, entry: &Entry) -> Result<Opened, S, C> {
        let (at, len) = (entry.at, entry.len as usize);
        let record = self.storage.read(self.head.log(), at, len).map_err(Error::Storage)?;
        let sealed = record.get(PREFIX..).filter(|sealed| {
            record.len() == len && sealed.len() >= OVERHEAD && record::tag(sealed) == entry.tag
        });
        let opened = sealed.and_then(|sealed| Opened::new(&self.cipher, &self.head, at, sealed));
        opened.ok_or(Error::Damaged(Damage::Record(at)))
    }

    /// Writes what lives to the other log, which becomes the one in use.
    fn compact(&mut self) -> Result<(), S, C> {
        let old = self.head.log();
        let mut head =
            Head { generation: self.head.generation + 1, len: 0, chain: [0; 32], ..self.head.clone() };
        self.storage.truncate(head.log(), 0).map_err(Error::Storage)?;
        let (mut entries, mut out, mut written) = (Vec::with_capacity(self.index.len()), Vec::new(), 0);
        for (key, entry) in &self.index {
            let opened = self.read_record(entry)?;
            let Some(value) = opened.value() else { return Err(Error::Damaged(Damage::Record(entry.at))) };
            entries.push(record::append(&self.cipher, &mut head, &Change::Put(key, value), &mut out));
            if out.len() >= PIECE {
                self.storage.write(head.log(), written, &out).map_err(Error::Storage)?;
                written = head.len;
                out.clear();
            }
        }
        self.storage.write(head.log(), written, &out).map_err(Error::Storage)?;
        self.advance(head)?;
        for (entry, new) in self.index.values_mut().zip(entries) {
            *entry = new;
        }
        self.storage.truncate(old, 0).map_err(Error::Storage)
    }
}

impl<S, C> core::fmt::Debug for Store<S, C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Store").field("keys", &self.index.len()).field("commits", &self.head.commits).finish()
    }
}
