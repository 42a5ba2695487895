//! INVLPG, INVPCID, and the cache-control instructions (*SDM vol. 3A §4.10.4,
//! §11.5; vol. 2*). There is no cache to control; addresses are checked.

use arch::Exception;
use arch::paging::is_canonical;
use arch::regs::Cr4;
use iced_x86::Mnemonic as M;
use mem::raw::Width;

use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::mmu::walk::Access;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Gate, Group, Row};

type Ran = Result<Flow, Exception>;

impl Cpu {
    /// The address space CR3 and CR4.PCIDE name.
    fn pcid(&self) -> u16 {
        if self.s.cr4.contains(Cr4::PCIDE) { self.s.cr3 as u16 & 0xfff } else { 0 }
    }

    /// Makes CR3's address space the current one; `flush` forgets what is known of it.
    pub(super) fn select_address_space(&mut self, flush: bool) {
        let pcid = self.pcid();
        if sgx::planted!(ExitFlush) && !flush && self.s.enclave.is_none() {
            return;
        }
        self.tlb.select(pcid, flush);
        self.forget_enclave_translations();
    }

    /// Chooses the translations of enclave mode, none, after entering it; those
    /// of the address space after leaving it.
    pub(crate) fn select_mode(&mut self) {
        self.select_address_space(false);
    }

    /// Forgets all translations.
    pub(crate) fn flush_all(&mut self) {
        self.tlb.flush_all();
        let pcid = self.pcid();
        self.tlb.select(pcid, true);
        self.forget_enclave_translations();
    }

    fn invalidate_page(&mut self, la: u64) {
        self.tlb.invalidate_page(la);
        self.forget_enclave_translations();
    }
}

fn invlpg(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.require_cpl0()?;
    let la = cpu.ea(op, 1, false)?;
    // An address that is not canonical names no translation.
    if is_canonical(la) {
        cpu.invalidate_page(la);
    }
    Ok(Flow::Next)
}

/// INVPCID (*SDM vol. 2A*).
fn invpcid<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.require_cpl0()?;
    let kind = cpu.s.regs.read::<W>(op.dst).zext();
    let la = cpu.ea(op, 16, false)?;
    let mut bytes = [0; 16];
    cpu.read_bytes(la, &mut bytes, op.seg)?;
    let descriptor = u128::from_le_bytes(bytes);
    let (low, address) = (descriptor as u64, (descriptor >> 64) as u64);
    if kind > 3 || low >> 12 != 0 {
        return Err(Exception::GP0);
    }
    let pcid = low as u16;
    if kind < 2 && pcid != 0 && !cpu.s.cr4.contains(Cr4::PCIDE) {
        return Err(Exception::GP0);
    }
    match kind {
        0 if !is_canonical(address) => return Err(Exception::GP0),
        // Of every address space: more than asked for.
        0 => cpu.invalidate_page(address),
        1 => {
            let current = cpu.pcid();
            cpu.tlb.flush_pcid(pcid, current);
            cpu.forget_enclave_translations();
        }
        _ => cpu.flush_all(),
    }
    Ok(Flow::Next)
}

fn invpcid_build(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    if b.width(0) == 8 { Some(any(invpcid::<u64>)) } else { Some(any(invpcid::<u32>)) }
}

/// CLFLUSH, CLFLUSHOPT, CLWB fault as a load of a byte does.
fn flush_line(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, 1, false)?;
    cpu.check(la, 1, op.seg)?;
    cpu.translate(la, Access::Read, cpu.rights())?;
    Ok(Flow::Next)
}

fn privileged_nop(cpu: &mut Cpu, _op: &Op) -> Ran {
    cpu.require_cpl0()?;
    Ok(Flow::Next)
}

const fn row(mnemonic: M, sdm: &'static str, build: crate::ops::Builder) -> Row {
    Row::new(mnemonic, sdm, Group::System, build)
}

/// This file's part of the instruction table.
pub(in crate::exec) const ROWS: &[Row] = &[
    row(M::Invlpg, "INVLPG—Invalidate TLB Entries", |_| Some(any(invlpg))).gate(Gate::Cpl0).ends(),
    row(M::Invpcid, "INVPCID—Invalidate Process-Context Identifier", invpcid_build).gate(Gate::Cpl0).ends(),
    row(M::Invd, "INVD—Invalidate Internal Caches", |_| Some(any(privileged_nop))).gate(Gate::Cpl0),
    row(M::Wbinvd, "WBINVD—Write Back and Invalidate Cache", |_| Some(any(privileged_nop))).gate(Gate::Cpl0),
    row(M::Clflush, "CLFLUSH—Flush Cache Line", |_| Some(any(flush_line))),
    row(M::Clflushopt, "CLFLUSHOPT—Flush Cache Line Optimized", |_| Some(any(flush_line))),
    row(M::Clwb, "CLWB—Cache Line Write Back", |_| Some(any(flush_line))),
];
