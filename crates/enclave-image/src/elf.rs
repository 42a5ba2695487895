//! The program of an enclave: a static position-independent ELF file
//! ([`enclave_abi::build`] says how it is built and what it may hold).

use enclave_abi::build::LAYOUT_SECTION;
use enclave_abi::encrypted::{PAYLOAD_SECTION, PAYLOAD_SIZE, Payload};
use enclave_abi::{Image, Layout};
use object::LittleEndian as Le;
use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, Rela, SectionHeader};
use sgx_abi::PAGE_SIZE;
use std::ops::Range;
use zerocopy::FromBytes;

type Header = elf::FileHeader64<Le>;

const PAGE: u64 = PAGE_SIZE as u64;
/// Bytes of packed relative relocations (*ELF gABI, Dynamic Section*).
const DT_RELRSZ: u32 = 35;
/// The largest image of a program, in bytes: code and static data.
pub const MAX_IMAGE: u64 = 1 << 30;

/// Why a file is no program of an enclave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// No ELF file of the right kind.
    #[error("is no position-independent ELF program for x86-64: build it with `kluis enclave build`")]
    Kind,
    /// A header that contradicts itself or the file.
    #[error("is damaged: {0} lies outside the file or contradicts another header")]
    Damaged(&'static str),
    /// It needs somebody to serve it whom an enclave has not.
    #[error("has {0}, which nobody serves in an enclave: {1}")]
    Needs(&'static str, &'static str),
    /// Segments overlap, share a page, or are not in order.
    #[error(
        "has segments that share a page or are out of order at {0:#x}: build it with `kluis enclave build`"
    )]
    Segments(u64),
    /// A segment that is both writable and executable.
    #[error("has a segment at {0:#x} that is writable and executable: code must not change")]
    WritableCode(u64),
    /// Too large.
    #[error("has an image of more than 1 GiB: keep large tables out of the program")]
    TooLarge,
    /// A relocation that the enclave could not apply.
    #[error(
        "has a relocation at {0:#x} that is not relative or not in writable data: build it with `kluis enclave build`"
    )]
    Relocation(u64),
    /// The entry point is not in code.
    #[error("starts at {0:#x}, which is no code of it: link the crate `enclave`, which has the entry point")]
    Entry(u64),
    /// There is no layout.
    #[error("has no section {LAYOUT_SECTION}: link the crate `enclave`")]
    NoLayout,
    /// Another version of the contract.
    #[error(
        "was made with a crate `enclave` of contract {0}, this is for {now}: use the Kluis that the crate came with",
        now = Layout::VERSION
    )]
    Version(u64),
}

/// A part of the image with one set of permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Offset from the enclave's base, in bytes.
    pub start: u64,
    /// Bytes in memory; what the file does not give is zero.
    pub size: u64,
    /// Bytes from the file.
    pub data: &'a [u8],
    /// Whether it can be written.
    pub writable: bool,
    /// Whether it can be executed.
    pub executable: bool,
}

impl Segment<'_> {
    fn range(&self) -> Range<u64> {
        self.start..self.start + self.size
    }

    fn contains(&self, start: u64, len: u64) -> bool {
        let end = start.checked_add(len);
        start >= self.start && end.is_some_and(|end| end <= self.range().end)
    }
}

/// A checked program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program<'a> {
    /// By rising offset; no two share a page.
    pub segments: Vec<Segment<'a>>,
    /// Offset of the entry point.
    pub entry: u64,
    /// Offset of the 128 bytes of [`Layout`].
    pub layout: u64,
    /// Of the loader of encrypted enclaves: offset of its [`Payload`].
    pub payload: Option<u64>,
    /// What the layout is made from.
    pub image: Image,
}

impl<'a> Program<'a> {
    /// Reads an ELF file.
    ///
    /// # Errors
    /// It is none, or cannot be an enclave.
    pub fn read(file: &'a [u8]) -> Result<Self, ElfError> {
        let header = Header::parse(file).map_err(|_| ElfError::Kind)?;
        let right = header.e_type(Le) == elf::ET_DYN && header.e_machine(Le) == elf::EM_X86_64;
        if !right || !header.is_little_endian() {
            return Err(ElfError::Kind);
        }
        let parts = header.program_headers(Le, file).map_err(|_| ElfError::Damaged("its program header"))?;
        let segments = segments(parts, file)?;
        let size = segments.last().map(|last| last.range().end).ok_or(ElfError::Damaged("its code"))?;
        let (rela, rela_count) = relocations(parts, file, &segments, size)?;
        let entry = header.e_entry(Le);
        if !segments.iter().any(|s| s.executable && s.contains(entry, 1)) {
            return Err(ElfError::Entry(entry));
        }
        let layout = layout(header, file, &segments)?;
        let payload = payload(header, file, &segments)?;
        Ok(Self { segments, entry, layout, payload, image: Image { size, rela, rela_count } })
    }
}

fn segments<'a>(parts: &[elf::ProgramHeader64<Le>], file: &'a [u8]) -> Result<Vec<Segment<'a>>, ElfError> {
    let mut segments: Vec<Segment<'a>> = Vec::new();
    for part in parts {
        match part.p_type(Le) {
            elf::PT_INTERP => {
                return Err(ElfError::Needs("an interpreter", "link it statically, with -nostdlib"));
            }
            elf::PT_TLS => {
                return Err(ElfError::Needs("thread-local variables", "keep state in statics or arguments"));
            }
            elf::PT_LOAD => {}
            _ => continue,
        }
        let (start, size) = (part.p_vaddr(Le), part.p_memsz(Le));
        if size == 0 {
            continue;
        }
        let data = part.data(Le, file).map_err(|()| ElfError::Damaged("a segment"))?;
        if data.len() as u64 > size {
            return Err(ElfError::Damaged("a segment"));
        }
        if start.max(size) > MAX_IMAGE || start + size > MAX_IMAGE {
            return Err(ElfError::TooLarge);
        }
        let free = segments.last().map_or(0, |last| last.range().end.next_multiple_of(PAGE));
        let first = segments.is_empty();
        if start < free || first && start != 0 {
            return Err(ElfError::Segments(start));
        }
        let flags = part.p_flags(Le);
        let (writable, executable) = (flags & elf::PF_W != 0, flags & elf::PF_X != 0);
        if writable && executable {
            return Err(ElfError::WritableCode(start));
        }
        segments.push(Segment { start, size, data, writable, executable });
    }
    Ok(segments)
}

/// Offset and number of the relocations, all of which the enclave can apply.
fn relocations(
    parts: &[elf::ProgramHeader64<Le>],
    file: &[u8],
    segments: &[Segment<'_>],
    image_size: u64,
) -> Result<(u64, u64), ElfError> {
    let damaged = ElfError::Damaged("its dynamic section");
    let (mut rela, mut rela_size) = (0, 0);
    for part in parts {
        let Some(dynamic) = part.dynamic(Le, file).map_err(|_| damaged.clone())? else { continue };
        for entry in dynamic {
            let value = entry.d_val.get(Le);
            match entry.tag32(Le).ok_or_else(|| damaged.clone())? {
                elf::DT_NULL => break,
                elf::DT_RELA => rela = value,
                elf::DT_RELASZ => rela_size = value,
                elf::DT_RELAENT if value != 24 => return Err(damaged),
                elf::DT_NEEDED => {
                    return Err(ElfError::Needs("a shared library", "link it statically, with -nostdlib"));
                }
                elf::DT_INIT_ARRAYSZ | elf::DT_PREINIT_ARRAYSZ if value != 0 => {
                    return Err(ElfError::Needs("constructors", "initialise at the first call instead"));
                }
                elf::DT_RELSZ | DT_RELRSZ | elf::DT_PLTRELSZ if value != 0 => {
                    return Err(ElfError::Needs(
                        "relocations that are not RELA",
                        "build it with `kluis enclave build`",
                    ));
                }
                _ => {}
            }
        }
    }
    if rela_size == 0 {
        return Ok((0, 0));
    }
    let table = bytes_at(segments, rela, rela_size).ok_or(damaged.clone())?;
    let table: &[elf::Rela64<Le>] = object::slice_from_all_bytes(table).map_err(|()| damaged)?;
    for one in table {
        let (offset, addend) = (one.r_offset(Le), one.r_addend(Le));
        let applies = one.r_type(Le, false) == elf::R_X86_64_RELATIVE
            && one.r_sym(Le, false) == 0
            && u64::try_from(addend).is_ok_and(|to| to <= image_size)
            && segments.iter().any(|s| s.writable && s.contains(offset, 8));
        if !applies {
            return Err(ElfError::Relocation(offset));
        }
    }
    Ok((rela, table.len() as u64))
}

/// Offset of the layout, which is blank and of this version.
fn layout(header: &Header, file: &[u8], segments: &[Segment<'_>]) -> Result<u64, ElfError> {
    let damaged = |_| ElfError::Damaged("its section header");
    let sections = header.sections(Le, file).map_err(damaged)?;
    let name = LAYOUT_SECTION.as_bytes();
    let (_, section) = sections.section_by_name(Le, name).ok_or(ElfError::NoLayout)?;
    let (offset, size) = (section.sh_addr(Le), section.sh_size(Le));
    let bytes = bytes_at(segments, offset, size).ok_or(ElfError::NoLayout)?;
    let blank = Layout::read_from_bytes(bytes).map_err(|_| ElfError::NoLayout)?;
    if blank.magic != Layout::MAGIC {
        return Err(ElfError::NoLayout);
    }
    if blank.version != Layout::VERSION {
        return Err(ElfError::Version(blank.version));
    }
    if blank != Layout::BLANK {
        return Err(ElfError::Damaged("its layout"));
    }
    Ok(offset)
}

/// Offset of the payload's description, if the program is a loader; it is blank and of this
/// version.
fn payload(header: &Header, file: &[u8], segments: &[Segment<'_>]) -> Result<Option<u64>, ElfError> {
    let damaged = ElfError::Damaged("its description of a payload");
    let sections = header.sections(Le, file).map_err(|_| ElfError::Damaged("its section header"))?;
    let Some((_, section)) = sections.section_by_name(Le, PAYLOAD_SECTION.as_bytes()) else {
        return Ok(None);
    };
    let offset = section.sh_addr(Le);
    let bytes = bytes_at(segments, offset, section.sh_size(Le)).ok_or(damaged.clone())?;
    let blank = Payload::read_from_bytes(bytes).map_err(|_| damaged.clone())?;
    if blank.version != Payload::VERSION {
        return Err(ElfError::Version(blank.version));
    }
    if blank != Payload::BLANK || !offset.is_multiple_of(PAYLOAD_SIZE as u64) {
        return Err(damaged);
    }
    Ok(Some(offset))
}

/// Bytes of the image that the file gives.
fn bytes_at<'a>(segments: &[Segment<'a>], offset: u64, len: u64) -> Option<&'a [u8]> {
    let segment = segments.iter().find(|s| s.contains(offset, len))?;
    let from = usize::try_from(offset - segment.start).ok()?;
    segment.data.get(from..)?.get(..usize::try_from(len).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::lay_out;
    use crate::testing::{IMAGE, at, program};
    use enclave_abi::Settings;
    use zerocopy::IntoBytes;

    /// What is said of the program with these bytes changed.
    fn refused(place: usize, bytes: &[u8]) -> ElfError {
        let mut file = program();
        file[place..place + bytes.len()].copy_from_slice(bytes);
        Program::read(&file).unwrap_err()
    }

    /// Field `offset` of program header `n`.
    const fn part(n: usize, offset: usize) -> usize {
        at::PROGRAM_HEADERS + n * at::PROGRAM_HEADER + offset
    }
    const TYPE: usize = 0;
    const FLAGS: usize = 4;
    const OFFSET: usize = 8;
    const ADDRESS: usize = 16;
    const IN_FILE: usize = 32;
    const IN_MEMORY: usize = 40;

    #[test]
    fn a_program_is_read() {
        let file = program();
        let program = Program::read(&file).unwrap();
        assert_eq!((program.entry, program.layout), (0x1004, 0x500));
        assert_eq!(program.image, Image { size: IMAGE, rela: 0x400, rela_count: 1 });
        let parts: Vec<_> = program.segments.iter().map(|s| (s.range(), s.writable, s.executable)).collect();
        assert_eq!(
            parts,
            [(0..0x800, false, false), (0x1000..0x1010, false, true), (0x2e00..IMAGE, true, false)]
        );
    }

    #[test]
    fn its_pages_hold_it_with_the_layout() {
        let file = program();
        let program = Program::read(&file).unwrap();
        let settings = Settings { threads: 2, ..Settings::default() };
        let enclave = lay_out(&program, &settings).unwrap();
        let byte = |offset: u64| {
            let page = enclave.pages.iter().find(|p| p.offset == offset / PAGE * PAGE).unwrap();
            page.data.as_ref().map_or(0, |data| data[(offset % PAGE) as usize])
        };
        let layout = Layout::new(&program.image, &settings).unwrap();
        for offset in 0..IMAGE {
            let expected = match offset as usize {
                at::LAYOUT..0x580 => layout.as_bytes()[offset as usize - at::LAYOUT],
                n if program.segments.iter().any(|s| s.contains(offset, 1)) => *file.get(n).unwrap_or(&0),
                _ => 0,
            };
            assert_eq!(byte(offset), expected, "{offset:#x}");
        }
        let rights = |offset: u64| {
            let flags = enclave.pages.iter().find(|p| p.offset == offset).unwrap().flags;
            (flags & sgx_abi::SecinfoFlags::RWX).bits()
        };
        assert_eq!([0, 0x1000, 0x2000, 0x5000].map(rights), [1, 5, 3, 3]);
        // all of the image is measured, and each thread has its TCS
        assert!(enclave.pages.iter().filter(|p| p.offset < IMAGE).all(|p| p.measured == u16::MAX));
        let report = crate::inspect::stream(&enclave);
        assert_eq!(report.threads.len(), 2);
        assert!(report.threads.iter().all(|t| t.entry == 0x1004 && t.ssa_frames == 2));
        assert_eq!(report.warnings, [""; 0]);
        assert!(enclave.pages.is_sorted_by_key(|p| p.offset));
    }

    #[test]
    fn other_files_are_refused() {
        for (place, bytes) in [(0, &b"\x7fELG"[..]), (4, &[1]), (5, &[2]), (16, &[2, 0]), (18, &[3, 0])] {
            assert_eq!(refused(place, bytes), ElfError::Kind, "{place}");
        }
        assert_eq!(Program::read(&[]), Err(ElfError::Kind));
        assert_eq!(refused(24, 0x2e00u64.as_bytes()), ElfError::Entry(0x2e00));
        assert_eq!(refused(24, u64::MAX.as_bytes()), ElfError::Entry(u64::MAX));
    }

    #[test]
    fn segments_that_contradict_are_refused() {
        let damaged = |error| matches!(error, ElfError::Damaged(_));
        assert!(damaged(refused(32, (at::END as u64).as_bytes())));
        assert!(damaged(refused(part(0, OFFSET), u64::MAX.as_bytes())));
        assert!(damaged(refused(part(1, IN_FILE), 0x3000u64.as_bytes())));
        // more in the file than in memory
        assert!(damaged(refused(part(1, IN_MEMORY), 8u64.as_bytes())));
        for (place, address) in
            [(part(1, ADDRESS), 0x800u64), (part(2, ADDRESS), 0x1010), (part(0, ADDRESS), 0x1000)]
        {
            assert_eq!(refused(place, address.as_bytes()), ElfError::Segments(address));
        }
        for size in [MAX_IMAGE, u64::MAX, 1 << 63] {
            assert_eq!(refused(part(2, IN_MEMORY), size.as_bytes()), ElfError::TooLarge);
        }
        assert_eq!(refused(part(2, ADDRESS), (u64::MAX - 0xfff).as_bytes()), ElfError::TooLarge);
        assert_eq!(refused(part(1, FLAGS), &[7]), ElfError::WritableCode(0x1000));
    }

    #[test]
    fn nobody_serves_an_enclave() {
        for kind in [elf::PT_INTERP, elf::PT_TLS] {
            assert!(matches!(refused(part(3, TYPE), kind.as_bytes()), ElfError::Needs(..)), "{kind}");
        }
        for tag in [elf::DT_NEEDED, elf::DT_INIT_ARRAYSZ, elf::DT_RELSZ, DT_RELRSZ, elf::DT_PLTRELSZ] {
            let error = refused(at::DYNAMIC + 48, [u64::from(tag), 24].as_bytes());
            assert!(matches!(error, ElfError::Needs(..)), "{tag}: {error}");
        }
    }

    #[test]
    fn relocations_apply_or_are_refused() {
        for (offset, addend) in [
            (0x400u64, 0u64),
            (0x1000, 0),
            (IMAGE - 7, 0),
            (u64::MAX, 0),
            (0x2e08, IMAGE + 1),
            (0x2e08, u64::MAX),
        ] {
            let relative = u64::from(elf::R_X86_64_RELATIVE);
            assert_eq!(
                refused(at::RELA, [offset, relative, addend].as_bytes()),
                ElfError::Relocation(offset)
            );
        }
        for kind in [elf::R_X86_64_64, elf::R_X86_64_IRELATIVE, elf::R_X86_64_GLOB_DAT] {
            assert_eq!(refused(at::RELA + 8, u64::from(kind).as_bytes()), ElfError::Relocation(0x2e08));
        }
        assert_eq!(refused(at::RELA + 12, &[1]), ElfError::Relocation(0x2e08));
        for (tag, value) in [
            (elf::DT_RELA, 0x900u64),
            (elf::DT_RELA, u64::MAX),
            (elf::DT_RELASZ, 25),
            (elf::DT_RELASZ, u64::MAX),
            (elf::DT_RELAENT, 16),
        ] {
            let n = [elf::DT_RELA, elf::DT_RELASZ, elf::DT_RELAENT].iter().position(|&t| t == tag).unwrap();
            let error = refused(at::DYNAMIC + 16 * n + 8, value.as_bytes());
            assert!(matches!(error, ElfError::Damaged(_)), "{tag} {value:#x}: {error}");
        }
    }

    #[test]
    fn the_layout_is_blank_and_of_this_version() {
        assert_eq!(refused(at::NAMES + 1, b"x"), ElfError::NoLayout);
        assert_eq!(refused(at::LAYOUT, b"x"), ElfError::NoLayout);
        assert_eq!(refused(at::LAYOUT + 8, &[9]), ElfError::Version(9));
        assert!(matches!(refused(at::LAYOUT + 16, &[1]), ElfError::Damaged(_)));
        // its section somewhere else, or of another size
        assert_eq!(refused(at::SECTION_HEADERS + 64 + 16, 0x900u64.as_bytes()), ElfError::NoLayout);
        assert_eq!(refused(at::SECTION_HEADERS + 64 + 32, 64u64.as_bytes()), ElfError::NoLayout);
        // behind what the file gives
        assert_eq!(refused(at::SECTION_HEADERS + 64 + 16, 0x4000u64.as_bytes()), ElfError::NoLayout);
    }
}
