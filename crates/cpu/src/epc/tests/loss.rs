//! The EPC's content is lost.

use super::*;

#[test]
fn a_lost_epc_faults() {
    let mut w = world();
    w.enter(&[0x48, 0x8b, 0x03, 0xeb, 0xfb]); // mov rax, [rbx]; jmp back
    w.spin();
    w.package.dram.lose();
    assert_eq!(w.vector(), 14);
    assert_eq!(w.frame::<1>()[0] as u32 & pf::SGX, pf::SGX);
    assert!(w.package.is_lost());
}

/// *SDM vol. 3B, "Machine-Check Architecture"*.
#[test]
fn memory_that_does_not_verify_is_a_machine_check() {
    for mce in [false, true] {
        let mut w = world();
        w.cpu().s.cr4.set(arch::regs::Cr4::MCE, mce);
        w.enter(&[0x48, 0x8b, 0x03, 0xeb, 0xfb]); // mov rax, [rbx]; jmp back
        w.spin();
        let page = epc(DATA).0;
        while w.package.dram.tamper(mee::Drill::Flip, page).is_err() {
            w.cpu().shared.request(request::EPC);
            w.spin();
        }
        assert_eq!(w.vector(), if mce { 18 } else { 14 });
        assert!(w.package.is_lost());
        let mcg = w.cpu().read_msr(arch::msr::MCG_STATUS).unwrap();
        let [_, status, address, _] = w.cpu().s.msr.mc0;
        if mce {
            assert_eq!(mcg, 5, "RIPV, MCIP");
            assert_eq!(status, 0xbd00_0000_0000_00cf & !(1 << 57));
            assert_eq!(address, w.package.physical(sgx::EpcPage(page)));
        } else {
            assert_eq!((mcg, status, address), (0, 0, 0));
        }
    }
}
