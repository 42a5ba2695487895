//! Rounds of what is expensive in an interpreter, for counting what one costs:
//! `scripts/count-rounds` runs this program under a tool that counts instructions.
//!
//! `rounds NAME COUNT` runs the code of that name COUNT times; `rounds` lists names.

use std::process::ExitCode;

use arch::regs::{Cr4, Xcr0, gpr};
use archtest::{CODE, Ended, World, guest};

/// Where SYSCALL leads.
const ENTRY: u64 = CODE + 0x4000;
/// Where INT3 and page faults lead.
const HANDLER: u64 = CODE + 0x8000;
/// Rounds that run as one call of the engine.
const BUDGET: u64 = 1 << 40;

guest!(empty, "2:", "dec rbx", "jnz 2b", "ud2");
guest!(syscall, "2:", "syscall", "dec rbx", "jnz 2b", "ud2");
guest!(int3, "2:", "int3", "dec rbx", "jnz 2b", "ud2");
guest!(fault, "2:", "mov rax, [rsi]", "dec rbx", "jnz 2b", "ud2");
guest!(paddd, "2:", "paddd xmm0, xmm1", "dec rbx", "jnz 2b", "ud2");
guest!(paddd_load, "2:", "paddd xmm0, [rdi]", "dec rbx", "jnz 2b", "ud2");
guest!(addps, "2:", "addps xmm0, xmm1", "dec rbx", "jnz 2b", "ud2");
guest!(addsd_load, "2:", "addsd xmm0, [rdi]", "dec rbx", "jnz 2b", "ud2");
guest!(comisd, "2:", "comisd xmm0, xmm1", "dec rbx", "jnz 2b", "ud2");
guest!(vpaddd, "2:", "vpaddd ymm0, ymm1, ymm2", "dec rbx", "jnz 2b", "ud2");
guest!(vfmadd, "2:", "vfmadd231pd ymm0, ymm1, ymm2", "dec rbx", "jnz 2b", "ud2");
guest!(fadd, "2:", "fadd st, st(1)", "dec rbx", "jnz 2b", "ud2");
guest!(sysretq, "sysretq");
guest!(iretq, "iretq");
guest!(skip, "add rsp, 8", "add qword ptr [rsp], 3", "iretq");

/// A name, and the code of a round.
type Round = (&'static str, fn() -> &'static [u8]);

const ROUNDS: [Round; 12] = [
    ("empty", empty),
    ("syscall", syscall),
    ("int3", int3),
    ("fault", fault),
    ("paddd", paddd),
    ("paddd-load", paddd_load),
    ("addps", addps),
    ("addsd-load", addsd_load),
    ("comisd", comisd),
    ("vpaddd", vpaddd),
    ("vfmadd", vfmadd),
    ("fadd", fadd),
];

fn world(code: &[u8], count: u64) -> World {
    let mut world = World::new(code);
    world.write(ENTRY, sysretq());
    world.write(HANDLER, iretq());
    world.write(HANDLER + 0x40, skip());
    world.gate(3, HANDLER, 0xee00, 0);
    world.gate(14, HANDLER + 0x40, 0x8e00, 0);
    // the page that faults
    world.write64(World::pte(archtest::DATA + 0x1000), 0);
    world.user(64);
    let s = &mut world.cpu().s;
    s.msr.lstar = ENTRY;
    s.msr.star = u64::from(archtest::sel::USER_CS32) << 48 | u64::from(archtest::sel::KERNEL_CS) << 32;
    s.cr4 |= Cr4::OSXSAVE;
    s.xcr0 = Xcr0::X87 | Xcr0::SSE | Xcr0::AVX;
    s.x87.cw = 0x37f;
    s.x87.tag = 3;
    s.regs.set(gpr::RBX, count);
    s.regs.set(gpr::RSI, archtest::DATA + 0x1000);
    s.regs.set(gpr::RDI, archtest::DATA);
    world.cpu().state_changed();
    world
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, count] = &arguments[..] else {
        ROUNDS.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let code = ROUNDS.iter().find(|(known, _)| known == name);
    let (Some((_, code)), Ok(count)) = (code, count.parse::<u64>()) else {
        eprintln!("usage: rounds [NAME COUNT]; without arguments names are listed");
        return ExitCode::from(2);
    };
    let mut world = world(code(), count.max(1));
    let ended = world.run(BUDGET);
    if ended == Ended::Vector(6) {
        return ExitCode::SUCCESS;
    }
    eprintln!("{name} ended in {ended:?} at {:#x}", world.cpu().s.rip);
    ExitCode::FAILURE
}
