//! Which registers gdb is told of, in which order (*Debugging with GDB, "i386
//! Features"*): those of x86-64, or, of a machine that has not entered 64-bit mode,
//! those of the i386, without which gdb does not decode 16- and 32-bit code.

use std::ops::Range;
use std::sync::LazyLock;

use arch::regs::{Efer, gpr};
use cpu::Cpu;

/// One that gdb knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Layout {
    /// `i386:x86-64`
    #[default]
    Long,
    /// `i386`
    Legacy,
    /// The same with 16-bit code: `i8086`. gdb decodes by the name alone, and holds to the
    /// one that it was told.
    Legacy16,
}

/// gdb's order of the general registers.
const LONG_GPR: [(&str, usize); 16] = [
    ("rax", gpr::RAX),
    ("rbx", gpr::RBX),
    ("rcx", gpr::RCX),
    ("rdx", gpr::RDX),
    ("rsi", gpr::RSI),
    ("rdi", gpr::RDI),
    ("rbp", gpr::RBP),
    ("rsp", gpr::RSP),
    ("r8", 8),
    ("r9", 9),
    ("r10", 10),
    ("r11", 11),
    ("r12", 12),
    ("r13", 13),
    ("r14", 14),
    ("r15", 15),
];
const LEGACY_GPR: [(&str, usize); 8] = [
    ("eax", gpr::RAX),
    ("ecx", gpr::RCX),
    ("edx", gpr::RDX),
    ("ebx", gpr::RBX),
    ("esp", gpr::RSP),
    ("ebp", gpr::RBP),
    ("esi", gpr::RSI),
    ("edi", gpr::RDI),
];
/// gdb's order of the segment registers, by their numbers.
const SEGMENTS: [(&str, usize); 6] = [("cs", 1), ("ss", 2), ("ds", 3), ("es", 0), ("fs", 4), ("gs", 5)];
const X87: [&str; 8] = ["fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"];
const FLAGS: [(&str, u32); 14] = [
    ("CF", 0),
    ("PF", 2),
    ("AF", 4),
    ("ZF", 6),
    ("SF", 7),
    ("TF", 8),
    ("IF", 9),
    ("DF", 10),
    ("OF", 11),
    ("NT", 14),
    ("RF", 16),
    ("VM", 17),
    ("AC", 18),
    ("ID", 21),
];
const VECTOR_TYPES: &str = "\
    <vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>\
    <vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" type=\"int16\" count=\"8\"/>\
    <vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" type=\"int64\" count=\"2\"/>\
    <union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>\
    <field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>\
    <field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>\
    <field name=\"uint128\" type=\"uint128\"/></union>";

/// What a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Gpr(usize),
    Rip,
    Rflags,
    Segment(usize),
    St(usize),
    X87(usize),
    Xmm(usize),
    Mxcsr,
    YmmHigh(usize),
    FsBase,
    GsBase,
    KernelGsBase,
    Cr0,
    Cr2,
    Cr3,
    Cr4,
    Cr8,
    Efer,
}

/// A register in a layout.
pub(super) struct Register {
    pub(super) what: What,
    pub(super) bytes: usize,
}

struct Description {
    registers: Vec<Register>,
    xml: String,
}

impl Description {
    fn add(&mut self, name: &str, what: What, bytes: usize, kind: &str) {
        self.xml += &format!("<reg name=\"{name}\" bitsize=\"{}\" type=\"{kind}\"/>", 8 * bytes);
        self.registers.push(Register { what, bytes });
    }

    fn feature(&mut self, name: &str, add: impl FnOnce(&mut Self)) {
        self.xml += &format!("<feature name=\"{name}\">");
        add(self);
        self.xml += "</feature>";
    }

    fn general(&mut self, gprs: &[(&str, usize)], ip: &str, bytes: usize) {
        self.xml += "<flags id=\"i386_eflags\" size=\"4\">";
        for (name, bit) in FLAGS {
            self.xml += &format!("<field name=\"{name}\" start=\"{bit}\" end=\"{bit}\"/>");
        }
        self.xml += "</flags>";
        let number = format!("int{}", 8 * bytes);
        for &(name, register) in gprs {
            let kind = if matches!(register, gpr::RBP | gpr::RSP) { "data_ptr" } else { &number };
            self.add(name, What::Gpr(register), bytes, kind);
        }
        self.add(ip, What::Rip, bytes, "code_ptr");
        self.add("eflags", What::Rflags, 4, "i386_eflags");
        for (name, number) in SEGMENTS {
            self.add(name, What::Segment(number), 4, "int32");
        }
        for i in 0..8 {
            self.add(&format!("st{i}"), What::St(i), 10, "i387_ext");
        }
        for (i, name) in X87.iter().enumerate() {
            self.add(name, What::X87(i), 4, "int");
        }
    }

    fn vectors(&mut self, count: usize) {
        self.feature("org.gnu.gdb.i386.sse", |all| {
            all.xml += VECTOR_TYPES;
            (0..count).for_each(|i| all.add(&format!("xmm{i}"), What::Xmm(i), 16, "vec128"));
            all.add("mxcsr", What::Mxcsr, 4, "int32");
        });
        self.feature("org.gnu.gdb.i386.avx", |all| {
            (0..count).for_each(|i| all.add(&format!("ymm{i}h"), What::YmmHigh(i), 16, "uint128"));
        });
    }

    fn of(layout: Layout) -> Description {
        let mut all = Description { registers: Vec::new(), xml: String::new() };
        all.xml +=
            "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">";
        all.xml += match layout {
            Layout::Long => "<architecture>i386:x86-64</architecture>",
            Layout::Legacy => "<architecture>i386</architecture>",
            Layout::Legacy16 => "<architecture>i8086</architecture>",
        };
        all.feature("org.gnu.gdb.i386.core", |all| match layout {
            Layout::Long => all.general(&LONG_GPR, "rip", 8),
            Layout::Legacy | Layout::Legacy16 => all.general(&LEGACY_GPR, "eip", 4),
        });
        match layout {
            Layout::Long => all.vectors(16),
            Layout::Legacy | Layout::Legacy16 => all.vectors(8),
        }
        if layout == Layout::Long {
            all.feature("org.gnu.gdb.i386.segments", |all| {
                all.add("fs_base", What::FsBase, 8, "int64");
                all.add("gs_base", What::GsBase, 8, "int64");
            });
        }
        all.feature("kluis.system", |all| {
            if layout == Layout::Long {
                all.add("k_gs_base", What::KernelGsBase, 8, "int64");
            }
            for (name, what) in
                [("cr0", What::Cr0), ("cr2", What::Cr2), ("cr3", What::Cr3), ("cr4", What::Cr4)]
            {
                all.add(name, what, 8, "int64");
            }
            if layout == Layout::Long {
                all.add("cr8", What::Cr8, 8, "int64");
            }
            all.add("efer", What::Efer, 8, "int64");
        });
        all.xml += "</target>";
        all
    }
}

static LONG: LazyLock<Description> = LazyLock::new(|| Description::of(Layout::Long));
static LEGACY: LazyLock<Description> = LazyLock::new(|| Description::of(Layout::Legacy));
static LEGACY16: LazyLock<Description> = LazyLock::new(|| Description::of(Layout::Legacy16));

impl Layout {
    /// That for a processor as it is now.
    pub(super) fn of(cpu: &Cpu) -> Layout {
        match (cpu.s.efer.contains(Efer::LMA), cpu.s.seg[1].attr.big()) {
            (true, _) => Layout::Long,
            (false, true) => Layout::Legacy,
            (false, false) => Layout::Legacy16,
        }
    }

    fn description(self) -> &'static Description {
        match self {
            Layout::Long => &LONG,
            Layout::Legacy => &LEGACY,
            Layout::Legacy16 => &LEGACY16,
        }
    }

    /// The target description.
    pub(super) fn xml(self) -> &'static str {
        &self.description().xml
    }

    /// The registers, by gdb's numbers.
    pub(super) fn registers(self) -> &'static [Register] {
        &self.description().registers
    }

    /// Where register `number` is in the values of all.
    pub(super) fn place(self, number: usize) -> Option<Range<usize>> {
        let registers = self.registers();
        let start = registers.get(..number)?.iter().map(|r| r.bytes).sum();
        Some(start..start + registers.get(number)?.bytes)
    }

    /// The number of the instruction pointer.
    pub(super) fn ip(self) -> usize {
        match self {
            Layout::Long => LONG_GPR.len(),
            Layout::Legacy | Layout::Legacy16 => LEGACY_GPR.len(),
        }
    }
}
