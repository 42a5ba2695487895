//! A payroll of people who do not exist.

use std::io::{BufWriter, Write, stdout};

use payroll_interface::record::HEADER;

use crate::Failure;

/// Groups, and what is paid in them at least.
const GROUPS: [(&str, u64); 5] =
    [("nurse", 2900), ("cook", 2300), ("porter", 2100), ("surgeon", 7800), ("clerk", 2600)];

/// Prints one record for each of so many people; the same seed gives the same.
pub(crate) fn print(people: u64, seed: u64) -> Result<(), Failure> {
    let mut out = BufWriter::new(stdout().lock());
    writeln!(out, "{HEADER}")?;
    let mut state = seed;
    // Vigna, *splitmix64*
    let mut random = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    for _ in 0..people {
        let (group, least) = GROUPS[(random() % 20).min(GROUPS.len() as u64 - 1) as usize];
        let cents = least * 100 + random() % (least * 40);
        writeln!(out, "{:016x},{group},{}.{:02}", random(), cents / 100, cents % 100)?;
    }
    out.flush()?;
    Ok(())
}
