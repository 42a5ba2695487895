//! The machine and the model agree.

use sgxfuzz::{Counts, Fuzz};

#[test]
fn a_hostile_kernel_sees_what_the_model_says() {
    let mut total = Counts::default();
    for seed in 0..60 {
        match Fuzz::run(seed, 4000) {
            Ok(counts) => total.add(&counts),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{total:?}");
}

#[test]
fn a_run_depends_on_its_seed_only() {
    let run = |seed| format!("{:?}", Fuzz::run(seed, 2000).expect("it agrees with the model"));
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}
