//! ENCLS: the leaves of system software, one file each.

pub mod eadd;
pub mod eaug;
pub mod eblock;
pub mod ecreate;
pub mod edbgrd;
pub mod edbgwr;
pub mod eextend;
pub mod einit;
pub mod eldb;
pub mod emodpr;
pub mod emodt;
pub mod epa;
pub mod erdinfo;
pub mod eremove;
pub mod etrack;
pub mod eupdatesvn;
pub mod ewb;
mod paging;

use arch::Exception;
use sgx_abi::Encls;

use crate::config::Config;
use crate::leaf::{Done, Leaf, Ran};
use crate::rule::{Rule, Stop, rules};

rules! { ENCLS {
    LEAF_SUPPORTED: Gp, "EAX selects a leaf that the processor has";
}}

impl Config {
    /// True if the processor has the leaf.
    pub fn has_encls(&self, leaf: Encls) -> bool {
        use Encls::*;
        match leaf {
            Eaug | Emodpr | Emodt => self.sgx2,
            Erdinfo | Etrackc | Eldbc | Elduc => self.oversubscription,
            Eupdatesvn => self.eupdatesvn,
            _ => true,
        }
    }
}

/// Executes ENCLS: the leaf in EAX. CPL, mode and whether SGX is enabled have
/// been looked at.
pub fn execute(leaf: &mut Leaf<'_>) -> Result<Done, Exception> {
    let number = leaf.rax() as u32;
    let (rip, inputs) = (leaf.port.rip(), [leaf.rbx(), leaf.rcx(), leaf.rdx()]);
    let ran = run(leaf, number);
    leaf.package.trace.leaf(false, number, rip, inputs, &ran);
    leaf.finish(false, ran)
}

fn run(leaf: &mut Leaf<'_>, number: u32) -> Ran {
    let known = Encls::from_u32(number).filter(|&l| leaf.package.config.has_encls(l));
    let Some(which) = known else { return Err(Stop::Refused(&LEAF_SUPPORTED, 0)) };
    match which {
        Encls::Ecreate => ecreate::run(leaf),
        Encls::Eadd => eadd::run(leaf),
        Encls::Einit => einit::run(leaf),
        Encls::Eremove => eremove::run(leaf),
        Encls::Edbgrd => edbgrd::run(leaf),
        Encls::Edbgwr => edbgwr::run(leaf),
        Encls::Eextend => eextend::run(leaf),
        Encls::Eldb => eldb::eldb(leaf),
        Encls::Eldu => eldb::eldu(leaf),
        Encls::Eblock => eblock::run(leaf),
        Encls::Epa => epa::run(leaf),
        Encls::Ewb => ewb::run(leaf),
        Encls::Etrack => etrack::etrack(leaf),
        Encls::Eaug => eaug::run(leaf),
        Encls::Emodpr => emodpr::run(leaf),
        Encls::Emodt => emodt::run(leaf),
        Encls::Erdinfo => erdinfo::run(leaf),
        Encls::Etrackc => etrack::etrackc(leaf),
        Encls::Eldbc => eldb::eldbc(leaf),
        Encls::Elduc => eldb::elduc(leaf),
        Encls::Eupdatesvn => eupdatesvn::run(leaf),
    }
}

/// The checks of every ENCLS leaf.
pub fn rules() -> Vec<&'static Rule> {
    let tables: &[&[&'static Rule]] = &[
        RULES,
        ecreate::RULES,
        eadd::RULES,
        einit::RULES,
        eremove::RULES,
        edbgrd::RULES,
        edbgwr::RULES,
        eextend::RULES,
        eldb::RULES,
        eldb::coded::RULES,
        eblock::RULES,
        epa::RULES,
        ewb::RULES,
        etrack::RULES,
        etrack::etrackc_rules::RULES,
        eaug::RULES,
        emodpr::RULES,
        emodt::RULES,
        erdinfo::RULES,
        eupdatesvn::RULES,
    ];
    tables.concat()
}
