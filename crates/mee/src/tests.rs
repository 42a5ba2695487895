//! Tests of the engine as a whole.

mod drills;
mod model;
mod processors;
mod sparse;

use crate::{Config, Dram, PAGE};

fn dram(pages: u32, cache: u32, processors: usize) -> Dram {
    Dram::new(pages, Config::new(cache, processors)).unwrap()
}

/// A page whose every 16-byte window is its own.
fn pattern(seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..PAGE / 8)
        .flat_map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_le_bytes()
        })
        .collect()
}

fn read(dram: &Dram, page: u32) -> Vec<u8> {
    let mut data = vec![0xee; PAGE];
    dram.read(page, 0, &mut data).unwrap();
    data
}

/// Reads 8 bytes as a guest processor does.
fn load(at: *const u8, offset: usize) -> u64 {
    assert!(offset <= PAGE - 8);
    // SAFETY: inside a slot, whose memory is mapped as long as the engine.
    unsafe { mem::raw::Width::load(at.add(offset)) }
}

/// Writes 8 bytes likewise.
fn store(at: *mut u8, offset: usize, value: u64) {
    assert!(offset <= PAGE - 8);
    // SAFETY: inside a slot, whose memory is mapped as long as the engine.
    unsafe { mem::raw::Width::store(at.add(offset), value) }
}

/// Evicts everything held, all processors being idle.
fn evict_all(dram: &Dram) {
    while dram.begin_evict().is_some() {
        dram.finish_evict(|_| true).unwrap();
    }
}
