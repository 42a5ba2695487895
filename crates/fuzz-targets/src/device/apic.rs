//! The local APIC: registers, MSRs, messages and time.

use crate::input::Input;
use cpu::apic::{Apic, Config, Delivery, Effect, Lvt, Ratio};

pub(super) fn apic(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.u8();
    let mut apic = Apic::new(Config {
        id: u32::from(how >> 4),
        bsp: how & 1 != 0,
        x2apic: how & 2 != 0,
        tsc_deadline: how & 4 != 0,
        eoi_suppression: how & 8 != 0,
        maxphyaddr: 39,
        timer: Ratio { tsc: 154, bus: 1 },
    });
    let mut now = 0u64;
    for _ in 0..2000 {
        if input.is_empty() {
            break;
        }
        let effect = match input.u8() {
            0..0x50 => apic.write(u32::from(input.u8()) << 4, input.u32(), now),
            0x50..0x70 => {
                apic.read(input.number() as u32, now);
                None
            }
            0x70..0xa0 => apic.wrmsr(msr(&mut input), input.number(), now).unwrap_or(None),
            0xa0..0xb0 => {
                let _ = apic.rdmsr(msr(&mut input), now);
                None
            }
            0xb0..0xd0 => {
                let (mode, vector) = (Delivery::from_bits(input.u8().into()), input.u8());
                apic.deliver(mode.unwrap_or(Delivery::Fixed), vector, vector & 1 != 0);
                None
            }
            0xd0..0xe0 => {
                if let Some(vector) = apic.pending() {
                    assert_eq!(apic.ack(), vector);
                }
                None
            }
            0xe0..0xf0 => {
                // A time-stamp counter takes centuries to come near its end.
                now = now.saturating_add(input.number()).min(1 << 62);
                apic.expire(now);
                if let Some(at) = apic.deadline() {
                    assert!(at > now, "expired at {now}, the deadline is {at}");
                }
                None
            }
            0xf0 => {
                apic.init();
                None
            }
            0xf1 => {
                apic.reset();
                None
            }
            n => {
                apic.set_lint(usize::from(n & 1), n & 2 != 0);
                apic.local_event(if n & 1 != 0 { Lvt::Error } else { Lvt::Thermal });
                None
            }
        };
        if let Some(Effect::Send(ipi)) = effect {
            // What a message asks for is delivered to oneself, too.
            let _ = format!("{ipi:?}");
        }
    }
}

fn msr(input: &mut Input<'_>) -> u32 {
    match input.u8() {
        0 => 0x1b,
        1 => 0x6e0,
        2 => input.u32(),
        n => 0x800 + u32::from(n),
    }
}
