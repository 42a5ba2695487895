//! Reset values, register access, modes (§10.4, §10.12).

use super::*;

const EN: u64 = 1 << 11;
const EXTD: u64 = 1 << 10;

#[test]
fn values_after_power_up() {
    // §10.4.7.1
    let mut a = Apic::new(config(0));
    assert_eq!(a.base_msr(), 0xfee0_0900);
    assert_eq!(Apic::new(config(1)).base_msr(), 0xfee0_0800);
    assert_eq!(a.mmio_base(), Some(0xfee0_0000));
    assert_eq!((a.read(0x20, 0), a.read(0x30, 0)), (0, 0x0106_0015));
    assert_eq!(a.read(0xe0, 0), u32::MAX);
    assert_eq!(a.read(0xf0, 0), 0xff);
    for at in [0x2f0, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370] {
        assert_eq!(a.read(at, 0), 0x1_0000, "{at:#x}");
    }
    for at in [0x80, 0xa0, 0xb0, 0xd0, 0x280, 0x300, 0x310, 0x380, 0x390, 0x3e0] {
        assert_eq!(a.read(at, 0), 0, "{at:#x}");
    }
    for at in (0x100..0x280).step_by(16) {
        assert_eq!(a.read(at, 0), 0, "{at:#x}");
    }
    a.write(0x280, 0, 0);
    assert_eq!(a.read(0x280, 0), 0, "none of these is reserved");
    assert_eq!(Apic::new(config(0x1_23)).read(0x20, 0), 0x2300_0000);
}

#[test]
fn init_keeps_mode_and_address() {
    // §10.4.7.3
    let mut a = xapic(2);
    a.wrmsr(0x1b, 0xfed0_0000 | EN, 0).unwrap();
    a.accept(0x55, true);
    a.write(0x80, 0x20, 0);
    a.write(0x380, 100, 0);
    a.init();
    let mut fresh = Apic::new(config(2));
    fresh.wrmsr(0x1b, 0xfed0_0000 | EN, 0).unwrap();
    assert_eq!(a, fresh);
    let mut a = x2apic(2);
    a.init();
    assert_eq!(a.mode(), Mode::X2Apic);
    a.reset();
    assert_eq!(a, Apic::new(config(2)));
}

#[test]
fn mode_transitions() {
    // Figure 10-27 and §10.12.5: from every mode to every value of EN and EXTD.
    use Mode::*;
    let base = 0xfee0_0000;
    let bits = |m| match m {
        Disabled => 0,
        XApic => EN,
        X2Apic => EN | EXTD,
    };
    for from in [Disabled, XApic, X2Apic] {
        for to in [Disabled, XApic, X2Apic] {
            let mut a = match from {
                X2Apic => x2apic(1),
                _ => xapic(1),
            };
            a.wrmsr(0x1b, base | bits(from), 0).unwrap();
            let bad = matches!((from, to), (Disabled, X2Apic) | (X2Apic, XApic));
            let before = a.clone();
            let got = a.wrmsr(0x1b, base | bits(to), 0);
            if bad {
                assert_eq!((got, &a), (Err(Gp), &before), "{from:?} to {to:?}");
            } else {
                assert_eq!(got, Ok((from != to).then_some(Effect::BaseChanged)));
                assert_eq!(a.mode(), to);
            }
        }
        // EXTD without EN is invalid from anywhere.
        let mut a = if from == X2Apic { x2apic(1) } else { xapic(1) };
        assert_eq!(a.wrmsr(0x1b, base | EXTD, 0), Err(Gp));
    }
}

#[test]
fn reserved_bits_of_the_base() {
    let mut a = xapic(0);
    for bit in 0..64 {
        let ok = [8, 11].contains(&bit) || (12..46).contains(&bit) || bit == 10;
        let got = a.clone().wrmsr(0x1b, EN | 1 << bit, 0);
        assert_eq!(got.is_ok(), ok, "bit {bit}");
    }
    let mut old = Apic::new(Config { x2apic: false, ..config(0) });
    assert_eq!(old.wrmsr(0x1b, 0xfee0_0000 | EN | EXTD, 0), Err(Gp));
    assert_eq!(a.wrmsr(0x1b, 0x12_3450_0000 | EN, 0), Ok(Some(Effect::BaseChanged)));
    assert_eq!(a.mmio_base(), Some(0x12_3450_0000));
}

#[test]
fn to_x2apic_state_is_kept() {
    // §10.12.5.1
    let mut a = xapic(0x12);
    a.write(0x80, 0x30, 0);
    a.write(0x310, 0x0700_0000, 0);
    a.write(0x350, 0x8700, 0);
    a.accept(0x99, true);
    a.wrmsr(0x1b, a.base_msr() | EXTD, 0).unwrap();
    assert_eq!(a.mmio_base(), None);
    assert_eq!((a.read(0x80, 0), a.write(0x80, 0, 0)), (0, None), "the page is gone");
    assert_eq!(a.rdmsr(0x808, 0), Ok(0x30));
    assert_eq!(a.rdmsr(0x835, 0), Ok(0x8700));
    assert_eq!(a.rdmsr(0x830, 0), Ok(0));
    assert_eq!(a.rdmsr(0x802, 0), Ok(0x12));
    assert_eq!(a.ack(), 0x99);
    // Disabled and enabled again: as after power-up.
    a.wrmsr(0x1b, 0xfee0_0000, 0).unwrap();
    a.wrmsr(0x1b, 0xfee0_0000 | EN, 0).unwrap();
    assert_eq!(a, Apic::new(config(0x12)));
}

#[test]
fn x2apic_registers_fault_or_not() {
    // Table 10-6: what can be read and written, over the whole range.
    let readable = |i: u32| {
        matches!(i, 0x802 | 0x803 | 0x808 | 0x80a | 0x80d | 0x80f | 0x810..=0x828
            | 0x82f | 0x830 | 0x832..=0x839 | 0x83e)
    };
    let writable =
        |i: u32| matches!(i, 0x808 | 0x80b | 0x80f | 0x828 | 0x82f | 0x830 | 0x832..=0x838 | 0x83e | 0x83f);
    for index in 0x7f0..0x910 {
        let mut a = x2apic(0);
        assert_eq!(a.rdmsr(index, 0).is_ok(), readable(index), "RDMSR {index:#x}");
        assert_eq!(a.wrmsr(index, 0, 0).is_ok(), writable(index), "WRMSR {index:#x}");
        assert_eq!(xapic(0).rdmsr(index, 0), Err(Gp), "outside x2APIC mode");
        assert_eq!(xapic(0).wrmsr(index, 0, 0), Err(Gp), "outside x2APIC mode");
    }
}

#[test]
fn x2apic_reserved_bits_fault() {
    // §10.12.1.3, every bit of every writable register.
    let defined: [(u32, u64); 13] = [
        (0x808, 0xff),
        (0x80b, 0),
        (0x80f, 0x11ff),
        (0x828, 0),
        (0x82f, 0x1_17ff),
        (0x832, 0x7_10ff),
        (0x833, 0x1_17ff),
        (0x834, 0x1_17ff),
        (0x835, 0x1_f7ff),
        (0x836, 0x1_f7ff),
        (0x837, 0x1_10ff),
        (0x838, 0xffff_ffff),
        (0x83e, 0xb),
    ];
    for (index, bits) in defined {
        for bit in 0..64 {
            let got = x2apic(0).wrmsr(index, 1 << bit, 0).is_ok();
            assert_eq!(got, bits >> bit & 1 != 0, "MSR {index:#x} bit {bit}");
        }
    }
    let mut a = Apic::new(Config { eoi_suppression: false, tsc_deadline: false, ..config(0) });
    a.wrmsr(0x1b, 0xfee0_0000 | EN | EXTD, 0).unwrap();
    assert_eq!(a.wrmsr(0x80f, 0x1000, 0), Err(Gp));
    assert_eq!(a.wrmsr(0x832, 0x4_0000, 0), Err(Gp));
    assert_eq!((a.rdmsr(0x6e0, 0), a.wrmsr(0x6e0, 1, 0)), (Err(Gp), Err(Gp)));
}

#[test]
fn xapic_ignores_what_it_cannot_set() {
    let mut a = xapic(5);
    let set: [(u32, u32); 8] = [
        (0x2f0, 0x1_07ff),
        (0x320, 0x7_00ff),
        (0x330, 0x1_07ff),
        (0x340, 0x1_07ff),
        (0x350, 0x1_a7ff),
        (0x360, 0x1_a7ff),
        (0x370, 0x1_00ff),
        (0x3e0, 0xb),
    ];
    for (at, bits) in set {
        a.write(at, u32::MAX, 0);
        assert_eq!(a.read(at, 0), bits, "{at:#x}");
    }
    for at in [0x20, 0x30, 0xa0, 0x100, 0x180, 0x270, 0x390] {
        let before = a.read(at, 0);
        a.write(at, !before, 0);
        assert_eq!(a.read(at, 0), before, "{at:#x} is read-only");
    }
    a.write(0x280, 0, 0);
    assert_eq!(a.read(0x280, 0), 0, "and none of that is an error");
}

#[test]
fn reserved_xapic_offsets_are_errors() {
    let valid = |at: u32| {
        matches!(
            at,
            0x20 | 0x30 | 0x80 | 0xa0 | 0xb0 | 0xd0 | 0xe0 | 0xf0 | 0x280 | 0x2f0 | 0x300 | 0x310 | 0x320
                ..=0x390 | 0x3e0
        ) || (0x100..0x280).contains(&at)
    };
    for at in (0..0x1000).step_by(4) {
        let ok = at % 16 == 0 && valid(at);
        for write in [false, true] {
            let mut a = xapic(0);
            if write {
                a.write(at, 0xff, 0);
            } else {
                a.read(at, 0);
            }
            if at != 0x280 {
                a.write(0x280, 0, 0);
            }
            assert_eq!(a.read(0x280, 0), if ok { 0 } else { 0x80 }, "{at:#x} write {write}");
        }
    }
}

#[test]
fn random_accesses_never_panic() {
    let mut r = Random(0x1234_5678_9abc_def1);
    let mut now = 0u64;
    for round in 0..64 {
        let ratio = [(10, 1), (0, 0), (1, u32::MAX), (u32::MAX, 1)][round % 4];
        let timer = Ratio { tsc: ratio.0, bus: ratio.1 };
        let mut a = Apic::new(Config { timer, ..config(r.next() as u32 & 0xff) });
        for _ in 0..4000 {
            let (x, y) = (r.next(), r.next());
            now = if x >> 60 == 0 { y } else { now.wrapping_add(y >> 44) };
            match x >> 8 & 7 {
                0 | 1 => drop(a.write(x as u32 & 0xff0, y as u32, now)),
                2 => drop(a.read(y as u32 & 0xfff, now)),
                3 => drop(a.wrmsr(0x800 + (x as u32 >> 16 & 0x3f), y >> (x >> 32 & 63), now)),
                4 => drop(a.wrmsr([0x1b, 0x6e0][x as usize >> 16 & 1], y & 0xfee0_0fff, now)),
                5 => drop(a.set_lint(x as usize >> 16 & 3, y & 1 != 0)),
                6 => drop(a.accept(x as u8, y & 1 != 0)),
                _ => {
                    a.write(0xf0, 0x1ff, now);
                    a.expire(now);
                    a.ack();
                }
            }
            let _ = (a.deadline(), a.ppr(), a.rdmsr(0x839, now), a.read(0x390, now));
        }
    }
}
