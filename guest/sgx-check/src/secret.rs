//! A secret in an enclave, and what root of the same machine sees of it.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::FileExt;

use crate::driver::{Enclave, heap_page};
use crate::image::{DEBUG, Op, at};
use crate::step;
use crate::vdso::Enter;

const SIZE: u64 = 0x1_0000;

/// An enclave with a secret that its host makes up, puts in and forgets.
fn with_secret(enter: Enter, flags: u64, secret: [u8; 16]) -> Result<Enclave, String> {
    let page = heap_page(at::HEAP, Box::new([0; 4096]));
    let mut e = Enclave::load(enter, SIZE, flags, std::iter::once(page)).map_err(|e| format!("load: {e}"))?;
    e.map(at::HEAP, 0x1000, libc::PROT_READ | libc::PROT_WRITE).map_err(|e| format!("map: {e}"))?;
    let heap = e.base + at::HEAP;
    for (i, half) in secret.chunks_exact(8).enumerate() {
        let half = u64::from_le_bytes(half.try_into().unwrap_or_default());
        e.call(Op::Put, [heap + 8 * i as u64, half, 0, 0]).map_err(|f| format!("put: {f:x?}"))?;
    }
    e.exchange.fill(0);
    Ok(e)
}

fn random() -> Result<[u8; 16], String> {
    let mut bytes = [0; 16];
    let file = std::fs::File::open("/dev/urandom").map_err(|e| e.to_string())?;
    (&file).read_exact(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// `/proc/self/mem`: the way ptrace reads and writes, through the driver.
fn by_debugger(address: u64) -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    OpenOptions::new().read(true).open("/proc/self/mem")?.read_exact_at(&mut bytes, address)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Physical addresses of the EPC: the resource of the ACPI device that stands for it.
fn epc() -> Result<(u64, u64), String> {
    let text = std::fs::read_to_string("/proc/iomem").map_err(|e| e.to_string())?;
    let line = text.lines().find(|line| line.contains("INT0E0C")).ok_or("no EPC in /proc/iomem")?;
    let range = line.split(" : ").next().unwrap_or_default().trim();
    let (first, last) = range.split_once('-').ok_or("no range in /proc/iomem")?;
    let number = |hex: &str| u64::from_str_radix(hex, 16).map_err(|e| e.to_string());
    Ok((number(first)?, number(last)? + 1))
}

/// A production enclave, from root.
pub fn production(enter: Enter) -> Result<(), String> {
    let secret = random()?;
    let first = u64::from_le_bytes(secret[..8].try_into().unwrap_or_default());
    let mut e = with_secret(enter, 0, secret)?;
    let heap = e.base + at::HEAP;
    // SAFETY: mapped by `with_secret`.
    step("its own range reads ones", unsafe { (heap as *const u64).read_volatile() }, u64::MAX)?;
    // SAFETY: as above.
    unsafe { (heap as *mut u64).write_volatile(0) };
    let seen = e.call(Op::Get, [heap, 0, 0, 0]).map_err(|f| format!("{f:x?}"))?;
    step("a write there changes nothing", seen, first)?;
    step("the debugger's way fails", by_debugger(heap).is_err(), true)?;
    let (first_byte, end) = epc()?;
    step("/dev/mem reads ones all over the EPC", dev_mem(first_byte, end)?, true)?;
    let seen = e.call(Op::Get, [heap, 0, 0, 0]).map_err(|f| format!("{f:x?}"))?;
    step("writes through /dev/mem change nothing", seen, first)?;
    println!("done");
    Ok(())
}

/// Maps those bytes of `/dev/mem`; true if all of them are ones, also after
/// zeros were written to each page.
fn dev_mem(first: u64, end: u64) -> Result<bool, String> {
    use std::os::fd::AsRawFd;
    let fail = |e: std::io::Error| format!("/dev/mem: {e}");
    let file = OpenOptions::new().read(true).write(true).open("/dev/mem").map_err(fail)?;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let (fd, at, len) = (file.as_raw_fd(), first as i64, (end - first) as usize);
    // SAFETY: a new mapping.
    let map = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, fd, at) };
    if map == libc::MAP_FAILED {
        return Err(fail(std::io::Error::last_os_error()));
    }
    let words = map.cast::<u64>();
    // SAFETY: `len` bytes are mapped there.
    unsafe {
        let ones = || (0..len / 8).all(|i| words.add(i).read_volatile() == u64::MAX);
        let before = ones();
        (0..len / 4096).for_each(|page| words.add(512 * page).write_volatile(0));
        let after = ones();
        libc::munmap(map, len);
        Ok(before && after)
    }
}

/// A debug enclave gives its true bytes to a debugger.
pub fn debug(enter: Enter) -> Result<(), String> {
    let secret = random()?;
    let first = u64::from_le_bytes(secret[..8].try_into().unwrap_or_default());
    let e = with_secret(enter, DEBUG, secret)?;
    let heap = e.base + at::HEAP;
    // SAFETY: mapped by `with_secret`.
    step("its own range reads ones", unsafe { (heap as *const u64).read_volatile() }, u64::MAX)?;
    step("the debugger's way gives the true bytes", by_debugger(heap).ok(), Some(first))?;
    println!("done");
    Ok(())
}

/// Has a production enclave draw a secret that nobody else has ever had (a seal
/// key), and keeps it until standard input ends. Then tells it, with a value that
/// was in ordinary memory all the time.
pub fn hold(enter: Enter) -> Result<(), String> {
    const EGETKEY: u64 = 1;
    /// KEYREQUEST: KEYNAME SEAL, KEYPOLICY MRENCLAVE.
    const SEAL: u64 = 4 | 1 << 16;
    let control = random()?;
    let page = heap_page(at::HEAP, Box::new([0; 4096]));
    let mut e = Enclave::load(enter, SIZE, 0, std::iter::once(page)).map_err(|e| format!("load: {e}"))?;
    e.map(at::HEAP, 0x1000, libc::PROT_READ | libc::PROT_WRITE).map_err(|e| format!("map: {e}"))?;
    let (request, key) = (e.base + at::HEAP, e.base + at::HEAP + 0x800);
    let fault = |f: crate::driver::Fault| format!("{f:x?}");
    e.call(Op::Put, [request, SEAL, 0, 0]).map_err(fault)?;
    let status = e.call(Op::Leaf, [EGETKEY, request, key, 0]).map_err(fault)?;
    step("EGETKEY", status, 0)?;
    println!("holding");
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).map_err(|e| e.to_string())?;
    let mut secret = Vec::new();
    for half in [key, key + 8] {
        secret.extend(e.call(Op::Get, [half, 0, 0, 0]).map_err(fault)?.to_le_bytes());
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    println!("secret {}", hex(&secret));
    println!("control {}", hex(std::hint::black_box(&control)));
    Ok(())
}
