//! The store on files in memory: what it keeps, after crashes too, and what it finds.

use std::collections::BTreeMap;

use enclave_store::testing::{Contents, Crashed, Ledger, Memory};
use enclave_store::{Change, Counter, Damage, Error, File, Key, Limits, NoCounter, Store};

type State = BTreeMap<Vec<u8>, Vec<u8>>;

fn key() -> Key {
    Key::new([7; 32])
}

fn open<C: Counter>(files: &Memory, counter: C) -> Result<Store<&Memory, C>, Error<Crashed, C::Error>> {
    Store::open(files, counter, key(), b"test", Limits::default())
}

fn create<C: Counter>(files: &Memory, counter: C) -> Store<&Memory, C> {
    Store::create(files, counter, key(), b"test", Limits::default()).ok().unwrap()
}

/// All that a store has.
fn state<C: Counter>(store: &Store<&Memory, C>) -> Result<State, Error<Crashed, C::Error>> {
    let value = |key: &[u8]| Ok((key.to_vec(), store.get(key)?.expect("a key of its own").to_vec()));
    store.keys().map(value).collect()
}

fn apply(state: &mut State, changes: &[Change<'_>]) {
    for change in changes {
        match *change {
            Change::Put(key, value) => drop(state.insert(key.to_vec(), value.to_vec())),
            Change::Remove(key) => drop(state.remove(key)),
        }
    }
}

/// Commits of all kinds; `long` has the log written anew twice.
fn commits(long: bool) -> Vec<Vec<Change<'static>>> {
    use Change::{Put, Remove};
    let mut all = vec![
        vec![Put(b"a", b"1")],
        vec![Put(b"b", b""), Put(b"c", b"a longer value of thirty bytes")],
        vec![Put(b"a", b"2"), Remove(b"b"), Put(b"d", b"4")],
        vec![Remove(b"nothing")],
        vec![Put(b"d", b"5"), Remove(b"d"), Put(b"", b"the empty key")],
    ];
    if long {
        static LONG: [u8; 30_000] = [0x55; 30_000];
        all.extend((20_000..20_008).map(|len| vec![Put(b"long", &LONG[..len])]));
        all.push(vec![Put(b"e", b"6")]);
    }
    all
}

/// What the store has after none, one, … all of the commits.
fn states(commits: &[Vec<Change<'_>>]) -> Vec<State> {
    let mut now = State::new();
    let mut all = vec![now.clone()];
    for changes in commits {
        apply(&mut now, changes);
        all.push(now.clone());
    }
    all
}

#[test]
fn what_is_committed_is_there() {
    let (files, ledger) = (Memory::new(), Ledger::new());
    assert_eq!(open(&files, NoCounter).err(), Some(Error::Missing));
    let mut store = create(&files, &ledger);
    let commits = commits(true);
    for (changes, expected) in commits.iter().zip(&states(&commits)[1..]) {
        store.commit(changes).unwrap();
        assert_eq!(state(&store).as_ref(), Ok(expected));
        let again = open(&files, &ledger).unwrap();
        assert_eq!((state(&again).as_ref(), again.commits()), (Ok(expected), store.commits()));
    }
    assert_eq!(ledger.number(), store.commits());
    // it was written anew, and does not grow without bound
    assert!(store.commits() > commits.len() as u64);
    let log: usize = files.contents()[2..].iter().map(Vec::len).sum();
    assert!(log < 128 << 10, "{log}");
    let exists = Store::create(&files, &ledger, key(), b"test", Limits::default());
    assert_eq!(exists.err(), Some(Error::Exists));
    assert_eq!(store.get(b"nothing").unwrap(), None);
}

#[test]
fn limits_hold_and_change_nothing() {
    let files = Memory::new();
    let limits = Limits { keys: 2, key: 4, commit: 200 };
    let mut store = Store::create(&files, NoCounter, key(), b"test", limits).unwrap();
    store.commit(&[Change::Put(b"a", b"1"), Change::Put(b"b", b"2")]).unwrap();
    let before = files.contents();
    assert_eq!(store.put(b"c", b"3"), Err(Error::Full));
    // for a moment there would be three
    assert_eq!(store.commit(&[Change::Put(b"c", b"3"), Change::Remove(b"a")]), Err(Error::Full));
    assert_eq!(store.put(b"abcde", b""), Err(Error::TooLarge));
    assert_eq!(store.put(b"a", &[0; 200 - 35]), Err(Error::TooLarge));
    assert_eq!(files.contents(), before);
    store.put(b"a", &[0; 200 - 36]).unwrap();
    store.commit(&[Change::Remove(b"b"), Change::Put(b"c", b"3")]).unwrap();
    // who allows less does not open it
    let less = |limits| Store::open(&files, NoCounter, key(), b"test", limits).err();
    assert_eq!(less(Limits { keys: 1, ..limits }), Some(Error::Full));
    assert!(matches!(less(Limits { commit: 199, ..limits }), Some(Error::Damaged(Damage::Record(_)))));
}

/// Runs the commits with a crash after so many bytes. The store is opened again, and has
/// what was committed: all, or all but the one that was interrupted. Whether it crashed.
fn crash(commits: &[Vec<Change<'_>>], states: &[State], bytes: usize) -> bool {
    let (files, ledger) = (Memory::new(), Ledger::new());
    let mut store = create(&files, &ledger);
    files.crash_after(Some(bytes));
    let done = commits.iter().take_while(|changes| store.commit(changes).is_ok()).count();
    if done < commits.len() {
        assert_eq!(store.put(b"more", b""), Err(Error::Broken));
    }
    drop(store);
    files.crash_after(None);
    // without a counter too: it is opened before the counter is asked, and does not ask
    let unasked = state(&open(&files, NoCounter).unwrap()).unwrap();
    let mut store = open(&files, &ledger).unwrap();
    let found = state(&store).unwrap();
    assert_eq!(unasked, found);
    assert!(found == states[done] || states.get(done + 1) == Some(&found), "after {bytes} bytes");
    assert_eq!(ledger.number(), store.commits());
    // and it goes on from there, with or without what the crash has left
    store.put(b"after", b"the crash").unwrap();
    let mut expected = found;
    expected.insert(b"after".to_vec(), b"the crash".to_vec());
    assert_eq!(state(&open(&files, &ledger).unwrap()).unwrap(), expected, "after {bytes} bytes");
    done < commits.len()
}

#[test]
fn a_crash_loses_nothing_that_was_committed() {
    let short = commits(false);
    let all = states(&short);
    let crashes = (0..).take_while(|&bytes| crash(&short, &all, bytes)).count();
    assert!(crashes > 1000, "{crashes}");
    // while the log is written anew
    let long = commits(true);
    let all = states(&long);
    let crashes = (0..).step_by(331).take_while(|&bytes| crash(&long, &all, bytes)).count();
    assert!(crashes > 500, "{crashes}");
}

/// A head is lost; then comes a crash within the other.
#[test]
fn a_lost_head_is_made_again() {
    for (lost, bytes) in [(File::HeadA, 1), (File::HeadB, 1), (File::HeadA, 0)] {
        let files = Memory::new();
        create(&files, NoCounter).put(b"a", b"1").unwrap();
        files.change(|files| files[lost as usize][50] ^= 1);
        let mut store = open(&files, NoCounter).unwrap();
        let record = files.contents()[File::LogA as usize].len();
        files.crash_after(Some(record + bytes));
        assert_eq!(store.put(b"a", b"2"), Err(Error::Storage(Crashed)));
        files.crash_after(None);
        let store = open(&files, NoCounter).unwrap();
        assert_eq!(store.get(b"a").unwrap().unwrap().as_slice(), b"1");
    }
}

#[test]
fn a_crash_of_the_counter_too() {
    let (files, ledger) = (Memory::new(), Ledger::new());
    let mut store = create(&files, &ledger);
    store.put(b"a", b"1").unwrap();
    ledger.be_silent(true);
    assert_eq!(store.put(b"a", b"2"), Err(Error::Counter(Crashed)));
    assert_eq!(open(&files, &ledger).err(), Some(Error::Counter(Crashed)));
    ledger.be_silent(false);
    assert_eq!(store.put(b"a", b"3"), Err(Error::Broken));
    let store = open(&files, &ledger).unwrap();
    assert_eq!(store.get(b"a").unwrap().as_deref().map(Vec::as_slice), Some(&b"2"[..]));
    assert_eq!(ledger.number(), 2);
}

/// Files with the state after each of the commits, and the counter after them.
fn history() -> (Vec<Contents>, Ledger) {
    let (files, ledger) = (Memory::new(), Ledger::new());
    let mut store = create(&files, &ledger);
    let mut all = vec![files.contents()];
    for changes in commits(false) {
        store.commit(&changes).unwrap();
        all.push(files.contents());
    }
    (all, ledger)
}

#[test]
fn every_changed_byte_is_found() {
    let (history, _) = history();
    let last = history.last().unwrap();
    let expected = states(&commits(false)).pop().unwrap();
    for file in File::ALL {
        for at in 0..last[file as usize].len() {
            let mut changed = last.clone();
            changed[file as usize][at] ^= 1 << (at % 8);
            let files = Memory::with(changed);
            match (file, open(&files, NoCounter)) {
                // the other one is whole, and makes this one whole
                (File::HeadA | File::HeadB, Ok(store)) => {
                    assert_eq!(state(&store).unwrap(), expected, "{file:?} {at}");
                    let heads = files.contents();
                    assert_eq!(heads[0].len(), heads[1].len());
                }
                (File::LogA, Err(Error::Damaged(Damage::Record(_)))) => {}
                (_, other) => panic!("{file:?} {at}: {other:?}"),
            }
            // both at once
            files.change(|files| {
                files[0].truncate(at);
                files[1].truncate(at);
            });
            let expected = if at == 0 { Error::Missing } else { Error::Damaged(Damage::Heads) };
            if file == File::HeadA {
                assert_eq!(open(&files, NoCounter).err(), Some(expected), "{at}");
            }
        }
        let cut = |at: usize| {
            let mut changed = last.clone();
            changed[file as usize].truncate(at);
            open(&Memory::with(changed), NoCounter).err()
        };
        if file == File::LogA {
            let all_short = (0..last[2].len()).all(|at| cut(at) == Some(Error::Damaged(Damage::Short)));
            assert!(all_short);
        }
    }
}

/// Each file of any time: the state of one time, or an error. With a counter, the present
/// state or an error.
#[test]
fn versions_are_not_mixed() {
    let (history, ledger) = history();
    let states = states(&commits(false));
    let n = history.len();
    let (mut whole, mut present) = (0, 0);
    for pick in 0..n.pow(3) {
        let at = [pick % n, pick / n % n, pick / n / n];
        let mix: Contents = [0, 1, 2, 3].map(|file| history[at[file.min(2)]][file].clone());
        let (mixed, counted) = (Memory::with(mix.clone()), Memory::with(mix));
        match open(&mixed, NoCounter) {
            Ok(store) => {
                // heads of a crash between them; the log of that time or later
                assert!((at[0] == at[1] || at[0] == at[1] + 1) && at[2] >= at[0], "{at:?}");
                assert_eq!(state(&store).unwrap(), states[at[0]], "{at:?}");
                whole += 1;
            }
            Err(Error::Damaged(_)) => {}
            Err(other) => panic!("{at:?}: {other}"),
        }
        match open(&counted, &ledger) {
            Ok(store) => {
                assert_eq!(state(&store).unwrap(), states[n - 1], "{at:?}");
                present += 1;
            }
            Err(Error::Damaged(_)) => {}
            Err(Error::RolledBack { store, counter }) => {
                assert_eq!((store, counter), (at[0] as u64, n as u64 - 1), "{at:?}");
            }
            Err(other) => panic!("{at:?}: {other}"),
        }
    }
    // n whole states, and crashes between; the present one, and a crash on the way to it
    assert!(whole > n && present == 2, "{whole} {present}");
}

#[test]
fn records_keep_their_order() {
    let files = Memory::new();
    let mut store = create(&files, NoCounter);
    store.put(b"a", b"1").unwrap();
    store.put(b"b", b"2").unwrap();
    let len = files.contents()[2].len() / 2;
    for (change, expected) in [
        // exchanged, doubled, taken out
        (&(|log: &mut Vec<u8>| log.rotate_left(len)) as &dyn Fn(&mut Vec<u8>), Damage::Record(0)),
        (&|log| log.copy_within(..len, len), Damage::Record(len as u64)),
        (&|log| drop(log.drain(..len)), Damage::Short),
    ] {
        let changed = Memory::with(files.contents());
        changed.change(|files| change(&mut files[2]));
        assert_eq!(open(&changed, NoCounter).err(), Some(Error::Damaged(expected)));
    }
    // after it was opened
    files.change(|files| files[2].rotate_left(len));
    assert_eq!(store.get(b"a"), Err(Error::Damaged(Damage::Record(0))));
    files.change(|files| files[2].clear());
    assert_eq!(store.get(b"b"), Err(Error::Damaged(Damage::Record(len as u64))));
}

/// A record that was written at the same place of the same log, in another course of
/// events.
#[test]
fn courses_of_events_are_not_mixed() {
    let files = Memory::new();
    let mut store = create(&files, NoCounter);
    store.put(b"a", b"1").unwrap();
    let other = Memory::with(files.contents());
    store.put(b"b", b"2").unwrap();
    open(&other, NoCounter).unwrap().put(b"b", b"3").unwrap();
    files.change(|files| files[2] = other.contents()[2].clone());
    assert_eq!(open(&files, NoCounter).err(), Some(Error::Damaged(Damage::Log)));
    assert!(matches!(store.get(b"b"), Err(Error::Damaged(Damage::Record(_)))));
}

#[test]
fn stores_are_told_apart() {
    let (one, two) = (Memory::new(), Memory::new());
    for files in [&one, &two] {
        create(files, NoCounter).put(b"a", b"1").unwrap();
    }
    // a log, a head, both heads
    for (take, expected) in
        [(2..4, Damage::Record(0)), (0..1, Damage::HeadsDiffer), (0..2, Damage::Record(0))]
    {
        let mixed = Memory::with(one.contents());
        mixed.change(|files| take.into_iter().for_each(|n| files[n] = two.contents()[n].clone()));
        assert_eq!(open(&mixed, NoCounter).err(), Some(Error::Damaged(expected)));
    }
    // another name, another key
    let named = Store::open(&one, NoCounter, key(), b"best", Limits::default());
    assert_eq!(named.err(), Some(Error::Damaged(Damage::Heads)));
    let other = Store::open(&one, NoCounter, Key::new([8; 32]), b"test", Limits::default());
    assert_eq!(other.err(), Some(Error::Damaged(Damage::Heads)));
}

#[test]
fn a_counter_finds_old_states_and_forks() {
    let (files, ledger) = (Memory::new(), Ledger::new());
    let mut store = create(&files, &ledger);
    store.put(b"a", b"1").unwrap();
    let old = Memory::with(files.contents());
    let mut fork = open(&old, &ledger).unwrap();
    store.put(b"a", b"2").unwrap();
    // two of one past: the second cannot commit, and what it has left is not taken either,
    // though it has as many commits as were counted
    assert_eq!(fork.put(b"a", b"3"), Err(Error::Counter(Crashed)));
    assert_eq!(open(&old, &ledger).err(), Some(Error::Forked { number: 2 }));
    assert!(open(&files, &ledger).is_ok());
    let old = Memory::with(history().0[1].clone());
    assert_eq!(open(&old, &ledger).err(), Some(Error::RolledBack { store: 1, counter: 2 }));
    // who does not count cannot know
    assert!(open(&old, NoCounter).is_ok());
    // a counter that was turned back, or of another store
    assert_eq!(open(&files, &Ledger::new()).err(), Some(Error::NotCounted { store: 2, counter: 0 }));
}

#[test]
fn what_is_written_tells_nothing() {
    let files = Memory::new();
    let mut store = create(&files, NoCounter);
    store.put(b"a key to be found", b"a value to be found").unwrap();
    store.put(b"a key to be found", b"a value to be found").unwrap();
    let all = files.contents().concat();
    let has = |text: &[u8]| all.windows(text.len()).any(|window| window == text);
    assert!(!has(b"key to b") && !has(b"value to") && !has(&[7; 8]));
    // not even that both are the same
    let log = &files.contents()[2];
    let (one, other) = log.split_at(log.len() / 2);
    assert!(one[4..].iter().zip(&other[4..]).filter(|(a, b)| a == b).count() < 10);
}
