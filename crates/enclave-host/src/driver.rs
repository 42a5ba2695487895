//! The kernel's SGX driver (*Linux `arch/x86/include/uapi/asm/sgx.h`*).

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

use sgx_abi::{AttributeFlags, PAGE_SIZE, PageType, Secinfo, SecinfoFlags, Secs, Sigstruct, Status};

use crate::{Files, LoadError, diagnosis};

const DEVICE: &str = "/dev/sgx_enclave";
const PROVISION_DEVICE: &str = "/dev/sgx_provision";

const CREATE: u64 = 0x4008_a400;
const ADD_PAGES: u64 = 0xc030_a401;
const INIT: u64 = 0x4008_a402;
const PROVISION: u64 = 0x4008_a403;
const RESTRICT_PERMISSIONS: u64 = 0xc028_a405;
const MODIFY_TYPES: u64 = 0xc028_a406;
const REMOVE_PAGES: u64 = 0xc018_a407;

/// Bit of ADD_PAGES' flags: measure them.
const MEASURE: u64 = 1;
/// Zeros to add at a time.
const ZEROS: usize = 256 << 10;

/// Memory aligned as pages and SECINFO must be.
#[repr(C, align(4096))]
struct Aligned<T>(T);

/// Why an ioctl did not do its work.
#[derive(Debug)]
pub enum IoctlError {
    /// The leaf reported this.
    Leaf(u32),
    /// The driver did.
    Driver(io::Error),
}

impl From<IoctlError> for io::Error {
    fn from(error: IoctlError) -> Self {
        match error {
            IoctlError::Driver(error) => error,
            IoctlError::Leaf(code) => match Status::from_u32(code) {
                Some(status) => io::Error::other(status),
                None => io::Error::other(format!("the leaf reported {code}")),
            },
        }
    }
}

/// Executes an ioctl whose argument is words; some come back changed.
fn ioctl(file: &File, request: u64, words: &mut [u64]) -> Result<(), IoctlError> {
    // SAFETY: every request's structure is that many words, and the kernel stays within
    // it; addresses in it are of memory that the callers hold.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), request as _, words.as_mut_ptr()) };
    match done {
        0 => Ok(()),
        n if n > 0 => Err(IoctlError::Leaf(n as u32)),
        _ => Err(IoctlError::Driver(io::Error::last_os_error())),
    }
}

/// An enclave in the making, or made: the driver's file and the address range.
#[derive(Debug)]
pub struct Driver {
    file: File,
    base: u64,
    size: u64,
    mapping: (usize, usize),
}

impl Driver {
    /// All of it: makes, initialises and maps the enclave of these files, to be called by
    /// whoever knows how; [`crate::Enclave`] does. An encrypted one is locked then.
    ///
    /// # Errors
    /// The kernel or the processor refuses it.
    pub fn load(files: &Files) -> Result<Self, LoadError> {
        let parts = &files.0;
        let attributes = parts.sigstruct.attributes;
        let driver = Self::create(&Secs {
            size: parts.size,
            ssaframesize: parts.ssa_frame_pages,
            miscselect: parts.sigstruct.miscselect,
            attributes,
            ..Secs::default()
        })?;
        if attributes.flags.contains(AttributeFlags::PROVISIONKEY) {
            driver.provision()?;
        }
        for run in &parts.runs {
            driver.add(run.offset, run.len, run.flags, run.measured, run.data.as_deref())?;
        }
        driver.init(&parts.sigstruct).map_err(|error| match error {
            // that the processor has refused is all that the driver says
            LoadError::InitRefused(e) if e.raw_os_error() == Some(libc::EPERM) => {
                LoadError::Init(diagnosis::of_refusal(parts))
            }
            error => error,
        })?;
        for run in &parts.runs {
            driver.map(run.offset, run.len, run.flags)?;
        }
        if let Some((start, len)) = parts.growth().filter(|_| has_sgx2()) {
            driver.map(start, len, SecinfoFlags::new(PageType::Reg, SecinfoFlags::R | SecinfoFlags::W))?;
        }
        Ok(driver)
    }

    /// ECREATE: an enclave of these properties, at an address that is found for it.
    ///
    /// # Errors
    /// There is no device, or it refuses.
    pub fn create(secs: &Secs) -> Result<Self, LoadError> {
        let file = open(DEVICE)?;
        let size = secs.size;
        let mapping = reserve(size).map_err(LoadError::Map)?;
        let base = (mapping.0 as u64).next_multiple_of(size);
        let driver = Self { file, base, size, mapping };
        let mut page = Box::new(Aligned(secs.clone()));
        page.0.baseaddr = base;
        let create = ioctl(&driver.file, CREATE, &mut [&raw const *page as u64]);
        create.map_err(|e| match io::Error::from(e) {
            e if e.kind() == ErrorKind::OutOfMemory => LoadError::EpcFull,
            e => LoadError::Create(e),
        })?;
        Ok(driver)
    }

    /// Permits the PROVISIONKEY attribute, for users of the provisioning device.
    ///
    /// # Errors
    /// The device is not there, or not for this user.
    pub fn provision(&self) -> Result<(), LoadError> {
        let device = open(PROVISION_DEVICE)?;
        let mut words = [device.as_raw_fd() as u64];
        ioctl(&self.file, PROVISION, &mut words).map_err(|e| LoadError::Create(e.into()))
    }

    /// EADD, and EEXTEND: pages at `offset`, of `data` or, for `len` bytes, of zeros.
    ///
    /// # Errors
    /// The driver or processor refuses.
    pub fn add(
        &self,
        offset: u64,
        len: u64,
        flags: SecinfoFlags,
        measured: bool,
        data: Option<&[u8]>,
    ) -> Result<(), LoadError> {
        let info = Aligned(Secinfo::new(flags));
        let mut pages: Vec<Aligned<[u8; PAGE_SIZE]>> = Vec::new();
        let piece = (len as usize).min(ZEROS);
        pages.resize_with(piece.div_ceil(PAGE_SIZE), || Aligned([0; PAGE_SIZE]));
        let mut done = 0;
        while done < len {
            let count = (len - done).min(piece as u64);
            for (page, content) in
                data.into_iter().flat_map(|d| d[done as usize..].chunks(PAGE_SIZE)).zip(&mut pages)
            {
                content.0[..page.len()].copy_from_slice(page);
            }
            let from = pages.as_ptr() as u64;
            let measure = if measured { MEASURE } else { 0 };
            let mut words = [from, offset + done, count, &raw const info as u64, measure, 0];
            let result = ioctl(&self.file, ADD_PAGES, &mut words);
            // a signal interrupts: the count says how far it came
            done += words[5];
            match result.map_err(io::Error::from) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::OutOfMemory => return Err(LoadError::EpcFull),
                Err(e) => return Err(LoadError::Add(offset + done, e)),
            }
        }
        Ok(())
    }

    /// EINIT.
    ///
    /// # Errors
    /// The processor refuses, and says why.
    pub fn init(&self, sigstruct: &Sigstruct) -> Result<(), LoadError> {
        let page = Box::new(Aligned(sigstruct.clone()));
        ioctl(&self.file, INIT, &mut [&raw const *page as u64]).map_err(|error| match error {
            IoctlError::Leaf(code) => match Status::from_u32(code) {
                Some(status) => LoadError::Init(status),
                None => LoadError::InitRefused(IoctlError::Leaf(code).into()),
            },
            IoctlError::Driver(e) => LoadError::InitRefused(e),
        })
    }

    /// Maps pages with the permissions that they have in the enclave; a TCS readable and
    /// writable, which the processor does in the program's name.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn map(&self, offset: u64, len: u64, flags: SecinfoFlags) -> Result<(), LoadError> {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.size), "outside the enclave");
        let mut protection = 0;
        for (bit, allows) in [
            (SecinfoFlags::R, libc::PROT_READ),
            (SecinfoFlags::W, libc::PROT_WRITE),
            (SecinfoFlags::X, libc::PROT_EXEC),
        ] {
            if flags.contains(bit) {
                protection |= allows;
            }
        }
        if flags.page_type() == Some(PageType::Tcs) {
            protection = libc::PROT_READ | libc::PROT_WRITE;
        }
        let (to, fd) = ((self.base + offset) as *mut libc::c_void, self.file.as_raw_fd());
        let how = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: inside the range that `reserve` took for this enclave alone.
        let mapped = unsafe { libc::mmap(to, len as usize, protection, how, fd, offset as i64) };
        if mapped == libc::MAP_FAILED { Err(LoadError::Map(io::Error::last_os_error())) } else { Ok(()) }
    }

    /// EMODPR: takes permissions from pages; the enclave has to accept.
    ///
    /// # Errors
    /// The processor has no SGX2, or it refuses.
    pub fn restrict(&self, offset: u64, len: u64, permissions: SecinfoFlags) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let mut words = [offset + done, len - done, permissions.bits() & 7, 0, 0];
            let result = ioctl(&self.file, RESTRICT_PERMISSIONS, &mut words).map_err(io::Error::from);
            // a signal interrupts: the count says how far it came
            done += words[4];
            match result {
                Ok(()) => break,
                Err(e) if e.kind() == ErrorKind::Interrupted && words[4] > 0 => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// EMODT: changes the type of pages; the enclave has to accept.
    ///
    /// # Errors
    /// The processor has no SGX2, or it refuses.
    pub fn modify_type(&self, offset: u64, len: u64, to: PageType) -> io::Result<()> {
        ioctl(&self.file, MODIFY_TYPES, &mut [offset, len, to as u64, 0, 0]).map_err(Into::into)
    }

    /// EREMOVE of pages that were trimmed and accepted.
    ///
    /// # Errors
    /// The processor has no SGX2, or it refuses.
    pub fn remove(&self, offset: u64, len: u64) -> io::Result<()> {
        ioctl(&self.file, REMOVE_PAGES, &mut [offset, len, 0]).map_err(Into::into)
    }

    /// Where the enclave begins.
    pub fn base(&self) -> u64 {
        self.base
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // SAFETY: the range of `reserve`; whoever has entered the enclave holds this.
        unsafe { libc::munmap(self.mapping.0 as *mut libc::c_void, self.mapping.1) };
    }
}

fn open(path: &'static str) -> Result<File, LoadError> {
    OpenOptions::new().read(true).write(true).open(path).map_err(|e| match e.kind() {
        ErrorKind::PermissionDenied => LoadError::Permission(path),
        _ => LoadError::NoDevice,
    })
}

/// Address space in which a range of `size` bytes, aligned to its size, lies.
fn reserve(size: u64) -> io::Result<(usize, usize)> {
    let len = usize::try_from(size).ok().and_then(|size| size.checked_mul(2));
    let len = len.ok_or(ErrorKind::OutOfMemory)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, nobody else's.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
    if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok((start as usize, len)) }
}

/// Whether the processor has SGX2 (*SDM vol. 3D, CPUID leaf 12H, EAX bit 1*).
pub fn has_sgx2() -> bool {
    use std::arch::x86_64::__cpuid_count;
    let has_sgx = __cpuid_count(0, 0).eax >= 0x12 && __cpuid_count(7, 0).ebx & 1 << 2 != 0;
    has_sgx && __cpuid_count(0x12, 0).eax & 1 << 1 != 0
}
