//! An encrypted enclave, as good hosts have it.

use std::fs;
use std::path::Path;

use check_interface::CheckClient;
use enclave_abi::call::function;
use enclave_abi::encrypted::Payload;
use enclave_host::driver::has_sgx2;
use enclave_host::{Enclave, Error, Fault, Files, KeyFile, LoadError};
use enclave_interface::{CallError, Caller};

use crate::attack::Random;
use crate::{attack, options, step};

/// Loads it with this key file; with `sealed`, keeps or uses the sealed key there.
fn load(files: &Files, key: &str, sealed: Option<&str>) -> Result<Enclave, LoadError> {
    let mut file = KeyFile::new(key);
    if let Some(sealed) = sealed {
        file = file.sealed(sealed);
    }
    Enclave::load(files.clone(), options().keys(file))
}

/// Says whether it opens with this key file.
pub fn unlock(files: &Files, key: &str, sealed: Option<&str>) -> Result<(), String> {
    let enclave = load(files, key, sealed).map_err(|e| e.to_string())?;
    step("unlocked", CheckClient(&enclave).divide(6, 2) == Ok(Ok(3)))
}

/// All of it. `stream` is its file, in which nothing of the program is to be found; `lies` is
/// [`attack::locked`]'s.
pub fn check(files: &Files, stream: &str, key: &str, lies: bool) -> Result<(), String> {
    step("its files say that it is encrypted", files.is_encrypted())?;
    let none = Enclave::load(files.clone(), options());
    step("without a key", matches!(none, Err(LoadError::Locked)))?;
    let file = fs::read(stream).map_err(|e| e.to_string())?;
    let pages = file.as_chunks::<8>().0;
    let place = pages.iter().position(|word| *word == Payload::MAGIC).ok_or("no description")?;
    let mut page = [0; 4096];
    // content comes in runs of 256 bytes, each behind a head of 64
    for (run, to) in file[place * 8..].chunks(320).zip(page.chunks_mut(256)).take(4) {
        to.copy_from_slice(&run[..256]);
    }
    let payload = Payload::find(&page).ok_or("no payload")?;
    let text = fs::read_to_string(key).map_err(|e| e.to_string())?;
    let bytes: Option<Vec<_>> =
        (0..64).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect();
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or("no key")?;
    attack::locked(files, &payload, &bytes, lies, &mut Random(1), 200)?;

    let sealed = format!("{key}.sealed");
    let enclave = load(files, key, Some(&sealed)).map_err(|e| e.to_string())?;
    let check = CheckClient(&enclave);
    step("with its key it works", check.divide(6, 2) == Ok(Ok(3)))?;
    let again = check.0.call(function::UNLOCK, &[]);
    step("it cannot be unlocked again", again == Err(Error::AlreadyUnlocked))?;
    let (code, marker) = (check.code().unwrap_or_default(), check.marker().unwrap_or_default());
    let found = |part: &[u8]| file.windows(part.len()).any(|window| window == part);
    step("its code is not in its file", code.len() == 256 && !code.chunks(16).any(found))?;
    step("nor are its texts", marker.len() > 16 && !found(marker.as_bytes()))?;
    let written = check.write_code();
    println!("writing its code: {written:?}");
    if has_sgx2() {
        let fault = matches!(
            written,
            Err(CallError::Call(Error::Fault { fault, .. }))
                if fault.vector == Fault::PAGE && fault.error_code & Fault::SGX != 0
        );
        step("its code cannot be written: the EPCM refuses", fault)?;
    } else {
        step("its code can be written, without SGX2", written == Ok(true))?;
    }
    drop(enclave);
    step("the sealed key is kept", Path::new(&sealed).exists())?;
    unlock(files, "nowhere.key", Some(&sealed))
}
