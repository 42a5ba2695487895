//! 32-bit and PAE paging: access rights, error codes, reserved bits, large
//! pages, the page-directory-pointer registers, and the ways between modes.

use arch::paging::pte;
use arch::regs::{Cr0, Cr4, Efer, gpr};
use archtest::legacy::ROOT;
use archtest::{CODE, DATA, Ended, Kind, Rights, World, guest32, sdm, sdm_allows};
use cpu::mmu::walk::PagingMode::{self, Bits32, None as Off, Pae};

guest32!(read, "mov eax, [edi]", "hlt");
guest32!(write, "mov [edi], eax", "hlt");
guest32!(fetch, "jmp edi");
guest32!(read_user, "mov eax, [edi]", "int3");
guest32!(write_user, "mov [edi], eax", "int3");
guest32!(read_write, "mov eax, [edi]", "mov [edi], ebx", "hlt");
guest32!(set_cr0, "mov cr0, eax", "hlt");
guest32!(set_cr3, "mov cr3, eax", "hlt");
guest32!(set_cr4, "mov cr4, eax", "hlt");
guest32!(remap, "mov eax, [edi]", "mov [esi], edx", "invlpg [edi]", "mov ebx, [edi]", "hlt");
guest32!(
    reload_cr3,
    "mov eax, [edi]",
    "mov [esi], edx",
    "mov ecx, cr3",
    "mov cr3, ecx",
    "mov ebx, [edi]",
    "hlt"
);

const MODES: [PagingMode; 2] = [Bits32, Pae];

fn reg(w: &mut World, n: usize) -> u32 {
    w.cpu().s.regs.get(n) as u32
}

#[test]
fn access_rights_are_the_sdms_for_every_combination() {
    sdm("vol. 3A §4.6.1, §4.7, in the paging of §4.3 and §4.4: the same rules at two levels");
    let mut cases = 0;
    for paging in MODES {
        // Rights of PDE and PTE: U and W of each, and NX where there is one.
        for bits in 0..1 << (5 + 4 + if paging == Pae { 2 } else { 0 }) {
            let flag = |n: u32| bits >> n & 1 != 0;
            let rights = Rights::from_bits(bits);
            let bit = |n: u32, value: u64| if flag(n) { value } else { 0 };
            let pde = bit(5, pte::U) | bit(6, pte::W) | bit(9, pte::NX);
            let page = bit(7, pte::U) | bit(8, pte::W) | bit(10, pte::NX);
            let both = pde & page & (pte::U | pte::W) | (pde | page) & pte::NX;
            for access in [Kind::Read, Kind::Write, Kind::Fetch] {
                check(paging, rights, access, pde, page, both);
                cases += 1;
            }
        }
    }
    println!("{cases} combinations");
}

/// One access to a page at 4 MiB, whose directory entry maps nothing else.
fn check(paging: PagingMode, rights: Rights, access: Kind, pde: u64, page: u64, both: u64) {
    const PAGE: u64 = 0x40_0000;
    let user = rights.user;
    let code = match (user, access) {
        (_, Kind::Fetch) => fetch(),
        (false, Kind::Read) => read(),
        (false, Kind::Write) => write(),
        (true, Kind::Read) => read_user(),
        (true, Kind::Write) => write_user(),
    };
    let mut w = World::legacy(code, paging);
    // The tables themselves lie above 4 MiB, but the walk needs no translation.
    let directory = World::legacy_pde(paging, PAGE);
    let table = w.read_entry(paging, directory) & !0xfff;
    w.write_entry(paging, directory, table | pte::P | pde);
    let at = World::legacy_pte(paging, PAGE);
    w.write_entry(paging, at, DATA | pte::P | page);
    w.write(DATA, &[if user { 0xcc } else { 0xf4 }]);
    // What delivery and the code itself use is the supervisor's or the user's own.
    for page in [0x2f_f000, 0x4000, 0x5000, 0x7000] {
        w.write_entry(paging, World::legacy_pte(paging, page), page | pte::P | pte::W);
    }
    let own = CODE | pte::P | pte::W | if user { pte::U } else { 0 };
    w.write_entry(paging, World::legacy_pte(paging, CODE), own);
    if user {
        w.legacy_user();
        w.gate32(
            3,
            archtest::legacy::gate(
                archtest::legacy::kind::INTERRUPT32,
                3,
                archtest::legacy::sel::KERNEL_CS,
                archtest::STUBS + 48,
                0,
            ),
        );
    }
    rights.apply(w.cpu());
    w.cpu().s.regs.set(gpr::RDI, PAGE);
    let ended = w.run(100);
    let what = format!("{paging:?} {rights:?} {access:?} pde {pde:x} page {page:x}");
    let entry = w.read_entry(paging, at);
    if sdm_allows(rights, access, both) {
        assert_eq!(ended, if user { Ended::Vector(3) } else { Ended::Halt }, "{what}");
        assert_ne!(entry & pte::A, 0, "{what}: accessed");
        assert_eq!(entry & pte::D != 0, access == Kind::Write, "{what}: dirty");
        assert_ne!(w.read_entry(paging, directory) & pte::A, 0, "{what}: the table accessed");
    } else {
        assert_eq!(ended, Ended::Vector(14), "{what}");
        // "I/D … CR4.SMEP = 1, or both CR4.PAE = 1 and IA32_EFER.NXE = 1"
        let told = access == Kind::Fetch && (rights.smep || paging == Pae);
        let expected =
            1 | u32::from(access == Kind::Write) << 1 | u32::from(user) << 2 | u32::from(told) << 4;
        assert_eq!(w.frame32(0), expected, "{what}");
        assert_eq!(w.cpu().s.cr2, PAGE);
        assert_eq!(entry & pte::D, 0, "{what}: a fault leaves D");
    }
}

#[test]
fn reserved_bits_fault_with_rsvd() {
    sdm("vol. 3A tables 4-4 to 4-6, 4-9 to 4-11: reserved bits; xeon-8370c has 46 address bits");
    const LARGE: u64 = 0x40_0000;
    // mode, address, entry that maps it, NXE, reserved?
    let cases = [
        // A 4 MiB page: bit 21 is reserved, bits 20:13 are address bits 39:32.
        (Bits32, LARGE, 7 | pte::PS | 1 << 21, true, true),
        // Bits 62:46, unlike in 4-level paging, where 62:52 are ignored.
        (Pae, DATA, DATA | 7 | 1 << 46, true, true),
        (Pae, DATA, DATA | 7 | 1 << 52, true, true),
        (Pae, DATA, DATA | 7 | 1 << 62, true, true),
        (Pae, DATA, DATA | 7 | pte::NX, true, false),
        (Pae, DATA, DATA | 7 | pte::NX, false, true),
        (Pae, LARGE, 0x20_0000 | 7 | pte::PS | 1 << 13, true, true),
        (Pae, LARGE, 0x20_0000 | 7 | pte::PS | 1 << 20, true, true),
        (Pae, LARGE, 0x20_0000 | 7 | pte::PS | 1 << 12, true, false),
    ];
    for (paging, la, value, nxe, reserved) in cases {
        let mut w = World::legacy(read(), paging);
        let at = if la == LARGE { World::legacy_pde(paging, la) } else { World::legacy_pte(paging, la) };
        w.write_entry(paging, at, value);
        w.cpu().s.regs.set(gpr::RDI, la);
        w.cpu().s.efer.set(Efer::NXE, nxe);
        w.cpu().state_changed();
        let ended = w.run(10);
        assert_eq!(ended == Ended::Vector(14), reserved, "{paging:?} {value:x}: {ended:?}");
        if reserved {
            assert_eq!(w.frame32(0), 0b1001, "{paging:?} {value:x}");
        }
    }
}

#[test]
fn large_pages_translate_and_set_dirty() {
    sdm("vol. 3A §4.3, §4.4, §4.8: 4 MiB pages with CR4.PSE, 2 MiB pages");
    for paging in MODES {
        let mut w = World::legacy(read_write(), paging);
        let la = 0x80_0000u64; // beyond RAM, mapped to its first large page but one
        let at = World::legacy_pde(paging, la);
        w.write_entry(paging, at, (if paging == Bits32 { 0 } else { 0x20_0000 }) | 3 | pte::PS);
        let offset = if paging == Bits32 { DATA } else { 0 } + 0x123;
        w.write64(DATA + 0x123, 77);
        w.cpu().s.regs.set(gpr::RDI, la + offset);
        w.cpu().s.regs.set(gpr::RBX, 99);
        assert_eq!(w.run(10), Ended::Halt);
        assert_eq!(reg(&mut w, gpr::RAX), 77);
        assert_eq!(w.read32(DATA + 0x123), 99);
        let entry = w.read_entry(paging, at);
        assert_eq!(entry & (pte::A | pte::D), pte::A | pte::D);
    }
}

#[test]
fn without_pse_a_directory_entry_names_a_table() {
    sdm("vol. 3A table 4-5: bit 7 is ignored if CR4.PSE = 0");
    let mut w = World::legacy(read(), Bits32);
    let at = World::legacy_pde(Bits32, DATA);
    w.write32(at, w.read32(at) | pte::PS as u32);
    w.write32(DATA, 77);
    w.cpu().s.cr4.remove(Cr4::PSE);
    w.cpu().s.regs.set(gpr::RDI, DATA);
    w.cpu().state_changed();
    assert_eq!(w.run(10), Ended::Halt);
    assert_eq!(reg(&mut w, gpr::RAX), 77);
}

#[test]
fn pse36_reaches_above_four_gigabytes() {
    sdm("vol. 3A §4.3, table 4-4: bits 20:13 of the entry are bits 39:32 of the address");
    // Nothing answers there: all ones, not RAM's content at the low 32 bits.
    let mut w = World::legacy(read(), Bits32);
    w.write32(DATA, 77);
    w.write32(ROOT + 4 * 5, (3 | pte::PS) as u32 | 1 << 13);
    w.cpu().s.regs.set(gpr::RDI, 5 << 22 | DATA);
    assert_eq!(w.run(10), Ended::Halt);
    assert_ne!(reg(&mut w, gpr::RAX), 77);
    assert_eq!(w.cpu().debug_translate(5 << 22 | DATA), Some(1 << 32 | DATA));
}

#[test]
fn invlpg_and_cr3_forget_translations() {
    sdm("vol. 3A §4.10.4.1");
    for paging in MODES {
        for code in [remap(), reload_cr3()] {
            let mut w = World::legacy(code, paging);
            w.write32(DATA, 1);
            w.write32(DATA + 0x1000, 2);
            let regs = &mut w.cpu().s.regs;
            regs.set(gpr::RDI, DATA);
            regs.set(gpr::RSI, World::legacy_pte(paging, DATA));
            regs.set(gpr::RDX, (DATA + 0x1000) | 3);
            assert_eq!(w.run(100), Ended::Halt);
            assert_eq!((reg(&mut w, gpr::RAX), reg(&mut w, gpr::RBX)), (1, 2));
        }
    }
}

#[test]
fn pdptes_are_registers() {
    sdm("vol. 3A §4.4.1: accesses use the registers, not the table in memory");
    let mut w = World::legacy(read(), Pae);
    w.write64(ROOT, 0);
    w.write32(DATA, 77);
    w.cpu().s.regs.set(gpr::RDI, DATA);
    assert_eq!(w.run(10), Ended::Halt);
    assert_eq!(reg(&mut w, gpr::RAX), 77);
}

#[test]
fn loading_pdptes_with_reserved_bits_is_gp() {
    sdm("vol. 3A §4.4.1, table 4-8: bits 2:1, 8:5 and 63:MAXPHYADDR, if P is set; then the registers stay");
    for bit in 0..64u64 {
        let reserved = matches!(bit, 1 | 2 | 5..=8 | 46..);
        for present in [1, 0] {
            let mut w = World::legacy(set_cr3(), Pae);
            let before = w.cpu().s.pdpte;
            w.write64(ROOT + 0x20, w.read64(ROOT));
            w.write64(ROOT + 0x38, 1 << bit | present);
            w.cpu().s.regs.set(gpr::RAX, ROOT + 0x20);
            let ended = w.run(10);
            let bad = reserved && (present == 1 || bit == 0);
            assert_eq!(ended, if bad { Ended::Vector(13) } else { Ended::Halt }, "bit {bit} P {present}");
            if bad {
                assert_eq!(w.cpu().s.pdpte, before);
                assert_eq!(w.cpu().s.cr3, ROOT);
            } else {
                assert_eq!(w.cpu().s.pdpte[3], 1 << bit | present);
            }
        }
    }
}

#[test]
fn control_registers_load_pdptes() {
    sdm("vol. 3A §4.4.1: MOV to CR0 that changes CD, NW or PG; to CR4 that changes PAE, PGE, PSE or SMEP");
    let cr0 = (Cr0::PE | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::MP | Cr0::PG).bits();
    let cr4 = (Cr4::OSFXSR | Cr4::OSXMMEXCPT | Cr4::PAE).bits();
    let cases = [
        (set_cr0(), cr0 | Cr0::CD.bits(), true),
        (set_cr0(), cr0 | Cr0::TS.bits(), false),
        (set_cr0(), cr0 & !Cr0::WP.bits(), false),
        (set_cr4(), cr4 | Cr4::PGE.bits(), true),
        (set_cr4(), cr4 | Cr4::PSE.bits(), true),
        (set_cr4(), cr4 | Cr4::SMEP.bits(), true),
        (set_cr4(), cr4 | Cr4::TSD.bits(), false),
    ];
    for (code, value, loads) in cases {
        let mut w = World::legacy(code, Pae);
        // SMEP asks for pages of the supervisor's own.
        for page in [CODE, 0x4000] {
            w.write64(World::legacy_pte(Pae, page), page | 3);
        }
        w.write64(ROOT + 8, 0x60_1000 | 1);
        w.cpu().s.regs.set(gpr::RAX, value);
        assert_eq!(w.run(10), Ended::Halt, "{value:x}");
        assert_eq!(w.cpu().s.pdpte[1] != 0, loads, "{value:x}");
    }
}

#[test]
fn paging_starts_in_the_mode_that_pae_and_lme_name() {
    sdm("vol. 3A §4.1.1, §9.8.5: CR0.PG with CR4.PAE and EFER.LME; #GP for LME without PAE");
    for (pae, lme, expected) in [
        (false, false, Some(Bits32)),
        (true, false, Some(Pae)),
        (true, true, Some(PagingMode::Level4)),
        (false, true, None),
    ] {
        let mut w = World::legacy(set_cr0(), Off);
        let tables = World::legacy(set_cr0(), if pae { Pae } else { Bits32 });
        let (ram, from) = (w.ram.clone(), tables.ram.clone());
        let mut page = [0; 0x1000];
        for at in (ROOT..ROOT + 0x6000).step_by(0x1000) {
            assert!(from.read(at, &mut page) && ram.write(at, &page));
        }
        let s = &mut w.cpu().s;
        s.cr4.set(Cr4::PAE, pae);
        s.efer.set(Efer::LME, lme);
        if lme {
            s.cr3 = archtest::PML4;
        }
        s.regs.set(gpr::RAX, (s.cr0 | Cr0::PG).bits());
        w.cpu().state_changed();
        let ended = w.run(10);
        let s = &w.cpu().s;
        match expected {
            Some(mode) => {
                assert_eq!(ended, Ended::Halt, "{mode:?}");
                assert_eq!(PagingMode::of(s.cr0, s.cr4, s.efer), mode);
                assert_eq!(s.efer.contains(Efer::LMA), lme);
                if mode == Pae {
                    assert_eq!(s.pdpte[0], 0x60_1001);
                }
            }
            None => {
                assert_eq!(ended, Ended::Vector(13));
                assert!(!s.cr0.contains(Cr0::PG));
            }
        }
    }
}

#[test]
fn long_mode_is_left_through_compatibility_mode() {
    sdm("vol. 3A §9.8.5.4: CR0.PG clear leaves IA-32e mode; EFER.LME may be cleared then, and not before");
    guest32!(
        leave,
        "mov eax, cr0",
        "and eax, 0x7fffffff",
        "mov cr0, eax",
        "mov ecx, 0xc0000080",
        "rdmsr",
        "and eax, ~0x100",
        "wrmsr",
        "mov eax, cr4",
        "and eax, ~0x20",
        "mov cr4, eax",
        "mov eax, 0x600000",
        "mov cr3, eax",
        "mov eax, cr0",
        "or eax, 0x80000000",
        "mov cr0, eax",
        "mov eax, [edi]",
        "hlt"
    );
    let mut w = World::legacy(leave(), Bits32);
    w.write32(DATA, 77);
    let s = &mut w.cpu().s;
    // Compatibility mode on the 4-level tables of a 64-bit world.
    s.cr4 |= Cr4::PAE;
    s.efer = Efer::LME | Efer::LMA;
    s.cr3 = archtest::PML4;
    s.regs.set(gpr::RDI, DATA);
    w.cpu().state_changed();
    assert_eq!(w.run(100), Ended::Halt);
    let s = &w.cpu().s;
    assert_eq!(PagingMode::of(s.cr0, s.cr4, s.efer), Bits32);
    assert_eq!(s.regs.get(gpr::RAX), 77);
}

#[test]
fn pae_may_not_be_cleared_in_ia_32e_mode() {
    sdm("vol. 2B, MOV to CR4: #GP(0) if CR4.PAE is cleared in IA-32e mode");
    let mut w = World::legacy(set_cr4(), Off);
    let s = &mut w.cpu().s;
    s.cr0 |= Cr0::PG;
    s.cr4 = Cr4::PAE;
    s.efer = Efer::LME | Efer::LMA;
    s.cr3 = archtest::PML4;
    s.regs.set(gpr::RAX, 0);
    // 64-bit gates, as IA-32e mode has them.
    for vector in 0..32u64 {
        w.gate(vector as u8, archtest::STUBS + vector * 16, 0x8e00, 0);
    }
    w.cpu().s.idtr.limit = 0xfff;
    w.cpu().state_changed();
    assert_eq!(w.run(10), Ended::Vector(13));
}

#[test]
fn an_access_across_four_gigabytes_wraps() {
    sdm("vol. 1 §3.3.2.1, vol. 3A §3.2: linear addresses have 32 bits outside 64-bit mode");
    for paging in [Off, Bits32, Pae] {
        let mut w = World::legacy(read(), paging);
        // DS begins just below the end, so that offset 8 is linear address 0.
        w.cpu().s.seg[3].base = 0xffff_fff8;
        if paging == Bits32 {
            w.write32(ROOT + 4 * 1023, 3 | pte::PS as u32);
        } else if paging == Pae {
            w.cpu().s.pdpte[3] = 0x60_8000 | 1;
            w.write64(0x60_8000 + 511 * 8, 0x20_0000 | 3 | pte::PS);
        }
        w.write32(0, 0xaabb_ccdd);
        // The last page of the address space: RAM's where mapped.
        w.write32(0x3f_fffc, 0x1122_3344);
        w.cpu().s.regs.set(gpr::RDI, 6);
        w.cpu().state_changed();
        assert_eq!(w.run(10), Ended::Halt, "{paging:?}");
        let high = if paging == Off { 0xffff } else { 0x1122 };
        assert_eq!(reg(&mut w, gpr::RAX), 0xccdd_0000 | high, "{paging:?}");
    }
}
