//! What the machine's root sees of an enclave's memory.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use enclave_host::Enclave;
use serde_json::{Value, json};

use crate::Failure;

const PAGE: usize = 4096;
/// Pages of the enclave's range that are looked at.
const PAGES: usize = 64;

/// Where the pointer to the tables of ACPI is looked for (*ACPI §5.2.5.1*), and how it begins.
const BIOS: u64 = 0xe_0000;
const BIOS_SIZE: usize = 0x2_0000;
const TABLES: &[u8; 8] = b"RSD PTR ";

/// Looks in all ways.
///
/// # Errors
/// A way cannot be gone at all: that is no evidence of anything.
pub(crate) fn all(enclave: &Enclave) -> Result<Value, Failure> {
    let own = own_range(enclave.base())?;
    let debugger = by_debugger(enclave.base());
    let (epc, tables) = physical()?;
    Ok(json!({
        "range": { "bytes": own.bytes, "not_ones": own.not_ones },
        "debugger": debugger,
        "physical": { "bytes": epc.bytes, "not_ones": epc.not_ones },
        // that /dev/mem shows true bytes elsewhere
        "tables": tables,
    }))
}

/// What was read.
#[derive(Default)]
struct Seen {
    bytes: usize,
    not_ones: usize,
}

impl Seen {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.not_ones += bytes.iter().filter(|byte| **byte != 0xff).count();
    }
}

/// The address range of the enclave in this process, as the kernel reads it on our behalf:
/// write(2) into a pipe. Pages that are not there are not read.
fn own_range(base: u64) -> Result<Seen, Failure> {
    let (mut from, to) = io::pipe()?;
    let mut seen = Seen::default();
    let mut page = [0; PAGE];
    for n in 0..PAGES {
        let address = base as usize + n * PAGE;
        // SAFETY: the kernel checks the address; nothing is written to it, and no reference
        // to it is made.
        let written = unsafe { libc::write(to.as_raw_fd(), address as *const libc::c_void, PAGE) };
        if let Ok(count @ 1..) = usize::try_from(written) {
            let part = page.get_mut(..count).ok_or("a pipe takes what it is given")?;
            from.read_exact(part)?;
            seen.add(part);
        }
    }
    if seen.bytes == 0 {
        return Err("no page of the enclave's range can be read at all".into());
    }
    Ok(seen)
}

/// `/proc/self/mem`, the debugger's way, which the driver passes on to the processor (EDBGRD).
fn by_debugger(base: u64) -> String {
    let mut bytes = [0; 64];
    let read = File::open("/proc/self/mem").and_then(|file| file.read_at(&mut bytes, base));
    match read {
        Ok(count) => format!("{count} bytes"),
        Err(e) => format!("refused: {e}"),
    }
}

/// All of the EPC by its physical address (`/dev/mem`); and whether the same way finds the
/// firmware's tables, which begin with [`TABLES`], where they are.
fn physical() -> Result<(Seen, bool), Failure> {
    let map = fs::read_to_string("/proc/iomem")?;
    // the device of ACPI that stands for the EPC
    let line = map.lines().find(|line| line.contains("INT0E0C")).ok_or("no EPC in /proc/iomem")?;
    let range = line.split(" : ").next().unwrap_or_default().trim();
    let (first, last) = range.split_once('-').ok_or("no range in /proc/iomem")?;
    let (first, last) = (u64::from_str_radix(first, 16)?, u64::from_str_radix(last, 16)?);
    let memory = File::open("/dev/mem").map_err(|e| format!("/dev/mem: {e}"))?;
    let look = |first: u64, len: usize, see: &mut dyn FnMut([u8; 8])| -> io::Result<()> {
        let map = Mapped::new(&memory, first, len)?;
        (0..len / 8).for_each(|word| see(map.word(word).to_ne_bytes()));
        Ok(())
    };
    let (mut seen, mut tables) = (Seen::default(), false);
    look(first, usize::try_from(last - first)? + 1, &mut |bytes| seen.add(&bytes))?;
    look(BIOS, BIOS_SIZE, &mut |bytes| tables |= bytes == *TABLES)?;
    Ok((seen, tables))
}

/// Physical memory, to read.
struct Mapped {
    at: *const u64,
    len: usize,
}

impl Mapped {
    fn new(file: &File, first: u64, len: usize) -> io::Result<Self> {
        let (fd, offset) = (file.as_raw_fd(), first as libc::off_t);
        // SAFETY: a new mapping of a length that is not zero; the kernel checks the rest.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, fd, offset) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { at: at.cast(), len }) }
    }

    fn word(&self, n: usize) -> u64 {
        assert!(8 * n + 8 <= self.len);
        // SAFETY: below `len`, which is mapped, in pages; it may change at any time.
        unsafe { self.at.add(n).read_volatile() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody holds a reference into it.
        unsafe { libc::munmap(self.at.cast_mut().cast(), self.len) };
    }
}
