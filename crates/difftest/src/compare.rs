//! Comparison of two outcomes.

use iced_x86::Instruction;

use crate::differences;
use crate::snapshot::{COMPARED_FLAGS, Outcome, Registers};

const GPR: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// What differs, one line each: empty if nothing that is defined does.
pub fn compare(insn: &Instruction, before: &Registers, host: &Outcome, kluis: &Outcome) -> Vec<String> {
    let mut lines = Vec::new();
    let mut differ = |what: String, host: String, kluis: String| {
        lines.push(format!("{what}: host {host}, kluis {kluis}"));
    };
    if host.fault != kluis.fault {
        let show = |outcome: &Outcome| match outcome.fault {
            None => "no fault".to_string(),
            Some(f) => format!("vector {} error {:#x} address {:#x}", f.vector, f.error, f.address),
        };
        differ("fault".into(), show(host), show(kluis));
    }
    let (h, k) = (&host.regs, &kluis.regs);
    if h.rip != k.rip {
        differ("rip".into(), format!("{:#x}", h.rip), format!("{:#x}", k.rip));
    }
    for (i, name) in GPR.into_iter().enumerate() {
        if h.gpr[i] != k.gpr[i] {
            differ(name.into(), format!("{:#018x}", h.gpr[i]), format!("{:#018x}", k.gpr[i]));
        }
    }
    let undefined = if host.fault.is_some() { 0 } else { differences::undefined_flags(insn, before) };
    let mask = COMPARED_FLAGS & !undefined;
    if (h.rflags ^ k.rflags) & mask != 0 {
        differ("rflags".into(), flags(h.rflags & mask), flags(k.rflags & mask));
    }
    for i in 0..16 {
        if h.ymm[i] != k.ymm[i] {
            differ(format!("ymm{i}"), words(&h.ymm[i]), words(&k.ymm[i]));
        }
    }
    for (name, h, k) in [
        ("mxcsr", h.mxcsr, k.mxcsr),
        ("x87 control word", h.cw.into(), k.cw.into()),
        ("x87 status word", h.sw.into(), k.sw.into()),
        ("x87 tag byte", h.tag.into(), k.tag.into()),
    ] {
        if h != k {
            differ(name.into(), format!("{h:#06x}"), format!("{k:#06x}"));
        }
    }
    for i in 0..8 {
        if h.st[i] != k.st[i] {
            differ(format!("st{i}"), format!("{:#022x}", h.st[i]), format!("{:#022x}", k.st[i]));
        }
    }
    lines
}

fn words(words: &[u64; 4]) -> String {
    format!("{:016x}_{:016x}_{:016x}_{:016x}", words[3], words[2], words[1], words[0])
}

/// RFLAGS by names.
pub fn flags(value: u64) -> String {
    use arch::regs::rflags::{AC, AF, CF, DF, ID, NT, OF, PF, SF, ZF};
    let names = [
        ("ID", ID),
        ("AC", AC),
        ("NT", NT),
        ("OF", OF),
        ("DF", DF),
        ("SF", SF),
        ("ZF", ZF),
        ("AF", AF),
        ("PF", PF),
        ("CF", CF),
    ];
    let on: Vec<_> = names.iter().filter(|(_, bit)| value & bit != 0).map(|(name, _)| *name).collect();
    if on.is_empty() { "-".into() } else { on.join(" ") }
}

/// Registers in full, for a report.
pub fn show(regs: &Registers, fpu: bool) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for (i, name) in GPR.iter().enumerate() {
        let _ = write!(text, "{name:>4} {:016x}{}", regs.gpr[i], if i % 4 == 3 { "\n" } else { " " });
    }
    let _ = writeln!(text, " rip {:016x} rflags {}", regs.rip, flags(regs.rflags));
    if fpu {
        for (i, ymm) in regs.ymm.iter().enumerate() {
            let _ = writeln!(text, "ymm{i:<2} {}", words(ymm));
        }
        for (i, st) in regs.st.iter().enumerate() {
            let _ = write!(text, " st{i} {st:020x}{}", if i % 2 == 1 { "\n" } else { " " });
        }
        let _ = writeln!(
            text,
            "mxcsr {:04x} cw {:04x} sw {:04x} tag {:02x}",
            regs.mxcsr, regs.cw, regs.sw, regs.tag
        );
    }
    text
}
