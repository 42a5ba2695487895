//! INT n, INT3, INT1, INTO, IRET, HLT (*SDM vol. 3A chapter 6; vol. 2A*).

use arch::regs::{Seg, rflags};
use arch::{Exception, Vector};
use iced_x86::{Code, Mnemonic as M};
use mem::raw::Width;

use crate::chain::{any, branch};
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Gate, Group, Row};
use crate::{Activity, Cpu};

type Ran = Result<Flow, Exception>;

impl Cpu {
    /// What calls a handler clears TF, and the single-step trap with it
    /// (*SDM vol. 3B §17.3.1.4*).
    fn untraced(&mut self, was_traced: bool) {
        if was_traced {
            self.traced = Some(false);
        }
    }
}

fn software(cpu: &mut Cpu, op: &Op, vector: u8) -> Ran {
    let traced = cpu.s.rflags & rflags::TF != 0;
    cpu.software_interrupt(vector, cpu.next_rip(op))?;
    cpu.untraced(traced);
    Ok(Flow::Jump)
}

fn int(cpu: &mut Cpu, op: &Op) -> Ran {
    software(cpu, op, op.imm as u8)
}

/// Inside an enclave INT3 and INT1 are faults, and `#UD` unless the entry opted
/// in to debugging (*SDM vol. 3D, "INT3 Consideration"*).
fn enclave_trap(cpu: &Cpu, opted_in: Exception) -> Result<(), Exception> {
    match &cpu.s.enclave {
        None => Ok(()),
        Some(thread) if thread.debug_opt_in => Err(opted_in),
        Some(_) => Err(Exception::UD),
    }
}

fn int3(cpu: &mut Cpu, op: &Op) -> Ran {
    enclave_trap(cpu, Exception::new(Vector::Breakpoint, 0))?;
    software(cpu, op, Vector::Breakpoint as u8)
}

fn into(cpu: &mut Cpu, op: &Op) -> Ran {
    if !cpu.s.flags.of() {
        return Ok(Flow::Next);
    }
    software(cpu, op, Vector::Overflow as u8)
}

fn int1(cpu: &mut Cpu, op: &Op) -> Ran {
    enclave_trap(cpu, Exception::DB)?;
    let traced = cpu.s.rflags & rflags::TF != 0;
    cpu.debug_interrupt(cpu.next_rip(op))?;
    cpu.untraced(traced);
    Ok(Flow::Jump)
}

fn int_build(b: &mut Build<'_>) -> Option<Handler> {
    b.op.imm = i32::from(b.insn.immediate8());
    Some(branch(int))
}

/// RFLAGS bits IRET changes from privilege level `cpl` (*SDM vol. 2A, IRET*).
fn iret_mask(cpl: u8, iopl: u8, width: u64) -> u64 {
    use rflags::{AC, DF, ID, IF, IOPL, NT, RF, STATUS, TF};
    let mut mask = STATUS | TF | DF | NT | RF | AC | ID;
    if cpl <= iopl {
        mask |= IF;
    }
    if cpl == 0 {
        mask |= IOPL;
    }
    if width == 2 { mask & 0xffff } else { mask }
}

fn iret<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    // Even an IRET that faults ends the blocking (SDM vol. 3A §6.7.1).
    cpu.nmi_blocked = false;
    let n = W::BYTES as i64;
    if cpu.protected() && cpu.s.rflags & rflags::NT != 0 {
        if !cpu.ia32e() {
            // A return from a nested task: task switches are not implemented.
            cpu.note_unimplemented(op);
        }
        return Err(Exception::GP0);
    }
    let ip = cpu.peek::<W>(0)?.zext();
    let selector = cpu.peek::<W>(n)?.zext() as u16;
    let image = cpu.peek::<W>(2 * n)?.zext();
    let mask = iret_mask(cpu.s.cpl, (cpu.s.rflags >> 12 & 3) as u8, W::BYTES);
    if !cpu.protected() {
        let code = &mut cpu.s.seg[Seg::Cs as usize];
        if ip > u64::from(code.limit) {
            return Err(Exception::GP0);
        }
        code.selector = selector;
        code.base = u64::from(selector) << 4;
        cpu.drop_stack(3 * n as u64);
    } else {
        if !cpu.ia32e() && W::BYTES == 4 && image & rflags::VM != 0 && cpu.s.cpl == 0 {
            // Virtual-8086 mode is not implemented.
            cpu.note_unimplemented(op);
            return Err(Exception::GP0);
        }
        let code = cpu.return_segment(selector, ip)?;
        let cpl = selector as u8 & 3;
        let outer = cpl > cpu.s.cpl;
        if outer || cpu.s.long64() {
            let rsp = cpu.peek::<W>(3 * n)?.zext();
            let ss = cpu.peek::<W>(4 * n)?.zext() as u16;
            let stack = cpu.return_stack(ss, &code, cpl)?;
            cpu.s.seg[Seg::Ss as usize] = stack;
            cpu.s.seg[Seg::Cs as usize] = code;
            cpu.set_switched_rsp(rsp);
        } else {
            cpu.drop_stack(3 * n as u64);
            cpu.s.seg[Seg::Cs as usize] = code;
        }
        cpu.s.cpl = cpl;
        if outer {
            cpu.drop_inner_segments();
        }
    }
    cpu.s.rip = ip;
    cpu.set_rflags(image, mask);
    Ok(Flow::Jump)
}

fn iret_build(b: &mut Build<'_>) -> Option<Handler> {
    Some(match b.insn.code() {
        Code::Iretw => branch(iret::<u16>),
        Code::Iretd => branch(iret::<u32>),
        _ => branch(iret::<u64>),
    })
}

fn hlt(cpu: &mut Cpu, _op: &Op) -> Ran {
    cpu.require_cpl0()?;
    cpu.activity = Activity::Halted;
    Ok(Flow::Next)
}

const INT: &str = "INT n/INTO/INT3/INT1—Call to Interrupt Procedure";
const IRET: &str = "IRET/IRETD/IRETQ—Interrupt Return";

const fn row(mnemonic: M, sdm: &'static str, build: crate::ops::Builder) -> Row {
    Row::new(mnemonic, sdm, Group::Control, build).ends()
}

/// This file's part of the instruction table.
pub(in crate::exec) const ROWS: &[Row] = &[
    row(M::Int, INT, int_build).outside(),
    row(M::Int3, INT, |_| Some(branch(int3))),
    row(M::Into, INT, |_| Some(any(into))).outside(),
    row(M::Int1, INT, |_| Some(branch(int1))),
    row(M::Iret, IRET, iret_build).outside(),
    row(M::Iretd, IRET, iret_build).outside(),
    row(M::Iretq, IRET, iret_build).outside(),
    Row::new(M::Hlt, "HLT—Halt", Group::System, |_| Some(any(hlt))).gate(Gate::Cpl0).ends(),
];
