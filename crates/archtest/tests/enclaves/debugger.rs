//! A debugger outside the machine, and enclaves (*SDM vol. 3D, "Enclave Code Debug and
//! Profiling"*).

use std::mem::offset_of;

use arch::regs::gpr;
use archtest::{Ended, guest, sdm};
use cpu::Exit;
use cpu::debug::{Stop, Watched, Watchpoint};
use sgx::sigstruct::signer::Signer;
use sgx_abi::{AttributeFlags, Einittoken, Encls, Tcs, TcsFlags};
use zerocopy::IntoBytes;

use crate::machine::{Enclave, Machine, at, host, kernel, roots, system_on, user_stack};

// Writes to its own memory and to [RDI] outside, counts RSI down, and exits.
guest!(
    program,
    "mov r12, 0x5ec2e7",
    "mov [rip + 771b + 0x1000], r12",
    "mov [rdi], rsi",
    "33: dec rsi",
    "jnz 33b",
    "lea rbx, [rcx]",
    "mov eax, 4",
    "enclu",
);

const BUDGET: u64 = 100_000;

fn enclave(m: &mut Machine, open: bool) -> Enclave {
    let debug = if open { AttributeFlags::DEBUG } else { AttributeFlags::empty() };
    let e = m.standard(debug, program(), &[], |_| {});
    assert_eq!(m.init(&e, &e.sign(&Signer::A), &Einittoken::default()), 0);
    if open {
        // EADD takes no flag of debugging: a debugger sets it
        let flags = Machine::epc(e.page(at::TCS)) + offset_of!(Tcs, flags) as u64;
        m.encls(0, Encls::Edbgwr, TcsFlags::DBGOPTIN.bits(), flags, 0);
    }
    e
}

fn enter(m: &mut Machine, e: &Enclave, rounds: u64) -> u64 {
    let outside = user_stack(0) - 64;
    m.enter(0, e.la(at::TCS), &[(gpr::RDI, outside), (gpr::RSI, rounds)]);
    outside
}

fn watch(first: u64, kind: Watched) -> Watchpoint {
    Watchpoint { first, len: 8, kind }
}

/// Runs until the processor stops for the debugger, or the budget is used up.
fn run(m: &mut Machine) -> Option<Stop> {
    let cpu_end = m.w.engines[0].cpu.retired + BUDGET;
    while m.w.engines[0].cpu.retired < cpu_end {
        let exit = m.w.engines[0].run(BUDGET);
        if let Some(stop) = m.w.engines[0].cpu.take_stop() {
            assert_eq!(exit, Exit::Requested);
            return Some(stop);
        }
        if exit == Exit::Idle {
            break;
        }
    }
    None
}

#[test]
fn a_closed_enclave_is_one_step_without_breakpoints() {
    sdm("vol. 3D, \"Breakpoint Suppression\"");
    let mut m = Machine::new(1, roots(1));
    let e = enclave(&mut m, false);
    let outside = enter(&mut m, &e, 1000);
    let inside = watch(e.la(at::DATA), Watched::Both);
    m.w.engines[0].cpu.set_debug(&[e.base], &[inside]);
    m.w.engines[0].cpu.set_step(true);
    assert_eq!(run(&mut m), Some(Stop::Step));
    let cpu = &m.w.engines[0].cpu;
    assert!(cpu.s.enclave.is_none(), "a step ends outside");
    // EENTER left in RCX where it was, and EEXIT went there
    assert_eq!(cpu.s.rip, host(0) + 3);
    assert_eq!(m.w.read64(outside), 1000, "all of it was executed");

    // without a step: nothing stops inside, and what is outside does
    enter(&mut m, &e, 1000);
    m.w.engines[0].cpu.set_debug(&[e.base], &[inside]);
    assert_eq!(run(&mut m), None);
    enter(&mut m, &e, 7);
    m.w.engines[0].cpu.set_debug(&[e.base], &[inside, watch(outside, Watched::Writes)]);
    assert_eq!(run(&mut m), Some(Stop::Watchpoint(watch(outside, Watched::Writes))));
    assert!(m.w.engines[0].cpu.in_closed_enclave());
    assert_eq!(m.w.read64(outside), 7);
}

#[test]
fn an_enclave_that_opted_in_is_open() {
    sdm("vol. 3D, \"Opt-in Entry\"");
    let mut m = Machine::new(1, roots(1));
    let e = enclave(&mut m, true);
    enter(&mut m, &e, 3);
    let inside = watch(e.la(at::DATA), Watched::Writes);
    m.w.engines[0].cpu.set_debug(&[e.base], &[inside]);
    assert_eq!(run(&mut m), Some(Stop::Breakpoint));
    assert_eq!(m.w.engines[0].cpu.s.rip, e.base);
    assert!(!m.w.engines[0].cpu.in_closed_enclave());
    m.w.engines[0].cpu.set_step(true);
    assert_eq!(run(&mut m), Some(Stop::Step));
    assert_ne!(m.w.engines[0].cpu.s.rip, e.base);
    assert_eq!(m.register(0, 12), 0x5ec2e7);
    assert_eq!(run(&mut m), Some(Stop::Watchpoint(inside)));
}

#[test]
fn a_debugger_is_told_of_einit_and_reaches_debug_enclaves() {
    sdm("vol. 3D, \"Enclave Code Debug and Profiling\"");
    for open in [false, true] {
        let mut m = Machine::new(1, roots(1));
        let debug = if open { AttributeFlags::DEBUG } else { AttributeFlags::empty() };
        let e = m.standard(debug, program(), &[], |_| {});
        m.w.engines[0].cpu.set_stop_at_einit(true);
        let mut forged = e.sign(&Signer::A);
        forged.enclavehash[0] ^= 1;
        assert_ne!(m.init(&e, &forged, &Einittoken::default()), 0);
        assert_eq!(m.w.engines[0].cpu.take_stop(), None, "EINIT refused");
        let [sig, token] = [3, 4].map(|n| Machine::operand(0, n));
        m.w.write(sig, e.sign(&Signer::A).as_bytes());
        let operands = [Encls::Einit as u64, sig, Machine::epc(e.secs), token];
        let registers = [gpr::RAX, gpr::RBX, gpr::RCX, gpr::RDX];
        let registers: Vec<_> = registers.into_iter().zip(operands).collect();
        assert_eq!(system_on(&mut m.w.engines[0], 0, kernel(0), &registers), Ended::Budget, "it stops");
        let cpu = &mut m.w.engines[0].cpu;
        assert_eq!((cpu.take_stop(), cpu.s.regs.get(gpr::RAX)), (Some(Stop::Initialized(e.secs)), 0));

        let data = cpu.debug_translate(Machine::epc(e.page(at::DATA))).unwrap();
        let mut word = [0; 8];
        assert!(cpu.debug_write_epc(data + 0x10, &[7; 8]) && cpu.debug_read_epc(data + 0x10, &mut word));
        assert_eq!(word, if open { [7; 8] } else { [0xff; 8] });
        assert!(!cpu.debug_read_epc(0, &mut word) && !cpu.debug_write_epc(0, &word), "not in the EPC");
    }
}

#[test]
fn code_that_a_debugger_writes_is_executed() {
    sdm("vol. 3D, EDBGWR");
    let mut m = Machine::new(1, roots(1));
    let e = enclave(&mut m, true);
    for secret in [0x5ec2e7, 0x5ec2e8] {
        let outside = enter(&mut m, &e, 3);
        m.w.engines[0].cpu.set_debug(&[], &[watch(outside, Watched::Writes)]);
        assert_eq!(run(&mut m), Some(Stop::Watchpoint(watch(outside, Watched::Writes))));
        assert_eq!(m.register(0, 12), secret);
        assert_eq!(run(&mut m), None, "and leaves");
        // MOV R12, imm32: the lowest byte of the operand
        let cpu = &mut m.w.engines[0].cpu;
        let code = cpu.debug_translate(Machine::epc(e.page(0))).unwrap();
        assert!(cpu.debug_write_epc(code + 3, &[0xe8]));
    }
}
