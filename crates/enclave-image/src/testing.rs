//! A small program of an enclave, put together by hand: for tests and fuzzing.

use enclave_abi::Layout;
use enclave_abi::build::LAYOUT_SECTION;
use enclave_abi::encrypted::{PAYLOAD_SECTION, PAYLOAD_SIZE, Payload};
use object::elf;
use zerocopy::IntoBytes;

/// Places in the file, which are also offsets in the image.
pub mod at {
    /// Program headers: code that is read, code, data, dynamic section.
    pub const PROGRAM_HEADERS: usize = 0x40;
    /// Bytes of a program header.
    pub const PROGRAM_HEADER: usize = 56;
    /// One relocation.
    pub const RELA: usize = 0x400;
    /// The layout.
    pub const LAYOUT: usize = 0x500;
    /// Section headers: none, the layout, names.
    pub const SECTION_HEADERS: usize = 0x600;
    /// Names of sections.
    pub const NAMES: usize = 0x700;
    /// Of a loader: the description of the payload.
    pub const PAYLOAD: usize = 0x800;
    /// Code.
    pub const CODE: usize = 0x1000;
    /// Data, of which [`RELOCATED`] is part.
    pub const DATA: usize = 0x2e00;
    /// Eight bytes that the relocation fills in.
    pub const RELOCATED: usize = 0x2e08;
    /// Dynamic section, the end of the data.
    pub const DYNAMIC: usize = 0x2f00;
    /// End of the file.
    pub const END: usize = 0x3000;
}
/// End of the image: behind the data come zeros.
pub const IMAGE: u64 = 0x5010;

/// The ELF file.
pub fn program() -> Vec<u8> {
    file(false)
}

/// The ELF file of a loader of encrypted enclaves, of the same size.
pub fn loader() -> Vec<u8> {
    file(true)
}

fn file(loader: bool) -> Vec<u8> {
    let mut file = vec![0; at::END];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, [elf::ET_DYN, elf::EM_X86_64, 1, 0].as_bytes());
    put(24, [at::CODE as u64 + 4, at::PROGRAM_HEADERS as u64, at::SECTION_HEADERS as u64].as_bytes());
    put(52, [64, at::PROGRAM_HEADER as u16, 4, 64, 3 + u16::from(loader), 2].as_bytes());
    let (r, w, x) = (elf::PF_R, elf::PF_W, elf::PF_X);
    let part = |kind: u32, flags: u32, start: usize, end: usize, memory: u64| {
        let start = start as u64;
        let len = end as u64 - start;
        let kind = u64::from(flags) << 32 | u64::from(kind);
        [kind, start, start, start, len, memory.max(len), 0x1000]
    };
    let parts = [
        part(elf::PT_LOAD, r, 0, if loader { at::CODE } else { at::PAYLOAD }, 0),
        part(elf::PT_LOAD, r | x, at::CODE, at::CODE + 0x10, 0),
        part(elf::PT_LOAD, r | w, at::DATA, at::END, IMAGE - at::DATA as u64),
        part(elf::PT_DYNAMIC, r | w, at::DYNAMIC, at::END, 0),
    ];
    put(at::PROGRAM_HEADERS, parts.as_bytes());
    let relative = u64::from(elf::R_X86_64_RELATIVE);
    put(at::RELA, [at::RELOCATED as u64, relative, at::CODE as u64].as_bytes());
    put(at::LAYOUT, Layout::BLANK.as_bytes());
    let dynamic = [elf::DT_RELA, elf::DT_RELASZ, elf::DT_RELAENT, elf::DT_NULL].map(u64::from);
    let values = [at::RELA as u64, 24, 24, 0];
    for (n, (tag, value)) in dynamic.into_iter().zip(values).enumerate() {
        put(at::DYNAMIC + 16 * n, [tag, value].as_bytes());
    }
    let names = format!("\0{LAYOUT_SECTION}\0{PAYLOAD_SECTION}\0");
    let section = |name: u32, kind: u32, start: usize, len: usize| {
        let start = start as u64;
        [u64::from(kind) << 32 | u64::from(name), 0, start, start, len as u64, 0, 1, 0]
    };
    let sections = [
        [0; 8],
        section(1, elf::SHT_PROGBITS, at::LAYOUT, size_of::<Layout>()),
        section(0, elf::SHT_STRTAB, at::NAMES, names.len()),
        section(2 + LAYOUT_SECTION.len() as u32, elf::SHT_PROGBITS, at::PAYLOAD, PAYLOAD_SIZE),
    ];
    if loader {
        put(at::PAYLOAD, Payload::BLANK.as_bytes());
    }
    put(at::SECTION_HEADERS, sections.as_bytes());
    put(at::NAMES, names.as_bytes());
    put(at::CODE, &[0x90; 16]);
    put(at::DATA, &[0xda; 8]);
    file
}
