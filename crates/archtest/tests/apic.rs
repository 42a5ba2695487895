//! The local APIC as code meets it: priorities, TPR, EOI, the rules of its
//! registers and modes, the timer, INIT and start-up.

use arch::regs::gpr;
use archtest::{DATA, Ended, World, guest, sdm};

// Every test begins in x2APIC mode with the APIC enabled by software. RDI is
// where handlers note their vectors.
macro_rules! with_apic {
    ($name:ident, $($line:literal),* $(,)?) => {
        guest!(
            $name,
            "mov ecx, 0x1b", "rdmsr", "or eax, 0xc00", "wrmsr",
            "xor edx, edx", "mov ecx, 0x80f", "mov eax, 0x1ff", "wrmsr",
            $($line),*
        );
    };
}

with_apic!(
    two_at_once,
    "mov ecx, 0x83f",
    "mov eax, 0x31",
    "wrmsr",
    "mov eax, 0x52",
    "wrmsr",
    "sti",
    "nop",
    "nop",
    "hlt"
);
with_apic!(
    masked_by_tpr,
    "mov ecx, 0x808",
    "mov eax, 0x5f",
    "wrmsr",
    "mov ecx, 0x83f",
    "mov eax, 0x52",
    "wrmsr",
    "mov eax, 0x61",
    "wrmsr",
    "sti",
    "nop",
    "nop",
    "cli",
    "mov ecx, 0x822",
    "rdmsr",
    "mov ebx, eax", // what is still requested
    "mov byte ptr [rdi], 0xee",
    "inc rdi",
    "mov ecx, 0x808",
    "xor eax, eax",
    "wrmsr",
    "sti",
    "nop",
    "nop",
    "hlt"
);
with_apic!(one_interrupt, "mov ecx, 0x83f", "mov eax, 0x52", "wrmsr", "sti", "nop", "nop", "hlt");
guest!(
    // Lets others in, asks for a lower one, and only then ends its own service.
    patient_handler,
    "mov byte ptr [rdi], 0x52",
    "inc rdi",
    "sti",
    "mov ecx, 0x83f",
    "mov eax, 0x31",
    "xor edx, edx",
    "wrmsr",
    "nop",
    "nop",
    "mov byte ptr [rdi], 0xee",
    "inc rdi",
    "cli",
    "mov ecx, 0x80b",
    "xor eax, eax",
    "wrmsr",
    "iretq"
);
guest!(
    // Asks for a higher one, which comes at once.
    modest_handler,
    "mov byte ptr [rdi], 0x52",
    "inc rdi",
    "sti",
    "mov ecx, 0x83f",
    "mov eax, 0x71",
    "xor edx, edx",
    "wrmsr",
    "nop",
    "nop",
    "mov byte ptr [rdi], 0xee",
    "inc rdi",
    "cli",
    "mov ecx, 0x80b",
    "xor eax, eax",
    "wrmsr",
    "iretq"
);
with_apic!(write_register, "mov ecx, esi", "mov eax, ebx", "mov edx, ebp", "wrmsr", "hlt");
with_apic!(read_register, "mov ecx, esi", "rdmsr", "hlt");
with_apic!(
    one_shot,
    "mov ecx, 0x83e",
    "mov eax, 0xb",
    "wrmsr", // divide by 1
    "mov ecx, 0x832",
    "mov eax, 0x40",
    "wrmsr", // vector, one-shot, not masked
    "mov ecx, 0x838",
    "mov eax, 1000",
    "wrmsr",
    "sti",
    "34: hlt",
    "jmp 34b"
);
with_apic!(
    start_the_other,
    "mov ecx, 0x830",
    "mov edx, 1",
    "mov eax, 0x4500",
    "wrmsr", // INIT
    "mov eax, 0x4606",
    "wrmsr", // start-up at 0x6000
    "hlt"
);

/// Notes `vector` and ends its service.
fn handler(w: &mut World, vector: u8) {
    let code = [
        &[0xc6, 0x07, vector, 0x48, 0xff, 0xc7][..], // mov [rdi], vector; inc rdi
        &[0xb9, 0x0b, 0x08, 0, 0, 0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x30, 0x48, 0xcf], // EOI; iretq
    ]
    .concat();
    install(w, vector, &code);
}

fn install(w: &mut World, vector: u8, code: &[u8]) {
    let at = 0x22_0000 + u64::from(vector) * 0x100;
    w.write(at, code);
    w.gate(vector, at, 0x8e00, 0);
}

/// The vectors noted, in order.
fn noted(w: &mut World) -> Vec<u8> {
    let end = w.cpu().s.regs.get(gpr::RDI);
    (DATA..end).map(|at| w.read64(at) as u8).collect()
}

fn world(code: &[u8]) -> World {
    let mut w = World::new(code);
    w.cpu().s.regs.set(gpr::RDI, DATA);
    w
}

#[test]
fn the_higher_vector_is_served_first() {
    sdm("vol. 3A §10.8.3: interrupt, task, and processor priority");
    let mut w = world(two_at_once());
    handler(&mut w, 0x31);
    handler(&mut w, 0x52);
    assert_eq!(w.run(1000), Ended::Halt);
    assert_eq!(noted(&mut w), [0x52, 0x31]);
}

#[test]
fn the_task_priority_holds_its_class_and_lower_ones_back() {
    sdm("vol. 3A §10.8.3.1: task and processor priorities");
    let mut w = world(masked_by_tpr());
    handler(&mut w, 0x52);
    handler(&mut w, 0x61);
    assert_eq!(w.run(1000), Ended::Halt);
    assert_eq!(noted(&mut w), [0x61, 0xee, 0x52]);
    assert_eq!(w.cpu().s.regs.get(gpr::RBX), 1 << (0x52 - 0x40), "IRR");
}

#[test]
fn a_lower_interrupt_waits_for_the_end_of_service() {
    sdm("vol. 3A §10.8.4–5: interrupt acceptance, signaling interrupt servicing completion");
    let mut w = world(one_interrupt());
    install(&mut w, 0x52, patient_handler());
    handler(&mut w, 0x31);
    assert_eq!(w.run(1000), Ended::Halt);
    assert_eq!(noted(&mut w), [0x52, 0xee, 0x31]);
    let mut w = world(one_interrupt());
    install(&mut w, 0x52, modest_handler());
    handler(&mut w, 0x71);
    assert_eq!(w.run(1000), Ended::Halt);
    assert_eq!(noted(&mut w), [0x52, 0x71, 0xee]);
}

#[test]
fn x2apic_registers_have_rules() {
    sdm("vol. 3A §10.12.1.2–3: x2APIC register address space, reserved bit checking");
    // Register, low and high half of the value; all refused.
    for (register, low, high) in [
        (0x808, 0x100, 0),       // TPR: reserved bits
        (0x808, 0, 1),           // upper half
        (0x80b, 1, 0),           // EOI takes zero only
        (0x802, 0, 0),           // the identifier is read-only
        (0x810, 0, 0),           // ISR likewise
        (0x828, 1, 0),           // ESR takes zero only
        (0x80e, 0, 0),           // DFR does not exist
        (0x831, 0, 0),           // nor the upper half of ICR
        (0x83f, 0x100, 0),       // self IPI: a vector only
        (0x01b, 0xfee0_0900, 0), // from x2APIC to xAPIC only through disabled (§10.12.5)
    ] {
        let mut w = world(write_register());
        let regs = &mut w.cpu().s.regs;
        regs.set(gpr::RSI, register);
        regs.set(gpr::RBX, low);
        regs.set(gpr::RBP, high);
        assert_eq!(w.run(1000), Ended::Vector(13), "WRMSR {register:#x}");
        assert_eq!(w.frame(0), 0);
    }
    for register in [0x80b, 0x83f, 0x80e, 0x831] {
        let mut w = world(read_register());
        w.cpu().s.regs.set(gpr::RSI, register);
        assert_eq!(w.run(1000), Ended::Vector(13), "RDMSR {register:#x}");
    }
    let mut w = world(read_register());
    w.cpu().s.regs.set(gpr::RSI, 0x803);
    assert_eq!(w.run(1000), Ended::Halt);
    assert_eq!(w.cpu().s.regs.get(gpr::RAX) & 0xff, 0x15, "version of an integrated APIC");
}

#[test]
fn a_one_shot_timer_fires_once() {
    sdm("vol. 3A §10.5.4: APIC timer");
    let mut w = world(one_shot());
    handler(&mut w, 0x40);
    for _ in 0..2000 {
        w.run(1000);
        w.cpu().poll_timer();
    }
    assert_eq!(noted(&mut w), [0x40]);
}

#[test]
fn init_and_start_up_put_a_processor_into_real_mode() {
    sdm("vol. 3A §8.4.3, §10.4.7.3: INIT, then start-up at vector × 4096");
    let mut w = World::with_cpus(&[start_the_other(), start_the_other()]);
    w.write(0x6000, &[0x0e, 0x58, 0xf4]); // push cs; pop ax; hlt
    w.engines[1].cpu.activity = cpu::Activity::WaitForSipi;
    let rsp = 0x8000;
    assert_eq!(w.run(1000), Ended::Halt);
    let other = &mut w.engines[1];
    World::run_engine(other, 0); // takes INIT
    other.cpu.s.regs.set(gpr::RSP, rsp);
    assert_eq!(World::run_engine(other, 100), Ended::Halt);
    assert_eq!(other.cpu.s.regs.get(gpr::RAX) & 0xffff, 0x600, "CS");
    assert_eq!(other.cpu.s.rip, 3);
    assert!(!other.cpu.s.cr0.contains(arch::regs::Cr0::PE));
}
