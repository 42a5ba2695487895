//! AEX-Notify and EDECCSSA.

use std::mem::offset_of;

use arch::regs::gpr;
use archtest::{guest, sdm};
use cpu::shared::request;
use sgx::sigstruct::signer::Signer;
use sgx_abi::{AttributeFlags, Einittoken, GprSgx, Tcs, TcsFlags};

use crate::machine::{Enclave, Machine, Seen, aep, at, host, roots, user_stack};

// RDI: bit 0 asks for notifications. RSI: rounds of a loop. Then UD2 twice, which
// the handler steps over. GPRSGX of the first frame is at 3f48h.
guest!(
    program,
    "lea r14, [rip + 771b + 0x1000]", // the data page
    "test eax, eax",
    "jnz 50f",
    "mov [r14 + 0x800], rcx",
    "mov [rip + 771b + 0x3f48 + 167], dil", // AEXNOTIFY
    "lea rsp, [r14 + 0x800]",
    "mov rbp, 0x5555",
    "mov r8, 0x8888",
    "mov r15, -15",
    "movq xmm6, r8",
    "33: sub rsi, 1",
    "ja 33b",
    "stc",
    "ud2",
    "ud2",
    // what is left of all that
    "setc [r14 + 0x40]",
    "mov [r14 + 0x48], rbp",
    "mov [r14 + 0x50], r8",
    "mov [r14 + 0x58], r15",
    "movq [r14 + 0x60], xmm6",
    "mov [r14 + 0x68], rsp",
    "mov rbx, [r14 + 0x800]",
    "mov rsp, [rip + 771b + 0x3f48 + 144]", // URSP
    "mov eax, 4",                           // EEXIT
    "enclu",
    // the handler
    "50: mov [r14], rax",
    "mov [r14 + 8], rbx",
    "mov [r14 + 16], rcx",
    "mov [r14 + 24], rsp",
    "inc qword ptr [r14 + 32]",
    "lea rbx, [rip + 771b + 0x3f48]",
    "mov eax, [rbx + 160]", // EXITINFO
    "mov [r14 + 40], rax",
    "test eax, eax",
    "jz 51f",
    "add qword ptr [rbx + 136], 2", // over UD2
    "51: mov eax, 9",               // EDECCSSA
    "enclu",
    "mov [r14 + 48], rax",
    // goes on where the exit was, with the registers of then
    "movdqu xmm6, [rip + 771b + 0x3000 + 256]",
    "mov rsp, [rbx + 32]",
    "push qword ptr [rbx + 136]",
    "push qword ptr [rbx + 128]",
    "mov rbp, [rbx + 40]",
    "mov rsi, [rbx + 48]",
    "mov rdi, [rbx + 56]",
    "mov r8, [rbx + 64]",
    "mov r15, [rbx + 120]",
    "popfq",
    "ret",
);

const INVALID_OPCODE: u64 = 6;
const NMI: u8 = 2;
/// EXITINFO of #UD: valid, a hardware exception.
const EXITINFO_UD: u64 = 1 << 31 | 3 << 8 | INVALID_OPCODE;

fn enclave(m: &mut Machine, nssa: u32) -> Enclave {
    let e = m.standard(AttributeFlags::AEXNOTIFY, program(), &[], |tcs| {
        tcs.nssa = nssa;
        tcs.flags = TcsFlags::AEXNOTIFY;
    });
    let sig = e.sign(&Signer::A);
    assert_eq!(m.init(&e, &sig, &Einittoken::default()), 0);
    e
}

fn word(m: &Machine, e: &Enclave, n: u64) -> u64 {
    m.inside(e, at::DATA + n)
}

fn cssa(m: &Machine, e: &Enclave) -> u32 {
    m.inside(e, at::TCS + offset_of!(Tcs, cssa) as u64)
}

fn frame(m: &Machine, e: &Enclave, n: u64) -> GprSgx {
    m.inside(e, at::SSA + (n + 1) * 0x1000 - GprSgx::SIZE as u64)
}

/// What the program keeps over everything.
fn all_is_kept(m: &Machine, e: &Enclave) {
    let words = [0x40, 0x48, 0x50, 0x58, 0x60, 0x68].map(|n| word(m, e, n));
    assert_eq!(words, [1, 0x5555, 0x8888, -15i64 as u64, 0x8888, e.la(at::DATA) + 0x800]);
}

#[test]
fn a_thread_that_asks_is_notified_of_exceptions() {
    sdm("vol. 3D, ERESUME; EDECCSSA; \"Asynchronous Enclave Exit Notify\"");
    let mut m = Machine::new(1, roots(3));
    let e = enclave(&mut m, 2);
    m.enter(0, e.la(at::TCS), &[(gpr::RDI, 1)]);
    for round in 1..=2 {
        assert_eq!(m.run(0, 1000), Seen::Aex(6));
        assert_eq!((cssa(&m, &e), word(&m, &e, 32)), (1, round - 1));
        let saved = frame(&m, &e, 0);
        assert_eq!((saved.rbp, saved.r15, saved.aexnotify), (0x5555, -15i64 as u64, 1));
        // The handler of the system changes nothing and returns to the AEP.
    }
    assert_eq!(m.run(0, 1000), Seen::Back);
    // RAX: the frame's number; RBX: the TCS; RCX: after the ERESUME; RSP: still the host's.
    let entered = [0, 8, 16, 24].map(|n| word(&m, &e, n));
    assert_eq!(entered, [1, e.la(at::TCS), aep(0) + 3, user_stack(0)]);
    assert_eq!(frame(&m, &e, 1).ursp, user_stack(0));
    assert_eq!((word(&m, &e, 32), word(&m, &e, 40)), (2, EXITINFO_UD));
    assert_eq!(word(&m, &e, 48), 9, "EDECCSSA leaves RAX");
    all_is_kept(&m, &e);
    assert_eq!(cssa(&m, &e), 0);
    assert_eq!(m.frame(0, 0), host(0) + 3);
}

#[test]
fn a_thread_that_asks_is_notified_of_interrupts() {
    sdm("vol. 3D, ERESUME; EXITINFO: not valid after an interrupt");
    let mut m = Machine::new(1, roots(3));
    let e = enclave(&mut m, 2);
    m.enter(0, e.la(at::TCS), &[(gpr::RDI, 1), (gpr::RSI, 100_000)]);
    for round in 1..=3 {
        assert_eq!(m.run(0, 5000), Seen::Budget(true));
        m.w.cpu().shared.request(request::NMI);
        assert_eq!(m.run(0, 5000), Seen::Aex(NMI));
        assert_eq!((word(&m, &e, 32), cssa(&m, &e)), (round - 1, 1));
        // Through the handler, and on in the loop.
        assert_eq!(m.run(0, 5000), Seen::Budget(true));
        assert_eq!((word(&m, &e, 32), word(&m, &e, 40), cssa(&m, &e)), (round, 0, 0));
    }
    for _ in 0..2 {
        assert_eq!(m.run(0, 500_000), Seen::Aex(6));
    }
    assert_eq!(m.run(0, 1000), Seen::Back);
    assert_eq!((word(&m, &e, 32), cssa(&m, &e)), (5, 0));
    all_is_kept(&m, &e);
}

/// An event in the handler itself, before EDECCSSA: the frame above is in use,
/// and did not ask, so ERESUME goes on in the handler.
#[test]
fn a_handler_is_resumed_plainly() {
    let mut m = Machine::new(1, roots(3));
    let e = enclave(&mut m, 2);
    m.enter(0, e.la(at::TCS), &[(gpr::RDI, 1)]);
    assert_eq!(m.run(0, 1000), Seen::Aex(6));
    // IRET, ERESUME and a few instructions of the handler
    assert_eq!(m.run(0, 6), Seen::Budget(true));
    m.w.cpu().shared.request(request::NMI);
    assert_eq!(m.run(0, 1), Seen::Aex(NMI));
    assert_eq!(cssa(&m, &e), 2);
    assert_eq!(frame(&m, &e, 1).aexnotify, 0);
    assert_eq!(m.run(0, 1000), Seen::Aex(6), "the second UD2");
    assert_eq!((word(&m, &e, 32), cssa(&m, &e)), (1, 1), "entered once, not afresh");
    assert_eq!(m.run(0, 1000), Seen::Back);
    all_is_kept(&m, &e);
}

#[test]
fn a_thread_that_does_not_ask_is_resumed_plainly() {
    let mut m = Machine::new(1, roots(3));
    let e = enclave(&mut m, 2);
    m.enter(0, e.la(at::TCS), &[(gpr::RSI, 100_000)]);
    assert_eq!(m.run(0, 5000), Seen::Budget(true));
    m.w.cpu().shared.request(request::NMI);
    assert_eq!(m.run(0, 5000), Seen::Aex(NMI));
    assert_eq!(m.run(0, 5000), Seen::Budget(true));
    assert_eq!(cssa(&m, &e), 0);
    // UD2 again and again: nobody steps over it.
    for _ in 0..3 {
        assert_eq!(m.run(0, 500_000), Seen::Aex(6));
        assert_eq!((cssa(&m, &e), word(&m, &e, 32)), (1, 0));
        assert_eq!((frame(&m, &e, 0).rbp, frame(&m, &e, 0).r8), (0x5555, 0x8888));
    }
    // A host that enters afresh has the handler step over it, without notification.
    m.enter(0, e.la(at::TCS), &[]);
    assert_eq!(m.run(0, 1000), Seen::Aex(6), "the second UD2, after EDECCSSA");
    assert_eq!((word(&m, &e, 0), word(&m, &e, 16), word(&m, &e, 32)), (1, host(0) + 3, 1));
}

#[test]
fn a_notification_needs_a_frame() {
    sdm("vol. 3D, ERESUME: #GP(0) if TCS.CSSA is not below TCS.NSSA");
    let mut m = Machine::new(1, roots(3));
    let e = enclave(&mut m, 1);
    m.enter(0, e.la(at::TCS), &[(gpr::RDI, 1)]);
    assert_eq!(m.run(0, 1000), Seen::Aex(6));
    assert_eq!(m.run(0, 1000), Seen::Fault(13));
    assert_eq!((cssa(&m, &e), word(&m, &e, 32)), (1, 0));
}

#[test]
fn thread_and_enclave_agree_about_notification() {
    sdm("vol. 3D, EENTER: TCS.FLAGS.AEXNOTIFY and ATTRIBUTES.AEXNOTIFY");
    let (no, yes) = (AttributeFlags::empty(), AttributeFlags::AEXNOTIFY);
    for (attribute, flag, seen) in [
        (no, TcsFlags::AEXNOTIFY, Seen::Fault(13)),
        (yes, TcsFlags::empty(), Seen::Fault(13)),
        (no, TcsFlags::empty(), Seen::Aex(6)),
    ] {
        let mut m = Machine::new(1, roots(3));
        let e = m.standard(attribute, program(), &[], |tcs| tcs.flags = flag);
        let sig = e.sign(&Signer::A);
        assert_eq!(m.init(&e, &sig, &Einittoken::default()), 0);
        // The byte in the frame alone asks for nothing.
        m.enter(0, e.la(at::TCS), &[(gpr::RDI, 1)]);
        assert_eq!(m.run(0, 1000), seen);
        if seen == Seen::Aex(6) {
            assert_eq!(m.run(0, 1000), seen);
            assert_eq!((frame(&m, &e, 0).aexnotify, word(&m, &e, 32)), (1, 0));
        }
    }
}
