//! The two files of an enclave: a stream of pages (SGXS) and the signer's word (SIGSTRUCT).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use enclave_abi::Layout;
use enclave_abi::encrypted::Payload;
use enclave_abi::layout::{MAX_SIZE, MAX_THREADS};
use sgx_abi::{PAGE_SIZE, PageType, SecinfoFlags, Sigstruct};
use sgxs::sgxs::PageReader;
use sha2::{Digest, Sha256};
use zerocopy::{FromBytes, IntoBytes};

use crate::LoadError;

/// An enclave as it is loaded, read from its files.
#[derive(Clone)]
pub struct Files(pub(crate) Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) size: u64,
    pub(crate) ssa_frame_pages: u32,
    pub(crate) runs: Vec<Run>,
    pub(crate) tcs: Vec<u64>,
    pub(crate) sigstruct: Sigstruct,
    /// Of enclaves of our runtime.
    pub(crate) layout: Option<Layout>,
    /// Of encrypted ones.
    pub(crate) payload: Option<Payload>,
}

impl Parts {
    /// Where the heap may grow, and by how much, if that is the enclave's and nothing is there.
    pub(crate) fn growth(&self) -> Option<(u64, u64)> {
        let layout = self.layout.as_ref()?;
        let len = layout.heap_limit.checked_sub(layout.heap_size).filter(|len| *len > 0)?;
        let start = layout.heap.checked_add(layout.heap_size)?;
        let free = |run: &Run| run.offset + run.len <= start || run.offset >= start + len;
        let inside = start.checked_add(len).is_some_and(|end| end <= self.size);
        (inside && self.runs.iter().all(free)).then_some((start, len))
    }
}

/// Consecutive pages of the same kind.
pub(crate) struct Run {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) flags: SecinfoFlags,
    pub(crate) measured: bool,
    /// `None` for zeros.
    pub(crate) data: Option<Vec<u8>>,
}

impl Files {
    /// Reads both files.
    ///
    /// # Errors
    /// They cannot be read, or are not what they should be.
    pub fn read(stream: impl AsRef<Path>, signature: impl AsRef<Path>) -> Result<Self, LoadError> {
        let read = |path: &Path| fs::read(path).map_err(|e| LoadError::Read(path.to_owned(), e));
        let stream = read(stream.as_ref())?;
        let signature = read(signature.as_ref()).map_err(|error| match error {
            LoadError::Read(path, e) if e.kind() == ErrorKind::NotFound => LoadError::Unsigned(path),
            error => error,
        })?;
        Self::new(&stream, &signature)
    }

    /// The same from memory.
    ///
    /// # Errors
    /// They are not what they should be.
    pub fn new(stream: &[u8], signature: &[u8]) -> Result<Self, LoadError> {
        let sigstruct =
            Sigstruct::read_from_bytes(signature).map_err(|_| LoadError::SignatureSize(signature.len()))?;
        let mut stream = stream;
        let damaged = |e| LoadError::Stream(format!("{e:#}"));
        let (info, mut pages) = PageReader::new(&mut stream).map_err(damaged)?;
        let size = info.ecreate.size;
        if size > MAX_SIZE {
            return Err(LoadError::TooLarge(size));
        }
        // SECS.SIZE: at least two pages (SDM vol. 3D, ECREATE)
        if !info.sized || !size.is_power_of_two() || size < 2 * PAGE_SIZE as u64 {
            return Err(LoadError::Stream(format!("its size of {size:#x} bytes is none of an enclave's")));
        }
        let (mut runs, mut tcs): (Vec<Run>, Vec<u64>) = (Vec::new(), Vec::new());
        let (mut layout, mut payload) = (None, None);
        while let Some((add, chunks, data)) = pages.read_page().map_err(damaged)? {
            if add.offset >= size || !add.offset.is_multiple_of(PAGE_SIZE as u64) {
                return Err(LoadError::Stream(format!("a page at {:#x} lies outside", add.offset)));
            }
            let flags = SecinfoFlags::from_bits_retain(add.secinfo.flags.bits());
            let measured = match chunks.0 {
                0 => false,
                u16::MAX => true,
                _ => return Err(LoadError::PartlyMeasured(add.offset)),
            };
            if flags.page_type() == Some(PageType::Tcs) {
                if tcs.len() == MAX_THREADS as usize {
                    return Err(LoadError::Stream(format!("more than {MAX_THREADS} threads")));
                }
                tcs.push(add.offset);
            }
            layout = layout.or_else(|| find_layout(&data, size));
            let found = || Payload::find(&data).filter(|payload| payload.loader <= add.offset);
            payload = payload.or_else(found);
            let zero = data.iter().all(|&byte| byte == 0);
            match runs.last_mut() {
                Some(run)
                    if run.offset + run.len == add.offset
                        && run.flags == flags
                        && run.measured == measured
                        && run.data.is_none() == zero =>
                {
                    run.len += PAGE_SIZE as u64;
                    run.data.iter_mut().for_each(|run| run.extend_from_slice(&data));
                }
                _ => runs.push(Run {
                    offset: add.offset,
                    len: PAGE_SIZE as u64,
                    flags,
                    measured,
                    data: (!zero).then(|| data.to_vec()),
                }),
            }
        }
        if tcs.is_empty() {
            return Err(LoadError::NoThread);
        }
        Ok(Self(Arc::new(Parts {
            size,
            ssa_frame_pages: info.ecreate.ssaframesize,
            runs,
            tcs,
            sigstruct,
            layout,
            payload,
        })))
    }

    /// MRSIGNER: the hash of the key that has signed it, if it has; EINIT finds that out.
    pub fn mrsigner(&self) -> [u8; 32] {
        Sha256::digest(self.0.sigstruct.modulus).into()
    }

    /// MRENCLAVE, as the signer states it; EINIT compares.
    pub fn mrenclave(&self) -> [u8; 32] {
        self.0.sigstruct.enclavehash
    }

    /// Whether its program is encrypted: it then needs a key ([`crate::Options::keys`]).
    pub fn is_encrypted(&self) -> bool {
        self.0.payload.is_some()
    }

    /// Offsets of the enclave's threads (TCS).
    pub fn tcs_offsets(&self) -> &[u64] {
        &self.0.tcs
    }

    /// Bytes of the enclave's address range.
    pub fn size(&self) -> u64 {
        self.0.size
    }
}

/// The layout, if it is in this page: it tells where the heap may grow. What it says has
/// no weight beyond what is mapped where nothing else is.
fn find_layout(page: &[u8; PAGE_SIZE], size: u64) -> Option<Layout> {
    page.chunks_exact(8).zip((0..).step_by(8)).filter(|(word, _)| *word == Layout::MAGIC).find_map(
        |(_, at)| {
            let (layout, _) = Layout::read_from_prefix(&page[at..]).ok()?;
            (layout.version == Layout::VERSION && layout.size == size).then_some(layout)
        },
    )
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files")
            .field("size", &self.0.size)
            .field("threads", &self.0.tcs.len())
            .field("signed", &&self.0.sigstruct.as_bytes()[960..992])
            .finish()
    }
}
