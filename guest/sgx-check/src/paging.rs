//! An enclave larger than the EPC: random content, verified from inside.

use crate::driver::{Enclave, heap_page};
use crate::image::{Op, at};
use crate::step;
use crate::vdso::Enter;

/// Loads `mib` MiB of random content and has the enclave add it up twice.
pub fn run(enter: Enter, mib: u64) -> Result<(), String> {
    let bytes = mib << 20;
    let size = (at::HEAP + bytes).next_power_of_two();
    let mut random = std::fs::File::open("/dev/urandom").map_err(|e| e.to_string())?;
    let (mut sum, mut failed) = (0u64, None);
    let pages = (0..bytes >> 12).map(|i| {
        let mut page = Box::new([0u8; 4096]);
        if let Err(e) = std::io::Read::read_exact(&mut random, &mut page[..]) {
            failed = Some(e.to_string());
        }
        for word in page.chunks_exact(8) {
            let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
            sum = sum.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(word);
        }
        if i & 0xfff == 0xfff {
            println!("{} MiB loaded", (i + 1) >> 8);
        }
        heap_page(at::HEAP + (i << 12), page)
    });
    let mut e = Enclave::load(enter, size, 0, pages).map_err(|e| format!("load: {e}"))?;
    if let Some(failed) = failed {
        return Err(failed);
    }
    e.map(at::HEAP, bytes, libc::PROT_READ | libc::PROT_WRITE).map_err(|e| format!("map: {e}"))?;
    let heap = e.base + at::HEAP;
    for pass in ["first", "second"] {
        let seen = e.call(Op::Sum, [heap, bytes / 8, 0, 0]).map_err(|f| format!("sum: fault {f:x?}"))?;
        step(&format!("{mib} MiB verified, {pass} time"), seen, sum)?;
    }
    Ok(())
}
