//! Cost follows what is touched; and, on request, speed.

use super::*;
use crate::MAX_PAGES;

/// Memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn the_largest_epc_takes_what_is_touched() {
    let before = resident();
    let dram = dram(MAX_PAGES, 64, 8);
    let step = MAX_PAGES / 512;
    for page in (0..MAX_PAGES).step_by(step as usize) {
        dram.write(page, 0, &pattern(page.into())).unwrap();
    }
    for page in (0..MAX_PAGES).step_by(step as usize) {
        assert_eq!(read(&dram, page), pattern(page.into()));
    }
    assert_eq!(read(&dram, MAX_PAGES - 1), vec![0; PAGE]);
    let taken = resident().saturating_sub(before);
    // 512 pages, each with a page of codes and one or two of each tree level.
    assert!(taken < 64 << 20, "{taken} bytes");
    let stats = dram.stats();
    assert!(stats.dram_bytes < 16 << 20, "{stats:?}");
    assert!(stats.dram_bytes > 400 * 4096, "{stats:?}");
    dram.reset().unwrap();
    assert_eq!(read(&dram, step), vec![0; PAGE]);
}

/// `cargo test --release -p mee speed -- --ignored --nocapture`
#[test]
#[ignore = "prints times; asserts nothing"]
fn speed() {
    let time = |what: &str, count: u32, f: &mut dyn FnMut()| {
        let start = std::time::Instant::now();
        f();
        println!("{what}: {:?} each", start.elapsed() / count);
    };
    let mut cipher = crate::cipher::Cipher::new().unwrap();
    let mut page = pattern(1);
    time("encrypt a page", 20_000, &mut || {
        for version in 1..=20_000 {
            cipher.seal(1, version, &mut page);
        }
    });
    let node = [0u8; 512];
    time("code of a tree node", 20_000, &mut || {
        for counter in 1..=20_000 {
            std::hint::black_box(cipher.node_code(0, 1, counter, &node));
        }
    });
    const PAGES: u32 = 51_200;
    let dram = dram(PAGES, 4096, 1);
    for round in ["first", "next"] {
        time(&format!("write back one page and bring in another, {round} time"), PAGES, &mut || {
            for page in 0..PAGES {
                dram.write(page, 0, &[1; 8]).unwrap();
            }
        });
    }
    time("access in the cache", 100_000, &mut || {
        for _ in 0..100_000 {
            dram.write(PAGES - 1, 0, &[1; 8]).unwrap();
        }
    });
    println!("{:?}", dram.stats());
}
