//! What enclaves cost, in nanoseconds by the guest's clock and as multiples of
//! a null system call in the same guest.

use std::time::Instant;

use crate::driver::{Enclave, heap_page};
use crate::image::{self, Op, at};
use crate::step;
use crate::vdso::Enter;

const SIZE: u64 = 1 << 26;
const EREPORT: u64 = 0;
const EGETKEY: u64 = 1;
/// Quadwords of the working set of the CPU-bound measurement: 1 MiB.
const WORDS: u64 = 1 << 17;

fn time(rounds: u32, mut f: impl FnMut() -> Result<(), String>) -> Result<f64, String> {
    let start = Instant::now();
    for _ in 0..rounds {
        f()?;
    }
    Ok(start.elapsed().as_nanos() as f64 / f64::from(rounds))
}

/// Measures and prints a line each: `name nanoseconds multiple`.
pub fn run(enter: Enter) -> Result<(), String> {
    let pages = (0..WORDS * 8 / 4096 + 4).map(|i| heap_page(at::HEAP + i * 4096, Box::new([0; 4096])));
    let mut e = Enclave::load(enter, SIZE, 0, pages).map_err(|e| format!("load: {e}"))?;
    let len = WORDS * 8 + 4 * 4096;
    e.map(at::HEAP, len, libc::PROT_READ | libc::PROT_WRITE).map_err(|e| format!("map: {e}"))?;
    let heap = e.base + at::HEAP;

    let null = null_call()?;
    let report = |name: &str, ns: f64| println!("bench {name} {ns:.0} {:.2}", ns / null);
    report("null-system-call", null);

    let call = time(5000, || e.call(Op::Get, [heap, 0, 0, 0]).map(drop).map_err(|f| format!("{f:x?}")))?;
    report("eenter-eexit", call);

    // A fault and its way back: AEX, the kernel, the vDSO, EENTER of the handler, ERESUME.
    let fault = time(1000, || {
        e.call(Op::Fault, [0; 4]).expect_err("UD2 faults");
        e.step_over(2).map_err(|f| format!("{f:x?}"))?;
        e.resume().map(drop).map_err(|f| format!("{f:x?}"))
    })?;
    report("fault-aex-handler-eresume", fault);

    // Leaves that stay inside: KEYREQUEST at the heap (SEAL, by MRENCLAVE), TARGETINFO and data zero.
    e.call(Op::Put, [heap, 4 | 1 << 16, 0, 0]).map_err(|f| format!("{f:x?}"))?;
    const INSIDE: u64 = 2000;
    for (name, leaf, b, c, d) in [
        ("egetkey", EGETKEY, heap, heap + 0x1000, 0),
        ("ereport", EREPORT, heap + 0x2000, heap + 0x2200, heap + 0x3000),
    ] {
        let start = Instant::now();
        *e.exchange = [Op::Repeat as u64, leaf, b, c, d, INSIDE];
        let rax = e.repeat().map_err(|f| format!("{name}: {f:x?}"))?;
        let _ = rax;
        report(name, start.elapsed().as_nanos() as f64 / INSIDE as f64);
    }

    // The same code on the same amount of memory, inside and outside.
    let outside = vec![0u64; WORDS as usize];
    let function = executable_copy()?;
    let mut best = [f64::MAX; 2];
    for _ in 0..5 {
        let inside = time(1, || {
            let sum = e.call(Op::Sum, [heap + 0x4000, WORDS, 0, 0]).map_err(|f| format!("{f:x?}"))?;
            step("sum inside", sum, 0)
        })?;
        let out = time(1, || step("sum outside", sum(function, &outside), 0))?;
        best = [best[0].min(inside), best[1].min(out)];
    }
    report("sum-1MiB-inside", best[0]);
    report("sum-1MiB-outside", best[1]);
    println!("bench inside-over-outside {:.3}", best[0] / best[1]);
    Ok(())
}

/// What going through `mib` MiB costs, in nanoseconds for each page, inside an
/// enclave and outside: beyond the EPC it is the kernel's paging (a fault, EWB and
/// ELDU for each page), beyond the plaintext cache the processor's encryption.
pub fn large(enter: Enter, mib: u64) -> Result<(), String> {
    let pages = mib << 8;
    let content = (0..pages).map(|i| heap_page(at::HEAP + (i << 12), Box::new([0; 4096])));
    let size = (at::HEAP + (pages << 12)).next_power_of_two();
    let mut e = Enclave::load(enter, size, 0, content).map_err(|e| format!("load: {e}"))?;
    e.map(at::HEAP, pages << 12, libc::PROT_READ | libc::PROT_WRITE).map_err(|e| format!("map: {e}"))?;
    let (heap, words) = (e.base + at::HEAP, pages * 512);
    let inside = |e: &mut Enclave| {
        time(1, || {
            let sum = e.call(Op::Sum, [heap, words, 0, 0]).map_err(|f| format!("{f:x?}"))?;
            step("sum inside", sum, 0)
        })
    };
    // once to bring all of it to where the second time finds it
    inside(&mut e)?;
    let inside = inside(&mut e)? / pages as f64;
    // not zeros of the kernel's one zero page
    let (outside, function) = (vec![1u64; words as usize], executable_copy()?);
    let expected = sum(function, &outside);
    let outside = time(1, || step("sum outside", sum(function, &outside), expected))? / pages as f64;
    let null = null_call()?;
    println!("bench {mib}-MiB-inside-page {inside:.0} {:.2}", inside / null);
    println!("bench {mib}-MiB-outside-page {outside:.0} {:.2}", outside / null);
    println!("bench {mib}-MiB-inside-over-outside {:.3}", inside / outside);
    Ok(())
}

/// A null system call.
fn null_call() -> Result<f64, String> {
    time(20_000, || {
        // SAFETY: no preconditions.
        unsafe { libc::syscall(libc::SYS_getppid) };
        Ok(())
    })
}

/// The enclave's function on memory outside.
fn sum(function: u64, words: &[u64]) -> u64 {
    let sum;
    // SAFETY: the function reads RCX words at RSI and changes only these registers and R11.
    unsafe {
        std::arch::asm!("call {f}", f = in(reg) function, inout("rsi") words.as_ptr() => _,
            inout("rcx") words.len() => _, out("rdx") sum, out("r11") _);
    }
    sum
}

fn executable_copy() -> Result<u64, String> {
    let (prot, flags) =
        (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping.
    let map = unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0) };
    if map == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error().to_string());
    }
    let code = image::code();
    // SAFETY: the page was just mapped, and the code is shorter.
    unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), map.cast(), code.len()) };
    Ok(map as u64 + image::sum_offset() as u64)
}
