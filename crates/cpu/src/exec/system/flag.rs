//! PUSHF, POPF, CLI, STI, CLAC, STAC (*SDM vol. 1 §7.3.13; vol. 2*).

use arch::Exception;
use arch::regs::{Cr4, rflags};
use iced_x86::{Code, Mnemonic as M};
use mem::raw::Width;

use crate::Cpu;
use crate::chain::{any, pure};
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Gate, Group, Row};

type Ran = Result<Flow, Exception>;

impl Cpu {
    /// Replaces the bits of RFLAGS in `mask` by those of `image`.
    #[inline]
    pub fn set_rflags(&mut self, image: u64, mask: u64) {
        let status = mask & rflags::STATUS;
        self.s.flags.update(status, image);
        let other = mask & !rflags::STATUS;
        self.s.rflags = self.s.rflags & !other | image & other | rflags::FIXED;
        self.update_rights();
    }

    fn iopl(&self) -> u8 {
        (self.s.rflags >> 12 & 3) as u8
    }
}

fn pushf<W: Width>(cpu: &mut Cpu, _op: &Op) -> Ran {
    let image = cpu.s.rflags() & !(rflags::VM | rflags::RF);
    cpu.push(W::truncate(image))?;
    Ok(Flow::Next)
}

fn popf<W: Width>(cpu: &mut Cpu, _op: &Op) -> Ran {
    use rflags::{AC, DF, ID, IF, IOPL, NT, RF, STATUS, TF};
    let image = cpu.peek::<W>(0)?.zext();
    cpu.drop_stack(W::BYTES);
    let mut mask = STATUS | TF | DF | NT;
    if W::BYTES > 2 {
        mask |= AC | ID;
    }
    if cpu.s.cpl <= cpu.iopl() {
        mask |= IF;
    }
    if cpu.s.cpl == 0 {
        mask |= IOPL;
    }
    // An enclave entered without opting in to debugging cannot set TF (*SDM
    // vol. 3D, "Restriction on Setting of TF after an Opt-Out Entry"*).
    let hidden = if cpu.s.enclave.as_ref().is_some_and(|t| !t.debug_opt_in) { TF } else { 0 };
    cpu.set_rflags(image & !(RF | hidden), mask | RF);
    Ok(Flow::Next)
}

fn pushf_build(b: &mut Build<'_>) -> Option<Handler> {
    Some(match b.insn.code() {
        Code::Pushfw => any(pushf::<u16>),
        Code::Pushfd => any(pushf::<u32>),
        _ => any(pushf::<u64>),
    })
}

fn popf_build(b: &mut Build<'_>) -> Option<Handler> {
    Some(match b.insn.code() {
        Code::Popfw => any(popf::<u16>),
        Code::Popfd => any(popf::<u32>),
        _ => any(popf::<u64>),
    })
}

fn require_iopl(cpu: &Cpu) -> Result<(), Exception> {
    if cpu.s.cpl > cpu.iopl() { Err(Exception::GP0) } else { Ok(()) }
}

fn cli(cpu: &mut Cpu, _op: &Op) -> Ran {
    require_iopl(cpu)?;
    cpu.s.rflags &= !rflags::IF;
    Ok(Flow::Next)
}

/// STI; if it enables interrupts, only after the next instruction.
fn sti(cpu: &mut Cpu, _op: &Op) -> Ran {
    require_iopl(cpu)?;
    if cpu.s.rflags & rflags::IF == 0 {
        cpu.s.rflags |= rflags::IF;
        cpu.shadow = true;
    }
    Ok(Flow::Next)
}

/// STI before the last instruction of its block: interrupts are looked for
/// between blocks, so they wait for that instruction anyhow.
fn sti_inside(cpu: &mut Cpu, _op: &Op) -> Ran {
    require_iopl(cpu)?;
    cpu.s.rflags |= rflags::IF;
    Ok(Flow::Next)
}

/// The handler of an STI that the last instruction of its block follows.
pub(crate) fn sti_before_last() -> Handler {
    pure(sti_inside)
}

fn require_smap(cpu: &Cpu) -> Result<(), Exception> {
    // CLAC and STAC need CPL 0, else #UD; CR4.SMAP itself may be off.
    if cpu.s.cpl == 0 { Ok(()) } else { Err(Exception::UD) }
}

fn clac(cpu: &mut Cpu, _op: &Op) -> Ran {
    require_smap(cpu)?;
    cpu.s.rflags &= !rflags::AC;
    access_rights_changed(cpu);
    Ok(Flow::Next)
}

fn stac(cpu: &mut Cpu, _op: &Op) -> Ran {
    require_smap(cpu)?;
    cpu.s.rflags |= rflags::AC;
    access_rights_changed(cpu);
    Ok(Flow::Next)
}

fn access_rights_changed(cpu: &mut Cpu) {
    if cpu.s.cr4.contains(Cr4::SMAP) {
        cpu.update_rights();
    }
}

const PUSHF: &str = "PUSHF/PUSHFD/PUSHFQ—Push EFLAGS/RFLAGS Register Onto the Stack";
const POPF: &str = "POPF/POPFD/POPFQ—Pop Stack Into EFLAGS/RFLAGS Register";

const fn row(mnemonic: M, sdm: &'static str, build: crate::ops::Builder) -> Row {
    Row::new(mnemonic, sdm, Group::FlagControl, build)
}

/// This file's part of the instruction table.
pub(in crate::exec) const ROWS: &[Row] = &[
    row(M::Pushf, PUSHF, pushf_build),
    row(M::Pushfd, PUSHF, pushf_build),
    row(M::Pushfq, PUSHF, pushf_build),
    row(M::Popf, POPF, popf_build).ends(),
    row(M::Popfd, POPF, popf_build).ends(),
    row(M::Popfq, POPF, popf_build).ends(),
    row(M::Cli, "CLI—Clear Interrupt Flag", |_| Some(pure(cli))).gate(Gate::Control),
    row(M::Sti, "STI—Set Interrupt Flag", |_| Some(any(sti))).gate(Gate::Control),
    row(M::Clac, "CLAC—Clear AC Flag in EFLAGS Register", |_| Some(any(clac))).gate(Gate::Control),
    row(M::Stac, "STAC—Set AC Flag in EFLAGS Register", |_| Some(any(stac))).gate(Gate::Control),
];
