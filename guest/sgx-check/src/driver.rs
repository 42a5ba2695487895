//! The kernel's SGX driver (*Linux `arch/x86/include/uapi/asm/sgx.h`*).

use std::fs::{File, OpenOptions};
use std::io::{Error, Result};
use std::os::fd::AsRawFd;

use crate::image::{self, MODE64BIT, Measurement, Page, at, secinfo};
use crate::vdso::{EENTER, EEXIT, ERESUME, Enter, Run};

const CREATE: u64 = 0x4008_a400;
const ADD_PAGES: u64 = 0xc030_a401;
const INIT: u64 = 0x4008_a402;
const RESTRICT: u64 = 0xc028_a405;
const MODIFY_TYPES: u64 = 0xc028_a406;
const REMOVE_PAGES: u64 = 0xc018_a407;

/// Executes an ioctl whose argument is words; some come back changed.
fn ioctl(file: &File, request: u64, words: &mut [u64]) -> Result<()> {
    // SAFETY: every request's structure is that many words, and the kernel
    // stays within it.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), request as _, words.as_mut_ptr()) };
    match done {
        0 => Ok(()),
        n if n > 0 => Err(Error::other(format!("the leaf reported {n}; {words:x?}"))),
        _ => Err(Error::last_os_error()),
    }
}

/// Memory aligned as SECINFO and pages must be.
#[repr(C, align(4096))]
struct Aligned<T>(T);

/// Exception after which an entry came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Vector.
    pub vector: u16,
    /// Error code.
    pub error: u16,
    /// Address.
    pub address: u64,
}

/// An enclave of this process.
pub struct Enclave {
    file: File,
    enter: Enter,
    /// Linear address.
    pub base: u64,
    run: Box<Run>,
    /// What host and enclave exchange.
    pub exchange: Box<[u64; 6]>,
}

impl Enclave {
    /// Makes, loads and initialises an enclave of `size` bytes (a power of two)
    /// from the standard pages and `more`; `flags` are ATTRIBUTES.
    pub fn load(enter: Enter, size: u64, flags: u64, more: impl Iterator<Item = Page>) -> Result<Enclave> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/sgx_enclave")?;
        let base = reserve(size)?;
        let attributes = flags | MODE64BIT;
        let mut secs = Box::new(Aligned([0u64; 512]));
        secs.0[0] = size;
        secs.0[1] = base;
        secs.0[2] = 1; // SSAFRAMESIZE; MISCSELECT 0
        secs.0[6] = attributes;
        secs.0[7] = 3;
        ioctl(&file, CREATE, &mut [(&raw const secs.0) as u64])?;
        let mut measurement = Measurement::new(size);
        for page in image::pages().into_iter().chain(more) {
            measurement.add(&page);
            add(&file, &page)?;
        }
        let signature = Aligned(*image::sign(measurement.finish(), attributes, 3));
        ioctl(&file, INIT, &mut [(&raw const signature.0) as u64])?;
        let enclave = Enclave {
            file,
            enter,
            base,
            run: Box::new(Run::new(base + at::TCS)),
            exchange: Box::new([0; 6]),
        };
        let (rw, rx) = (libc::PROT_READ | libc::PROT_WRITE, libc::PROT_READ | libc::PROT_EXEC);
        enclave.map(at::TCS, 0x1000, rw)?;
        enclave.map(at::CODE, 0x1000, rx)?;
        enclave.map(at::DATA, at::HEAP - at::DATA, rw)?;
        Ok(enclave)
    }

    /// Maps a part of the enclave.
    pub fn map(&self, offset: u64, len: u64, prot: i32) -> Result<()> {
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        let (to, fd) = ((self.base + offset) as *mut libc::c_void, self.file.as_raw_fd());
        // SAFETY: inside the range that `reserve` took for this enclave.
        let mapped = unsafe { libc::mmap(to, len as usize, prot, flags, fd, offset as i64) };
        if mapped == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(()) }
    }

    /// Changes what the page tables allow.
    pub fn protect(&self, offset: u64, len: u64, prot: i32) -> Result<()> {
        // SAFETY: as in `map`.
        let done = unsafe { libc::mprotect((self.base + offset) as *mut libc::c_void, len as usize, prot) };
        if done == 0 { Ok(()) } else { Err(Error::last_os_error()) }
    }

    fn go(&mut self, function: u32) -> std::result::Result<(), Fault> {
        let buffer = self.exchange.as_mut_ptr() as u64;
        // SAFETY: the vDSO's contract: a loaded enclave's TCS, and a run structure
        // that stays. The enclave keeps callee-saved registers but RBX, which the vDSO keeps.
        unsafe { (self.enter)(buffer, 0, 0, function, 0, 0, &raw mut *self.run) };
        if self.run.function == EEXIT {
            return Ok(());
        }
        Err(Fault {
            vector: self.run.exception_vector,
            error: self.run.exception_error_code,
            address: self.run.exception_addr,
        })
    }

    /// Has the enclave do something; its answer.
    pub fn call(&mut self, op: image::Op, args: [u64; 4]) -> std::result::Result<u64, Fault> {
        *self.exchange = [op as u64, args[0], args[1], args[2], args[3], 0];
        self.go(EENTER)?;
        Ok(self.exchange[5])
    }

    /// Enters while a fault is pending in the first SSA frame, to step over the
    /// faulting instruction of `length` bytes.
    pub fn step_over(&mut self, length: u64) -> std::result::Result<(), Fault> {
        self.exchange[1] = length;
        self.go(EENTER)
    }

    /// Has the enclave do what [`Enclave::exchange`] says; its answer.
    pub fn repeat(&mut self) -> std::result::Result<u64, Fault> {
        self.go(EENTER)?;
        Ok(self.exchange[5])
    }

    /// Continues after a fault.
    pub fn resume(&mut self) -> std::result::Result<u64, Fault> {
        self.go(ERESUME)?;
        Ok(self.exchange[5])
    }

    /// Executes an ENCLU leaf in the enclave with a SECINFO of `flags`, which is
    /// written into the enclave first.
    pub fn leaf_on_page(&mut self, leaf: u64, flags: u64, page: u64) -> std::result::Result<u64, Fault> {
        let info = self.base + at::DATA;
        for word in 0..8 {
            self.call(image::Op::Put, [info + 8 * word, if word == 0 { flags } else { 0 }, 0, 0])?;
        }
        self.call(image::Op::Leaf, [leaf, info, self.base + page, 0])
    }

    /// EMODPR by the driver.
    pub fn restrict(&self, offset: u64, len: u64, permissions: u64) -> Result<()> {
        ioctl(&self.file, RESTRICT, &mut [offset, len, permissions, 0, 0])
    }

    /// EMODT by the driver.
    pub fn modify_type(&self, offset: u64, len: u64, page_type: u64) -> Result<()> {
        ioctl(&self.file, MODIFY_TYPES, &mut [offset, len, page_type >> 8, 0, 0])
    }

    /// EREMOVE of trimmed pages by the driver.
    pub fn remove(&self, offset: u64, len: u64) -> Result<()> {
        ioctl(&self.file, REMOVE_PAGES, &mut [offset, len, 0])
    }
}

fn reserve(size: u64) -> Result<u64> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, nobody else's.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), 2 * size as usize, libc::PROT_NONE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    Ok((start as u64).next_multiple_of(size))
}

fn add(file: &File, page: &Page) -> Result<()> {
    let info = Aligned([page.flags, 0, 0, 0, 0, 0, 0, 0]);
    let source = Aligned(*page.bytes);
    let measure = u64::from(page.measured);
    let (from, info) = ((&raw const source.0) as u64, (&raw const info.0) as u64);
    ioctl(file, ADD_PAGES, &mut [from, page.offset, 4096, info, measure, 0])
}

/// A page of the heap with given content, not measured.
pub fn heap_page(offset: u64, bytes: Box<[u8; 4096]>) -> Page {
    Page { offset, flags: secinfo::R | secinfo::W | secinfo::REG, bytes, measured: false }
}
