//! Round trips, and what a hostile file may try.

use std::sync::Mutex;

use mem::Ram;
use serde_json::{Value, json};

use super::*;
use crate::bus::NoBus;
use crate::{Model, Shared};

fn cpu(model: Model) -> Cpu {
    let ram = Ram::new(&[(0, 1 << 20)]).unwrap();
    let shared = std::sync::Arc::new(Shared::new(std::sync::Arc::new(Mutex::new(()))));
    Cpu::new(0, model.into(), ram, std::sync::Arc::new(NoBus::default()), shared)
}

/// In 64-bit mode at that privilege level, with something in every register.
fn busy(model: Model, cpl: u8) -> Cpu {
    let mut cpu = cpu(model);
    let s = &mut cpu.s;
    (s.cr0, s.cr4) = (Cr0::PE | Cr0::PG | Cr0::ET | Cr0::NE | Cr0::WP, Cr4::PAE | Cr4::PCIDE | Cr4::OSXSAVE);
    (s.cr2, s.cr3) = (0xffff_8000_dead_beef, 0x1_2345_6007);
    s.efer = Efer::LME | Efer::LMA | Efer::SCE | Efer::NXE;
    for (i, seg) in s.seg.iter_mut().enumerate() {
        let attr = Attr(Attr::DATA.0 | u32::from(cpl) << 13);
        *seg =
            Segment { selector: (8 * i as u16) | u16::from(cpl), attr, limit: u32::MAX, base: 1 << (20 + i) };
    }
    s.seg[1].attr = Attr(Attr::CODE64.0 | u32::from(cpl) << 13);
    s.cpl = cpl;
    s.tr = Segment { selector: 0x40, attr: Attr::TSS_BUSY, limit: 0x67, base: 0xffff_fe00_0000_3000 };
    s.gdtr = TableRegister { base: 0xffff_fe00_0000_1000, limit: 0x7f };
    s.idtr = TableRegister { base: 0xffff_fe00_0000_0000, limit: 0xfff };
    (s.dr, s.dr6, s.dr7) = ([1, 2, 3, 1 << 63], dr6::FIXED | dr6::BS, dr7::FIXED | 3 | 1 << 16);
    s.rip = 0xffff_ffff_8100_0000;
    for i in 0..16 {
        s.regs.set(i, 0x0123_4567_89ab_cdef << i);
    }
    s.xcr0 = Xcr0::X87 | Xcr0::SSE | Xcr0::AVX;
    for (i, reg) in s.vec[..16].iter_mut().enumerate() {
        reg.0[..4].fill(0x1111_2222_3333_4444 * (i as u64 + 1));
    }
    s.x87.st[3] = 0x8000_1234_5678_9abc_def0 | 1 << 78;
    (s.x87.tag, s.x87.sw, s.mxcsr) = (0x0f, 0x3800, 0x1fa0);
    s.x87.set_cw(0x27f);
    s.msr.mc0 = [u64::MAX, 2, 3, 4];
    cpu.set_firmware_mtrrs(0xc000_0000);
    for (number, value) in [
        (n::LSTAR, 0xffff_ffff_8180_0000),
        (n::STAR, 0x0023_0010_0000_0000),
        (n::SFMASK, 0x47700),
        (n::KERNEL_GS_BASE, 0xffff_8880_0000_0000),
        (n::TSC_ADJUST, 12345),
        (n::TSC_AUX, 3),
        (n::PAT, 0x0407_0506_0007_0106),
        (n::SPEC_CTRL, 1),
    ] {
        cpu.write_msr(number, value).unwrap();
    }
    cpu.set_rflags(rflags::FIXED | rflags::IF | rflags::ZF | rflags::CF | rflags::AC, !0);
    (cpu.activity, cpu.shadow, cpu.nmi_blocked, cpu.pending_db) = (Activity::Halted, true, true, dr6::BS);
    cpu.shared.request(request::NMI);
    lock(&cpu.shared.apic).accept(0x41, true);
    cpu
}

fn all() -> [Cpu; 4] {
    [
        cpu(Model::xeon_e_2288g()),
        busy(Model::xeon_e_2288g(), 0),
        busy(Model::xeon_e_2288g(), 3),
        busy(Model::xeon_8370c(), 3),
    ]
}

#[test]
fn save_load_save_is_equal() {
    for mut original in all() {
        let state = original.save_state();
        let text = serde_json::to_string(&state).unwrap();
        let mut copy = cpu(Model::by_name(original.model.name).unwrap());
        copy.load_state(&serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(copy.save_state(), state);
        assert_eq!(copy.s.flags.get(), original.s.flags.get());
        let pending = |cpu: &Cpu| cpu.shared.pending.load(Ordering::SeqCst);
        assert_eq!(pending(&copy) & EVENTS, pending(&original) & EVENTS);
        assert_eq!(copy.activity, original.activity);
    }
}

#[test]
fn what_no_processor_can_be_is_refused() {
    let good = serde_json::to_value(busy(Model::xeon_e_2288g(), 3).save_state()).unwrap();
    for (pointer, value, name) in [
        ("/cr0", json!(0x8001_0033u64 & !1), "CR0"),
        ("/cr0", json!(1u64 << 40), "CR0"),
        ("/cr0", json!(0x8001_0023u64 | 1 << 10), "CR0"),
        ("/cr4", json!(1u64 << 30), "CR4"),
        ("/cr4", json!(0), "CR0"),
        ("/cr3", json!(1u64 << 52), "CR3"),
        ("/cr3", json!(1u64 << 63), "CR3"),
        ("/pdpte/2", json!(3), "PDPTE"),
        ("/efer", json!(0x101), "IA32_EFER"),
        ("/efer", json!(1 << 20), "IA32_EFER"),
        ("/cpl", json!(4), "CPL"),
        ("/cpl", json!(0), "SS"),
        ("/segments/1/attr", json!(0), "CS"),
        ("/segments/1/attr", json!(0xe0_fb00), "CS"),
        ("/segments/1/attr", json!(1), "segment"),
        ("/segments/4/base", json!(1u64 << 47), "segment"),
        ("/gdtr/base", json!(1u64 << 47), "descriptor table"),
        ("/xcr0", json!(0), "XCR0"),
        ("/xcr0", json!(5), "XCR0"),
        ("/xcr0", json!(0xe7), "XCR0"),
        ("/vectors/0/5", json!(1), "vector registers"),
        ("/opmask/0", json!(1), "vector registers"),
        ("/mxcsr", json!(0x1_0000), "MXCSR"),
        ("/rflags", json!(0), "RFLAGS"),
        ("/rflags", json!(2 | rflags::VM), "RFLAGS"),
        ("/dr6", json!(0), "DR6"),
        ("/dr7", json!(0), "DR7"),
        ("/activity", json!("shutdown"), "activity"),
        ("/activity", json!("wait-for-sipi"), "activity"),
        ("/pending_db", json!(1 << 20), "debug exception"),
        ("/events", json!(request::EXIT), "events"),
        ("/msrs/pat", json!(2), "model-specific register"),
        ("/msrs/lstar", json!(1u64 << 47), "model-specific register"),
        ("/msrs/mtrr_variable/1", json!(1), "model-specific register"),
        ("/apic/base", json!(1u64 << 60), "IA32_APIC_BASE"),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        let got = cpu(Model::xeon_e_2288g()).load_state(&serde_json::from_value(bad).unwrap());
        assert_eq!(got, Err(StateError(name)), "{pointer}");
    }
    let mut unknown = good.clone();
    unknown["more"] = json!(1);
    assert!(serde_json::from_value::<CpuState>(unknown).is_err());
    let mut missing = good;
    missing.as_object_mut().unwrap().remove("cr2");
    assert!(serde_json::from_value::<CpuState>(missing).is_err());
}

/// Paths to all numbers of a value.
fn numbers(value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| numbers(v, &format!("{at}/{i}"), out))
        }
        Value::Object(map) => map.iter().for_each(|(k, v)| numbers(v, &format!("{at}/{k}"), out)),
        Value::Number(_) => out.push(at.into()),
        _ => {}
    }
}

/// Every number replaced by each of some: refused, or a state that saves as itself
/// and that instructions can be executed from.
#[test]
fn whatever_loads_is_whole_and_runs() {
    let good = serde_json::to_value(busy(Model::xeon_e_2288g(), 0).save_state()).unwrap();
    let mut paths = Vec::new();
    numbers(&good, "", &mut paths);
    let mut loaded = 0;
    for path in &paths {
        for value in [0, 1, 0x80, 0xffff, 1 << 31, 0xffff_ffff, 1 << 47, 1 << 63, u64::MAX] {
            let mut bad = good.clone();
            *bad.pointer_mut(path).unwrap() = value.into();
            let Ok(state) = serde_json::from_value::<CpuState>(bad) else { continue };
            let mut cpu = cpu(Model::xeon_e_2288g());
            if cpu.load_state(&state).is_err() {
                continue;
            }
            loaded += 1;
            let saved = cpu.save_state();
            cpu.load_state(&saved).unwrap_or_else(|e| panic!("{path} {value:#x}: {e}"));
            assert_eq!(cpu.save_state(), saved, "{path} {value:#x}");
            cpu.activity = Activity::Active;
            crate::Engine::new(cpu).run(3);
        }
    }
    assert!(loaded > 500, "{loaded} of {}", paths.len());
}
