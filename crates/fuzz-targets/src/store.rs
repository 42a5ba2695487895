//! A script of what an enclave, a crash and the keeper of its files do to
//! [`enclave_store()`].

use crate::input::Input;
use enclave_store::testing::{Contents, Ledger, Memory};
use enclave_store::{Change, Error, Key, Limits, NoCounter, Store};
use std::collections::BTreeMap;

type State = BTreeMap<Vec<u8>, Vec<u8>>;

const LIMITS: Limits = Limits { keys: 8, key: 3, commit: 90_000 };
/// Most steps of a script.
const STEPS: usize = 64;

fn key() -> Key {
    Key::new([7; 32])
}

/// What the enclave may find, and what was done to its files.
struct Course {
    files: Memory,
    ledger: Ledger,
    /// What was committed.
    state: State,
    /// What it is if the commit that was interrupted went through.
    pending: Option<State>,
    /// Whether the files are other than the store has left them.
    changed: bool,
    /// Files of earlier times.
    kept: Vec<Contents>,
}

/// Whatever is done to the files, the store has what was committed last, or an error; and
/// no error if nothing was done.
pub fn enclave_store(data: &[u8]) {
    // files of anybody's making
    let quarter = data.len() / 4;
    let files = [0, 1, 2, 3].map(|n| data[n * quarter..(n + 1) * quarter].to_vec());
    let nobodys = Store::open(&Memory::with(files), NoCounter, key(), b"", LIMITS).err();
    assert!(matches!(nobodys, Some(Error::Missing | Error::Damaged(_))), "{nobodys:?}");
    run(data);
}

/// Carries out a script; how many commits went through.
pub fn run(data: &[u8]) -> u64 {
    let course = &mut Course {
        files: Memory::new(),
        ledger: Ledger::new(),
        state: State::new(),
        pending: None,
        changed: false,
        kept: Vec::new(),
    };
    let Ok(first) = Store::create(&course.files, &course.ledger, key(), b"", LIMITS) else { return 0 };
    drop(first);
    let mut input = Input::new(data);
    let mut steps = 0;
    while !input.is_empty() && steps < STEPS {
        steps += 1;
        if !course.life(&mut input, &mut steps) {
            break;
        }
    }
    course.ledger.number()
}

impl Course {
    /// From opening the store to a crash, or to where the script says so. Whether it could
    /// be opened.
    fn life(&mut self, input: &mut Input<'_>, steps: &mut usize) -> bool {
        self.files.crash_after(None);
        let mut store = match Store::open(&self.files, &self.ledger, key(), b"", LIMITS) {
            Ok(store) => store,
            Err(error) => {
                assert!(self.changed, "nothing was done to the files: {error}");
                assert!(!error.to_string().contains('\n'), "{error}");
                return false;
            }
        };
        let found: Option<State> =
            store.keys().map(|key| Some((key.to_vec(), store.get(key).ok()??.to_vec()))).collect();
        let found = found.expect("what was opened can be read");
        if let Some(pending) = self.pending.take_if(|pending| *pending == found) {
            self.state = pending;
        }
        assert_eq!(found, self.state);
        self.pending = None;
        // heads that were changed are whole again; what lies beyond the log has no weight
        self.changed = false;
        while !input.is_empty() && *steps < STEPS {
            *steps += 1;
            match input.u8() % 8 {
                0..4 => {
                    let changes = changes(input);
                    let changes: Vec<_> = changes.iter().map(Owned::borrow).collect();
                    let mut next = self.state.clone();
                    changes.iter().for_each(|change| apply(&mut next, change));
                    match store.commit(&changes) {
                        Ok(()) => self.state = next,
                        Err(Error::TooLarge | Error::Full) => continue,
                        Err(_) => {
                            self.pending = Some(next);
                            return true;
                        }
                    }
                }
                4 => self.files.crash_after(Some(input.number() as usize & 0xffff)),
                5 => {
                    self.kept.truncate(8);
                    self.kept.push(self.files.contents());
                    return true;
                }
                6 => {
                    let (file, at, bits) = (usize::from(input.u8() % 4), input.number() as usize, input.u8());
                    let before = self.files.contents();
                    self.files.change(|files| match files[file].len() {
                        0 => files[file].push(bits),
                        len if bits == 0 => files[file].truncate(at % len),
                        len => files[file][at % len] ^= bits,
                    });
                    self.changed |= before != self.files.contents();
                    for (key, value) in &self.state {
                        if let Ok(found) = store.get(key) {
                            assert_eq!(found.as_deref(), Some(value));
                        }
                    }
                    if self.changed {
                        return true;
                    }
                }
                _ => {
                    let (file, old) = (usize::from(input.u8() % 4), usize::from(input.u8()));
                    if let Some(old) = self.kept.get(old % self.kept.len().max(1)) {
                        self.files.change(|files| files[file].clone_from(&old[file]));
                        self.changed = true;
                        return true;
                    }
                }
            }
        }
        true
    }
}

/// A change, and what it consists of.
struct Owned {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Owned {
    fn borrow(&self) -> Change<'_> {
        match &self.value {
            Some(value) => Change::Put(&self.key, value),
            None => Change::Remove(&self.key),
        }
    }
}

fn changes(input: &mut Input<'_>) -> Vec<Owned> {
    let number = 1 + input.u8() % 4;
    let change = |_| {
        let (kind, len) = (input.u8(), input.u16());
        let key = vec![kind & 3; usize::from(kind >> 2 & 3)];
        Owned { key, value: (kind & 0xc0 != 0).then(|| vec![kind; usize::from(len)]) }
    };
    (0..number).map(change).collect()
}

fn apply(state: &mut State, change: &Change<'_>) {
    match *change {
        Change::Put(key, value) => drop(state.insert(key.to_vec(), value.to_vec())),
        Change::Remove(key) => drop(state.remove(key)),
    }
}

/// Scripts: commits with a log that is written anew; crashes; an old file.
pub fn seeds() -> Vec<Vec<u8>> {
    // kind 0xC5: put, the key is [1]; then the value's length
    let put = |len: u16| [&[0, 0, 0xc5][..], &len.to_le_bytes()].concat();
    let several = [&[1, 3, 0xc5, 3, 0, 0xca, 5, 0, 0x0a, 0, 0, 0xcf, 9, 0][..], &[5]].concat();
    let long: Vec<u8> = (0..6).flat_map(|n| put(40_000 + n)).collect();
    // after 9 bytes, and after so many that it is while the log is written anew
    let crashes = [&put(5)[..], &[4, 9], &put(6), &put(7), &[4, 0xc0, 0x20, 0x9c], &put(40_000), &put(3)];
    let old = [&several[..], &put(4), &[7, 2, 0], &put(5), &[7, 0, 0]].concat();
    let changed = [&several[..], &[6, 0, 3, 1], &put(9), &[6, 2, 9, 0x80]].concat();
    vec![[several.clone(), long].concat(), crashes.concat(), old, changed]
}
