//! A secret in an enclave, and what root of the same machine sees of it.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::FileExt;

use crate::driver::{Enclave, heap_page};
use crate::image::{DEBUG, Op, at};
use crate::step;
use crate::vdso::Enter;

const SIZE: u64 = 0x1_0000;

/// Sixteen bytes in hexadecimal.
pub fn parse(hex: &str) -> Option<[u8; 16]> {
    u128::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 32).map(u128::to_be_bytes)
}

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

/// Physical address of the page at `address`, if `/proc/self/pagemap` tells.
fn physical(address: u64) -> Option<u64> {
    let mut entry = [0; 8];
    let file = std::fs::File::open("/proc/self/pagemap").ok()?;
    file.read_exact_at(&mut entry, address / 4096 * 8).ok()?;
    let entry = u64::from_le_bytes(entry);
    (entry >> 63 != 0).then_some((entry & ((1 << 55) - 1)) << 12)
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
    match physical(heap) {
        None => println!("physical address: not told by this kernel"),
        Some(at) => {
            let seen = dev_mem(at);
            match seen {
                Ok(word) => step("/dev/mem reads ones", word, u64::MAX)?,
                Err(e) => println!("/dev/mem: {e}"),
            }
            let seen = e.call(Op::Get, [heap, 0, 0, 0]).map_err(|f| format!("{f:x?}"))?;
            step("a write through /dev/mem changes nothing", seen, first)?;
        }
    }
    println!("done");
    Ok(())
}

/// Maps the page of `/dev/mem`, writes to it, and gives what it reads.
fn dev_mem(physical: u64) -> std::io::Result<u64> {
    use std::os::fd::AsRawFd;
    let file = OpenOptions::new().read(true).write(true).open("/dev/mem")?;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let (fd, at) = (file.as_raw_fd(), physical as i64);
    // SAFETY: a new mapping.
    let map = unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, libc::MAP_SHARED, fd, at) };
    if map == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    let word = map.cast::<u64>();
    // SAFETY: one page is mapped there.
    unsafe {
        word.write_volatile(0);
        let seen = word.read_volatile();
        libc::munmap(map, 4096);
        Ok(seen)
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

/// Keeps a secret in a production enclave until standard input ends.
pub fn hold(enter: Enter, secret: [u8; 16]) -> Result<(), String> {
    let mut e = with_secret(enter, 0, secret)?;
    let heap = e.base + at::HEAP;
    println!("holding");
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).map_err(|e| e.to_string())?;
    let seen = e.call(Op::Get, [heap, 0, 0, 0]).map_err(|f| format!("{f:x?}"))?;
    step("the secret is still there", seen.to_le_bytes() == secret[..8], true)
}
