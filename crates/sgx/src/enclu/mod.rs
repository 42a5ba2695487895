//! ENCLU: the leaves of enclaves and their hosts, one file each.

pub mod eaccept;
pub mod eacceptcopy;
pub mod edeccssa;
pub mod eenter;
pub mod eexit;
pub mod egetkey;
pub mod emodpe;
pub(crate) mod entry;
pub mod ereport;
pub mod eresume;
pub(crate) mod operand;

use arch::Exception;
use sgx_abi::Enclu;

use crate::config::Config;
use crate::leaf::{Done, Leaf, Ran};
use crate::rule::{Rule, Stop, rules};

rules! { ENCLU {
    LEAF_SUPPORTED: Gp, "EAX selects a leaf that the processor has";
    OUTSIDE: Gp, "EENTER and ERESUME are executed outside an enclave";
    INSIDE: Gp, "every other leaf is executed inside an enclave";
}}

impl Config {
    /// True if the processor has the leaf.
    pub fn has_enclu(&self, leaf: Enclu) -> bool {
        match leaf {
            Enclu::Eaccept | Enclu::Emodpe | Enclu::Eacceptcopy => self.sgx2,
            Enclu::Edeccssa => self.edeccssa,
            _ => true,
        }
    }
}

/// Executes ENCLU: the leaf in EAX. CPL, mode and whether SGX is enabled have
/// been looked at.
pub fn execute(leaf: &mut Leaf<'_>) -> Result<Done, Exception> {
    let number = leaf.rax() as u32;
    let (rip, inputs) = (leaf.port.rip(), [leaf.rbx(), leaf.rcx(), leaf.rdx()]);
    let ran = run(leaf, number);
    leaf.package.trace.leaf(true, number, rip, inputs, &ran);
    leaf.finish(true, ran)
}

fn run(leaf: &mut Leaf<'_>, number: u32) -> Ran {
    let known = Enclu::from_u32(number).filter(|&l| leaf.package.config.has_enclu(l));
    let Some(which) = known else { return Err(Stop::Refused(&LEAF_SUPPORTED, 0)) };
    let inside = leaf.port.thread().is_some();
    if matches!(which, Enclu::Eenter | Enclu::Eresume) {
        OUTSIDE.check(!inside)?;
    } else {
        INSIDE.check(inside)?;
    }
    match which {
        Enclu::Ereport => ereport::run(leaf),
        Enclu::Egetkey => egetkey::run(leaf),
        Enclu::Eenter => eenter::run(leaf),
        Enclu::Eresume => eresume::run(leaf),
        Enclu::Eexit => eexit::run(leaf),
        Enclu::Eaccept => eaccept::run(leaf),
        Enclu::Emodpe => emodpe::run(leaf),
        Enclu::Eacceptcopy => eacceptcopy::run(leaf),
        Enclu::Edeccssa => edeccssa::run(leaf),
    }
}

/// The checks of every ENCLU leaf.
pub fn rules() -> Vec<&'static Rule> {
    let tables: &[&[&'static Rule]] = &[
        RULES,
        ereport::RULES,
        egetkey::RULES,
        eenter::RULES,
        eresume::RULES,
        eexit::RULES,
        eaccept::RULES,
        emodpe::RULES,
        eacceptcopy::RULES,
        edeccssa::RULES,
    ];
    tables.concat()
}
