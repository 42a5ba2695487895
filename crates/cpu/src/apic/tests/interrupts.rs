//! Acceptance, priority, EOI, errors and local sources (§10.5, §10.8, §10.9).

use super::*;

#[test]
fn ppr_is_the_higher_of_tpr_and_isr_class() {
    // §10.8.3.1, every TPR against a sample of every class in service.
    for tpr in 0..=255u8 {
        for isrv in (16..=255u8).step_by(5) {
            let mut a = xapic(0);
            a.accept(isrv, false);
            assert_eq!(a.ack(), isrv);
            a.write(0x80, tpr.into(), 0);
            let ppr = a.ppr();
            assert_eq!(ppr >> 4, (tpr >> 4).max(isrv >> 4));
            assert_eq!(ppr & 15, if tpr >> 4 >= isrv >> 4 { tpr & 15 } else { 0 });
            assert_eq!(a.read(0xa0, 0), u32::from(ppr));
        }
    }
}

#[test]
fn only_a_higher_class_interrupts() {
    // §10.8.3: every vector against every TPR.
    for vector in 16..=255u8 {
        let mut a = xapic(0);
        assert!(a.accept(vector, false));
        for tpr in 0..=255u32 {
            a.write(0x80, tpr, 0);
            let want = (u32::from(vector >> 4) > tpr >> 4).then_some(vector);
            assert_eq!(a.pending(), want, "vector {vector} TPR {tpr}");
        }
    }
}

#[test]
fn nested_interrupts_end_in_order() {
    let mut a = xapic(0);
    a.accept(0x31, false);
    assert_eq!(a.ack(), 0x31);
    a.accept(0x3f, false);
    assert_eq!(a.pending(), None, "same class waits");
    a.accept(0x41, true);
    assert_eq!(a.ack(), 0x41);
    assert_eq!(a.write(0xb0, 0, 0), Some(Effect::Eoi(0x41)), "level: broadcast");
    assert_eq!(a.pending(), None);
    assert_eq!(a.write(0xb0, 0, 0), None, "edge: none");
    assert_eq!(a.pending(), Some(0x3f));
    a.ack();
    a.write(0xb0, 0, 0);
    assert_eq!(a.write(0xb0, 0, 0), None, "EOI with nothing in service");
}

#[test]
fn irr_holds_a_second_one_while_the_first_is_in_service() {
    // §10.8.4: one in ISR, one in IRR; more are merged.
    let mut a = xapic(0);
    for _ in 0..3 {
        a.accept(0x80, false);
    }
    assert_eq!(a.ack(), 0x80);
    a.accept(0x80, false);
    a.accept(0x80, false);
    assert_eq!((a.read(0x140, 0), a.read(0x240, 0)), (1, 1));
    a.write(0xb0, 0, 0);
    assert_eq!(a.ack(), 0x80);
    a.write(0xb0, 0, 0);
    assert_eq!(a.pending(), None);
}

#[test]
fn spurious_vector_when_nothing_is_pending() {
    // §10.9: no ISR bit, so no EOI.
    let mut a = xapic(0);
    a.write(0xf0, 0x1ef, 0);
    a.accept(0x50, false);
    a.write(0x80, 0x50, 0);
    assert_eq!(a.ack(), 0xef);
    assert_eq!(a.read(0x170, 0), 0);
    a.write(0x80, 0, 0);
    assert_eq!(a.ack(), 0x50);
}

#[test]
fn trigger_mode_of_the_last_acceptance_counts() {
    let mut a = xapic(0);
    a.accept(0x60, true);
    assert_eq!(a.read(0x1b0, 0), 1);
    a.accept(0x60, false);
    assert_eq!(a.read(0x1b0, 0), 0);
    a.ack();
    assert_eq!(a.write(0xb0, 0, 0), None);
}

#[test]
fn eoi_broadcast_can_be_suppressed() {
    // §10.8.5
    let mut a = xapic(0);
    a.write(0xf0, 0x11ff, 0);
    a.accept(0x60, true);
    a.ack();
    assert_eq!(a.write(0xb0, 0, 0), None);
    let mut a = Apic::new(Config { eoi_suppression: false, ..config(0) });
    a.write(0xf0, 0x11ff, 0);
    assert_eq!(a.read(0xf0, 0), 0x1ff, "the bit does not exist without support");
    assert_eq!(a.read(0x30, 0), 0x6_0015);
}

#[test]
fn cr8_is_the_tpr_class() {
    // §10.8.6
    let mut a = xapic(0);
    a.write(0x80, 0x57, 0);
    assert_eq!(a.cr8(), 5);
    a.set_cr8(9).unwrap();
    assert_eq!(a.read(0x80, 0), 0x90);
    for bad in [16, 1 << 32, u64::MAX] {
        assert_eq!(a.set_cr8(bad), Err(Gp));
    }
}

#[test]
fn software_disable() {
    // §10.4.7.2
    let mut a = xapic(0);
    a.write(0x320, 0x40, 0);
    a.accept(0x70, false);
    a.write(0xf0, 0xff, 0);
    assert!(!a.accept(0x71, false));
    assert_eq!(a.pending(), Some(0x70), "what is in the IRR is held");
    assert_eq!(a.read(0x320, 0), 0x1_0040, "LVT is masked");
    a.write(0x320, 0x41, 0);
    assert_eq!(a.read(0x320, 0), 0x1_0041, "and stays so");
    assert_eq!(a.deliver(Delivery::Nmi, 0, false), Some(Signal::Nmi));
    assert_eq!(a.deliver(Delivery::Init, 0, false), Some(Signal::Init));
    assert_eq!(a.deliver(Delivery::StartUp, 0x9a, false), Some(Signal::StartUp(0x9a)));
    assert_eq!(a.deliver(Delivery::Smi, 0, false), Some(Signal::Smi));
    assert!(matches!(a.write(0x300, 0xc_4050, 0), Some(Effect::Send(_))), "IPIs still go out");
    a.write(0xf0, 0x1ff, 0);
    assert_eq!(a.read(0x320, 0), 0x1_0041, "enabling does not unmask");
}

#[test]
fn errors_are_latched_by_a_write() {
    // §10.5.3
    let mut a = xapic(0);
    for v in 0..16 {
        assert!(!a.accept(v, false));
    }
    assert_eq!(a.read(0x280, 0), 0);
    a.write(0x280, 0xffff, 0);
    assert_eq!(a.read(0x280, 0), 0x40);
    a.write(0x300, 0x0000_400f, 0);
    a.read(0x40, 0);
    assert_eq!(a.read(0x280, 0), 0x40, "not before the next write");
    a.write(0x280, 0, 0);
    assert_eq!(a.read(0x280, 0), 0xa0, "send illegal vector, illegal register");
    a.write(0x280, 0, 0);
    assert_eq!(a.read(0x280, 0), 0);
}

#[test]
fn errors_interrupt() {
    let mut a = xapic(0);
    a.write(0x370, 0xfe, 0);
    a.write(0x000, 1, 0); // a reserved register
    assert_eq!(a.ack(), 0xfe);
    // An illegal error vector is recorded, once, and does not recurse.
    a.write(0x370, 0x05, 0);
    a.write(0xb0, 0, 0);
    a.accept(3, false);
    a.write(0x280, 0, 0);
    assert_eq!(a.read(0x280, 0), 0xc0);
    assert_eq!(a.pending(), None);
}

#[test]
fn local_sources() {
    // §10.5.1
    let mut a = xapic(0);
    assert_eq!(a.local_event(Lvt::Thermal), None);
    assert_eq!(a.pending(), None, "masked after reset");
    a.write(0x330, 0x0fa, 0);
    a.local_event(Lvt::Thermal);
    assert_eq!(a.ack(), 0xfa);
    a.write(0x340, 0x400, 0);
    assert_eq!(a.local_event(Lvt::Performance), Some(Signal::Nmi));
    assert_eq!(a.read(0x340, 0), 0x1_0400, "a PMI masks its entry");
    assert_eq!(a.local_event(Lvt::Performance), None);
    a.write(0x2f0, 0x200, 0);
    assert_eq!(a.local_event(Lvt::Cmci), Some(Signal::Smi));
    a.write(0x330, 0x300, 0);
    assert_eq!(a.local_event(Lvt::Thermal), None, "reserved delivery mode");
    a.write(0x320, 0x40, 0);
    assert_eq!(a.local_event(Lvt::Timer), None);
    assert_eq!(a.pending(), None);
}

#[test]
fn lint_pins() {
    let mut a = xapic(0);
    a.write(0x360, 0x400, 0);
    assert_eq!(a.set_lint(1, true), Some(Signal::Nmi));
    assert_eq!(a.set_lint(1, true), None, "edge triggered");
    a.set_lint(1, false);
    assert_eq!(a.set_lint(1, true), Some(Signal::Nmi));

    a.write(0x350, 0x700, 0);
    assert!(!a.extint());
    assert_eq!(a.set_lint(0, true), Some(Signal::ExtInt));
    assert!(a.extint(), "as long as the pin is asserted");
    a.write(0x350, 0x1_0700, 0);
    assert!(!a.extint(), "masked");

    // Edge, fixed.
    a.set_lint(0, false);
    a.write(0x350, 0x45, 0);
    a.set_lint(0, true);
    a.set_lint(0, true);
    assert_eq!(a.ack(), 0x45);
    assert_eq!(a.write(0xb0, 0, 0), None);
    assert_eq!(a.pending(), None);
}

#[test]
fn level_triggered_lint_and_remote_irr() {
    let mut a = xapic(0);
    a.write(0x350, 0x1_8045, 0);
    a.set_lint(0, true);
    assert_eq!(a.pending(), None);
    a.write(0x350, 0x8045, 0);
    assert_eq!(a.pending(), Some(0x45), "a waiting level comes with the unmasking");
    assert_eq!(a.read(0x350, 0), 0xc045, "remote IRR");
    a.set_lint(0, true);
    assert_eq!(a.ack(), 0x45);
    assert_eq!(a.pending(), None, "not again before EOI");
    a.write(0xb0, 0, 0);
    assert_eq!(a.pending(), Some(0x45), "still asserted");
    a.ack();
    a.set_lint(0, false);
    a.write(0xb0, 0, 0);
    assert_eq!((a.pending(), a.read(0x350, 0)), (None, 0x8045));
}

#[test]
fn a_disabled_apic_takes_nothing_and_passes_intr() {
    // §10.4.3
    let mut a = xapic(0);
    a.accept(0x50, false);
    a.wrmsr(0x1b, 0xfee0_0000, 0).unwrap();
    assert_eq!(a.mode(), Mode::Disabled);
    assert_eq!(a.pending(), None);
    assert_eq!(a.deliver(Delivery::Nmi, 0, false), None);
    assert!(!a.matches(0, false) && !a.matches(u32::MAX, false));
    assert!(!a.receives(1, Destination::AllExcludingSelf));
    a.set_lint(0, true);
    assert!(a.extint());
}
