//! The values of a processor's registers, in the order of a [`Layout`].
//!
//! `rip` is the linear address of the next instruction, segment base included, as all
//! addresses here are. Of a processor inside an enclave that is closed to
//! debuggers it is what an asynchronous exit would leave (*SDM vol. 3D,
//! "Asynchronous Enclave Exits"*): the asynchronous exit pointer, the stack and
//! segments of the host, and else nothing of the enclave.

use arch::regs::gpr;
use cpu::Cpu;
use cpu::state::VectorReg;

use super::layout::{Layout, What};

/// RAX after an asynchronous exit: the leaf number of ERESUME.
const ERESUME: u64 = 3;
/// RFLAGS that a debugger may write: status and control flags, TF, IF, DF, IOPL, NT,
/// RF, AC, ID.
const RFLAGS_WRITABLE: u64 = 0x27_7fd5;

/// The values of all registers.
pub(super) fn read(cpu: &Cpu, layout: Layout) -> Vec<u8> {
    let mut out = Vec::new();
    for register in layout.registers() {
        let value =
            if cpu.in_closed_enclave() { closed(cpu, register.what) } else { value(cpu, register.what) };
        out.extend(&value.to_le_bytes()[..register.bytes]);
    }
    out
}

/// What is told of a processor inside an enclave that is closed to debuggers.
fn closed(cpu: &Cpu, what: What) -> u128 {
    let Some(thread) = cpu.s.enclave.as_deref() else { return 0 };
    let segment = |number: usize| if number == 4 { thread.saved_fs_gs[0] } else { thread.saved_fs_gs[1] };
    match what {
        What::Gpr(gpr::RAX) => ERESUME.into(),
        What::Gpr(gpr::RBX) => thread.tcs_address.into(),
        What::Gpr(gpr::RCX) | What::Rip => thread.aep.into(),
        What::Gpr(gpr::RSP) => thread.outside_stack[0].into(),
        What::Gpr(gpr::RBP) => thread.outside_stack[1].into(),
        What::Rflags => (arch::regs::rflags::FIXED | arch::regs::rflags::IF).into(),
        What::Segment(number @ 4..) => segment(number).selector.into(),
        What::FsBase => segment(4).base.into(),
        What::GsBase => segment(5).base.into(),
        What::X87(0) => 0x37f,
        What::X87(2) => 0xffff,
        What::Mxcsr => arch::regs::mxcsr::RESET.into(),
        // outside an enclave's reach
        What::Segment(_) | What::KernelGsBase | What::Cr0 | What::Cr2 | What::Cr3 | What::Cr4 => {
            value(cpu, what)
        }
        What::Cr8 | What::Efer => value(cpu, what),
        _ => 0,
    }
}

fn wide(reg: &VectorReg, at: usize) -> u128 {
    u128::from(reg.0[at]) | u128::from(reg.0[at + 1]) << 64
}

fn value(cpu: &Cpu, what: What) -> u128 {
    let s = &cpu.s;
    match what {
        What::Gpr(number) => s.regs.get(number).into(),
        What::Rip if s.long64() => s.rip.into(),
        What::Rip => (s.rip.wrapping_add(s.seg[1].base) & 0xffff_ffff).into(),
        What::Rflags => s.rflags().into(),
        What::Segment(number) => s.seg[number].selector.into(),
        What::St(i) => s.x87.st[i] & ((1 << 80) - 1),
        What::X87(0) => s.x87.cw.into(),
        What::X87(1) => s.x87.sw.into(),
        What::X87(2) => tag_word(cpu).into(),
        What::X87(3) => s.x87.fcs.into(),
        What::X87(4) => (s.x87.fip & 0xffff_ffff).into(),
        What::X87(5) => s.x87.fds.into(),
        What::X87(6) => (s.x87.fdp & 0xffff_ffff).into(),
        What::X87(_) => s.x87.fop.into(),
        What::Xmm(i) => wide(&s.vec[i], 0),
        What::Mxcsr => s.mxcsr.into(),
        What::YmmHigh(i) => wide(&s.vec[i], 2),
        What::FsBase => s.seg[4].base.into(),
        What::GsBase => s.seg[5].base.into(),
        What::KernelGsBase => s.msr.kernel_gs_base.into(),
        What::Cr0 => (s.cr0.bits()).into(),
        What::Cr2 => s.cr2.into(),
        What::Cr3 => s.cr3.into(),
        What::Cr4 => (s.cr4.bits()).into(),
        What::Cr8 => cpu.read_cr8().into(),
        What::Efer => (s.efer.bits()).into(),
    }
}

/// The full tag word (*SDM vol. 1 §8.1.7*): valid, zero, special, empty.
fn tag_word(cpu: &Cpu) -> u16 {
    let x87 = &cpu.s.x87;
    let top = usize::from(x87.sw >> 11 & 7);
    (0..8).fold(0, |word, physical| {
        let value = x87.st[(8 + physical - top) & 7];
        let exponent = (value >> 64) as u16 & 0x7fff;
        let tag = match (x87.tag >> physical & 1, exponent, value as u64) {
            (0, ..) => 3,
            (_, 0, 0) => 1,
            (_, 1..0x7fff, mantissa) if mantissa >> 63 != 0 => 0,
            _ => 2,
        };
        word | tag << (2 * physical)
    })
}

/// Writes one register; false for one that is read-only, and inside an enclave that
/// is closed to debuggers.
pub(super) fn write(cpu: &mut Cpu, layout: Layout, number: usize, bytes: &[u8]) -> bool {
    let Some(register) = layout.registers().get(number) else { return false };
    if bytes.len() != register.bytes || cpu.in_closed_enclave() {
        return false;
    }
    let mut image = [0; 16];
    image[..bytes.len()].copy_from_slice(bytes);
    let new = u128::from_le_bytes(image);
    let s = &mut cpu.s;
    let set = |reg: &mut VectorReg, at: usize| (reg.0[at], reg.0[at + 1]) = (new as u64, (new >> 64) as u64);
    match register.what {
        What::Gpr(number) => s.regs.set(number, new as u64),
        What::Rip if s.long64() => s.rip = new as u64,
        What::Rip => s.rip = (new as u64).wrapping_sub(s.seg[1].base) & 0xffff_ffff,
        What::Rflags => cpu.set_rflags(new as u64, RFLAGS_WRITABLE),
        What::St(i) => s.x87.st[i] = new,
        What::Xmm(i) => set(&mut s.vec[i], 0),
        What::YmmHigh(i) => set(&mut s.vec[i], 2),
        What::FsBase => s.seg[4].base = new as u64,
        What::GsBase => s.seg[5].base = new as u64,
        What::KernelGsBase => s.msr.kernel_gs_base = new as u64,
        What::Cr2 => s.cr2 = new as u64,
        What::Mxcsr => return s.set_mxcsr(new as u32).is_ok(),
        What::Segment(_) | What::X87(_) | What::Cr0 | What::Cr3 | What::Cr4 | What::Cr8 | What::Efer => {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn cpu() -> Cpu {
        let model = Arc::new(cpu::Model::xeon_e_2288g());
        let ram = mem::Ram::new(&[(0, 0x1000)]).unwrap();
        let shared = cpu::shared::processors(1)[0].clone();
        Cpu::new(0, model, ram, Arc::new(cpu::bus::NoBus::default()), shared)
    }

    const LONG: Layout = Layout::Long;

    fn number(layout: Layout, what: What) -> usize {
        layout.registers().iter().position(|register| register.what == what).unwrap()
    }

    fn get(cpu: &Cpu, layout: Layout, what: What) -> u128 {
        let mut image = [0; 16];
        let bytes = &read(cpu, layout)[layout.place(number(layout, what)).unwrap()];
        image[..bytes.len()].copy_from_slice(bytes);
        u128::from_le_bytes(image)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut cpu = cpu();
        for (what, value) in [
            (What::Gpr(gpr::RSI), 0x1122_3344_5566_7788u128),
            (What::Rflags, 0x8d5),
            (What::St(3), 0x4000_8000_0000_0000_0000),
            (What::Xmm(15), u128::MAX / 3),
            (What::YmmHigh(0), u128::MAX / 5),
            (What::FsBase, 0x7f00_0000_1234),
            (What::KernelGsBase, 5),
            (What::Cr2, 77),
            (What::Mxcsr, 0x1fa0),
        ] {
            let n = number(LONG, what);
            let bytes = value.to_le_bytes()[..LONG.place(n).unwrap().len()].to_vec();
            assert!(write(&mut cpu, LONG, n, &bytes), "{what:?}");
            let expected = if what == What::Rflags { value | 2 } else { value };
            assert_eq!(get(&cpu, LONG, what), expected, "{what:?}");
            assert!(!write(&mut cpu, LONG, n, &bytes[1..]), "{what:?} of another size");
        }
        for what in [What::Cr0, What::Cr3, What::Cr4, What::Efer, What::Segment(1), What::X87(0)] {
            let bytes = vec![0; LONG.place(number(LONG, what)).unwrap().len()];
            assert!(!write(&mut cpu, LONG, number(LONG, what), &bytes), "{what:?}");
        }
        assert_eq!(LONG.place(LONG.registers().len()), None);
        // real mode: linear addresses
        cpu.s.seg[1].base = 0x1_0000;
        for layout in [LONG, Layout::Legacy, Layout::Legacy16] {
            let (ip, bytes) = (number(layout, What::Rip), layout.place(layout.ip()).unwrap().len());
            assert_eq!(ip, layout.ip());
            assert!(write(&mut cpu, layout, ip, &0x1_0200u64.to_le_bytes()[..bytes]));
            assert_eq!((cpu.s.rip, get(&cpu, layout, What::Rip)), (0x200, 0x1_0200));
        }
        // what the i386 has of a register
        let si = number(Layout::Legacy, What::Gpr(gpr::RSI));
        assert_eq!(get(&cpu, Layout::Legacy, What::Gpr(gpr::RSI)), 0x5566_7788);
        assert!(write(&mut cpu, Layout::Legacy, si, &[1, 2, 3, 4]));
        assert_eq!(cpu.s.regs.get(gpr::RSI), 0x0403_0201);
    }

    #[test]
    fn x87_tags_are_told_in_full() {
        let mut cpu = cpu();
        cpu.s.x87.sw = 6 << 11;
        cpu.s.x87.tag = 0b1110_0000;
        // ST(0) is physical register 6, ST(7) is 5
        cpu.s.x87.st[0] = 0x3fff_8000_0000_0000_0000;
        cpu.s.x87.st[1] = 0;
        cpu.s.x87.st[7] = 0x7fff_8000_0000_0000_0000;
        assert_eq!(tag_word(&cpu), 0b01_00_10_11_11_11_11_11);
    }

    #[test]
    fn of_a_closed_enclave_nothing_is_told() {
        const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;
        let mut cpu = cpu();
        let segment = sgx::port::Segment { selector: 0x2b, attr: 0, limit: 0, base: 0x7000 };
        let mut thread = sgx::Thread {
            enclave: sgx::enclave::Enclaves::default().add(sgx::EpcPage(0)),
            base: 0x10_0000,
            size: 0x10_0000,
            attributes: 0,
            xfrm: 3,
            miscselect: 0,
            ssa_frame_size: 1,
            tcs: sgx::EpcPage(1),
            tcs_address: 0x10_2000,
            tcs_flags: 0,
            ssa: Vec::new(),
            ssa_address: 0x10_3000,
            aep: 0x40_0100,
            epoch: 0,
            outside_stack: [0x7ffe_0000, 0x7ffe_1000],
            saved_fs_gs: [segment; 2],
            saved_xcr0: None,
            saved_tf: false,
            debug_opt_in: false,
        };
        (0..16).for_each(|n| cpu.s.regs.set(n, SECRET));
        cpu.s.rip = 0x10_0123;
        cpu.s.vec.iter_mut().for_each(|reg| reg.0 = [SECRET; 8]);
        cpu.s.x87.st = [SECRET.into(); 8];
        cpu.s.x87.fip = SECRET;
        cpu.s.x87.fdp = SECRET;
        (cpu.s.seg[4].base, cpu.s.seg[5].base) = (SECRET, SECRET);
        cpu.s.enclave = Some(Box::new(thread.clone()));
        let values = read(&cpu, LONG);
        for piece in SECRET.to_le_bytes().windows(3) {
            assert!(!values.windows(3).any(|window| window == piece));
        }
        let expected = [
            (What::Rip, 0x40_0100),
            (What::Gpr(gpr::RAX), 3),
            (What::Gpr(gpr::RBX), 0x10_2000),
            (What::Gpr(gpr::RCX), 0x40_0100),
            (What::Gpr(gpr::RDX), 0),
            (What::Gpr(gpr::RSP), 0x7ffe_0000),
            (What::Gpr(gpr::RBP), 0x7ffe_1000),
            (What::FsBase, 0x7000),
            (What::Segment(5), 0x2b),
        ];
        for (what, value) in expected {
            assert_eq!(get(&cpu, LONG, what), value, "{what:?}");
        }
        assert!(!write(&mut cpu, LONG, number(LONG, What::Gpr(gpr::RAX)), &[0; 8]));
        // an entry that opted in
        thread.debug_opt_in = true;
        cpu.s.enclave = Some(Box::new(thread));
        assert_eq!(get(&cpu, LONG, What::Gpr(gpr::RDX)), SECRET.into());
    }
}
