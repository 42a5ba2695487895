//! The trampoline alone: registers go in and come out, faults are told apart.

use super::*;
use crate::area::{CODE, DATA};
use crate::rng::Rng;

fn run(native: &mut Native, regs: &Registers, code: &[u8]) -> Outcome {
    let next = CODE + 0x40 + code.len() as u64;
    native.memory.write_code(CODE + 0x40, code);
    native.memory.write_code(next, &exit_code(0));
    native.run(&Registers { rip: CODE + 0x40, ..*regs }, &[next, 0, 0])
}

fn random(rng: &mut Rng) -> Registers {
    let mut regs = Registers { rflags: 0x8d5, sw: 5 << 11, tag: 0x5a, ..Registers::default() };
    regs.gpr.iter_mut().for_each(|r| *r = rng.next());
    regs.ymm.iter_mut().flatten().for_each(|r| *r = rng.next());
    regs.st.iter_mut().for_each(|r| *r = rng.f80());
    regs
}

#[test]
fn a_no_operation_changes_nothing() {
    let mut native = Native::new().unwrap();
    let mut rng = Rng::new(1);
    for _ in 0..1000 {
        let regs = random(&mut rng);
        let got = run(&mut native, &regs, &[0x90]);
        let mut want = Registers { rip: CODE + 0x41, ..regs };
        want.rflags |= 0x202;
        assert_eq!(got, Outcome { regs: want, fault: None });
    }
}

#[test]
fn faults_come_with_vector_error_code_and_state() {
    let mut native = Native::new().unwrap();
    let mut regs = random(&mut Rng::new(2));
    let mut fault = |code: &[u8], rax: u64| {
        regs.gpr[0] = rax;
        let got = run(&mut native, &regs, code);
        assert_eq!((got.regs.gpr, got.regs.ymm, got.regs.st), (regs.gpr, regs.ymm, regs.st));
        assert_eq!(got.regs.rip, CODE + 0x40);
        got.fault.map(|f| (f.vector, f.error, f.address))
    };
    let store = [0x48, 0x89, 0x08]; // mov [rax], rcx
    let load = [0x48, 0x8b, 0x08];
    assert_eq!(fault(&store, DATA + 0x3000), Some((14, 6, DATA + 0x3000)));
    assert_eq!(fault(&store, DATA + 0x2000), Some((14, 7, DATA + 0x2000)));
    assert_eq!(fault(&load, DATA + 0x2ffc), Some((14, 4, DATA + 0x3000)));
    assert_eq!(fault(&load, 1 << 60), Some((13, 0, 0)));
    assert_eq!(fault(&[0x0f, 0x0b], 0), Some((6, 0, 0)));
    assert_eq!(fault(&[0x48, 0xf7, 0xf0], 0), Some((0, 0, 0))); // div rax
}

#[test]
fn gs_has_a_known_base() {
    let mut native = Native::new().unwrap();
    let mut regs = random(&mut Rng::new(3));
    native.memory.data()[8] = 77;
    regs.gpr[0] = DATA + 8 - area::GS_BASE;
    let got = run(&mut native, &regs, &[0x65, 0x0f, 0xb6, 0x08]); // movzx ecx, byte ptr gs:[rax]
    assert_eq!((got.fault, got.regs.gpr[1]), (None, 77));
}

#[test]
fn alignment_checks_and_unmasked_exceptions_are_caught() {
    let mut native = Native::new().unwrap();
    let mut regs = random(&mut Rng::new(4));
    regs.rflags |= arch::regs::rflags::AC;
    regs.gpr[0] = DATA + 1;
    let got = run(&mut native, &regs, &[0x48, 0x8b, 0x08]);
    assert_eq!(got.fault.map(|f| (f.vector, f.error)), Some((17, 0)));
    regs.mxcsr = 0;
    regs.ymm[0][0] = 0;
    let got = run(&mut native, &regs, &[0xf3, 0x0f, 0x5e, 0xc0]); // divss xmm0, xmm0: 0/0
    assert_eq!((got.fault.map(|f| f.vector), got.regs.mxcsr), (Some(19), 1));
}
