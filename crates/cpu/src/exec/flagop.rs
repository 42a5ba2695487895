//! Flag control: CLC, STC, CMC, CLD, STD (*SDM vol. 1 §7.3.13*). CLI, STI, PUSHF
//! and POPF are in [`super::system`].

use arch::Exception;
use arch::regs::rflags;
use iced_x86::Mnemonic as M;

use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Group, Row};

type Ran = Result<Flow, Exception>;

fn clc(cpu: &mut Cpu, _op: &Op) -> Ran {
    cpu.s.flags.set_cf(false);
    Ok(Flow::Next)
}

fn stc(cpu: &mut Cpu, _op: &Op) -> Ran {
    cpu.s.flags.set_cf(true);
    Ok(Flow::Next)
}

fn cmc(cpu: &mut Cpu, _op: &Op) -> Ran {
    let cf = cpu.s.flags.cf();
    cpu.s.flags.set_cf(!cf);
    Ok(Flow::Next)
}

fn cld(cpu: &mut Cpu, _op: &Op) -> Ran {
    cpu.s.rflags &= !rflags::DF;
    Ok(Flow::Next)
}

fn std(cpu: &mut Cpu, _op: &Op) -> Ran {
    cpu.s.rflags |= rflags::DF;
    Ok(Flow::Next)
}

macro_rules! fixed {
    ($name:ident, $handler:ident) => {
        fn $name(_b: &mut Build<'_>) -> Option<Handler> {
            Some(any($handler))
        }
    };
}
fixed!(clc_build, clc);
fixed!(stc_build, stc);
fixed!(cmc_build, cmc);
fixed!(cld_build, cld);
fixed!(std_build, std);

/// This file's part of the instruction table.
pub(super) const ROWS: &[Row] = &[
    Row::new(M::Clc, "CLC—Clear Carry Flag", Group::FlagControl, clc_build),
    Row::new(M::Stc, "STC—Set Carry Flag", Group::FlagControl, stc_build),
    Row::new(M::Cmc, "CMC—Complement Carry Flag", Group::FlagControl, cmc_build),
    Row::new(M::Cld, "CLD—Clear Direction Flag", Group::FlagControl, cld_build),
    Row::new(M::Std, "STD—Set Direction Flag", Group::FlagControl, std_build),
];
