//! Against a plain array.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Read {
        page: u32,
        offset: usize,
        len: usize,
    },
    Write {
        page: u32,
        offset: usize,
        len: usize,
        seed: u8,
    },
    Zero {
        page: u32,
    },
    Discard {
        page: u32,
    },
    /// A processor fills and writes through the address.
    Fill {
        page: u32,
        cpu: usize,
        offset: usize,
        value: u64,
    },
    /// A processor writes through an address it still has.
    Poke {
        page: u32,
        cpu: usize,
        offset: usize,
        value: u64,
    },
    Begin,
    /// A processor looks, drops and acknowledges.
    Look {
        cpu: usize,
    },
    Finish,
}

const PAGES: u32 = 300;
const CPUS: usize = 2;

fn step() -> impl Strategy<Value = Step> {
    let page = || prop_oneof![0..24u32, 0..PAGES];
    let range = || (0..PAGE, 0..=PAGE).prop_map(|(offset, len)| (offset, len.min(PAGE - offset)));
    let word = || 0..PAGE - 8;
    prop_oneof![
        3 => (page(), range()).prop_map(|(page, (offset, len))| Step::Read { page, offset, len }),
        3 => (page(), range(), any::<u8>())
            .prop_map(|(page, (offset, len), seed)| Step::Write { page, offset, len, seed }),
        1 => page().prop_map(|page| Step::Zero { page }),
        1 => page().prop_map(|page| Step::Discard { page }),
        8 => (page(), 0..CPUS, word(), any::<u64>())
            .prop_map(|(page, cpu, offset, value)| Step::Fill { page, cpu, offset, value }),
        8 => (page(), 0..CPUS, word(), any::<u64>())
            .prop_map(|(page, cpu, offset, value)| Step::Poke { page, cpu, offset, value }),
        2 => Just(Step::Begin),
        3 => (0..CPUS).prop_map(|cpu| Step::Look { cpu }),
        3 => Just(Step::Finish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn behaves_as_an_array(steps in proptest::collection::vec(step(), 1..400)) {
        let dram = Dram::new(PAGES, Config { cache_pages: 16, processors: CPUS, tree_nodes: 1 }).unwrap();
        let mut model = vec![vec![0u8; PAGE]; PAGES as usize];
        let mut tlbs = vec![std::collections::HashMap::<u32, *mut u8>::new(); CPUS];
        for step in steps {
            match step {
                Step::Read { page, offset, len } => {
                    let mut data = vec![0xee; len];
                    dram.read(page, offset, &mut data).unwrap();
                    prop_assert_eq!(&data, &model[page as usize][offset..offset + len]);
                }
                Step::Write { page, offset, len, seed } => {
                    let data: Vec<u8> = (0..len).map(|i| seed.wrapping_add(i as u8)).collect();
                    dram.write(page, offset, &data).unwrap();
                    model[page as usize][offset..offset + len].copy_from_slice(&data);
                }
                Step::Zero { page } => {
                    dram.zero(page).unwrap();
                    model[page as usize].fill(0);
                }
                Step::Discard { page } => {
                    dram.discard(page).unwrap();
                    model[page as usize].fill(0);
                    // A page is discarded when no processor uses it.
                    for tlb in &mut tlbs {
                        tlb.remove(&page);
                    }
                }
                Step::Fill { page, cpu, offset, value } => {
                    if let Some(at) = dram.fill(page, cpu).unwrap() {
                        prop_assert!(!dram.is_leaving(at));
                        prop_assert!(dram.plaintext_range().contains(&(at as usize + PAGE - 1)));
                        tlbs[cpu].insert(page, at);
                        store(at, offset, value);
                        model[page as usize][offset..offset + 8].copy_from_slice(&value.to_le_bytes());
                    } else {
                        prop_assert!(dram.want_evict() || dram.stats().slots_leaving > 0);
                    }
                }
                Step::Poke { page, cpu, offset, value } => {
                    if let Some(at) = tlbs[cpu].get(&page) {
                        store(*at, offset, value);
                        model[page as usize][offset..offset + 8].copy_from_slice(&value.to_le_bytes());
                    }
                }
                Step::Begin => {
                    let wanted = dram.want_evict();
                    prop_assert_eq!(dram.begin_evict().is_some(), wanted);
                }
                Step::Look { cpu } => {
                    let epoch = dram.epoch();
                    tlbs[cpu].retain(|_, at| !dram.is_leaving(*at));
                    dram.acknowledge(cpu, epoch);
                }
                Step::Finish => {
                    dram.finish_evict(|_| false).unwrap();
                }
            }
        }
        for page in 0..PAGES {
            prop_assert_eq!(&read(&dram, page), &model[page as usize], "page {}", page);
        }
        prop_assert!(!dram.is_lost());
    }
}

#[test]
fn zero_and_discard() {
    let dram = dram(64, 16, 1);
    for held in [false, true] {
        for (page, discard) in [(1, false), (2, true)] {
            dram.write(page, 0, &pattern(9)).unwrap();
            let at = if held { dram.fill(page, 0).unwrap() } else { None };
            if discard {
                dram.discard(page).unwrap()
            } else {
                dram.zero(page).unwrap()
            }
            if let Some(at) = at {
                assert_eq!(load(at, 8), 0);
                // Coherent for a holder, who may still have it.
                assert_eq!(dram.fill(page, 0).unwrap(), Some(at));
            }
            assert_eq!(read(&dram, page), vec![0; PAGE]);
            dram.write(page, 4095, &[1]).unwrap();
            assert_eq!(read(&dram, page)[4090..], [0, 0, 0, 0, 0, 1]);
        }
    }
}

#[test]
fn discarded_pages_are_not_written_back() {
    let dram = dram(64, 16, 1);
    for page in 0..16 {
        dram.fill(page, 0).unwrap().unwrap();
    }
    for page in 0..16 {
        dram.discard(page).unwrap();
        dram.discard(page).unwrap();
    }
    evict_all(&dram);
    let stats = dram.stats();
    assert_eq!((stats.write_backs, stats.dram_bytes), (0, 0));
    assert!(stats.slots_used < 16);
    assert_eq!(read(&dram, 3), vec![0; PAGE]);
}

/// A stale address of a discarded page never reaches another page.
#[test]
fn a_discarded_slot_waits_for_its_holders() {
    let dram = dram(64, 16, 1);
    let stale = dram.fill(5, 0).unwrap().unwrap();
    dram.discard(5).unwrap();
    for page in 10..60 {
        dram.write(page, 0, &pattern(page.into())).unwrap();
    }
    store(stale, 0, u64::MAX);
    for page in 10..60 {
        assert_eq!(read(&dram, page), pattern(page.into()));
    }
    assert_eq!(read(&dram, 5), vec![0; PAGE]);
}

#[test]
fn works_without_a_free_slot() {
    let dram = dram(64, 16, 1);
    for page in 0..16 {
        dram.fill(page, 0).unwrap().unwrap();
    }
    assert_eq!(dram.fill(16, 0), Ok(None));
    assert!(dram.want_evict());
    for page in 16..64 {
        assert_eq!(read(&dram, page), vec![0; PAGE]);
        dram.write(page, 0, &pattern(page.into())).unwrap();
        dram.write(page, 100, &[7; 3]).unwrap();
    }
    for page in 16..64 {
        let mut expected = pattern(page.into());
        expected[100..103].fill(7);
        assert_eq!(read(&dram, page), expected);
    }
    assert!(dram.stats().uncached > 0);
}

#[test]
fn dram_never_holds_plaintext() {
    let dram = dram(256, 16, 1);
    for page in 0..256 {
        dram.write(page, 0, &pattern(page.into())).unwrap();
        let at = dram.fill(page, 0).unwrap().unwrap();
        store(at, 0, 0x1122_3344_5566_7788);
        evict_all(&dram);
    }
    assert!(dram.stats().write_backs >= 240);
    for page in [0, 100, 239] {
        let plain = pattern(page);
        for at in [8, 1000, PAGE - 16] {
            let (searched, found) = dram.search_dram(&plain[at..at + 16]);
            assert!(!found);
            assert!(searched >= 240 * PAGE as u64, "{searched}");
        }
    }
    // The search does find what is there.
    let control: [u8; 16] = *b"planted control!";
    let at = {
        let mut state = dram.lock();
        let at = state.memory.page(3) + PAGE - 8;
        state.memory.store(at, &control);
        at
    };
    assert!(dram.search_dram(&control).1, "{at}");
}

#[test]
fn impossible_sizes_are_refused() {
    use crate::{MAX_PAGES, MeeError};
    let new = |pages, cache, processors| Dram::new(pages, Config::new(cache, processors)).err();
    assert!(matches!(new(0, 64, 1), Some(MeeError::Pages(0))));
    assert!(matches!(new(MAX_PAGES + 1, 64, 1), Some(MeeError::Pages(_))));
    assert!(matches!(new(64, 15, 1), Some(MeeError::Cache { min: 16, .. })));
    assert!(matches!(new(64, 63, 8), Some(MeeError::Cache { min: 64, .. })));
    assert!(matches!(new(64, u32::MAX, 8), Some(MeeError::Cache { .. })));
    assert!(matches!(new(64, 64, usize::MAX), Some(MeeError::Cache { .. })));
}
