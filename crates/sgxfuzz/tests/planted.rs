//! The fuzzer proves itself: it finds each planted bug, and nothing where none is.

use sgxfuzz::Fuzz;
use sgxfuzz::planted::{BUGS, find, name};

/// Runs of one bug, and steps of each.
const SEEDS: u64 = 100;
const STEPS: u64 = 4000;

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for &bug in BUGS {
        match find(bug, SEEDS, STEPS) {
            Some(failure) => {
                let (seed, step) = (failure.seed, failure.step);
                let without = Fuzz::run(seed, step + 1).err();
                assert!(without.is_none(), "found without the bug, too: {}", without.unwrap());
                println!("{:<28} seed {seed:>2} step {step:>4}: {}", name(bug), failure.message);
            }
            None => missed.push(name(bug)),
        }
    }
    assert!(missed.is_empty(), "planted and not found: {missed:?}");
}
