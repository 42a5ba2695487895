//! Where everything is: physical memory, linear addresses, and the code that
//! the kernel, its user program and the enclaves have in common.

/// A page's bytes.
pub const PAGE: u64 = 0x1000;
/// Bytes of RAM, from address 0.
pub const RAM_BYTES: u64 = 0x4_0000;

/// Paging structures: PML4, PDPT, and the page directories of the first GiB and of
/// the enclaves'.
pub const PML4: u64 = 0x1000;
/// Page-directory-pointer table.
pub const PDPT: u64 = 0x2000;
/// Page directory of the kernel's GiB.
pub const PD_KERNEL: u64 = 0x3000;
/// Page directory of the enclaves' GiB.
pub const PD_ENCLAVES: u64 = 0x4000;
/// Page table of the enclaves' 2 MiB: what the hostile kernel edits.
pub const PT_ENCLAVES: u64 = 0x5000;
/// Page table of RAM, which is mapped where it is.
pub const PT_RAM: u64 = 0x6000;
/// Global descriptor table.
pub const GDT: u64 = 0x7000;
/// Interrupt descriptor table.
pub const IDT: u64 = 0x8000;
/// Task-state segments, one for each processor.
pub const TSS: u64 = 0x9000;
/// Interrupt handlers: HLT, sixteen bytes each.
pub const HANDLERS: u64 = 0xa000;
/// The gadgets for CPL 0.
pub const KERNEL_CODE: u64 = 0xb000;
/// Top of the handlers' stack of processor 0; the others' are a page higher each.
pub const STACK_TOP: u64 = 0xd000;
/// Operands of ENCLS: PAGEINFO, SECINFO (+0x40), RDINFO (+0x80).
pub const OPERANDS: u64 = 0xe000;
/// Source of ECREATE and EADD.
pub const SOURCE: u64 = 0xf000;
/// SIGSTRUCT, and in the next page EINITTOKEN.
pub const SIGSTRUCT: u64 = 0x1_0000;
/// EINITTOKEN.
pub const TOKEN: u64 = 0x1_1000;
/// The gadgets for CPL 3.
pub const USER_CODE: u64 = 0x1_2000;
/// Pages without a use of their own, for user mode.
pub const SPARE: u64 = 0x1_4000;
/// How many.
pub const SPARES: u64 = 4;
/// PCMD and PAGEINFO of evicted pages, 256 bytes for each place.
pub const SWAP_META: u64 = 0x1_8000;
/// Content of evicted pages.
pub const SWAP: u64 = 0x2_0000;
/// Places for evicted pages.
pub const SWAPS: u64 = 16;

/// First byte of the EPC, physical and in the kernel's window.
pub const EPC: u64 = 0x20_0000;
/// Pages of the EPC.
pub const EPC_PAGES: u64 = 48;

/// Linear range that [`PT_ENCLAVES`] maps.
pub const ENCLAVES: u64 = 0x4000_0000;
/// Bytes of an enclave's range.
pub const ELRANGE: u64 = 0x2_0000;
/// Pages of it.
pub const ELPAGES: u64 = ELRANGE / PAGE;
/// Base addresses of the enclaves that are built. Two are the same: their pages
/// differ in nothing but the owner.
pub const BASES: [u64; 3] = [ENCLAVES, ENCLAVES + 0x4_0000, ENCLAVES];
/// Linear addresses whose page table the kernel puts into the EPC at times.
pub const EPC_TABLE: u64 = ENCLAVES + 0x20_0000;

/// Selectors.
pub const CODE0: u16 = 0x08;
/// Data segment of CPL 0.
pub const DATA0: u16 = 0x10;
/// Data segment of CPL 3.
pub const DATA3: u16 = 0x23;
/// Code segment of CPL 3.
pub const CODE3: u16 = 0x2b;

/// One instruction, followed by a jump to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Gadget {
    Spin,
    Load64,
    Store64,
    Load8,
    Store8,
    Xadd,
    CmpXchg16,
    Movs,
    Stos,
    VLoad,
    VStore,
    Push,
    Jump,
    Enclu,
    Encls,
    Ud2,
    Int3,
    Cpuid,
    Divide,
    Cr3,
}

/// The gadgets' instructions.
const CODE: [(Gadget, &[u8]); 20] = [
    (Gadget::Spin, &[]),
    (Gadget::Load64, &[0x48, 0x8b, 0x03]),           // mov rax, [rbx]
    (Gadget::Store64, &[0x48, 0x89, 0x0b]),          // mov [rbx], rcx
    (Gadget::Load8, &[0x0f, 0xb6, 0x03]),            // movzx eax, byte [rbx]
    (Gadget::Store8, &[0x88, 0x0b]),                 // mov [rbx], cl
    (Gadget::Xadd, &[0xf0, 0x48, 0x0f, 0xc1, 0x0b]), // lock xadd [rbx], rcx
    (Gadget::CmpXchg16, &[0xf0, 0x48, 0x0f, 0xc7, 0x0e]), // lock cmpxchg16b [rsi]
    (Gadget::Movs, &[0xf3, 0xa4]),                   // rep movsb
    (Gadget::Stos, &[0xf3, 0xaa]),                   // rep stosb
    (Gadget::VLoad, &[0xc5, 0xfe, 0x6f, 0x03]),      // vmovdqu ymm0, [rbx]
    (Gadget::VStore, &[0xc5, 0xfe, 0x7f, 0x03]),     // vmovdqu [rbx], ymm0
    (Gadget::Push, &[0x51]),                         // push rcx
    (Gadget::Jump, &[0xff, 0xe3]),                   // jmp rbx
    (Gadget::Enclu, &[0x0f, 0x01, 0xd7]),
    (Gadget::Encls, &[0x0f, 0x01, 0xcf]),
    (Gadget::Ud2, &[0x0f, 0x0b]),
    (Gadget::Int3, &[0xcc]),
    (Gadget::Cpuid, &[0x0f, 0xa2]),
    (Gadget::Divide, &[0xf7, 0xf1]),    // div ecx
    (Gadget::Cr3, &[0x0f, 0x22, 0xd8]), // mov cr3, rax
];

/// A jump to itself.
pub const SPIN: [u8; 2] = [0xeb, 0xfe];

/// MOV EAX, `value`; JMP to itself; NOP.
pub fn patch(value: u32) -> u64 {
    0x90fe_eb00_0000_00b8 | u64::from(value) << 8
}

/// What code does that processors jump to: nothing, or the value that EAX gets. `None`
/// if it is neither.
pub fn effect(code: &[u8]) -> Option<Option<u32>> {
    match *code {
        [0xeb, 0xfe, ..] => Some(None),
        [0xb8, a, b, c, d, 0xeb, 0xfe, ..] => Some(Some(u32::from_le_bytes([a, b, c, d]))),
        _ => None,
    }
}

impl Gadget {
    /// Its offset in a page of gadgets.
    pub fn offset(self) -> u64 {
        self as u64 * 32
    }
    /// Bytes of its instruction.
    pub fn bytes(self) -> u64 {
        CODE[self as usize].1.len() as u64
    }
}

/// Where an exit from an enclave goes on: the spin at CPL 3.
pub const AEP: u64 = USER_CODE;

/// A page of gadgets.
pub fn code_page() -> Vec<u8> {
    let mut page = vec![0xcc; PAGE as usize];
    for (gadget, bytes) in CODE {
        let at = gadget.offset() as usize;
        page[at..at + bytes.len()].copy_from_slice(bytes);
        page[at + bytes.len()..at + bytes.len() + 2].copy_from_slice(&SPIN);
    }
    page
}

// Pages of an enclave as it is built, by offset in its range.
/// The gadgets.
pub const P_CODE: u64 = 0;
/// Readable and writable.
pub const P_DATA: u64 = 1;
/// With all permissions.
pub const P_RWX: u64 = 2;
/// The first of two TCS.
pub const P_TCS: u64 = 3;
/// SSA frames: two for each TCS.
pub const P_SSA: u64 = 5;
/// Read-only.
pub const P_RO: u64 = 9;
/// Executable and no more.
pub const P_X: u64 = 10;
/// The first page that a built enclave leaves free.
pub const P_FREE: u64 = 11;
