//! A processor's state in words, for whoever has to find out what the guest did.

use std::fmt::Write;

use cpu::Cpu;

const GPR: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// Registers, segments, control registers, code bytes and exception counts.
pub(crate) fn state(cpu: &Cpu) -> String {
    let s = &cpu.s;
    let mut out = format!("processor {} after {} instructions\n", cpu.id, cpu.retired);
    for row in 0..4 {
        for column in 0..4 {
            let n = row * 4 + column;
            let _ = write!(out, "{:>4} {:016x}", GPR[n], s.regs.get(n));
        }
        out.push('\n');
    }
    let _ = writeln!(out, " rip {:016x} rflags {:08x} cpl {}", s.rip, s.rflags(), s.cpl);
    let _ = writeln!(
        out,
        " cr0 {:016x} cr2 {:016x} cr3 {:016x} cr4 {:016x} efer {:x}",
        s.cr0.bits(),
        s.cr2,
        s.cr3,
        s.cr4.bits(),
        s.efer.bits()
    );
    for (name, segment) in ["es", "cs", "ss", "ds", "fs", "gs"].iter().zip(&s.seg) {
        let _ = write!(out, "  {name} {:04x} {:x}", segment.selector, segment.base);
    }
    let _ = writeln!(
        out,
        "\n gdt {:x}+{:x} idt {:x}+{:x} tr {:04x} {:x}",
        s.gdtr.base, s.gdtr.limit, s.idtr.base, s.idtr.limit, s.tr.selector, s.tr.base
    );
    let _ = write!(out, " code");
    for i in 0..16 {
        let mut byte = [0];
        let la = s.rip.wrapping_add(s.seg[1].base).wrapping_add(i);
        match cpu.debug_translate(la) {
            Some(gpa) if cpu.ram.read(gpa, &mut byte) => {
                let _ = write!(out, " {:02x}", byte[0]);
            }
            _ => out.push_str(" ??"),
        }
    }
    let _ = write!(out, "\n exceptions");
    for (vector, count) in cpu.exceptions.iter().enumerate().filter(|(_, count)| **count != 0) {
        let _ = write!(out, " {vector}:{count}");
    }
    out
}

/// Instructions met that Kluis does not know, one a line.
pub(crate) fn unimplemented(cpu: &Cpu) -> Vec<String> {
    let line = |&(la, bytes): &(u64, [u8; 15])| {
        let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        format!("processor {} at {la:#x}: {}", cpu.id, hex.join(" "))
    };
    cpu.unimplemented.iter().map(line).collect()
}
