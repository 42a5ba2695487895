//! Architectural state of a logical processor, at fixed offsets.

use arch::descriptor::Attr;
use arch::regs::{Cr0, Cr4, Efer, Xcr0, dr6, dr7, mxcsr};
use mem::raw::Width;

use crate::flags::LazyFlags;

/// The general registers, and two more that make addressing uniform.
///
/// Operands are named by byte offset: `8 * number`, plus one for AH–BH.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(8))]
pub struct Regs([u64; 18]);

impl Regs {
    /// Offset of a register that is always zero: "no base", "no index".
    pub const ZERO: u8 = 16 * 8;
    /// Offset of the register that holds the value of RIP at the first byte
    /// of the current block's page: the base of RIP-relative addresses.
    pub const PAGE_IP: u8 = 17 * 8;

    /// Reads a 64-bit register by number (0–15).
    #[inline(always)]
    pub fn get(&self, number: usize) -> u64 {
        self.0[number & 15]
    }

    /// Writes a 64-bit register by number (0–15).
    #[inline(always)]
    pub fn set(&mut self, number: usize, value: u64) {
        self.0[number & 15] = value;
    }

    /// Reads `W` at a byte offset.
    #[inline(always)]
    pub fn read<W: Width>(&self, offset: u8) -> W {
        debug_assert!(u64::from(offset) + W::BYTES <= size_of::<Self>() as u64);
        // SAFETY: offsets come from the decoder: `8 * n (+ 1 for bytes)` with
        // n < 18, so the access lies inside the array; u64 loads are aligned.
        unsafe { (&raw const self.0).cast::<u8>().add(offset as usize).cast::<W>().read_unaligned() }
    }

    /// Writes `W` at a byte offset as instructions do: a 32-bit write clears
    /// the upper half, 8- and 16-bit writes leave the rest.
    #[inline(always)]
    pub fn write<W: Width>(&mut self, offset: u8, value: W) {
        debug_assert!(u64::from(offset) + W::BYTES <= size_of::<Self>() as u64);
        // SAFETY: as for `read`; offsets with 4- or 8-byte widths are multiples of 8.
        unsafe {
            let at = (&raw mut self.0).cast::<u8>().add(offset as usize);
            if W::BYTES == 4 {
                at.cast::<u64>().write(value.zext());
            } else {
                at.cast::<W>().write_unaligned(value);
            }
        }
    }

    /// Reads 64 bits at a byte offset.
    #[inline(always)]
    pub fn read64(&self, offset: u8) -> u64 {
        self.read::<u64>(offset)
    }

    /// Sets the pseudo-register behind [`Regs::PAGE_IP`].
    #[inline(always)]
    pub fn set_page_ip(&mut self, value: u64) {
        self.0[17] = value;
    }
    /// The pseudo-register behind [`Regs::PAGE_IP`].
    #[inline(always)]
    pub fn page_ip(&self) -> u64 {
        self.0[17]
    }
}

/// A segment register with its hidden part (*SDM vol. 3A §3.4.3*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Visible selector.
    pub selector: u16,
    /// Attributes; zero (not present) for a null selector.
    pub attr: Attr,
    /// Last valid offset.
    pub limit: u32,
    /// Linear base address.
    pub base: u64,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TableRegister {
    /// Linear base address.
    pub base: u64,
    /// Last valid offset.
    pub limit: u16,
}

/// x87 state: registers in stack order as FXSAVE stores them (*SDM vol. 1 §8, §10.5.1*).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct X87 {
    /// ST(0)–ST(7), or MM registers rotated by TOP; 80 bits used of each.
    pub st: [u128; 8],
    /// Control word.
    pub cw: u16,
    /// Status word, TOP included.
    pub sw: u16,
    /// Abridged tag byte by *physical* register: 1 = not empty.
    pub tag: u8,
    /// Last opcode, 11 bits.
    pub fop: u16,
    /// Last instruction pointer.
    pub fip: u64,
    /// Last data pointer.
    pub fdp: u64,
    /// Selector of the last instruction.
    pub fcs: u16,
    /// Selector of the last data operand.
    pub fds: u16,
}

impl Default for X87 {
    /// The state after FNINIT.
    fn default() -> Self {
        Self { st: [0; 8], cw: 0x37f, sw: 0, tag: 0, fop: 0, fip: 0, fdp: 0, fcs: 0, fds: 0 }
    }
}

/// One vector register: 512 bits, of which the model's CPUID says how many exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct VectorReg(pub [u64; 8]);

/// The architectural state.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct State {
    /// General registers.
    pub regs: Regs,
    /// Instruction pointer; exact between blocks and while a fault is handled.
    pub rip: u64,
    /// Status flags, lazily.
    pub flags: LazyFlags,
    /// The other bits of RFLAGS (status bits zero, bit 1 set).
    pub rflags: u64,
    /// ES, CS, SS, DS, FS, GS.
    pub seg: [Segment; 6],
    /// LDTR.
    pub ldtr: Segment,
    /// TR.
    pub tr: Segment,
    /// GDTR.
    pub gdtr: TableRegister,
    /// IDTR.
    pub idtr: TableRegister,
    /// Current privilege level.
    pub cpl: u8,
    /// CR0.
    pub cr0: Cr0,
    /// CR2.
    pub cr2: u64,
    /// CR3, bit 63 clear.
    pub cr3: u64,
    /// PDPTE0–PDPTE3, the registers of PAE paging (*SDM vol. 3A §4.4.1*).
    pub pdpte: [u64; 4],
    /// CR4.
    pub cr4: Cr4,
    /// IA32_EFER.
    pub efer: Efer,
    /// XCR0.
    pub xcr0: Xcr0,
    /// DR0–DR3.
    pub dr: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7.
    pub dr7: u64,
    /// MXCSR.
    pub mxcsr: u32,
    /// x87 and MMX.
    pub x87: X87,
    /// XMM/YMM/ZMM registers.
    pub vec: [VectorReg; 32],
    /// AVX-512 mask registers.
    pub opmask: [u64; 8],
    /// Model-specific registers that are plain storage.
    pub msr: Msrs,
    /// Enclave mode, with the registers that are of it alone; changed through
    /// [`sgx::Port::set_thread`] only, which also changes the translations.
    pub enclave: Option<Box<sgx::Thread>>,
}

/// Model-specific registers with a value of their own.
#[derive(Clone, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub tsc_aux: u64,
    pub tsc_adjust: u64,
    pub pat: u64,
    pub misc_enable: u64,
    pub spec_ctrl: u64,
    pub mtrr_def_type: u64,
    pub mtrr_fixed: [u64; 11],
    pub mtrr_variable: [u64; 20],
    pub mcg_status: u64,
    /// IA32_MC0_CTL, STATUS, ADDR and MISC.
    pub mc0: [u64; 4],
    pub microcode: u64,
}

impl State {
    /// State after RESET (*SDM vol. 3A table 9-1*); the board sets RIP and
    /// segments if it starts a kernel directly.
    pub fn reset() -> Self {
        let data = Segment { selector: 0, attr: Attr(0x9300), limit: 0xffff, base: 0 };
        let code = Segment { selector: 0xf000, attr: Attr(0x9b00), limit: 0xffff, base: 0xffff_0000 };
        let mut regs = Regs::default();
        // Family, model and stepping are in EDX after reset; set by `Cpu::reset`.
        regs.set(arch::regs::gpr::RDX, 0);
        State {
            regs,
            rip: 0xfff0,
            flags: LazyFlags::default(),
            rflags: arch::regs::rflags::FIXED,
            seg: [data, code, data, data, data, data],
            ldtr: Segment { attr: Attr::LDT, limit: 0xffff, ..Segment::default() },
            tr: Segment { attr: Attr(0x8b00), limit: 0xffff, ..Segment::default() },
            gdtr: TableRegister { base: 0, limit: 0xffff },
            idtr: TableRegister { base: 0, limit: 0xffff },
            cpl: 0,
            cr0: Cr0::from_bits_retain(0x6000_0010),
            cr2: 0,
            cr3: 0,
            pdpte: [0; 4],
            cr4: Cr4::empty(),
            efer: Efer::empty(),
            xcr0: Xcr0::X87,
            dr: [0; 4],
            dr6: dr6::FIXED,
            dr7: dr7::FIXED,
            mxcsr: mxcsr::RESET,
            // RESET leaves the x87 registers zero and not empty, the control
            // word 0x40: what FNINIT changes is what software relies on.
            x87: X87 { cw: 0x40, tag: 0xff, ..X87::default() },
            vec: [VectorReg::default(); 32],
            opmask: [0; 8],
            msr: Msrs { pat: 0x0007_0406_0007_0406, misc_enable: 1, ..Msrs::default() },
            enclave: None,
        }
    }

    /// RFLAGS as PUSHF and exception delivery see it.
    #[inline]
    pub fn rflags(&self) -> u64 {
        self.rflags | self.flags.get()
    }

    /// True in IA-32e mode with a 64-bit code segment.
    #[inline(always)]
    pub fn long64(&self) -> bool {
        self.efer.contains(Efer::LMA) && self.seg[1].attr.long()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn register_writes_have_the_widths_of_instructions() {
        let mut regs = Regs::default();
        regs.set(0, u64::MAX);
        regs.write::<u8>(1, 0x12); // AH
        assert_eq!(regs.get(0), 0xffff_ffff_ffff_12ff);
        regs.write::<u16>(0, 0x3456);
        assert_eq!(regs.get(0), 0xffff_ffff_ffff_3456);
        regs.write::<u32>(0, 7);
        assert_eq!(regs.get(0), 7);
        assert_eq!(regs.read64(Regs::ZERO), 0);
    }
}
