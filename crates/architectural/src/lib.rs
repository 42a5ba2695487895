//! The architectural enclaves, as they are built with this program, and the program of the
//! guest that asks them for quotes.
//!
//! They are unsigned: the maker of a platform signs them, so that each platform has its own
//! MRSIGNER. What they are (product, security version, attributes) is what the maker knows of
//! them from [`provisioning`]. Their sources are in `guest/architectural`.
#![forbid(unsafe_code)]

use enclave_abi::Settings;
use enclave_abi::build::XFRM;
use enclave_image::elf::Program;
use enclave_image::{Statement, layout, sgxs};
use provisioning::{PCE_PRODUCT, PCE_SVN, QE_PRODUCT, QE_SVN, pce_attributes, qe_attributes};
use sgx_abi::{AttributeFlags, Attributes, MiscSelect};

/// The program `kluis-quote` of the guest, static.
pub static KLUIS_QUOTE: &[u8] = include_bytes!(env!("KLUIS_QUOTE"));

/// Aligned, as the reader of ELF files wants its bytes.
#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

/// The program `aesmd` of the guest, static: the service through which others get quotes.
pub static AESMD: &[u8] = include_bytes!(env!("KLUIS_AESMD"));

static PCE: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("KLUIS_PCE")));
static QE: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("KLUIS_QE")));

/// An architectural enclave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enclave {
    /// The provisioning-certification enclave.
    Pce,
    /// The quoting enclave.
    Qe,
}

impl Enclave {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Pce, Self::Qe];

    /// The stem of its files' names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pce => "pce",
            Self::Qe => "qe",
        }
    }

    /// Its pages, without a signature.
    pub fn pages(self) -> sgxs::Enclave {
        let program = match self {
            Self::Pce => &PCE.0,
            Self::Qe => &QE.0,
        };
        let program = Program::read(program).expect("built with the flags of enclaves");
        layout::lay_out(&program, &self.settings()).expect("these settings make an enclave")
    }

    /// What is signed of the enclave with this measurement, `date` as
    /// [`enclave_image::sigstruct::date`] gives it.
    pub fn statement(self, mrenclave: [u8; 32], date: u32) -> Statement {
        let (isvprodid, isvsvn, attributes) = match self {
            Self::Pce => (PCE_PRODUCT, PCE_SVN, pce_attributes()),
            Self::Qe => (QE_PRODUCT, QE_SVN, qe_attributes()),
        };
        // INIT is EINIT's to set
        let flags = attributes.flags - AttributeFlags::INIT;
        Statement {
            mrenclave,
            attributes: Attributes { flags, xfrm: XFRM },
            miscselect: MiscSelect::empty(),
            isvprodid,
            isvsvn,
            isvfamilyid: [0; 16],
            isvextprodid: [0; 16],
            date,
        }
    }

    /// Small, and of one size on all processors: a quote shall not fail for want of EPC.
    fn settings(self) -> Settings {
        let heap = 256 << 10;
        let threads = match self {
            Self::Pce => 1,
            // for services that ask for several quotes at a time
            Self::Qe => 4,
        };
        Settings { heap, heap_limit: heap, threads, ..Settings::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_enclaves_that_ask_for_no_more_than_they_need() {
        for enclave in Enclave::ALL {
            let pages = enclave.pages();
            let report = enclave_image::inspect::stream(&pages);
            assert_eq!(report.warnings, [""; 0], "{enclave:?}");
            // read again from their stream, they are the same
            let again = sgxs::Enclave::read(&pages.write()).unwrap();
            assert_eq!(again.measure(), pages.measure());
            let statement = enclave.statement(pages.measure(), 0);
            let flags = AttributeFlags::MODE64BIT | AttributeFlags::PROVISIONKEY;
            assert_eq!((statement.attributes.flags, statement.attributes.xfrm), (flags, 3));
        }
        assert_ne!(Enclave::Pce.pages().measure(), Enclave::Qe.pages().measure());
    }

    #[test]
    fn paths_of_this_machine_are_not_in_them() {
        for program in [&PCE.0, &QE.0, KLUIS_QUOTE, AESMD] {
            let here = env!("CARGO_MANIFEST_DIR").as_bytes();
            let target = env!("KLUIS_PCE").split("/out/").next().unwrap_or_default().as_bytes();
            for path in [here, target] {
                assert!(!program.windows(path.len()).any(|window| window == path));
            }
        }
    }
}
