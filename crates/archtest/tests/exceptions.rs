//! Delivery: vectors, frames, error codes, priority, double and triple faults.

use arch::regs::{gpr, rflags};
use archtest::{CODE, DATA, Ended, IST1, STACK, STUBS, USER_STACK, World, guest, sdm, sel};

guest!(divide_by_zero, "xor ecx, ecx", "mov eax, 5", "xor edx, edx", "div ecx", "hlt");
guest!(undefined, "ud2", "hlt");
guest!(breakpoint, "int3", "hlt");
guest!(read_noncanonical, "mov rax, 0x800000000000", "mov rbx, [rax]", "hlt");
guest!(push_noncanonical, "mov rsp, 0x800000001000", "push rax", "hlt");
guest!(read_absent, "mov rax, 0x40000000", "mov rbx, [rax + 8]", "hlt");
guest!(halt, "hlt");
guest!(privileged, "mov rax, cr0", "hlt");
guest!(int_80, "int 0x80", "hlt");
guest!(syscall, "syscall", "hlt");
guest!(nop_then_fault, "nop", "nop", "ud2");

#[test]
fn a_divide_error_points_at_the_instruction() {
    sdm("vol. 3A §6.15, #DE: fault, no error code; §6.14.2: 64-bit frame");
    let mut w = World::new(divide_by_zero());
    assert_eq!(w.run(100), Ended::Vector(0));
    assert_eq!(w.frame(0), CODE + divide_by_zero().len() as u64 - 3);
    assert_eq!(w.frame(1), u64::from(sel::KERNEL_CS));
    assert_eq!(w.frame(3), STACK);
    assert_eq!(w.frame(4), u64::from(sel::KERNEL_DS));
}

#[test]
fn faults_push_rf_and_traps_do_not() {
    sdm("vol. 3B §17.3.1.1: RF in the pushed image");
    let mut w = World::new(undefined());
    assert_eq!(w.run(100), Ended::Vector(6));
    assert_eq!(w.frame(0), CODE);
    assert_ne!(w.frame(2) & rflags::RF, 0);
    let mut w = World::new(breakpoint());
    assert_eq!(w.run(100), Ended::Vector(3));
    assert_eq!(w.frame(0), CODE + 1, "INT3 is a trap");
    assert_eq!(w.frame(2) & rflags::RF, 0);
}

#[test]
fn noncanonical_addresses_fault_by_segment() {
    sdm("vol. 1 §3.3.7.1: #GP(0), but #SS(0) for stack references");
    let mut w = World::new(read_noncanonical());
    assert_eq!(w.run(100), Ended::Vector(13));
    assert_eq!(w.frame(0), 0);
    // The stack is unusable, so the fault needs IST 1.
    let mut w = World::new(push_noncanonical());
    w.gate(12, STUBS + 12 * 16, 0x8e00, 1);
    assert_eq!(w.run(100), Ended::Vector(12));
    assert_eq!(w.cpu().s.regs.get(gpr::RSP), IST1 - 48);
    assert_eq!(w.frame(4), 0x8000_0000_1000, "the old RSP was not moved");
}

#[test]
fn a_page_fault_gives_its_address_in_cr2() {
    sdm("vol. 3A §6.15, #PF");
    let mut w = World::new(read_absent());
    assert_eq!(w.run(100), Ended::Vector(14));
    assert_eq!(w.cpu().s.cr2, 0x4000_0008);
    assert_eq!(w.frame(0), 0);
    assert_eq!(w.frame(1), CODE + read_absent().len() as u64 - 5);
}

#[test]
fn a_fault_while_delivering_a_page_fault_is_a_double_fault() {
    sdm("vol. 3A table 6-5");
    let mut w = World::new(read_absent());
    // #PF's gate is not present: #NP while delivering #PF.
    w.gate(14, STUBS, 0x0e00, 0);
    assert_eq!(w.run(100), Ended::Vector(8));
    assert_eq!(w.frame(0), 0, "the error code of #DF is zero");
}

#[test]
fn benign_then_contributory_is_served_in_order() {
    sdm("vol. 3A table 6-5: a fault while delivering a benign exception is itself served");
    let mut w = World::new(undefined());
    w.gate(6, STUBS, 0x0e00, 0);
    assert_eq!(w.run(100), Ended::Vector(11));
    // Selector error code: IDT, EXT as the first event was an exception.
    assert_eq!(w.frame(0), 6 << 3 | 0b011);
}

#[test]
fn no_way_to_deliver_a_double_fault_shuts_down() {
    sdm("vol. 3A §6.15, #DF: triple fault");
    let mut w = World::new(undefined());
    w.cpu().s.idtr.limit = 0;
    assert_eq!(w.run(100), Ended::Shutdown);
}

#[test]
fn user_code_may_not_read_cr0() {
    sdm("vol. 3A §5.9: privileged instructions");
    let mut w = World::new(privileged());
    w.user(64);
    assert_eq!(w.run(100), Ended::Vector(13));
    assert_eq!(w.frame(1), CODE);
    assert_eq!(w.frame(2), u64::from(sel::USER_CS));
    assert_eq!(w.frame(4), USER_STACK);
    assert_eq!(w.frame(5), u64::from(sel::USER_DS));
    assert_eq!(w.cpu().s.regs.get(gpr::RSP), STACK - 48, "the stack of TSS.RSP0");
    assert_eq!(w.cpu().s.cpl, 0);
}

#[test]
fn int_n_needs_a_gate_of_the_callers_privilege() {
    sdm("vol. 3A §6.12.1.2: DPL of the gate");
    let mut w = World::new(int_80());
    w.user(64);
    assert_eq!(w.run(100), Ended::Vector(13));
    assert_eq!(w.frame(0), 0x80 << 3 | 0b010);
    let mut w = World::new(int_80());
    w.user(64).gate(0x80, STUBS + 0x80 * 16, 0xee00, 0);
    assert_eq!(w.run(100), Ended::Vector(0x80));
    assert_eq!(w.frame(0), CODE + 2, "a software interrupt returns behind itself");
}

#[test]
fn interrupt_gates_clear_if_and_trap_gates_do_not() {
    sdm("vol. 3A §6.12.1.3");
    for (kind, expected) in [(0x8e00, 0), (0x8f00, rflags::IF)] {
        let mut w = World::new(undefined());
        w.gate(6, STUBS + 6 * 16, kind, 0);
        w.cpu().s.rflags |= rflags::IF | rflags::TF | rflags::NT;
        w.cpu().s.rflags &= !rflags::TF;
        assert_eq!(w.run(100), Ended::Vector(6));
        assert_eq!(w.cpu().s.rflags & (rflags::IF | rflags::NT), expected);
        assert_ne!(w.frame(2) & rflags::NT, 0);
    }
}

#[test]
fn syscall_enters_by_the_msrs() {
    sdm("vol. 2B, SYSCALL");
    let mut w = World::new(syscall());
    w.user(64);
    let target = STUBS + 200 * 16;
    let msr = &mut w.cpu().s.msr;
    msr.star = 0x0010_u64 << 32 | 0x0023_u64 << 48;
    msr.lstar = target;
    msr.sfmask = rflags::IF | rflags::DF;
    w.cpu().s.rflags |= rflags::IF | rflags::DF;
    assert_eq!(w.run(100), Ended::Vector(200));
    let s = &w.cpu().s;
    assert_eq!((s.cpl, s.seg[1].selector, s.seg[2].selector), (0, sel::KERNEL_CS, sel::KERNEL_DS));
    assert_eq!(s.regs.get(gpr::RCX), CODE + 2);
    assert_ne!(s.regs.get(gpr::R11) & rflags::IF, 0);
    assert_eq!(s.rflags & (rflags::IF | rflags::DF), 0);
    assert_eq!(s.regs.get(gpr::RSP), USER_STACK, "SYSCALL leaves RSP");
}

#[test]
fn fetching_from_an_absent_page_faults_before_the_instruction() {
    sdm("vol. 3A table 6-2: code fetch faults precede decoding");
    let mut w = World::new(halt());
    w.cpu().s.rip = 0x4000_0000;
    assert_eq!(w.run(100), Ended::Vector(14));
    assert_eq!(w.cpu().s.cr2, 0x4000_0000);
    assert_eq!(w.frame(0), 0x10, "instruction fetch, as XD is in use");
}

#[test]
fn an_instruction_across_pages_faults_at_the_second() {
    sdm("vol. 3A §6.15, #PF: CR2 is the address that failed");
    let mut w = World::new(halt());
    // mov eax, imm32 with its last two bytes in an absent page
    w.write(DATA + 0xffd, &[0xb8, 1, 2]);
    w.write64(World::pte(DATA + 0x1000), 0);
    w.cpu().s.rip = DATA + 0xffd;
    assert_eq!(w.run(100), Ended::Vector(14));
    assert_eq!(w.cpu().s.cr2, DATA + 0x1000);
    assert_eq!(w.frame(1), DATA + 0xffd);
}

#[test]
fn faults_are_precise_inside_a_block() {
    sdm("vol. 3A §6.5: a fault's frame names the faulting instruction");
    let mut w = World::new(nop_then_fault());
    assert_eq!(w.run(100), Ended::Vector(6));
    assert_eq!(w.frame(0), CODE + 2);
}
