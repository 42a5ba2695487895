//! Attacks on DRAM, losses and resets.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::*;
use crate::{Drill, Loss, Lost, TamperError};

/// A DRAM with something everywhere, and no page in the cache held.
fn full() -> Dram {
    let dram = dram(200, 16, 1);
    for page in 0..200 {
        dram.write(page, 0, &pattern(page.into())).unwrap();
    }
    dram
}

#[test]
fn every_drill_is_found_at_the_next_fetch() {
    for drill in Drill::ALL {
        for page in [0, 77, 199] {
            for by_fill in [false, true] {
                let dram = full();
                let calls = Arc::new(AtomicU32::new(0));
                let counter = calls.clone();
                dram.on_loss(move |_| {
                    counter.fetch_add(1, Ordering::Relaxed);
                });
                let report = dram.tamper(drill, page).unwrap();
                assert_eq!((report.drill, report.page), (drill, page));
                assert!(!dram.is_lost());
                let result =
                    if by_fill { dram.fill(page, 0).map(|_| ()) } else { dram.read(page, 0, &mut [0; 8]) };
                assert_eq!(result, Err(Lost), "{report}");
                assert!(dram.is_lost());
                let loss = dram.loss().unwrap();
                match drill {
                    Drill::Flip | Drill::Move => assert_eq!(loss, Loss::Page { page }),
                    Drill::Replay | Drill::Tree => {
                        assert_eq!(loss, Loss::Node { level: 0, index: page / 64 });
                    }
                }
                assert_eq!(calls.load(Ordering::Relaxed), 1);
                lost_until_reset(&dram);
                assert_eq!(calls.load(Ordering::Relaxed), 1);
            }
        }
    }
}

fn lost_until_reset(dram: &Dram) {
    assert_eq!(dram.read(3, 0, &mut [0; 8]), Err(Lost));
    assert_eq!(dram.write(3, 0, &[0; 8]), Err(Lost));
    assert_eq!(dram.zero(3), Err(Lost));
    assert_eq!(dram.discard(3), Err(Lost));
    assert_eq!(dram.fill(3, 0), Err(Lost));
    assert_eq!(dram.tamper(Drill::Flip, 3), Err(TamperError::Lost(Lost)));
    assert!(!dram.want_evict());
    assert_eq!(dram.begin_evict(), None);
    dram.reset().unwrap();
    assert!(!dram.is_lost() && dram.loss().is_none());
    for page in [0, 3, 77, 199] {
        assert_eq!(read(dram, page), vec![0; PAGE]);
    }
    dram.write(3, 0, &pattern(1)).unwrap();
    assert_eq!(read(dram, 3), pattern(1));
}

/// The drills can fail: with verification off, no lock.
#[test]
fn without_checks_nothing_is_found() {
    for drill in Drill::ALL {
        let dram = full();
        dram.disable_checks();
        dram.tamper(drill, 77).unwrap();
        let data = read(&dram, 77);
        assert!(!dram.is_lost(), "{drill}");
        match drill {
            // Counter mode: one bit of ciphertext is one of plaintext.
            Drill::Flip => {
                let wrong = data.iter().zip(pattern(77)).filter(|(a, b)| **a != *b).count();
                assert_eq!(wrong, 1);
            }
            Drill::Move | Drill::Tree => assert_ne!(data, pattern(77)),
            // The same content under an older version.
            Drill::Replay => assert_eq!(data, pattern(77)),
        }
    }
    let dram = full();
    dram.disable_checks();
    let old = dram.record(77).unwrap();
    dram.write(77, 0, &pattern(1077)).unwrap();
    dram.replay(&old).unwrap();
    assert_eq!(read(&dram, 77), pattern(77), "the old content is believed");
}

#[test]
fn a_recorded_state_is_refused() {
    let dram = full();
    let old = dram.record(77).unwrap();
    assert_eq!(old.page(), 77);
    dram.write(77, 0, &pattern(1077)).unwrap();
    let newer = dram.record(77).unwrap();
    assert!(newer.version() > old.version());
    dram.replay(&old).unwrap();
    assert_eq!(dram.read(77, 0, &mut [0; 8]), Err(Lost));
    dram.reset().unwrap();
    assert_eq!(dram.replay(&old), Err(TamperError::Stale));
}

/// Back to "never written" is a replay too.
#[test]
fn an_empty_state_is_refused() {
    for discarded in [false, true] {
        let dram = dram(200, 16, 1);
        if discarded {
            dram.write(77, 0, &pattern(3)).unwrap();
            dram.tamper(Drill::Flip, 78).unwrap();
            dram.discard(77).unwrap();
        }
        {
            let mut state = dram.lock();
            state.flush_nodes(77).unwrap();
            state.word(77).unwrap();
            state.flush_nodes(77).unwrap();
        }
        let at = dram.lock().memory.node(0, 1);
        let mut empty = vec![0; crate::memory::NODE];
        dram.lock().memory.fetch(at, &mut empty);
        dram.write(77, 0, &pattern(77)).unwrap();
        dram.record(77).unwrap();
        dram.lock().memory.store(at, &empty);
        assert_eq!(dram.read(77, 0, &mut [0; 8]), Err(Lost));
        assert_eq!(dram.loss(), Some(Loss::Node { level: 0, index: 1 }));
    }
}

#[test]
fn every_bit_of_a_page_and_its_code_counts() {
    let dram = full();
    let mut data = vec![0; PAGE];
    for bit in (0..(PAGE + 16) * 8).step_by(997) {
        dram.record(77).unwrap();
        {
            let mut state = dram.lock();
            let byte = bit / 8;
            let at =
                if byte < PAGE { state.memory.page(77) + byte } else { state.memory.tag(77) + byte - PAGE };
            let mut value = [0];
            state.memory.fetch(at, &mut value);
            state.memory.store(at, &[value[0] ^ 1 << (bit % 8)]);
        }
        assert_eq!(dram.read(77, 0, &mut data), Err(Lost), "bit {bit}");
        dram.reset().unwrap();
        dram.write(77, 0, &pattern(77)).unwrap();
    }
}

#[test]
fn a_page_in_use_leaves_first() {
    let dram = full();
    let at = dram.fill(77, 0).unwrap().unwrap();
    store(at, 0, 4711);
    let Err(TamperError::InUse { epoch }) = dram.tamper(Drill::Flip, 77) else { panic!("not in use") };
    assert!(dram.is_leaving(at));
    assert_eq!(dram.tamper(Drill::Flip, 77), Err(TamperError::InUse { epoch }));
    assert_eq!(dram.finish_evict(|_| false), Ok(0));
    store(at, 8, 4712);
    dram.acknowledge(0, epoch);
    assert_eq!(dram.finish_evict(|_| false), Ok(1));
    assert_eq!(read(&dram, 77)[..9], [0x67, 0x12, 0, 0, 0, 0, 0, 0, 0x68]);
    dram.tamper(Drill::Flip, 77).unwrap();
    assert_eq!(dram.fill(77, 0), Err(Lost));
}

#[test]
fn drills_on_empty_and_lonely_pages() {
    for drill in Drill::ALL {
        let dram = dram(200, 16, 1);
        dram.tamper(drill, 5).unwrap();
        assert_eq!(dram.read(5, 0, &mut [0; 8]), Err(Lost), "{drill}");
    }
    let dram = dram(200, 16, 1);
    assert_eq!(dram.tamper(Drill::Flip, 200), Err(TamperError::NoPage { page: 200, pages: 200 }));
    assert!("flop".parse::<Drill>().is_err());
    assert_eq!("replay".parse(), Ok(Drill::Replay));
}

#[test]
fn a_power_transition_loses_everything() {
    let dram = full();
    let calls = Arc::new(AtomicU32::new(0));
    let counter = calls.clone();
    dram.on_loss(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let (second, counter) = (Arc::new(AtomicU32::new(0)), calls.clone());
    let last = second.clone();
    dram.on_loss(move |_| last.store(counter.load(Ordering::Relaxed), Ordering::Relaxed));
    let at = dram.fill(1, 0).unwrap().unwrap();
    assert_ne!(load(at, 0), 0);
    dram.lose();
    dram.lose();
    assert_eq!(load(at, 0), 0, "plaintext is wiped, its address stays good");
    assert_eq!(dram.loss(), Some(Loss::Power));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    lost_until_reset(&dram);
    dram.lose();
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert_eq!(second.load(Ordering::Relaxed), 2, "called in order");
}

/// A loss found while a batch is written back.
#[test]
fn tampered_nodes_are_found_when_written_through() {
    let dram = full();
    let mut held = 0;
    for page in 0..16 {
        held += usize::from(dram.fill(page, 0).unwrap().is_some());
    }
    assert_eq!(held, 16);
    // Page 100's node is in DRAM and changed there; nothing has looked yet.
    {
        let mut state = dram.lock();
        state.flush_nodes(0).unwrap();
        let at = state.memory.node(0, 0);
        state.memory.store(at, &[0xff; 8]);
    }
    dram.begin_evict().unwrap();
    assert_eq!(dram.finish_evict(|_| true), Err(Lost));
    assert_eq!(dram.loss(), Some(Loss::Node { level: 0, index: 0 }));
}

#[test]
fn keys_change_at_each_reset() {
    let dram = dram(200, 16, 1);
    let mut seen = Vec::new();
    for _ in 0..3 {
        dram.write(7, 0, &pattern(7)).unwrap();
        dram.record(7).unwrap();
        let state = dram.lock();
        let mut data = vec![0; PAGE];
        state.memory.fetch(state.memory.page(7), &mut data);
        drop(state);
        assert!(!seen.contains(&data));
        seen.push(data);
        dram.reset().unwrap();
        assert_eq!(dram.stats().dram_bytes, 0);
    }
}
