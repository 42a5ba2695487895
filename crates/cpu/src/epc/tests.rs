//! A processor with SGX on a few pages of memory and a small EPC: what enclave
//! code may do, what the outside sees of it, and how events take it out. The
//! enclave is put together by hand; the leaves have tests of their own.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use arch::descriptor::{Attr, Descriptor};
use arch::paging::{pf, pte};
use arch::regs::{Cr0, Cr4, Efer, Seg, Xcr0, gpr, rflags};
use mem::Ram;
use sgx::enclave::Enclave;
use sgx::epcm::{Entry, Flags};
use sgx::keys::Roots;
use sgx::{EpcPage, Package, Port, Thread};
use sgx_abi::PageType;

use crate::bus::NoBus;
use crate::sgx_port::CpuPort;
use crate::shared::{self, request};
use crate::state::{Segment, TableRegister};
use crate::{Activity, Cpu, Engine, Exit, Model, Shared};

const GDT: u64 = 0x5000;
const IDT: u64 = 0x6000;
const TSS: u64 = 0x7000;
const HANDLERS: u64 = 0x8000;
const KERNEL: u64 = 0x1_0000;
const STACK: u64 = 0x2_0000;
/// Where handlers have their stacks, one for each processor.
const STACK0: u64 = 0x2_8000;
const USER: u64 = 0x20_0000;
const USER_STACK: u64 = 0x21_0000;
/// Where an exit from the enclave continues.
const AEP: u64 = USER + 0x800;
/// RAM that nothing else uses, mapped for user mode.
const SPARE: u64 = 0x22_0000;
const CODE0: u16 = 0x08;
const DATA0: u16 = 0x10;
const DATA3: u16 = 0x23;
const CODE3: u16 = 0x2b;

const EPC: u64 = 0x200_0000;
const EPC_PAGES: u32 = 96;
/// ELRANGE.
const BASE: u64 = 0x4000_0000;
const SIZE: u64 = 0x10_0000;
const PT: u64 = 0x10_1000;

// Pages of the enclave.
const CODE: u64 = 0;
const DATA: u64 = 1;
const TCS: u64 = 2;
const SSA: u64 = 4;
const RWX: u64 = 6;
const HEAP: u64 = 8;
const HEAP_PAGES: u64 = 40;

fn at(page: u64) -> u64 {
    BASE + page * 0x1000
}

/// The EPC page of an enclave page; the SECS is number 0.
fn epc(page: u64) -> EpcPage {
    EpcPage(page as u32 + 1)
}

fn write64(ram: &Ram, at: u64, value: u64) {
    assert!(ram.write(at, &value.to_le_bytes()));
}

fn read64(ram: &Ram, at: u64) -> u64 {
    let mut bytes = [0; 8];
    assert!(ram.read(at, &mut bytes));
    u64::from_le_bytes(bytes)
}

fn handler(vector: u64) -> u64 {
    HANDLERS + vector * 16
}

mod leaves;
mod loss;
mod slots;

struct World {
    engines: Vec<Engine>,
    package: Arc<Package>,
    enclave: Arc<Enclave>,
    ram: Ram,
}

fn tables(ram: &Ram) {
    let all = pte::P | pte::W | pte::U;
    write64(ram, 0x1000, 0x2000 | all);
    write64(ram, 0x2000, 0x3000 | all);
    write64(ram, 0x2008, 0x10_0000 | all);
    write64(ram, 0x3000, pte::P | pte::W | pte::PS);
    write64(ram, 0x3008, USER | all | pte::PS);
    write64(ram, 0x10_0000, PT | all);
    for page in 0..HEAP + HEAP_PAGES {
        write64(ram, PT + page * 8, (EPC + (page + 1) * 0x1000) | all);
    }
    let code_attr = |dpl: u32| Attr(0x00a0_9b00 | dpl << 13);
    let descriptors = [
        (CODE0, code_attr(0)),
        (DATA0, Attr(0x00c0_9300)),
        (DATA3, Attr(0x00c0_f300)),
        (CODE3, code_attr(3)),
    ];
    for (selector, attr) in descriptors {
        write64(ram, GDT + u64::from(selector & !7), Descriptor::new(0, 0xf_ffff, attr).0);
    }
    for vector in 0..256 {
        let h = handler(vector);
        write64(ram, IDT + vector * 16, h & 0xffff | u64::from(CODE0) << 16 | 0xee << 40 | (h >> 16) << 48);
        ram.write(h, &[0xf4, 0xf4]);
    }
}

impl World {
    fn new(model: Model, processors: usize, cache: u32) -> World {
        let ram = Ram::with_top(&[(0, 16 << 20)], EPC + u64::from(EPC_PAGES) * 0x1000).unwrap();
        tables(&ram);
        let dram = mee::Dram::new(EPC_PAGES, mee::Config::new(cache, processors)).unwrap();
        let roots = Roots {
            seal_fuses: [1; 16],
            provisioning_fuses: [2; 16],
            owner_epoch: [3; 16],
            cpusvn: 1,
            svn_secret: [4; 32],
        };
        let package = Arc::new(Package::new(model.sgx(), dram, roots).unwrap());
        let enclave = package.enclaves.add(EpcPage(0));
        let world = World { engines: Vec::new(), package, enclave, ram };
        world.build();
        let (model, shared) = (Arc::new(model), shared::processors(processors));
        world.with_processors(model, &shared)
    }

    fn with_processors(mut self, model: Arc<Model>, shared: &[Arc<Shared>]) -> World {
        let listeners = shared.iter().map(|one| one.clone() as Arc<dyn mem::CodeListener>);
        self.ram.code().set_listeners(listeners.collect());
        for (id, shared) in shared.iter().enumerate() {
            let bus = Arc::new(NoBus::default());
            let mut cpu = Cpu::new(id, model.clone(), self.ram.clone(), bus, shared.clone());
            cpu.set_sgx(self.package.clone(), EPC);
            let tss = TSS + 0x100 * id as u64;
            write64(&self.ram, tss + 4, STACK0 + 0x1000 * id as u64);
            let s = &mut cpu.s;
            s.cr0 = Cr0::PE | Cr0::PG | Cr0::WP | Cr0::NE | Cr0::ET;
            s.cr4 = Cr4::PAE | Cr4::OSFXSR | Cr4::OSXSAVE | Cr4::FSGSBASE;
            s.cr3 = 0x1000;
            s.xcr0 = Xcr0::X87 | Xcr0::SSE | Xcr0::AVX;
            s.efer = Efer::SCE | Efer::LME | Efer::LMA | Efer::NXE;
            s.gdtr = TableRegister { base: GDT, limit: 0x57 };
            s.idtr = TableRegister { base: IDT, limit: 0xfff };
            s.tr = Segment { selector: 0x30, attr: Attr::TSS_BUSY, limit: 0x67, base: tss };
            cpu.set_segment_from_gdt(Seg::Ss, DATA0).unwrap();
            cpu.set_segment_from_gdt(Seg::Cs, CODE0).unwrap();
            for seg in [Seg::Ds, Seg::Es, Seg::Fs, Seg::Gs] {
                cpu.set_segment_from_gdt(seg, DATA3).unwrap();
            }
            cpu.activity = Activity::Active;
            cpu.state_changed();
            let mut engine = Engine::new(cpu);
            to_user(&mut engine);
            self.engines.push(engine);
        }
        self
    }

    fn entry(&self, page: u64, page_type: PageType, flags: Flags) {
        let entry =
            Entry { flags: flags | Flags::VALID, page_type, secs: EpcPage(0), address: at(page), epoch: 0 };
        self.package.epcm.set(epc(page), entry);
    }

    fn build(&self) {
        let secs = Entry { flags: Flags::VALID, page_type: PageType::Secs, address: 0, ..Entry::FREE };
        self.package.epcm.set(EpcPage(0), secs);
        let rw = Flags::R | Flags::W;
        self.entry(CODE, PageType::Reg, Flags::R | Flags::X);
        self.entry(DATA, PageType::Reg, rw);
        self.entry(RWX, PageType::Reg, Flags::RWX);
        for tcs in 0..2 {
            self.entry(TCS + tcs, PageType::Tcs, Flags::empty());
            self.entry(SSA + tcs, PageType::Reg, rw);
        }
        for page in HEAP..HEAP + HEAP_PAGES {
            self.entry(page, PageType::Reg, rw);
        }
    }

    /// Content of an enclave page.
    fn content(&self, page: u64, offset: usize, buf: &mut [u8]) {
        self.package.dram.read(epc(page).0, offset, buf).unwrap();
    }

    fn content64(&self, page: u64, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        self.content(page, offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn put(&self, page: u64, offset: usize, bytes: &[u8]) {
        self.package.dram.write(epc(page).0, offset, bytes).unwrap();
    }

    fn cpu(&mut self) -> &mut Cpu {
        &mut self.engines[0].cpu
    }

    /// Enters the enclave at `code`, put at the start of its code page.
    fn enter(&mut self, code: &[u8]) {
        self.put(CODE, 0, code);
        self.cpu().epc_written(epc(CODE));
        self.enter_at(0, at(CODE), false);
    }

    fn enter_at(&mut self, processor: usize, rip: u64, debug_opt_in: bool) {
        to_user(&mut self.engines[processor]);
        let epoch = self.enclave.with(|s| s.tracking.enter());
        let cpu = &mut self.engines[processor].cpu;
        let n = processor as u64;
        let port = CpuPort::new(cpu, 0, 0);
        let thread = Thread {
            enclave: self.enclave.clone(),
            base: BASE,
            size: SIZE,
            attributes: 5,
            xfrm: 7,
            miscselect: 0,
            ssa_frame_size: 1,
            tcs: epc(TCS + n),
            tcs_address: at(TCS + n),
            tcs_flags: 0,
            ssa: vec![Some(epc(SSA + n))],
            ssa_address: at(SSA + n),
            aep: AEP,
            epoch,
            outside_stack: [0; 2],
            saved_fs_gs: [port.segment(4), port.segment(5)],
            saved_xcr0: Some(7),
            saved_tf: false,
            debug_opt_in,
        };
        CpuPort::new(cpu, 0, 0).set_thread(Some(Box::new(thread)));
        cpu.s.rip = rip;
        cpu.s.regs.set(gpr::RBX, at(DATA));
        cpu.s.regs.set(gpr::RSP, at(DATA) + 0x800);
    }

    /// Runs until HLT in a handler: its vector.
    fn vector(&mut self) -> u64 {
        assert_eq!(self.engines[0].run(100_000), Exit::Idle);
        assert!(self.cpu().s.enclave.is_none(), "no handler runs in the enclave");
        (self.cpu().s.rip - 1 - HANDLERS) / 16
    }

    /// What the handler finds on its stack.
    fn frame<const N: usize>(&mut self) -> [u64; N] {
        let rsp = self.cpu().s.regs.get(gpr::RSP);
        std::array::from_fn(|i| read64(&self.ram, rsp + 8 * i as u64))
    }

    /// Runs enclave code that ends in a loop on the spot.
    fn spin(&mut self) {
        assert_eq!(self.engines[0].run(10_000), Exit::Budget);
        assert!(self.cpu().s.enclave.is_some());
    }
}

fn to_user(engine: &mut Engine) {
    let cpu = &mut engine.cpu;
    cpu.s.cpl = 0;
    cpu.set_segment_from_gdt(Seg::Ss, DATA3).unwrap();
    cpu.set_segment_from_gdt(Seg::Cs, CODE3).unwrap();
    cpu.s.rip = USER;
    cpu.s.regs.set(gpr::RSP, USER_STACK);
    cpu.s.rflags |= rflags::IF;
    cpu.activity = Activity::Active;
    cpu.update_rights();
}

fn world() -> World {
    World::new(Model::xeon_8370c(), 1, 64)
}

/// Runs code at CPL 3 outside: the vector it ends in.
fn outside(world: &mut World, code: &[u8]) -> u64 {
    world.ram.write(USER, code);
    to_user(&mut world.engines[0]);
    world.vector()
}

const SPIN: [u8; 2] = [0xeb, 0xfe];

#[test]
fn enclave_code_works_on_its_pages_and_on_memory_outside() {
    let mut w = world();
    // mov [rbx], rax; mov rcx, [rbx]; lock add [rbx+8], rax; mov [rdx], rcx; jmp .
    let code = [0x48, 0x89, 0x03, 0x48, 0x8b, 0x0b, 0xf0, 0x48, 0x01, 0x43, 0x08, 0x48, 0x89, 0x0a];
    w.enter(&[&code[..], &SPIN].concat());
    w.cpu().s.regs.set(gpr::RAX, 0x1122_3344_5566_7788);
    w.cpu().s.regs.set(gpr::RDX, SPARE);
    w.spin();
    assert_eq!(w.cpu().s.regs.get(gpr::RCX), 0x1122_3344_5566_7788);
    assert_eq!((w.content64(DATA, 0), w.content64(DATA, 8)), (0x1122_3344_5566_7788, 0x1122_3344_5566_7788));
    assert_eq!(read64(&w.ram, SPARE), 0x1122_3344_5566_7788);
}

/// *SDM vol. 3D, "Access Control Requirements"*: abort-page semantics.
#[test]
fn from_outside_the_epc_reads_as_ones_and_takes_no_writes() {
    let mut w = world();
    w.put(DATA, 0, &[0x5a; 64]);
    // mov rax, [rbx]; mov [rbx], rcx; lock xadd [rbx+8], rdx; rep movsb; movups xmm0, [rbx]; ud2
    let code = [0x48, 0x8b, 0x03, 0x48, 0x89, 0x0b, 0xf0, 0x48, 0x0f, 0xc1, 0x53, 0x08, 0xf3, 0xa4];
    let code = [&code[..], &[0x0f, 0x10, 0x03, 0x0f, 0x0b]].concat();
    for again in 0..2 {
        // The second time from inside and out again: no translation of the
        // enclave's survives.
        if again == 1 {
            w.enter(&[0x48, 0x8b, 0x03, 0x48, 0x89, 0x02, 0x0f, 0x0b]); // mov rax, [rbx]; mov [rdx], rax; ud2
            w.cpu().s.regs.set(gpr::RDX, SPARE);
            assert_eq!(w.vector(), 6);
            assert_eq!(read64(&w.ram, SPARE), 0x5a5a_5a5a_5a5a_5a5a, "nor one of the outside's");
        }
        let cpu = w.cpu();
        cpu.s.regs.set(gpr::RBX, at(DATA));
        cpu.s.regs.set(gpr::RCX, 32);
        cpu.s.regs.set(gpr::RDX, 7);
        // Four bytes before a boundary: RAM, then EPC.
        cpu.s.regs.set(gpr::RSI, at(DATA));
        cpu.s.regs.set(gpr::RDI, SPARE);
        assert_eq!(outside(&mut w, &code), 6);
        let cpu = w.cpu();
        assert_eq!(cpu.s.regs.get(gpr::RAX), u64::MAX);
        assert_eq!(cpu.s.regs.get(gpr::RDX), u64::MAX);
        assert_eq!(cpu.s.vec[0].0[..2], [u64::MAX; 2]);
        assert_eq!(read64(&w.ram, SPARE + 24), u64::MAX, "REP MOVS out of the EPC");
        assert_eq!(
            (w.content64(DATA, 0), w.content64(DATA, 8)),
            (0x5a5a_5a5a_5a5a_5a5a, 0x5a5a_5a5a_5a5a_5a5a)
        );
    }
}

#[test]
fn accesses_that_cross_into_the_epc_are_ones_there_only() {
    let mut w = world();
    // The page before ELRANGE's data page becomes RAM.
    write64(&w.ram, PT + (DATA - 1) * 8, SPARE | pte::P | pte::W | pte::U);
    w.ram.write(SPARE + 0xffc, &[1, 2, 3, 4]);
    w.put(DATA, 0, &[0x5a; 8]);
    w.cpu().s.regs.set(gpr::RBX, at(DATA) - 4);
    // mov rax, [rbx]; mov [rbx], rcx; ud2
    w.cpu().s.regs.set(gpr::RCX, 0x0807_0605_0d0c_0b0a);
    assert_eq!(outside(&mut w, &[0x48, 0x8b, 0x03, 0x48, 0x89, 0x0b, 0x0f, 0x0b]), 6);
    assert_eq!(w.cpu().s.regs.get(gpr::RAX), 0xffff_ffff_0403_0201);
    assert_eq!(w.content64(DATA, 0), 0x5a5a_5a5a_5a5a_5a5a);
    assert_eq!(read64(&w.ram, SPARE + 0xff8) >> 32, 0x0d0c_0b0a);
}

#[test]
fn from_outside_the_epc_executes_as_ones() {
    let mut w = world();
    w.put(CODE, 0, &[0x90, 0x0f, 0x05]);
    w.cpu().s.regs.set(gpr::RBX, at(CODE));
    assert_eq!(outside(&mut w, &[0xff, 0xe3]), 6); // jmp rbx: FF FF is undefined
    assert_eq!(w.frame::<1>(), [at(CODE)]);
}

#[test]
fn page_tables_in_the_epc_read_as_ones() {
    let mut w = world();
    w.put(DATA, 0, &[0; 64]);
    write64(&w.ram, 0x2010, (EPC + (DATA + 1) * 0x1000) | pte::P | pte::W | pte::U);
    w.cpu().s.regs.set(gpr::RBX, 0x8000_0000);
    assert_eq!(outside(&mut w, &[0x48, 0x8b, 0x03]), 14);
    assert_eq!(w.frame::<1>(), [u64::from(pf::P | pf::U | pf::RSVD)]);
}

/// *SDM vol. 3D, "Access Control Requirements"; "Page Fault Error Code"*.
#[test]
fn epcm_faults_have_the_sgx_bit_and_paging_faults_have_not() {
    let (read, write) = ([0x48, 0x8b, 0x03], [0x48, 0x89, 0x03]);
    let sgx = pf::P | pf::U | pf::SGX;
    let unmapped = at(HEAP + HEAP_PAGES + 3);
    let cases: [(&[u8], u64, u32, &str); 8] = [
        (&write, at(CODE) + 5, sgx | pf::W, "not writable"),
        (&[0xff, 0xe3], at(DATA) + 9, sgx | pf::I, "not executable"),
        (&read, at(TCS) + 3, sgx, "a TCS"),
        (&read, at(HEAP) + 0xff8, sgx, "another address in the EPCM"),
        (&read, at(HEAP + 1) + 1, sgx, "pending"),
        (&read, at(HEAP + 2) + 1, sgx, "blocked"),
        (&read, unmapped + 0x123, pf::U, "not mapped"),
        (&read, at(HEAP + 3), sgx, "RAM in ELRANGE"),
    ];
    for (code, address, expected, what) in cases {
        let mut w = world();
        w.package.epcm.update(epc(HEAP), |e| e.address += 0x1000);
        w.package.epcm.update(epc(HEAP + 1), |e| e.flags |= Flags::PENDING);
        w.package.epcm.update(epc(HEAP + 2), |e| e.flags |= Flags::BLOCKED);
        write64(&w.ram, PT + (HEAP + 3) * 8, SPARE | pte::P | pte::W | pte::U);
        w.enter(code);
        w.cpu().s.regs.set(gpr::RBX, address);
        assert_eq!(w.vector(), 14, "{what}");
        let [error, rip, cs, ..] = w.frame::<6>();
        assert_eq!((error, rip, cs as u16), (u64::from(expected), AEP, CODE3), "{what}");
        assert_eq!(w.cpu().s.cr2, address & !0xfff, "{what}: only the page is told");
    }
}

#[test]
fn an_enclave_executes_nothing_outside_elrange() {
    let mut w = world();
    w.enter(&[0xff, 0xe3]);
    w.cpu().s.regs.set(gpr::RBX, USER);
    assert_eq!(w.vector(), 13);
    let [error, rip, ..] = w.frame::<6>();
    assert_eq!((error, rip), (0, AEP));
}

/// *SDM vol. 3D, "Synthetic State on Asynchronous Enclave Exit"*.
#[test]
fn an_exception_leaves_nothing_of_the_enclave_in_the_registers() {
    let mut w = world();
    w.enter(&[0x0f, 0x0b]);
    let s = &mut w.cpu().s;
    for number in 0..16 {
        s.regs.set(number, 0x5ec2_e700 + number as u64);
    }
    s.vec[7].0 = [0x005e_c2e7; 8];
    s.vec[7].0[4..].fill(0);
    s.flags.set_all(rflags::STATUS);
    assert_eq!(w.vector(), 6);
    let [rip, _, flags, ..] = w.frame::<5>();
    assert_eq!(rip, AEP);
    assert_eq!(flags & (rflags::STATUS | rflags::RF), 0);
    let s = &w.cpu().s;
    assert_eq!(s.regs.get(gpr::RAX), 3, "ERESUME");
    assert_eq!((s.regs.get(gpr::RBX), s.regs.get(gpr::RCX)), (at(TCS), AEP));
    for number in [gpr::RDX, gpr::RSI, gpr::RDI, 8, 9, 15] {
        assert_eq!(s.regs.get(number), 0, "register {number}");
    }
    assert_eq!(s.vec[7].0, [0; 8]);
    assert_eq!(w.enclave.with(|s| s.tracking.inside()), 0);
}

#[test]
fn interrupts_nmi_and_init_take_the_processor_out() {
    let mut w = world();
    w.enter(&SPIN);
    w.spin();
    w.cpu().shared.request(request::NMI);
    assert_eq!(w.vector(), 2);
    assert_eq!(w.frame::<1>(), [AEP]);

    w.enter(&SPIN);
    w.cpu().s.vec[3].0[0] = 77;
    w.spin();
    w.cpu().shared.request(request::INIT);
    w.engines[0].run(1);
    assert!(w.cpu().s.enclave.is_none());
    assert_eq!(w.cpu().s.vec[3].0[0], 0, "INIT keeps vector registers, the exit does not");
    assert_eq!(w.enclave.with(|s| s.tracking.inside()), 0);
}

/// *SDM vol. 3D, "Illegal Instructions Inside an Enclave"*.
#[test]
fn illegal_instructions_are_undefined_inside_only() {
    let cases: [(&str, &[u8]); 28] = [
        ("cpuid", &[0x0f, 0xa2]),
        ("rdpmc", &[0x0f, 0x33]),
        ("sgdt", &[0x0f, 0x01, 0x03]),
        ("sidt", &[0x0f, 0x01, 0x0b]),
        ("sldt", &[0x0f, 0x00, 0xc0]),
        ("str", &[0x0f, 0x00, 0xc8]),
        ("smsw", &[0x0f, 0x01, 0xe0]),
        ("in", &[0xec]),
        ("out", &[0xee]),
        ("insb", &[0x6c]),
        ("outsb", &[0x6e]),
        ("rep outsd", &[0xf3, 0x6f]),
        ("int 80h", &[0xcd, 0x80]),
        ("iretq", &[0x48, 0xcf]),
        ("retf", &[0xcb]),
        ("retf 8", &[0xca, 8, 0]),
        ("call far", &[0xff, 0x1b]),
        ("jmp far", &[0xff, 0x2b]),
        ("lfs", &[0x48, 0x0f, 0xb4, 0x03]),
        ("lgs", &[0x48, 0x0f, 0xb5, 0x03]),
        ("lss", &[0x48, 0x0f, 0xb2, 0x03]),
        ("mov ds", &[0x8e, 0xd8]),
        ("mov fs, [rbx]", &[0x8e, 0x23]),
        ("pop fs", &[0x0f, 0xa1]),
        ("pop gs", &[0x0f, 0xa9]),
        ("syscall", &[0x0f, 0x05]),
        ("sysenter", &[0x0f, 0x34]),
        ("int3", &[0xcc]),
    ];
    for (name, code) in cases {
        let code = [code, &[0xcd, 0x21]].concat(); // int 21h ends what goes through
        let mut w = world();
        w.enter(&code);
        w.cpu().s.regs.set(gpr::RAX, 0);
        assert_eq!(w.vector(), 6, "{name}");
        assert_eq!(w.frame::<1>(), [AEP], "{name}");
        let mut w = world();
        w.cpu().s.regs.set(gpr::RBX, SPARE);
        w.cpu().s.regs.set(gpr::RAX, 0);
        w.ram.write(USER, &code);
        w.engines[0].run(3);
        assert_eq!(w.cpu().exceptions[6], 0, "{name} outside");
    }
}

#[test]
fn what_is_legal_inside_runs() {
    let cases: [(&str, &[u8]); 10] = [
        ("rdtsc", &[0x0f, 0x31]),
        ("rdtscp", &[0x0f, 0x01, 0xf9]),
        ("rdrand", &[0x0f, 0xc7, 0xf0]),
        ("xgetbv", &[0x31, 0xc9, 0x0f, 0x01, 0xd0]),
        ("pushf; popf", &[0x9c, 0x9d]),
        ("push fs", &[0x0f, 0xa0]),
        ("mov ax, ds", &[0x8c, 0xd8]),
        ("rdfsbase", &[0xf3, 0x48, 0x0f, 0xae, 0xc0]),
        ("call; ret", &[0xe8, 2, 0, 0, 0, 0xeb, 1, 0xc3]),
        ("vaddps", &[0xc5, 0xfc, 0x58, 0xc0]),
    ];
    for (name, code) in cases {
        let mut w = world();
        w.enter(&[code, &SPIN].concat());
        assert_eq!(w.engines[0].run(1000), Exit::Budget, "{name}");
        assert!(w.cpu().s.enclave.is_some(), "{name}");
    }
    // Without SGX2 the time-stamp counter is not for enclaves.
    let mut w = World::new(Model::xeon_e_2288g(), 1, 64);
    w.enter(&[0x0f, 0x31]);
    assert_eq!(w.vector(), 6);
}

/// *SDM vol. 3D, "INT3 Consideration", "Breakpoint Suppression",
/// "Restriction on Setting of TF after an Opt-Out Entry"*.
#[test]
fn debugging_needs_an_entry_that_opts_in() {
    for opt_in in [false, true] {
        let mut w = world();
        w.put(CODE, 0, &[0xcc]);
        w.enter_at(0, at(CODE), opt_in);
        assert_eq!(w.vector(), if opt_in { 3 } else { 6 });

        let mut w = world();
        w.put(CODE, 0, &[&[0x48, 0x8b, 0x03][..], &SPIN].concat()); // mov rax, [rbx]
        w.cpu().s.dr[0] = at(DATA);
        w.cpu().s.dr7 = 0x000f_0401; // reads and writes of 4 bytes
        w.enter_at(0, at(CODE), opt_in);
        if opt_in {
            assert_eq!(w.vector(), 1);
            assert_eq!(w.cpu().s.dr6 & 15, 1);
        } else {
            w.spin();
        }

        let mut w = world();
        w.put(CODE, 0, &[&[0x90][..], &SPIN].concat());
        w.cpu().s.dr[0] = at(CODE) + 1;
        w.cpu().s.dr7 = 0x401;
        w.enter_at(0, at(CODE), opt_in);
        if opt_in {
            assert_eq!(w.vector(), 1)
        } else {
            w.spin()
        }

        let mut w = world();
        // pushf; or qword [rsp], 100h; popf; nop; jmp .
        let code = [0x9c, 0x48, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x90];
        w.put(CODE, 0, &[&code[..], &SPIN].concat());
        w.enter_at(0, at(CODE), opt_in);
        if opt_in { assert_eq!(w.vector(), 1) } else { w.spin() }
    }
}

#[test]
fn changed_enclave_code_is_decoded_anew() {
    let mut w = world();
    // mov byte [rbx], 2; jmp rbx -- to "mov al, imm8" on a page of all rights
    w.put(RWX, 0, &[0xb0, 1, 0xeb, 0xfe]);
    let code = [0xc6, 0x43, 1, 2, 0xff, 0xe3];
    w.put(CODE, 0, &code);
    w.enter_at(0, at(RWX), false);
    w.spin();
    assert_eq!(w.cpu().s.regs.get(gpr::RAX) & 0xff, 1);
    // Its own store.
    w.cpu().s.rip = at(CODE);
    w.cpu().s.regs.set(gpr::RBX, at(RWX));
    w.spin();
    assert_eq!(w.cpu().s.regs.get(gpr::RAX) & 0xff, 2);
    // From under it, as by a leaf.
    w.put(RWX, 1, &[3]);
    w.cpu().epc_written(epc(RWX));
    w.cpu().s.rip = at(RWX);
    w.spin();
    assert_eq!(w.cpu().s.regs.get(gpr::RAX) & 0xff, 3);
}

#[test]
fn a_key_or_report_over_code_makes_it_void() {
    // EGETKEY of the report key, EREPORT: operands in DATA, output over code in RWX.
    for (leaf, request, data) in [(1, 0, 0), (0, 0x200, 0x400)] {
        let mut w = world();
        w.put(DATA, 0, &[3]);
        w.put(RWX, 0, &SPIN);
        w.enter_at(0, at(RWX), false);
        w.spin();
        let page = (EPC + (RWX + 1) * 0x1000) >> 12;
        assert!(w.ram.code().has_code(page));
        w.put(CODE, 0, &[&[0x0f, 0x01, 0xd7][..], &SPIN].concat());
        w.cpu().s.rip = at(CODE);
        let output = at(RWX);
        let rcx = if leaf == 1 { output } else { at(DATA) + data };
        let registers =
            [(gpr::RAX, leaf), (gpr::RBX, at(DATA) + request), (gpr::RCX, rcx), (gpr::RDX, output)];
        for (register, value) in registers {
            w.cpu().s.regs.set(register, value);
        }
        w.spin();
        assert_ne!(w.content64(RWX, 0) as u16, u16::from_le_bytes(SPIN), "leaf {leaf} wrote");
        assert!(!w.ram.code().has_code(page), "leaf {leaf}");
    }
}

#[test]
fn enclave_bytes_are_not_kept() {
    let mut w = world();
    let secret = 0x5ec2_e75e_c2e7_0001u64;
    // mov rax, imm64; jmp .
    let code = [&[0x48, 0xb8][..], &secret.to_le_bytes(), &SPIN].concat();
    w.enter(&code);
    w.spin();
    assert_eq!(w.cpu().s.regs.get(gpr::RAX), secret);
    assert!(!w.engines[0].keeps_bytes(&secret.to_le_bytes()));
}

/// *SDM vol. 2A CPUID leaf 12H; vol. 4*.
#[test]
fn cpuid_and_registers_tell_of_sgx() {
    let mut w = world();
    let cpu = w.cpu();
    assert_eq!(cpu.cpuid(7, 0).ebx >> 2 & 1, 1);
    assert_eq!(cpu.cpuid(7, 0).ecx >> 30 & 1, 1);
    let leaf = cpu.cpuid(0x12, 0);
    assert_eq!((leaf.eax & 3, leaf.ebx, leaf.edx), (3, 1, 31 | 56 << 8));
    let leaf = cpu.cpuid(0x12, 1);
    assert_eq!((leaf.eax, leaf.ecx & 7), (0x4b6, 7));
    let leaf = cpu.cpuid(0x12, 2);
    assert_eq!((leaf.eax, leaf.ebx), (EPC as u32 | 1, 0));
    assert_eq!((leaf.ecx, leaf.edx), ((EPC_PAGES * 0x1000) | 1, 0));
    assert_eq!(cpu.cpuid(0x12, 3), crate::cpuid::Registers::default());

    assert_eq!(cpu.read_msr(0x3a), Ok(1 | 1 << 17 | 1 << 18));
    assert!(cpu.write_msr(0x3a, 0).is_err());
    for i in 0..4 {
        assert_ne!(cpu.read_msr(0x8c + i), Ok(0), "the launch enclave's signer is preset");
        cpu.write_msr(0x8c + i, 0x1234 + u64::from(i)).unwrap();
        assert_eq!(cpu.read_msr(0x8c + i), Ok(0x1234 + u64::from(i)));
    }
    assert!(cpu.read_msr(0x300).is_err() && cpu.write_msr(0x300, 5).is_ok());
    assert_eq!(cpu.read_msr(0x500), Ok(0));

    let shared = Arc::new(Shared::new(Arc::new(Mutex::new(()))));
    let ram = Ram::new(&[(0, 1 << 20)]).unwrap();
    let mut without = Cpu::new(0, Arc::new(Model::xeon_8370c()), ram, Arc::new(NoBus::default()), shared);
    assert_eq!(without.cpuid(7, 0).ebx >> 2 & 1, 0);
    assert_eq!(without.cpuid(0x12, 0), crate::cpuid::Registers::default());
    assert_eq!(without.read_msr(0x3a), Ok(1));
    for number in [0x8c, 0x300, 0x500] {
        assert!(without.read_msr(number).is_err(), "{number:#x}");
    }
}

/// Who may execute ENCLS, ENCLU and ENCLV, and when.
#[test]
fn the_instructions_ask_for_level_mode_and_sgx() {
    let (encls, enclu, enclv) = ([0x0f, 0x01, 0xcf], [0x0f, 0x01, 0xd7], [0x0f, 0x01, 0xc0]);
    let mut w = world();
    assert_eq!(outside(&mut w, &encls), 6, "ENCLS at CPL 3");
    assert_eq!(outside(&mut w, &enclv), 6, "ENCLV");
    w.cpu().s.regs.set(gpr::RAX, 0xff);
    assert_eq!(outside(&mut w, &enclu), 13, "no such leaf");
    w.cpu().s.cr0 |= Cr0::TS;
    assert_eq!(outside(&mut w, &enclu), 7, "CR0.TS");
    // At CPL 0.
    let mut w = world();
    for (code, leaf, vector) in [(enclu, 2, 6), (encls, 0xff, 13)] {
        let cpu = w.cpu();
        cpu.set_segment_from_gdt(Seg::Cs, CODE0).unwrap();
        cpu.set_segment_from_gdt(Seg::Ss, DATA0).unwrap();
        cpu.s.rip = KERNEL;
        cpu.s.regs.set(gpr::RSP, STACK);
        cpu.s.regs.set(gpr::RAX, leaf);
        cpu.activity = Activity::Active;
        w.ram.write(KERNEL, &code);
        assert_eq!(w.vector(), vector);
    }
    // Without SGX.
    let mut w = world();
    w.cpu().sgx = None;
    assert_eq!(outside(&mut w, &enclu), 6);
    assert_eq!(w.cpu().shared.pending.load(Ordering::SeqCst) & request::EPC, 0);
}
