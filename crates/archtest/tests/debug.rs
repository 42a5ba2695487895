//! Debug exceptions, interrupt shadows, NMI.

use arch::regs::{dr6, gpr, rflags};
use archtest::{CODE, DATA, Ended, World, guest, sdm};
use cpu::shared::request;

guest!(three_nops, "nop", "nop", "nop", "hlt");
guest!(store_then_nop, "mov [rdi], rax", "nop", "hlt");
guest!(sti_then_two, "sti", "nop", "nop", "hlt");
guest!(mov_ss, "mov ax, 0x18", "mov ss, ax", "nop", "hlt");

#[test]
fn single_step_traps_after_each_instruction() {
    sdm("vol. 3B §17.3.1.4");
    let mut w = World::new(three_nops());
    w.cpu().s.rflags |= rflags::TF;
    assert_eq!(w.run(10), Ended::Vector(1));
    assert_eq!(w.frame(0), CODE + 1);
    assert_ne!(w.cpu().s.dr6 & dr6::BS, 0);
    assert_eq!(w.cpu().s.rflags & rflags::TF, 0, "delivery clears TF");
}

#[test]
fn an_instruction_breakpoint_is_a_fault_and_rf_steps_over_it() {
    sdm("vol. 3B §17.3.1.1");
    let mut w = World::new(three_nops());
    w.cpu().s.dr[0] = CODE + 1;
    w.cpu().s.dr7 |= 1;
    w.cpu().state_changed();
    assert_eq!(w.run(10), Ended::Vector(1));
    assert_eq!(w.frame(0), CODE + 1);
    assert_eq!(w.cpu().s.dr6 & 0xf, 1);
    let mut w = World::new(three_nops());
    w.cpu().s.dr[0] = CODE;
    w.cpu().s.dr7 |= 1;
    w.cpu().s.rflags |= rflags::RF;
    w.cpu().state_changed();
    assert_eq!(w.run(10), Ended::Halt, "RF suppresses the breakpoint once");
}

#[test]
fn a_data_breakpoint_is_a_trap() {
    sdm("vol. 3B §17.3.1.2");
    let mut w = World::new(store_then_nop());
    w.cpu().s.regs.set(gpr::RDI, DATA + 4);
    w.cpu().s.dr[1] = DATA + 8;
    // Enable 1, write, 4 bytes.
    w.cpu().s.dr7 |= 1 << 2 | 0b1101 << 20;
    w.cpu().state_changed();
    assert_eq!(w.run(10), Ended::Vector(1));
    assert_eq!(w.frame(0), CODE + 3, "after the store");
    assert_eq!(w.cpu().s.dr6 & 0xf, 2);
}

#[test]
fn sti_holds_interrupts_off_for_one_instruction() {
    sdm("vol. 2B, STI: interrupt shadow");
    let mut w = World::new(sti_then_two());
    w.cpu().shared.request(request::NMI);
    assert_eq!(w.run(10), Ended::Vector(2), "an NMI does not wait for IF");
    assert_eq!(w.frame(0), CODE);
}

#[test]
fn mov_ss_holds_off_debug_traps() {
    sdm("vol. 3A §6.8.3: MOV to SS masks");
    let mut w = World::new(mov_ss());
    w.cpu().s.rflags |= rflags::TF;
    // The first instruction traps at once; resume with TF behind it.
    assert_eq!(w.run(10), Ended::Vector(1));
    let mut w = World::new(mov_ss());
    w.cpu().s.regs.set(gpr::RAX, 0x18);
    w.cpu().s.rip = CODE + 4;
    w.cpu().s.rflags |= rflags::TF;
    assert_eq!(w.run(10), Ended::Vector(1));
    let behind_nop = CODE + mov_ss().len() as u64 - 1;
    assert_eq!(w.frame(0), behind_nop, "after the instruction behind MOV SS");
}

#[test]
fn nmis_are_blocked_until_iret() {
    sdm("vol. 3A §6.7.1");
    let mut w = World::new(three_nops());
    w.cpu().shared.request(request::NMI);
    assert_eq!(w.run(10), Ended::Vector(2));
    w.cpu().shared.request(request::NMI);
    assert!(w.cpu().nmi_blocked);
    let rsp = w.cpu().s.regs.get(gpr::RSP);
    assert_eq!(w.run(10), Ended::Vector(2));
    assert_eq!(w.cpu().s.regs.get(gpr::RSP), rsp, "the second was not delivered");
}
