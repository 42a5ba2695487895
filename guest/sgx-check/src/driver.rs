//! An enclave of this process, made by the kernel's SGX driver.

use std::io::{Error, Result};

use enclave_host::driver::Driver;
use sgx_abi::{AttributeFlags, Attributes, PageType, SecinfoFlags, Secs, Sigstruct};
use zerocopy::FromBytes;

use crate::image::{self, MODE64BIT, Measurement, Page, at, secinfo};
use crate::vdso::{EENTER, EEXIT, ERESUME, Enter, Run};

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
    driver: Driver,
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
        let attributes = flags | MODE64BIT;
        let xfrm = Attributes::XFRM_LEGACY;
        let secs = Secs {
            size,
            ssaframesize: 1,
            attributes: Attributes { flags: AttributeFlags::from_bits_retain(attributes), xfrm },
            ..Secs::default()
        };
        let driver = Driver::create(&secs).map_err(Error::other)?;
        let mut measurement = Measurement::new(size);
        for page in image::pages().into_iter().chain(more) {
            measurement.add(&page);
            let flags = SecinfoFlags::from_bits_retain(page.flags);
            driver
                .add(page.offset, 4096, flags, page.measured, Some(&page.bytes[..]))
                .map_err(Error::other)?;
        }
        let signature = image::sign(measurement.finish(), attributes, xfrm);
        let signature =
            Sigstruct::read_from_prefix(&signature[..]).map_err(|e| Error::other(e.to_string()))?;
        driver.init(&signature.0).map_err(Error::other)?;
        let base = driver.base();
        let enclave = Enclave {
            driver,
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
        // PROT_READ, PROT_WRITE and PROT_EXEC are the bits that SECINFO has for the same
        let permissions = SecinfoFlags::from_bits_retain(prot as u64);
        self.driver.map(offset, len, permissions).map_err(Error::other)
    }

    /// Changes what the page tables allow.
    pub fn protect(&self, offset: u64, len: u64, prot: i32) -> Result<()> {
        // SAFETY: a range of this enclave's, which nothing of Rust's lies in.
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
        self.driver.restrict(offset, len, SecinfoFlags::from_bits_retain(permissions))
    }

    /// EMODT by the driver.
    pub fn modify_type(&self, offset: u64, len: u64, page_type: u64) -> Result<()> {
        let to = PageType::from_u8((page_type >> 8) as u8).ok_or_else(|| Error::other("no page type"))?;
        self.driver.modify_type(offset, len, to)
    }

    /// EREMOVE of trimmed pages by the driver.
    pub fn remove(&self, offset: u64, len: u64) -> Result<()> {
        self.driver.remove(offset, len)
    }
}

/// A page of the heap with given content, not measured.
pub fn heap_page(offset: u64, bytes: Box<[u8; 4096]>) -> Page {
    Page { offset, flags: secinfo::R | secinfo::W | secinfo::REG, bytes, measured: false }
}
