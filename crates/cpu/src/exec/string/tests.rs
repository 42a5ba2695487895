//! Spans against the same elements one by one: with a TLB that gives no fast path
//! every element is looked at.

use std::sync::{Arc, Mutex};

use arch::Exception;
use arch::descriptor::Attr;
use arch::paging::pte;
use arch::regs::{Cr0, Cr4, Efer, Seg, gpr, rflags};
use mem::Ram;

use crate::bus::NoBus;
use crate::cache::Mode;
use crate::chain::run_one;
use crate::decode::decode_one;
use crate::mmu::tlb::NO_FAST_PATH;
use crate::op::Flow;
use crate::state::Segment;
use crate::{Cpu, Model, Shared};

const RAM: u64 = 0x20000;
/// From here on memory is compared.
const FIRST: u64 = 0x6000;
/// Two pages to read and write, as those before, then one that is not mapped.
const DATA: u64 = 0x10000;
const HOLE: u64 = 0x12000;
/// One page to read and write, then one that is read-only.
const OTHER: u64 = 0x13000;
const READ_ONLY: u64 = 0x14000;

/// A processor in `mode` with its pages mapped where they are.
fn cpu(mode: Mode) -> Cpu {
    let ram = Ram::new(&[(0, RAM)]).unwrap();
    let table = pte::P | pte::W;
    let write = |at: u64, value: u64| assert!(ram.write(at, &value.to_le_bytes()));
    for at in [0x1000, 0x2000, 0x3000] {
        write(at, (at + 0x1000) | table);
    }
    for page in 0..RAM >> 12 {
        let flags = match page << 12 {
            HOLE => 0,
            READ_ONLY => pte::P,
            _ => table,
        };
        write(0x4000 + page * 8, page << 12 | flags);
    }
    let shared = Arc::new(Shared::new(Arc::new(Mutex::new(()))));
    let mut cpu = Cpu::new(0, Arc::new(Model::xeon_8370c()), ram, Arc::new(NoBus::default()), shared);
    cpu.s.cr0 = Cr0::PE | Cr0::PG | Cr0::WP | Cr0::NE | Cr0::ET;
    cpu.s.cr4 = Cr4::PAE;
    cpu.s.cr3 = 0x1000;
    cpu.s.efer = Efer::LME | Efer::LMA;
    cpu.s.seg[1].attr = if mode == Mode::Bits64 { Attr::CODE64 } else { Attr(0x00c0_9b00) };
    cpu.flush_all();
    cpu.update_rights();
    cpu
}

#[derive(Clone, Copy, Debug)]
struct Case {
    mode: Mode,
    opcode: u8,
    width: u64,
    prefix: Option<u8>,
    address_prefix: bool,
    down: bool,
    count: u64,
    from: u64,
    to: u64,
}

/// What the instruction gave after so many turns; registers, flags, the address of
/// a fault, memory.
type Outcome = (Result<(), Exception>, u32, [u64; 16], u64, Option<u64>, Vec<u8>);

/// Everything that a case leaves behind; `data` is what memory holds from [`FIRST`] on.
fn outcome(cpu: &mut Cpu, data: &[u8], case: Case, fast: bool) -> Outcome {
    assert!(cpu.ram.write(FIRST, data));
    cpu.flush_all();
    cpu.update_rights();
    cpu.s.flags = Default::default();
    cpu.s.rflags = rflags::FIXED;
    // 16-bit indices count from the data. Outside 64-bit mode ES begins elsewhere, and
    // ends inside a page.
    let sixteen = case.mode != Mode::Bits64 && case.address_prefix;
    let base = if sixteen { DATA } else { 0 };
    let segment = Segment { selector: 8, attr: Attr(0x00c0_9300), limit: u32::MAX, base };
    for seg in [Seg::Ds, Seg::Ss] {
        cpu.s.seg[seg as usize] = segment;
    }
    let limit = (OTHER + 0x4ff - 0x800 - base) as u32;
    cpu.s.seg[Seg::Es as usize] = Segment { base: base + 0x800, limit, ..segment };
    let mut code = Vec::new();
    code.extend(case.prefix);
    code.extend(case.address_prefix.then_some(0x67));
    code.extend((case.width == 2).then_some(0x66));
    code.extend((case.width == 8).then_some(0x48));
    code.push(case.opcode | u8::from(case.width != 1));
    let op = decode_one(cpu, &code, 0, case.mode);
    cpu.s.regs.set(gpr::RSI, case.from - base);
    cpu.s.regs.set(gpr::RDI, case.to - base);
    cpu.s.regs.set(gpr::RCX, case.count);
    cpu.s.regs.set(gpr::RAX, 0x1111_1111_1111_1111);
    if case.down {
        cpu.s.rflags |= rflags::DF;
    }
    let mut turns = 0;
    let ran = loop {
        if !fast {
            cpu.tlb.set_rights(NO_FAST_PATH);
        }
        turns += 1;
        match run_one(cpu, &op) {
            // A chunk is done.
            Ok(Flow::Jump) => assert!(turns < 10),
            ran => break ran,
        }
    };
    let mut memory = vec![0; data.len()];
    assert!(cpu.ram.read(FIRST, &mut memory));
    let regs: [u64; 16] = std::array::from_fn(|n| cpu.s.regs.get(n));
    (ran.map(|_| ()), turns, regs, cpu.s.rflags(), ran.is_err().then_some(cpu.fault_addr), memory)
}

#[test]
fn a_span_does_what_its_elements_do() {
    // Runs of equal bytes, some of which differ between the places that are compared.
    let data: Vec<u8> =
        (FIRST..READ_ONLY + 0x1000).map(|at| if at % 0x3fd == 0 { at as u8 } else { 0x11 }).collect();
    let mut faults = 0;
    for mode in [Mode::Bits64, Mode::Bits32] {
        let mut cpu = cpu(mode);
        for (opcode, prefixes) in
            [(0xa4, 2), (0xa6, 3), (0xaa, 2), (0xac, 2), (0xae, 3)].map(|(o, n)| (o, &[0, 0xf3, 0xf2][..n]))
        {
            for &prefix in prefixes {
                for width in [1, 2, 4, 8] {
                    if width == 8 && mode != Mode::Bits64 {
                        continue;
                    }
                    for (from, to) in [
                        (DATA, OTHER),
                        (DATA + 0xff3, OTHER + 0xc01),
                        (DATA + 0x1ff0, DATA + 3),
                        (OTHER + 0xffd, DATA + 0x1fe5),
                        // One over the other, either way.
                        (DATA + 0x100, DATA + 0x103),
                        (DATA + 0x103, DATA + 0x100),
                        (DATA + 0x100, DATA + 0x100),
                    ] {
                        for count in [0, 1, 9, 4099] {
                            for (down, address_prefix) in [(false, false), (true, false), (false, true)] {
                                let prefix = (prefix != 0).then_some(prefix);
                                #[rustfmt::skip]
                                let case = Case {
                                    mode, opcode, width, prefix, address_prefix, down, count, from, to,
                                };
                                let slow = outcome(&mut cpu, &data, case, false);
                                assert!(outcome(&mut cpu, &data, case, true) == slow, "{case:x?}");
                                faults += usize::from(slow.0.is_err());
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(faults > 100, "cases end in faults too");
}
