//! Snapshots of an APIC.

use super::*;

/// An APIC after random use in a mode.
fn used(seed: u64, mut a: Apic) -> Apic {
    let mut random = Random(seed);
    for now in 0..400u64 {
        let (offset, value) = ((random.next() % 64) << 4, random.next());
        let now = now * 1000;
        match random.next() % 8 {
            0 => drop(a.accept(random.next() as u8, value & 1 != 0)),
            1 => drop(a.ack()),
            2 => drop(a.set_lint(offset as usize & 1, value & 1 != 0)),
            3 => drop(a.wrmsr(0x6e0, now + value % 10_000, now)),
            4 => drop(a.expire(now)),
            _ if a.mode() == Mode::XApic => drop(a.write(offset as u32, value as u32, now)),
            _ => drop(a.wrmsr(0x800 + (offset >> 4) as u32, value & 0x2_07ff, now)),
        }
        if random.next().is_multiple_of(16) {
            a.write(0xf0, 0x1ff, now);
        }
    }
    a
}

#[test]
fn save_and_load_give_the_same_apic() {
    for seed in 1..300 {
        for fresh in [Apic::new(config(1)), xapic(2), x2apic(3)] {
            let a = used(seed * 77, fresh.clone());
            let text = serde_json::to_string(&a.save()).unwrap();
            let mut b = fresh;
            b.load(&serde_json::from_str(&text).unwrap()).unwrap_or_else(|e| panic!("{seed}: {e} {text}"));
            assert_eq!(a, b, "{seed}");
        }
    }
}

/// Each value stands where none like it can be.
#[test]
fn registers_that_cannot_be_are_refused() {
    let good = serde_json::to_value(xapic(0).save()).unwrap();
    for (field, value) in [
        ("base", serde_json::json!(0xfee0_0400u64)),
        ("base", serde_json::json!(1u64 << 60)),
        ("svr", serde_json::json!(1 << 20)),
        ("ldr", serde_json::json!(1)),
        ("dfr", serde_json::json!(0)),
        ("esr", serde_json::json!(1)),
        ("errors", serde_json::json!(1 << 9)),
        ("icr", serde_json::json!(1 << 12)),
        ("icr", serde_json::json!(1u64 << 32)),
        ("irr", serde_json::json!([4, 0, 0, 0, 0, 0, 0, 0])),
        ("isr", serde_json::json!([1 << 15, 0, 0, 0, 0, 0, 0, 0])),
        ("tmr", serde_json::json!([1, 0, 0, 0, 0, 0, 0, 0])),
        ("lvt", serde_json::json!([1u32 << 31, 0, 0, 0, 0, 0, 0])),
        ("lvt", serde_json::json!([0, 0, 0, 0, 1 << 14, 0, 0])),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        let mut a = xapic(0);
        let before = a.clone();
        assert!(a.load(&serde_json::from_value(bad).unwrap()).is_err(), "{field}");
        assert_eq!(a, before);
    }
    for (field, value) in [("divide", 4), ("tsc_deadline", 1)] {
        let mut bad = good.clone();
        bad["timer"][field] = value.into();
        assert_eq!(xapic(0).load(&serde_json::from_value(bad).unwrap()), Err("timer"), "{field}");
    }
    let mut off = good;
    off["svr"] = 0xff.into();
    off["lvt"][1] = 0x20.into();
    assert_eq!(xapic(0).load(&serde_json::from_value(off).unwrap()), Err("LVT"), "unmasked while disabled");
}
