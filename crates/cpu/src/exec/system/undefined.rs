//! Instructions that are always `#UD`: UD0, UD1, UD2, and those of extensions
//! that no model has (VMX, SVM, SMX, SMM).

use iced_x86::Mnemonic as M;

use crate::ops::{Gate, Group, Row};

const fn undefined(mnemonic: M, sdm: &'static str) -> Row {
    Row::new(mnemonic, sdm, Group::System, |_| None).gate(Gate::Control)
}

const UD: &str = "UD—Undefined Instruction";
const VMX: &str = "VMX instructions (vol. 3C chapter 30)";
const SVM: &str = "AMD64 SVM instructions";

/// This file's part of the instruction table.
pub(in crate::exec) const ROWS: &[Row] = &[
    undefined(M::Ud0, UD),
    undefined(M::Ud1, UD),
    undefined(M::Ud2, UD),
    undefined(M::Vmcall, VMX),
    undefined(M::Vmlaunch, VMX),
    undefined(M::Vmresume, VMX),
    undefined(M::Vmxoff, VMX),
    undefined(M::Vmxon, VMX),
    undefined(M::Vmptrld, VMX),
    undefined(M::Vmptrst, VMX),
    undefined(M::Vmclear, VMX),
    undefined(M::Vmread, VMX),
    undefined(M::Vmwrite, VMX),
    undefined(M::Vmfunc, VMX),
    undefined(M::Invept, VMX),
    undefined(M::Invvpid, VMX),
    undefined(M::Vmrun, SVM),
    undefined(M::Vmmcall, SVM),
    undefined(M::Vmload, SVM),
    undefined(M::Vmsave, SVM),
    undefined(M::Stgi, SVM),
    undefined(M::Clgi, SVM),
    undefined(M::Skinit, SVM),
    undefined(M::Invlpga, SVM),
    undefined(M::Getsec, "GETSEC (vol. 2D chapter 6)"),
    undefined(M::Rsm, "RSM—Resume from System Management Mode"),
];
