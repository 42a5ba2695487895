//! Interprocessor interrupts and destinations (§10.6, §10.12.9–11).

use super::*;

fn sent(e: Option<Effect>) -> Option<(Destination, Delivery, u8)> {
    match e {
        Some(Effect::Send(i)) => Some((i.dest, i.mode, i.vector)),
        None => None,
        Some(other) => panic!("{other:?}"),
    }
}

#[test]
fn icr_of_the_xapic() {
    let mut a = xapic(3);
    a.write(0x310, 0x0512_3456, 0);
    assert_eq!(a.read(0x310, 0), 0x0500_0000);
    let got = sent(a.write(0x300, 0xfff3_70fd, 0));
    assert_eq!(got, Some((Destination::Physical(5), Delivery::Fixed, 0xfd)));
    assert_eq!(a.read(0x300, 0), 0x40fd, "reserved bits and delivery status read zero");
    let got = sent(a.write(0x300, 0x0930, 0));
    assert_eq!(got, Some((Destination::Logical(5), Delivery::LowestPriority, 0x30)));
    a.write(0x310, 0xff00_0000, 0);
    let got = sent(a.write(0x300, 0x30, 0));
    assert_eq!(got, Some((Destination::Physical(u32::MAX), Delivery::Fixed, 0x30)));
}

#[test]
fn icr_of_the_x2apic() {
    // §10.12.9
    let mut a = x2apic(3);
    let got = sent(a.wrmsr(0x830, 0x0001_0000_0000_4040, 0).unwrap());
    assert_eq!(got, Some((Destination::Physical(0x1_0000), Delivery::Fixed, 0x40)));
    let value = 0xffff_ffff_0000_0840;
    let got = sent(a.wrmsr(0x830, value, 0).unwrap());
    assert_eq!(got, Some((Destination::Logical(u32::MAX), Delivery::Fixed, 0x40)));
    assert_eq!(a.rdmsr(0x830, 0), Ok(value));
    for bit in (0..32).filter(|b| 0x000c_cfffu32 >> b & 1 == 0) {
        assert_eq!(a.wrmsr(0x830, 1 << bit | 0x40, 0), Err(Gp), "bit {bit}");
    }
    assert_eq!(a.rdmsr(0x831, 0), Err(Gp));
}

#[test]
fn shorthands_and_delivery_modes() {
    // Table 10-3, all combinations of shorthand and delivery mode.
    use Delivery::*;
    let modes =
        [Some(Fixed), Some(LowestPriority), Some(Smi), None, Some(Nmi), Some(Init), Some(StartUp), None];
    for shorthand in 0..4u32 {
        for (bits, mode) in modes.iter().enumerate() {
            let mut a = xapic(7);
            a.write(0x310, 9 << 24, 0);
            let got = sent(a.write(0x300, shorthand << 18 | (bits as u32) << 8 | 0x4055, 0));
            let dest = match shorthand {
                0 => Some(Destination::Physical(9)),
                1 => None,
                2 => (*mode == Some(Fixed)).then_some(Destination::AllIncludingSelf),
                _ => Some(Destination::AllExcludingSelf),
            };
            let want = dest.zip(*mode).map(|(d, m)| (d, m, 0x55));
            assert_eq!(got, want, "shorthand {shorthand} mode {bits}");
            let own = shorthand == 1 && *mode == Some(Fixed);
            assert_eq!(a.pending(), own.then_some(0x55), "shorthand {shorthand} mode {bits}");
        }
    }
}

#[test]
fn init_deassert_is_ignored() {
    let mut a = xapic(0);
    a.write(0x310, 1 << 24, 0);
    // What Linux sends: INIT level assert, INIT level de-assert, two SIPIs.
    assert_eq!(sent(a.write(0x300, 0xc500, 0)).unwrap().1, Delivery::Init);
    assert_eq!(a.write(0x300, 0x8500, 0), None);
    let sipi = sent(a.write(0x300, 0x0699, 0)).unwrap();
    assert_eq!(sipi, (Destination::Physical(1), Delivery::StartUp, 0x99));
    // The page number of a start-up IPI is no vector.
    assert_eq!(sent(a.write(0x300, 0x0601, 0)).unwrap().2, 1);
}

#[test]
fn vectors_below_16_are_not_sent() {
    for v in 0..=255u32 {
        let mut a = xapic(0);
        let fixed = a.write(0x300, 0x4000 | v, 0);
        let lowest = a.write(0x300, 0x4100 | v, 0);
        assert_eq!((fixed.is_some(), lowest.is_some()), (v >= 16, v >= 16));
        a.write(0x280, 0, 0);
        assert_eq!(a.read(0x280, 0), if v < 16 { 0x20 } else { 0 });
    }
}

#[test]
fn self_ipi_register() {
    // §10.12.11
    let mut a = x2apic(0);
    a.wrmsr(0x83f, 0x77, 0).unwrap();
    assert_eq!(a.pending(), Some(0x77));
    assert_eq!(a.wrmsr(0x83f, 0x100, 0), Err(Gp));
    assert_eq!(a.rdmsr(0x83f, 0), Err(Gp), "write-only");
    a.wrmsr(0x83f, 5, 0).unwrap();
    a.wrmsr(0x828, 0, 0).unwrap();
    assert_eq!(a.rdmsr(0x828, 0), Ok(0x20));
    assert_eq!(xapic(0).wrmsr(0x83f, 0x77, 0), Err(Gp));
}

#[test]
fn physical_destinations() {
    for id in 0..255u32 {
        let (x, y) = (xapic(id), x2apic(id));
        for dest in 0..=255u32 {
            assert_eq!(x.matches(dest, false), dest == id || dest == 255);
            assert_eq!(y.matches(dest, false), dest == id);
        }
        assert!(x.matches(u32::MAX, false) && y.matches(u32::MAX, false));
        assert!(!x.matches(id | 0x100, false) && !y.matches(id | 0x100, false));
    }
    assert!(x2apic(255).matches(255, false), "an ordinary ID in x2APIC mode");
    assert!(x2apic(0x1_2345).matches(0x1_2345, false));
}

#[test]
fn logical_flat_model() {
    // §10.6.2.2, every MDA against every logical ID.
    let mut a = xapic(0);
    for ldr in 0..=255u32 {
        a.write(0xd0, ldr << 24 | 0xff_ffff, 0);
        assert_eq!(a.read(0xd0, 0), ldr << 24);
        for mda in 0..=255u32 {
            assert_eq!(a.matches(mda, true), mda & ldr != 0 || mda == 255);
        }
    }
}

#[test]
fn logical_cluster_model() {
    let mut a = xapic(0);
    a.write(0xe0, 0, 0);
    assert_eq!(a.read(0xe0, 0), 0x0fff_ffff);
    for ldr in 0..=255u32 {
        a.write(0xd0, ldr << 24, 0);
        for mda in 0..=255u32 {
            let cluster = mda >> 4 == 15 || mda >> 4 == ldr >> 4;
            let want = mda == 255 || cluster && mda & ldr & 15 != 0;
            assert_eq!(a.matches(mda, true), want, "LDR {ldr:#x} MDA {mda:#x}");
        }
    }
    a.write(0xe0, 0x5000_0000, 0);
    a.write(0xd0, 0xff00_0000, 0);
    assert!(!a.matches(1, true), "a model that does not exist");
}

#[test]
fn logical_x2apic_clusters() {
    // §10.12.10.2
    for id in [0u32, 1, 15, 16, 17, 0xff, 0x100, 0xf_fff3] {
        let mut a = x2apic(id);
        let ldr = (id >> 4) << 16 | 1 << (id & 15);
        assert_eq!(a.rdmsr(0x80d, 0), Ok(ldr.into()));
        assert_eq!(a.wrmsr(0x80d, 0, 0), Err(Gp), "read-only");
        assert!(a.matches(ldr, true) && a.matches(ldr | 0xffff, true));
        assert!(!a.matches(ldr & 0xffff_0000, true));
        assert!(!a.matches(ldr ^ 0x1_0000, true));
        assert!(a.matches(u32::MAX, true));
    }
}

#[test]
fn shorthand_receivers() {
    let a = xapic(4);
    assert!(a.receives(4, Destination::AllIncludingSelf));
    assert!(!a.receives(4, Destination::AllExcludingSelf));
    assert!(a.receives(5, Destination::AllExcludingSelf));
    assert!(a.receives(5, Destination::from_8bit(4, false)));
    assert!(a.receives(5, Destination::from_8bit(0xff, true)));
    assert!(x2apic(9).receives(5, Destination::from_8bit(0xff, false)));
}

#[test]
fn lowest_priority_takes_the_first_of_the_least_busy() {
    assert_eq!(lowest_priority([]), None);
    assert_eq!(lowest_priority([(3, 0x20), (1, 0x10), (2, 0x10)]), Some(1));
    let mut busy = xapic(0);
    busy.accept(0x90, false);
    busy.ack();
    assert_eq!(lowest_priority([(0, busy.ppr()), (1, xapic(1).ppr())]), Some(1));
}

#[test]
fn delivery_modes_of_messages() {
    use Delivery::*;
    let want =
        [Some(Fixed), Some(LowestPriority), Some(Smi), None, Some(Nmi), Some(Init), None, Some(ExtInt)];
    for (bits, want) in want.iter().enumerate() {
        assert_eq!(Delivery::from_bits(bits as u32), *want);
    }
}
