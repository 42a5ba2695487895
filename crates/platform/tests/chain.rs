//! The processor goes on with the chain of security versions where the folder's
//! part of it ends.

use platform::roots::{Roots, SVN_MAX};

#[test]
fn processor_goes_on_with_the_same_chain() {
    let mut roots = Roots::generate(0).unwrap();
    roots.svn = 200;
    let fused = roots.fused();
    let processor = sgx::keys::Roots {
        seal_fuses: fused.seal_fuses,
        provisioning_fuses: fused.provisioning_fuses,
        owner_epoch: fused.owner_epoch,
        cpusvn: fused.svn,
        svn_secret: fused.svn_secret,
    };
    assert_eq!(processor.cpusvn(), fused.cpusvn().to_bytes());
    for n in 0..=SVN_MAX {
        assert_eq!(processor.svn_secret(n), roots.svn_secret(n), "{n}");
    }
}
