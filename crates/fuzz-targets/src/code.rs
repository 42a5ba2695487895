//! Machine code on a processor: user mode, kernel mode, 32-bit compatibility
//! mode, real mode, protected mode without paging.
//!
//! The world is one MiB of RAM with page tables, descriptors and an interrupt
//! table whose handlers step over what faulted, so that a run goes on. The
//! input is a header — mode, features, registers, events — and code.

use crate::input::Input;
use crate::mutate::Rng;
use arch::descriptor::Attr;
use arch::regs::{Cr0, Cr4, Efer, Seg, Xcr0, gpr, rflags};
use cpu::shared::request;
use cpu::state::{Regs, Segment, TableRegister};
use cpu::{Activity, Bus, Cpu, Engine, Exit, Model};
use mem::Ram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const RAM: u64 = 1 << 20;
const PML4: u64 = 0x1000;
const PT: u64 = 0x4000;
/// GDT, and the TSS after it.
const GDT: u64 = 0x5000;
const TSS: u64 = 0x5800;
const IDT: u64 = 0x6000;
/// 32 bytes a vector.
const HANDLERS: u64 = 0x7000;
const REAL_HANDLER: u64 = 0x9000;
/// Four pages of code; page [`ALIAS`] is the first of them again.
const CODE: u64 = 0x1_0000;
const ALIAS: u64 = 0x1_8000;
/// Pages of data: two to be written, one not, one not executed, one missing.
const DATA: u64 = 0x2_0000;
const STACK: u64 = 0x3_1000;
const USER_STACK: u64 = 0x3_4000;
/// What a user program must not change, whatever it does.
const PRECIOUS: std::ops::Range<u64> = GDT..REAL_HANDLER;

const KERNEL_CS: u16 = 0x10;
const KERNEL_SS: u16 = 0x18;
const USER_CS32: u16 = 0x23;
const USER_SS: u16 = 0x2b;
const USER_CS: u16 = 0x33;
const TSS_SELECTOR: u16 = 0x40;

/// Instructions between events, and number of events.
const SLICE: u64 = 150;
const SLICES: u32 = 16;
/// A slice may be exceeded by what the block at hand still holds.
const SLACK: u64 = 80;

/// Devices that answer with numbers nobody chose.
#[derive(Default)]
struct Noise(AtomicU64);

impl Noise {
    fn next(&self, n: u64) -> u64 {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        Rng::new(count ^ n.rotate_left(32)).u64()
    }
}

impl Bus for Noise {
    fn mmio_read(&self, _cpu: usize, gpa: u64, data: &mut [u8]) {
        let n = self.next(gpa).to_le_bytes();
        data.iter_mut().zip(n.iter().cycle()).for_each(|(d, n)| *d = *n);
    }
    fn mmio_write(&self, _cpu: usize, _gpa: u64, _data: &[u8]) {}
    fn port_read(&self, cpu: usize, port: u16, data: &mut [u8]) {
        self.mmio_read(cpu, port.into(), data);
    }
    fn port_write(&self, _cpu: usize, _port: u16, _data: &[u8]) {}
    fn eoi(&self, _cpu: usize, _vector: u8) {}
    fn ext_int_ack(&self) -> u8 {
        0x20 | self.next(0) as u8
    }
    fn tsc(&self) -> u64 {
        self.0.fetch_add(100, Ordering::Relaxed)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    User,
    Kernel,
    Compatibility,
    Real,
    Protected,
}

impl Mode {
    fn is_user(self) -> bool {
        matches!(self, Mode::User | Mode::Compatibility)
    }
}

/// [`run`], its result ignored.
pub fn code_bytes(data: &[u8]) {
    run(data);
}

/// Runs the code; returns how many instructions were retired.
pub fn run(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let mode = input.pick(&[Mode::User, Mode::Kernel, Mode::Compatibility, Mode::Real, Mode::Protected]);
    let features = input.u8();
    let (place, mut events) = (u64::from(input.u8()), Rng::new(input.u32().into()));
    let ram = Ram::new(&[(0, RAM)]).expect("host memory");
    tables(&ram, mode);
    // Half of the places make the code cross a page.
    let start = CODE + if place < 0x80 { place } else { 0xf80 + (place & 0x7f) };
    ram.write(start, input.rest());

    let model = Arc::new(if features & 1 != 0 { Model::xeon_8370c() } else { Model::xeon_e_2288g() });
    let shared = cpu::shared::processors(1);
    ram.code().set_listeners(vec![shared[0].clone()]);
    let mut cpu = Cpu::new(0, model, ram.clone(), Arc::new(Noise::default()), shared[0].clone());
    cpu.activity = Activity::Active;
    registers(&mut cpu, &mut events.clone());
    enter(&mut cpu, mode, features, start);
    let precious = contents(&ram);
    let mut engine = Engine::new(cpu);
    for _ in 0..SLICES {
        let before = engine.cpu.retired;
        let exit = engine.run(SLICE);
        let done = engine.cpu.retired - before;
        assert!(done <= SLICE + SLACK, "{done} instructions, {SLICE} were asked for");
        check(&engine.cpu);
        if exit == Exit::Shutdown {
            break;
        }
        event(&engine, mode, &mut events);
        engine.cpu.poll_timer();
    }
    if mode.is_user() {
        let changed = contents(&ram).iter().zip(&precious).position(|(now, before)| now != before);
        assert!(
            changed.is_none(),
            "a user program changed {:#x}",
            PRECIOUS.start + changed.unwrap_or(0) as u64
        );
    }
    engine.cpu.retired
}

/// What always holds between instructions.
fn check(cpu: &Cpu) {
    let s = &cpu.s;
    let (pe, pg) = (s.cr0.contains(Cr0::PE), s.cr0.contains(Cr0::PG));
    assert!(pe || !pg, "paging without protection");
    assert_eq!(s.efer.contains(Efer::LMA), s.efer.contains(Efer::LME) && pg, "EFER.LMA");
    assert!(s.cpl == 0 || pe && s.cpl == 3 || pe && s.cpl < 3, "CPL {}", s.cpl);
    assert_eq!(s.regs.read64(Regs::ZERO), 0, "the register that is zero");
    assert_eq!(s.rflags & (rflags::STATUS | rflags::FIXED), rflags::FIXED, "RFLAGS {:#x}", s.rflags);
    assert!(s.rip >> 32 == 0 || s.long64(), "RIP {:#x} outside 64-bit mode", s.rip);
    assert!(s.xcr0.contains(Xcr0::X87), "XCR0 {:?}", s.xcr0);
}

/// What happens to a processor from outside.
fn event(engine: &Engine, mode: Mode, events: &mut Rng) {
    let cpu = &engine.cpu;
    match events.below(16) {
        0 => cpu.shared.request(request::NMI),
        1 => cpu.shared.request(request::EXT_INT),
        2 => cpu.shared.request(request::INTERRUPT),
        3 => cpu.shared.request(request::EXIT),
        4 if !mode.is_user() => cpu.shared.request(request::INIT),
        5 if !mode.is_user() => {
            cpu.shared.sipi_vector.store(CODE as u32 >> 12, Ordering::SeqCst);
            cpu.shared.request(request::INIT | request::SIPI);
        }
        // A device writes into the code.
        6 | 7 => {
            let at = CODE + events.below(0x1100) as u64;
            cpu.ram.write(at, &events.u64().to_le_bytes()[..1 + events.below(8)]);
        }
        _ => {}
    }
}

fn contents(ram: &Ram) -> Vec<u8> {
    let mut bytes = vec![0; (PRECIOUS.end - PRECIOUS.start) as usize];
    ram.read(PRECIOUS.start, &mut bytes);
    bytes
}

/// Registers that often point somewhere.
fn registers(cpu: &mut Cpu, rng: &mut Rng) {
    for n in 0..16 {
        let near = rng.below(0x3000) as u64;
        let value = match rng.below(8) {
            0 | 1 => DATA + near,
            2 => CODE + near,
            3 => near & 0xff,
            4 => RAM + near,
            5 => 0x8000_0000_0000_0000 >> rng.below(64),
            _ => rng.u64(),
        };
        cpu.s.regs.set(n, value);
    }
    for register in &mut cpu.s.vec {
        register.0 = std::array::from_fn(|_| rng.u64());
    }
    for register in &mut cpu.s.x87.st {
        *register = u128::from(rng.u64()) | u128::from(rng.u64() as u16) << 64;
    }
    cpu.s.x87.tag = rng.u64() as u8;
    cpu.s.x87.cw = 0x37f;
}

fn enter(cpu: &mut Cpu, mode: Mode, features: u8, start: u64) {
    let bit = |n: u8, yes: u64| if features >> n & 1 != 0 { yes } else { 0 };
    let s = &mut cpu.s;
    let flat = |selector, attr| Segment { selector, attr: Attr(attr & Attr::MASK), limit: u32::MAX, base: 0 };
    s.rflags = rflags::FIXED | bit(1, rflags::TF) | bit(2, rflags::IF) | bit(3, rflags::AC);
    s.xcr0 = Xcr0::X87 | Xcr0::SSE | Xcr0::AVX;
    s.cr4 = Cr4::OSFXSR | Cr4::OSXMMEXCPT | Cr4::OSXSAVE | Cr4::PAE;
    if features & 0x10 != 0 {
        s.cr4 |= Cr4::SMEP | Cr4::SMAP | Cr4::UMIP | Cr4::FSGSBASE | Cr4::PGE | Cr4::PCIDE;
    }
    if mode == Mode::Real {
        let real = |attr| Segment { selector: 0, attr: Attr(attr), limit: 0xffff, base: 0 };
        s.seg = [real(0x9300); 6];
        s.seg[Seg::Cs as usize] = Segment { selector: (CODE >> 4) as u16, base: CODE, ..real(0x9b00) };
        s.idtr = TableRegister { base: 0, limit: 0x3ff };
        s.cr0 = Cr0::ET | Cr0::NE | Cr0::MP;
        s.cr4.remove(Cr4::PCIDE);
        s.regs.set(gpr::RSP, 0x8000);
        s.rip = start - CODE;
        cpu.state_changed();
        return;
    }
    s.gdtr = TableRegister { base: GDT, limit: 0x4f };
    s.idtr = TableRegister { base: IDT, limit: 0xfff };
    s.cr0 = Cr0::PE | Cr0::ET | Cr0::NE | Cr0::MP;
    if features & 0x20 != 0 {
        s.cr0 |= Cr0::WP | Cr0::AM;
    }
    s.rip = start;
    if mode == Mode::Protected {
        s.seg = [flat(KERNEL_SS, 0x00cf_9300); 6];
        s.seg[Seg::Cs as usize] = flat(8, 0x00cf_9b00);
        s.cr4.remove(Cr4::PCIDE);
        s.regs.set(gpr::RSP, STACK);
        cpu.state_changed();
        return;
    }
    // RESET leaves an LDT over the first 64 KiB.
    s.ldtr = Segment::default();
    s.tr = Segment { selector: TSS_SELECTOR, attr: Attr::TSS_BUSY, limit: 0x67, base: TSS };
    s.cr0 |= Cr0::PG;
    s.cr3 = PML4;
    s.efer = Efer::LME | Efer::LMA | Efer::NXE;
    let data = if mode.is_user() { flat(USER_SS, 0x00cf_f300) } else { flat(KERNEL_SS, 0x00cf_9300) };
    s.seg = [data; 6];
    let (code, stack) = match mode {
        Mode::User => (flat(USER_CS, 0x00af_fb00), USER_STACK),
        Mode::Compatibility => (flat(USER_CS32, 0x00cf_fb00), USER_STACK),
        _ => (flat(KERNEL_CS, 0x00af_9b00), STACK),
    };
    s.seg[Seg::Cs as usize] = code;
    s.regs.set(gpr::RSP, stack);
    if mode.is_user() {
        s.cpl = 3;
        s.rflags |= bit(6, rflags::IOPL);
    } else {
        s.efer |= Efer::SCE;
        s.msr.lstar = CODE + 0x40;
        s.msr.star = 0x0023_0010 << 32;
    }
    cpu.state_changed();
}

fn tables(ram: &Ram, mode: Mode) {
    const PRESENT: u64 = 1;
    const WRITE: u64 = 2;
    const USER: u64 = 4;
    const NX: u64 = 1 << 63;
    let put = |at: u64, value: u64| assert!(ram.write(at, &value.to_le_bytes()));
    for at in (PML4..PT).step_by(0x1000) {
        put(at, (at + 0x1000) | PRESENT | WRITE | USER);
    }
    for page in 0..512u64 {
        let la = page << 12;
        let user = if mode.is_user() { USER } else { 0 };
        let rights = match la {
            CODE..ALIAS => PRESENT | WRITE | user,
            ALIAS => CODE | PRESENT | WRITE | user,
            DATA => PRESENT | WRITE | user,
            0x2_1000 => PRESENT | WRITE | USER | NX,
            0x2_2000 => PRESENT | user,
            0x2_3000 => 0,
            STACK..USER_STACK => PRESENT | WRITE | user | NX,
            // Beyond RAM: devices, for user programs too.
            RAM.. => PRESENT | WRITE | user,
            _ => PRESENT | WRITE,
        };
        put(PT + page * 8, rights | if la == ALIAS { 0 } else { la });
    }
    for (selector, descriptor) in [
        (8, 0x00cf_9b00_0000_ffff_u64),
        (KERNEL_CS, 0x00af_9b00_0000_ffff),
        (KERNEL_SS, 0x00cf_9300_0000_ffff),
        (USER_CS32, 0x00cf_fb00_0000_ffff),
        (USER_SS, 0x00cf_f300_0000_ffff),
        (USER_CS, 0x00af_fb00_0000_ffff),
        (TSS_SELECTOR, 0x0000_8b00_0000_0067 | TSS << 16),
    ] {
        put(GDT + u64::from(selector & !7), descriptor);
    }
    put(TSS + 4, STACK);
    for vector in 0..256u64 {
        let at = HANDLERS + vector * 32;
        ram.write(at, &handler(vector, mode.is_user()));
        // DPL 3 for INT3 and INTO only.
        let kind = if matches!(vector, 3 | 4) { 0xee00 } else { 0x8e00 };
        put(IDT + vector * 16, at & 0xffff | u64::from(KERNEL_CS) << 16 | kind << 32 | at >> 16 << 48);
        ram.write(vector * 4, &[0, 0, (REAL_HANDLER >> 4) as u8, (REAL_HANDLER >> 12) as u8]);
    }
    // inc word ptr [esp]; iret
    ram.write(REAL_HANDLER, &[0x67, 0xff, 0x04, 0x24, 0xcf]);
}

/// Steps over a byte of what faulted; page faults start again. With `careful`,
/// what faults in the kernel halts.
fn handler(vector: u64, careful: bool) -> [u8; 32] {
    let mut code = Vec::new();
    if matches!(vector, 8 | 10..=14 | 17 | 21) {
        code.extend([0x48, 0x83, 0xc4, 0x08]); // add rsp, 8
    }
    if careful {
        code.extend([0xf6, 0x44, 0x24, 0x08, 0x03, 0x75, 0x01, 0xf4]); // test byte ptr [rsp+8], 3; jnz; hlt
    }
    if vector == 14 {
        code.extend([0x48, 0xc7, 0x04, 0x24]); // mov qword ptr [rsp], CODE + 16
        code.extend((CODE as u32 + 16).to_le_bytes());
    } else {
        code.extend([0x48, 0xff, 0x04, 0x24]); // inc qword ptr [rsp]
    }
    code.extend([0x48, 0xcf]); // iretq
    let mut padded = [0xf4; 32];
    padded[..code.len()].copy_from_slice(&code);
    padded
}

/// Code of every group, in every mode.
pub fn seeds() -> Vec<Vec<u8>> {
    const CODES: &[&[u8]] = &[
        // add, adc, sbb, imul, div, shifts, a loop: mov ecx, 5; …; dec ecx; jnz
        &[
            0xb9, 5, 0, 0, 0, 0x01, 0xd8, 0x11, 0xd8, 0x19, 0xc3, 0x0f, 0xaf, 0xc3, 0xc1, 0xe0, 3, 0xd1,
            0xdb, 0xff, 0xc9, 0x75, 0xef, 0x31, 0xd2, 0xf7, 0xf3, 0x0f, 0xa3, 0xc8, 0x0f, 0xbc, 0xc3, 0x0f,
            0xc8,
        ],
        // push, pop, call, ret, enter, leave, xchg, cmpxchg, lock xadd
        &[
            0x50, 0x53, 0x58, 0x5b, 0xe8, 1, 0, 0, 0, 0x90, 0x58, 0xc8, 8, 0, 1, 0xc9, 0x87, 0x04, 0x24,
            0xf0, 0x0f, 0xc1, 0x04, 0x24, 0xf0, 0x0f, 0xb1, 0x1c, 0x24, 0x9c, 0x9d,
        ],
        // mov edi, DATA; mov esi, CODE; mov ecx, 60; rep movsb; rep stosd; repe cmpsb; lodsb; scasb
        &[
            0xbf, 0, 0, 2, 0, 0xbe, 0, 0, 1, 0, 0xb9, 60, 0, 0, 0, 0xfc, 0xf3, 0xa4, 0xb1, 8, 0xf3, 0xab,
            0xb1, 8, 0xf3, 0xa6, 0xac, 0xae, 0xf2, 0xae, 0xfd, 0xa4,
        ],
        // x87: fninit; fld1; fldpi; fadd; fsin; fstp [esp]; fnstsw ax; fnsave
        &[
            0xdb, 0xe3, 0xd9, 0xe8, 0xd9, 0xeb, 0xde, 0xc1, 0xd9, 0xfe, 0xdd, 0x1c, 0x24, 0xdf, 0xe0, 0x9b,
            0xdd, 0x34, 0x25, 0, 0, 2, 0, 0xd9, 0xf0, 0xdf, 0x3c, 0x24,
        ],
        // SSE and MMX: addps, divsd, cvttsd2si, pshufb, paddd mm, emms, ldmxcsr, fxsave
        &[
            0x0f, 0x58, 0xc1, 0xf2, 0x0f, 0x5e, 0xc8, 0xf2, 0x0f, 0x2c, 0xc1, 0x66, 0x0f, 0x38, 0x00, 0xd1,
            0x0f, 0xfe, 0xc1, 0x0f, 0x77, 0x0f, 0xae, 0x1c, 0x24, 0x0f, 0xae, 0x14, 0x24, 0x0f, 0xae, 0x04,
            0x25, 0, 0, 2, 0,
        ],
        // AVX, FMA, AES, PCLMUL: vaddpd ymm, vfmadd231ps, vpgatherdd, aesenc, pclmulqdq, vzeroupper
        &[
            0xc5, 0xf5, 0x58, 0xc2, 0xc4, 0xe2, 0x6d, 0xb8, 0xcb, 0xc4, 0xe2, 0x65, 0x90, 0x14, 0x8d, 0, 0,
            2, 0, 0x66, 0x0f, 0x38, 0xdc, 0xc1, 0x66, 0x0f, 0x3a, 0x44, 0xc1, 0x11, 0xc5, 0xf8, 0x77, 0x31,
            0xc9, 0x0f, 0x01, 0xd0,
        ],
        // cpuid, rdtsc, rdrand, pushf, int3, ud2, int 0x80, xgetbv, bmi
        &[
            0x31, 0xc0, 0x0f, 0xa2, 0x0f, 0x31, 0x0f, 0xc7, 0xf0, 0xcc, 0x0f, 0x0b, 0xcd, 0x80, 0x31, 0xc9,
            0x0f, 0x01, 0xd0, 0xc4, 0xe2, 0x70, 0xf2, 0xc3, 0xc4, 0xe2, 0xf3, 0xf5, 0xc3, 0x0f, 0x01, 0xf9,
        ],
        // rdmsr, wrmsr of IA32_EFER; mov cr3; mov cr0; invlpg; mov dr7; lgdt; sti; hlt
        &[
            0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32, 0x0f, 0x30, 0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x0f, 0x20,
            0xc0, 0x0f, 0x22, 0xc0, 0x0f, 0x01, 0x38, 0x0f, 0x23, 0xf8, 0x0f, 0x01, 0x04, 0x24, 0x0f, 0x01,
            0x14, 0x24, 0xfb, 0xf4, 0xb9, 0x00, 8, 0, 0, 0x0f, 0x32, 0x0f, 0x09, 0x0f, 0x01, 0xf8,
        ],
        // mov ds, ax; lds; far jump, iret, syscall, sysret, sysenter, in, out, lar, verr
        &[
            0xb8, 0x2b, 0, 0, 0, 0x8e, 0xd8, 0x0f, 0xa1, 0xff, 0x2c, 0x24, 0x48, 0xcf, 0x0f, 0x05, 0x0f,
            0x07, 0x0f, 0x34, 0xe4, 0x70, 0xe7, 0x80, 0x6c, 0x0f, 0x02, 0xc3, 0x0f, 0x00, 0xe0, 0x0f, 0x00,
            0xd8,
        ],
        // writes its own code: mov byte ptr [CODE + n], 0x90, then runs it
        &[
            0xc6, 0x04, 0x25, 0x20, 0, 1, 0, 0x90, 0xc6, 0x04, 0x25, 0x28, 0x80, 1, 0, 0xc3, 0x90, 0x90,
            0xeb, 0x0c, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0x90,
            0xeb, 0xdc,
        ],
    ];
    let mut all = Vec::new();
    for mode in 0..5u8 {
        for (n, code) in CODES.iter().enumerate() {
            let mut seed = vec![mode, [0x31, 0x24, 0x76, 0x0c][n % 4], [0, 0xfa][n % 2], n as u8, 1, 2, 3];
            // Without trap flag and events, mostly.
            seed.extend(*code);
            seed.extend([0x90, 0xeb, 0xfd]);
            all.push(seed);
        }
    }
    all
}
