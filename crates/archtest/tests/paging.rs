//! Paging: access rights, error codes, A and D bits, large pages, invalidation.

use arch::paging::pte;
use arch::regs::gpr;
use archtest::{CODE, DATA, Ended, Kind, PML4, Rights, World, guest, sdm, sdm_allows};

guest!(read, "mov rax, [rdi]", "hlt");
guest!(write, "mov [rdi], rax", "hlt");
guest!(fetch, "jmp rdi");
guest!(read_user, "mov rax, [rdi]", "int3");
guest!(write_user, "mov [rdi], rax", "int3");
guest!(fetch_user, "jmp rdi");
guest!(read_write, "mov rax, [rdi]", "mov [rdi], rbx", "hlt");
guest!(remap, "mov rax, [rdi]", "mov [rsi], rdx", "invlpg [rdi]", "mov rbx, [rdi]", "hlt");
guest!(
    reload_cr3,
    "mov rax, [rdi]",
    "mov [rsi], rdx",
    "mov rcx, cr3",
    "mov cr3, rcx",
    "mov rbx, [rdi]",
    "hlt"
);

#[test]
fn access_rights_are_the_sdms_for_every_combination() {
    sdm("vol. 3A §4.6.1, §4.7");
    let mut cases = 0;
    for bits in 0..256u32 {
        let flag = |n: u32| bits >> n & 1 != 0;
        let (u, writable, nx) = (flag(5), flag(6), flag(7));
        let rights = Rights::from_bits(bits);
        let user = rights.user;
        for access in [Kind::Read, Kind::Write, Kind::Fetch] {
            let code = match (user, access) {
                (false, Kind::Read) => read(),
                (false, Kind::Write) => write(),
                (false, Kind::Fetch) => fetch(),
                (true, Kind::Read) => read_user(),
                (true, Kind::Write) => write_user(),
                (true, Kind::Fetch) => fetch_user(),
            };
            let mut w = World::new(code);
            let page = DATA
                | pte::P
                | if u { pte::U } else { 0 }
                | if writable { pte::W } else { 0 }
                | if nx { pte::NX } else { 0 };
            w.write64(World::pte(DATA), page);
            // Where a fetch is allowed it meets HLT, or INT3 in user mode.
            w.write(DATA, &[if user { 0xcc } else { 0xf4 }]);
            // The code's own page must be fetchable under SMEP.
            let own = CODE | pte::P | pte::W | if user { pte::U } else { 0 };
            w.write64(World::pte(CODE), own);
            for stack in [0x2f_f000, 0x4000, 0x5000, 0x7000] {
                w.write64(World::pte(stack), stack | pte::P | pte::W);
            }
            if user {
                w.user(64);
                w.gate(3, archtest::STUBS + 48, 0xee00, 0);
            }
            rights.apply(w.cpu());
            w.cpu().s.regs.set(gpr::RDI, DATA);
            let ended = w.run(100);
            let allowed = sdm_allows(rights, access, page);
            let good = if user { Ended::Vector(3) } else { Ended::Halt };
            let what = format!("{rights:?} {access:?} page {page:x}");
            if allowed {
                assert_eq!(ended, good, "{what}");
                let entry = w.read64(World::pte(DATA));
                assert_ne!(entry & pte::A, 0, "{what}: accessed");
                assert_eq!(entry & pte::D != 0, access == Kind::Write, "{what}: dirty");
            } else {
                assert_eq!(ended, Ended::Vector(14), "{what}");
                let expected = 1
                    | u64::from(access == Kind::Write) << 1
                    | u64::from(user) << 2
                    | u64::from(access == Kind::Fetch) << 4;
                assert_eq!(w.frame(0), expected, "{what}");
                assert_eq!(w.cpu().s.cr2, DATA);
                assert_eq!(w.read64(World::pte(DATA)) & pte::D, 0, "{what}: a fault leaves D");
            }
            cases += 1;
        }
    }
    println!("{cases} combinations");
}

#[test]
fn reserved_bits_fault_with_rsvd() {
    sdm("vol. 3A §4.7: RSVD; table 4-14, 4-19");
    // Bit 51 is beyond the model's 46 bits; PS in a PML4E is reserved.
    for (at, entry) in [
        (World::pte(DATA), DATA | 3 | 1 << 51),
        (PML4, 0x9000 | 7 | pte::PS),
        (0xa000 + 16, 0x40_2000 | 7 | pte::PS), // bit 13 inside a 2 MiB frame
    ] {
        let mut w = World::new(read());
        // Interrupt delivery must survive: it uses the same tables for PML4.
        w.cpu().s.regs.set(gpr::RDI, if at == 0xa010 { 0x40_0000 } else { DATA });
        w.write64(at, entry);
        let ended = w.run(10);
        if at == PML4 {
            assert_eq!(ended, Ended::Shutdown);
        } else {
            assert_eq!(ended, Ended::Vector(14));
            assert_eq!(w.frame(0), 0b1001);
        }
    }
}

#[test]
fn large_pages_translate_and_set_dirty_once() {
    sdm("vol. 3A §4.5, §4.8");
    let mut w = World::new(read_write());
    w.write64(0xa000 + 2 * 8, 0x20_0000 | 3 | pte::PS); // 4 MiB..6 MiB -> 2 MiB..4 MiB
    w.write64(DATA + 0x123, 77);
    w.cpu().s.regs.set(gpr::RDI, 0x40_0000 + 0x123);
    w.cpu().s.regs.set(gpr::RBX, 99);
    assert_eq!(w.run(10), Ended::Halt);
    assert_eq!(w.cpu().s.regs.get(gpr::RAX), 77);
    assert_eq!(w.read64(DATA + 0x123), 99);
    let entry = w.read64(0xa000 + 2 * 8);
    assert_eq!(entry & (pte::A | pte::D), pte::A | pte::D);
}

#[test]
fn invlpg_and_cr3_forget_translations() {
    sdm("vol. 3A §4.10.4.1");
    for code in [remap(), reload_cr3()] {
        let mut w = World::new(code);
        w.write64(DATA, 1);
        w.write64(DATA + 0x1000, 2);
        let cpu = w.cpu();
        cpu.s.regs.set(gpr::RDI, DATA);
        cpu.s.regs.set(gpr::RSI, World::pte(DATA));
        cpu.s.regs.set(gpr::RDX, (DATA + 0x1000) | 3);
        assert_eq!(w.run(100), Ended::Halt);
        assert_eq!(w.cpu().s.regs.get(gpr::RAX), 1);
        assert_eq!(w.cpu().s.regs.get(gpr::RBX), 2);
    }
}

#[test]
fn a_write_across_pages_writes_nothing_if_the_second_faults() {
    sdm("vol. 3A §6.5: restart");
    let mut w = World::new(write());
    w.write64(World::pte(DATA + 0x1000), 0);
    w.cpu().s.regs.set(gpr::RDI, DATA + 0xffc);
    w.cpu().s.regs.set(gpr::RAX, u64::MAX);
    assert_eq!(w.run(10), Ended::Vector(14));
    assert_eq!(w.cpu().s.cr2, DATA + 0x1000);
    assert_eq!(w.read64(DATA + 0xff8), 0);
}
