//! What a machine is born with, so that quotes are made in it without a network: the
//! architectural enclaves, signed by the platform's maker, the programs that ask them, the PCK
//! certificate's chain and the collateral. The small image has it where it is handed; the init
//! of a system on a disk finds it in `/run` (`attestation` in `guest/init`).

use crate::exit::Error;
use architectural::{AESMD, Enclave, KLUIS_QUOTE};
use dcap::pki::to_pem;
use enclave_image::sigstruct;
use manufacturer::Manufacturer;
use platform::Platform;

/// Where it is in the guest; `quoting::FOLDER` is the same.
const FOLDER: &str = "usr/share/kluis/attestation";

/// An initramfs with it. All of it follows from the platform and the day.
///
/// # Errors
/// The platform's maker cannot sign or issue it.
pub(super) fn handed(platform: &mut Platform, quiet: bool) -> Result<Vec<u8>, Error> {
    let maker = Manufacturer::of_platform(platform, || {
        if !quiet {
            eprintln!(
                "kluis: making the key that signs the platform's quoting enclave, which takes seconds, once"
            );
        }
    })?;
    let issued = maker.issued(crate::attest::now()?)?;
    let file = |name: &str, data: Vec<u8>| (format!("{FOLDER}/{name}"), 0o644, data);
    let mut files = vec![
        ("bin/kluis-quote".to_owned(), 0o755, KLUIS_QUOTE.to_vec()),
        ("bin/aesmd".to_owned(), 0o755, AESMD.to_vec()),
        file("root.pem", to_pem([issued.root.der()]).into()),
        file("pck-chain.pem", issued.chain.into()),
        file("collateral.json", issued.collateral.to_json().into()),
    ];
    for enclave in Enclave::ALL {
        let pages = enclave.pages();
        let signed = maker.sign(enclave.statement(pages.measure(), 0))?;
        files.push(file(&format!("{}.sgxs", enclave.name()), pages.write()));
        files.push(file(&format!("{}.sig", enclave.name()), sigstruct::write(&signed)));
    }
    image::handed(&files).ok_or_else(|| Error::failed("the enclaves do not fit into an initramfs"))
}
