//! The asynchronous exit and the way back.

mod inside;

use arch::Vector;
use arch::regs::{gpr, rflags};
use inside::{AEP, CODE, HOST, SSA, TCS, World, page};
use sgx::Done;
use sgx::aex::{Event, Kind, exit};
use sgx_abi::{AttributeFlags, Enclu, ExInfo, ExitInfo, ExitType, MiscSelect, Tcs, TcsFlags};

const EXINFO: usize = inside::GPR - ExInfo::SIZE;

fn tcs(w: &World) -> Tcs {
    w.package.read(page(TCS), 0).unwrap()
}

#[test]
fn state_goes_into_the_frame_and_comes_back() {
    let mut w = World::new();
    w.port.control.xcr0 = 0xe7;
    w.port.rflags |= rflags::IF | rflags::TF;
    let (segments, host) = (w.port.segments, w.port.gpr);
    w.enter();
    w.port.gpr = std::array::from_fn(|i| 0xabcd_0000 + i as u64);
    let secret = w.port.gpr;
    w.port.xstate = [0x42; sgx::testing::XSAVE_SIZE];
    w.port.rip = CODE + 0x123;
    w.port.segments[4].base = CODE;
    w.port.rflags |= rflags::CF | rflags::DF | rflags::OF;
    let outcome = w.aex(Vector::PageFault, 0x8007, CODE + 0x789);

    assert_eq!((outcome.address, outcome.error, outcome.lost), (CODE, 0x8007, false));
    let mut expected = [0; 16];
    expected[gpr::RAX] = 3;
    expected[gpr::RBX] = TCS;
    expected[gpr::RCX] = AEP;
    (expected[gpr::RSP], expected[gpr::RBP]) = (host[gpr::RSP], host[gpr::RBP]);
    assert_eq!((w.port.gpr, w.port.rip), (expected, AEP));
    assert_eq!(w.port.rflags, rflags::FIXED | rflags::IF | rflags::TF | rflags::DF);
    assert_eq!((w.port.segments, w.port.control.xcr0), (segments, 0xe7));
    assert!(w.port.xstate == [0; sgx::testing::XSAVE_SIZE] && w.port.thread.is_none());
    assert_eq!((tcs(&w).cssa, tcs(&w).state), (1, 0));
    assert_eq!(w.enclave.with(|s| s.tracking.inside()), 0);

    let frame = w.frame(0);
    assert_eq!((frame.rax, frame.rsp, frame.r15), (secret[0], secret[4], secret[15]));
    assert_eq!((frame.rip, frame.fsbase), (CODE + 0x123, CODE));
    let flags = rflags::FIXED | rflags::IF | rflags::CF | rflags::DF | rflags::OF | rflags::RF;
    assert_eq!(frame.rflags, flags);
    assert_eq!(frame.exitinfo, ExitInfo::new(14, ExitType::Hardware));
    let info: ExInfo = w.package.read(page(SSA + 0x1000), EXINFO).unwrap();
    assert_eq!((info.maddr, info.errcd), (CODE + 0x789, 0x8007));
    let area: [u8; 576] = w.package.read(page(SSA), 0).unwrap();
    assert_eq!((area[0], area[511], area[512], area[519]), (0x42, 0x42, 0x42 & 7, 0));
    assert!(area[520..536].iter().all(|&b| b == 0));

    assert_eq!(w.enclu(Enclu::Eresume), Ok(Done::Jump));
    assert_eq!((w.port.gpr, w.port.rip), (secret, CODE + 0x123));
    // IF is the host's: IOPL is not 3
    assert_eq!(w.port.rflags, flags);
    assert_eq!((w.port.segments[4].base, w.port.control.xcr0, w.port.xstate[0]), (CODE, 7, 0x42));
    assert_eq!((tcs(&w).cssa, tcs(&w).state), (0, 1));
    assert!(w.port.thread.as_ref().unwrap().saved_tf);
}

#[test]
fn exitinfo_tells_only_what_the_sdm_lists() {
    let always = [0u8, 1, 3, 5, 6, 16, 17, 19];
    for vector in 0..=255u8 {
        for kind in [Kind::Interrupt, Kind::Hardware, Kind::Software] {
            for exinfo in [false, true] {
                let mut w = World::new();
                w.secs(|s| s.miscselect = if exinfo { MiscSelect::EXINFO } else { MiscSelect::empty() });
                w.enter();
                w.package.write(page(SSA + 0x1000), EXINFO, &[0xaau8; 16]).unwrap();
                let event = Event { vector, kind, error: 5, address: 0x1234_5678, rip: CODE, rflags: 2 };
                let outcome = exit(&mut w.port, &w.package, &event);
                let pf_gp = kind != Kind::Interrupt && (vector == 13 || vector == 14);
                let exit_type = match kind {
                    Kind::Interrupt => None,
                    Kind::Hardware => Some(ExitType::Hardware),
                    Kind::Software => Some(ExitType::Software),
                };
                let told = always.contains(&vector) || exinfo && pf_gp;
                let expected =
                    exit_type.filter(|_| told).map_or(ExitInfo::NONE, |t| ExitInfo::new(vector, t));
                assert_eq!(w.frame(0).exitinfo, expected, "vector {vector}, {kind:?}");
                let info: ExInfo = w.package.read(page(SSA + 0x1000), EXINFO).unwrap();
                let maddr = if vector == 14 { 0x1234_5678 } else { 0 };
                if exinfo && pf_gp {
                    assert_eq!((info.maddr, info.errcd, info.reserved1), (maddr, 5, 0));
                } else {
                    assert_eq!(info.maddr, 0xaaaa_aaaa_aaaa_aaaa);
                }
                let cut = kind != Kind::Interrupt && vector == 14;
                assert_eq!(outcome.address, if cut { 0x1234_5000 } else { 0x1234_5678 });
            }
        }
    }
}

#[test]
fn floating_point_faults_leave_their_trace() {
    let mut w = World::new();
    w.enter();
    w.aex(Vector::X87, 0, 0);
    assert_eq!(w.port.xstate[..4], [0x7e, 0x03, 0x81, 0x80]);
    let mut w = World::new();
    w.enter();
    w.aex(Vector::Simd, 0, 0);
    assert_eq!(w.port.xstate[24..28], [0x01, 0x1f, 0, 0]);
}

#[test]
fn frames_stack_up_until_none_is_left() {
    let mut w = World::new();
    for i in 0..3 {
        w.enter();
        assert_eq!(w.port.gpr[gpr::RAX], i);
        w.port.gpr[gpr::R8] = 100 + i;
        w.aex(Vector::InvalidOpcode, 0, 0);
    }
    w.operands(TCS, AEP, 0);
    assert_eq!(w.enclu(Enclu::Eenter), Err(arch::Exception::GP0));
    for i in (0..3).rev() {
        w.operands(TCS, AEP, 0);
        assert_eq!(w.enclu(Enclu::Eresume), Ok(Done::Jump));
        assert_eq!((w.port.gpr[gpr::R8], tcs(&w).cssa), (100 + i, i as u32));
        w.operands(HOST, 0, 0);
        assert_eq!(w.enclu(Enclu::Eexit), Ok(Done::Jump));
    }
}

#[test]
fn a_notified_thread_is_entered_afresh_on_the_next_frame() {
    let mut w = World::new();
    w.secs(|s| s.attributes.flags |= AttributeFlags::AEXNOTIFY);
    w.tcs(|t| t.flags |= TcsFlags::AEXNOTIFY);
    w.enter();
    w.set_frame(0, |f| f.aexnotify = 1);
    w.aex(Vector::DivideError, 0, 0);
    w.port.gpr[gpr::RSP] = HOST + 0x800;
    w.port.rip = AEP;
    assert_eq!(w.enclu(Enclu::Eresume), Ok(Done::Jump));
    assert_eq!((w.port.rip, w.port.gpr[gpr::RAX], w.port.gpr[gpr::RCX]), (CODE + 0x10, 1, AEP + 3));
    assert_eq!((tcs(&w).cssa, w.frame(1).ursp), (1, HOST + 0x800));
    assert_eq!(w.port.thread.as_ref().unwrap().ssa_address, SSA + 0x2000);
    // the interrupted frame is as it was, and EDECCSSA goes back to it
    assert_eq!(w.frame(0).exitinfo.vector(), Some(0));
    assert_eq!((w.enclu(Enclu::Edeccssa), tcs(&w).cssa), (Ok(Done::Quiet), 0));
}

#[test]
fn without_the_request_a_notifiable_thread_resumes() {
    let mut w = World::new();
    w.secs(|s| s.attributes.flags |= AttributeFlags::AEXNOTIFY);
    w.tcs(|t| t.flags |= TcsFlags::AEXNOTIFY);
    w.enter();
    w.port.rip = CODE + 0x40;
    w.aex(Vector::DivideError, 0, 0);
    assert_eq!((w.enclu(Enclu::Eresume), w.port.rip, tcs(&w).cssa), (Ok(Done::Jump), CODE + 0x40, 0));
}

#[test]
fn opt_in_keeps_tf_across_the_exit_and_saves_it_clear() {
    let mut w = World::new();
    w.opt_in();
    w.enter();
    w.port.rflags |= rflags::TF;
    w.aex(Vector::Debug, 0, 0);
    assert_eq!((w.frame(0).rflags & rflags::TF, w.port.rflags & rflags::TF), (0, rflags::TF));
    w.port.single_step = false;
    assert_eq!(w.enclu(Enclu::Eresume), Ok(Done::Jump));
    assert!(w.port.rflags & rflags::TF != 0 && !w.port.single_step);
}

#[test]
fn outside_64_bit_mode_half_the_registers_go() {
    let mut w = World::new();
    w.narrow();
    w.enter();
    w.port.gpr = std::array::from_fn(|i| 0x1_0000_0000 + i as u64);
    w.aex(Vector::DivideError, 0, 0);
    let frame = w.frame(0);
    assert_eq!((frame.rdi, frame.r8), (7, 0));
    assert_eq!((w.port.gpr[gpr::RDI], w.port.gpr[gpr::R8]), (0, 0x1_0000_0008));
    assert_eq!(w.enclu(Enclu::Eresume), Ok(Done::Jump));
    assert_eq!((w.port.gpr[gpr::RDI], w.port.gpr[gpr::R8]), (7, 0x1_0000_0008));
}

#[test]
fn a_lost_epc_lets_the_processor_go_and_tells_nothing() {
    for drop_and_lock in [false, true] {
        let mut w = World::new();
        let (segments, rsp) = (w.port.segments, w.port.gpr[gpr::RSP]);
        w.enter();
        w.port.gpr = [0x5ec3e7; 16];
        if drop_and_lock {
            w.package.dram.lose();
        } else {
            w.package.lose();
        }
        let outcome = w.aex(Vector::PageFault, 4, CODE + 5);
        assert!(outcome.lost && w.port.thread.is_none() && w.package.is_lost());
        assert_eq!((w.port.rip, w.port.gpr[gpr::RCX], w.port.gpr[gpr::RSP]), (AEP, AEP, rsp));
        assert!(w.port.gpr.iter().all(|&r| r != 0x5ec3e7) && w.port.segments == segments);
        assert_eq!(w.enclave.with(|s| s.tracking.inside()), 0);
        let fault = w.enclu(Enclu::Eresume).unwrap_err();
        assert_eq!((fault.vector, fault.error & 1 << 15), (Vector::PageFault, 1 << 15));
    }
}

#[test]
fn outside_an_enclave_nothing_happens() {
    let mut w = World::new();
    let before = w.snapshot();
    let outcome = w.aex(Vector::PageFault, 4, CODE + 5);
    assert_eq!((outcome.address, outcome.lost), (CODE + 5, false));
    assert!(w.snapshot() == before);
}
