//! Processors writing through addresses while slots come and go.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;

const CPUS: usize = 4;
const PAGES: u32 = 600;

/// One guest processor: its translations, and what it last wrote where.
struct Cpu<'a> {
    dram: &'a Dram,
    number: usize,
    seen: u64,
    tlb: HashMap<u32, *mut u8>,
    model: HashMap<u32, u64>,
    random: u64,
    starved: u64,
}

impl Cpu<'_> {
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// What a processor does between instructions.
    fn boundary(&mut self) {
        if self.dram.want_evict() {
            self.dram.begin_evict();
        }
        let epoch = self.dram.epoch();
        if epoch != self.seen {
            self.tlb.retain(|_, at| !self.dram.is_leaving(*at));
            self.dram.acknowledge(self.number, epoch);
            self.seen = epoch;
        }
        self.dram.finish_evict(|_| false).unwrap();
    }

    fn address(&mut self, page: u32) -> *mut u8 {
        loop {
            if let Some(at) = self.tlb.get(&page) {
                return *at;
            }
            match self.dram.fill(page, self.number).unwrap() {
                Some(at) => {
                    self.tlb.insert(page, at);
                }
                None => {
                    self.starved += 1;
                    self.boundary();
                    std::thread::yield_now();
                }
            }
        }
    }

    fn run(&mut self, steps: u32) {
        let offset = 64 * self.number;
        for step in 0..steps {
            let random = self.random();
            let page = (random % u64::from(PAGES)) as u32;
            let expected = *self.model.get(&page).unwrap_or(&0);
            if random >> 60 == 0 {
                // A leaf works on the page.
                let mut found = [0; 8];
                self.dram.read(page, offset, &mut found).unwrap();
                assert_eq!(u64::from_le_bytes(found), expected, "step {step}, page {page}");
                self.dram.write(page, offset, &random.to_le_bytes()).unwrap();
            } else {
                let at = self.address(page);
                assert_eq!(load(at, offset), expected, "step {step}, page {page}");
                store(at, offset, random);
            }
            self.model.insert(page, random);
            if random >> 32 & 3 == 0 {
                self.boundary();
            }
        }
    }
}

/// Gone, at its end or in a panic: the others must not wait for it.
impl Drop for Cpu<'_> {
    fn drop(&mut self) {
        self.dram.acknowledge(self.number, u64::MAX);
    }
}

#[test]
fn nothing_written_is_lost() {
    let dram = dram(PAGES, 64, CPUS);
    let starved = AtomicUsize::new(0);
    let models: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CPUS)
            .map(|number| {
                let (dram, starved) = (&dram, &starved);
                scope.spawn(move || {
                    let random = 0x1234_5678_9abc_def1 * (number as u64 + 1);
                    let (tlb, model) = (HashMap::new(), HashMap::new());
                    let mut cpu = Cpu { dram, number, seen: 0, tlb, model, random, starved: 0 };
                    cpu.run(20_000);
                    starved.fetch_add(cpu.starved as usize, Ordering::Relaxed);
                    std::mem::take(&mut cpu.model)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let stats = dram.stats();
    assert!(stats.write_backs > 1000 && stats.rescues > 0, "{stats:?}");
    for (number, model) in models.into_iter().enumerate() {
        for (page, value) in model {
            let mut found = [0; 8];
            dram.read(page, 64 * number, &mut found).unwrap();
            assert_eq!(u64::from_le_bytes(found), value, "processor {number}, page {page}");
        }
    }
    println!("{stats:?}, starved {}", starved.into_inner());
}

/// Makes a held page leave.
fn leave(dram: &Dram, page: u32) -> u64 {
    let begin = |state: &mut crate::state::State| {
        let slot = state.table.get(page).unwrap();
        Ok(dram.begin_evict_slot(state, slot))
    };
    dram.with(begin).unwrap().unwrap()
}

#[test]
fn a_slot_waits_for_all_its_holders_and_no_others() {
    let dram = dram(64, 32, 3);
    let at = dram.fill(1, 0).unwrap().unwrap();
    assert_eq!(dram.fill(1, 2).unwrap(), Some(at));
    let epoch = leave(&dram, 1);
    assert_eq!(dram.epoch(), epoch);
    assert!(dram.is_leaving(at) && !dram.is_leaving(std::ptr::null()));
    for (cpu, freed) in [(1, 0), (0, 0), (2, 1)] {
        dram.acknowledge(cpu, epoch);
        assert_eq!(dram.finish_evict(|_| false), Ok(freed));
    }
    assert!(!dram.is_leaving(at));
}

/// Sixteen held slots, of which some leave at the epoch returned.
fn leaving() -> (Dram, u64, u32, *mut u8) {
    let dram = dram(64, 16, 2);
    let held: Vec<_> = (0..16).map(|page| (page, dram.fill(page, 0).unwrap().unwrap())).collect();
    let epoch = dram.begin_evict().unwrap();
    let (page, at) = *held.iter().find(|(_, at)| dram.is_leaving(*at)).unwrap();
    (dram, epoch, page, at)
}

#[test]
fn a_fill_rescues() {
    let (dram, epoch, page, at) = leaving();
    dram.acknowledge(0, epoch);
    assert_eq!(dram.fill(page, 1), Ok(Some(at)));
    assert!(!dram.is_leaving(at));
    store(at, 0, 99);
    assert!(dram.finish_evict(|_| false).unwrap() > 0);
    assert_eq!(dram.lock().table.get(page).map(|slot| dram.slots.address(slot)), Some(at));
    assert_eq!(load(at, 0), 99);
    assert_eq!(dram.stats().rescues, 1);
}

/// What was acknowledged at one epoch does not count for a later one.
#[test]
fn rescued_and_chosen_again() {
    let (dram, first, page, at) = leaving();
    dram.acknowledge(0, first);
    assert_eq!(dram.fill(page, 0), Ok(Some(at)));
    assert!(dram.finish_evict(|_| false).unwrap() > 0);
    let second = leave(&dram, page);
    assert!(second > first);
    store(at, 0, 7);
    assert_eq!(dram.finish_evict(|_| false), Ok(0));
    assert_eq!(dram.finish_evict(|epoch| epoch < second), Ok(0));
    store(at, 8, 8);
    dram.acknowledge(0, second);
    assert_eq!(dram.finish_evict(|_| false), Ok(1));
    assert_eq!(read(&dram, page)[..9], [7, 0, 0, 0, 0, 0, 0, 0, 8]);
}

#[test]
fn batches_stop_when_enough_is_on_its_way() {
    let (dram, ..) = leaving();
    assert!(!dram.want_evict());
    assert_eq!(dram.begin_evict(), None);
    let leaving = dram.stats().slots_leaving;
    assert_eq!(leaving, 8);
    assert_eq!(dram.finish_evict(|_| true), Ok(leaving));
    assert_eq!(dram.stats().slots_used, 16 - leaving);
}

#[test]
fn reset_with_batches_pending() {
    let (dram, epoch, page, at) = leaving();
    dram.reset().unwrap();
    assert!(!dram.is_leaving(at));
    assert!(dram.epoch() >= epoch);
    assert_eq!(dram.finish_evict(|_| true), Ok(0));
    let stats = dram.stats();
    assert_eq!((stats.slots_used, stats.slots_leaving), (0, 0));
    let at = dram.fill(page, 0).unwrap().unwrap();
    assert_eq!(load(at, 0), 0);
}
