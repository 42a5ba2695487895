//! SGXS: an enclave as the stream of what ECREATE, EADD and EEXTEND measure.
//!
//! The format is that of Fortanix's tools: blocks of 64 bytes as the leaves hash them
//! (*SDM vol. 3D, ECREATE, EADD, EEXTEND*), 256 bytes of content after each EEXTEND, and
//! the same after `UNMEASRD`, which is content that is loaded and not measured. The
//! measured blocks, hashed, are MRENCLAVE.
//!
//! Read are streams in canonical order: ECREATE first, pages by rising offset, each
//! followed by its own content. Bytes that the format leaves unused must be zero: they
//! are hashed, but no leaf would ever hash anything else.

use sgx::measure::Measurement;
use sgx_abi::page::EEXTEND_CHUNK;
use sgx_abi::{PAGE_SIZE, PageType, Secinfo, SecinfoFlags, Secs};

const ECREATE: &[u8; 8] = b"ECREATE\0";
const EADD: &[u8; 8] = b"EADD\0\0\0\0";
const EEXTEND: &[u8; 8] = b"EEXTEND\0";
const UNMEASURED: &[u8; 8] = b"UNMEASRD";
const UNSIZED: &[u8; 8] = b"UNSIZED\0";
/// Bytes of a block's head.
const HEAD: usize = 64;
/// Runs of 256 bytes in a page.
pub const CHUNKS: usize = PAGE_SIZE / EEXTEND_CHUNK;
/// The largest enclave that is read or made, in bytes: what CPUID promises at most
/// (*SDM vol. 3D, CPUID leaf 12H, subleaf 0: MaxEnclaveSize_64*).
pub const MAX_SIZE: u64 = 1 << 36;

/// Why a stream cannot be read; `at` is the offset of the block, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SgxsError {
    /// It ends within a block.
    #[error("is cut short at byte {0:#x}: copy or build it again")]
    Truncated(usize),
    /// It does not begin with ECREATE.
    #[error("does not begin with an ECREATE block: it is no SGXS file")]
    NoEcreate,
    /// ECREATE says UNSIZED.
    #[error("leaves the enclave's size open (UNSIZED): have the tool that made it fill it in")]
    Unsized,
    /// SECS.SIZE, SSAFRAMESIZE that ECREATE would refuse.
    #[error(
        "has an enclave of {size:#x} bytes and SSA frames of {frame} pages, which ECREATE refuses with #GP: \
         the size is a power of two from 8 KiB to 64 GiB, the frame smaller"
    )]
    Ecreate {
        /// SECS.SIZE.
        size: u64,
        /// SECS.SSAFRAMESIZE.
        frame: u32,
    },
    /// A tag that is none.
    #[error("has a block of no known kind at byte {0:#x}: it is damaged")]
    Tag(usize),
    /// A byte that must be zero is not.
    #[error("has bytes set at {0:#x} that no leaf would measure: it is damaged")]
    Reserved(usize),
    /// An offset outside the enclave, unaligned, or not in rising order.
    #[error(
        "has a page or content out of place (offset {offset:#x}) at byte {at:#x}: it is damaged, or not canonical"
    )]
    Offset {
        /// Of the block in the file.
        at: usize,
        /// What it says.
        offset: u64,
    },
    /// A SECINFO that EADD would refuse.
    #[error("has a page of flags {flags:#x} at offset {offset:#x}, which EADD refuses with #GP")]
    Secinfo {
        /// The page's offset in the enclave.
        offset: u64,
        /// SECINFO.FLAGS.
        flags: u64,
    },
}

/// An enclave before it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enclave {
    /// Bytes of the address range: SECS.SIZE.
    pub size: u64,
    /// Pages of an SSA frame.
    pub ssa_frame_pages: u32,
    /// By rising offset.
    pub pages: Vec<Page>,
}

/// A page that EADD adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Bytes from the enclave's base.
    pub offset: u64,
    /// Type and rights.
    pub flags: SecinfoFlags,
    /// Runs of 256 bytes that EEXTEND measures: bit N is the Nth.
    pub measured: u16,
    /// Content; `None` is zeros.
    pub data: Option<Box<[u8; PAGE_SIZE]>>,
}

impl Page {
    /// The whole content measured.
    pub const MEASURED: u16 = u16::MAX;

    fn chunk(&self, n: usize) -> &[u8; EEXTEND_CHUNK] {
        const ZEROS: [u8; EEXTEND_CHUNK] = [0; EEXTEND_CHUNK];
        self.data.as_ref().map_or(&ZEROS, |data| {
            data[n * EEXTEND_CHUNK..][..EEXTEND_CHUNK].try_into().expect("a run of a page")
        })
    }

    fn is_measured(&self, n: usize) -> bool {
        self.measured & 1 << n != 0
    }
}

impl Enclave {
    /// MRENCLAVE.
    pub fn measure(&self) -> [u8; 32] {
        let mut hash = Measurement::ecreate(self.ssa_frame_pages, self.size);
        for page in &self.pages {
            hash.eadd(page.offset, &Secinfo::new(page.flags));
            for n in (0..CHUNKS).filter(|&n| page.is_measured(n)) {
                hash.eextend(page.offset + (n * EEXTEND_CHUNK) as u64, page.chunk(n));
            }
        }
        hash.finish()
    }

    /// The stream.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut head = [0; HEAD - 8];
        head[..4].copy_from_slice(&self.ssa_frame_pages.to_le_bytes());
        head[4..12].copy_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(ECREATE);
        out.extend_from_slice(&head);
        for page in &self.pages {
            let mut head = [0; HEAD - 8];
            head[..8].copy_from_slice(&page.offset.to_le_bytes());
            head[8..16].copy_from_slice(&page.flags.bits().to_le_bytes());
            out.extend_from_slice(EADD);
            out.extend_from_slice(&head);
            for n in 0..CHUNKS {
                let tag = match (page.is_measured(n), &page.data) {
                    (true, _) => EEXTEND,
                    (false, Some(_)) => UNMEASURED,
                    (false, None) => continue,
                };
                let mut head = [0; HEAD - 8];
                head[..8].copy_from_slice(&(page.offset + (n * EEXTEND_CHUNK) as u64).to_le_bytes());
                out.extend_from_slice(tag);
                out.extend_from_slice(&head);
                out.extend_from_slice(page.chunk(n));
            }
        }
        out
    }

    /// Reads a stream. What it takes in memory is at most 16 times its length.
    ///
    /// # Errors
    /// It is no canonical SGXS stream of an enclave that a processor would build.
    pub fn read(stream: &[u8]) -> Result<Self, SgxsError> {
        let mut reader = Reader { stream, at: 0 };
        let mut enclave = reader.ecreate()?;
        // content of a page is by rising offset: another order is another measurement
        let mut next = 0;
        while let Some((at, tag, head)) = reader.head()? {
            let offset = u64::from_le_bytes(head[..8].try_into().expect("8 bytes"));
            let misplaced = SgxsError::Offset { at, offset };
            if tag == *EADD {
                let rising = enclave.pages.last().is_none_or(|last| offset > last.offset);
                if !rising || offset % PAGE_SIZE as u64 != 0 || offset >= enclave.size {
                    return Err(misplaced);
                }
                zero(&head[16..], at)?;
                let bits = u64::from_le_bytes(head[8..16].try_into().expect("8 bytes"));
                let flags = secinfo(bits).ok_or(SgxsError::Secinfo { offset, flags: bits })?;
                next = 0;
                enclave.pages.push(Page { offset, flags, measured: 0, data: None });
            } else if tag == *EEXTEND || tag == *UNMEASURED {
                zero(&head[8..], at)?;
                let content = reader.content()?;
                let Some(page) = enclave.pages.last_mut() else { return Err(misplaced) };
                let within = offset.checked_sub(page.offset).filter(|&n| n < PAGE_SIZE as u64);
                let Some(within) = within.filter(|n| n % EEXTEND_CHUNK as u64 == 0) else {
                    return Err(misplaced);
                };
                let within = within as usize;
                let n = within / EEXTEND_CHUNK;
                if n < next {
                    return Err(misplaced);
                }
                next = n + 1;
                if tag == *EEXTEND {
                    page.measured |= 1 << n;
                }
                let data = page.data.get_or_insert_with(|| Box::new([0; PAGE_SIZE]));
                data[within..within + EEXTEND_CHUNK].copy_from_slice(content);
            } else {
                return Err(SgxsError::Tag(at));
            }
        }
        Ok(enclave)
    }
}

/// What EADD takes, or nothing.
fn secinfo(bits: u64) -> Option<SecinfoFlags> {
    let flags = SecinfoFlags::from_bits_retain(bits);
    let rights = flags & SecinfoFlags::RWX;
    let plain = SecinfoFlags::RWX | SecinfoFlags::PAGE_TYPE;
    let holds = bits & !plain.bits() == 0
        && match flags.page_type()? {
            PageType::Reg => !rights.contains(SecinfoFlags::W) || rights.contains(SecinfoFlags::R),
            PageType::Tcs => rights.is_empty(),
            _ => false,
        };
    holds.then_some(flags)
}

fn zero(bytes: &[u8], at: usize) -> Result<(), SgxsError> {
    if bytes.iter().all(|&byte| byte == 0) { Ok(()) } else { Err(SgxsError::Reserved(at)) }
}

/// Blocks of a stream, one after the other.
struct Reader<'a> {
    stream: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn ecreate(&mut self) -> Result<Enclave, SgxsError> {
        let (at, tag, head) = self.head().ok().flatten().ok_or(SgxsError::NoEcreate)?;
        match &tag {
            ECREATE => {}
            UNSIZED => return Err(SgxsError::Unsized),
            _ => return Err(SgxsError::NoEcreate),
        }
        zero(&head[12..], at)?;
        let frame = u32::from_le_bytes(head[..4].try_into().expect("4 bytes"));
        let size = u64::from_le_bytes(head[4..12].try_into().expect("8 bytes"));
        let sized = size.is_power_of_two() && (Secs::MIN_SIZE..=MAX_SIZE).contains(&size);
        if !sized || frame == 0 || u64::from(frame) >= size / PAGE_SIZE as u64 {
            return Err(SgxsError::Ecreate { size, frame });
        }
        Ok(Enclave { size, ssa_frame_pages: frame, pages: Vec::new() })
    }

    /// The next block: where it is, its tag and the rest of its head; `None` at the end.
    #[allow(clippy::type_complexity, reason = "three parts of one block")]
    fn head(&mut self) -> Result<Option<(usize, [u8; 8], &'a [u8; HEAD - 8])>, SgxsError> {
        let at = self.at;
        if at == self.stream.len() {
            return Ok(None);
        }
        let (tag, head) = self.take::<HEAD>()?.split_first_chunk().expect("64 bytes");
        Ok(Some((at, *tag, head.try_into().expect("56 bytes"))))
    }

    fn content(&mut self) -> Result<&'a [u8; EEXTEND_CHUNK], SgxsError> {
        self.take()
    }

    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], SgxsError> {
        let bytes = self.stream[self.at..].first_chunk().ok_or(SgxsError::Truncated(self.stream.len()))?;
        self.at += N;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(offset: u64, flags: SecinfoFlags, measured: u16, fill: Option<u8>) -> Page {
        Page { offset, flags, measured, data: fill.map(|byte| Box::new([byte; PAGE_SIZE])) }
    }

    fn reg(rights: SecinfoFlags) -> SecinfoFlags {
        SecinfoFlags::new(PageType::Reg, rights)
    }

    fn enclave() -> Enclave {
        let rw = SecinfoFlags::R | SecinfoFlags::W;
        let tcs = SecinfoFlags::new(PageType::Tcs, SecinfoFlags::empty());
        let pages = vec![
            page(0, tcs, Page::MEASURED, Some(1)),
            page(0x1000, reg(SecinfoFlags::R | SecinfoFlags::X), Page::MEASURED, Some(2)),
            page(0x3000, reg(rw), 0, None),
            page(0x4000, reg(rw), 0, Some(3)),
            page(0x5000, reg(rw), 0x8001, Some(4)),
        ];
        Enclave { size: 0x8000, ssa_frame_pages: 1, pages }
    }

    #[test]
    fn what_is_written_is_read() {
        let enclave = enclave();
        let read = Enclave::read(&enclave.write()).unwrap();
        assert_eq!(read, enclave);
        assert_eq!(read.measure(), enclave.measure());
        // zeros that are measured come back as content
        let zeros = Enclave { pages: vec![page(0, reg(SecinfoFlags::R), Page::MEASURED, None)], ..enclave };
        let read = Enclave::read(&zeros.write()).unwrap();
        assert_eq!(read.measure(), zeros.measure());
        assert_eq!(read.pages[0].data.as_deref(), Some(&[0; PAGE_SIZE]));
    }

    #[test]
    fn every_cut_is_found() {
        let stream = enclave().write();
        let whole = enclave().measure();
        for len in 0..stream.len() {
            // a cut between two blocks leaves a stream, of another enclave
            if let Ok(cut) = Enclave::read(&stream[..len]) {
                assert_ne!(cut.measure(), whole, "cut at {len}");
            }
        }
        assert_eq!(Enclave::read(&stream[..65]), Err(SgxsError::Truncated(65)));
        assert_eq!(Enclave::read(&[]), Err(SgxsError::NoEcreate));
        assert_eq!(Enclave::read(&stream[..63]), Err(SgxsError::NoEcreate));
    }

    #[test]
    fn every_flipped_bit_that_is_measured_shows() {
        let stream = enclave().write();
        let whole = enclave();
        for byte in 0..stream.len() {
            let mut other = stream.clone();
            other[byte] ^= 1 << (byte % 8);
            let Ok(read) = Enclave::read(&other) else { continue };
            assert_ne!(read, whole, "byte {byte:#x}");
            if read.measure() == whole.measure() {
                // only content that is not measured
                assert!(
                    read.pages
                        .iter()
                        .zip(&whole.pages)
                        .any(|(a, b)| a.data != b.data && a.measured != Page::MEASURED)
                );
            }
        }
    }

    #[test]
    fn what_the_leaves_refuse_is_refused() {
        let refuse = |change: &dyn Fn(&mut Enclave)| {
            let mut enclave = enclave();
            change(&mut enclave);
            Enclave::read(&enclave.write()).unwrap_err()
        };
        for (size, frame) in [(0x7000, 1), (0x1000, 1), (0, 1), (1 << 37, 1), (0x8000, 0), (0x8000, 8)] {
            let error = refuse(&|e| (e.size, e.ssa_frame_pages) = (size, frame));
            assert_eq!(error, SgxsError::Ecreate { size, frame });
        }
        for bits in [0x202, 0x206, 0x101, 0x000, 0x300, 0x600, 0x700, 0x20b, 1 << 63 | 0x201] {
            let error = refuse(&|e| e.pages[1].flags = SecinfoFlags::from_bits_retain(bits));
            assert_eq!(error, SgxsError::Secinfo { offset: 0x1000, flags: bits });
        }
        for offset in [0, 0x800, 0x8000, u64::MAX - 0xfff] {
            let error = refuse(&|e| e.pages[1] = page(offset, reg(SecinfoFlags::R), 0, None));
            assert!(matches!(error, SgxsError::Offset { offset: o, .. } if o == offset), "{error}");
        }
    }

    #[test]
    fn content_belongs_to_its_page() {
        let stream = enclave().write();
        // the second page's first content: after ECREATE, EADD with 16 runs, EADD
        let at = 64 + 64 + 16 * 320 + 64;
        assert_eq!(&stream[at..at + 8], EEXTEND);
        for offset in [0u64, 0x1080, 0x2000, 0x0f00, 0x1100] {
            let mut other = stream.clone();
            other[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
            assert!(matches!(Enclave::read(&other), Err(SgxsError::Offset { .. })), "{offset:#x}");
        }
        let head = &stream[..64];
        let lone = [head, &stream[at..at + 320]].concat();
        assert!(matches!(Enclave::read(&lone), Err(SgxsError::Offset { at: 64, .. })));
        let again = [head, &stream[64..128], &[0; 64]].concat();
        assert_eq!(Enclave::read(&again), Err(SgxsError::Tag(128)));
    }
}
